//! What the proxy tells other processes: access logs to a log service and to a collector, metrics and spans.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proto::envoy::accesslog_service::access_log_service_server::{AccessLogService, AccessLogServiceServer};
use proto::envoy::accesslog_service::stream_access_logs_message::LogEntries;
use proto::envoy::accesslog_service::{StreamAccessLogsMessage, StreamAccessLogsResponse};
use proto::envoy::log_entry::HttpAccessLogEntry;
use proto::otlp::logs_service::logs_service_server::{LogsService, LogsServiceServer};
use proto::otlp::logs_service::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use proto::otlp::metrics::metric::Data;
use proto::otlp::metrics::number_data_point::Value;
use proto::otlp::metrics_service::metrics_service_server::{MetricsService, MetricsServiceServer};
use proto::otlp::metrics_service::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use proto::otlp::trace_service::trace_service_server::{TraceService, TraceServiceServer};
use proto::otlp::trace_service::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use support::{Proxy, cluster, connect, free_port, http, listener, read_head, tcp, upstream};
use tonic::{Request, Response, Status, Streaming};

/// What a collector got.
#[derive(Debug)]
enum Got {
    Logs(Box<StreamAccessLogsMessage>),
    Records(ExportLogsServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Spans(ExportTraceServiceRequest),
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(Got::Spans(request.into_inner())).unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.send(Got::Metrics(request.into_inner())).unwrap();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[derive(Clone)]
struct Collector(Sender<Got>);

#[tonic::async_trait]
impl AccessLogService for Collector {
    async fn stream_access_logs(
        &self,
        request: Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Result<Response<StreamAccessLogsResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(message) = stream.message().await? {
            self.0.send(Got::Logs(Box::new(message))).unwrap();
        }
        Ok(Response::new(StreamAccessLogsResponse {}))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.send(Got::Records(request.into_inner())).unwrap();
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

/// A collector on this port, on a thread of its own; ends when what is given back is dropped.
fn collector(port: u16) -> (Receiver<Got>, tokio::sync::oneshot::Sender<()>) {
    let (sender, got) = channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let serving = tonic::transport::Server::builder()
            .add_service(AccessLogServiceServer::new(Collector(sender.clone())))
            .add_service(LogsServiceServer::new(Collector(sender.clone())))
            .add_service(MetricsServiceServer::new(Collector(sender.clone())))
            .add_service(TraceServiceServer::new(Collector(sender)))
            .serve_with_shutdown(([127, 0, 0, 1], port).into(), async {
                drop(stopped.await);
            });
        runtime.block_on(async {
            // streams of clients would hold a graceful end up
            let _ended = tokio::time::timeout(Duration::from_secs(60), serving).await;
        });
        runtime.shutdown_background();
    });
    (got, stop)
}

fn h2(cluster: &str) -> String {
    cluster.replace("type: STATIC", "type: STATIC, http2_protocol_options: {}")
}

fn app() -> u16 {
    upstream(|mut stream: TcpStream| {
        read_head(&mut stream);
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nx-app: yes\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"));
    })
}

fn get(port: u16, path: &str) -> String {
    let mut stream = connect(port);
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\nuser-agent: t\r\nx-user: jo\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn entries(got: &Receiver<Got>) -> (StreamAccessLogsMessage, Vec<HttpAccessLogEntry>) {
    match got.recv_timeout(Duration::from_secs(20)).unwrap() {
        Got::Logs(message) => match message.log_entries.clone() {
            Some(LogEntries::HttpLogs(logs)) => (*message, logs.log_entry),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

const GRPC: &str = "type.googleapis.com/envoy.extensions.access_loggers";

// spec: MX-95, MX-107, MX-118, AL-1, OB-9
#[test]
fn requests_are_told_to_a_log_service_with_the_reason_of_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let (port, service, down) = (free_port(), free_port(), free_port());
    let (got, _stop) = collector(service);
    let log = format!(
        "access_log: [{{name: als, typed_config: {{'@type': {GRPC}.grpc.v3.HttpGrpcAccessLogConfig, \
         additional_request_headers_to_log: [x-user], additional_response_headers_to_log: [x-app], \
         common_config: {{log_name: ferromesh, transport_api_version: V3, grpc_service: {{envoy_grpc: {{cluster_name: als}}}}, \
         custom_tags: [{{tag: env, literal: {{value: test}}}}, {{tag: user, request_header: {{name: x-user}}}}]}}}}}}],"
    );
    let origin = "metadata: {filter_metadata: {istio: {config: /apis/networking.istio.io/v1/namespaces/shop/virtual-service/front}}}";
    let routes = format!(
        "{{name: ok, match: {{prefix: /ok}}, route: {{cluster: up}}}}, {{name: down, match: {{prefix: /down}}, {origin}, route: {{cluster: down}}}}"
    );
    let chain = format!("{{filters: [{}]}}", http(&routes, &log));
    let clusters = [cluster("up", &[app()]), cluster("down", &[down]), h2(&cluster("als", &[service]))].concat();
    let yaml = format!("  - {}\n  clusters:\n{clusters}", listener("l", port, "", &chain));
    let arguments =
        ["--service-node", "sidecar~10.0.0.1~v1.shop~shop.svc.cluster.local", "--service-cluster", "v1.shop"];
    let proxy = Proxy::launch(directory.path(), &format!("static_resources:\n  listeners:\n{yaml}"), &arguments, &[]);
    assert!(get(port, "/ok?q=1").starts_with("HTTP/1.1 200"));
    assert!(get(port, "/down").starts_with("HTTP/1.1 503"));
    let (message, first) = entries(&got);
    let identifier = message.identifier.unwrap();
    assert_eq!(identifier.node.unwrap().id, "sidecar~10.0.0.1~v1.shop~shop.svc.cluster.local");
    assert_eq!(identifier.log_name, "ferromesh");
    let all = if first.len() == 2 { first } else { [first, entries(&got).1].concat() };
    let (ok, down) = (&all[0], &all[1]);
    let (request, response) = (ok.request.as_ref().unwrap(), ok.response.as_ref().unwrap());
    assert_eq!((request.path.as_str(), request.authority.as_str()), ("/ok?q=1", "shop.test"));
    assert_eq!((request.user_agent.as_str(), request.request_headers["x-user"].as_str()), ("t", "jo"));
    assert_eq!((response.response_code.unwrap().value, response.response_body_bytes), (200, 2));
    assert_eq!(response.response_headers["x-app"], "yes");
    let common = ok.common_properties.as_ref().unwrap();
    assert_eq!((common.upstream_cluster.as_str(), common.route_name.as_str()), ("up", "ok"));
    assert_eq!((common.custom_tags["env"].as_str(), common.custom_tags["user"].as_str()), ("test", "jo"));
    assert_eq!(common.custom_tags.len(), 2, "nothing went wrong: no reason");
    assert!(common.duration.is_some() && common.upstream_remote_address.is_some() && common.start_time.is_some());
    let common = down.common_properties.as_ref().unwrap();
    assert!(common.response_flags.unwrap().upstream_connection_failure);
    let tag = |name: &str| common.custom_tags[&format!("ferromesh.{name}")].clone();
    assert_eq!((tag("side").as_str(), tag("object").as_str()), ("network", "VirtualService/shop/front"));
    assert!(tag("peer").starts_with("127.0.0.1:") && tag("why").contains("refused the connection"));
    get(port, "/ok");
    assert!(entries(&got).0.identifier.is_none(), "who sends is said once a stream");
    proxy.quit();
}

// spec: MX-118
#[test]
fn a_log_service_that_is_away_costs_entries_and_no_request() {
    let directory = tempfile::tempdir().unwrap();
    let (port, service) = (free_port(), free_port());
    let log = format!(
        "access_log: [{{name: als, typed_config: {{'@type': {GRPC}.grpc.v3.HttpGrpcAccessLogConfig, common_config: \
         {{log_name: x, buffer_flush_interval: 0.05s, grpc_service: {{envoy_grpc: {{cluster_name: als}}}}}}}}}}],"
    );
    let chain = format!("{{filters: [{}]}}", http("{match: {prefix: /}, route: {cluster: up}}", &log));
    let clusters = [cluster("up", &[app()]), h2(&cluster("als", &[service]))].concat();
    let yaml = format!("  - {}\n  clusters:\n{clusters}", listener("l", port, "", &chain));
    let proxy = Proxy::start(directory.path(), &yaml);
    let dropped = |proxy: &Proxy| {
        let stats = proxy.admin("GET", "/stats?filter=grpc_access_log").unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("access_logs.grpc_access_log.logs_dropped: "));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    for _ in 0..5 {
        assert!(get(port, "/").starts_with("HTTP/1.1 200"));
    }
    proxy.until(|proxy| {
        get(port, "/");
        dropped(proxy) > 0
    });
    let (got, _stop) = collector(service);
    proxy.until(|_| {
        get(port, "/");
        got.try_recv().is_ok()
    });
    proxy.quit();
}

// spec: MX-95, MX-99, OB-9
#[test]
fn connections_go_to_a_log_service_and_records_to_a_collector() {
    let directory = tempfile::tempdir().unwrap();
    let (port, plain, service) = (free_port(), free_port(), free_port());
    let (got, _stop) = collector(service);
    let common = "log_name: x, grpc_service: {envoy_grpc: {cluster_name: als}}";
    let connections = format!(
        "cluster: up, access_log: [{{name: als, typed_config: {{'@type': {GRPC}.grpc.v3.TcpGrpcAccessLogConfig, common_config: {{{common}}}}}}}]"
    );
    let records = format!(
        "access_log: [{{name: otel, typed_config: {{'@type': {GRPC}.open_telemetry.v3.OpenTelemetryAccessLogConfig, \
         common_config: {{{common}}}, body: {{string_value: '%REQ(:METHOD)% %RESPONSE_CODE%'}}, \
         attributes: {{values: [{{key: path, value: {{string_value: '%REQ(:PATH)%'}}}}]}}}}}}],"
    );
    let first = listener("t", plain, "", &format!("{{filters: [{}]}}", tcp(&connections)));
    let second = listener(
        "l",
        port,
        "",
        &format!("{{filters: [{}]}}", http("{match: {prefix: /}, route: {cluster: up}}", &records)),
    );
    let clusters = [cluster("up", &[app()]), h2(&cluster("als", &[service]))].concat();
    let proxy = Proxy::start(directory.path(), &format!("  - {first}\n  - {second}\n  clusters:\n{clusters}"));
    assert!(get(plain, "/").ends_with("hi"));
    match got.recv_timeout(Duration::from_secs(20)).unwrap() {
        Got::Logs(message) => {
            let Some(LogEntries::TcpLogs(logs)) = message.log_entries else { panic!("{message:?}") };
            let bytes = logs.log_entry[0].connection_properties.unwrap();
            assert!(bytes.sent_bytes > 40 && bytes.received_bytes > 40, "{bytes:?}");
        }
        other => panic!("{other:?}"),
    }
    assert!(get(port, "/p").ends_with("hi"));
    match got.recv_timeout(Duration::from_secs(20)).unwrap() {
        Got::Records(request) => {
            let of_resource = &request.resource_logs[0];
            assert_eq!(of_resource.resource.as_ref().unwrap().attributes[0].key, "log_name");
            let record = format!("{:?}", of_resource.scope_logs[0].log_records[0]);
            assert!(record.contains("GET 200") && record.contains("/p"), "{record}");
        }
        other => panic!("{other:?}"),
    }
    proxy.quit();
}

/// The running total of each metric, over all its series.
fn totals(request: &ExportMetricsServiceRequest) -> BTreeMap<String, i64> {
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let value = |value: &Option<Value>| match value {
        Some(Value::AsInt(value)) => *value,
        _ => 0,
    };
    let total = |data: &Data| match data {
        Data::Sum(sum) => sum.data_points.iter().map(|point| value(&point.value)).sum(),
        Data::Histogram(histogram) => histogram.data_points.iter().map(|point| point.count.cast_signed()).sum(),
        _ => 0,
    };
    metrics.iter().map(|metric| (metric.name.clone(), total(metric.data.as_ref().unwrap()))).collect()
}

fn metrics(got: &Receiver<Got>) -> ExportMetricsServiceRequest {
    match got.recv_timeout(Duration::from_secs(20)).unwrap() {
        Got::Metrics(request) => request,
        other => panic!("{other:?}"),
    }
}

// spec: MX-99
#[test]
fn metrics_go_to_a_collector_as_running_totals_of_what_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let (port, service) = (free_port(), free_port());
    let (got, _stop) = collector(service);
    let stats = "{name: istio.stats, typed_config: {'@type': type.googleapis.com/stats.PluginConfig}}";
    let chain = http("{match: {prefix: /}, route: {cluster: up}}", "")
        .replace("http_filters: [", &format!("http_filters: [{stats}, "));
    let clusters = [cluster("up", &[app()]), h2(&cluster("mixer", &[service]))].concat();
    let sink = "stats_flush_interval: 0.2s\nstats_sinks: [{name: s, typed_config: {'@type': \
                type.googleapis.com/envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig, \
                grpc_service: {envoy_grpc: {cluster_name: mixer}}}}]";
    let listeners = listener("l", port, "", &format!("{{filters: [{chain}]}}"));
    let yaml = format!("{sink}\nstatic_resources:\n  listeners:\n  - {listeners}\n  clusters:\n{clusters}");
    let arguments =
        ["--service-node", "sidecar~10.0.0.1~v1.shop~shop.svc.cluster.local", "--service-cluster", "v1.shop"];
    let proxy = Proxy::launch(directory.path(), &yaml, &arguments, &[]);
    let requests = |wanted: i64| loop {
        let report = metrics(&got);
        if totals(&report).get("istio_requests_total") == Some(&wanted) {
            break report;
        }
    };
    get(port, "/");
    let report = requests(1);
    let about = format!("{:?}", report.resource_metrics[0].resource);
    assert!(about.contains("service.instance.id") && about.contains("sidecar~10.0.0.1~v1.shop"), "{about}");
    let all = totals(&report);
    assert_eq!(
        (all["istio_request_duration_milliseconds"], all["cluster.upstream_rq_total"] >= 1),
        (1, true),
        "{all:?}"
    );
    get(port, "/");
    get(port, "/");
    requests(3);
    let again = std::iter::from_fn(|| got.recv_timeout(Duration::from_secs(1)).ok()).take(3);
    let told =
        again.filter(|got| matches!(got, Got::Metrics(report) if totals(report).contains_key("istio_requests_total")));
    assert!(told.count() < 3, "a series that has not changed is not told again");
    get(port, "/");
    proxy.quit();
    let last = std::iter::from_fn(|| got.recv_timeout(Duration::from_millis(500)).ok()).filter_map(|got| match got {
        Got::Metrics(report) => totals(&report).get("istio_requests_total").copied(),
        _ => None,
    });
    assert_eq!(last.last(), Some(4), "the last report is made before the process ends");
}

// spec: MX-99, F4
#[test]
fn a_collector_whose_cluster_comes_later_learns_all_that_was_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (port, service, cds) = (free_port(), free_port(), directory.path().join("cds.yaml"));
    let (got, _stop) = collector(service);
    let publish = |version: u32, clusters: &str| {
        let new = directory.path().join("new");
        let clusters = clusters.replacen("- {", "- {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, ", 1);
        std::fs::write(&new, format!("version_info: '{version}'\nresources: {clusters}\n")).unwrap();
        std::fs::rename(new, &cds).unwrap();
    };
    publish(1, "[]");
    let stats = "{name: istio.stats, typed_config: {'@type': type.googleapis.com/stats.PluginConfig}}";
    let chain = http("{match: {prefix: /}, route: {cluster: up}}", "")
        .replace("http_filters: [", &format!("http_filters: [{stats}, "));
    let listeners = listener("l", port, "", &format!("{{filters: [{chain}]}}"));
    let yaml = format!(
        "node: {{id: one, cluster: c}}\nstats_flush_interval: 0.1s\nstats_sinks: [{{name: s, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig, \
         grpc_service: {{envoy_grpc: {{cluster_name: mixer}}}}}}}}]\n\
         dynamic_resources: {{cds_config: {{path_config_source: {{path: {}}}}}}}\n\
         static_resources:\n  listeners:\n  - {listeners}\n  clusters:\n{}",
        cds.display(),
        cluster("up", &[app()])
    );
    let _proxy = Proxy::launch(directory.path(), &yaml, &[], &[]);
    get(port, "/");
    get(port, "/");
    assert!(got.recv_timeout(Duration::from_secs(1)).is_err(), "there is nobody to tell, and requests are served");
    publish(2, &format!("\n{}", h2(&cluster("mixer", &[service]))));
    while totals(&metrics(&got)).get("istio_requests_total") != Some(&2) {}
}

/// An application that sends on the heads that it gets.
fn listening() -> (u16, Receiver<String>) {
    let (heads, got) = channel();
    let port = upstream(move |mut stream: TcpStream| {
        heads.send(read_head(&mut stream)).unwrap();
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi"));
    });
    (port, got)
}

fn value(head: &str, name: &str) -> Option<String> {
    let found = head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.to_owned())
}

/// Two sidecars in one process: the client's and the server's, and an application behind them.
fn two_hops(tracing: &str, app: u16) -> (u16, String) {
    let (outbound, inbound) = (free_port(), free_port());
    let tracing = format!("tracing: {{random_sampling: {{value: 100}}, {tracing}}},");
    let route = |cluster: &str| {
        format!(
            "{{match: {{prefix: /}}, decorator: {{operation: '{cluster}.shop:80/*'}}, route: {{cluster: {cluster}}}}}"
        )
    };
    let side = |name: &str, port: u16, direction: &str, cluster: &str| {
        let chain = format!("{{filters: [{}]}}", http(&route(cluster), &tracing));
        listener(name, port, &format!("traffic_direction: {direction},"), &chain)
    };
    let (first, second) = (side("out", outbound, "OUTBOUND", "in"), side("in", inbound, "INBOUND", "app"));
    let clusters = [cluster("in", &[inbound]), cluster("app", &[app])].concat();
    (outbound, format!("  - {first}\n  - {second}\n  clusters:\n{clusters}"))
}

// spec: TR-1, TR-2, TR-3, TR-4
#[test]
fn spans_go_to_zipkin_and_the_next_hop_is_told_of_the_trace() {
    let directory = tempfile::tempdir().unwrap();
    let (spans, got) = channel();
    let zipkin = upstream(move |mut stream: TcpStream| {
        let head = read_head(&mut stream);
        let mut body = vec![0; value(&head, "content-length").unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        drop(stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        let list: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        assert!(head.starts_with("POST /api/v2/spans HTTP/1.1\r\n"), "{head}");
        list.into_iter().for_each(|span| spans.send(span).unwrap());
    });
    let (app, heads) = listening();
    let tracer = "provider: {name: z, typed_config: {'@type': type.googleapis.com/envoy.config.trace.v3.ZipkinConfig, \
                  collector_cluster: zipkin, collector_endpoint: /api/v2/spans, collector_endpoint_version: HTTP_JSON, \
                  trace_id_128bit: true, shared_span_context: false}}, \
                  custom_tags: [{tag: user, request_header: {name: x-user}}, {tag: mesh, literal: {value: m}}]";
    let (port, yaml) = two_hops(tracer, app);
    let yaml = format!("{yaml}{}", cluster("zipkin", &[zipkin]));
    let arguments =
        ["--service-node", "sidecar~10.0.0.1~v1.shop~shop.svc.cluster.local", "--service-cluster", "v1.shop"];
    let proxy = Proxy::launch(directory.path(), &format!("static_resources:\n  listeners:\n{yaml}"), &arguments, &[]);
    let answer = get(port, "/a?b=1");
    assert_eq!(value(&answer, "x-envoy-decorator-operation"), None, "{answer}");
    let head = heads.recv_timeout(Duration::from_secs(20)).unwrap();
    let mut all: Vec<serde_json::Value> = (0..2).map(|_| got.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
    all.sort_by_key(|span| span["kind"].as_str().map(str::to_owned));
    let (client, server) = (&all[0], &all[1]);
    assert_eq!((client["kind"].as_str(), server["kind"].as_str()), (Some("CLIENT"), Some("SERVER")));
    assert_eq!((client["traceId"].as_str().unwrap().len(), &client["traceId"]), (32, &server["traceId"]));
    assert_eq!((&server["parentId"], client.get("parentId")), (&client["id"], None));
    assert_eq!(value(&head, "x-b3-traceid").as_deref(), client["traceId"].as_str());
    assert_eq!(value(&head, "x-b3-spanid").as_deref(), server["id"].as_str());
    assert_eq!(
        (value(&head, "x-b3-sampled").as_deref(), value(&head, "x-b3-parentspanid").as_deref()),
        (Some("1"), client["id"].as_str())
    );
    assert_eq!(
        (&client["name"], &server["name"]),
        (&"in.shop:80/*".into(), &"in.shop:80/*".into()),
        "one name for both"
    );
    assert_eq!(server["localEndpoint"]["serviceName"], "v1.shop");
    let tags = &server["tags"];
    let expected = [
        ("http.method", "GET"),
        ("http.url", "http://shop.test/a?b=1"),
        ("http.status_code", "200"),
        ("http.protocol", "HTTP/1.1"),
        ("user_agent", "t"),
        ("user", "jo"),
        ("mesh", "m"),
        ("upstream_cluster", "app"),
        ("response_flags", "-"),
        ("component", "proxy"),
        ("peer.address", "127.0.0.1"),
        ("response_size", "2"),
        ("node_id", "sidecar~10.0.0.1~v1.shop~shop.svc.cluster.local"),
    ];
    for (key, value) in expected {
        assert_eq!(tags[key], value, "{key}: {tags}");
    }
    assert_eq!(tags["guid:x-request-id"].as_str().unwrap().as_bytes()[14], b'9', "the id says that it is sampled");
    assert!(tags.get("error").is_none());
    proxy.quit();
}

// spec: TR-1, TR-4
#[test]
fn spans_go_to_an_otlp_collector_and_a_parents_decision_counts() {
    let directory = tempfile::tempdir().unwrap();
    let service = free_port();
    let (got, _stop) = collector(service);
    let (app, heads) = listening();
    let tracer = "spawn_upstream_span: true, provider: {name: o, typed_config: {'@type': \
                  type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: shop, \
                  grpc_service: {envoy_grpc: {cluster_name: otel}}}}";
    let (port, yaml) = two_hops(tracer, app);
    let proxy = Proxy::start(directory.path(), &format!("{yaml}{}", h2(&cluster("otel", &[service]))));
    let ask = |flags: &str| {
        let mut stream = connect(port);
        let parent = format!("00-{}-00f067aa0ba902b7-{flags}", "4bf92f3577b34da6a3ce929d0e0e4736");
        let head = format!(
            "GET / HTTP/1.1\r\nhost: a\r\ntraceparent: {parent}\r\ntracestate: v=1\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.read_to_string(&mut String::new()).unwrap();
        heads.recv_timeout(Duration::from_secs(20)).unwrap()
    };
    let unsampled = ask("00");
    assert!(value(&unsampled, "traceparent").unwrap().ends_with("-00"), "{unsampled}");
    let sampled = ask("01");
    let told = value(&sampled, "traceparent").unwrap();
    assert!(told.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && told.ends_with("-01"), "{told}");
    assert_eq!(value(&sampled, "tracestate").as_deref(), Some("v=1"));
    let mut spans = Vec::new();
    while spans.len() < 4 {
        if let Got::Spans(request) = got.recv_timeout(Duration::from_secs(20)).unwrap() {
            let of_resource = &request.resource_spans[0];
            assert!(format!("{:?}", of_resource.resource).contains("shop"));
            spans.extend(of_resource.scope_spans[0].spans.clone());
        }
    }
    assert_eq!(spans.len(), 4, "two hops and a try of each; nothing of the request that is not sampled");
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let by_id = |id: &[u8]| spans.iter().find(|span| span.span_id == id);
    let last = spans.iter().find(|span| told.contains(&hex(&span.span_id))).unwrap();
    assert_eq!(last.name, "router app egress");
    let server = by_id(&last.parent_span_id).unwrap();
    let first_try = by_id(&server.parent_span_id).unwrap();
    let client = by_id(&first_try.parent_span_id).unwrap();
    assert_eq!(hex(&client.parent_span_id), "00f067aa0ba902b7");
    assert_eq!((first_try.name.as_str(), client.name.as_str()), ("router in egress", "in.shop:80/*"));
    proxy.quit();
}
