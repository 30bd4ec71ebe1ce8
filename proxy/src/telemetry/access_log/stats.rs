//! `envoy.access_loggers.stats`: statistics that a configuration makes up, counted where an entry would be logged.
//!
//! Statistics with the same tags share their series: an entry costs one look-up per such group. Names follow Envoy:
//! `PREFIX.NAME.TAG.VALUE` in `/stats`, `envoy_PREFIX_NAME{TAG="VALUE"}` for Prometheus; a value that is not known is empty.

use super::config::LogContext;
use super::facts::LogFacts;
use super::format::Format;
use crate::refusal::{Refusal, Within};
use crate::telemetry::counters::{Family, Metric, MetricKind, bump, record};
use crate::telemetry::made_up;
use crate::telemetry::series::{Labels, Registrar};
use foldhash::HashMap;
use proto::envoy::extensions::access_loggers::stats::v3::Config;
use proto::envoy::extensions::access_loggers::stats::v3::config::{Counter, Histogram, Stat, Tag, histogram::Unit};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

/// The statistics of one access log.
#[derive(Debug, Clone)]
pub(super) struct StatsLog {
    groups: Arc<[Arc<Group>]>,
}

/// Statistics with the same tags.
#[derive(Debug)]
struct Group {
    family: &'static Family,
    tags: Box<[(&'static str, Format)]>,
    /// What each metric of the family is given.
    values: Box<[Given]>,
}

#[derive(Debug)]
enum Given {
    Fixed(u64),
    Format(Format),
}

/// A statistic as it is written.
struct Entry<'a> {
    tags: &'a [Tag],
    metric: Metric,
    given: Given,
}

impl StatsLog {
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub(super) fn parse(config: &Config, cx: LogContext<'_>) -> Result<Self, Refusal> {
        let prefix = prefix(config)?;
        if !config.gauges.is_empty() {
            return Err(Refusal::unsupported("gauges"));
        }
        let counters = config.counters.iter().enumerate();
        let histograms = config.histograms.iter().enumerate();
        let entries = counters
            .map(|(i, counter)| of_counter(counter, cx).within(&format!("counters[{i}]")))
            .chain(histograms.map(|(i, histogram)| of_histogram(histogram, cx).within(&format!("histograms[{i}]"))));
        let mut by_tags: Vec<(&[Tag], Vec<Entry<'_>>)> = Vec::new();
        for entry in entries {
            let entry = entry?;
            match by_tags.iter_mut().find(|(tags, _)| *tags == entry.tags) {
                Some((_, same)) => same.push(entry),
                None => by_tags.push((entry.tags, vec![entry])),
            }
        }
        let groups = by_tags.into_iter().map(|(tags, entries)| Group::new(prefix, tags, entries, cx).map(Arc::new));
        Ok(Self { groups: groups.collect::<Result<_, _>>()? })
    }

    /// Counts an entry.
    pub(super) fn count(&self, facts: &LogFacts<'_>, stats: &LoggedStats) {
        for group in &*self.groups {
            stats.count(group, facts);
        }
    }
}

/// Where the names begin; nobody's names are taken by accident, so there must be something.
fn prefix(config: &Config) -> Result<&str, Refusal> {
    let scope = config.stats_scope.as_ref();
    let limited = scope.is_some_and(|scope| {
        scope.max_counters.is_some() || scope.max_gauges.is_some() || scope.max_histograms.is_some()
    });
    if limited || scope.is_some_and(|scope| scope.enable_eviction) {
        return Err(Refusal::unsupported("stats_scope, but for its prefix"));
    }
    #[expect(deprecated, reason = "the field that is written until today")]
    let old = config.stat_prefix.as_str();
    match (old, scope.map(|scope| scope.prefix.as_str())) {
        ("", None | Some("")) => Err(Refusal::new("stat_prefix", "is missing: the names of statistics begin with it")),
        ("", Some(prefix)) | (prefix, _) => Ok(prefix),
    }
}

fn of_counter<'a>(counter: &'a Counter, cx: LogContext<'_>) -> Result<Entry<'a>, Refusal> {
    let given = match (&counter.value_fixed, counter.value_format.as_str()) {
        (Some(fixed), "") => Given::Fixed(fixed.value),
        (None, format) if !format.is_empty() => Given::Format(parse_format(format, cx).within("value_format")?),
        _ => return Err(Refusal::new("value_fixed", "one of value_fixed and value_format is needed")),
    };
    entry(counter.stat.as_ref(), MetricKind::Counter, given)
}

fn of_histogram<'a>(histogram: &'a Histogram, cx: LogContext<'_>) -> Result<Entry<'a>, Refusal> {
    if histogram.unit == Unit::Percent as i32 {
        return Err(Refusal::unsupported("unit Percent"));
    }
    let given = Given::Format(parse_format(&histogram.value_format, cx).within("value_format")?);
    entry(histogram.stat.as_ref(), MetricKind::Histogram, given)
}

fn entry(stat: Option<&Stat>, kind: MetricKind, given: Given) -> Result<Entry<'_>, Refusal> {
    let stat = stat.filter(|stat| !stat.name.is_empty()).ok_or_else(|| Refusal::new("stat.name", "is missing"))?;
    let name = made_up::name(&stat.name)?;
    Ok(Entry { tags: &stat.tags, metric: Metric { name, kind, help: "Made up by an access log." }, given })
}

fn parse_format(text: &str, cx: LogContext<'_>) -> Result<Format, Refusal> {
    Format::parse(text, cx.environment).map_err(|error| Refusal::new("", error.to_string()))
}

impl Group {
    fn new(prefix: &str, tags: &[Tag], entries: Vec<Entry<'_>>, cx: LogContext<'_>) -> Result<Self, Refusal> {
        let (metrics, values): (Vec<Metric>, Vec<Given>) =
            entries.into_iter().map(|entry| (entry.metric, entry.given)).unzip();
        let tag = |tag: &Tag| {
            if tag.rules.is_some() {
                return Err(Refusal::unsupported("rules"));
            }
            Ok((made_up::name(&tag.name)?, parse_format(&tag.value_format, cx).within("value_format")?))
        };
        let tags = tags.iter().enumerate().map(|(i, written)| tag(written).within(&format!("stat.tags[{i}]")));
        Ok(Self {
            tags: tags.collect::<Result<_, _>>()?,
            family: made_up::family(prefix, metrics)?,
            values: values.into(),
        })
    }

