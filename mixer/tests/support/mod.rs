//! A mixer in this process, and clients that speak to it as proxies do.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "each test uses a part of it; a test panics to fail"
)]

pub mod browser;

use axum::body::Bytes;
use axum::http::{Request, StatusCode};
use clap::Parser;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mixer::args::ServeArgs;
use mixer::server::{Running, Server};
use proto::otlp::common::{AnyValue, KeyValue, any_value};
use proto::otlp::metrics::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    metric, number_data_point,
};
use proto::otlp::metrics_service::ExportMetricsServiceRequest;
use proto::otlp::resource::Resource;
use std::net::SocketAddr;
use std::time::Duration;

/// Istio's bounds, in milliseconds.
pub const BOUNDS: [f64; 19] = [
    0.5, 1., 5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10000., 30000., 60000., 300000., 600000.,
    1800000., 3600000.,
];

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ServeArgs,
}

/// mixer with these flags; every address that is not named is a free port.
pub async fn start(flags: &[&str]) -> Running {
    let addresses = ["grpc-addr", "http-addr", "monitoring-addr", "otlp-grpc-addr", "otlp-http-addr", "zipkin-addr"];
    let mut line = vec!["mixer".to_owned()];
    for name in addresses {
        if !flags.iter().any(|flag| flag.starts_with(&format!("--{name}"))) {
            line.push(format!("--{name}=127.0.0.1:0"));
        }
    }
    line.extend(flags.iter().map(|flag| (*flag).to_owned()));
    Server::new(Cli::parse_from(line).args, None).start().await.unwrap()
}

/// A request over HTTP: status and body.
pub async fn http(request: Request<Full<Bytes>>) -> (StatusCode, String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

pub async fn get(address: SocketAddr, path: &str) -> (StatusCode, String) {
    http(Request::get(format!("http://{address}{path}")).body(Full::default()).unwrap()).await
}

/// Asks until the answer is as wanted, at most 10 seconds.
pub async fn until(address: SocketAddr, path: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut last = String::new();
    for _ in 0..100 {
        last = get(address, path).await.1;
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{path} never became what was wanted; it is:\n{last}");
}

pub fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// The ends of a call and its outcome.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub reporter: &'a str,
    /// Service and version.
    pub source: (&'a str, &'a str),
    pub destination: (&'a str, &'a str),
    pub code: &'a str,
}

/// Istio's labels.
pub fn labels(call: Call<'_>) -> Vec<KeyValue> {
    let Call { reporter, source, destination, code } = call;
    let workload = |(app, version): (&str, &str)| {
        if app == "unknown" { app.to_owned() } else { format!("{app}-{version}") }
    };
    let (from, to) = (workload(source), workload(destination));
    let host = format!("{}.shop.svc.cluster.local", destination.0);
    let principal = |app: &str| format!("spiffe://cluster.local/ns/shop/sa/{app}");
    let security = if reporter == "destination" { "mutual_tls" } else { "unknown" };
    let pairs = [
        ("reporter", reporter),
        ("source_workload", &from),
        ("source_workload_namespace", "shop"),
        ("source_principal", &principal(source.0)),
        ("source_app", source.0),
        ("source_version", source.1),
        ("source_canonical_service", source.0),
        ("source_canonical_revision", source.1),
        ("source_cluster", "east"),
        ("destination_workload", if destination.1.is_empty() { "unknown" } else { &to }),
        ("destination_workload_namespace", if destination.1.is_empty() { "unknown" } else { "shop" }),
        ("destination_principal", &principal(destination.0)),
        ("destination_app", destination.0),
        ("destination_version", destination.1),
        ("destination_service", &host),
        ("destination_service_name", destination.0),
        ("destination_service_namespace", "shop"),
        ("destination_canonical_service", if destination.1.is_empty() { "unknown" } else { destination.0 }),
        ("destination_canonical_revision", destination.1),
        ("destination_cluster", "east"),
        ("request_protocol", "http"),
        ("response_code", code),
        ("grpc_response_status", ""),
        ("response_flags", if code.starts_with('5') { "UH" } else { "-" }),
        ("connection_security_policy", security),
    ];
    pairs.iter().map(|(key, value)| attribute(key, value)).collect()
}

/// A counter, as a running total.
pub fn counter(name: &str, labels: Vec<KeyValue>, total: u64) -> Metric {
    let point = NumberDataPoint {
        attributes: labels,
        start_time_unix_nano: 1,
        time_unix_nano: 2_000_000_000_000,
        value: Some(number_data_point::Value::AsInt(total as i64)),
        ..NumberDataPoint::default()
    };
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    let sum = Sum { data_points: vec![point], aggregation_temporality, is_monotonic: true };
    Metric { name: name.to_owned(), data: Some(metric::Data::Sum(sum)), ..Metric::default() }
}

/// A histogram of `total` values of `ms`, as running totals.
pub fn histogram(name: &str, labels: Vec<KeyValue>, total: u64, ms: f64) -> Metric {
    let mut bucket_counts = vec![0; BOUNDS.len() + 1];
    bucket_counts[BOUNDS.partition_point(|bound| *bound < ms)] = total;
    let point = HistogramDataPoint {
        attributes: labels,
        start_time_unix_nano: 1,
        time_unix_nano: 2_000_000_000_000,
        count: total,
        sum: Some(ms * total as f64),
        bucket_counts,
        explicit_bounds: BOUNDS.to_vec(),
        ..HistogramDataPoint::default()
    };
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    let histogram = Histogram { data_points: vec![point], aggregation_temporality };
    Metric { name: name.to_owned(), data: Some(metric::Data::Histogram(histogram)), ..Metric::default() }
}

/// A report of one proxy.
pub fn report(proxy: &str, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let resource = Resource { attributes: vec![attribute("service.instance.id", proxy)], ..Resource::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }],
    }
}
