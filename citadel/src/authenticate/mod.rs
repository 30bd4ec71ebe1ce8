//! Who the caller is: a client certificate or a bearer token; the first proof that holds wins (spec CA-8).
//!
//! It knows proofs and turns them into a SPIFFE id. It must never know what the caller asks for.

pub mod mtls;
pub mod token;

use identity::spiffe::SpiffeId;
use tonic::metadata::MetadataMap;

/// Why nobody is recognised. Callers only learn that much; the log says more.
#[derive(Debug, thiserror::Error)]
pub enum Unauthenticated {
    /// Neither certificate nor token.
    #[error("no client certificate and no bearer token")]
    NoProof,
    /// The token is refused.
    #[error("token refused: {0}")]
    Token(#[from] identity::jwt::TokenError),
    /// The token's subject is no identity.
    #[error("token subject is no identity: {0}")]
    Subject(#[from] identity::spiffe::SpiffeError),
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
    /// Bearer tokens; `None` where no key set is configured.
    pub token: Option<token::BearerTokens>,
}

impl Authenticators {
    /// The identity that the caller proves.
    ///
    /// # Errors
    /// [`Unauthenticated`] for the log; the caller gets an opaque answer.
    pub fn identify(
        &self,
        peer: Option<&mtls::PeerCertificate>,
        metadata: &MetadataMap,
        now: std::time::SystemTime,
    ) -> Result<SpiffeId, Unauthenticated> {
        if let Some(peer) = peer {
            return self.mtls.identify(peer, metadata, now);
        }
        match &self.token {
            Some(tokens) => tokens.identify(metadata, now),
            None => Err(Unauthenticated::NoProof),
        }
    }
}
