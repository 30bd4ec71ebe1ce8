//! What is measured of rate limits (MX-115): envoyproxy/ratelimit's statistics
//! `ratelimit.service.rate_limit.DOMAIN.KEY_VALUE.*`, as counters with the labels `domain` and `key`.

use super::domain::{Entry, Limit};
use vitals::metric::Register as _;
use vitals::prometheus::{IntCounterVec, Registry};

/// The share of a limit from which on hits are near it.
const NEAR: f64 = 0.8;
/// The most series of one counter; what is beyond counts as `other`.
const MAX_SERIES: usize = 10_000;
/// The label of what is beyond.
const OTHER: &str = "other";

/// The counters.
#[derive(Debug, Clone)]
pub struct Meters {
    total_hits: IntCounterVec,
    over_limit: IntCounterVec,
    near_limit: IntCounterVec,
    within_limit: IntCounterVec,
    shadow_mode: IntCounterVec,
}

impl Meters {
    /// Counters of a registry.
    ///
    /// # Errors
    /// Where they are there already.
    pub fn new(registry: &Registry) -> anyhow::Result<Self> {
        let counter = |name: &str, help: &str| {
            registry.counters(&format!("ratelimit_service_rate_limit_{name}"), help, &["domain", "key"])
        };
        Ok(Self {
            total_hits: counter("total_hits", "Hits of a limit")?,
            over_limit: counter("over_limit", "Hits that were beyond a limit")?,
            near_limit: counter("near_limit", "Hits beyond 80 % of a limit that were still within it")?,
            within_limit: counter("within_limit", "Hits that were within a limit")?,
            shadow_mode: counter("shadow_mode", "Hits that were beyond a limit in shadow mode, and went on")?,
        })
    }

    /// Counts hits of a limit; `left` is what is left after them.
    pub fn count(&self, domain: &str, (limit, descriptor): (&Limit, &[Entry]), hits: u64, left: Option<u64>) {
        let key = key(domain, limit, descriptor);
        self.add(&self.total_hits, domain, &key, hits);
        let Some(left) = left else {
            self.add(&self.over_limit, domain, &key, hits);
            if limit.shadow {
                self.add(&self.shadow_mode, domain, &key, hits);
            }
            return;
        };
        self.add(&self.within_limit, domain, &key, hits);
        let used = u64::from(limit.per_unit.unwrap_or(u32::MAX)).saturating_sub(left);
        let near = (f64::from(limit.per_unit.unwrap_or(u32::MAX)) * NEAR) as u64;
        let beyond = used.saturating_sub(near).min(hits);
        if beyond > 0 {
            self.add(&self.near_limit, domain, &key, beyond);
        }
    }

    /// Counts hits that proxies counted, all of them within a limit or beyond it.
    pub fn tell(&self, domain: &str, limit: &Limit, hits: u64, over: bool) {
        let key = plain_key(domain, limit);
        let outcome = if over { &self.over_limit } else { &self.within_limit };
        for counter in [&self.total_hits, outcome] {
            self.add(counter, domain, key, hits);
        }
        if over && limit.shadow {
            self.add(&self.shadow_mode, domain, key, hits);
        }
    }

    /// Hits of a limit, and those beyond it.
    pub fn of(&self, domain: &str, limit: &Limit) -> (u64, u64) {
        let labels = [domain, plain_key(domain, limit)];
        (self.total_hits.with_label_values(&labels).get(), self.over_limit.with_label_values(&labels).get())
    }

    fn add(&self, counter: &IntCounterVec, domain: &str, key: &str, hits: u64) {
        use vitals::prometheus::core::Collector as _;
        if let Ok(found) = counter.get_metric_with_label_values(&[domain, key]) {
            // Looked at only when a series is new, which is when its count is still 0.
            if found.get() == 0 && counter.collect().iter().any(|family| family.get_metric().len() > MAX_SERIES) {
                drop(counter.remove_label_values(&[domain, key])); // it has just been made
                return counter.with_label_values(&[domain, OTHER]).inc_by(hits);
            }
            found.inc_by(hits);
        }
    }
}

/// The way to a limit without its domain; with values where it asks for them.
fn key(domain: &str, limit: &Limit, descriptor: &[Entry]) -> String {
    if limit.detailed {
        let parts: Vec<_> = descriptor.iter().map(|(key, value)| format!("{key}_{value}")).collect();
        return parts.join(".");
    }
    plain_key(domain, limit).to_owned()
}

fn plain_key<'l>(domain: &str, limit: &'l Limit) -> &'l str {
    limit.path.strip_prefix(domain).and_then(|rest| rest.strip_prefix('.')).unwrap_or(&limit.path)
}
