//! Counts of what the webhooks answered; names are istiod's.

use super::review::Answer;
use prometheus::{IntCounter, Registry};

/// Handles of the metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    injections: IntCounter,
    injected: IntCounter,
    skipped: IntCounter,
    failed: IntCounter,
    valid: IntCounter,
    invalid: IntCounter,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        Ok(Self {
            injections: counter("sidecar_injection_requests_total", "Pods that were asked about")?,
            injected: counter("sidecar_injection_success_total", "Pods that got a proxy")?,
            skipped: counter("sidecar_injection_skip_total", "Pods that get none")?,
            failed: counter("sidecar_injection_failure_total", "Pods that could not be injected")?,
            valid: counter("galley_validation_passed", "Objects that are valid")?,
            invalid: counter("galley_validation_failed", "Objects that are refused")?,
        })
    }

    pub(super) fn count_injection(&self, answer: &Answer) {
        self.injections.inc();
        match answer {
            Answer::Allowed | Answer::Warned(_) => self.skipped.inc(),
            Answer::Patched(_) => self.injected.inc(),
            Answer::Refused(_) => self.failed.inc(),
        }
    }

    pub(super) fn count_validation(&self, answer: &Answer) {
        match answer {
            Answer::Refused(_) => self.invalid.inc(),
            Answer::Allowed | Answer::Warned(_) | Answer::Patched(_) => self.valid.inc(),
        }
    }
}
