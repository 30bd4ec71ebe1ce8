//! `istio.v1.auth.IstioCertificateService`: one request, one signed chain (spec CA-1, CA-5).

use crate::authenticate::{Authenticators, Unauthenticated};
use crate::ca::policy::{Policy, Refused};
use crate::ca::root::Authority;
use crate::ca::sign::{self, SignError};
use crate::serve::count::Counts;
use crate::serve::limit::IdentityLimits;
use credentials::accept::Peer;
use credentials::tokens::Unproven;
use identity::spiffe::SpiffeId;
use proto::ca::istio_certificate_service_server::IstioCertificateService;
use proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub struct CertificateService {
    authenticators: Authenticators,
    policy: Policy,
    authority: watch::Receiver<Arc<Authority>>,
    limits: IdentityLimits,
    counts: Counts,
}

impl CertificateService {
    /// Signs by the authority of the moment what the policy grants to those who prove themselves.
    pub fn new(
        authenticators: Authenticators,
        policy: Policy,
        authority: watch::Receiver<Arc<Authority>>,
        limits: IdentityLimits,
        counts: Counts,
    ) -> Self {
        Self { authenticators, policy, authority, limits, counts }
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let now = SystemTime::now();
        self.counts.requests.inc();
        let peer = request.extensions().get::<Peer>().cloned();
        let (metadata, _, asked) = request.into_parts();
        let caller = self.identify(peer.as_ref(), &metadata, now).await?;
        if !self.limits.admit(&caller, now).await {
            tracing::warn!(%caller, "too many certificate requests");
            return Err(Status::resource_exhausted(format!(
                "too many certificate requests of {caller}: try again later"
            )));
        }
        let grant = self
            .policy
            .grant(&caller, asked.validity_duration)
            .and_then(|grant| unimpersonated(&asked).map(|()| grant))
            .map_err(|refused| {
                tracing::warn!(%caller, %refused, "certificate request refused");
                self.counts.malformed.inc();
                match refused {
                    Refused::TrustDomain { .. } => unauthenticated(),
                    other => Status::invalid_argument(other.to_string()),
                }
            })?;
        let authority = Arc::clone(&self.authority.borrow());
        let cert_chain = sign::sign(&authority, &asked.csr, &grant, now).map_err(|error| {
            tracing::warn!(%caller, %error, "certificate not signed");
            let fault = if matches!(error, SignError::Csr(_)) { &self.counts.malformed } else { &self.counts.unsigned };
            fault.inc();
            status_of(&error)
        })?;
        self.counts.issued.inc();
        tracing::info!(%caller, ttl_s = grant.ttl.as_secs(), "certificate issued");
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

/// Faults of the request are told, faults of the authority are not (CA-5).
fn status_of(error: &SignError) -> Status {
    match error {
        SignError::Csr(_) => Status::invalid_argument(error.to_string()),
        SignError::AuthorityExpired | SignError::Crypto(_) => Status::internal("CSR signing error"),
    }
}

impl CertificateService {
    async fn identify(&self, peer: Option<&Peer>, metadata: &MetadataMap, now: SystemTime) -> Result<SpiffeId, Status> {
        self.authenticators.identify(peer, metadata, now).await.map_err(|reason| {
            tracing::warn!(%reason, "caller not recognised");
            self.counts.unauthenticated.inc();
            match reason {
                Unauthenticated::Unproven(Unproven::Unavailable(_)) => {
                    Status::unavailable("tokens cannot be checked now: try again")
                }
                _ => unauthenticated(),
            }
        })
    }
}

/// The same opaque text for every reason (CA-5): a stranger learns nothing.
fn unauthenticated() -> Status {
    Status::unauthenticated("request authenticate failure")
}

/// Node proxies that ask for others (CA-2, CA-9) are refused, not ignored: they would get the wrong certificate.
fn unimpersonated(asked: &IstioCertificateRequest) -> Result<(), Refused> {
    let fields = asked.metadata.as_ref().map(|m| &m.fields);
    for name in ["ImpersonatedIdentity", "CertSigner"] {
        if fields.is_some_and(|f| f.contains_key(name)) {
            return Err(Refused::NotSupported(name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CA-5
    #[test]
    fn faults_of_the_authority_are_internal_and_opaque() {
        for error in [SignError::AuthorityExpired, SignError::Crypto(rcgen::Error::RemoteKeyError)] {
            let status = status_of(&error);
            assert_eq!((status.code(), status.message()), (tonic::Code::Internal, "CSR signing error"));
        }
        assert_eq!(status_of(&SignError::Csr("x".into())).code(), tonic::Code::InvalidArgument);
    }
}
