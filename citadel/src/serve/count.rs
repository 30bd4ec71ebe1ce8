//! What the certificate service counts, under Istio's names (spec CA-29).

use crate::ca::root::Authority;
use std::time::{SystemTime, UNIX_EPOCH};
use vitals::metric::Register as _;
use vitals::prometheus::{IntCounter, IntGauge, Registry};

/// Handles of all metrics; made once.
#[derive(Debug, Clone)]
pub struct Counts {
    /// Requests received.
    pub requests: IntCounter,
    /// Callers who did not prove themselves.
    pub unauthenticated: IntCounter,
    /// Requests that were malformed or asked for too much.
    pub malformed: IntCounter,
    /// Requests that could not be signed.
    pub unsigned: IntCounter,
    /// Certificates issued.
    pub issued: IntCounter,
    root_expiry: IntGauge,
    chain_expiry: IntGauge,
    root_left: IntGauge,
    chain_left: IntGauge,
}

impl Counts {
    /// Registers everything.
    ///
    /// # Errors
    /// Where a name is taken in the registry.
    pub fn new(registry: &Registry) -> vitals::prometheus::Result<Self> {
        let counter = |name: &str, help: &str| registry.counter(&format!("citadel_server_{name}"), help);
        let gauge = |name: &str, help: &str| registry.gauge(&format!("citadel_server_{name}"), help);
        Ok(Self {
            requests: counter("csr_count", "The number of CSRs received by the server.")?,
            unauthenticated: counter("authentication_failure_count", "The number of authentication failures.")?,
            malformed: counter("csr_parsing_err_count", "The number of CSRs that could not be accepted.")?,
            unsigned: counter("csr_sign_err_count", "The number of errors when signing a CSR.")?,
            issued: counter("success_cert_issuance_count", "The number of certificates issued.")?,
            root_expiry: gauge(
                "root_cert_expiry_timestamp",
                "When the first root certificate expires, in unix seconds.",
            )?,
            chain_expiry: gauge("cert_chain_expiry_timestamp", "When the signing chain expires, in unix seconds.")?,
            root_left: gauge("root_cert_expiry_seconds", "Seconds until the first root certificate expires.")?,
            chain_left: gauge("cert_chain_expiry_seconds", "Seconds until the signing chain expires.")?,
        })
    }

    /// Takes over the lives of an authority, as they are at `now`.
    pub fn observe(&self, authority: &Authority, now: SystemTime) {
        let (root, chain) = (authority.root_life().not_after, authority.signing_life().not_after);
        self.root_expiry.set(seconds(root));
        self.chain_expiry.set(seconds(chain));
        self.root_left.set(seconds(root) - seconds(now));
        self.chain_left.set(seconds(chain) - seconds(now));
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
