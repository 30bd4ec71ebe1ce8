//! Who may connect, and as whom (PI-51 to PI-53, XI-2).

use super::review::ReviewedTokens;
use crate::translate::Node;
use credentials::accept::Peer;
use identity::jwks::KeySet;
use identity::jwt::{self, TokenRules};
use identity::spiffe::{SpiffeId, TrustDomain};
use std::sync::Arc;
use std::time::SystemTime;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

/// Says who a caller is.
#[derive(Clone)]
pub enum Authenticator {
    /// Plaintext inside a trusted place: callers are believed (PI-52).
    Nobody,
    /// Client certificate first, then a bearer token.
    Proof(Arc<Proof>),
}

/// What proves an identity.
pub struct Proof {
    /// What checks bearer tokens.
    pub tokens: Tokens,
}

/// What checks bearer tokens.
pub enum Tokens {
    /// Nothing: certificates alone prove.
    Nothing,
    /// Keys of their issuer.
    Keys {
        /// The keys.
        keys: KeySet,
        /// What tokens must satisfy.
        rules: TokenRules,
        /// Trust domain of service accounts.
        domain: TrustDomain,
    },
    /// A Kubernetes API server.
    Review(ReviewedTokens),
}

/// A caller that is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody asked who it is.
    Unproven,
    /// It has proven an identity.
    Proven(SpiffeId),
}

impl Authenticator {
    /// Who the caller is.
    ///
    /// # Errors
    /// `Unauthenticated`, with what is missing.
    pub async fn identify(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Caller, Status> {
        let Self::Proof(proof) = self else { return Ok(Caller::Unproven) };
        let presented = extensions.get::<Peer>().and_then(|peer| peer.proven(SystemTime::now()).cloned());
        if let Some(id) = presented {
            return Ok(Caller::Proven(id));
        }
        let token = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|text| text.strip_prefix("Bearer "));
        let refused = |error: &dyn std::fmt::Display| Status::unauthenticated(format!("token: {error}"));
        let id = match (token, &proof.tokens) {
            (None, _) | (_, Tokens::Nothing) => {
                return Err(Status::unauthenticated("a client certificate or a bearer token is needed"));
            }
            (Some(token), Tokens::Review(reviewed)) => reviewed.identify(token.trim(), SystemTime::now()).await?,
            (Some(token), Tokens::Keys { keys, rules, domain }) => {
                let claims = jwt::verify(token, keys, rules, SystemTime::now()).map_err(|error| refused(&error))?;
                claims.workload_id(domain).map_err(|error| refused(&error))?
            }
        };
        Ok(Caller::Proven(id))
    }
}

impl Caller {
    /// Whether it may be the node that it says it is: namespace and account are those of its identity (PI-53).
    ///
    /// # Errors
    /// `PermissionDenied`, with both sides.
    pub fn admit(&self, node: &Node) -> Result<(), Status> {
        let Self::Proven(id) = self else { return Ok(()) };
        let Some((namespace, account)) = id.namespace_and_account() else {
            return Err(Status::permission_denied(format!("{id} is no workload")));
        };
        let same_account = node.service_account.is_empty() || node.service_account == account;
        if namespace == node.namespace && same_account {
            return Ok(());
        }
        let claimed = format!("{}/{}", node.namespace, node.service_account);
        Err(Status::permission_denied(format!("{id} is not the node's {claimed}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::envoy::core::Node as Wire;
    use std::time::Duration;

    fn node(namespace: &str) -> Node {
        let id = format!("sidecar~10.0.0.1~a.{namespace}~{namespace}.svc.cluster.local");
        Node::parse(&Wire { id, ..Wire::default() }).unwrap()
    }

    fn proof() -> Authenticator {
        Authenticator::Proof(Arc::new(Proof { tokens: Tokens::Nothing }))
    }

    // spec: PI-51, PI-52, XI-2
    #[tokio::test]
    async fn a_certificate_proves_and_nothing_proves_nothing() {
        let mut extensions = Extensions::default();
        assert_eq!(
            proof().identify(&MetadataMap::new(), &extensions).await.unwrap_err().code(),
            tonic::Code::Unauthenticated
        );
        assert_eq!(Authenticator::Nobody.identify(&MetadataMap::new(), &extensions).await.unwrap(), Caller::Unproven);
        let id = SpiffeId::parse("spiffe://cluster.local/ns/a/sa/b").unwrap();
        let now = SystemTime::now();
        let shown =
            |until| Peer { id: Some(id.clone()), until: Some(until), ..Peer::unproven(([10, 0, 0, 1], 1).into()) };
        extensions.insert(shown(now + Duration::from_secs(60)));
        let caller = proof().identify(&MetadataMap::new(), &extensions).await.unwrap();
        assert_eq!(caller, Caller::Proven(id.clone()));
        extensions.insert(shown(now - Duration::from_secs(1)));
        let ended = proof().identify(&MetadataMap::new(), &extensions).await.unwrap_err();
        assert_eq!(ended.code(), tonic::Code::Unauthenticated, "a connection may outlive its certificate");
    }

    // spec: PI-53, XI-2
    #[test]
    fn a_node_is_of_the_namespace_of_its_identity() {
        let caller = Caller::Proven(SpiffeId::parse("spiffe://cluster.local/ns/a/sa/b").unwrap());
        assert!(caller.admit(&node("a")).is_ok());
        assert_eq!(caller.admit(&node("other")).unwrap_err().code(), tonic::Code::PermissionDenied);
        let mut wrong = node("a");
        wrong.service_account = "c".into();
        assert!(caller.admit(&wrong).is_err());
    }
}
