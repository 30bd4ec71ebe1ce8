//! mixer with a certificate of citadel's: workloads of the mesh are let in and known by their certificates, others are not.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

mod support;

use axum::http::StatusCode;
use citadel::serve::{ServeArgs, Server};
use citadel::token::TokenKey;
use clap::Parser;
use credentials::accept::{Door, Peer, Trust, accept};
use credentials::{Config, Credentials};
use hyper_util::rt::TokioIo;
use identity::san::SanMatch;
use identity::spiffe::SpiffeId;
use identity::svid::provider;
use identity::verify::server_verifier;
use prost::Message as _;
use proto::envoy::accesslog_service::StreamAccessLogsMessage;
use proto::envoy::accesslog_service::access_log_service_client::AccessLogServiceClient;
use proto::envoy::accesslog_service::stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries};
use proto::envoy::core::Node;
use proto::envoy::log_entry::{AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties};
use proto::envoy::wkt;
use proto::otlp::logs::{LogRecord, ResourceLogs, ScopeLogs};
use proto::otlp::logs_service::ExportLogsServiceRequest;
use proto::otlp::logs_service::logs_service_client::LogsServiceClient;
use proto::otlp::metrics_service::ExportMetricsServiceRequest;
use proto::otlp::metrics_service::metrics_service_client::MetricsServiceClient;
use proto::otlp::resource::Resource;
use proto::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use proto::otlp::trace_service::ExportTraceServiceRequest;
use proto::otlp::trace_service::trace_service_client::TraceServiceClient;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use support::{Call, attribute, counter, get, labels, start, until};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tower::Service as _;

const MIXER: &str = "spiffe://cluster.local/ns/istio-system/sa/mixer";
const PILOT: &str = "spiffe://cluster.local/ns/istio-system/sa/istiod";
const PRODUCTPAGE: &str = "spiffe://cluster.local/ns/shop/sa/productpage";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    serve: ServeArgs,
}

/// A citadel in this process.
struct Ca {
    directory: Arc<tempfile::TempDir>,
    address: SocketAddr,
    key: TokenKey,
}

impl Ca {
    async fn start() -> Self {
        Self::of(Arc::new(tempfile::tempdir().unwrap()), "cluster.local").await
    }

