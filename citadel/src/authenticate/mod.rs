//! Who the caller is: a client certificate or a bearer token; the first proof that holds wins (spec CA-8).
//!
//! It knows proofs and turns them into a SPIFFE id. It must never know what the caller asks for.

pub mod mtls;

use credentials::accept::Peer;
use credentials::tokens::{Tokens, Unproven};
use identity::spiffe::SpiffeId;
use tonic::metadata::MetadataMap;

/// Why nobody is recognised. Callers only learn that much; the log says more.
#[derive(Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// Neither certificate nor token prove one.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// What a relay names is no identity.
    #[error("the caller that a relay names is no identity: {0}")]
    Relayed(#[from] identity::spiffe::SpiffeError),
    /// The certificate carries no SPIFFE id.
    #[error("client certificate without a SPIFFE id")]
    NoId,
    /// The caller names somebody else without being allowed to.
    #[error("{0} is no relay and must not name another caller")]
    NoRelay(SpiffeId),
}

/// All ways to prove an identity.
#[derive(Debug)]
pub struct Authenticators {
    /// Client certificates and relays.
    pub mtls: mtls::ClientCertificates,
    /// Bearer tokens.
    pub tokens: Tokens,
}

impl Authenticators {
    /// The identity that the caller proves.
    ///
    /// # Errors
    /// [`Unauthenticated`] for the log; the caller gets an opaque answer.
    pub async fn identify(
        &self,
        peer: Option<&Peer>,
        metadata: &MetadataMap,
        now: std::time::SystemTime,
    ) -> Result<SpiffeId, Unauthenticated> {
        // A relay passes tokens on, and the token says who asks.
        let passed_on = |peer: &Peer| self.mtls.is_relay(peer) && metadata.contains_key("authorization");
        if let Some(peer) = peer.filter(|peer| peer.certificate.is_some() && !passed_on(peer)) {
            return self.mtls.identify(peer, metadata, now);
        }
        Ok(self.tokens.identify(metadata, now).await?)
    }
}
