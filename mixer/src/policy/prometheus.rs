//! The adapter `prometheus` (MX-70): instances of `metric` as counters, gauges and distributions in Prometheus' text.
//!
//! One task owns the series of a handler; samples come by message and are dropped, and counted, when it cannot keep up.

use super::instance::{Instance, Template, texts};
use super::object::references;
use crate::expression::eval::{Failure, Reader};
use crate::yaml::{Fault, Place};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// What names of metrics begin with, if the metric does not say.
const NAMESPACE: &str = "istio";
/// The most series of one metric; further ones are dropped and counted.
const MAX_SERIES: usize = 10_000;
/// The most buckets of a distribution.
const MAX_BUCKETS: usize = 256;
/// Samples that may wait.
const WAITING: usize = 4_096;
/// How often series are looked at for expiry, if the handler does not say.
const EXPIRY_CHECK: Duration = Duration::from_secs(300);

/// A configured adapter.
#[derive(Debug)]
pub struct Prometheus {
    metrics: Arc<[Metric]>,
    events: mpsc::Sender<Event>,
    dropped: AtomicU64,
}

/// A metric as configured.
#[derive(Debug)]
struct Metric {
    instance: String,
    family: String,
    help: String,
    kind: Kind,
    labels: Vec<String>,
}

#[derive(Debug)]
enum Kind {
    Gauge,
    Counter,
    /// Upper bounds, rising.
    Distribution(Vec<f64>),
}

#[derive(Debug)]
enum Event {
    Sample(usize, Vec<String>, f64),
    Show(oneshot::Sender<String>),
}

impl Prometheus {
    /// Reads `params`; needs a runtime of tokio.
    ///
    /// # Errors
    /// An unknown field or a value out of range.
    pub fn parse(params: &Place<'_>) -> Result<Self, Fault> {
        let mut fields = params.fields()?;
        let metrics = fields.list("metrics")?.iter().map(metric).collect::<Result<Vec<_>, _>>()?;
        let (mut expiry, mut check) = (None, EXPIRY_CHECK);
        if let Some(policy) = fields.get("metricsExpirationPolicy") {
            let mut fields = policy.fields()?;
            expiry = Some(fields.need("metricsExpiryDuration")?.duration()?);
            check = fields.duration("expiryCheckIntervalDuration", expiry.unwrap_or(EXPIRY_CHECK) / 2)?;
            fields.done()?;
        }
        fields.done()?;
        let metrics: Arc<[Metric]> = metrics.into();
        let (events, received) = mpsc::channel(WAITING);
        let owner = Owner { metrics: metrics.clone(), series: BTreeMap::new(), refused: 0, expiry };
        tokio::spawn(owner.run(received, check.max(Duration::from_secs(1))));
        Ok(Self { metrics, events, dropped: AtomicU64::new(0) })
    }

    fn find(&self, instance: &Instance) -> Option<(usize, &Metric)> {
        let Instance { name, namespace, .. } = instance;
        self.metrics.iter().enumerate().find(|(_, metric)| {
            references(&metric.instance, namespace).iter().any(|(_, space, short)| space == namespace && short == name)
        })
    }

    /// Whether there is a metric for an instance, with labels that the instance has.
    ///
    /// # Errors
    /// Says what to write.
    pub fn takes(&self, instance: &Instance) -> Result<(), String> {
        let Template::Metric { dimensions, .. } = &instance.template else {
            return Err("the adapter prometheus takes the template metric".to_owned());
        };
        let Some((_, metric)) = self.find(instance) else {
            let Instance { name, namespace, .. } = instance;
            return Err(format!(
                "the handler has no metric for it: add one with instanceName {name}.instance.{namespace}"
            ));
        };
        match metric.labels.iter().find(|label| !dimensions.iter().any(|(name, _)| name == *label)) {
            Some(label) => Err(format!("it has no dimension {label}, which is a label of {}", metric.family)),
            None => Ok(()),
        }
    }

