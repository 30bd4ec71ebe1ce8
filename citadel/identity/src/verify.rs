//! Chain and name check of a peer's certificate as rustls verifiers (spec MT-6).
//!
//! The name check of the web (host name against DNS SAN) is replaced by a match of SPIFFE ids. A resumed session does
//! not run a verifier: [`PeerVerifier::check`] is public so that the holder of a session can check the chain again,
//! and session stores must not be shared between different bundles or match lists.

use crate::bundle::TrustBundle;
use crate::crl::Revocations;
use crate::san::{SanKind, SanMatch};
use crate::spiffe::{SCHEME, SpiffeId, TrustDomain};
use crate::svid::provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use webpki::{EndEntityCert, KeyUsage};

/// Why a peer's certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The chain does not lead to a root, or a certificate in it is not valid now or not for this use.
    #[error("certificate chain of {found} refused: {reason:?}")]
    Chain {
        /// Names that the leaf claims.
        found: String,
        /// What webpki found wrong.
        reason: Box<webpki::Error>,
    },
    /// The bundle holds no root for the trust domain of the peer.
    #[error("no trusted root for trust domain {0}")]
    UnknownTrustDomain(TrustDomain),
    /// More than one URI SAN: not an X.509-SVID (SPIFFE X509-SVID, section 2).
    #[error("certificate with {count} URI names refused: a SPIFFE certificate has exactly one; found {found}")]
    SeveralUris {
        /// How many.
        count: usize,
        /// The names.
        found: String,
    },
    /// A URI SAN in the SPIFFE scheme that is no SPIFFE id.
    #[error("certificate names {found:?}, which is no valid SPIFFE id")]
    MalformedId {
        /// The name.
        found: String,
    },
    /// No name of the peer is acceptable.
    #[error("expected a certificate of {expected}, found {found}")]
    WrongName {
        /// What would have been acceptable.
        expected: String,
        /// What the certificate says.
        found: String,
    },
}

/// Which side of a handshake the peer is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The peer connects to us.
    Client,
    /// We connect to the peer.
    Server,
}

/// Checks a chain against a bundle and its names against a list.
#[derive(Debug)]
pub struct PeerVerifier {
    bundle: Arc<TrustBundle>,
    accept: SanMatch,
    role: Role,
    presence: Presence,
    algorithms: WebPkiSupportedAlgorithms,
    revoked: Option<Arc<Revocations>>,
}

/// Whether a client must show a certificate at all. One that is shown is always checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Required,
    Optional,
}

/// A verifier for certificates of clients; a client without one is refused.
pub fn client_verifier(bundle: Arc<TrustBundle>, accept: SanMatch) -> Arc<dyn ClientCertVerifier> {
    Arc::new(PeerVerifier::new(bundle, accept, Role::Client))
}

/// A verifier for servers that also take clients without a certificate, such as a CA; a certificate that is shown is
/// checked all the same.
pub fn optional_client_verifier(bundle: Arc<TrustBundle>, accept: SanMatch) -> Arc<dyn ClientCertVerifier> {
    Arc::new(PeerVerifier::new(bundle, accept, Role::Client).optional())
}

/// A verifier for certificates of servers; the server name of the connection is not looked at.
pub fn server_verifier(bundle: Arc<TrustBundle>, accept: SanMatch) -> Arc<dyn ServerCertVerifier> {
    Arc::new(PeerVerifier::new(bundle, accept, Role::Server))
}

impl PeerVerifier {
    /// A verifier for peers on the given side.
    pub fn new(bundle: Arc<TrustBundle>, accept: SanMatch, role: Role) -> Self {
        let algorithms = provider().signature_verification_algorithms;
        Self { bundle, accept, role, presence: Presence::Required, algorithms, revoked: None }
    }

    /// The same verifier, which also takes clients without a certificate.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { presence: Presence::Optional, ..self }
    }

    /// The same verifier, which refuses what these lists name.
    #[must_use]
    pub fn revoking(self, revoked: Option<Arc<Revocations>>) -> Self {
        Self { revoked, ..self }
    }

    /// Checks a chain at a time; also for chains of resumed sessions.
    ///
    /// # Errors
    /// [`VerifyError`] with what was expected and what was found.
    pub fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        let chain = |found: String, reason| VerifyError::Chain { found, reason: Box::new(reason) };
        let malformed = |reason| chain("an unreadable certificate".to_owned(), reason);
        let cert = EndEntityCert::try_from(leaf).map_err(malformed)?;
        let names = Names::of(&cert);
        let domain = names.trust_domain()?;
        let anchors = self.bundle.anchors(domain.as_ref());
        if let (true, Some(domain)) = (anchors.is_empty(), domain) {
            return Err(VerifyError::UnknownTrustDomain(domain));
        }
        let usage = match self.role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let lists = self.revoked.as_ref().map(|revoked| revoked.lists()).unwrap_or_default();
        let revocation = self.revoked.as_ref().map(|revoked| revoked.options(&lists));
        cert.verify_for_usage(self.algorithms.all, &anchors, intermediates, now, usage, revocation, None)
            .map_err(|reason| chain(names.to_string(), reason))?;
        if self.accept.is_any()
            || names.uris.iter().any(|uri| self.accept.accepts(SanKind::Uri, uri))
            || names.dns.iter().any(|host| self.accept.accepts(SanKind::Dns, host))
        {
            return Ok(());
        }
        Err(VerifyError::WrongName { expected: self.accept.to_string(), found: names.to_string() })
    }
}

/// The names in a leaf; those that are no text were left out by webpki.
struct Names<'a> {
    uris: Vec<&'a str>,
    dns: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn of(cert: &EndEntityCert<'a>) -> Self {
        Self { uris: cert.valid_uri_names().collect(), dns: cert.valid_dns_names().collect() }
    }

    /// The trust domain, if the leaf is a SPIFFE certificate at all.
    fn trust_domain(&self) -> Result<Option<TrustDomain>, VerifyError> {
        let Some(claimed) = self.uris.iter().find(|uri| uri.starts_with(SCHEME)) else {
            return Ok(None);
        };
        if self.uris.len() > 1 {
            return Err(VerifyError::SeveralUris { count: self.uris.len(), found: self.to_string() });
        }
        let id = SpiffeId::parse(claimed).map_err(|_| VerifyError::MalformedId { found: (*claimed).to_owned() })?;
        Ok(Some(id.trust_domain().clone()))
    }
}

impl std::fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.uris.iter().chain(&self.dns).copied().collect();
        if names.is_empty() { f.write_str("a certificate without names") } else { f.write_str(&names.join(", ")) }
    }
}

/// rustls picks the TLS alert by the variant; what it has no variant for travels as text.
fn as_rustls(error: VerifyError) -> Error {
    use webpki::Error as W;
    let other = |error: VerifyError| CertificateError::Other(OtherError(Arc::new(error)));
    let mapped = match error {
        VerifyError::UnknownTrustDomain(_) => other(error),
        VerifyError::Chain { ref reason, .. } => match **reason {
            W::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
            W::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
            W::UnknownIssuer => CertificateError::UnknownIssuer,
            W::CertRevoked => CertificateError::Revoked,
            W::InvalidSignatureForPublicKey => CertificateError::BadSignature,
            W::BadDer | W::BadDerTime | W::TrailingData(_) => CertificateError::BadEncoding,
            _ => other(error),
        },
        _ => other(error),
    };
    Error::InvalidCertificate(mapped)
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.presence == Presence::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[] // Envoy sends hints, but a mesh client has one certificate; without hints the roots stay private
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, intermediates, now).map_err(as_rustls)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, intermediates, now).map_err(as_rustls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
