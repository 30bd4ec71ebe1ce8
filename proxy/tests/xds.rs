//! The configuration feed against an aggregated discovery server in this process, over real sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use clap::Parser;
use futures_util::stream::{self, Stream};
use prost::Message;
use proto::envoy::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use proto::envoy::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource as Wrapped,
};
use proto::envoy::wkt::Any;
use proxy::bootstrap::{Bootstrap, Converter, Environment, Flags};
use proxy::xds::{Batch, Cause, Feed, FeedOptions, Kind, Rejection};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Response, Status, Streaming};

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One stream as the test sees it.
struct Peer {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

struct Server {
    peers: mpsc::Sender<Peer>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Server {
    type StreamAggregatedResourcesStream = Outgoing<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Outgoing<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: tonic::Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        assert_eq!(request.metadata().get("x-token").unwrap(), "t");
        let (responses, queue) = mpsc::channel(8);
        self.peers.send(Peer { requests: request.into_inner(), responses }).await.unwrap();
        let stream = stream::unfold(queue, |mut queue| async move { Some((queue.recv().await?, queue)) });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// A server on its own runtime task; aborting it resets its connections.
async fn serve(address: SocketAddr) -> (SocketAddr, mpsc::Receiver<Peer>, JoinHandle<()>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener: TcpListener = socket.listen(16).unwrap();
    let address = listener.local_addr().unwrap();
    let (peers, seen) = mpsc::channel(8);
    let service = AggregatedDiscoveryServiceServer::new(Server { peers });
    let incoming = stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let server = tonic::transport::Server::builder().add_service(service);
    let task = tokio::spawn(async move {
        server.serve_with_incoming(Box::pin(incoming)).await.unwrap();
    });
    (address, seen, task)
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

fn feed(server: SocketAddr, arguments: &[&str]) -> Feed {
    feed_over(server, arguments, &serde_json::Value::Null)
}

fn feed_over(server: SocketAddr, arguments: &[&str], transport_socket: &serde_json::Value) -> Feed {
    let json = serde_json::json!({
        "node": {"id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local", "cluster": "a.default"},
        "dynamic_resources": {
            "cds_config": {"ads": {}},
            "lds_config": {"ads": {}},
            "ads_config": {"api_type": "DELTA_GRPC", "grpc_services": [
                {"envoy_grpc": {"cluster_name": "xds-grpc"}, "initial_metadata": [{"key": "x-token", "value": "t"}]}]}},
        "static_resources": {"clusters": [{"name": "xds-grpc", "type": "STATIC", "transport_socket": transport_socket, "load_assignment": {"cluster_name": "xds-grpc",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address":
                {"address": server.ip().to_string(), "port_value": server.port()}}}}]}]}}]}
    });
    let bytes = proto::json::from_value("envoy.config.bootstrap.v3.Bootstrap", &json).unwrap();
    let written = proto::envoy::bootstrap::Bootstrap::decode(bytes.as_slice()).unwrap();
    let line = std::iter::once("proxy").chain(arguments.iter().copied());
    let flags = Cli::try_parse_from(line).unwrap().flags;
    let bootstrap = Bootstrap::check(written, flags, Environment::default()).unwrap();
    let options = FeedOptions {
        node: bootstrap.node.clone(),
        converter: Converter::new("/nonexistent".into()),
        tls: None,
        also: Vec::new(),
        own_secret_services: BTreeSet::from(["sds-grpc".into()]),
    };
    Feed::new(bootstrap, options).unwrap()
}

fn wrapped(kind: Kind, type_name: &str, json: &serde_json::Value, version: &str) -> Wrapped {
    let value = proto::json::from_value(type_name, json).unwrap();
    let name = json.get("name").or_else(|| json.get("cluster_name")).unwrap().as_str().unwrap().to_owned();
    let resource = Some(Any { type_url: kind.type_url().into(), value });
    Wrapped { name, version: version.into(), resource, ..Wrapped::default() }
}

