//! Callers with a bearer token: a JWT that a key set checks, or the token of a Kubernetes service account, which its API
//! server checks (CA-8, PI-51).

use crate::kubernetes::ReviewedTokens;
use identity::jwks::KeySet;
use identity::jwt::{self, TokenError, TokenRules};
use identity::review::ReviewError;
use identity::spiffe::{SpiffeError, SpiffeId, TrustDomain};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;

/// Why a token proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// There is none, more than one, or nothing here checks tokens.
    #[error("a client certificate or a bearer token is needed")]
    NoProof,
    /// The key set does not accept it.
    #[error("token: {0}")]
    Token(#[from] TokenError),
    /// The API server does not accept it, or it is not for us.
    #[error("token: {0}")]
    Review(#[from] ReviewError),
    /// Its subject is no identity.
    #[error("token: its subject is no identity: {0}")]
    Subject(#[from] SpiffeError),
    /// The API server cannot be asked now.
    #[error("the token cannot be checked: {0}")]
    Unavailable(String),
}

/// What checks bearer tokens.
#[derive(Debug)]
pub enum Tokens {
    /// Nothing: no token is accepted.
    Nothing,
    /// The keys of their issuer.
    Keys {
        /// The keys of the moment.
        keys: watch::Receiver<Arc<KeySet>>,
        /// What tokens must satisfy.
        rules: TokenRules,
        /// Trust domain of service accounts.
        domain: TrustDomain,
    },
    /// A Kubernetes API server.
    Review(ReviewedTokens),
}

impl Tokens {
    /// The identity that the token in `authorization: Bearer …` proves.
    ///
    /// # Errors
    /// [`Unproven`] says why it proves none.
    pub async fn identify(&self, metadata: &MetadataMap, now: SystemTime) -> Result<SpiffeId, Unproven> {
        let token = bearer(metadata).ok_or(Unproven::NoProof)?;
        match self {
            Self::Nothing => Err(Unproven::NoProof),
            Self::Keys { keys, rules, domain } => {
                let keys = Arc::clone(&keys.borrow());
                Ok(jwt::verify(token, &keys, rules, now)?.workload_id(domain)?)
            }
            Self::Review(reviewed) => reviewed.identify(token, now).await,
        }
    }
}

/// The one token in `authorization: Bearer …`.
fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let mut values = metadata.get_all("authorization").iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let token = value.to_str().ok()?.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.map(|(_, token)| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_of_the_scheme_is_a_token() {
        let metadata = |values: &[&str]| {
            let mut metadata = MetadataMap::new();
            for value in values {
                metadata.append("authorization", value.parse().unwrap());
            }
            metadata
        };
        assert_eq!(bearer(&metadata(&["Bearer a.b.c"])), Some("a.b.c"));
        assert_eq!(bearer(&metadata(&["bearer  a.b.c "])), Some("a.b.c"));
        for values in [&[][..], &["Basic YTpi"], &["a.b.c"], &["Bearer a", "Bearer b"]] {
            assert_eq!(bearer(&metadata(values)), None, "{values:?}");
        }
    }

    // spec: CA-8, PI-51
    #[tokio::test]
    async fn where_nothing_checks_tokens_none_is_accepted() {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", "Bearer a.b.c".parse().unwrap());
        let refused = Tokens::Nothing.identify(&metadata, SystemTime::now()).await;
        assert!(matches!(refused, Err(Unproven::NoProof)));
    }
}
