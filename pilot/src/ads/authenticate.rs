//! Who may connect, and as whom (PI-51 to PI-53, XI-2).

use crate::translate::Node;
use credentials::accept::Peer;
use credentials::tokens::{Tokens, Unproven};
use identity::spiffe::SpiffeId;
use std::sync::Arc;
use std::time::SystemTime;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

/// Says who a caller is.
#[derive(Clone)]
pub enum Authenticator {
    /// Plaintext inside a trusted place: callers are believed (PI-52).
    Nobody,
    /// Client certificate first, then a bearer token, which these check.
    Proof(Arc<Tokens>),
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
    /// `Unauthenticated`, with what is missing or wrong; `Unavailable` when a token cannot be checked now.
    pub async fn identify(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Caller, Status> {
        let Self::Proof(tokens) = self else { return Ok(Caller::Unproven) };
        let now = SystemTime::now();
        if let Some(id) = extensions.get::<Peer>().and_then(|peer| peer.proven(now)) {
            return Ok(Caller::Proven(id.clone()));
        }
        match tokens.identify(metadata, now).await {
            Ok(id) => Ok(Caller::Proven(id)),
            Err(error @ Unproven::Unavailable(_)) => {
                tracing::warn!("{error}");
                Err(Status::unavailable("tokens cannot be checked now: try again"))
            }
            Err(error) => Err(Status::unauthenticated(error.to_string())),
        }
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
    use credentials::accept::Certificate;
    use proto::envoy::core::Node as Wire;
    use std::time::Duration;

    fn node(namespace: &str) -> Node {
        let id = format!("sidecar~10.0.0.1~a.{namespace}~{namespace}.svc.cluster.local");
        Node::parse(&Wire { id, ..Wire::default() }).unwrap()
    }

    fn proof() -> Authenticator {
        Authenticator::Proof(Arc::new(Tokens::Nothing))
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
        let shown = |until| Peer {
            address: ([10, 0, 0, 1], 1).into(),
            certificate: Some(Certificate { id: Some(id.clone()), until }),
        };
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