fn cluster(name: &str, version: &str) -> Wrapped {
    let json = serde_json::json!({"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}});
    wrapped(Kind::Cluster, "envoy.config.cluster.v3.Cluster", &json, version)
}

fn endpoints(name: &str) -> Wrapped {
    let json = serde_json::json!({"cluster_name": name});
    wrapped(Kind::Endpoint, "envoy.config.endpoint.v3.ClusterLoadAssignment", &json, "e1")
}

impl Peer {
    async fn request(&mut self) -> DeltaDiscoveryRequest {
        within(self.requests.message()).await.unwrap().expect("the stream is open")
    }

    async fn respond(&self, kind: Kind, nonce: &str, resources: Vec<Wrapped>) {
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().into(),
            nonce: nonce.into(),
            resources,
            ..DeltaDiscoveryResponse::default()
        };
        self.responses.send(Ok(response)).await.unwrap();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within 20 s")
}

/// Drives the feed in the background; settled batches come out with their names.
fn drive(mut feed: Feed, refuse: &'static str) -> (mpsc::Receiver<Vec<String>>, JoinHandle<()>) {
    let (sender, batches) = mpsc::channel(64);
    let task = tokio::spawn(async move {
        loop {
            let batch = feed.next().await;
            let (names, refused) = look(&batch, refuse);
            feed.settle(batch, refused);
            feed.save().await;
            if sender.send(names).await.is_err() {
                return;
            }
        }
    });
    (batches, task)
}

fn look(batch: &Batch, refuse: &str) -> (Vec<String>, Vec<Rejection>) {
    let mut names = Vec::new();
    let mut refused = Vec::new();
    for update in &batch.updates {
        for resource in &update.added {
            names.push(format!("{} {}", update.kind.short_name(), resource.name));
            if &*resource.name == refuse {
                let (field, why) = ("lb_policy".into(), "not supported yet".into());
                refused.push(Rejection { kind: update.kind, name: resource.name.clone(), field, why });
            }
        }
    }
    if batch.cause == Cause::Restored {
        names.insert(0, "restored".to_owned());
    }
    (names, refused)
}

// spec: XD-2, XD-3, XD-7, XD-12, XM-1, XM-6, NI-4
#[tokio::test]
async fn a_proxy_follows_its_control_plane_through_a_nack_a_restart_and_an_outage() {
    let state = tempfile::tempdir().unwrap();
    let arguments = ["--state-dir", state.path().to_str().unwrap()];
    let (address, mut peers, server) = serve("127.0.0.1:0".parse().unwrap()).await;
    let (mut batches, proxy) = drive(feed(address, &arguments), "bad");
    assert_eq!(within(batches.recv()).await.unwrap(), ["CDS xds-grpc"]);

    let mut peer = within(peers.recv()).await.unwrap();
    let first = peer.request().await;
    assert_eq!(first.node.unwrap().id, "sidecar~10.0.0.1~a.default~default.svc.cluster.local");
    peer.respond(Kind::Cluster, "1", vec![cluster("a", "c1"), cluster("bad", "c1")]).await;
    assert_eq!(peer.request().await.resource_names_subscribe, ["a", "bad"]);
    peer.respond(Kind::Endpoint, "2", vec![endpoints("a"), endpoints("bad")]).await;
    assert_eq!(within(batches.recv()).await.unwrap(), ["EDS a", "EDS bad", "CDS a", "CDS bad"]);
    // "bad" is also the name of an endpoint assignment, which is refused alike
    let nacks = [peer.request().await, peer.request().await];
    assert_eq!(nacks.map(|nack| nack.error_detail.is_some()), [true, true]);
    let listeners = loop {
        let request = peer.request().await;
        if request.type_url == Kind::Listener.type_url() {
            break request;
        }
    };
    assert_eq!(listeners.response_nonce, "");

    // the server dies: the proxy comes back with what it holds
    drop(peer);
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    let (address, mut peers, server) = serve(address).await;
    let mut peer = within(peers.recv()).await.unwrap();
    let first = peer.request().await;
    assert!(first.node.is_some());
    assert_eq!(first.initial_resource_versions, [("a".to_owned(), "c1".to_owned())].into());
    proxy.abort();
    server.abort();

    // the proxy starts with the control plane down: the last good state is there at once
    let (mut batches, proxy) = drive(feed(address, &arguments), "");
    assert_eq!(within(batches.recv()).await.unwrap(), ["CDS xds-grpc"]);
    assert_eq!(within(batches.recv()).await.unwrap(), ["restored", "EDS a", "CDS a"]);
    proxy.abort();
}

#[tokio::test]
async fn the_store_says_whether_the_control_plane_is_there() {
    let (address, mut peers, server) = serve("127.0.0.1:0".parse().unwrap()).await;
    let feed = feed(address, &[]);
    let mut store = feed.store();
    let handle = feed.handle();
    let (mut batches, proxy) = drive(feed, "");
    within(batches.recv()).await.unwrap();
    let mut peer = within(peers.recv()).await.unwrap();
    within(store.wait_for(|store| store.connected)).await.unwrap();
    peer.request().await;
    handle.demand(Kind::Cluster, Arc::from("on-demand")).await;
    assert_eq!(peer.request().await.resource_names_subscribe, ["*", "on-demand"]);
    server.abort();
    drop(peer);
    within(store.wait_for(|store| !store.connected)).await.unwrap();
    proxy.abort();
}

/// A certificate authority and certificates of it, in PEM.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    fn issue(&self, san: rcgen::SanType) -> (rcgen::Certificate, rcgen::KeyPair) {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(san);
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// The same authority's roots, and a list of what it has revoked.
fn roots_and_list(authority: &Authority, revoked: &[&rcgen::Certificate], version: &str) -> Wrapped {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let serial = |certificate: &&rcgen::Certificate| {
        let (_, read) = X509Certificate::from_der(certificate.der()).unwrap();
        rcgen::RevokedCertParams {
            serial_number: rcgen::SerialNumber::from_slice(read.raw_serial()),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }
    };
    let params = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2099, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(serial).collect(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = params.signed_by(&authority.issuer).unwrap().pem().unwrap();
    let secret = serde_json::json!({"name": "roots", "validation_context": {
        "trusted_ca": {"inline_string": authority.certificate.pem()}, "crl": {"inline_string": list}}});
    wrapped(Kind::Secret, "envoy.extensions.transport_sockets.tls.v3.Secret", &secret, version)
}

/// Ends mutual TLS before a plain server; says which protocol was negotiated.
async fn tls_front(authority: &Authority, behind: SocketAddr) -> (SocketAddr, mpsc::Receiver<Option<Vec<u8>>>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let (certificate, key) = authority.issue(rcgen::SanType::DnsName("pilot.mesh".try_into().unwrap()));
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, protocols) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let Ok(mut encrypted) = acceptor.accept(stream).await else { return };
                let protocol = encrypted.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                if seen.send(protocol).await.is_err() {
                    return;
                }
                let mut plain = tokio::net::TcpStream::connect(behind).await.unwrap();
                // an error means that one side is gone, and so is the connection
                drop(tokio::io::copy_bidirectional(&mut encrypted, &mut plain).await);
            });
        }
    });
    (address, protocols)
}

