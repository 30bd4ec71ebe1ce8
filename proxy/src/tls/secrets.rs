//! Secrets by name, and rustls configurations made of them. Main thread.

use super::accept::{ServerReady, cert_facts};
use super::config::{KeySource, Pem, Spec, Validation, ValidationSource};
use crate::refusal::{Refusal, Within};
use identity::bundle::TrustBundle;
use identity::svid::Svid;
use proto::envoy::tls::{Secret, secret};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Secrets that have arrived.
#[derive(Debug, Default)]
pub struct Secrets {
    keys: BTreeMap<Arc<str>, Own>,
    validations: BTreeMap<Arc<str>, Validation>,
}

/// A certificate of ours.
#[derive(Debug)]
struct Own {
    svid: Svid,
    certified: Arc<CertifiedKey>,
}

impl Own {
    fn of(pem: &Pem) -> Result<Self, Refusal> {
        let svid = Svid::from_pem(&pem.chain, &pem.key).map_err(|error| Refusal::new("", error.to_string()))?;
        let mut certified = svid.certified_key();
        if let Some(staple) = &pem.ocsp_staple {
            Arc::make_mut(&mut certified).ocsp = Some(staple.clone());
        }
        Ok(Self { svid, certified })
    }
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
                let own = Pem::read(certificate).and_then(|pem| Own::of(&pem)).within("tls_certificate")?;
                self.keys.insert(name, own);
            }
            Some(secret::Type::ValidationContext(context)) => {
                let validation = Validation::parse(context).within("validation_context")?;
                self.validations.insert(name, validation);
            }
            _ => return Err(Refusal::unsupported("type")),
        }
        Ok(())
    }

    /// Forgets a secret.
    pub fn remove(&mut self, name: &str) {
        self.keys.remove(name);
        self.validations.remove(name);
    }

    /// Every certificate with its name, for `/certs`.
    pub fn keys(&self) -> impl Iterator<Item = (&Arc<str>, &Svid)> {
        self.keys.iter().map(|(name, own)| (name, &own.svid))
    }

    /// Every bundle with its name, for `/certs`.
    pub fn roots(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<TrustBundle>)> {
        self.validations.iter().filter_map(|(name, validation)| Some((name, validation.roots()?)))
    }

    fn certified(&self, source: &KeySource) -> Result<Option<Arc<CertifiedKey>>, Refusal> {
        match source {
            KeySource::Secret(name) => Ok(self.keys.get(name).map(|own| Arc::clone(&own.certified))),
            KeySource::Inline(pem) => Own::of(pem).map(|own| Some(own.certified)).within("tls_certificates"),
        }
    }

    /// What a peer must be; `None` while a secret has not arrived.
    fn validation<'a>(&self, source: &'a ValidationSource) -> Option<Cow<'a, Validation>> {
        match source {
            ValidationSource::Inline(validation) => Some(Cow::Borrowed(validation)),
            ValidationSource::Secret(name, validation) => {
                self.validations.get(name).map(|secret| Cow::Owned(validation.merged(secret)))
            }
        }
    }

    /// The client configuration of a context; `None` while a secret of it has not arrived.
    ///
    /// # Errors
    /// Inline certificates that are broken.
    pub fn client(&self, spec: &Spec) -> Result<Option<Arc<ClientConfig>>, Refusal> {
        let Some(validation) = self.validation(&spec.validation) else { return Ok(None) };
        let builder = ClientConfig::builder_with_provider(Arc::new(spec.params.provider()))
            .with_protocol_versions(spec.params.versions())
            .map_err(|error| Refusal::new("tls_params", error.to_string()))?;
        let builder =
            builder.dangerous().with_custom_certificate_verifier(validation.of_server(spec.check_server_name));
        let mut config = match spec.keys.first() {
            None => builder.with_no_client_auth(),
            Some(source) => match self.certified(source)? {
                None => return Ok(None),
                Some(key) => builder.with_client_cert_resolver(Arc::new(Shown(key))),
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
        let Some(validation) = self.validation(&spec.validation) else { return Ok(None) };
        let builder = ServerConfig::builder_with_provider(Arc::new(spec.params.provider()))
            .with_protocol_versions(spec.params.versions())
            .map_err(|error| Refusal::new("tls_params", error.to_string()))?;
        let builder = match validation.of_client(spec.require_client_certificate) {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None if spec.require_client_certificate || validation.is_pinned() => {
                return Err(Refusal::new("validation_context.trusted_ca", "is needed to check a client's certificate"));
            }
            None => builder.with_no_client_auth(),
        };
        let local = keys.first().and_then(|key| key.cert.first()).and_then(cert_facts);
        let mut config = builder.with_cert_resolver(Arc::new(Offered { keys, require_sni: spec.require_sni }));
        config.alpn_protocols.clone_from(&spec.alpn);
        config.send_tls13_tickets = usize::from(spec.resumption);
        if !spec.resumption {
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        let mut without_alpn = config.clone();
        without_alpn.alpn_protocols.clear();
        let (config, without_alpn) = (Arc::new(config), Arc::new(without_alpn));
        Ok(Some(Arc::new(ServerReady { config, without_alpn, local, revoked: validation.revoked().cloned() })))
    }
}

/// Our certificate as a client.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shown {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Our certificates as a server: the first whose key the client can verify.
#[derive(Debug)]
struct Offered {
    keys: Vec<Arc<CertifiedKey>>,
    require_sni: bool,
}

impl ResolvesServerCert for Offered {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if self.require_sni && hello.server_name().is_none() {
            return None;
        }
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        self.keys.iter().find(fits).or_else(|| self.keys.first()).cloned()
    }
}
