//! Counts of what issuers answered; names are istiod's (PI-43c).

use prometheus::{IntCounter, Registry};
use vitals::metric::Register as _;

/// Handles of the metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    fetched: IntCounter,
    failed: IntCounter,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            fetched: registry
                .counter("pilot_jwks_resolver_network_fetch_success_total", "Key sets that were fetched")?,
            failed: registry
                .counter("pilot_jwks_resolver_network_fetch_fail_total", "Key sets that could not be fetched")?,
        })
    }

    pub(super) fn count(&self, fetched: bool) {
        if fetched { &self.fetched } else { &self.failed }.inc();
    }
}
