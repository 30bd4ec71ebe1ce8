//! What a source counts; names are istiod's where it has one (PI-43c, OB-5).

use crate::source::kinds::Row;
use prometheus::{IntCounterVec, Registry};
use vitals::metric::Register as _;

/// What the source of a Kubernetes API counts.
#[derive(Clone)]
pub struct Metrics {
    /// Lists and watches that failed, by kind.
    pub errors: IntCounterVec,
    /// Lists that were begun, by kind: more than one each after `410 Gone`.
    pub lists: IntCounterVec,
    config_events: IntCounterVec,
    registry_events: IntCounterVec,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = ["type", "event"];
        Ok(Self {
            errors: registry.counters(
                "pilot_k8s_watch_errors_total",
                "Lists and watches of the API server that failed",
                &["type"],
            )?,
            lists: registry.counters("pilot_k8s_lists_total", "Lists of the API server that were begun", &["type"])?,
            config_events: registry.counters("pilot_k8s_cfg_events", "Events of Istio's kinds", &labels)?,
            registry_events: registry.counters("pilot_k8s_reg_events", "Events of Kubernetes' own kinds", &labels)?,
        })
    }

    /// Counts an event of a kind.
    pub fn count(&self, row: &Row, event: &str) {
        let counter = if row.is_custom() { &self.config_events } else { &self.registry_events };
        counter.with_label_values(&[row.name, event]).inc();
    }
}