    /// Takes a sample.
    ///
    /// # Errors
    /// Where an expression has no value.
    pub fn report<'a>(&self, instance: &'a Instance, reader: &mut Reader<'a, '_>) -> Result<(), Failure> {
        let (Template::Metric { value, dimensions }, Some((index, metric))) = (&instance.template, self.find(instance))
        else {
            return Ok(());
        };
        let value = value.eval(reader)?.as_number().unwrap_or_default();
        let dimensions = texts(dimensions, reader)?;
        let label = |name: &String| {
            let found = dimensions.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.to_string()).unwrap_or_default()
        };
        let sample = Event::Sample(index, metric.labels.iter().map(label).collect(), value);
        if self.events.try_send(sample).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// All series in Prometheus' text.
    pub async fn show(&self) -> String {
        let (answer, answered) = oneshot::channel();
        match self.events.send(Event::Show(answer)).await {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_ended) => String::new(),
        }
    }

    /// Samples that were dropped because the owner could not keep up.
    pub fn last_error(&self) -> Option<String> {
        let dropped = self.dropped.load(Ordering::Relaxed);
        (dropped > 0).then(|| format!("{dropped} samples dropped"))
    }
}

fn metric(place: &Place<'_>) -> Result<Metric, Fault> {
    let mut fields = place.fields()?;
    let instance = fields.need("instanceName")?.text()?;
    let name = fields.text("name")?;
    let short = instance.split('.').next().unwrap_or_default();
    let name = if name.is_empty() { short.to_owned() } else { name };
    let namespace = fields.get("namespace").map_or_else(|| Ok(NAMESPACE.to_owned()), |place| place.text())?;
    let family: String = if namespace.is_empty() { name } else { format!("{namespace}_{name}") };
    let help = fields.text("description")?;
    let labels = fields.list("labelNames")?.iter().map(Place::text).collect::<Result<Vec<_>, _>>()?;
    let buckets = fields.get("buckets").map(|place| bounds(&place)).transpose()?;
    let kind = match fields.text("kind")?.as_str() {
        "" | "GAUGE" | "UNSPECIFIED" => Kind::Gauge,
        "COUNTER" => Kind::Counter,
        "DISTRIBUTION" => Kind::Distribution(buckets.unwrap_or_else(default_bounds)),
        other => return Err(place.fault(format!("unknown kind {other}: GAUGE, COUNTER or DISTRIBUTION"))),
    };
    fields.done()?;
    let legal = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match std::iter::once(&family).chain(&labels).find(|name| !legal(name)) {
        Some(name) => Err(place.fault(format!("{name} is no name of Prometheus: letters, digits and _"))),
        None => Ok(Metric { instance, family, help, kind, labels }),
    }
}

/// Prometheus' own.
fn default_bounds() -> Vec<f64> {
    vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
}

fn bounds(place: &Place<'_>) -> Result<Vec<f64>, Fault> {
    let mut fields = place.fields()?;
    let (linear, exponential, explicit) =
        (fields.get("linearBuckets"), fields.get("exponentialBuckets"), fields.get("explicitBuckets"));
    let found = match (linear, exponential, explicit) {
        (Some(place), None, None) => {
            let mut fields = place.fields()?;
            let count = count(&fields.need("numFiniteBuckets")?)?;
            let (width, offset) = (fields.need("width")?.number()?, fields.need("offset")?.number()?);
            fields.done()?;
            (0..=count).map(|n| offset + width * f64::from(n)).collect()
        }
        (None, Some(place), None) => {
            let mut fields = place.fields()?;
            let count = count(&fields.need("numFiniteBuckets")?)?;
            let (factor, scale) = (fields.need("growthFactor")?.number()?, fields.need("scale")?.number()?);
            fields.done()?;
            (0..=count).map(|n| scale * factor.powi(i32::try_from(n).unwrap_or(i32::MAX))).collect()
        }
        (None, None, Some(place)) => {
            let mut fields = place.fields()?;
            let bounds = fields.list("bounds")?.iter().map(Place::number).collect::<Result<Vec<_>, _>>()?;
            fields.done()?;
            bounds
        }
        _ => return Err(place.fault("write one of linearBuckets, exponentialBuckets and explicitBuckets")),
    };
    fields.done()?;
    if found.is_empty() || found.len() > MAX_BUCKETS || !found.is_sorted_by(|one: &f64, other| one < other) {
        return Err(place.fault(format!("1 to {MAX_BUCKETS} rising bounds are asked for")));
    }
    Ok(found)
}

