//! A citadel on loopback with a key that signs tokens, and clients for it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "each test binary uses a part of it"
)]

use citadel::serve::{ServeArgs, Server};
use citadel::token::TokenKey;
use clap::Parser;
use hyper_util::rt::TokioIo;
use identity::bundle::TrustBundle;
use identity::csr::Csr;
use identity::san::SanMatch;
use identity::spiffe::SpiffeId;
use identity::svid::{Svid, provider};
use identity::verify::server_verifier;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proto::ca::IstioCertificateRequest;
use proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

pub const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";
pub const PILOT: &str = "spiffe://cluster.local/ns/istio-system/sa/istiod";

pub type Client = IstioCertificateServiceClient<Channel>;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    serve: ServeArgs,
}

pub struct Citadel {
    pub address: SocketAddr,
    pub monitoring: SocketAddr,
    pub key: TokenKey,
    directory: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Citadel {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let key = TokenKey::load_or_create(&directory.path().join("token-key.pem")).unwrap();
        std::fs::write(directory.path().join("jwks.json"), key.jwks().to_string()).unwrap();
        let (ca, jwks, roots) = (path("ca"), path("jwks.json"), path("roots.pem"));
        let flags = ["citadel", "--listen", "127.0.0.1:0", "--root-dir", &ca, "--token-jwks", &jwks]
            .into_iter()
            .chain(["--relay", PILOT, "--roots-out", &roots, "--monitoring-addr", "127.0.0.1:0"]);
        let server = Server::start(Flags::parse_from(flags).serve, None).await.unwrap();
        let address = server.local_addr().unwrap();
        let monitoring = server.monitoring_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move { server.serve(async { drop(stopped.await) }).await.unwrap() });
        Self { address, monitoring, key, directory, stop, task }
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.abort();
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join("ca").join(file)
    }

    pub fn roots(&self) -> String {
        std::fs::read_to_string(self.path("root-cert.pem")).unwrap()
    }

    pub fn published_roots(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("roots.pem")).unwrap_or_default()
    }

    pub fn token(&self, subject: &str) -> String {
        self.key.mint(&id(subject), Duration::from_secs(600), SystemTime::now()).unwrap()
    }

    /// A token with good claims that `change` makes bad, signed by the right key.
    pub fn forge(&self, change: impl FnOnce(&mut serde_json::Value)) -> String {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = serde_json::json!({"sub": REVIEWS, "aud": "istio-ca", "exp": seconds + 600});
        change(&mut claims);
        let pem = std::fs::read(self.directory.path().join("token-key.pem")).unwrap();
        let key = EncodingKey::from_ec_der(identity::pem::private_key(&pem).unwrap().secret_der());
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap()
    }

    pub fn any_request(&self) -> IstioCertificateRequest {
        request(Csr::generate(&id(REVIEWS)).unwrap().pem, 0)
    }

    pub async fn connect(&self, own: Option<&Svid>) -> anyhow::Result<Client> {
        connect(self.address, self.roots().as_bytes(), own).await
    }

    pub async fn ask(&self, token: &str, asked: IstioCertificateRequest) -> Result<Vec<String>, Status> {
        let roots = self.published_roots();
        let mut client = connect(self.address, roots.as_bytes(), None).await.unwrap();
        Ok(client.create_certificate(with_token(token, asked)).await?.into_inner().cert_chain)
    }

    pub async fn svid(&self, subject: &str) -> Svid {
        let csr = Csr::generate(&id(subject)).unwrap();
        let chain = self.ask(&self.token(subject), request(csr.pem, 0)).await.unwrap();
        Svid::from_pem(chain[0].as_bytes(), csr.key.to_pem().as_bytes()).unwrap()
    }
}

pub fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub fn request(csr: String, seconds: i64) -> IstioCertificateRequest {
    IstioCertificateRequest { csr, validity_duration: seconds, metadata: None }
}

pub fn with_token(token: &str, asked: IstioCertificateRequest) -> tonic::Request<IstioCertificateRequest> {
    let mut asked = tonic::Request::new(asked);
    if !token.is_empty() {
        asked.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    asked
}

pub async fn connect(address: SocketAddr, roots: &[u8], own: Option<&Svid>) -> anyhow::Result<Client> {
    let verifier = server_verifier(Arc::new(TrustBundle::from_pem(roots)?), SanMatch::any());
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(svid) => config.with_client_auth_cert(svid.chain().to_vec(), svid.key().to_der())?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let dial = tower::service_fn(move |_: tonic::transport::Uri| {
        let connector = connector.clone();
        async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").expect("a valid name");
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Ok(Client::new(Endpoint::from_static("https://localhost").connect_with_connector(dial).await?))
}
