//! What a tour turns and reads: failures to order, delays, and counts of what arrived.

use serde::Serialize;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Most request ids that are remembered to find duplicates.
const MAX_IDS: usize = 1_000_000;
/// How many of the last requests the quantiles speak of.
const RECENT: usize = 1000;

/// Whether the sidecar proved who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// By a SPIFFE certificate.
    Proven,
    /// Not at all.
    Unknown,
}

/// Failures and delays, set over `/__set`.
#[derive(Debug)]
pub(crate) struct Knobs {
    fail_percent: AtomicU8,
    delay_ms: AtomicU64,
}

impl Knobs {
    pub(crate) fn new(fail_percent: u8) -> Self {
        Self { fail_percent: AtomicU8::new(fail_percent), delay_ms: AtomicU64::new(0) }
    }

    /// Whether this request is one of those that fail.
    pub(crate) fn fails(&self) -> bool {
        let percent = self.fail_percent.load(Ordering::Relaxed);
        percent > 0 && fastrand::u8(0..100) < percent
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Ordering::Relaxed))
    }

    /// Reads `fail_percent=30&delay_ms=100`; false when a name or value is unknown.
    pub(crate) fn set(&self, query: &str) -> bool {
        query.split('&').filter(|part| !part.is_empty()).all(|part| match part.split_once('=') {
            Some(("fail_percent", value)) => match value.parse::<u8>() {
                Ok(percent) if percent <= 100 => {
                    self.fail_percent.store(percent, Ordering::Relaxed);
                    true
                }
                _ => false,
            },
            Some(("delay_ms", value)) => value.parse().is_ok_and(|ms| {
                self.delay_ms.store(ms, Ordering::Relaxed);
                true
            }),
            _ => false,
        })
    }
}

/// What arrived at this instance since its start or the last `/__reset`.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Counts {
    /// Requests, knobs and health checks aside.
    requests: u64,
    /// By method.
    methods: BTreeMap<String, u64>,
    /// By status of the answer.
    statuses: BTreeMap<u16, u64>,
    /// Requests whose sidecar proved a caller by a SPIFFE certificate.
    mutual_tls: u64,
    /// Requests whose `x-load-id` was seen before: something sent them twice.
    duplicates: u64,
    #[serde(skip)]
    ids: HashSet<String>,
    /// How long the last requests took.
    #[serde(skip)]
    recent: VecDeque<Duration>,
}

impl Counts {
    /// A quantile of the last requests, in milliseconds.
    fn quantile_ms(&self, quantile: f64) -> f64 {
        let mut times: Vec<_> = self.recent.iter().collect();
        times.sort_unstable();
        let index = (times.len() as f64 * quantile) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

/// Counts behind a lock that is held for a few instructions.
#[derive(Debug, Default)]
pub(crate) struct Counter(Mutex<Counts>);

impl Counter {
    pub(crate) async fn arrived(&self, method: &str, id: Option<&str>, caller: Caller) {
        let mut counts = self.0.lock().await;
        counts.requests += 1;
        counts.mutual_tls += u64::from(caller == Caller::Proven);
        *counts.methods.entry(method.to_owned()).or_default() += 1;
        if let Some(id) = id
            && counts.ids.len() < MAX_IDS
            && !counts.ids.insert(id.to_owned())
        {
            counts.duplicates += 1;
        }
    }

    pub(crate) async fn answered(&self, status: u16, took: Duration) {
        let mut counts = self.0.lock().await;
        *counts.statuses.entry(status).or_default() += 1;
        if counts.recent.len() == RECENT {
            counts.recent.pop_front();
        }
        counts.recent.push_back(took);
    }

    pub(crate) async fn reset(&self) {
        *self.0.lock().await = Counts::default();
    }

    pub(crate) async fn read(&self) -> serde_json::Value {
        let counts = self.0.lock().await;
        let mut value = serde_json::to_value(&*counts).unwrap_or_default();
        value["p50_ms"] = counts.quantile_ms(0.5).into();
        value["p99_ms"] = counts.quantile_ms(0.99).into();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_take_only_what_they_know() {
        let knobs = Knobs::new(0);
        assert!(!knobs.fails());
        assert!(knobs.set("fail_percent=100&delay_ms=7"));
        assert!(knobs.fails());
        assert_eq!(knobs.delay().as_millis(), 7);
        for bad in ["fail_percent=101", "fail_percent=x", "other=1", "junk"] {
            assert!(!knobs.set(bad), "{bad}");
        }
    }

    #[test]
    fn a_repeated_id_is_a_duplicate() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let counter = Counter::default();
            for id in [Some("a"), Some("b"), Some("a"), None, None] {
                counter.arrived("POST", id, Caller::Proven).await;
                counter.answered(200, Duration::from_millis(3)).await;
            }
            let counts = counter.read().await;
            assert_eq!((&counts["requests"], &counts["duplicates"]), (&5.into(), &1.into()));
            assert_eq!((&counts["mutual_tls"], &counts["p99_ms"]), (&5.into(), &3.0.into()));
        });
    }
}