    /// One of a trust domain, with the keys of this directory.
    async fn of(directory: Arc<tempfile::TempDir>, domain: &str) -> Self {
        let path = |name: &str| directory.path().join(name).display().to_string();
        let key = TokenKey::load_or_create(&directory.path().join("token-key.pem")).unwrap();
        std::fs::write(directory.path().join("jwks.json"), key.jwks().to_string()).unwrap();
        let (ca, jwks, roots) = (path("ca"), path("jwks.json"), path("roots.pem"));
        let flags = ["citadel", "--listen", "127.0.0.1:0", "--root-dir", &ca, "--token-jwks", &jwks];
        let names = format!("{}=localhost", PILOT.replace("cluster.local", domain));
        let flags = flags.into_iter().chain(["--trust-domain", domain]);
        let flags = flags.chain(["--roots-out", &roots, "--monitoring-addr=", "--host-names", &names]);
        let server = Server::start(Flags::parse_from(flags).serve, None).await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(server.serve(std::future::pending()));
        Self { directory, address, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A token of somebody, in a file.
    fn token(&self, id: &str) -> PathBuf {
        let path = self.path(&id.replace(['/', ':'], "_"));
        let token = self.key.mint(&SpiffeId::parse(id).unwrap(), Duration::from_secs(600), SystemTime::now());
        std::fs::write(&path, token.unwrap()).unwrap();
        path
    }

    async fn credentials(&self, id: &str) -> Credentials {
        let config = Config {
            ca_address: self.address.to_string(),
            ca_host: credentials::host_of(&self.address.to_string()).to_owned(),
            ca_roots: self.path("roots.pem"),
            token_file: Some(self.token(id)),
            cluster_id: None,
            identity: SpiffeId::parse(id).unwrap(),
            ttl_s: 0,
            state_dir: None,
        };
        config.request(None).await.unwrap()
    }

    /// Flags of a mixer that enrols here.
    fn flags(&self) -> [String; 4] {
        [
            format!("--ca-addr={}", self.address),
            format!("--ca-root={}", self.path("roots.pem").display()),
            format!("--token-file={}", self.token(MIXER).display()),
            format!("--identity={MIXER}"),
        ]
    }
}

/// A connection by TLS as `own`, which expects mixer at the other end.
async fn channel(address: SocketAddr, roots: &Credentials, own: Option<&Credentials>) -> anyhow::Result<Channel> {
    let verifier = server_verifier(roots.roots.clone(), SanMatch::uris([MIXER]));
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => config.with_client_auth_cert(own.svid.chain().to_vec(), own.svid.key().to_der())?,
        None => config.with_no_client_auth(),
    };
    // As pilot configures the proxies of the mesh.
    config.alpn_protocols = ["istio-peer-exchange", "istio", "h2"].map(|name| name.as_bytes().to_vec()).to_vec();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let dial = tower::service_fn(move |_: tonic::transport::Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = "mixer".to_owned().try_into().map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Ok(Endpoint::from_static("http://mixer").connect_with_connector(dial).await?)
}

/// A failed request, as a proxy in a namespace reports it.
fn report(namespace: &str) -> StreamAccessLogsMessage {
    let text = |text: &str| wkt::Value { kind: Some(wkt::value::Kind::StringValue(text.to_owned())) };
    let fields = [("NAME", "productpage-0"), ("NAMESPACE", namespace), ("WORKLOAD_NAME", "productpage")];
    let fields = fields.map(|(name, value)| (name.to_owned(), text(value))).into();
    let id = format!("sidecar~10.0.0.1~productpage-0.{namespace}~{namespace}.svc.cluster.local");
    let node = Node { id, metadata: Some(wkt::Struct { fields }), ..Node::default() };
    let entry = HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            upstream_cluster: "outbound|9080||reviews.shop.svc.cluster.local".to_owned(),
            ..AccessLogCommon::default()
        }),
        request: Some(HttpRequestProperties { path: "/broken".to_owned(), ..HttpRequestProperties::default() }),
        response: Some(HttpResponseProperties {
            response_code: Some(wkt::UInt32Value { value: 503 }),
            ..HttpResponseProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    };
    StreamAccessLogsMessage {
        identifier: Some(Identifier { node: Some(node), log_name: "requests".to_owned() }),
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: vec![entry] })),
    }
}

async fn send(channel: Channel, namespace: &str) -> Result<(), tonic::Status> {
    let messages = tokio_stream::iter([report(namespace)]);
    AccessLogServiceClient::new(channel).stream_access_logs(Request::new(messages)).await.map(drop)
}

// spec: MX-95, MX-106
#[tokio::test]
async fn a_proxy_is_let_in_and_known_by_its_certificate() {
    let ca = Ca::start().await;
    let flags = ca.flags();
    let mixer = start(&flags.each_ref().map(String::as_str)).await;
    until(mixer.monitoring.unwrap(), "/ready", |text| !text.contains("not")).await;
    let own = ca.credentials(PRODUCTPAGE).await;
    let channel = channel(mixer.grpc.unwrap(), &own, Some(&own)).await.unwrap();
    send(channel.clone(), "shop").await.unwrap();
    let principal = format!("source_principal=\"{PRODUCTPAGE}\"");
    let text = until(mixer.monitoring.unwrap(), "/metrics", |text| text.contains("istio_requests_total{")).await;
    assert!(text.contains(&principal), "{text}");
    // Nobody reports in the name of another namespace.
    let refused = send(channel, "bank").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("bank") && refused.message().contains(PRODUCTPAGE), "{refused}");
}

