//! Reading the cells of all workers, and writing them down as Prometheus and Envoy do (spec ST-6, AD-4). Main thread.

use super::config::StatsConfig;
use super::counters::{BUCKETS, Family, Metric, MetricKind};
use super::series::{Labels, Registrar, Scope, dotted_name};
use regex::Regex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

/// All scopes of all workers.
#[derive(Debug)]
pub struct Registry {
    sender: mpsc::Sender<Scope>,
    receiver: mpsc::Receiver<Scope>,
    scopes: Vec<Scope>,
    config: Arc<StatsConfig>,
}

/// What is shown of the metrics.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only names (dotted for `/stats`, Prometheus' for `/stats/prometheus`) that this matches.
    pub filter: Option<Regex>,
    /// Leaves out what is zero.
    pub used_only: bool,
    /// Only metrics of this kind.
    pub kind: Option<MetricKind>,
    /// How the text form shows histograms.
    pub histograms: Histograms,
}

/// How histograms are shown (`histogram_buckets`, AD-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Histograms {
    /// As quantiles.
    #[default]
    Quantiles,
    /// As buckets, each with all that are below its bound.
    Cumulative,
    /// As buckets, each with its own.
    Disjoint,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty registry that keeps everything.
    pub fn new() -> Self {
        Self::with(StatsConfig::default())
    }

    /// An empty registry that keeps what `config` says.
    pub fn with(config: StatsConfig) -> Self {
        let (sender, receiver) = mpsc::channel();
        Self { sender, receiver, scopes: Vec::new(), config: Arc::new(config) }
    }

    /// The registrar of a worker, which may register so many label sets.
    pub fn registrar(&self, most: usize) -> Registrar {
        Registrar::new(self.sender.clone(), self.config.clone(), most)
    }

    /// The sums over all workers, now. Scopes whose worker has dropped them are in it for the last time.
    pub fn collect(&mut self) -> Snapshot {
        self.scopes.extend(self.receiver.try_iter());
        let mut sums: BTreeMap<Key, Vec<u64>> = BTreeMap::new();
        self.scopes.retain(|scope| {
            let is_last = Arc::strong_count(&scope.cells) == 1;
            let key = Key { family: ByName(scope.family), labels: scope.labels.clone() };
            let sum = sums.entry(key).or_insert_with(|| vec![0; scope.family.cells()]);
            for (sum, cell) in sum.iter_mut().zip(scope.cells.iter()) {
                *sum = sum.wrapping_add(cell.load(Ordering::Relaxed));
            }
            !is_last
        });
        Snapshot { sums, config: self.config.clone() }
    }
}

/// Families are told apart by where they are: each is one static.
#[derive(Debug, Clone, Copy)]
struct ByName(&'static Family);

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for ByName {}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let name = |family: &'static Family| {
            (family.prefix, family.metrics.first().map_or("", |metric| metric.name), family.metrics.len())
        };
        name(self.0).cmp(&name(other.0))
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    family: ByName,
    labels: Labels,
}

/// That this proxy runs, and which version of it: dashboards count proxies so (OB-1).
const BUILD: Metric = Metric { name: "istio_build", kind: MetricKind::Gauge, help: "Component and version." };

/// The values of all metrics at one time.
#[derive(Debug)]
pub struct Snapshot {
    sums: BTreeMap<Key, Vec<u64>>,
    config: Arc<StatsConfig>,
}

