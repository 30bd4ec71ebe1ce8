//! Port 15012: who may connect, and certificate requests passed on to citadel.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proto::ca::istio_certificate_service_client::IstioCertificateServiceClient;
use proto::ca::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use proto::ca::{IstioCertificateRequest, IstioCertificateResponse};
use proto::envoy::discovery::DeltaDiscoveryRequest;
use proto::envoy::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::type_url;
use std::time::Duration;
use support::{Client, channel, eventually, node, page, pilot, pki, tls_channel, tls_flags};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

const OWN: &str = "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local";
const OTHER: &str = "sidecar~10.0.0.9~client-1.other~other.svc.cluster.local";

async fn running(more: &[&str]) -> (pilot::server::Running, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let flags = tls_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    (pilot(dir.path(), &flags).await, dir)
}

// spec: PI-51, PI-53, XI-2, PT-11
// bar: S1
#[tokio::test]
async fn a_client_certificate_admits_its_own_namespace_alone() {
    let (pilot, _dir) = running(&[]).await;
    let address = pilot.secure_grpc.unwrap();
    let channel = tls_channel(address, Some("client")).await;
    let mut client = Client::connect(channel.clone(), node(OWN, &[("SERVICE_ACCOUNT", "client")])).await;
    client.subscribe(type_url::CLUSTER, &["*"]);
    assert_eq!(client.next().await.type_url, type_url::CLUSTER);
    for wrong in [node(OTHER, &[]), node(OWN, &[("SERVICE_ACCOUNT", "else")])] {
        let mut client = Client::connect(channel.clone(), wrong).await;
        client.subscribe(type_url::CLUSTER, &["*"]);
        assert_eq!(client.receive().await.unwrap_err().code(), Code::PermissionDenied);
    }
    pilot.stop(Duration::from_millis(50)).await;
}

/// Boxed: the future of a streaming call is large.
fn with_token(
    channel: tonic::transport::Channel,
    token: Option<&str>,
) -> futures_util::future::BoxFuture<'_, Result<(), Status>> {
    Box::pin(ask_with_token(channel, token))
}

async fn ask_with_token(channel: tonic::transport::Channel, token: Option<&str>) -> Result<(), Status> {
    let first = DeltaDiscoveryRequest {
        node: Some(node(OWN, &[])),
        type_url: type_url::CLUSTER.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let mut request = Request::new(tokio_stream::iter([first]));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    client.delta_aggregated_resources(request).await?.into_inner().message().await.map(drop)
}

// spec: PI-51, XI-2
// bar: S1
#[tokio::test]
async fn a_token_proves_as_well_and_nothing_does_not() {
    let (pilot, _dir) = running(&[]).await;
    let address = pilot.secure_grpc.unwrap();
    let token = std::fs::read_to_string(pki("token")).unwrap();
    let channel = tls_channel(address, None).await;
    with_token(channel.clone(), Some(&token)).await.unwrap();
    assert_eq!(with_token(channel.clone(), None).await.unwrap_err().code(), Code::Unauthenticated);
    let (body, _) = token.rsplit_once('.').unwrap();
    let forged = with_token(channel.clone(), Some(&format!("{body}.AAAA"))).await.unwrap_err();
    assert_eq!(forged.code(), Code::Unauthenticated);
    let (pilot, _dir) = running(&["--token-audience", "other"]).await;
    let channel = tls_channel(pilot.secure_grpc.unwrap(), None).await;
    assert_eq!(with_token(channel, Some(&token)).await.unwrap_err().code(), Code::Unauthenticated, "another audience");
}

const GATEWAY: &str = "router~10.0.0.9~client-1.default~default.svc.cluster.local";

/// The test certificates of a server as the Secret `a` of `default`, with one more line of comment in the chain.
fn secret(comment: &str) -> String {
    let field = |name: &str, file: &str| {
        let text = std::fs::read_to_string(pki(file)).unwrap();
        let lines: String = text.lines().map(|line| format!("    {line}\n")).collect();
        format!("  {name}: |\n    {comment}\n{lines}")
    };
    let fields = field("tls.crt", "server.pem") + &field("tls.key", "server.key");
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\nstringData:\n{fields}")
}

const OF_GATEWAY: &str = "apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec:
  selector: {app: gw}
  servers:
  - {port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: a}}
  - {port: {number: 443, name: b, protocol: HTTPS}, hosts: [b.com], tls: {mode: SIMPLE, credentialName: b}}
