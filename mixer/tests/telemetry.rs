//! mixer's telemetry over real sockets: what clients send, and what comes out.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

mod support;

use axum::body::Bytes;
use axum::http::{Request, StatusCode};
use http_body_util::Full;
use prost::Message as _;
use proto::envoy::accesslog_service::StreamAccessLogsMessage;
use proto::envoy::accesslog_service::access_log_service_client::AccessLogServiceClient;
use proto::envoy::accesslog_service::stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries};
use proto::envoy::core::Node;
use proto::envoy::log_entry::{
    AccessLogCommon, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties, ResponseFlags,
};
use proto::envoy::wkt;
use proto::otlp::logs::{LogRecord, ResourceLogs, ScopeLogs};
use proto::otlp::logs_service::ExportLogsServiceRequest;
use proto::otlp::metrics_service::metrics_service_client::MetricsServiceClient;
use proto::otlp::metrics_service::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use proto::otlp::trace::{ResourceSpans, ScopeSpans, Span};
use proto::otlp::trace_service::ExportTraceServiceRequest;
use proto::otlp::trace_service::trace_service_client::TraceServiceClient;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;
use support::{Call, attribute, counter, get, histogram, http, labels, report, start, until};

const CALL: Call<'_> =
    Call { reporter: "destination", source: ("productpage", "v1"), destination: ("reviews", "v2"), code: "200" };

