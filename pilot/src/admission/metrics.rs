//! Counts of what the webhooks answered; names are istiod's.

use super::review::Answer;
use prometheus::{DEFAULT_BUCKETS, Histogram, IntCounter, Registry};
use std::time::Duration;
use vitals::metric::Register as _;

/// Handles of the metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    injections: IntCounter,
    injected: IntCounter,
    skipped: IntCounter,
    failed: IntCounter,
    valid: IntCounter,
    invalid: IntCounter,
    malformed: IntCounter,
    injection_time: Histogram,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            injections: registry.counter("sidecar_injection_requests_total", "Pods that were asked about")?,
            injected: registry.counter("sidecar_injection_success_total", "Pods that got a proxy")?,
            skipped: registry.counter("sidecar_injection_skip_total", "Pods that get none")?,
            failed: registry.counter("sidecar_injection_failure_total", "Pods that could not be injected")?,
            valid: registry.counter("galley_validation_passed", "Objects that are valid")?,
            invalid: registry.counter("galley_validation_failed", "Objects that are refused")?,
            malformed: registry.counter("galley_validation_http_error", "Questions that are no AdmissionReview")?,
            injection_time: registry.histogram(
                "sidecar_injection_time_seconds",
                "Seconds that an answer about a pod takes",
                DEFAULT_BUCKETS,
            )?,
        })
    }

    pub(super) fn count_malformed(&self) {
        self.malformed.inc();
    }

    pub(super) fn count_injection(&self, answer: &Answer, took: Duration) {
        self.injection_time.observe(took.as_secs_f64());
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
