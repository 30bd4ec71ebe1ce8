//! What is asked of a leaf beside its chain: its hash (`verify_certificate_spki`, `verify_certificate_hash`), its name.

use crate::refusal::Refusal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proto::envoy::tls::CertificateValidationContext;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

type Sha256 = [u8; 32];

/// Hashes of which one must be the leaf's; none: any leaf will do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pins {
    /// Of the public key with its algorithm.
    spki: Vec<Sha256>,
    /// Of the certificate.
    certificate: Vec<Sha256>,
}

impl Pins {
    /// Reads the pins of a context.
    ///
    /// # Errors
    /// The pin that is no SHA-256 hash in base64 (of a key) or in hex (of a certificate).
    pub(super) fn parse(written: &CertificateValidationContext) -> Result<Self, Refusal> {
        let spki = |pin: &String| STANDARD.decode(pin).ok()?.try_into().ok();
        let certificate = |pin: &String| unhex(&pin.replace(':', ""))?.try_into().ok();
        let all = |pins: &[String], read: &dyn Fn(&String) -> Option<Sha256>, field: &str| {
            let one = |pin: &String| read(pin).ok_or_else(|| Refusal::new(field, format!("{pin} is no SHA-256 hash")));
            pins.iter().map(one).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            spki: all(&written.verify_certificate_spki, &spki, "verify_certificate_spki")?,
            certificate: all(&written.verify_certificate_hash, &certificate, "verify_certificate_hash")?,
        })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.spki.is_empty() && self.certificate.is_empty()
    }

    /// These and others.
    pub(super) fn and(&self, others: &Self) -> Self {
        Self {
            spki: [self.spki.as_slice(), &others.spki].concat(),
            certificate: [self.certificate.as_slice(), &others.certificate].concat(),
        }
    }

    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), CertificateError> {
        if self.is_empty() {
            return Ok(());
        }
        let hash = |bytes: &[u8]| Sha256::try_from(digest(&SHA256, bytes).as_ref()).unwrap_or_default();
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        if self.certificate.contains(&hash(leaf)) || self.spki.contains(&hash(parsed.public_key().raw)) {
            return Ok(());
        }
        Err(CertificateError::ApplicationVerificationFailure)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
    text.as_bytes().chunks(2).map(|pair| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?)).collect()
}

/// A verifier that asks more of the leaf than a good chain.
#[derive(Debug)]
pub(super) struct WithLeaf<V> {
    /// Verifies the chain.
    pub(super) chain: V,
    /// The leaf must have one of these.
    pub(super) pins: Pins,
    /// A server's leaf must be good for the session's server name.
    pub(super) by_name: bool,
}

impl ServerCertVerifier for WithLeaf<Arc<dyn ServerCertVerifier>> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.pins.check(leaf).map_err(Error::InvalidCertificate)?;
        if self.by_name {
            rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, server_name)?;
        }
        self.chain.verify_server_cert(leaf, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl ClientCertVerifier for WithLeaf<Arc<dyn ClientCertVerifier>> {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.pins.check(leaf).map_err(Error::InvalidCertificate)?;
        self.chain.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
