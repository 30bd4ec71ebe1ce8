//! Callers with a client certificate: workloads that renew, and relays that vouch for others.

use crate::authenticate::Unauthenticated;
use credentials::accept::Peer;
use credentials::tokens::Unproven;
use identity::spiffe::SpiffeId;
use std::time::SystemTime;
use tonic::metadata::MetadataMap;

/// Metadata in which a relay (pilot) names the caller whose certificate it verified.
pub const RELAYED_CALLER: &str = "ferromesh-relayed-caller";

/// Certificates as proof.
#[derive(Debug, Clone, Default)]
pub struct ClientCertificates {
    /// Identities that may name another caller, such as pilot's. They are trusted for that alone.
    pub relays: Vec<SpiffeId>,
}

impl ClientCertificates {
    /// Whether the certificate is that of a relay.
    pub fn is_relay(&self, peer: &Peer) -> bool {
        peer.id().is_some_and(|id| self.relays.contains(id))
    }

    /// The identity in the certificate, or the one that a relay names. A relay's own identity is never what it asks for:
    /// what it passes on is somebody else's request.
    ///
    /// # Errors
    /// [`Unauthenticated`] where the certificate has ended since the handshake, has no id, names another caller without
    /// being a relay, or is a relay's and names nobody.
    pub fn identify(&self, peer: &Peer, metadata: &MetadataMap, now: SystemTime) -> Result<SpiffeId, Unauthenticated> {
        if peer.id().is_none() {
            return Err(Unauthenticated::NoId);
        }
        let own = peer.proven(now).cloned().ok_or(Unproven::NoProof)?;
        let named = match (metadata.get(RELAYED_CALLER), self.is_relay(peer)) {
            (None, false) => return Ok(own),
            (None, true) => return Err(Unproven::NoProof.into()),
            (Some(_), false) => return Err(Unauthenticated::NoRelay(own)),
            (Some(named), true) => named,
        };
        Ok(SpiffeId::parse(named.to_str().unwrap_or_default())?)
    }
}
