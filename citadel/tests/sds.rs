//! The agent's SDS on a Unix socket, as a real Envoy uses it.
#![allow(clippy::unwrap_used, clippy::large_futures, clippy::allow_attributes, reason = "a test panics to fail")]

mod support;

use citadel::agent::sds::SecretService;
use credentials::{Config, Credentials, keep_fresh};
use hyper_util::rt::TokioIo;
use identity::svid::Svid;
use proto::envoy::core::data_source::Specifier;
use proto::envoy::discovery::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use proto::envoy::secret_service::secret_discovery_service_client::SecretDiscoveryServiceClient;
use proto::envoy::secret_service::secret_discovery_service_server::SecretDiscoveryServiceServer;
use proto::envoy::tls::Secret;
use proto::envoy::tls::secret::Type;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use support::{Citadel, REVIEWS, id};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

type Sds = SecretDiscoveryServiceClient<Channel>;

async fn serve(directory: &Path, held: watch::Receiver<Option<Arc<Credentials>>>) -> Sds {
    let socket = directory.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let service = SecretDiscoveryServiceServer::new(SecretService::new(held));
    tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener)),
    );
    let dial = tower::service_fn(move |_: tonic::transport::Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    Sds::new(Endpoint::from_static("http://sds").connect_with_connector(dial).await.unwrap())
}

/// One stream for the given names.
struct Stream {
    requests: mpsc::Sender<DiscoveryRequest>,
    answers: tonic::Streaming<DiscoveryResponse>,
    names: Vec<String>,
}

impl Stream {
    async fn open(client: &mut Sds, names: &[&str]) -> Self {
        let (requests, queue) = mpsc::channel(4);
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        requests.send(DiscoveryRequest { resource_names: names.clone(), ..Default::default() }).await.unwrap();
        let answers = client.stream_secrets(ReceiverStream::new(queue)).await.unwrap().into_inner();
        Self { requests, answers, names }
    }

    /// The next answer, acknowledged.
    async fn next(&mut self) -> Vec<Secret> {
        let answer = tokio::time::timeout(Duration::from_secs(10), self.answers.message()).await;
        let answer = answer.expect("an answer in time").unwrap().expect("the stream stays open");
        assert_eq!(answer.type_url, proto::type_url::SECRET);
        let ack = DiscoveryRequest {
            version_info: answer.version_info,
            response_nonce: answer.nonce,
            resource_names: self.names.clone(),
            ..Default::default()
        };
        self.requests.send(ack).await.unwrap();
        answer.resources.iter().map(|any| proto::any::unpack(any).unwrap()).collect()
    }
}

fn bytes(source: &Option<proto::envoy::core::DataSource>) -> &[u8] {
    match source.as_ref().and_then(|s| s.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => bytes,
        other => panic!("not inline: {other:?}"),
    }
}

fn chain_of(secret: &Secret) -> String {
    match &secret.r#type {
        Some(Type::TlsCertificate(cert)) => String::from_utf8(bytes(&cert.certificate_chain).to_vec()).unwrap(),
        other => panic!("no certificate: {other:?}"),
    }
}

fn config_of(citadel: &Citadel, directory: &Path, ttl_s: i64) -> Config {
    let token: PathBuf = directory.join("token");
    std::fs::write(&token, citadel.token(REVIEWS)).unwrap();
    Config {
        ca_address: citadel.address.to_string(),
        ca_host: "istiod.istio-system.svc".to_owned(),
        ca_roots: citadel.path("root-cert.pem"),
        token_file: Some(token),
        cluster_id: None,
        identity: id(REVIEWS),
        ttl_s,
        state_dir: None,
    }
}

// spec: CA-24, CA-25
#[tokio::test]
async fn an_envoy_gets_key_chain_and_roots() {
    let citadel = Citadel::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (sender, held) = watch::channel(None);
    let mut client = serve(directory.path(), held).await;
    let mut own = Stream::open(&mut client, &["default"]).await;
    let mut roots = Stream::open(&mut client, &["ROOTCA"]).await;
    // Both streams wait: there is no certificate yet.
    tokio::spawn(keep_fresh(config_of(&citadel, directory.path(), 0), sender, Arc::default()));
    let secret = own.next().await.remove(0);
    assert_eq!(secret.name, "default");
    let Some(Type::TlsCertificate(cert)) = &secret.r#type else { panic!("no certificate") };
    let svid = Svid::from_pem(bytes(&cert.certificate_chain), bytes(&cert.private_key)).unwrap();
    assert_eq!(svid.facts().uris, [REVIEWS]);
    let secret = roots.next().await.remove(0);
    let Some(Type::ValidationContext(context)) = &secret.r#type else { panic!("no roots") };
    assert_eq!((secret.name.as_str(), bytes(&context.trusted_ca)), ("ROOTCA", citadel.roots().as_bytes()));
}

// spec: CA-23, CA-24
#[tokio::test]
async fn a_renewed_certificate_is_pushed_and_an_old_one_kept_while_the_ca_is_away() {
    let citadel = Citadel::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (sender, held) = watch::channel(None);
    let mut client = serve(directory.path(), held.clone()).await;
    let mut own = Stream::open(&mut client, &["default"]).await;
    // 3 s of life, backdated by 120 s: half of it is over at once, so renewal runs at the floor of one second.
    tokio::spawn(keep_fresh(config_of(&citadel, directory.path(), 3), sender, Arc::default()));
    let (first, second) = (chain_of(&own.next().await[0]), chain_of(&own.next().await[0]));
    assert_ne!(first, second, "a new key and certificate each time");
    citadel.stop().await;
    assert!(held.borrow().is_some());
}

// spec: CA-24
#[tokio::test]
async fn only_stream_secrets_is_offered() {
    let directory = tempfile::tempdir().unwrap();
    let (_sender, held) = watch::channel(None);
    let mut client = serve(directory.path(), held).await;
    let fetch = client.fetch_secrets(DiscoveryRequest::default()).await.unwrap_err();
    assert_eq!(fetch.code(), Code::Unimplemented);
    let delta = client.delta_secrets(tokio_stream::iter([DeltaDiscoveryRequest::default()])).await.unwrap_err();
    assert_eq!(delta.code(), Code::Unimplemented);
}

// spec: CA-23, CA-25
#[tokio::test]
async fn file_secrets_follow_their_files() {
    let citadel = Citadel::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let write = |svid: &Svid| {
        std::fs::write(&key, svid.key().to_pem().as_bytes()).unwrap();
        std::fs::write(&cert, svid.chain_pem()).unwrap();
    };
    let (one, two) = (citadel.svid(REVIEWS).await, citadel.svid(REVIEWS).await);
    write(&one);
    let (_sender, held) = watch::channel(None);
    let mut client = serve(directory.path(), held).await;
    let name = format!("file-cert:{}~{}", cert.display(), key.display());
    let root = format!("file-root:{}", citadel.path("root-cert.pem").display());
    let mut stream = Stream::open(&mut client, &[&name, &root]).await;
    let secrets = stream.next().await;
    assert_eq!((secrets.len(), chain_of(&secrets[0])), (2, one.chain_pem()));
    write(&two);
    while chain_of(&stream.next().await[0]) != two.chain_pem() {}
}

// spec: CA-25
#[tokio::test]
async fn an_unknown_name_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let (_sender, held) = watch::channel(None);
    let mut client = serve(directory.path(), held).await;
    let mut stream = Stream::open(&mut client, &["kubernetes://gateway"]).await;
    let status = stream.answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("kubernetes://gateway"));
}
