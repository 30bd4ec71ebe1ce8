//! The agent's side of the certificate service: one connection per request, bearer token, the CA proven by its roots.

use anyhow::Context;
use hyper_util::rt::TokioIo;
use identity::bundle::TrustBundle;
use identity::san::{SanKind, SanMatch, SanPattern, SanText};
use identity::svid::provider;
use identity::verify::server_verifier;
use proto::ca::IstioCertificateRequest;
use proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// Asks one CA for certificates.
#[derive(Debug, Clone)]
pub struct CertificateClient {
    address: String,
    host: String,
    root_file: PathBuf,
    token_file: PathBuf,
}

impl CertificateClient {
    /// A client of the CA at `address` (host:port), whose certificate must name `host` under the roots in `root_file`.
    ///
    /// # Errors
    /// Where the roots cannot be read now.
    pub fn new(address: &str, host: &str, root_file: &Path, token_file: &Path) -> anyhow::Result<Self> {
        let client = Self {
            address: address.to_owned(),
            host: host.to_owned(),
            root_file: root_file.to_owned(),
            token_file: token_file.to_owned(),
        };
        client.tls()?;
        Ok(client)
    }

    /// Sends one request and gives the chain of the answer, the roots last.
    ///
    /// # Errors
    /// Where the CA cannot be reached, is not proven, or refuses.
    pub async fn sign(&self, csr: String, ttl_s: i64) -> anyhow::Result<Vec<String>> {
        let mut client = IstioCertificateServiceClient::new(self.connect().await?);
        let token = std::fs::read_to_string(&self.token_file)
            .with_context(|| format!("cannot read the token {}", self.token_file.display()))?;
        let mut request =
            tonic::Request::new(IstioCertificateRequest { csr, validity_duration: ttl_s, metadata: None });
        let mut value: tonic::metadata::AsciiMetadataValue = format!("Bearer {}", token.trim()).parse()?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
        let answer = client.create_certificate(request).await.map_err(|status| {
            anyhow::anyhow!("the CA refused: {}: {}", status.code().description(), status.message())
        })?;
        Ok(answer.into_inner().cert_chain)
    }

    /// Read anew for each connection: roots change during a rotation.
    fn tls(&self) -> anyhow::Result<ClientConfig> {
        let roots =
            std::fs::read(&self.root_file).with_context(|| format!("cannot read {}", self.root_file.display()))?;
        let accept = SanMatch::of(vec![SanPattern { kind: SanKind::Dns, text: SanText::Exact(self.host.clone()) }]);
        let verifier = server_verifier(Arc::new(TrustBundle::from_pem(&roots)?), accept);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    async fn connect(&self) -> anyhow::Result<Channel> {
        let connector = TlsConnector::from(Arc::new(self.tls()?));
        let name = ServerName::try_from(self.host.clone())?;
        let address = self.address.clone();
        let dial = tower::service_fn(move |_: tonic::transport::Uri| {
            let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::from_shared(format!("https://{}", self.host))?;
        endpoint.connect_with_connector(dial).await.with_context(|| format!("cannot reach the CA at {}", self.address))
    }
}