async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (StatusCode, String) {
    let mut request = Request::post(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    http(request.body(Full::new(Bytes::from(body))).unwrap()).await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

// spec: MX-99, MX-102, OB-1
#[tokio::test]
async fn istios_families_come_out_merged_over_proxies() {
    let mixer = start(&[]).await;
    let metrics = |total| {
        vec![
            counter("istio_requests_total", labels(CALL), total),
            histogram("istio_request_duration_milliseconds", labels(CALL), total, 20.),
            histogram("istio_request_bytes", labels(CALL), total, 300.),
            histogram("istio_response_bytes", labels(CALL), total, 3000.),
            counter("istio_request_messages_total", labels(CALL), total),
            counter("istio_response_messages_total", labels(CALL), total),
            counter("istio_tcp_sent_bytes_total", labels(CALL), total),
            counter("istio_tcp_received_bytes_total", labels(CALL), total),
            counter("istio_tcp_connections_opened_total", labels(CALL), total),
            counter("istio_tcp_connections_closed_total", labels(CALL), total),
            counter("cluster.upstream_rq_total", labels(CALL), total),
        ]
    };
    for address in [mixer.grpc.unwrap(), mixer.otlp_grpc.unwrap()] {
        let mut client = MetricsServiceClient::connect(format!("http://{address}")).await.unwrap();
        client.export(report(&format!("proxy at {address}"), metrics(100))).await.unwrap();
    }
    // A real Envoy names them so.
    let mut envoy = MetricsServiceClient::connect(format!("http://{}", mixer.grpc.unwrap())).await.unwrap();
    let named = counter("istiocustom.istio_requests_total", labels(CALL), 1);
    envoy.export(report("envoy", vec![named])).await.unwrap();

    let text = until(mixer.monitoring.unwrap(), "/metrics", |text| text.contains("istio_requests_total{")).await;
    let line = text.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap();
    assert!(line.ends_with(" 201"), "{line}");
    for label in labels(CALL) {
        assert!(line.contains(&format!("{}=\"", label.key)), "{} is missing in {line}", label.key);
    }
    assert!(text.contains("# TYPE istio_request_duration_milliseconds histogram"));
    let bucket = |bound: &str| {
        let wanted = format!("le=\"{bound}\"");
        let found =
            text.lines().find(|l| l.starts_with("istio_request_duration_milliseconds_bucket") && l.contains(&wanted));
        found.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!((bucket("10"), bucket("25"), bucket("+Inf")), ("0".into(), "200".into(), "200".into()));
    for name in [
        "istio_request_bytes_count",
        "istio_response_bytes_sum",
        "istio_request_messages_total",
        "istio_response_messages_total",
        "istio_tcp_sent_bytes_total",
        "istio_tcp_received_bytes_total",
        "istio_tcp_connections_opened_total",
        "istio_tcp_connections_closed_total",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing");
    }
    assert!(
        text.contains("mixer_report_dropped_total{kind=\"metrics\",reason=\"unknown\"} 2"),
        "what is not kept is counted"
    );
    assert!(text.contains("mixer_senders 3"));
}

// spec: MX-99
#[tokio::test]
async fn otlp_over_http_takes_protobuf_json_and_gzip() {
    let mixer = start(&[]).await;
    let address = mixer.otlp_http.unwrap();
    let message = |name: &str| report(name, vec![counter("istio_requests_total", labels(CALL), 10)]);
    let protobuf = ("content-type", "application/x-protobuf");
    let json = ("content-type", "application/json");
    let (status, answer) = post(address, "/v1/metrics", &[protobuf], message("a").encode_to_vec()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        ExportMetricsServiceResponse::decode(answer.as_bytes()).unwrap(),
        ExportMetricsServiceResponse::default()
    );
    let compressed = gzip(&message("b").encode_to_vec());
    let (status, _) = post(address, "/v1/metrics", &[protobuf, ("content-encoding", "gzip")], compressed).await;
    assert_eq!(status, StatusCode::OK);
    let text = serde_json::to_vec(&message("c")).unwrap();
    assert_eq!(post(address, "/v1/metrics", &[json], text).await.0, StatusCode::OK);

    assert_eq!(post(address, "/v1/metrics", &[protobuf], b"\xff\xff".to_vec()).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(post(address, "/v1/metrics", &[json], b"{".to_vec()).await.0, StatusCode::BAD_REQUEST);
    let bomb = gzip(&vec![0; 64 << 20]);
    let (status, _) = post(address, "/v1/metrics", &[protobuf, ("content-encoding", "gzip")], bomb).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let text = ("content-type", "text/plain");
    assert_eq!(post(address, "/v1/metrics", &[text], vec![]).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    let all = until(mixer.monitoring.unwrap(), "/metrics", |text| text.contains("istio_requests_total{")).await;
    assert!(all.lines().any(|line| line.starts_with("istio_requests_total{") && line.ends_with(" 30")));
}

fn failed(path: &str) -> HttpAccessLogEntry {
    let common = AccessLogCommon {
        upstream_cluster: "outbound|9080|v2|reviews.shop.svc.cluster.local".into(),
        response_flags: Some(ResponseFlags { no_healthy_upstream: true, ..ResponseFlags::default() }),
        route_name: "to-v2".into(),
        ..AccessLogCommon::default()
    };
    let request = HttpRequestProperties {
        request_method: 1,
        path: path.into(),
        authority: "reviews:9080".into(),
        user_agent: "say \"hi\"\nnext".into(),
        ..HttpRequestProperties::default()
    };
    let response = HttpResponseProperties {
        response_code: Some(wkt::UInt32Value { value: 503 }),
        response_code_details: "no_healthy_upstream".into(),
        ..HttpResponseProperties::default()
    };
    HttpAccessLogEntry {
        common_properties: Some(common),
        request: Some(request),
        response: Some(response),
        protocol_version: 2,
    }
}

fn entries(entries: Vec<HttpAccessLogEntry>) -> Option<LogEntries> {
    Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries }))
}

// spec: MX-95, MX-118
#[tokio::test]
async fn an_access_log_stream_is_written_out() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.log");
    let mixer = start(&["--access-log", file.to_str().unwrap()]).await;
    let mut client = AccessLogServiceClient::connect(format!("http://{}", mixer.grpc.unwrap())).await.unwrap();
    let node = Node { id: "sidecar~10.0.0.1~productpage-0.shop~shop.svc.cluster.local".into(), ..Node::default() };
    let identifier = Some(Identifier { node: Some(node), log_name: "ferromesh".into() });
    let first = StreamAccessLogsMessage { identifier, log_entries: entries(vec![failed("/one")]) };
    // Only the first message of a stream names the sender.
    let second = StreamAccessLogsMessage { identifier: None, log_entries: entries(vec![failed("/two")]) };
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    sender.send(first).await.unwrap();
    sender.send(second).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let streaming = tokio::spawn(async move { client.stream_access_logs(stream).await });
    let lines = loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.lines().count() >= 2 {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let wanted = "\"GET /one HTTP/1.1\" 503 UH no_healthy_upstream - \"-\" 0 0 0 - \"-\" \"say \\\"hi\\\"\\nnext\" \"-\" \"reviews:9080\" \
                  \"-\" outbound|9080|v2|reviews.shop.svc.cluster.local - - - - to-v2";
    assert!(lines.lines().next().unwrap().ends_with(wanted), "{lines}");
    assert!(!streaming.is_finished(), "the service answers only at the end of the stream");
    let page = until(mixer.http.unwrap(), "/failures", |text| text.contains("/two")).await;
    let said = page.matches("<dd>sidecar~10.0.0.1~productpage-0.shop~shop.svc.cluster.local</dd>").count();
    assert_eq!(said, 2, "both entries are from the sender that the first message named");
    drop(sender);
    streaming.await.unwrap().unwrap();
}

// spec: MX-99
#[tokio::test]
async fn otlp_logs_with_istios_attributes_are_access_logs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("access.json");
    let mixer = start(&["--access-log", file.to_str().unwrap(), "--access-log-format", "json"]).await;
    let pairs = [
        ("response_code", "503"),
        ("method", "GET"),
        ("path", "/x"),
        ("response_flags", "UF"),
        ("upstream_host", "10.0.0.9:80"),
    ];
    let record = LogRecord { attributes: pairs.map(|(k, v)| attribute(k, v)).into(), ..LogRecord::default() };
    let scope = ScopeLogs { log_records: vec![record, LogRecord::default()], ..ScopeLogs::default() };
    let resource_logs = vec![ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() }];
    let body = serde_json::to_vec(&ExportLogsServiceRequest { resource_logs }).unwrap();
    let (status, text) =
        post(mixer.otlp_http.unwrap(), "/v1/logs", &[("content-type", "application/json")], body).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let line = loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.ends_with('\n') {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["response_code"], &line["response_flags"], &line["path"]),
        (&503.into(), &"UF".into(), &"/x".into())
    );
    assert_eq!(line.as_object().unwrap().len(), 24, "Istio's keys, no more");
    let metrics = get(mixer.monitoring.unwrap(), "/metrics").await.1;
    assert!(metrics.contains("mixer_report_dropped_total{kind=\"logs\",reason=\"no_access_log\"} 1"));
}

