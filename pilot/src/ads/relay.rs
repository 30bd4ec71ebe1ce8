//! The certificate service on pilot's port: requests are passed on to citadel (design decision L).
//!
//! A bearer token is passed on and checked there. A caller proven by a client certificate is named by pilot over its
//! own mTLS, which citadel trusts for that alone. pilot never holds the key of the CA.

use super::tls::Files;
use anyhow::Context as _;
use credentials::accept::Peer;
use hyper_util::rt::TokioIo;
use identity::bundle::TrustBundle;
use identity::san::{SanKind, SanMatch, SanPattern, SanText};
use identity::svid::provider;
use identity::verify::server_verifier;
use proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use proto::ca::istio_certificate_service_server::IstioCertificateService;
use proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

/// The metadata in which pilot names a caller that is proven by a client certificate.
const RELAYED_CALLER: &str = "ferromesh-relayed-caller";
/// How long citadel may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Passes certificate requests on.
pub struct Relay {
    channel: Channel,
}

impl Relay {
    /// A relay to `host:port` (TLS, with the certificate of `files`) or to `http://host:port`.
    ///
    /// # Errors
    /// When the address is malformed.
    pub fn new(address: &str, files: Option<Files>) -> anyhow::Result<Self> {
        if address.starts_with("http://") {
            let endpoint = Endpoint::from_shared(address.to_owned()).context("--ca-addr")?;
            return Ok(Self { channel: endpoint.timeout(TIMEOUT).connect_lazy() });
        }
        let files = files.context("--ca-addr with TLS needs --tls-cert-file, --tls-key-file and --ca-cert-file")?;
        Ok(Self { channel: channel(address, files, Presents::Certificate)? })
    }
}

/// What pilot presents to citadel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presents {
    /// Its certificate.
    Certificate,
    /// Nothing: it has none yet, or asks with a token for its next one.
    Nothing,
}

/// A channel to citadel at `host:port` over TLS, which is proven by the roots of `files`; it connects when it is used.
///
/// # Errors
/// When the address is malformed.
pub fn channel(address: &str, files: Files, presents: Presents) -> anyhow::Result<Channel> {
    let plain = address.trim_start_matches("https://").to_owned();
    let host = plain.rsplit_once(':').map_or(plain.as_str(), |(host, _)| host).to_owned();
    // The connector does the TLS; a scheme of https would make tonic ask for its own.
    let endpoint = Endpoint::from_shared(format!("http://{plain}")).context("--ca-addr")?.timeout(TIMEOUT);
    Ok(endpoint.connect_with_connector_lazy(Connector { address: plain, host, files, presents }))
}

#[tonic::async_trait]
impl IstioCertificateService for Relay {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let token = request.metadata().get("authorization").cloned();
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.proven(SystemTime::now()).cloned());
        let mut onward = Request::new(request.into_inner());
        match (token, peer) {
            (Some(mut token), _) => {
                token.set_sensitive(true);
                onward.metadata_mut().insert("authorization", token);
            }
            (None, Some(id)) => {
                let named = id.as_str().parse().map_err(|_| Status::internal("identity is no header value"))?;
                onward.metadata_mut().insert(RELAYED_CALLER, named);
            }
            (None, None) => return Err(Status::unauthenticated("a client certificate or a bearer token is needed")),
        }
        IstioCertificateServiceClient::new(self.channel.clone()).create_certificate(onward).await
    }
}

/// Connects to citadel over TLS; files are read anew each time, for they are renewed.
#[derive(Clone)]
struct Connector {
    address: String,
    host: String,
    files: Files,
    presents: Presents,
}

impl Connector {
    fn config(&self) -> anyhow::Result<ClientConfig> {
        let roots = std::fs::read(&self.files.roots).with_context(|| format!("read {}", self.files.roots.display()))?;
        let accept = SanMatch::of(vec![SanPattern { kind: SanKind::Dns, text: SanText::Exact(self.host.clone()) }]);
        let verifier = server_verifier(Arc::new(TrustBundle::from_pem(&roots).context("roots")?), accept);
        let config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match self.presents {
            Presents::Nothing => config.with_no_client_auth(),
            Presents::Certificate => {
                let key = self.files.svid()?.certified_key();
                let own: Arc<dyn ResolvesClientCert> = Arc::new(rustls::sign::SingleCertAndKey::from((*key).clone()));
                config.with_client_cert_resolver(own)
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    async fn connect(self) -> anyhow::Result<TlsStream<TcpStream>> {
        let config = self.config()?;
        let stream = TcpStream::connect(&self.address).await.with_context(|| format!("connect {}", self.address))?;
        let name = rustls::pki_types::ServerName::try_from(self.host).context("name of citadel")?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("TLS with citadel")
    }
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new).map_err(std::io::Error::other) })
    }
}
