//! `CertificateValidationContext` → what a peer's certificate must be, and the verifiers of it.

use super::pins::{Pins, WithLeaf};
use super::read;
use crate::refusal::{Refusal, Within};
use identity::bundle::TrustBundle;
use identity::crl::{Depth, Revocations};
use identity::san::{SanKind, SanMatch, SanPattern, SanText};
use identity::svid::provider;
use identity::verify::{PeerVerifier, Role};
use proto::envoy::matcher::string_matcher::MatchPattern;
use proto::envoy::tls::{
    CertificateValidationContext, certificate_validation_context::TrustChainVerification,
    subject_alt_name_matcher::SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;

/// What a peer's certificate must be. Without roots and pins nothing is verified, as in Envoy.
#[derive(Debug, Clone, Default)]
pub struct Validation {
    roots: Option<Arc<TrustBundle>>,
    names: Vec<SanPattern>,
    pins: Pins,
    revoked: Option<Arc<Revocations>>,
    accept_untrusted: bool,
}

impl Validation {
    /// Reads a context.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet: what is not looked at would accept too much.
    pub fn parse(written: &CertificateValidationContext) -> Result<Self, Refusal> {
        let refused = [
            ("ca_certificate_provider_instance", written.ca_certificate_provider_instance.is_some()),
            ("system_root_certs", written.system_root_certs.is_some()),
            (
                "require_signed_certificate_timestamp",
                written.require_signed_certificate_timestamp.as_ref().is_some_and(|b| b.value),
            ),
            ("allow_expired_certificate", written.allow_expired_certificate),
            ("custom_validator_config", written.custom_validator_config.is_some()),
            ("max_verify_depth", written.max_verify_depth.is_some()),
        ];
        if let Some((field, _)) = refused.iter().find(|(_, written)| *written) {
            return Err(Refusal::unsupported(*field));
        }
        let roots = read(written.trusted_ca.as_ref(), "trusted_ca")?.map(|pem| bundle(&pem)).transpose()?;
        let depth = if written.only_verify_leaf_cert_crl { Depth::Leaf } else { Depth::Chain };
        let lists = read(written.crl.as_ref(), "crl")?;
        let revoked = lists.map(|pem| Revocations::from_pem(&pem, depth)).transpose();
        let revoked = revoked.map_err(|error| Refusal::new("crl", error.to_string()))?.map(Arc::new);
        if revoked.is_some() && roots.is_none() {
            return Err(Refusal::new("crl", "trusted_ca is needed beside it"));
        }
        Ok(Self {
            roots,
            names: names(written)?,
            pins: Pins::parse(written)?,
            revoked,
            accept_untrusted: written.trust_chain_verification == i32::from(TrustChainVerification::AcceptUntrusted),
        })
    }

    /// This one with what a secret says over it, as protobuf merges: lists add up, single values are replaced.
    pub fn merged(&self, secret: &Self) -> Self {
        Self {
            roots: secret.roots.clone().or_else(|| self.roots.clone()),
            names: [self.names.clone(), secret.names.clone()].concat(),
            pins: self.pins.and(&secret.pins),
            revoked: secret.revoked.clone().or_else(|| self.revoked.clone()),
            accept_untrusted: self.accept_untrusted || secret.accept_untrusted,
        }
    }

    /// Whether only certificates with certain hashes are taken.
    pub fn is_pinned(&self) -> bool {
        !self.pins.is_empty()
    }

    /// The trusted roots.
    pub fn roots(&self) -> Option<&Arc<TrustBundle>> {
        self.roots.as_ref()
    }

    /// Lists of certificates that are taken no more.
    pub fn revoked(&self) -> Option<&Arc<Revocations>> {
        self.revoked.as_ref()
    }

    fn chain(&self, role: Role) -> Option<PeerVerifier> {
        let roots = self.roots.clone().filter(|_| !self.accept_untrusted)?;
        Some(PeerVerifier::new(roots, SanMatch::of(self.names.clone()), role).revoking(self.revoked.clone()))
    }

    /// The verifier of a server; `by_name`: its certificate must be good for the session's server name, too.
    pub fn of_server(&self, by_name: bool) -> Arc<dyn ServerCertVerifier> {
        let chain: Arc<dyn ServerCertVerifier> = match self.chain(Role::Server) {
            Some(chain) => Arc::new(chain),
            None => Arc::new(Unverified),
        };
        if self.pins.is_empty() && !by_name {
            return chain;
        }
        Arc::new(WithLeaf { chain, pins: self.pins.clone(), by_name })
    }

    /// The verifier of a client; `None` where no certificate is asked for.
    pub fn of_client(&self, required: bool) -> Option<Arc<dyn ClientCertVerifier>> {
        let chain = self.roots.clone().map(|roots| {
            let names = SanMatch::of(self.names.clone());
            let chain = PeerVerifier::new(roots, names, Role::Client).revoking(self.revoked.clone());
            if required { chain } else { chain.optional() }
        })?;
        let chain: Arc<dyn ClientCertVerifier> = Arc::new(chain);
        if self.pins.is_empty() {
            return Some(chain);
        }
        Some(Arc::new(WithLeaf { chain, pins: self.pins.clone(), by_name: false }))
    }
}

fn bundle(pem: &[u8]) -> Result<Arc<TrustBundle>, Refusal> {
    TrustBundle::from_pem(pem).map(Arc::new).map_err(|error| Refusal::new("trusted_ca", error.to_string()))
}

/// Acceptable names; one match of one name suffices.
fn names(written: &CertificateValidationContext) -> Result<Vec<SanPattern>, Refusal> {
    let mut patterns = Vec::new();
    for (i, typed) in written.match_typed_subject_alt_names.iter().enumerate() {
        let field = format!("match_typed_subject_alt_names[{i}]");
        let kind = match SanType::try_from(typed.san_type) {
            Ok(SanType::Uri) => SanKind::Uri,
            Ok(SanType::Dns) => SanKind::Dns,
            _ => return Err(Refusal::unsupported(format!("{field}.san_type"))),
        };
        let text = text(typed.matcher.as_ref()).within(&field)?;
        patterns.push(SanPattern { kind, text });
    }
    #[expect(deprecated, reason = "Istio still sends the older field")]
    for (i, matcher) in written.match_subject_alt_names.iter().enumerate() {
        let text = text(Some(matcher)).within(&format!("match_subject_alt_names[{i}]"))?;
        patterns.push(SanPattern { kind: SanKind::Uri, text: text.clone() });
        patterns.push(SanPattern { kind: SanKind::Dns, text });
    }
    Ok(patterns)
}

fn text(matcher: Option<&proto::envoy::matcher::StringMatcher>) -> Result<SanText, Refusal> {
    if matcher.is_some_and(|m| m.ignore_case) {
        return Err(Refusal::unsupported("matcher.ignore_case"));
    }
    match matcher.and_then(|m| m.match_pattern.as_ref()) {
        Some(MatchPattern::Exact(text)) => Ok(SanText::Exact(text.clone())),
        Some(MatchPattern::Prefix(text)) => Ok(SanText::Prefix(text.clone())),
        Some(MatchPattern::Suffix(text)) => Ok(SanText::Suffix(text.clone())),
        Some(MatchPattern::Contains(text)) => Ok(SanText::Contains(text.clone())),
        _ => Err(Refusal::unsupported("matcher")),
    }
}

/// Takes any server certificate: what Envoy does without a validation context (`insecureSkipVerify`).
#[derive(Debug)]
pub struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
