//! Changes of Istio's metrics that users make: metrics left out, labels left out, labels of their own (TL-2, XT-5).
//!
//! A metric with labels of its own cannot share the cells of its family, so here each metric is a family of one.

use super::attribute::Expression;
use super::{Ends, SeriesKey};
use crate::refusal::{Refusal, Within};
use crate::telemetry::access_log::LogFacts;
use crate::telemetry::counters::{Family, MetricKind, bump, record};
use crate::telemetry::made_up;
use crate::telemetry::names::{ISTIO_GRPC, ISTIO_HTTP, ISTIO_TCP};
use crate::telemetry::series::{Labels, Registrar};
use foldhash::HashMap;
use proto::missing::MetricConfig;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

/// Istio's metrics: those of requests, of gRPC messages, of TCP connections, each in the order of its family.
static METRICS: [Family; 10] = [
    alone(&ISTIO_HTTP, 0),
    alone(&ISTIO_HTTP, 1),
    alone(&ISTIO_HTTP, 2),
    alone(&ISTIO_HTTP, 3),
    alone(&ISTIO_GRPC, 0),
    alone(&ISTIO_GRPC, 1),
    alone(&ISTIO_TCP, 0),
    alone(&ISTIO_TCP, 1),
    alone(&ISTIO_TCP, 2),
    alone(&ISTIO_TCP, 3),
];
/// Where those of a family stand.
pub(super) const HTTP: Range<usize> = 0..4;
pub(super) const GRPC: Range<usize> = 4..6;
pub(super) const TCP: Range<usize> = 6..10;

const fn alone(family: &'static Family, at: usize) -> Family {
    let (one, _) = family.metrics.split_at(at).1.split_at(1);
    Family { prefix: "", label: None, metrics: one }
}

/// What is changed of Istio's metrics.
#[derive(Debug)]
pub struct Changes {
    /// None: the metric is left out.
    metrics: [Option<Change>; METRICS.len()],
    expressions: Vec<Expression>,
}

#[derive(Debug, Default, Clone)]
struct Change {
    removed: Vec<&'static str>,
    /// Labels by their expression.
    added: Vec<(&'static str, usize)>,
}

impl Changes {
    /// Reads `metrics` of a `stats.PluginConfig`; none where nothing is changed. A label whose expression is not
    /// understood shows `unknown`: what is told of requests must not keep them from being served.
    ///
    /// # Errors
    /// A metric that is not Istio's, or a condition.
    pub fn parse(written: &[MetricConfig]) -> Result<Option<Arc<Self>>, Refusal> {
        if written.is_empty() {
            return Ok(None);
        }
        let mut changes = Self { metrics: std::array::from_fn(|_| Some(Change::default())), expressions: Vec::new() };
        for (i, change) in written.iter().enumerate() {
            changes.add(change).within(&format!("metrics[{i}]"))?;
        }
        Ok(Some(Arc::new(changes)))
    }

    fn add(&mut self, written: &MetricConfig) -> Result<(), Refusal> {
        if !written.r#match.is_empty() {
            return Err(Refusal::unsupported("match"));
        }
        let meant = |name: &str| written.name.is_empty() || name.strip_prefix("istio_") == Some(&written.name);
        let known = METRICS.iter().flat_map(|family| family.metrics).any(|metric| meant(metric.name));
        if !known {
            return Err(Refusal::new("name", format!("{:?} is no metric of Istio's", written.name)));
        }
        let removed = written.tags_to_remove.iter().map(|name| made_up::name(name)).collect::<Result<Vec<_>, _>>()?;
        let mut added = Vec::new();
        for (name, text) in &written.dimensions {
            let expression = Expression::parse(text).or_else(|why| {
                tracing::warn!(label = name, why, "the label shows \"unknown\"");
                Expression::parse("'unknown'").map_err(|why| Refusal::new(name.as_str(), why))
            })?;
            added.push((made_up::name(name)?, self.expressions.len()));
            self.expressions.push(expression);
        }
        for (family, change) in METRICS.iter().zip(&mut self.metrics) {
            if !family.metrics.iter().any(|metric| meant(metric.name)) {
                continue;
            }
            if written.drop {
                *change = None;
            }
            let Some(change) = change else { continue };
            change.removed.extend(&removed);
            change.added.retain(|(name, _)| !removed.contains(name) && !added.iter().any(|(new, _)| new == name));
            change.added.extend(&added);
        }
        Ok(())
    }