// spec: MX-99, MX-101
#[tokio::test]
async fn spans_come_by_otlp_and_zipkin_and_go_on_to_another_collector() {
    // The other collector is a mixer too.
    let other = start(&[]).await;
    let mixer = start(&["--otlp-export", &format!("http://{}", other.otlp_grpc.unwrap())]).await;
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "reviews.shop".into(),
        end_time_unix_nano: 5,
        ..Span::default()
    };
    let scope = ScopeSpans { spans: vec![span], ..ScopeSpans::default() };
    let resource_spans = vec![ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() }];
    let mut client = TraceServiceClient::connect(format!("http://{}", mixer.otlp_grpc.unwrap())).await.unwrap();
    client.export(ExportTraceServiceRequest { resource_spans }).await.unwrap();
    let zipkin = r#"[{"traceId":"0123456789abcdef0123456789abcdef","id":"0123456789abcdef","kind":"SERVER","name":"get",
        "timestamp":1700000000000000,"duration":1500,"localEndpoint":{"serviceName":"reviews.shop","ipv4":"10.0.0.1"},
        "tags":{"http.status_code":"503","error":"true"}}, {"traceId":"xyz","id":"1"}]"#;
    let json = ("content-type", "application/json");
    let (status, text) = post(mixer.zipkin.unwrap(), "/api/v2/spans", &[json], zipkin.into()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{text}");
    let taken = |text: &str| text.contains("mixer_report_items_total{kind=\"spans\"} 2");
    until(mixer.monitoring.unwrap(), "/metrics", taken).await;
    until(other.monitoring.unwrap(), "/metrics", taken).await;
}

#[tokio::test]
async fn a_dead_collector_costs_spans_and_nothing_else() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mixer = start(&["--otlp-export", &format!("http://{nobody}")]).await;
    let span = r#"[{"traceId":"0123456789abcdef","id":"0123456789abcdef"}]"#;
    for _ in 0..200 {
        let json = ("content-type", "application/json");
        let (status, _) = post(mixer.zipkin.unwrap(), "/api/v2/spans", &[json], span.into()).await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }
    let dropped = |text: &str| text.contains("mixer_report_dropped_total{kind=\"export_spans\"");
    let text = until(mixer.monitoring.unwrap(), "/metrics", dropped).await;
    assert!(text.contains("mixer_report_items_total{kind=\"spans\"} 200"), "they are on the page all the same");
}

// spec: MX-102
#[tokio::test]
async fn the_families_wait_until_the_proxies_have_reported_again() {
    let mixer = start(&[]).await;
    let mut client = MetricsServiceClient::connect(format!("http://{}", mixer.grpc.unwrap())).await.unwrap();
    client.export(report("a", vec![counter("istio_requests_total", labels(CALL), 10)])).await.unwrap();
    let (_, at_once) = get(mixer.monitoring.unwrap(), "/metrics").await;
    assert!(at_once.contains("mixer_series") && !at_once.contains("istio_requests_total"));
    until(mixer.monitoring.unwrap(), "/metrics", |text| text.contains("istio_requests_total")).await;
}

#[tokio::test]
async fn a_message_with_broken_points_is_taken_in_part() {
    let mixer = start(&[]).await;
    let mut client = MetricsServiceClient::connect(format!("http://{}", mixer.grpc.unwrap())).await.unwrap();
    let mut broken = histogram("istio_request_bytes", labels(CALL), 1, 1.);
    if let Some(proto::otlp::metrics::metric::Data::Histogram(histogram)) = &mut broken.data {
        histogram.data_points[0].bucket_counts.pop();
    }
    let message: ExportMetricsServiceRequest =
        report("a", vec![broken, counter("istio_requests_total", labels(CALL), 1)]);
    let answer = client.export(message).await.unwrap().into_inner();
    assert_eq!(answer.partial_success.unwrap().rejected_data_points, 1);
}
