//! OTLP metrics as mixer takes them: points of the families it knows, with the sender that they come from (MX-99).

use super::family::{ENVOY_LIMIT, Family, Kind};
use super::proof::{Caller, Forged, correct};
use proto::otlp::common::{AnyValue, KeyValue, any_value};
use proto::otlp::metrics::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, metric,
    number_data_point,
};
use proto::program::LIMIT;
use std::hash::BuildHasher;

/// Points that one message may hold; further ones are refused and counted.
pub const MAX_POINTS: usize = 50_000;
/// Labels that one point may have.
const MAX_LABELS: usize = 64;
/// Longest value of a label; what is longer is cut.
pub const MAX_VALUE_BYTES: usize = 512;
/// A sender that began to count so recently has just started.
const FRESH_NANOS: u64 = 10_000_000_000;
/// Buckets that a histogram may have.
const MAX_BUCKETS: usize = 128;

/// What a proxy reported at once.
#[derive(Debug)]
pub struct Report {
    /// Who.
    pub sender: String,
    /// The points of known families.
    pub points: Vec<Point>,
    /// Whether mixer counted them from the sender's access log.
    pub counted_here: bool,
}

/// One value of one series.
#[derive(Debug)]
pub struct Point {
    /// Its family.
    pub family: Family,
    /// Labels as sent.
    pub labels: Vec<KeyValue>,
    /// Hash of family and labels as sent.
    pub hash: u64,
    /// When the sender began to count, Unix nanoseconds; 0 where it does not say.
    pub start: u64,
    /// What it counted.
    pub value: Value,
    /// Since when.
    pub since: Since,
    /// Whether the sender began to count within the last seconds.
    pub fresh: bool,
}

/// From when a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// From the sender's start: a running total.
    Start,
    /// From its last report.
    LastReport,
}

/// The value of a point.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram: counts per bucket, the sum of all values, upper bounds (one fewer than counts).
    Histogram(Vec<u64>, f64, Vec<f64>),
}

/// What came in a message.
#[derive(Debug, Default)]
pub struct Intake {
    /// One per resource.
    pub reports: Vec<Report>,
    /// Points of families that mixer does not keep.
    pub unknown: usize,
    /// Points that are malformed or beyond [`MAX_POINTS`].
    pub refused: usize,
    /// Points that do not say whose side they are of, from a sender who has proven who it is.
    pub unproven: usize,
}

/// Takes a message apart. The caller's address names senders that do not name themselves; `hasher` is one for all messages.
///
/// # Errors
/// Where the sender is not who it says it is.
pub fn take(resources: Vec<ResourceMetrics>, caller: Caller<'_>, hasher: &impl BuildHasher) -> Result<Intake, Forged> {
    let mut intake = Intake::default();
    let mut room = MAX_POINTS;
    for resource in resources {
        let attributes = resource.resource.map(|r| r.attributes).unwrap_or_default();
        let mut report = Report { sender: sender(&attributes, caller)?, points: Vec::new(), counted_here: false };
        for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
            let known = Family::of(&metric.name).map(|family| (family, None));
            let known =
                known.or_else(|| Family::of_local_limit(&metric.name).map(|(family, limit)| (family, Some(limit))));
            let Some((family, limit)) = known.map(|(family, limit)| (family, limit.map(|one| one.map(str::to_owned))))
            else {
                intake.unknown += count(&metric);
                continue;
            };
            let before = report.points.len();
            let offered = count(&metric);
            points(family, metric, &mut report.points, room);
            if let Some(limit) = limit {
                report.points.iter_mut().skip(before).for_each(|point| name_limit(point, limit.as_deref()));
            }
            let taken = report.points.len() - before;
            room -= taken;
            intake.refused += offered - taken;
        }
        if let Some(id) = caller.id {
            let before = report.points.len();
            report.points.retain_mut(|point| !point.family.has_sides() || correct(&mut point.labels, id));
            intake.unproven += before - report.points.len();
        }
        for point in &mut report.points {
            point.hash = hash(point.family, &point.labels, hasher);
        }
        intake.reports.push(report);
    }
    Ok(intake)
}

/// The sender's name: the node id, else the instance or the service at the address it called from, else that address.
fn sender(attributes: &[KeyValue], caller: Caller<'_>) -> Result<String, Forged> {
    let peer = caller.address;
    let named = |key: &str| attributes.iter().find(|a| a.key == key).and_then(|a| text(a.value.as_ref()));
    let name = match named("service.instance.id") {
        // Any other name could be that of somebody elsewhere.
        Some(id) if !caller.is(&id)? && caller.id.is_some() => Some(format!("{id}@{peer}")),
        Some(id) => Some(id),
        None => named("service.name").map(|name| {
            let namespace = named("service.namespace").unwrap_or_default();
            format!("{name}.{namespace}@{peer}")
        }),
    };
    Ok(cut(&name.unwrap_or_else(|| peer.to_string()), MAX_VALUE_BYTES).to_owned())
}

