//! A real Prometheus scrapes mixer; what Istio's dashboards and Kiali ask for has answers (OB-1, OB-5, OB-10).
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

mod support;

use proto::otlp::metrics::Metric;
use proto::otlp::metrics_service::metrics_service_client::MetricsServiceClient;
use serde_json::Value;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{Call, attribute, counter, get, histogram, labels, report, start};
use tokio::process::{Child, Command};

/// What each panel asks, in our words: the same families, labels and functions. `{S}` selects the service, `{W}` the
/// workload, `{C}` its clients; `{T}` is the time that rates are taken over.
const PANELS: &[(&str, &str)] = &[
    // Mesh
    ("mesh: traffic", r#"round(sum(rate(istio_requests_total{reporter=~"source|waypoint"}[{T}])), 0.01)"#),
    (
        "mesh: success rate",
        r#"sum(rate(istio_requests_total{reporter=~"source|waypoint",response_code!~"5.."}[{T}])) / sum(rate(istio_requests_total{reporter=~"source|waypoint"}[{T}]))"#,
    ),
    (
        "mesh: 4xx",
        r#"round(sum(rate(istio_requests_total{reporter=~"source|waypoint",response_code=~"4.."}[{T}])), 0.01)"#,
    ),
    (
        "mesh: 5xx",
        r#"round(sum(rate(istio_requests_total{reporter=~"source|waypoint",response_code=~"5.."}[{T}])), 0.01)"#,
    ),
    (
        "mesh: HTTP workloads, requests",
        r#"label_join(sum by (destination_workload, destination_workload_namespace, destination_service) (rate(istio_requests_total{reporter=~"source|waypoint"}[{T}])), "v", ".", "destination_workload", "destination_workload_namespace")"#,
    ),
    (
        "mesh: HTTP workloads, quantiles",
        r#"histogram_quantile(0.99, sum by (le, destination_workload, destination_workload_namespace) (rate(istio_request_duration_milliseconds_bucket{reporter=~"source|waypoint"}[{T}])))"#,
    ),
    (
        "mesh: TCP workloads, received",
        r#"sum by (destination_workload, destination_workload_namespace, destination_service) (rate(istio_tcp_received_bytes_total{reporter=~"source|waypoint"}[{T}]))"#,
    ),
    (
        "mesh: TCP workloads, sent",
        r#"sum by (destination_workload, destination_workload_namespace, destination_service) (rate(istio_tcp_sent_bytes_total{reporter=~"source|waypoint"}[{T}]))"#,
    ),
    ("mesh: versions", "sum by (component, tag) (istio_build)"),
    // Service
    ("service: client volume", r#"round(sum(irate(istio_requests_total{reporter=~"source",{S}}[{T}])), 0.001)"#),
    (
        "service: client success",
        r#"sum(irate(istio_requests_total{reporter=~"source",{S},response_code!~"5.*"}[{T}])) / sum(irate(istio_requests_total{reporter=~"source",{S}}[{T}]))"#,
    ),
    (
        "service: client duration",
        r#"histogram_quantile(0.50, sum(irate(istio_request_duration_milliseconds_bucket{reporter=~"source",{S}}[{T}])) by (le))"#,
    ),
    ("service: received", r#"sum(irate(istio_tcp_received_bytes_total{reporter=~"source",{S}}[{T}]))"#),
    ("service: server volume", r#"round(sum(irate(istio_requests_total{reporter="destination",{S}}[{T}])), 0.001)"#),
    (
        "service: server duration",
        r#"histogram_quantile(0.99, sum(irate(istio_request_duration_milliseconds_bucket{reporter="destination",{S}}[{T}])) by (le))"#,
    ),
    ("service: sent", r#"sum(irate(istio_tcp_sent_bytes_total{reporter=~"source",{S}}[{T}]))"#),
    (
        "service: by source and code, mTLS",
        r#"round(sum(irate(istio_requests_total{connection_security_policy="mutual_tls",{S},{C},reporter="destination"}[{T}])) by (source_workload, source_workload_namespace, response_code), 0.001)"#,
    ),
    (
        "service: by source and code, no mTLS",
        r#"round(sum(irate(istio_requests_total{connection_security_policy!="mutual_tls",{S},{C},reporter="source"}[{T}])) by (source_workload, source_workload_namespace, response_code, response_flags), 0.001)"#,
    ),
    (
        "service: duration by source",
        r#"histogram_quantile(0.90, sum(irate(istio_request_duration_milliseconds_bucket{reporter="destination",connection_security_policy="mutual_tls",{S},{C}}[{T}])) by (source_workload, source_workload_namespace, le))"#,
    ),
    (
        "service: request size by source",
        r#"histogram_quantile(0.95, sum(irate(istio_request_bytes_bucket{reporter="destination",{S},{C}}[{T}])) by (source_workload, source_workload_namespace, le))"#,
    ),
    (
        "service: response size by source",
        r#"histogram_quantile(0.95, sum(irate(istio_response_bytes_bucket{reporter="destination",{S},{C}}[{T}])) by (source_workload, source_workload_namespace, le))"#,
    ),
    (
        "service: TCP from sources",
        r#"round(sum(irate(istio_tcp_received_bytes_total{reporter="destination",connection_security_policy="mutual_tls",{S},{C}}[{T}])) by (source_workload, source_workload_namespace), 0.001)"#,
    ),
    (
        "service: by destination workload and code",
        r#"round(sum(irate(istio_requests_total{reporter="destination",{S},{W}}[{T}])) by (destination_workload, destination_workload_namespace, response_code), 0.001)"#,
    ),
    (
        "service: response size by destination workload",
        r#"histogram_quantile(0.50, sum(irate(istio_response_bytes_bucket{reporter="destination",{S},{W}}[{T}])) by (destination_workload, destination_workload_namespace, le))"#,
    ),
    // Workload
    ("workload: incoming volume", r#"round(sum(irate(istio_requests_total{reporter="destination",{W}}[{T}])), 0.001)"#),
    (
        "workload: incoming success",
        r#"sum(irate(istio_requests_total{reporter="destination",{W},response_code!~"5.*"}[{T}])) / sum(irate(istio_requests_total{reporter="destination",{W}}[{T}]))"#,
    ),
    (
        "workload: duration",
        r#"histogram_quantile(0.50, sum(irate(istio_request_duration_milliseconds_bucket{reporter="destination",{W}}[{T}])) by (le))"#,
    ),
    (
        "workload: TCP server traffic",
        r#"sum(irate(istio_tcp_sent_bytes_total{reporter="destination",{W}}[{T}])) + sum(irate(istio_tcp_received_bytes_total{reporter="destination",{W}}[{T}]))"#,
    ),
    (
        "workload: outgoing by destination and code",
        r#"round(sum(irate(istio_requests_total{{C},reporter="source"}[{T}])) by (destination_service, response_code), 0.001)"#,
    ),
    (
        "workload: outgoing duration",
        r#"histogram_quantile(0.99, sum(irate(istio_request_duration_milliseconds_bucket{{C},reporter="source"}[{T}])) by (destination_service, le))"#,
    ),
    (
        "workload: outgoing TCP",
        r#"round(sum(irate(istio_tcp_sent_bytes_total{{C},reporter="source"}[{T}])) by (destination_service), 0.001)"#,
    ),
    // Kiali's graph
    (
        "kiali: HTTP edges",
        r#"sum(rate(istio_requests_total{reporter="source",source_workload_namespace="shop"}[{T}])) by (source_cluster,source_workload_namespace,source_workload,source_canonical_service,source_canonical_revision,destination_cluster,destination_service_namespace,destination_service,destination_service_name,destination_workload_namespace,destination_workload,destination_canonical_service,destination_canonical_revision,request_protocol,response_code,grpc_response_status,response_flags) > 0"#,
    ),
    (
        "kiali: mTLS",
        r#"sum(rate(istio_requests_total{reporter="destination",connection_security_policy="mutual_tls"}[{T}])) by (source_workload_namespace,source_workload,source_principal,destination_principal,destination_service_name,connection_security_policy) > 0"#,
    ),
    (
        "kiali: TCP edges",
        r#"sum(rate(istio_tcp_connections_opened_total{reporter="source"}[{T}])) by (source_workload,destination_service_name) + sum(rate(istio_tcp_connections_closed_total{reporter="source"}[{T}])) by (source_workload,destination_service_name) > 0"#,
    ),
    (
        "kiali: gRPC messages",
        r#"sum(rate(istio_request_messages_total[{T}])) by (destination_service_name) + sum(rate(istio_response_messages_total[{T}])) by (destination_service_name) > 0"#,
    ),
];

struct Prometheus {
    process: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    async fn start(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- {{job_name: mixer, static_configs: [{{targets: ['{target}']}}]}}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let process = command.spawn().expect("prometheus: run `make setup`, or apt-get install prometheus");
        let start = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "prometheus does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        while !get(address, "/-/ready").await.0.is_success() {
            assert!(start.elapsed() < Duration::from_secs(20), "prometheus does not get ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { process, address, _directory: directory }
    }

    /// Values of the answer.
    async fn ask(&self, query: &str) -> Vec<f64> {
        let query = percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
        let (_, text) = get(self.address, &format!("/api/v1/query?query={query}")).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], "success", "{text}");
        let values = answer["data"]["result"].as_array().unwrap().iter();
        values.map(|one| one["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }
}

/// All families of a call, from both ends.
fn metrics(second: u64) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for reporter in ["source", "destination"] {
        for (code, rate) in [("200", 90), ("404", 6), ("503", 4)] {
            let of = || labels(Call { reporter, source: ("productpage", "v1"), destination: ("reviews", "v1"), code });
            metrics.push(counter("istio_requests_total", of(), rate * second));
            metrics.push(histogram("istio_request_duration_milliseconds", of(), rate * second, 7.));
            metrics.push(histogram("istio_request_bytes", of(), rate * second, 300.));
            metrics.push(histogram("istio_response_bytes", of(), rate * second, 3000.));
        }
        let mut tcp =
            labels(Call { reporter, source: ("productpage", "v1"), destination: ("reviews", "v1"), code: "0" });
        tcp.retain(|label| label.key != "request_protocol");
        tcp.push(attribute("request_protocol", "tcp"));
        for (name, rate) in
            [("sent_bytes", 1000), ("received_bytes", 500), ("connections_opened", 2), ("connections_closed", 1)]
        {
            metrics.push(counter(&format!("istio_tcp_{name}_total"), tcp.clone(), rate * second));
        }
        for name in ["istio_request_messages_total", "istio_response_messages_total"] {
            let of =
                labels(Call { reporter, source: ("productpage", "v1"), destination: ("reviews", "v1"), code: "200" });
            metrics.push(counter(name, of, 30 * second));
        }
    }
    metrics
}

// spec: MX-102, OB-1, OB-5, OB-10
#[tokio::test]
async fn every_panel_has_data() {
    let mixer = start(&[]).await;
    let mut client = MetricsServiceClient::connect(format!("http://{}", mixer.grpc.unwrap())).await.unwrap();
    let mut prometheus = Prometheus::start(mixer.monitoring.unwrap()).await;
    let feeding = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        for second in 0_u64.. {
            tick.tick().await;
            client.export(report("proxy", metrics(second))).await.unwrap();
        }
    });
    let start = Instant::now();
    let traffic = r#"sum(rate(istio_requests_total{reporter="source"}[8s]))"#;
    while prometheus.ask(traffic).await.first().is_none_or(|rate| (rate - 100.).abs() > 15.) {
        assert!(start.elapsed() < Duration::from_secs(40), "{:?}", prometheus.ask(traffic).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut empty = Vec::new();
    for (panel, query) in PANELS {
        let query = query
            .replace("{S}", r#"destination_service=~"reviews.shop.svc.cluster.local""#)
            .replace("{W}", r#"destination_workload=~"reviews-v1",destination_workload_namespace=~"shop""#)
            .replace("{C}", r#"source_workload=~"productpage-v1",source_workload_namespace=~"shop""#)
            .replace("{T}", "8s");
        let values = prometheus.ask(&query).await;
        println!("{panel}: {values:?}");
        if values.is_empty() || !values.iter().all(|value| value.is_finite() && *value > 0.) {
            empty.push((panel, query, values));
        }
    }
    assert!(empty.is_empty(), "{empty:#?}");
    assert_eq!(prometheus.ask("up").await, [1.]);
    feeding.abort();
    prometheus.process.kill().await.unwrap();
}
