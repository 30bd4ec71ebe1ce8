use super::*;
use crate::report::family::{BOUNDS, Family};
use crate::report::point::{Point, Since, Value};
use crate::report::traffic::MAX_EDGES;
use proto::otlp::common::{AnyValue, KeyValue, any_value};
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use vitals::prometheus::Registry;

/// Labels of a series as a proxy reports them.
fn labels(reporter: &str, source: &str, destination: &str, code: &str) -> Vec<KeyValue> {
    let pairs = [
        ("reporter", reporter),
        ("source_workload", source),
        ("source_canonical_service", source),
        ("source_canonical_revision", "v1"),
        ("source_workload_namespace", "shop"),
        ("destination_workload", destination),
        ("destination_canonical_service", destination),
        ("destination_canonical_revision", "v1"),
        ("destination_workload_namespace", "shop"),
        ("destination_service", "svc.shop.svc.cluster.local"),
        ("destination_service_name", "svc"),
        ("destination_service_namespace", "shop"),
        ("request_protocol", "http"),
        ("response_code", code),
        ("response_flags", "-"),
        ("connection_security_policy", if reporter == "source" { "unknown" } else { "mutual_tls" }),
    ];
    let attribute = |(key, value): (&str, &str)| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    };
    pairs.map(attribute).into()
}

fn point(family: Family, labels: Vec<KeyValue>, value: Value) -> Point {
    let mut hasher = foldhash::fast::FixedState::with_seed(1).build_hasher();
    family.hash(&mut hasher);
    format!("{labels:?}").hash(&mut hasher);
    let hash = hasher.finish();
    Point { family, labels, hash, start: 1, value, since: Since::Start, fresh: false }
}

fn requests(labels: Vec<KeyValue>, total: u64) -> Point {
    point(Family::Requests, labels, Value::Number(total as f64))
}

/// So many requests of 10 to 25 ms.
fn durations(labels: Vec<KeyValue>, total: u64) -> Point {
    let mut counts = vec![0; BOUNDS.len() + 1];
    counts[4] = total;
    point(Family::Duration, labels, Value::Histogram(counts, total as f64 * 20., BOUNDS.to_vec()))
}

fn report(sender: &str, points: Vec<Point>) -> Report {
    Report { sender: sender.to_owned(), points, counted_here: false }
}

fn state() -> State {
    State::new(super::super::series::MAX_SERIES, Meters::new(&Registry::new()).unwrap())
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn edges_have_rates_errors_latency_and_a_lock() {
    let mut state = state();
    for second in 1..=20 {
        let ok = labels("source", "a", "b", "200");
        let bad = labels("source", "a", "b", "503");
        let points = vec![requests(ok.clone(), 90 * second), requests(bad, 10 * second), durations(ok, 100 * second)];
        state.metrics(&report("a", points), seconds(second));
        let seen = labels("destination", "a", "b", "200");
        state.metrics(&report("b", vec![requests(seen, 100 * second)]), seconds(second));
    }
    let views = state.traffic().views(seconds(20), 5);
    assert_eq!(views.len(), 1, "two views of one edge are one edge");
    let view = &views[0];
    assert!((view.stretch.rate() - 100.).abs() < 1., "{}", view.stretch.rate());
    assert_eq!((view.stretch.sample.failed * 10, view.mutual_tls), (view.stretch.sample.requests, Some(true)));
    let p50 = view.stretch.sample.latency_ms(0.5).unwrap();
    assert!((10. ..25.).contains(&p50), "{p50}");
    assert_eq!((&*view.edge.source.app, &*view.edge.destination.app), ("a", "b"));
}

#[test]
fn an_error_without_a_server_belongs_to_the_service() {
    let mut state = state();
    state.metrics(&report("a", vec![]), seconds(1));
    state.metrics(&report("a", vec![requests(labels("source", "a", "unknown", "503"), 10)]), seconds(2));
    let views = state.traffic().views(seconds(2), 5);
    let destination = &views[0].edge.destination;
    assert_eq!((&*destination.app, &*destination.version, &*destination.namespace), ("svc", "", "shop"));
    assert_eq!(views[0].stretch.sample.failed, 10);
}

// spec: MX-102
#[test]
fn totals_never_fall_when_a_proxy_goes_or_restarts() {
    let mut state = state();
    let total = |state: &State| state.series().all()[0].total.clone();
    let of = |total| requests(labels("source", "a", "b", "200"), total);
    state.metrics(&report("pod-1", vec![of(1000)]), seconds(1));
    state.metrics(&report("pod-2", vec![of(500)]), seconds(1));
    assert_eq!(total(&state), Value::Number(1500.));
    let restarted = Point { start: 2, ..of(7) };
    state.metrics(&report("pod-1", vec![restarted]), seconds(5));
    assert_eq!(total(&state), Value::Number(1507.));
    assert!(state.traffic().is_empty(), "nobody knows when these requests were");
}

#[test]
fn after_a_restart_of_mixer_totals_are_true_and_rates_do_not_jump() {
    let mut state = state();
    for second in 1_u64..=3 {
        let point = requests(labels("source", "a", "b", "200"), 1_000_000 + 50 * second);
        state.metrics(&report("a", vec![point]), seconds(second));
    }
    assert_eq!(state.series().all()[0].total, Value::Number(1_000_150.));
    let rate = state.traffic().views(seconds(3), 5)[0].stretch.rate();
    assert!(rate < 60., "{rate}");
}

#[test]
fn who_counts_itself_is_not_counted_from_its_log() {
    let mut state = state();
    let of = |sender: &str, counted_here| {
        let point = Point { since: Since::LastReport, ..requests(labels("source", "a", "b", "200"), 10) };
        Report { counted_here, ..report(sender, vec![point]) }
    };
    state.metrics(&of("plain envoy", true), seconds(1));
    state.metrics(&of("plain envoy", true), seconds(2));
    assert_eq!(state.series().all()[0].total, Value::Number(20.));
    state.metrics(&of("ours", false), seconds(3));
    state.metrics(&of("ours", true), seconds(4));
    assert_eq!(state.series().all()[0].total, Value::Number(30.), "once, not twice");
}

#[test]
fn what_a_hostile_sender_can_fill_is_bounded() {
    let mut state = state();
    for n in 0..30_000_u64 {
        let name = format!("w{n}");
        let points = vec![requests(labels("source", "a", &name, "200"), 5)];
        state.metrics(&report(&format!("s{}", n % 20_000), vec![]), seconds(1 + n / 1000));
        state.metrics(&report("a", points), seconds(1 + n / 1000));
    }
    assert_eq!(state.series().len(), super::super::series::MAX_SERIES + 1);
    assert!(state.traffic().len() <= MAX_EDGES && state.traffic().dropped() > 0);
    assert!(state.senders().len() <= super::super::sender::MAX_SENDERS);
    const { assert!(MAX_EDGES * super::super::window::BYTES <= 29 << 20, "docs/src/tour/telemetry.md names this bound") };
}
