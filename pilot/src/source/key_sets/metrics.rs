//! Counts of what issuers answered; names are istiod's (PI-43c).

use prometheus::{IntCounter, Registry};

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
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        Ok(Self {
            fetched: counter("pilot_jwks_resolver_network_fetch_success_total", "Key sets that were fetched")?,
            failed: counter("pilot_jwks_resolver_network_fetch_fail_total", "Key sets that could not be fetched")?,
        })
    }

    pub(super) fn count(&self, fetched: bool) {
        if fetched { &self.fetched } else { &self.failed }.inc();
    }
}
