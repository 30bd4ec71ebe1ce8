//! Callers with a client certificate: workloads that renew, and relays that vouch for others.

use crate::authenticate::Unauthenticated;
use identity::spiffe::SpiffeId;
use identity::svid::LeafFacts;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::SystemTime;
use tonic::metadata::MetadataMap;

/// Metadata in which a relay (pilot) names the caller whose certificate it verified.
pub const RELAYED_CALLER: &str = "ferromesh-relayed-caller";

/// The leaf that a client proved in the handshake.
#[derive(Debug, Clone)]
pub struct PeerCertificate(pub Arc<LeafFacts>);

impl PeerCertificate {
    /// Reads the leaf of a verified chain.
    pub fn of(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let leaf = chain?.first()?;
        LeafFacts::read(leaf).ok().map(|facts| Self(Arc::new(facts)))
    }
}

/// Certificates as proof.
#[derive(Debug, Clone, Default)]
pub struct ClientCertificates {
    /// Identities that may name another caller, such as pilot's. They are trusted for that alone.
    pub relays: Vec<SpiffeId>,
}

impl ClientCertificates {
    /// The identity in the certificate, or the one that a relay names.
    ///
    /// # Errors
    /// [`Unauthenticated`] where the certificate has ended since the handshake, has no id, or names another caller
    /// without being a relay.
    pub fn identify(
        &self,
        peer: &PeerCertificate,
        metadata: &MetadataMap,
        now: SystemTime,
    ) -> Result<SpiffeId, Unauthenticated> {
        if peer.0.lifetime.not_after < now {
            return Err(Unauthenticated::NoProof); // a connection may outlive the certificate that opened it
        }
        let own = peer.0.id.clone().ok_or(Unauthenticated::NoId)?;
        let Some(named) = metadata.get(RELAYED_CALLER) else { return Ok(own) };
        if !self.relays.contains(&own) {
            return Err(Unauthenticated::NoRelay(own));
        }
        Ok(SpiffeId::parse(named.to_str().unwrap_or_default())?)
    }
}
