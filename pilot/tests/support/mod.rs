//! A pilot in process and clients of it.

#![allow(dead_code, unreachable_pub, clippy::allow_attributes, missing_docs, reason = "each test takes what it needs")]

use clap::Parser as _;
use pilot::args::{Cli, Command};
use pilot::server::{Running, Server};
use proto::envoy::core::Node;
use proto::envoy::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::envoy::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use proto::envoy::wkt::value::Kind;
use proto::envoy::wkt::{Struct, Value};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Starts a pilot that reads a directory.
pub async fn pilot(directory: &Path, more: &[&str]) -> Running {
    let directory = directory.to_str().unwrap();
    let own = ["pilot", "discovery", "--config-dir", directory, "--grpc-addr", "127.0.0.1:0"];
    let rest = ["--http-addr", "127.0.0.1:0", "--monitoring-addr", "127.0.0.1:0"];
    let secure: &[&str] = if more.contains(&"--secure-grpc-addr") { &[] } else { &["--secure-grpc-addr", ""] };
    let line = own.iter().chain(&rest).chain(secure).chain(more);
    let Command::Discovery(args) = Cli::try_parse_from(line).unwrap().command else { panic!("discovery") };
    let running = Box::pin(Server::new(*args, None).start()).await.unwrap();
    let mut ready = running.hub.ready();
    tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.unwrap().unwrap();
    running
}

/// A node as a proxy presents itself.
pub fn node(id: &str, metadata: &[(&str, &str)]) -> Node {
    let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
    let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    Node { id: id.to_owned(), metadata: Some(Struct { fields }), ..Node::default() }
}

/// A delta client.
pub struct Client {
    node: Option<Node>,
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

pub async fn channel(address: std::net::SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    // Envoy's windows: a response of many resources must not wait for updates.
    endpoint.initial_stream_window_size(1 << 28).initial_connection_window_size(1 << 28).connect().await.unwrap()
}

impl Client {
    pub async fn connect(channel: Channel, node: Node) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(256 * 1024 * 1024);
        let responses = client.delta_aggregated_resources(UnboundedReceiverStream::new(receiver)).await.unwrap();
        Self { node: Some(node), requests, responses: responses.into_inner() }
    }

    pub fn send(&mut self, mut request: DeltaDiscoveryRequest) {
        request.node = self.node.take();
        self.requests.send(request).unwrap();
    }

    pub fn subscribe(&mut self, type_url: &str, names: &[&str]) {
        self.send(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DeltaDiscoveryRequest::default()
        });
    }

    /// The next response, acknowledged.
    pub async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = self.receive().await.unwrap();
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        });
        response
    }

    /// The next response or the end, not acknowledged.
    pub async fn receive(&mut self) -> Result<DeltaDiscoveryResponse, tonic::Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("no response came");
        next.map(|response| response.expect("the stream ended"))
    }

    /// Waits until the server ends the stream, and wants no error.
    pub async fn ended(&mut self) {
        let end = async { while self.responses.message().await.unwrap().is_some() {} };
        tokio::time::timeout(PATIENCE, end).await.expect("the stream never ended");
    }

    /// Whether nothing comes for a while.
    pub async fn silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.responses.message()).await.is_err()
    }
}

/// The body of a page.
pub async fn page(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Asks for a page until it says what is waited for.
pub async fn eventually(address: std::net::SocketAddr, path: &str, says: impl Fn(&str) -> bool) -> String {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (_, body) = page(address, path).await;
        if says(&body) {
            return body;
        }
        assert!(tokio::time::Instant::now() < deadline, "{path} never said it: {body}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A file of the test certificates.
pub fn pki(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/pki").join(name)
}

/// Flags with which a pilot serves TLS on a port of its own.
pub fn tls_flags() -> Vec<String> {
    let file = |flag: &str, name: &str| [flag.to_owned(), pki(name).to_str().unwrap().to_owned()];
    let files = [
        file("--tls-cert-file", "server.pem"),
        file("--tls-key-file", "server.key"),
        file("--ca-cert-file", "roots.pem"),
    ];
    let address = ["--secure-grpc-addr".to_owned(), "127.0.0.1:0".to_owned()];
    address.into_iter().chain(files.into_iter().flatten()).chain(file("--jwks-file", "jwks.json")).collect()
}

#[derive(Clone)]
struct TlsConnector {
    address: std::net::SocketAddr,
    config: std::sync::Arc<rustls::ClientConfig>,
}

impl tonic::codegen::Service<http::Uri> for TlsConnector {
    type Response = hyper_util::rt::TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;
    type Error = std::io::Error;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(own.address).await?;
            let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
            let tls = tokio_rustls::TlsConnector::from(own.config).connect(name, stream).await?;
            Ok(hyper_util::rt::TokioIo::new(tls))
        })
    }
}

/// A channel over TLS, with a client certificate or without.
pub async fn tls_channel(address: std::net::SocketAddr, certificate: Option<&str>) -> Channel {
    let mut config = tls_config(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector { address, config: std::sync::Arc::new(config) };
    Channel::from_static("http://localhost").connect_with_connector(connector).await.unwrap()
}

/// Posts JSON over HTTPS; status and body.
pub async fn post(address: std::net::SocketAddr, path: &str, body: &str) -> (u16, String) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls_config(None)));
    let mut stream = connector.connect(name, stream).await.unwrap();
    let head = "host: x\r\ncontent-type: application/json\r\nconnection: close";
    let request = format!("POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn tls_config(certificate: Option<&str>) -> rustls::ClientConfig {
    use identity::bundle::TrustBundle;
    use identity::san::SanMatch;
    use std::sync::Arc;
    let roots = std::fs::read(pki("roots.pem")).unwrap();
    let verifier = identity::verify::server_verifier(Arc::new(TrustBundle::from_pem(&roots).unwrap()), SanMatch::any());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(identity::svid::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = std::fs::read(pki(&format!("{name}.pem"))).unwrap();
            let key = std::fs::read(pki(&format!("{name}.key"))).unwrap();
            let svid = identity::svid::Svid::from_pem(&chain, &key).unwrap();
            let resolver = rustls::sign::SingleCertAndKey::from((*svid.certified_key()).clone());
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
    }
}
