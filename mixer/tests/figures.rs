//! What telemetry costs mixer: memory after an hour of 2,000 requests a second (in virtual time, through the same code),
//! and CPU time per 1,000 reported requests a second (the real program over loopback).
//!
//! `FERROMESH_LOAD=full` takes the whole hour and half a minute of load; otherwise both are shorter.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

mod support;

use mixer::report::entry::{Entry, Reason};
use mixer::report::names::Meters;
use mixer::report::point;
use mixer::report::proof::Caller;
use mixer::report::series::MAX_SERIES;
use mixer::report::span::Span;
use mixer::report::state::{MAX_FAILURES, State};
use proto::otlp::metrics::Metric;
use proto::otlp::metrics_service::metrics_service_client::MetricsServiceClient;
use std::process::Stdio;
use std::time::Duration;
use support::{Call, counter, histogram, labels, report};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Proxies of the mesh.
const PROXIES: usize = 50;
/// Requests per second of all of them, each reported by both ends.
const RATE: u64 = 2_000;
/// One request in so many fails, and one in so many is traced.
const FAILING: u64 = 100;
const TRACED: u64 = 100;

fn full() -> bool {
    #[expect(clippy::disallowed_methods, reason = "how long a test may take is said by the environment")]
    let load = std::env::var("FERROMESH_LOAD");
    load.is_ok_and(|load| load == "full")
}

/// What a proxy reports in a second: it calls the next one, and is called by the one before.
fn metrics(proxy: usize, second: u64) -> Vec<Metric> {
    let name = |n: usize| format!("service-{:02}", n % PROXIES);
    let (before, own, next) = (name(proxy + PROXIES - 1), name(proxy), name(proxy + 1));
    let total = RATE / PROXIES as u64 * second;
    let mut metrics = Vec::new();
    for (reporter, source, destination) in [("source", &own, &next), ("destination", &before, &own)] {
        for (code, part) in [("200", 97), ("404", 2), ("503", 1)] {
            let labels = labels(Call { reporter, source: (source, "v1"), destination: (destination, "v1"), code });
            let count = total * part / 100;
            metrics.push(counter("istio_requests_total", labels.clone(), count));
            metrics.push(histogram("istio_request_duration_milliseconds", labels.clone(), count, 7.));
            metrics.push(histogram("istio_request_bytes", labels.clone(), count, 700.));
            metrics.push(histogram("istio_response_bytes", labels, count, 7000.));
        }
    }
    metrics
}

fn failure(number: u64) -> Entry {
    let text = |what: &str| format!("{what} {number} {}", "x".repeat(80));
    Entry {
        code: 503,
        flags: "UF".into(),
        path: text("path"),
        authority: text("authority"),
        user_agent: text("agent"),
        request_id: text("id"),
        cluster: text("cluster"),
        node: text("node"),
        reason: Reason { side: "network".into(), why: text("why"), object: text("object"), ..Reason::default() },
        ..Entry::default()
    }
}

fn span(trace: u64, id: u64) -> Span {
    let tag = |n: u64| (format!("tag-{n}"), format!("value {trace} {id} {n} of some length"));
    Span {
        trace: format!("{trace:032x}"),
        id: format!("{id:016x}"),
        parent: String::new(),
        service: "service".into(),
        name: "service.shop.svc.cluster.local:9080/*".into(),
        start_nanos: trace,
        duration_nanos: 1_000_000,
        failed: false,
        tags: (0..16).map(tag).collect(),
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn an_hour_of_2000_requests_a_second_stays_within_bounds() {
    let hour = if full() { 3_600 } else { 120 };
    let caller = Caller { address: [127, 0, 0, 1].into(), id: None };
    let hasher = foldhash::fast::RandomState::default();
    let mut state = State::new(MAX_SERIES, Meters::new(&vitals::prometheus::Registry::new()).unwrap());
    let before = resident();
    let mut after_a_minute = 0;
    for second in 1..=hour {
        let now = Duration::from_secs(second);
        for proxy in 0..PROXIES {
            let message = report(&format!("sidecar~10.0.0.{proxy}~p"), metrics(proxy, second));
            for report in point::take(message.resource_metrics, caller, &hasher).unwrap().reports {
                state.metrics(&report, now);
            }
        }
        (0..RATE / FAILING).for_each(|n| state.entry(failure(second * RATE + n)));
        (0..RATE / TRACED).for_each(|n| (0..8).for_each(|id| state.span(span(second * RATE + n, id))));
        if second == 60 {
            after_a_minute = resident() - before;
        }
    }
    let grown = resident() - before;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{hour} s of {RATE} requests a second from {PROXIES} proxies: {:.1} MiB ({:.1} MiB after a minute), {} series, {} edges",
        mib(grown),
        mib(after_a_minute),
        state.series().len(),
        state.traffic().len()
    );
    assert_eq!(state.failures().count(), MAX_FAILURES);
    assert!(grown < 64 << 20, "{grown} bytes");
    let views = state.traffic().views(Duration::from_secs(hour), 5);
    let rate: f64 = views.iter().map(|view| view.stretch.rate()).sum();
    assert!((rate - RATE as f64).abs() < 0.03 * RATE as f64, "{rate} requests a second are seen");
}

/// CPU time of a process so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test]
async fn cpu_per_1000_reported_requests() {
    let seconds = if full() { 30 } else { 5 };
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mixer"));
    command.args(["serve", "--grpc-addr=127.0.0.1:0", "--otlp-grpc-addr=", "--otlp-http-addr=", "--zipkin-addr="]);
    command.args(["--http-addr=", "--monitoring-addr="]).stderr(Stdio::piped()).kill_on_drop(true);
    let mut mixer = command.spawn().unwrap();
    let mut lines = BufReader::new(mixer.stderr.take().unwrap()).lines();
    let port = loop {
        let line = lines.next_line().await.unwrap().expect("mixer ended");
        if let Some((_, rest)) = line.split_once("grpc=Some(127.0.0.1:") {
            break rest.split(')').next().unwrap().to_owned();
        }
    };
    let pid = mixer.id().unwrap();
    let mut clients = Vec::new();
    for _ in 0..PROXIES {
        clients.push(MetricsServiceClient::connect(format!("http://127.0.0.1:{port}")).await.unwrap());
    }
    let start = cpu(pid);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    for second in 1..=seconds {
        tick.tick().await;
        for (proxy, client) in clients.iter_mut().enumerate() {
            let message = report(&format!("sidecar~10.0.0.{proxy}~p"), metrics(proxy, second));
            client.export(message).await.unwrap();
        }
    }
    let used = cpu(pid) - start;
    let per_second_ms = used.as_secs_f64() * 1000. / seconds as f64;
    let profile = if cfg!(debug_assertions) { "unoptimized" } else { "optimized" };
    println!(
        "{RATE} requests a second from {PROXIES} proxies, reported by both ends: {per_second_ms:.1} ms of CPU a second, \
         {:.2} ms per 1,000 requests ({profile})",
        per_second_ms / (RATE as f64 / 1000.)
    );
    assert!(per_second_ms < 200., "{per_second_ms} ms of CPU a second");
    mixer.kill().await.unwrap();
}