// spec: XI-2, NI-3
#[tokio::test]
async fn the_control_plane_is_reached_over_mutual_tls_once_the_certificate_is_there() {
    let authority = Authority::new();
    let (behind, mut peers, server) = serve("127.0.0.1:0".parse().unwrap()).await;
    let (address, mut protocols) = tls_front(&authority, behind).await;
    let sds = |name: &str| {
        serde_json::json!({"name": name, "sds_config": {"api_config_source": {"api_type": "GRPC",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]}}})
    };
    let socket = serde_json::json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "pilot.mesh",
        "common_tls_context": {"tls_certificate_sds_secret_configs": [sds("default")],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "pilot.mesh"}}]},
                "validation_context_sds_secret_config": sds("ROOTCA")}}}});
    let feed = feed_over(address, &[], &socket);
    let handle = feed.handle();
    let (mut batches, proxy) = drive(feed, "");
    assert_eq!(within(batches.recv()).await.unwrap(), ["CDS xds-grpc"]);
    let id = rcgen::SanType::URI("spiffe://cluster.local/ns/default/sa/a".try_into().unwrap());
    let (certificate, key) = authority.issue(id);
    let secrets = [
        (
            "default",
            serde_json::json!({"name": "default", "tls_certificate": {
            "certificate_chain": {"inline_string": certificate.pem()}, "private_key": {"inline_string": key.serialize_pem()}}}),
        ),
        (
            "ROOTCA",
            serde_json::json!({"name": "ROOTCA", "validation_context": {
            "trusted_ca": {"inline_string": authority.certificate.pem()}}}),
        ),
    ];
    for (name, json) in secrets {
        let body = proto::json::from_value("envoy.extensions.transport_sockets.tls.v3.Secret", &json).unwrap().into();
        let resource = proxy::xds::Resource { name: name.into(), version: "1".into(), body };
        handle.provide(Kind::Secret, Arc::new(resource)).await;
    }
    assert_eq!(within(protocols.recv()).await.unwrap().as_deref(), Some(&b"h2"[..]));
    let mut peer = within(peers.recv()).await.unwrap();
    assert_eq!(peer.request().await.type_url, Kind::Cluster.type_url());
    proxy.abort();
    server.abort();
}