    /// The values of the expressions, each with its length behind it, so that no two lists look the same.
    fn write_values(&self, facts: &LogFacts<'_>, out: &mut Vec<u8>) {
        for expression in &self.expressions {
            let from = out.len();
            expression.write(facts, out);
            let length = (out.len() - from) as u32;
            out.extend_from_slice(&length.to_ne_bytes());
        }
    }
}

impl Change {
    fn labels(&self, standard: &Labels, changes: &Changes, facts: &LogFacts<'_>) -> Labels {
        let replaced = |name: &str| self.removed.contains(&name) || self.added.iter().any(|(new, _)| *new == name);
        let stays = standard.iter().filter(|(name, _)| !replaced(name)).cloned();
        let added = self.added.iter().map(|(name, at)| {
            let mut text = Vec::new();
            if let Some(expression) = changes.expressions.get(*at) {
                expression.write(facts, &mut text);
            }
            (*name, String::from_utf8_lossy(&text).into())
        });
        stays.chain(added).collect()
    }
}

/// Changed metrics of requests or connections that are told apart by nothing.
#[derive(Debug)]
pub(super) struct Series {
    cells: [Option<Arc<[AtomicU64]>>; METRICS.len()],
    /// Keeps the addresses in its key from being used again.
    _ends: Ends,
}

impl Series {
    /// Counts `value` more of a metric, or records it.
    pub(super) fn add(&self, metric: usize, value: u64) {
        let (Some(Some(cells)), Some(family)) = (self.cells.get(metric), METRICS.get(metric)) else { return };
        match family.metrics.first().map(|metric| metric.kind) {
            Some(MetricKind::Histogram) => record(cells, 0, value),
            _ => bump(cells, 0, value),
        }
    }
}

type ByValues = HashMap<Box<[u8]>, HashMap<SeriesKey, Rc<Series>>>;

/// The changed series of one worker.
#[derive(Debug)]
pub(super) struct Changed {
    registrar: Rc<Registrar>,
    /// By the address of their changes, which the weak reference keeps from being used again.
    known: RefCell<HashMap<usize, (Weak<Changes>, ByValues)>>,
    values: RefCell<Vec<u8>>,
}

impl Changed {
    pub(super) fn new(registrar: Rc<Registrar>) -> Self {
        Self { registrar, known: RefCell::default(), values: RefCell::default() }
    }

    /// The series of a request or connection; none once this worker has as many as it may.
    pub(super) fn series(
        &self,
        (changes, facts): (&Arc<Changes>, &LogFacts<'_>),
        (key, ends): (SeriesKey, &Ends),
        metrics: Range<usize>,
        standard: impl FnOnce() -> Labels,
    ) -> Option<Rc<Series>> {
        let (mut known, mut values) = (self.known.borrow_mut(), self.values.borrow_mut());
        values.clear();
        changes.write_values(facts, &mut values);
        let address = Arc::as_ptr(changes).addr();
        if !known.contains_key(&address) {
            self.forget_old(&mut known);
        }
        let (_, by_values) = known.entry(address).or_insert_with(|| (Arc::downgrade(changes), HashMap::default()));
        if let Some(found) = by_values.get(values.as_slice()).and_then(|by_key| by_key.get(&key)) {
            return Some(Rc::clone(found));
        }
        let standard = standard();
        let mut cells: [Option<Arc<[AtomicU64]>>; METRICS.len()] = Default::default();
        let wanted = METRICS.iter().zip(&changes.metrics).zip(&mut cells).enumerate();
        for (_, ((family, change), cells)) in wanted.filter(|(at, _)| metrics.contains(at)) {
            if let Some(change) = change {
                *cells = Some(self.registrar.try_cells_of(family, change.labels(&standard, changes, facts))?);
            }
        }
        let series = Rc::new(Series { cells, _ends: ends.clone() });
        by_values.entry(values.as_slice().into()).or_default().insert(key, Rc::clone(&series));
        Some(series)
    }

    /// Drops the series of configurations that are gone.
    fn forget_old(&self, known: &mut HashMap<usize, (Weak<Changes>, ByValues)>) {
        known.retain(|_, (changes, by_values)| {
            let stays = changes.strong_count() > 0;
            if !stays {
                let series = by_values.values().flat_map(HashMap::values);
                series.flat_map(|series| series.cells.iter().flatten()).for_each(|_| self.registrar.give_back());
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests;