impl Snapshot {
    /// Prometheus' text format. Samples of one metric stand together under one `# TYPE`; there is no `# HELP`.
    pub fn prometheus(&self, selection: &Selection) -> String {
        let mut metrics: BTreeMap<String, (MetricKind, String)> = BTreeMap::new();
        let matches = |name: &str| selection.filter.as_ref().is_none_or(|filter| filter.is_match(name));
        if selection.takes(&BUILD, &[1]) && matches(BUILD.name) {
            let labels = concat!("component=\"proxy\",tag=\"", env!("CARGO_PKG_VERSION"), "\"");
            let mut sample = String::new();
            write_samples(BUILD.name, labels, BUILD.kind, &[1], &mut sample);
            metrics.insert(BUILD.name.to_owned(), (BUILD.kind, sample));
        }
        for (key, cells) in &self.sums {
            let family = key.family.0;
            for (index, metric) in family.metrics.iter().enumerate() {
                let values = family.of(index, cells);
                if !selection.takes(metric, values) || !self.keeps(family, metric, &key.labels) {
                    continue;
                }
                let (name, code) = prometheus_name(family, metric);
                if !matches(&name) {
                    continue;
                }
                let (_, out) = metrics.entry(name.clone()).or_insert_with(|| (metric.kind, String::new()));
                write_samples(&name, &labels_text(&self.config, &key.labels, code), metric.kind, values, out);
            }
        }
        let mut out = String::new();
        for (name, (kind, samples)) in metrics {
            let kind = match kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            push(&mut out, format_args!("# TYPE {name} {kind}\n"));
            out.push_str(&samples);
        }
        out
    }

    /// Envoy's `/stats` text: `cluster.a.upstream_rq_total: 5`, sorted, histograms last as quantiles.
    pub fn text(&self, selection: &Selection) -> String {
        let (mut plain, mut histograms) = (Vec::new(), Vec::new());
        self.each(selection, |name, metric, values| match metric.kind {
            MetricKind::Histogram => histograms.push(format!("{name}: {}", selection.histograms.text(values))),
            _ => plain.push(format!("{name}: {}", scalar(metric.kind, values))),
        });
        plain.sort();
        histograms.sort();
        plain.extend(histograms);
        let mut out = plain.join("\n");
        if !out.is_empty() {
            out.push('\n');
        }
        out
    }

    /// Envoy's `/stats?format=json`.
    pub fn json(&self, selection: &Selection) -> serde_json::Value {
        let (mut stats, mut computed) = (Vec::new(), Vec::new());
        self.each(selection, |name, metric, values| match metric.kind {
            MetricKind::Histogram => {
                let values: Vec<_> = QUANTILES
                    .iter()
                    .map(|quantile| serde_json::json!({"interval": null, "cumulative": quantile_of(values, *quantile)}))
                    .collect();
                computed.push(serde_json::json!({"name": name, "values": values}));
            }
            MetricKind::Gauge => {
                stats.push(serde_json::json!({"name": name, "value": values.first().map_or(0, |v| v.cast_signed())}))
            }
            MetricKind::Counter => stats.push(serde_json::json!({"name": name, "value": values.first()})),
        });
        let quantiles: Vec<f64> = QUANTILES.iter().map(|quantile| quantile * 100.0).collect();
        stats.push(
            serde_json::json!({"histograms": {"supported_quantiles": quantiles, "computed_quantiles": computed}}),
        );
        serde_json::json!({"stats": stats})
    }

    /// One value by its dotted name.
    pub fn value(&self, name: &str) -> Option<u64> {
        let mut found = None;
        self.each(&Selection::default(), |dotted, _, values| {
            if dotted == name {
                found = values.first().copied();
            }
        });
        found
    }

    /// All scopes with their cells.
    pub(super) fn scopes(&self) -> impl Iterator<Item = (&'static Family, &Labels, &[u64])> {
        self.sums.iter().map(|(key, cells)| (key.family.0, &key.labels, cells.as_slice()))
    }

    pub(super) fn config(&self) -> &StatsConfig {
        &self.config
    }

    pub(super) fn keeps(&self, family: &Family, metric: &Metric, labels: &Labels) -> bool {
        family.prefix.is_empty() || self.config.keeps_all() || self.config.keeps(&dotted_name(family, metric, labels))
    }

    fn each(&self, selection: &Selection, mut show: impl FnMut(String, &Metric, &[u64])) {
        for (key, cells) in &self.sums {
            let family = key.family.0;
            for (index, metric) in family.metrics.iter().enumerate() {
                let values = family.of(index, cells);
                let name = dotted_name(family, metric, &key.labels);
                if selection.takes(metric, values)
                    && self.keeps(family, metric, &key.labels)
                    && selection.filter.as_ref().is_none_or(|filter| filter.is_match(&name))
                {
                    show(name, metric, values);
                }
            }
        }
    }
}