// spec: CA-7
#[tokio::test]
async fn who_is_of_an_alias_of_the_trust_domain_is_let_in() {
    let ca = Ca::start().await;
    let old = Ca::of(Arc::clone(&ca.directory), "old.example").await;
    let own = old.credentials("spiffe://old.example/ns/shop/sa/productpage").await;
    for (aliases, lets_in) in [("", false), ("older.example,old.example", true)] {
        let (flags, aliases) = (ca.flags(), format!("--trust-domain-aliases={aliases}"));
        let mixer = start(&[&flags.each_ref().map(String::as_str)[..], &[&aliases]].concat()).await;
        until(mixer.monitoring.unwrap(), "/ready", |text| !text.contains("not")).await;
        let sent = match channel(mixer.grpc.unwrap(), &own, Some(&own)).await {
            Ok(channel) => send(channel, "shop").await.is_ok(),
            Err(_refused) => false,
        };
        assert_eq!(sent, lets_in, "{aliases}");
    }
}

fn node(namespace: &str) -> String {
    format!("sidecar~10.0.0.1~productpage-0.{namespace}~{namespace}.svc.cluster.local")
}

/// Requests that a proxy in a namespace counts, as somebody else.
fn counts(namespace: &str) -> ExportMetricsServiceRequest {
    let call = Call { reporter: "source", source: ("vault", "v1"), destination: ("reviews", "v1"), code: "200" };
    let mut labels = labels(call);
    for label in &mut labels {
        match label.key.as_str() {
            "source_principal" => *label = attribute("source_principal", "spiffe://cluster.local/ns/bank/sa/vault"),
            "source_workload_namespace" => *label = attribute("source_workload_namespace", "bank"),
            _ => {}
        }
    }
    let nobodys = vec![attribute("source_principal", "spiffe://cluster.local/ns/bank/sa/vault")];
    let metrics = [counter("istio_requests_total", labels, 7), counter("istio_requests_total", nobodys, 1000)];
    support::report(&node(namespace), metrics.into())
}