    /// Appends the values of the tags, each with its length behind it, so that no two lists look the same.
    fn write_key(&self, facts: &LogFacts<'_>, key: &mut Vec<u8>) {
        for (_, value) in &self.tags {
            let from = key.len();
            value.write_omitting(facts, key);
            let length = (key.len() - from) as u32;
            key.extend_from_slice(&length.to_ne_bytes());
        }
    }

    fn labels(&self, facts: &LogFacts<'_>) -> Labels {
        let label = |(name, value): &(&'static str, Format)| {
            let mut text = Vec::new();
            value.write_omitting(facts, &mut text);
            (*name, String::from_utf8_lossy(&text).into())
        };
        self.tags.iter().map(label).collect()
    }

    fn overflow_labels(&self) -> Labels {
        self.tags.iter().map(|(name, _)| (*name, "overflow".into())).collect()
    }

    fn add(&self, facts: &LogFacts<'_>, cells: &[AtomicU64]) {
        let metrics = self.family.metrics.iter().zip(&self.values).enumerate();
        for (index, (metric, given)) in metrics {
            let value = match given {
                Given::Fixed(value) => Some(*value),
                Given::Format(format) => format.number(facts),
            };
            let (Some(value), at) = (value, self.family.offset(index)) else {
                tracing::debug!(metric = metric.name, "what an access log counts is no number");
                continue;
            };
            match metric.kind {
                MetricKind::Histogram => record(cells, at, value),
                MetricKind::Counter | MetricKind::Gauge => bump(cells, at, value),
            }
        }
    }
}

/// The series of one worker.
#[derive(Debug)]
pub struct LoggedStats {
    registrar: Rc<Registrar>,
    /// By the address of their group, which the weak reference keeps from being used again.
    groups: RefCell<Vec<(usize, Known)>>,
    key: RefCell<Vec<u8>>,
}

#[derive(Debug)]
struct Known {
    group: Weak<Group>,
    series: HashMap<Box<[u8]>, Arc<[AtomicU64]>>,
    /// What is counted once the worker has as many series as it may.
    overflow: Option<Arc<[AtomicU64]>>,
}

impl LoggedStats {
    /// Series that are registered by `registrar`.
    pub fn new(registrar: Rc<Registrar>) -> Self {
        Self { registrar, groups: RefCell::default(), key: RefCell::default() }
    }

    fn count(&self, group: &Arc<Group>, facts: &LogFacts<'_>) {
        let (mut groups, mut key) = (self.groups.borrow_mut(), self.key.borrow_mut());
        key.clear();
        group.write_key(facts, &mut key);
        let address = Arc::as_ptr(group).addr();
        let at = groups.iter().position(|(known, _)| *known == address).unwrap_or_else(|| {
            self.forget_old(&mut groups);
            let fresh = Known { group: Arc::downgrade(group), series: HashMap::default(), overflow: None };
            groups.push((address, fresh));
            groups.len() - 1
        });
        let Some((_, known)) = groups.get_mut(at) else { return };
        if let Some(cells) = known.series.get(key.as_slice()) {
            return group.add(facts, cells);
        }
        match self.registrar.try_cells_of(group.family, group.labels(facts)) {
            Some(cells) => {
                group.add(facts, &cells);
                known.series.insert(key.as_slice().into(), cells);
            }
            None => {
                let made = || self.registrar.cells_of(group.family, group.overflow_labels());
                group.add(facts, known.overflow.get_or_insert_with(made));
            }
        }
    }

    /// Drops the series of configurations that are gone.
    fn forget_old(&self, groups: &mut Vec<(usize, Known)>) {
        groups.retain(|(_, known)| {
            let stays = known.group.strong_count() > 0;
            if !stays {
                known.series.iter().for_each(|_| self.registrar.give_back());
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests;