impl Selection {
    fn takes(&self, metric: &Metric, values: &[u64]) -> bool {
        self.kind.is_none_or(|kind| kind == metric.kind) && !(self.used_only && values.iter().all(|value| *value == 0))
    }
}

/// `envoy_cluster_upstream_rq_total`; of a class of status codes `envoy_cluster_upstream_rq_xx` and the class.
fn prometheus_name(family: &Family, metric: &Metric) -> (String, Option<&'static str>) {
    let (name, class) = match metric.name.strip_suffix("xx").and_then(|head| head.split_at_checked(head.len() - 1)) {
        Some((head, class)) if head.ends_with("_rq_") => (format!("{head}xx"), Some(class)),
        _ => (metric.name.to_owned(), None),
    };
    if family.prefix.is_empty() {
        return (name, class);
    }
    (clean(&format!("envoy_{}_{name}", family.prefix)), class)
}

/// A name with what Prometheus does not take replaced.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Labels with their values escaped, without braces.
fn labels_text(config: &StatsConfig, labels: &Labels, class: Option<&str>) -> String {
    let mut out = String::new();
    let class = class.map(|class| ("envoy_response_code_class", class));
    for (name, value) in class.into_iter().chain(labels.iter().map(|(name, value)| (*name, &**value))) {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&clean(config.label(name)));
        out.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    out
}

fn write_samples(name: &str, labels: &str, kind: MetricKind, values: &[u64], out: &mut String) {
    if kind != MetricKind::Histogram {
        push(out, format_args!("{name}{{{labels}}} {}\n", scalar(kind, values)));
        return;
    }
    let comma = if labels.is_empty() { "" } else { "," };
    let mut count = 0;
    for (bound, in_bucket) in BUCKETS.iter().zip(values) {
        count += in_bucket;
        push(out, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}\n"));
    }
    count += values.get(BUCKETS.len()).copied().unwrap_or_default();
    push(out, format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n"));
    push(out, format_args!("{name}_sum{{{labels}}} {}\n", values.last().copied().unwrap_or_default()));
    push(out, format_args!("{name}_count{{{labels}}} {count}\n"));
}

fn scalar(kind: MetricKind, values: &[u64]) -> String {
    let value = values.first().copied().unwrap_or_default();
    if kind == MetricKind::Gauge { value.cast_signed().to_string() } else { value.to_string() }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes any text");
}

/// The quantiles that Envoy shows.
const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

impl Histograms {
    fn text(self, values: &[u64]) -> String {
        if values.iter().take(BUCKETS.len() + 1).all(|count| *count == 0) {
            return "No recorded values".to_owned();
        }
        if self == Self::Quantiles {
            return quantiles_text(values);
        }
        let mut below = 0;
        let bounds = BUCKETS.iter().map(ToString::to_string).chain(["inf".to_owned()]);
        let shown = bounds.zip(values).map(|(bound, count)| {
            below += count;
            format!("B{bound}(nan,{})", if self == Self::Cumulative { below } else { *count })
        });
        shown.collect::<Vec<_>>().join(" ")
    }
}

fn quantiles_text(values: &[u64]) -> String {
    let shown = QUANTILES.iter().map(|quantile| {
        let value = quantile_of(values, *quantile).unwrap_or_default();
        format!("P{}(nan,{value})", quantile * 100.0)
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// A quantile by linear interpolation within its bucket; `None` without values.
fn quantile_of(values: &[u64], quantile: f64) -> Option<f64> {
    let counts = values.get(..=BUCKETS.len())?;
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let wanted = quantile * total as f64;
    let mut below = 0.0;
    let mut lower = 0.0;
    for (count, upper) in counts.iter().zip(BUCKETS.iter().chain(BUCKETS.last())) {
        let here = *count as f64;
        if here > 0.0 && below + here >= wanted {
            return Some(lower + (upper - lower) * ((wanted - below) / here).clamp(0.0, 1.0));
        }
        below += here;
        lower = *upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests;
