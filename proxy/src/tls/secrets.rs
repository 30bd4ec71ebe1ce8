//! Secrets by name, and rustls configurations made of them. Main thread.

use super::accept::{ServerReady, cert_facts};
use super::config::{KeySource, RootSource, Spec, read};
use crate::refusal::{Refusal, Within};
use identity::bundle::TrustBundle;
use identity::svid::{Svid, provider};
use identity::verify::{client_verifier, optional_client_verifier, server_verifier};
use proto::envoy::tls::{Secret, secret};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Secrets that have arrived.
#[derive(Debug, Default)]
pub struct Secrets {
    keys: BTreeMap<Arc<str>, Arc<Svid>>,
    roots: BTreeMap<Arc<str>, Arc<TrustBundle>>,
}

impl Secrets {
    /// Takes a secret in; the old one of that name stays in use where the new one is broken.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn insert(&mut self, written: &Secret) -> Result<(), Refusal> {
        let name: Arc<str> = written.name.as_str().into();
        match &written.r#type {
            Some(secret::Type::TlsCertificate(certificate)) => {
                let chain = read(certificate.certificate_chain.as_ref(), "certificate_chain")?.unwrap_or_default();
                let key = read(certificate.private_key.as_ref(), "private_key")?.unwrap_or_default();
                let svid = Svid::from_pem(&chain, &key).map_err(|e| Refusal::new("tls_certificate", e.to_string()))?;
                self.keys.insert(name, Arc::new(svid));
            }
            Some(secret::Type::ValidationContext(context)) => {
                let roots = read(context.trusted_ca.as_ref(), "trusted_ca").within("validation_context")?;
                let bundle = TrustBundle::from_pem(&roots.unwrap_or_default())
                    .map_err(|error| Refusal::new("validation_context.trusted_ca", error.to_string()))?;
                self.roots.insert(name, Arc::new(bundle));
            }
            _ => return Err(Refusal::unsupported("type")),
        }
        Ok(())
    }

    /// Forgets a secret.
    pub fn remove(&mut self, name: &str) {
        self.keys.remove(name);
        self.roots.remove(name);
    }

    /// Every certificate with its name, for `/certs`.
    pub fn keys(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Svid>)> {
        self.keys.iter()
    }

    /// Every bundle with its name, for `/certs`.
    pub fn roots(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<TrustBundle>)> {
        self.roots.iter()
    }

    fn certified(&self, source: &KeySource) -> Result<Option<Arc<CertifiedKey>>, Refusal> {
        match source {
            KeySource::Secret(name) => Ok(self.keys.get(name).map(|svid| svid.certified_key())),
            KeySource::Inline(pem) => Svid::from_pem(&pem.chain, &pem.key)
                .map(|svid| Some(svid.certified_key()))
                .map_err(|error| Refusal::new("tls_certificates", error.to_string())),
        }
    }

    fn bundle(&self, source: &RootSource) -> Result<Option<Arc<TrustBundle>>, Refusal> {
        match source {
            RootSource::None => Ok(None),
            RootSource::Secret(name) => Ok(self.roots.get(name).cloned()),
            RootSource::Inline(pem) => TrustBundle::from_pem(pem)
                .map(|bundle| Some(Arc::new(bundle)))
                .map_err(|error| Refusal::new("trusted_ca", error.to_string())),
        }
    }

    /// The client configuration of a context; `None` while a secret of it has not arrived.
    ///
    /// # Errors
    /// Inline certificates that are broken.
    pub fn client(&self, spec: &Spec) -> Result<Option<Arc<ClientConfig>>, Refusal> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions(spec))
            .map_err(|error| Refusal::new("tls_params", error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> = match (&spec.roots, self.bundle(&spec.roots)?) {
            (RootSource::None, _) => Arc::new(Unverified),
            (_, None) => return Ok(None),
            (_, Some(_)) if spec.accept_untrusted => Arc::new(Unverified),
            (_, Some(bundle)) => server_verifier(bundle, spec.names.clone()),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match spec.keys.first() {
            None => builder.with_no_client_auth(),
            Some(source) => match self.certified(source)? {
                None => return Ok(None),
                Some(key) => builder.with_client_cert_resolver(Arc::new(Own(key))),
            },
        };
        config.alpn_protocols.clone_from(&spec.alpn);
        config.enable_sni = spec.sni.is_some();
        Ok(Some(Arc::new(config)))
    }

    /// The server configuration of a context; `None` while a secret of it has not arrived.
    ///
    /// # Errors
    /// Inline certificates that are broken.
    pub fn server(&self, spec: &Spec) -> Result<Option<Arc<ServerReady>>, Refusal> {
        let mut keys = Vec::new();
        for source in &spec.keys {
            match self.certified(source)? {
                None => return Ok(None),
                Some(key) => keys.push(key),
            }
        }
        let builder = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions(spec))
            .map_err(|error| Refusal::new("tls_params", error.to_string()))?;
        let builder = match (&spec.roots, self.bundle(&spec.roots)?) {
            (RootSource::None, _) if !spec.require_client_certificate => builder.with_no_client_auth(),
            (RootSource::None, _) => {
                return Err(Refusal::new("validation_context.trusted_ca", "require_client_certificate needs roots"));
            }
            (_, None) => return Ok(None),
            (_, Some(bundle)) if spec.require_client_certificate => {
                builder.with_client_cert_verifier(client_verifier(bundle, spec.names.clone()))
            }
            (_, Some(bundle)) => {
                builder.with_client_cert_verifier(optional_client_verifier(bundle, spec.names.clone()))
            }
        };
        let local = keys.first().and_then(|key| key.cert.first()).and_then(cert_facts);
        let mut config = builder.with_cert_resolver(Arc::new(Offered(keys)));
        config.alpn_protocols.clone_from(&spec.alpn);
        config.send_tls13_tickets = 1;
        let mut without_alpn = config.clone();
        without_alpn.alpn_protocols.clear();
        let (config, without_alpn) = (Arc::new(config), Arc::new(without_alpn));
        Ok(Some(Arc::new(ServerReady { config, without_alpn, local })))
    }
}

type Version = &'static rustls::SupportedProtocolVersion;

fn versions(spec: &Spec) -> &'static [Version] {
    static BOTH: [Version; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match (spec.only_tls13, spec.only_tls12) {
        (true, _) => BOTH.get(..1).unwrap_or(&BOTH),
        (_, true) => BOTH.get(1..).unwrap_or(&BOTH),
        _ => &BOTH,
    }
}

/// Our certificate as a client.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Own {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Our certificates as a server: the first whose key the client can verify.
#[derive(Debug)]
struct Offered(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Offered {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.0.iter().find(fits).or_else(|| self.0.first()).cloned()
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