/// Puts the name of a local limit where our proxies put it.
fn name_limit(point: &mut Point, limit: Option<&str>) {
    match limit {
        Some(limit) => point.labels = vec![attribute(LIMIT, cut(limit, MAX_VALUE_BYTES))],
        None => {
            point.labels.retain(|label| label.key == ENVOY_LIMIT);
            point.labels.iter_mut().for_each(|label| LIMIT.clone_into(&mut label.key));
        }
    }
}

fn count(metric: &Metric) -> usize {
    match &metric.data {
        Some(metric::Data::Sum(sum)) => sum.data_points.len(),
        Some(metric::Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(metric::Data::Histogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    }
}

fn points(family: Family, metric: Metric, into: &mut Vec<Point>, room: usize) {
    match (family.kind(), metric.data) {
        (Kind::Counter, Some(metric::Data::Sum(sum))) => {
            let since = since(sum.aggregation_temporality);
            into.extend(sum.data_points.into_iter().filter_map(|p| number(family, p, since)).take(room));
        }
        (Kind::Gauge, Some(metric::Data::Gauge(gauge))) => {
            into.extend(gauge.data_points.into_iter().filter_map(|p| number(family, p, Since::Start)).take(room));
        }
        (Kind::Histogram, Some(metric::Data::Histogram(Histogram { data_points, aggregation_temporality }))) => {
            let since = since(aggregation_temporality);
            into.extend(data_points.into_iter().filter_map(|p| histogram(family, p, since)).take(room));
        }
        _ => {}
    }
}

fn since(temporality: i32) -> Since {
    if temporality == AggregationTemporality::Delta as i32 { Since::LastReport } else { Since::Start }
}

fn number(family: Family, point: NumberDataPoint, since: Since) -> Option<Point> {
    let value = match point.value? {
        number_data_point::Value::AsDouble(value) => value,
        number_data_point::Value::AsInt(value) => value as f64,
    };
    let sound = value.is_finite() && value >= 0. && point.attributes.len() <= MAX_LABELS;
    let (labels, start) = (point.attributes, point.start_time_unix_nano);
    let fresh = fresh(start, point.time_unix_nano);
    sound.then_some(Point { family, labels, hash: 0, start, value: Value::Number(value), since, fresh })
}

fn histogram(family: Family, point: HistogramDataPoint, since: Since) -> Option<Point> {
    let (counts, bounds) = (point.bucket_counts, point.explicit_bounds);
    let rising = bounds.windows(2).all(|pair| pair[0] < pair[1]) && bounds.iter().all(|bound| bound.is_finite());
    let sum = point.sum.unwrap_or(0.);
    let sound = rising
        && counts.len() == bounds.len() + 1
        && counts.len() <= MAX_BUCKETS
        && sum.is_finite()
        && point.attributes.len() <= MAX_LABELS;
    let (labels, start) = (point.attributes, point.start_time_unix_nano);
    let fresh = fresh(start, point.time_unix_nano);
    sound.then_some(Point {
        family,
        labels,
        hash: 0,
        start,
        value: Value::Histogram(counts, sum, bounds),
        since,
        fresh,
    })
}

fn fresh(start: u64, now: u64) -> bool {
    start > 0 && now >= start && now - start < FRESH_NANOS
}

/// Tells series of one sender apart: a sender names the labels of a series in the same order each time. The hasher is
/// seeded at random, so that nobody can make two series collide on purpose.
pub fn hash(family: Family, labels: &[KeyValue], hasher: &impl BuildHasher) -> u64 {
    use std::hash::{Hash as _, Hasher as _};
    let mut state = hasher.build_hasher();
    family.hash(&mut state);
    for label in labels {
        label.key.hash(&mut state);
        match label.value.as_ref().and_then(|v| v.value.as_ref()) {
            Some(any_value::Value::StringValue(text)) => text.hash(&mut state),
            Some(any_value::Value::IntValue(number)) => number.hash(&mut state),
            Some(any_value::Value::BoolValue(fact)) => fact.hash(&mut state),
            other => other.map(|value| format!("{value:?}")).hash(&mut state),
        }
    }
    state.finish()
}

/// An attribute with a text.
pub fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// An attribute as text; lists and maps have none.
pub fn text(value: Option<&AnyValue>) -> Option<String> {
    match value?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::BoolValue(fact) => Some(fact.to_string()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        any_value::Value::DoubleValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The beginning of a text, at most `bytes` long.
pub fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}
