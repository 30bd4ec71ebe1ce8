//! The adapters that are told after a request: Istio's task on metrics and logs, with its YAML as written.

use crate::request::{engine, table, texts};
use crate::support::{start, until};
use mixer::attribute::vocabulary as v;
use mixer::attribute::{Bag, Value};
use mixer::join::{Call, Facts};
use mixer::policy::Engine;
use mixer::policy::load::Loader;
use proto::envoy::accesslog_service::StreamAccessLogsMessage;
use proto::envoy::accesslog_service::access_log_service_client::AccessLogServiceClient;
use proto::envoy::accesslog_service::stream_access_logs_message::{HttpAccessLogEntries, Identifier, LogEntries};
use proto::envoy::log_entry::{HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Collecting metrics and logs (1.1).
const TELEMETRY: &str = include_str!("yaml/telemetry.yaml");

/// The facts of a request from reviews to ratings.
fn facts() -> Facts {
    let call = Call {
        source: Some("10.0.0.3".parse().unwrap()),
        destination: Some("10.0.0.4:9080".parse().unwrap()),
        http: true,
        path: "/ratings".to_owned(),
        time: Some("2026-11-25T20:00:00Z".parse().unwrap()),
        headers: HashMap::from([("user-agent".to_owned(), "curl".to_owned())]),
        ..Call::default()
    };
    Facts::join(call, &table())
}

fn report(engine: &Engine, facts: &Facts, code: i64, millis: u64) {
    let policy = engine.policy();
    let mut bag: Bag<'_> = facts.bag(&policy.vocabulary);
    bag.set(v::RESPONSE_CODE, Value::Int(code));
    bag.set(v::RESPONSE_SIZE, Value::Int(100));
    bag.set(v::RESPONSE_DURATION, Value::Duration(Duration::from_millis(millis)));
    policy.report(&bag);
}

// spec: MX-70, MX-71, MX-59, MX-60, MX-27
#[tokio::test]
async fn metrics_and_logs_of_istios_task() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let to_file = format!("logStream: FILE\n    outputPath: {}\n    outputAsJson: true", log.display());
    let engine = engine(&TELEMETRY.replace("outputAsJson: true", &to_file));
    for _ in 0..3 {
        report(&engine, &facts(), 200, 20);
    }
    let shown = engine.exposition().await;
    let line = r#"istio_double_request_count{reporter="server",source="reviews-v3",destination="ratings",message="twice the fun!"} 6"#;
    assert!(shown.lines().any(|found| found == line), "{shown}");
    assert!(shown.contains("# TYPE istio_double_request_count counter"));
    let lines = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.lines().count() == 3 {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(10), lines).await.unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    for (name, expected) in [
        ("level", "warn"),
        ("time", "2026-11-25T20:00:00Z"),
        ("instance", "newlog.logentry.istio-system"),
        ("source", "reviews"),
        ("user", "unknown"),
        ("responseCode", "200"),
        ("latency", "0.02s"),
    ] {
        assert_eq!(first[name], expected, "{first}");
    }
}