/// The binary with this bootstrap; killed with this.
struct Proxy(std::process::Child);

impl Proxy {
    fn start(directory: &std::path::Path, bootstrap: &serde_json::Value) -> Self {
        let file = directory.join("bootstrap.json");
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_proxy"));
        Self(command.args(["-c", file.to_str().unwrap(), "--concurrency", "2", "-l", "error"]).spawn().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An application that answers every connection with one response.
async fn application() -> SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await.unwrap();
        }
    });
    address
}

async fn get(port: u16) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let connect = async {
        loop {
            match tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut stream = within(connect).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// A listener whose one route goes to the cluster `late`, which is asked for when a request needs it.
fn on_demand_bootstrap(server: SocketAddr, port: u16) -> serde_json::Value {
    let address = |address: SocketAddr| serde_json::json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let hcm = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "late"}}]}]},
        "http_filters": [
            {"name": "envoy.filters.http.on_demand", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand",
                "odcds": {"source": {"ads": {}}, "timeout": "10s"}}},
            {"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]});
    serde_json::json!({
        "node": {"id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local", "cluster": "a.default"},
        "dynamic_resources": {
            "cds_config": {"ads": {}},
            "ads_config": {"api_type": "DELTA_GRPC", "grpc_services": [
                {"envoy_grpc": {"cluster_name": "xds-grpc"}, "initial_metadata": [{"key": "x-token", "value": "t"}]}]}},
        "static_resources": {
            "listeners": [{"name": "l", "address": address(([127, 0, 0, 1], port).into()),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": hcm}]}]}],
            "clusters": [{"name": "xds-grpc", "type": "STATIC", "load_assignment": {"cluster_name": "xds-grpc",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(server)}}]}]}}]}
    })
}

#[tokio::test]
async fn a_request_waits_for_the_cluster_that_it_asks_for() {
    let directory = tempfile::tempdir().unwrap();
    let (server, mut peers, task) = serve("127.0.0.1:0".parse().unwrap()).await;
    let application = application().await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let _proxy = Proxy::start(directory.path(), &on_demand_bootstrap(server, port));
    let mut peer = within(peers.recv()).await.unwrap();
    assert_eq!(peer.request().await.type_url, Kind::Cluster.type_url());
    peer.respond(Kind::Cluster, "1", Vec::new()).await;
    let answers = tokio::spawn(async move { tokio::join!(get(port), get(port)) });
    let asked = loop {
        let request = peer.request().await;
        if request.type_url == Kind::Cluster.type_url() && request.response_nonce.is_empty() {
            break request.resource_names_subscribe;
        }
    };
    assert_eq!(asked, ["*", "late"]);
    let late = serde_json::json!({"name": "late", "type": "STATIC", "load_assignment": {"cluster_name": "late",
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address":
            {"address": "127.0.0.1", "port_value": application.port()}}}}]}]}});
    let late = wrapped(Kind::Cluster, "envoy.config.cluster.v3.Cluster", &late, "1");
    peer.respond(Kind::Cluster, "2", vec![late]).await;
    let (one, two) = within(answers).await.unwrap();
    for answer in [one, two] {
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("late"), "{answer}");
    }
    task.abort();
}