fn count(place: &Place<'_>) -> Result<u32, Fault> {
    let most = i64::try_from(MAX_BUCKETS).unwrap_or(i64::MAX);
    u32::try_from(place.int()?.clamp(0, most)).map_err(|_| place.fault("a count is asked for"))
}

/// What the owner has: series by metric and labels.
struct Owner {
    metrics: Arc<[Metric]>,
    series: BTreeMap<(usize, Vec<String>), Series>,
    refused: u64,
    expiry: Option<Duration>,
}

struct Series {
    value: f64,
    /// Of a distribution: how many were at most each bound, and how many there were.
    at_most: Vec<u64>,
    count: u64,
    touched: Instant,
}

impl Owner {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, check: Duration) {
        let mut look = tokio::time::interval(check);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    None => return,
                    Some(Event::Sample(metric, labels, value)) => self.add(metric, labels, value),
                    // Whoever asked may have gone away meanwhile.
                    Some(Event::Show(answer)) => drop(answer.send(self.show())),
                },
                _ = look.tick() => {
                    if let Some(expiry) = self.expiry {
                        self.series.retain(|_, series| series.touched.elapsed() < expiry);
                    }
                }
            }
        }
    }

    fn add(&mut self, index: usize, labels: Vec<String>, value: f64) {
        let Some(metric) = self.metrics.get(index) else { return };
        let key = (index, labels);
        if self.series.len() >= MAX_SERIES * self.metrics.len() && !self.series.contains_key(&key) {
            self.refused += 1;
            return;
        }
        let bounds = if let Kind::Distribution(bounds) = &metric.kind { bounds.as_slice() } else { &[] };
        let series = self.series.entry(key).or_insert_with(|| Series {
            value: 0.0,
            at_most: vec![0; bounds.len()],
            count: 0,
            touched: Instant::now(),
        });
        series.touched = Instant::now();
        series.count += 1;
        match metric.kind {
            Kind::Gauge => series.value = value,
            Kind::Counter | Kind::Distribution(_) => series.value += value,
        }
        for (bound, at_most) in bounds.iter().zip(&mut series.at_most) {
            *at_most += u64::from(value <= *bound);
        }
    }

    fn show(&self) -> String {
        let mut text = String::new();
        let mut last = None;
        for ((index, values), series) in &self.series {
            let Some(metric) = self.metrics.get(*index) else { continue };
            let first = last.replace(index) != Some(index);
            // Writing to a String cannot fail.
            let _fits = metric.write(&mut text, first, values, series).is_err();
        }
        if self.refused > 0 {
            let name = "mixer_prometheus_refused_samples_total";
            let _fits = writeln!(text, "# TYPE {name} counter\n{name} {}", self.refused).is_err();
        }
        text
    }
}

impl Metric {
    fn write(&self, text: &mut String, first: bool, values: &[String], series: &Series) -> std::fmt::Result {
        let Self { family, help, kind, .. } = self;
        if first {
            let kind = match kind {
                Kind::Gauge => "gauge",
                Kind::Counter => "counter",
                Kind::Distribution(_) => "histogram",
            };
            writeln!(text, "# HELP {family} {}\n# TYPE {family} {kind}", help.replace('\n', " "))?;
        }
        let escape = |value: &String| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let pairs: Vec<String> =
            self.labels.iter().zip(values).map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        let Kind::Distribution(bounds) = kind else { return writeln!(text, "{family}{labels} {}", series.value) };
        let with = |bound: String| {
            let all: Vec<&str> = pairs.iter().map(String::as_str).chain(std::iter::once(bound.as_str())).collect();
            all.join(",")
        };
        for (bound, at_most) in bounds.iter().zip(&series.at_most) {
            writeln!(text, "{family}_bucket{{{}}} {at_most}", with(format!("le=\"{bound}\"")))?;
        }
        writeln!(text, "{family}_bucket{{{}}} {}", with("le=\"+Inf\"".to_owned()), series.count)?;
        writeln!(text, "{family}_sum{labels} {}\n{family}_count{labels} {}", series.value, series.count)
    }
}
