//! TLS of the load tool's clients and servers.

use super::flags::RequestArgs;
use anyhow::Context;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};

/// Where Linux distributions keep the authorities that the machine trusts.
const SYSTEM_AUTHORITIES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How a client speaks TLS: `-k`, `-cacert`, `-cert`, `-key`; `protocols` are offered (ALPN).
///
/// # Errors
/// Where a file is unusable.
pub fn client(args: &RequestArgs, protocols: &[&str]) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if args.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
    } else {
        builder.with_root_certificates(trusted(args.cacert.as_deref())?)
    };
    let mut config = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => {
            let (chain, key) = own(cert, key)?;
            builder.with_client_auth_cert(chain, key).context("-cert and -key do not belong together")?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

/// How a server speaks TLS; none where `-cert` is not given. With `-mtls` clients show certificates of `-cacert`.
///
/// # Errors
/// Where a file is unusable, or `-mtls` has no `-cacert`.
pub fn server(args: &RequestArgs) -> anyhow::Result<Option<ServerConfig>> {
    let (Some(cert), Some(key)) = (&args.cert, &args.key) else {
        anyhow::ensure!(!args.mtls, "-mtls needs -cert and -key of the server too");
        return Ok(None);
    };
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if args.mtls {
        let authorities = args.cacert.as_deref().context("-mtls needs -cacert: whose certificates clients may show")?;
        let roots = Arc::new(trusted(Some(authorities))?);
        builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots, provider).build()?)
    } else {
        builder.with_no_client_auth()
    };
    let (chain, key) = own(cert, key)?;
    let mut config = builder.with_single_cert(chain, key).context("-cert and -key do not belong together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(config))
}

fn own(cert: &Path, key: &Path) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = certificates(cert)?;
    anyhow::ensure!(!chain.is_empty(), "-cert {}: no certificate in it", cert.display());
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| format!("-key {}", key.display()))?;
    Ok((chain, key))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).with_context(|| format!("cannot read {}", path.display()))?;
    all.collect::<Result<_, _>>().with_context(|| format!("{} is no PEM file", path.display()))
}

/// The given authorities, or the machine's, or Mozilla's where it has none.
fn trusted(file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = file {
        for certificate in certificates(path)? {
            roots.add(certificate).with_context(|| format!("-cacert {}", path.display()))?;
        }
        anyhow::ensure!(!roots.is_empty(), "-cacert {}: no certificate in it", path.display());
        return Ok(roots);
    }
    if let Some(path) = SYSTEM_AUTHORITIES.iter().map(Path::new).find(|path| path.exists()) {
        roots.add_parsable_certificates(certificates(path)?);
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

/// `-k`: any certificate will do. The signature of the handshake is still checked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