/// A connection that is kept over mutual TLS.
type Kept = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// Connects as the owner of a certificate; none where the proxy refuses, or closes.
async fn proven(port: u16, roots: &Authority, own: &(rcgen::Certificate, rcgen::KeyPair)) -> Option<Kept> {
    let mut trusted = rustls::RootCertStore::empty();
    trusted.add(roots.certificate.der().clone()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.1.serialize_der()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_client_auth_cert(vec![own.0.der().clone()], key)
        .unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut kept = connector.connect("server.test".try_into().unwrap(), stream).await.ok()?;
    answered(&mut kept).await.then_some(kept)
}

/// Whether a request on a connection is answered.
async fn answered(kept: &mut Kept) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut answer = [0; 1024];
    let sent = kept.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.is_ok();
    sent && matches!(within(kept.read(&mut answer)).await, Ok(length) if answer[..length].starts_with(b"HTTP/1.1 200"))
}

// spec: HP-17
// bar: C6
#[tokio::test]
async fn a_peer_that_is_revoked_is_refused_and_its_open_connections_end_within_five_seconds() {
    use tokio::io::AsyncReadExt;
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (server, mut peers, task) = serve("127.0.0.1:0".parse().unwrap()).await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let name = |text: &str| rcgen::SanType::DnsName(text.try_into().unwrap());
    let (own, good, bad) =
        (authority.issue(name("server.test")), authority.issue(name("a")), authority.issue(name("b")));
    let mut bootstrap = on_demand_bootstrap(server, port);
    let chain = &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0];
    chain["transport_socket"] = serde_json::json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": {"inline_string": own.0.pem()}, "private_key": {"inline_string": own.1.serialize_pem()}}],
            "validation_context_sds_secret_config": {"name": "roots", "sds_config": {"ads": {}}}}}});
    let manager = &mut chain["filters"][0]["typed_config"];
    manager["http_filters"].as_array_mut().unwrap().remove(0);
    manager["route_config"]["virtual_hosts"][0]["routes"][0] =
        serde_json::json!({"match": {"prefix": "/"}, "direct_response": {"status": 200}});
    let _proxy = Proxy::start(directory.path(), &bootstrap);
    let mut peer = within(peers.recv()).await.unwrap();
    while peer.request().await.type_url != Kind::Secret.type_url() {}
    peer.respond(Kind::Cluster, "1", Vec::new()).await;
    peer.respond(Kind::Secret, "1", vec![roots_and_list(&authority, &[], "1")]).await;
    let connected = async |own| loop {
        if let Some(kept) = proven(port, &authority, own).await {
            return kept;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let (mut stays, mut goes) = (Box::pin(within(connected(&good))).await, Box::pin(within(connected(&bad))).await);
    assert!(answered(&mut stays).await && answered(&mut goes).await);

    peer.respond(Kind::Secret, "2", vec![roots_and_list(&authority, &[&bad.0], "2")]).await;
    let ended = tokio::time::timeout(Duration::from_secs(5), goes.read(&mut [0; 64])).await;
    assert!(matches!(ended.unwrap(), Ok(0) | Err(_)), "the connection is closed");
    assert!(proven(port, &authority, &bad).await.is_none(), "and no other is opened");
    assert!(answered(&mut stays).await, "nobody else is disturbed");
    assert!(proven(port, &authority, &good).await.is_some());
    task.abort();
}