// spec: MX-70, MX-86
#[tokio::test]
async fn distributions_have_their_buckets_and_matches_of_the_shipped_rules_hold() {
    let yaml = TELEMETRY
        .replace("value: \"2\" # count each request twice", "value: response.duration | \"0ms\"")
        .replace("kind: COUNTER", "kind: DISTRIBUTION\n      buckets: {explicit_buckets: {bounds: [0.01, 0.1, 1]}}")
        .replace(
            "  actions:\n  - handler: doublehandler",
            "  match: (context.protocol == \"http\" || context.protocol == \"grpc\") && (match((request.useragent | \"-\"), \"kube-probe*\") == false) && (match((request.useragent | \"-\"), \"Prometheus*\") == false)\n  actions:\n  - handler: doublehandler",
        );
    let engine = engine(&yaml);
    for millis in [5, 50, 500, 5_000] {
        report(&engine, &facts(), 200, millis);
    }
    let shown = engine.exposition().await;
    let labels = r#"reporter="server",source="reviews-v3",destination="ratings",message="twice the fun!""#;
    for line in [
        format!(r#"istio_double_request_count_bucket{{{labels},le="0.01"}} 1"#),
        format!(r#"istio_double_request_count_bucket{{{labels},le="1"}} 3"#),
        format!(r#"istio_double_request_count_bucket{{{labels},le="+Inf"}} 4"#),
        format!("istio_double_request_count_sum{{{labels}}} 5.555"),
        format!("istio_double_request_count_count{{{labels}}} 4"),
    ] {
        assert!(shown.lines().any(|found| found == line), "{line} in\n{shown}");
    }
    let probe = Call {
        headers: HashMap::from([("user-agent".to_owned(), "kube-probe/1".to_owned())]),
        http: true,
        ..Call::default()
    };
    report(&engine, &Facts::join(probe, &table()), 200, 1);
    assert_eq!(engine.exposition().await, shown, "probes are not counted");
}

// spec: MX-45
#[tokio::test]
async fn reports_are_sampled() {
    let sampled = |sampling: &str| {
        let engine = engine(&TELEMETRY.replace(
            "spec:\n  actions:\n  - handler: doublehandler",
            &format!("spec:\n  sampling: {sampling}\n  actions:\n  - handler: doublehandler"),
        ));
        for _ in 0..1_000 {
            report(&engine, &facts(), 200, 1);
        }
        engine
    };
    let count = async |engine: &Arc<Engine>| {
        let shown = engine.exposition().await;
        let line = shown.lines().find(|line| line.starts_with("istio_double_request_count{"));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() / 2.0)
    };
    let some = count(&sampled("{random: {percentSampled: {numerator: 20}, useIndependentRandomness: true}}")).await;
    assert!((120.0..280.0).contains(&some), "{some}");
    let same = count(&sampled("{random: {attributeExpression: request.path, percentSampled: {numerator: 50}}}")).await;
    assert!(same == 0.0 || same == 1_000.0, "requests with the same value are all in or all out: {same}");
    let few = count(&sampled("{rateLimit: {samplingDuration: 60s, maxUnsampledEntries: 100, samplingRate: 10}}")).await;
    assert_eq!(few, 190.0, "100, and then each tenth");
}

// spec: MX-70, MX-71
#[tokio::test]
async fn what_does_not_fit_is_refused_by_name() {
    for (from, to, message) in [
        (
            "- message\n---",
            "- colour\n---",
            "it has no dimension colour, which is a label of istio_double_request_count",
        ),
        ("instance_name: doublerequestcount.instance", "instance_name: other.instance", "no metric for it"),
        ("kind: COUNTER", "kind: TIMER", "unknown kind TIMER"),
        ("name: double_request_count", "name: double-request", "no name of Prometheus"),
        ("value: \"2\"", "value: request.host #", "STRING is no number"),
        ("outputAsJson: true", "logStream: FILE", "outputPath is missing"),
    ] {
        let engine = Engine::new();
        let yaml = TELEMETRY.replace(from, to);
        engine.load(&mut Loader::default(), &texts(&yaml));
        let problems = engine.view().problems;
        assert!(problems.iter().any(|problem| problem.contains(message)), "{message}: {problems:?}");
    }
}

// spec: MX-71
#[tokio::test]
async fn a_full_file_is_put_aside_and_the_oldest_removed() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("access.log");
    let rotated = format!(
        "logStream: ROTATED_FILE\n    outputPath: {}\n    maxMegabytesBeforeRotation: 0\n    maxRotatedFiles: 2\n    outputAsJson: false",
        log.display()
    );
    let engine = engine(&TELEMETRY.replace("outputAsJson: true", &rotated));
    for _ in 0..6 {
        report(&engine, &facts(), 200, 20);
    }
    let settled = async {
        loop {
            let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let count = names.count();
            let lines = std::fs::read_to_string(&log).unwrap_or_default().lines().count();
            let handled =
                engine.view().handlers.iter().any(|handler| handler.name.starts_with("newlog") && handler.asked == 6);
            if count == 3 && lines == 1 && handled {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), settled).await.unwrap();
}

// spec: MX-95, MX-107, MX-70
#[tokio::test]
async fn what_an_envoy_logs_reaches_the_adapters() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), TELEMETRY).unwrap();
    let config = format!("--config-dir={}", directory.path().display());
    let running = start(&[&config, "--adapter-metrics-addr=127.0.0.1:0"]).await;
    let logged = HttpAccessLogEntry {
        request: Some(HttpRequestProperties { path: "/a".to_owned(), ..HttpRequestProperties::default() }),
        response: Some(HttpResponseProperties {
            response_code: Some(proto::envoy::wkt::UInt32Value { value: 200 }),
            ..HttpResponseProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    };
    let message = StreamAccessLogsMessage {
        identifier: Some(Identifier { log_name: "envoy".to_owned(), node: None }),
        log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: vec![logged; 3] })),
    };
    let address = running.grpc.unwrap();
    let mut client = AccessLogServiceClient::connect(format!("http://{address}")).await.unwrap();
    client.stream_access_logs(tokio_stream::iter([message])).await.unwrap();
    let shown = until(running.adapter_metrics.unwrap(), "/metrics", |text| text.ends_with(" 6\n")).await;
    assert!(shown.contains("istio_double_request_count{reporter=\"client\""), "{shown}");
    running.stop(Duration::from_secs(1)).await;
}
