//! What is measured of the policy, by Mixer's names (MX-30).

use super::load::Policy;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vitals::prometheus::core::{Collector, Desc};
use vitals::prometheus::proto::MetricFamily;
use vitals::prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts};

/// Sorts of objects: where they are counted, and the name of the count.
const SORTS: [(&str, &str); 4] = [
    ("attribute", "attribute"),
    ("handler", "handler_config"),
    ("instance", "instance_config"),
    ("rule", "rule_config"),
];

/// Reads the policy in force whenever it is asked.
#[derive(Debug, Clone)]
pub struct Meters {
    policy: Arc<ArcSwap<Policy>>,
    /// Time that decisions took.
    pub decisions: Histogram,
}

impl Meters {
    /// Meters of what is in force.
    ///
    /// # Errors
    /// Never: the name of the histogram is a good one.
    pub fn new(policy: Arc<ArcSwap<Policy>>) -> Result<Self, vitals::prometheus::Error> {
        let options = HistogramOpts::new("mixer_runtime_dispatch_duration_seconds", "Time that decisions took")
            .buckets(vec![0.000_01, 0.000_1, 0.001, 0.01, 0.1, 1.0]);
        Ok(Self { policy, decisions: Histogram::with_opts(options)? })
    }

    fn gather(&self) -> Result<Vec<MetricFamily>, vitals::prometheus::Error> {
        let policy = self.policy.load();
        let mut families = self.decisions.collect();
        let mut gauge = |name: String, help: &str, value: usize| {
            let gauge = IntGauge::new(name, help)?;
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            families.extend(gauge.collect());
            Ok::<_, vitals::prometheus::Error>(())
        };
        for (sort, name) in SORTS {
            let count = policy.counts.get(sort).copied().unwrap_or_default();
            gauge(format!("mixer_config_{name}_count"), "Objects or attributes that were read", count.read)?;
            gauge(format!("mixer_config_{name}_error_count"), "Those that were refused", count.refused)?;
        }
        let unsatisfied =
            policy.problems.iter().filter(|problem| problem.fault.message.starts_with("no valid handler"));
        let name = "mixer_config_unsatisfied_action_handler_count".to_owned();
        gauge(name, "Actions that name a handler that is not there", unsatisfied.count())?;
        let options = Opts::new("mixer_runtime_dispatches_total", "How often a handler was asked or told");
        let dispatches = IntCounterVec::new(options, &["handler", "adapter", "refused"])?;
        for handler in &policy.handlers {
            let name = handler.full_name();
            let (asked, refused) = (handler.asked.load(Ordering::Relaxed), handler.refused.load(Ordering::Relaxed));
            for (said, count) in [("false", asked.saturating_sub(refused)), ("true", refused)] {
                dispatches.with_label_values(&[name.as_str(), handler.kind.as_str(), said]).inc_by(count);
            }
        }
        families.extend(dispatches.collect());
        Ok(families)
    }
}

impl Collector for Meters {
    fn desc(&self) -> Vec<&Desc> {
        self.decisions.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gather().unwrap_or_default()
    }
}
