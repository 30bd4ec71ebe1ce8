//! A real Envoy reports to mixer: access log service, OTLP metrics, logs and spans, Zipkin.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

use clap::Parser;
use e2e::app::Echo;
use e2e::client::exchange;
use e2e::proxies::{Flavour, Proxy, free_address};
use mixer::args::ServeArgs;
use mixer::server::{Running, Server};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ServeArgs,
}

async fn start() -> Running {
    let names = ["grpc-addr", "http-addr", "monitoring-addr", "otlp-grpc-addr", "otlp-http-addr", "zipkin-addr"];
    let flags = names.iter().map(|name| format!("--{name}=127.0.0.1:0"));
    let args = Cli::parse_from(std::iter::once("mixer".to_owned()).chain(flags)).args;
    Server::new(args, None).start().await.unwrap()
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn cluster(name: &str, address: SocketAddr, http2: bool) -> Value {
    let endpoint = json!({"endpoint": {"address": socket(address)}});
    let mut cluster = json!({"name": name, "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}});
    if http2 {
        let options = json!({"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}});
        cluster["typed_extension_protocol_options"] =
            json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options});
    }
    cluster
}

fn typed(kind: &str, mut config: Value) -> Value {
    config["@type"] = format!("type.googleapis.com/{kind}").into();
    config
}

fn grpc(cluster: &str) -> Value {
    json!({"envoy_grpc": {"cluster_name": cluster}})
}

/// A listener with a log and a tracer.
fn listener(address: SocketAddr, log: Value, tracer: Value) -> Value {
    let routes = json!([
        {"match": {"prefix": "/down"}, "route": {"cluster": "outbound|9080||ratings.shop.svc.cluster.local"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "outbound|9080|v1|reviews.shop.svc.cluster.local"}},
    ]);
    let manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "outbound",
            "access_log": [log],
            "tracing": {"provider": tracer, "random_sampling": {"value": 100}},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": typed("envoy.extensions.filters.http.router.v3.Router", json!({}))}],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        }),
    );
    json!({"address": socket(address), "traffic_direction": "OUTBOUND",
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]})
}

fn bootstrap(mixer: &Running, first: SocketAddr, second: SocketAddr, app: SocketAddr) -> Value {
    let als = json!({"name": "als", "typed_config": typed(
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        json!({"common_config": {"log_name": "http_envoy_accesslog", "transport_api_version": "V3", "grpc_service": grpc("mixer"), "buffer_flush_interval": "0.2s"}}))});
    let pairs = [
        ("response_code", "%RESPONSE_CODE%"),
        ("response_flags", "%RESPONSE_FLAGS%"),
        ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
        ("method", "%REQ(:METHOD)%"),
        ("path", "%REQ(:PATH)%"),
        ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
        ("upstream_host", "%UPSTREAM_HOST%"),
    ];
    let attributes = pairs.map(|(key, value)| json!({"key": key, "value": {"string_value": value}}));
    let logs = json!({"name": "otel", "typed_config": typed(
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
        json!({"common_config": {"log_name": "otel", "transport_api_version": "V3", "grpc_service": grpc("mixer"), "buffer_flush_interval": "0.2s"},
            "attributes": {"values": attributes}}))});
    let otel = json!({"name": "envoy.tracers.opentelemetry", "typed_config": typed(
        "envoy.config.trace.v3.OpenTelemetryConfig",
        json!({"grpc_service": grpc("mixer"), "service_name": "productpage.shop"}))});
    let zipkin = json!({"name": "envoy.tracers.zipkin", "typed_config": typed(
        "envoy.config.trace.v3.ZipkinConfig",
        json!({"collector_cluster": "zipkin", "collector_endpoint": "/api/v2/spans", "collector_endpoint_version": "HTTP_JSON"}))});
    let sink = json!({"name": "envoy.stat_sinks.open_telemetry", "typed_config": typed(
        "envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig", json!({"grpc_service": grpc("mixer")}))});
    let nobody = free_address().unwrap();
    let metadata = json!({"NAME": "productpage-0", "NAMESPACE": "shop", "WORKLOAD_NAME": "productpage-v1", "CLUSTER_ID": "east",
        "LABELS": {"app": "productpage", "version": "v1"}});
    json!({
        "node": {"id": "sidecar~127.0.0.1~productpage-0.shop~shop.svc.cluster.local", "cluster": "productpage.shop", "metadata": metadata},
        "admin": {"address": socket(([127, 0, 0, 1], 0).into())},
        "stats_flush_interval": "1s",
        "stats_sinks": [sink],
        "static_resources": {
            "listeners": [listener(first, als, otel), listener(second, logs, zipkin)],
            "clusters": [
                cluster("outbound|9080|v1|reviews.shop.svc.cluster.local", app, false),
                cluster("outbound|9080||ratings.shop.svc.cluster.local", nobody, false),
                cluster("mixer", mixer.grpc.unwrap(), true),
                cluster("zipkin", mixer.zipkin.unwrap(), false),
            ],
        },
    })
}

async fn ask(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    tokio::task::spawn_blocking(move || exchange(address, &request)).await.unwrap().unwrap().body
}

async fn until(address: SocketAddr, path: &str, wanted: impl Fn(&str) -> bool) -> String {
    let start = Instant::now();
    loop {
        let text = ask(address, path).await;
        if wanted(&text) {
            return text;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{path} never became what was wanted:\n{text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

// spec: MX-95, MX-99, MX-101, MX-102, MX-106, MX-118, OB-9, AL-6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_envoy_is_seen_and_counted() {
    let mixer = start().await;
    let app = Echo::start("reviews").unwrap();
    let (first, second) = (free_address().unwrap(), free_address().unwrap());
    let config = bootstrap(&mixer, first, second, app.address);
    let _envoy = tokio::task::spawn_blocking(move || Proxy::start(Flavour::Envoy, |_| config).unwrap()).await.unwrap();
    for _ in 0..50 {
        assert!(ask(first, "/reviews/1").await.contains("/reviews/1"));
    }
    for _ in 0..5 {
        ask(first, "/down").await;
        ask(second, "/down").await;
        ask(second, "/ok").await;
    }

    // The access log service of a proxy that does not count itself becomes Istio's families.
    let monitoring = mixer.monitoring.unwrap();
    let good = |text: &str, code: &str| {
        let code = format!("response_code=\"{code}\"");
        let line = text.lines().find(|l| l.starts_with("istio_requests_total{") && l.contains(&code));
        line.map(str::to_owned)
    };
    let counted = |text: &str| {
        let ends = |code, count| good(text, code).is_some_and(|line| line.ends_with(count));
        ends("200", " 50") && ends("503", " 5")
    };
    let text = until(monitoring, "/metrics", counted).await;
    let line = good(&text, "200").unwrap();
    for label in [
        "reporter=\"source\"",
        "source_workload=\"productpage-v1\"",
        "source_canonical_service=\"productpage\"",
        "destination_service=\"reviews.shop.svc.cluster.local\"",
        "destination_service_namespace=\"shop\"",
    ] {
        assert!(line.contains(label), "{label} is missing in {line}");
    }
    assert!(good(&text, "503").unwrap().contains("response_flags=\"UF"), "{text}");
    // Its own statistics come by OTLP: they are no family of Istio's, and counted as such.
    until(monitoring, "/metrics", |text| text.contains("{kind=\"metrics\",reason=\"unknown\"}")).await;

    // Page: the graph, the failures of both logs, the traces of both tracers.
    let page = mixer.http.unwrap();
    let graph = until(page, "/", |text| text.contains("productpage v1 (shop)")).await;
    assert!(graph.contains("data-service=\"ratings\" data-health=\"failing\""), "{graph}");
    let failures = until(page, "/failures", |text| text.matches("class=\"failure\"").count() >= 10).await;
    assert!(failures.contains("503 UF") && failures.contains("productpage v1 (shop), pod productpage-0"));
    until(page, "/traces", |text| text.matches("<a href=\"/trace/").count() >= 65).await;
}