---
apiVersion: v1
kind: Pod
metadata: {name: client-1, labels: {app: gw}}
spec: {serviceAccountName: client}
status: {podIP: 10.0.0.9}
";

// spec: CA-26, CA-27, XI-4
// bar: S2
#[tokio::test]
async fn secrets_go_over_tls_to_who_has_proven_who_it_is() {
    let (pilot, dir) = running(&[]).await;
    std::fs::write(dir.path().join("secret.yaml"), secret("one")).unwrap();
    std::fs::write(dir.path().join("gateway.yaml"), OF_GATEWAY).unwrap();
    let http = pilot.http.unwrap();
    let status = eventually(http, "/debug/status", |text| text.contains("credentialName")).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let problem = &status["problems"][0];
    assert_eq!(
        (problem["field"].as_str(), problem["line"].as_u64()),
        (Some("spec.servers[1].tls.credentialName"), Some(8))
    );
    assert_eq!(problem["message"], "namespace default, where its proxies are, has no Secret b");

    let mut client =
        Client::connect(tls_channel(pilot.secure_grpc.unwrap(), Some("client")).await, node(GATEWAY, &[])).await;
    client.subscribe(type_url::SECRET, &["kubernetes://a", "kubernetes://b"]);
    let told = client.next().await;
    let names: Vec<&str> = told.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!((names, told.removed_resources), (vec!["kubernetes://a"], vec!["kubernetes://b".to_owned()]));
    let (_, dump) = page(http, "/debug/config_dump?proxyID=client-1.default").await;
    assert!(dump.contains("kubernetes://a") && !dump.contains(&key_line()), "keys are never shown");

    std::fs::write(dir.path().join("secret.yaml"), secret("two")).unwrap();
    let told = client.next().await;
    assert_eq!((told.type_url.as_str(), told.resources.len()), (type_url::SECRET, 1), "rotation is one message");

    let plain = pilot.grpc.unwrap();
    let mut client = Client::connect(channel(plain).await, node(GATEWAY, &[])).await;
    client.subscribe(type_url::SECRET, &["kubernetes://a"]);
    let told = client.next().await;
    assert_eq!((told.resources.len(), told.removed_resources), (0, vec!["kubernetes://a".to_owned()]));
    pilot.stop(Duration::from_millis(50)).await;
}

/// A line of the key as JSON of bytes would show it.
fn key_line() -> String {
    let text = std::fs::read_to_string(pki("server.key")).unwrap();
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("one\n{text}"))
        .chars()
        .take(60)
        .collect()
}

/// A citadel that answers with what it was told.
struct Mirror;

#[tonic::async_trait]
impl IstioCertificateService for Mirror {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let text = |key: &str| request.metadata().get(key).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let told = vec![text("authorization"), text("ferromesh-relayed-caller"), request.get_ref().csr.clone()];
        Ok(Response::new(IstioCertificateResponse { cert_chain: told }))
    }
}

