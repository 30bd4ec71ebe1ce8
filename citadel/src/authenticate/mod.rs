//! Who the caller is: a client certificate or a bearer token; the first proof that holds wins (spec CA-8).
//!
//! It knows proofs and turns them into a SPIFFE id. It must never know what the caller asks for.

pub mod mtls;
pub mod review;
pub mod token;

use credentials::accept::Peer;
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
    /// The API server does not accept the token, or it is not for us.
    #[error("token refused: {0}")]
    Review(#[from] identity::review::ReviewError),
    /// The API server cannot be asked now.
    #[error("the token cannot be checked: {0}")]
    Unavailable(String),
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
    /// Bearer tokens.
    pub token: Tokens,
}

/// What checks bearer tokens.
#[derive(Debug)]
pub enum Tokens {
    /// Nothing: no token is accepted.
    Nothing,
    /// A key set.
    Keys(token::BearerTokens),
    /// A Kubernetes API server.
    Review(review::ReviewedTokens),
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
        if let Some(peer) = peer.filter(|peer| peer.until.is_some() && !passed_on(peer)) {
            return self.mtls.identify(peer, metadata, now);
        }
        match &self.token {
            Tokens::Keys(tokens) => tokens.identify(metadata, now),
            Tokens::Review(tokens) => tokens.identify(metadata, now).await,
            Tokens::Nothing => Err(Unauthenticated::NoProof),
        }
    }
}
