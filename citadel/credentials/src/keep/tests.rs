//! Certificates kept fresh against a CA of the test's own.

use super::*;
use identity::spiffe::SpiffeId;
use identity::svid::provider;
use proto::ca::IstioCertificateRequest;
use proto::ca::IstioCertificateResponse;
use proto::ca::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::{Request, Response, Status};

const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

/// A CA that signs for whoever shows the token.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: String,
    signs_for: &'static str,
}

impl Ca {
    fn new(signs_for: &'static str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), root, signs_for }
    }

    fn leaf(&self, name: SanType, key: &impl rcgen::PublicKeyData) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
        params.signed_by(key, &self.issuer).unwrap()
    }

    fn tls(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let cert = self.leaf(SanType::DnsName("istiod.istio-system.svc".try_into().unwrap()), &key);
        let der = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.into()], der)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    async fn serve(self) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(self.tls()));
        let (ready, incoming) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    ready.send(Ok::<_, std::io::Error>(Plain(stream))).await.unwrap();
                }
            }
        });
        let incoming = futures_util::stream::unfold(incoming, |mut queue| async { Some((queue.recv().await?, queue)) });
        let server = tonic::transport::Server::builder().add_service(IstioCertificateServiceServer::new(self));
        tokio::spawn(server.serve_with_incoming(Box::pin(incoming)));
        address
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Ca {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        if request.metadata().get("authorization").is_none_or(|v| v != "Bearer sesame") {
            return Err(Status::unauthenticated("request authenticate failure"));
        }
        let csr = rcgen::CertificateSigningRequestParams::from_pem(&request.get_ref().csr).unwrap();
        let leaf = self.leaf(SanType::URI(self.signs_for.try_into().unwrap()), &csr.public_key);
        Ok(Response::new(IstioCertificateResponse { cert_chain: vec![leaf.pem(), self.root.clone()] }))
    }
}

struct Plain(tokio_rustls::server::TlsStream<TcpStream>);

impl tonic::transport::server::Connected for Plain {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl tokio::io::AsyncRead for Plain {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Plain {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

async fn setup(directory: &Path, signs_for: &'static str) -> Config {
    let ca = Ca::new(signs_for);
    std::fs::write(directory.join("root.pem"), &ca.root).unwrap();
    std::fs::write(directory.join("token"), "sesame\n").unwrap();
    Config {
        ca_address: ca.serve().await.to_string(),
        ca_host: "istiod.istio-system.svc".to_owned(),
        ca_roots: directory.join("root.pem"),
        token_file: Some(directory.join("token")),
        cluster_id: None,
        identity: SpiffeId::parse(REVIEWS).unwrap(),
        ttl_s: 0,
        state_dir: Some(directory.to_owned()),
    }
}

async fn first(config: Config) -> Arc<Credentials> {
    let (sender, mut held) = watch::channel(None);
    tokio::spawn(keep_fresh(config, sender, Arc::default()));
    let found = tokio::time::timeout(Duration::from_secs(10), held.wait_for(Option::is_some)).await;
    found.unwrap().unwrap().clone().unwrap()
}

// spec: CA-23
#[tokio::test]
async fn a_certificate_is_kept_and_used_while_the_ca_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = setup(directory.path(), REVIEWS).await;
    let fresh = first(config.clone()).await;
    assert_eq!(fresh.svid.facts().uris, [REVIEWS]);
    let mode = std::fs::metadata(directory.path().join(KEPT_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    config.ca_address = "127.0.0.1:1".to_owned();
    let kept = first(config).await;
    assert_eq!(kept.svid.facts(), fresh.svid.facts());
    assert_eq!(kept.roots, fresh.roots);
}

// spec: CA-23
#[tokio::test(start_paused = true)]
async fn an_attempt_takes_ten_seconds_at_most() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = setup(directory.path(), REVIEWS).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.ca_address = silent.local_addr().unwrap().to_string();
    let (sender, _held) = watch::channel(None);
    tokio::spawn(keep_fresh(config, sender, Arc::default()));
    let _first = silent.accept().await.unwrap();
    let begun = tokio::time::Instant::now();
    let _second = silent.accept().await.unwrap();
    let pause = begun.elapsed();
    assert!((10_000..10_200).contains(&pause.as_millis()), "{pause:?}");
}

#[tokio::test]
async fn what_was_kept_for_another_identity_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let config = setup(directory.path(), REVIEWS).await;
    first(config.clone()).await;
    let other = Config {
        identity: SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/ratings").unwrap(),
        ca_address: "127.0.0.1:1".to_owned(),
        ..config
    };
    let (sender, mut held) = watch::channel(None);
    tokio::spawn(keep_fresh(other, sender, Arc::default()));
    assert!(tokio::time::timeout(Duration::from_millis(300), held.changed()).await.is_err());
}

// spec: CA-7
#[tokio::test]
async fn a_mesh_that_moved_to_another_trust_domain_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let moved = "spiffe://new.example/ns/shop/sa/reviews";
    let config = setup(directory.path(), moved).await;
    assert_eq!(first(config).await.svid.facts().uris, [moved]);
}

#[tokio::test]
async fn says_why_there_is_no_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let config = setup(directory.path(), "spiffe://cluster.local/ns/shop/sa/ratings").await;
    let wrong = attempt(&config, None).await.unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "the CA issued a certificate of spiffe://cluster.local/ns/shop/sa/ratings, expected spiffe://cluster.local/ns/shop/sa/reviews"
    );
    std::fs::write(directory.path().join("token"), "guess").unwrap();
    assert!(attempt(&config, None).await.unwrap_err().to_string().starts_with("the CA refused"));
    let stranger = Config { ca_host: "other.istio-system.svc".to_owned(), ..config };
    assert!(attempt(&stranger, None).await.is_err(), "the CA must prove its name");
}
