//! Callers with a bearer token: a JWT of Kubernetes or a bootstrap token, checked against a key set (spec CA-8).

use crate::authenticate::Unauthenticated;
use identity::jwks::KeySet;
use identity::jwt::{self, Expiry, TokenRules};
use identity::spiffe::{SpiffeId, TrustDomain};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;

/// Tokens as proof.
#[derive(Debug)]
pub struct BearerTokens {
    keys: watch::Receiver<Arc<KeySet>>,
    rules: TokenRules,
    domain: TrustDomain,
}

impl BearerTokens {
    /// Tokens signed by a key of the set, for `audiences`, from `issuer` if one is given; they must end some day.
    pub fn new(
        keys: watch::Receiver<Arc<KeySet>>,
        issuer: Option<String>,
        audiences: Vec<String>,
        domain: TrustDomain,
    ) -> Self {
        Self { keys, rules: TokenRules { issuer, audiences, expiry: Expiry::Required }, domain }
    }

    /// The identity that the token in `authorization: Bearer …` is bound to.
    ///
    /// # Errors
    /// [`Unauthenticated`] says why, for the log only.
    pub fn identify(&self, metadata: &MetadataMap, now: SystemTime) -> Result<SpiffeId, Unauthenticated> {
        let token = bearer(metadata)?;
        let keys = Arc::clone(&self.keys.borrow());
        let claims = jwt::verify(token, &keys, &self.rules, now)?;
        Ok(claims.workload_id(&self.domain)?)
    }
}

/// The one token in `authorization: Bearer …`.
///
/// # Errors
/// [`Unauthenticated::NoProof`] where there is none, or more than one.
pub(super) fn bearer(metadata: &MetadataMap) -> Result<&str, Unauthenticated> {
    let mut values = metadata.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Unauthenticated::NoProof) };
    let text = value.to_str().map_err(|_| Unauthenticated::NoProof)?;
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.map(|(_, token)| token.trim()).ok_or(Unauthenticated::NoProof)
}
