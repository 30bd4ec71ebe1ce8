//! Counts of what the webhooks answered; names are istiod's.

use super::review::Answer;
use prometheus::{Histogram, HistogramOpts, IntCounter, Registry};
use std::time::Duration;

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
            malformed: counter("galley_validation_http_error", "Questions that are no AdmissionReview")?,
            injection_time: {
                let help = "Seconds that an answer about a pod takes";
                let histogram = Histogram::with_opts(HistogramOpts::new("sidecar_injection_time_seconds", help))?;
                registry.register(Box::new(histogram.clone()))?;
                histogram
            },
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