// spec: MX-99, MX-106
#[tokio::test]
async fn what_a_proxy_counts_is_known_by_its_certificate() {
    let ca = Ca::start().await;
    let flags = ca.flags();
    let mixer = start(&flags.each_ref().map(String::as_str)).await;
    until(mixer.monitoring.unwrap(), "/ready", |text| !text.contains("not")).await;
    let own = ca.credentials(PRODUCTPAGE).await;
    let channel_to = async |address| channel(address, &own, Some(&own)).await.unwrap();
    let mut metrics = MetricsServiceClient::new(channel_to(mixer.otlp_grpc.unwrap()).await);
    let taken = metrics.export(counts("shop")).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(taken.rejected_data_points, 1, "a series that does not say whose side it is of");
    let text = until(mixer.monitoring.unwrap(), "/metrics", |text| text.contains("istio_requests_total{")).await;
    let series: Vec<&str> = text.lines().filter(|line| line.starts_with("istio_requests_total{")).collect();
    assert_eq!(series.len(), 1, "{series:?}");
    for label in [format!("source_principal=\"{PRODUCTPAGE}\""), "source_workload_namespace=\"shop\"".to_owned()] {
        assert!(series[0].contains(&label) && !series[0].contains("bank"), "{label} in {series:?}");
    }
    // Nobody reports in the name of another namespace: over gRPC, over HTTP, as logs.
    let refused = metrics.export(counts("bank")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("bank") && refused.message().contains(PRODUCTPAGE), "{refused}");
    let mut http = channel_to(mixer.otlp_http.unwrap()).await;
    for (namespace, status) in [("shop", StatusCode::OK), ("bank", StatusCode::FORBIDDEN)] {
        std::future::poll_fn(|cx| http.poll_ready(cx)).await.unwrap();
        let body = tonic::body::Body::new(http_body_util::Full::from(counts(namespace).encode_to_vec()));
        let request = axum::http::Request::post("/v1/metrics").header("content-type", "application/x-protobuf");
        assert_eq!(http.call(request.body(body).unwrap()).await.unwrap().status(), status);
    }
    let attributes = vec![attribute("service.instance.id", &node("bank"))];
    let logs = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_logs: vec![ScopeLogs { log_records: vec![LogRecord::default()], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    };
    let refused = LogsServiceClient::new(channel_to(mixer.otlp_grpc.unwrap()).await).export(logs).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let text = get(mixer.monitoring.unwrap(), "/metrics").await.1;
    assert!(text.contains("mixer_report_dropped_total{kind=\"metrics\",reason=\"forged\"} 2"), "{text}");
}

/// A span of a service, with what its sender says of itself and a tag.
fn span(own: &[(&str, &str)], tag: (&str, &str)) -> ExportTraceServiceRequest {
    let attributes = own.iter().map(|(key, value)| attribute(key, value)).collect();
    let span = Span {
        trace_id: vec![7; 16],
        span_id: vec![1; 8],
        attributes: vec![attribute(tag.0, tag.1)],
        ..Span::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

// spec: MX-99, MX-101, MX-106
#[tokio::test]
async fn spans_are_of_the_namespace_that_the_certificate_proves() {
    let ca = Ca::start().await;
    let flags = ca.flags();
    let mixer = start(&flags.each_ref().map(String::as_str)).await;
    until(mixer.monitoring.unwrap(), "/ready", |text| !text.contains("not")).await;
    let own = ca.credentials(PRODUCTPAGE).await;
    let channel_to = async |address| channel(address, &own, Some(&own)).await.unwrap();
    let mut traces = TraceServiceClient::new(channel_to(mixer.otlp_grpc.unwrap()).await);
    let (shop, bank) = (node("shop"), node("bank"));
    let good = [("service.name", "productpage.shop"), ("service.namespace", "shop"), ("service.instance.id", &*shop)];
    traces.export(span(&good, ("node_id", &shop))).await.unwrap();
    traces.export(span(&[("service.name", "vault.bank")], ("x", "y"))).await.unwrap();
    let page = until(mixer.http.unwrap(), &format!("/trace/{}", "07".repeat(16)), |text| text.contains("vault")).await;
    assert!(page.contains("productpage.shop") && !page.contains("productpage.shop.shop"), "{page}");
    assert!(page.contains("vault.bank.shop"), "a name of others is completed by the namespace: {page}");
    let forged = [
        (&[("service.instance.id", &*bank)][..], ("x", "y")),
        (&[("service.namespace", "bank")], ("x", "y")),
        (&[("k8s.namespace.name", "bank")], ("x", "y")),
        (&[], ("istio.namespace", "bank")),
    ];
    for (own, tag) in forged {
        let refused = traces.export(span(own, tag)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{own:?} {tag:?}");
        assert!(refused.message().contains("bank") && refused.message().contains(PRODUCTPAGE), "{refused}");
    }
    let mut http = channel_to(mixer.zipkin.unwrap()).await;
    for (namespace, status) in [("shop", StatusCode::ACCEPTED), ("bank", StatusCode::FORBIDDEN)] {
        std::future::poll_fn(|cx| http.poll_ready(cx)).await.unwrap();
        let tags = serde_json::json!({"node_id": node(namespace)});
        let sent = serde_json::json!([{"traceId": "07".repeat(16), "id": "02".repeat(8), "tags": tags}]).to_string();
        let request = axum::http::Request::post("/api/v2/spans").header("content-type", "application/json");
        let body = tonic::body::Body::new(http_body_util::Full::from(sent));
        assert_eq!(http.call(request.body(body).unwrap()).await.unwrap().status(), status);
    }
    let text = get(mixer.monitoring.unwrap(), "/metrics").await.1;
    assert!(text.contains("mixer_report_dropped_total{kind=\"spans\",reason=\"forged\"} 5"), "{text}");
}

#[tokio::test]
async fn who_has_no_certificate_of_the_mesh_is_refused() {
    let (ca, stranger) = (Ca::start().await, Ca::start().await);
    let flags = ca.flags();
    let mixer = start(&flags.each_ref().map(String::as_str)).await;
    until(mixer.monitoring.unwrap(), "/ready", |text| !text.contains("not")).await;
    let (own, other) = (ca.credentials(PRODUCTPAGE).await, stranger.credentials(PRODUCTPAGE).await);
    for address in [mixer.grpc.unwrap(), mixer.otlp_grpc.unwrap()] {
        let plain = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        assert!(send(plain, "shop").await.is_err(), "plain text");
        for certificate in [None, Some(&other)] {
            // In TLS 1.3 a client learns of the refusal with its first answer.
            let refused = match channel(address, &own, certificate).await {
                Ok(channel) => send(channel, "shop").await.is_err(),
                Err(_) => true,
            };
            assert!(refused, "certificate of another mesh, or none");
        }
    }
    for address in [mixer.otlp_http.unwrap(), mixer.zipkin.unwrap()] {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.try_write(b"POST /v1/traces HTTP/1.1\r\nhost: mixer\r\ncontent-length: 0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let mut stream = stream;
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap_or_default();
        assert!(!answer.starts_with(b"HTTP"), "{address} answers plain text");
    }
    // Pages are for people.
    let (status, _) = get(mixer.http.unwrap(), "/").await;
    assert_eq!(status, StatusCode::OK);
}

/// A pilot with these credentials, which tells who asks, and for what.
async fn pilot(own: Credentials) -> (SocketAddr, watch::Receiver<Option<(SpiffeId, String)>>) {
    let (asked, told) = watch::channel(None);
    let answer = move |request: axum::extract::Request| {
        let id = request.extensions().get::<Peer>().and_then(|peer| peer.id().cloned());
        asked.send_replace(id.map(|id| (id, request.uri().path().to_owned())));
        std::future::ready("[]")
    };
    let routes = Routes::from(axum::Router::new().route("/debug/workloadz", axum::routing::get(answer)));
    let listener = tokio::net::TcpListener::bind("localhost:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let trust = Trust { held: watch::channel(Some(Arc::new(own))).1, accept: SanMatch::any() };
    let connections = accept(listener, Door::Permissive(trust));
    tokio::spawn(tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(connections));
    (address, told)
}

// spec: PI-43, MX-106
#[tokio::test]
async fn pilot_is_asked_over_tls_with_mixers_certificate_if_it_is_pilot() {
    let ca = Ca::start().await;
    let flags = |address: SocketAddr| {
        let url = format!("--pilot=https://localhost:{}", address.port());
        ca.flags().into_iter().chain([url]).collect::<Vec<_>>()
    };
    let (address, mut told) = pilot(ca.credentials(PILOT).await).await;
    let line = flags(address);
    let _mixer = start(&line.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let heard = tokio::time::timeout(Duration::from_secs(10), told.wait_for(Option::is_some)).await.unwrap().unwrap();
    let (id, path) = heard.clone().unwrap();
    assert_eq!((id.as_str(), path.as_str()), (MIXER, "/debug/workloadz"));
    drop(heard);

    let (address, told) = pilot(ca.credentials(PRODUCTPAGE).await).await;
    let line = flags(address);
    let mixer = start(&line.iter().map(String::as_str).collect::<Vec<_>>()).await;
    until(mixer.http.unwrap(), "/", |text| text.contains("pilot has not answered yet")).await;
    assert!(told.borrow().is_none(), "who is not pilot is not asked");
    let refused = mixer::pilot::Pilot::new("https://localhost:1", None).unwrap_err().to_string();
    assert!(refused.ends_with("https needs a certificate of the mesh: --ca-addr and --identity"), "{refused}");
}