#[tokio::test]
async fn certificate_requests_are_passed_on_with_the_callers_proof() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let citadel = listener.local_addr().unwrap();
    let service = Server::builder().add_service(IstioCertificateServiceServer::new(Mirror));
    let serving = tokio::spawn(service.serve_with_incoming(TcpIncoming::from(listener)));
    let (pilot, _dir) = running(&["--ca-addr", &format!("http://{citadel}")]).await;
    let address = pilot.secure_grpc.unwrap();
    let csr = || Request::new(IstioCertificateRequest { csr: "csr".into(), ..IstioCertificateRequest::default() });

    let mut proven = IstioCertificateServiceClient::new(tls_channel(address, Some("client")).await);
    let told = proven.create_certificate(csr()).await.unwrap().into_inner().cert_chain;
    assert_eq!(told, ["", "spiffe://cluster.local/ns/default/sa/client", "csr"]);

    let mut bare = IstioCertificateServiceClient::new(tls_channel(address, None).await);
    let mut request = csr();
    request.metadata_mut().insert("authorization", "Bearer t".parse().unwrap());
    request.metadata_mut().insert("ferromesh-relayed-caller", "spiffe://cluster.local/ns/a/sa/forged".parse().unwrap());
    let told = bare.create_certificate(request).await.unwrap().into_inner().cert_chain;
    assert_eq!(told, ["Bearer t", "", "csr"], "nobody names a caller but pilot");
    assert_eq!(bare.create_certificate(csr()).await.unwrap_err().code(), Code::Unauthenticated);
    serving.abort();
}

/// Status and body of a page at the port of xDS over TLS.
async fn page_over_tls(channel: tonic::transport::Channel, path: &str, token: Option<&str>) -> (u16, String) {
    use http_body_util::BodyExt as _;
    let mut request = http::Request::get(format!("https://localhost{path}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(tonic::body::Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(channel, request).await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

// spec: PI-42, PI-43
// bar: S1, S2
#[tokio::test]
async fn debug_pages_over_tls_show_to_each_what_is_its_business() {
    let (pilot, _dir) = running(&[]).await;
    let address = pilot.secure_grpc.unwrap();
    let channel = tls_channel(address, Some("client")).await;
    let mut own = Client::connect(channel.clone(), node(OWN, &[])).await;
    own.subscribe(type_url::CLUSTER, &["*"]);
    own.next().await;
    let mut other = Client::connect(support::channel(pilot.grpc.unwrap()).await, node(OTHER, &[])).await;
    other.subscribe(type_url::CLUSTER, &["*"]);
    other.next().await;

    let (status, dump) = page_over_tls(channel.clone(), "/debug/config_dump?proxyID=client-1.default", None).await;
    assert!(status == 200 && dump.contains("\"CDS\""), "{status} {dump}");
    let edsz = page_over_tls(channel.clone(), "/debug/edsz?proxyID=client-1.default", None).await;
    assert_eq!(edsz, (200, "[]".to_owned()), "a mesh without services");
    assert_eq!(page_over_tls(channel.clone(), "/debug/ndsz?proxyID=client-1.default", None).await.0, 200);
    let (status, text) = page_over_tls(channel.clone(), "/debug/config_dump?proxyID=client-1.other", None).await;
    assert_eq!((status, text.as_str()), (404, "client-1.other is not connected; connected: client-1.default\n"));
    assert_eq!(page_over_tls(channel, "/debug/syncz", None).await.0, 403, "it names proxies of all namespaces");

    let stranger = tls_channel(address, None).await;
    let token = std::fs::read_to_string(pki("token")).unwrap();
    assert_eq!(page_over_tls(stranger.clone(), "/debug/edsz?proxyID=client-1.default", Some(&token)).await.0, 200);
    let (status, text) = page_over_tls(stranger.clone(), "/debug/syncz", None).await;
    assert!(status == 401 && text.contains("a certificate of the mesh or a token"), "{status} {text}");

    let (pilot, _dir) = running(&["--debug-endpoint-auth-allowed-namespaces", "ops,default"]).await;
    let channel = tls_channel(pilot.secure_grpc.unwrap(), Some("client")).await;
    assert_eq!(page_over_tls(channel, "/debug/syncz", None).await, (200, "[]".to_owned()));
    let (pilot, _dir) = running(&["--debug-endpoint-auth", "false"]).await;
    let channel = tls_channel(pilot.secure_grpc.unwrap(), None).await;
    assert_eq!(page_over_tls(channel, "/debug/syncz", None).await.0, 200);
}
