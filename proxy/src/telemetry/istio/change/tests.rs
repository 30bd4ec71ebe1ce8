use super::super::{IstioMetrics, Reporter, RequestReport, Security, Service};
use super::*;
use crate::message::{RequestHead, Version};
use crate::outcome::Flags;
use crate::telemetry::{Registry, Selection};
use std::collections::BTreeMap;
use std::time::Duration;

fn ends() -> Ends {
    Ends {
        reporter: Reporter::Destination,
        source: Rc::default(),
        destination: Rc::default(),
        service: Rc::new(Service::of_cluster("c", None, Some("reviews"))),
        security: Security::None,
    }
}

const REPORT: RequestReport = RequestReport {
    code: 200,
    flags: Flags::NONE,
    grpc_status: None,
    is_grpc: false,
    duration: Duration::from_millis(12),
    request_bytes: 100,
    response_bytes: 2000,
};

fn change(name: &str, removed: &[&str], added: &[(&str, &str)], drop: bool) -> MetricConfig {
    MetricConfig {
        name: name.to_owned(),
        tags_to_remove: removed.iter().map(ToString::to_string).collect(),
        dimensions: added.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect(),
        drop,
        ..MetricConfig::default()
    }
}

/// What Prometheus sees after a request to each of the hosts, and a TCP connection.
fn shown(changes: &[MetricConfig], hosts: &[&str]) -> String {
    let changes = Changes::parse(changes).unwrap().unwrap();
    let mut registry = Registry::new();
    let metrics = IstioMetrics::new(Rc::new(registry.registrar(100)));
    for host in hosts {
        let head = RequestHead::new(Version::H11, b"GET", b"http", host.as_bytes(), b"/");
        let facts = LogFacts { request: Some(&head), ..LogFacts::default() };
        metrics.report(&ends(), &REPORT, Some((&changes, &facts)));
    }
    let facts = LogFacts::default();
    metrics.open_tcp(&ends(), Flags::NONE, Some((&changes, &facts))).close();
    registry.collect().prometheus(&Selection::default())
}

fn lines<'a>(text: &'a str, metric: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(&format!("{metric}{{"))).collect()
}

// spec: TL-2, XT-5
#[test]
fn metrics_and_labels_are_left_out_and_added() {
    let changes = [
        change("", &["source_app"], &[("team", "'red'")], false),
        change("requests_total", &["destination_app"], &[("host", "request.host")], false),
        change("request_bytes", &[], &[], true),
    ];
    let text = shown(&changes, &["a", "b", "a"]);
    let requests = lines(&text, "istio_requests_total");
    assert_eq!(requests.len(), 2, "{text}");
    let of_a = requests.iter().find(|line| line.contains("host=\"a\"")).unwrap();
    assert!(of_a.ends_with(" 2") && of_a.contains("team=\"red\""), "{of_a}");
    assert!(!of_a.contains("source_app") && !of_a.contains("destination_app") && of_a.contains("source_workload="));
    let bytes = lines(&text, "istio_response_bytes_sum");
    // Labels of one metric are not those of another: two hosts, two series with the same labels, shown as one.
    assert!(bytes.iter().all(|line| !line.contains("host=") && line.contains("destination_app")), "{bytes:?}");
    assert_eq!((bytes.len(), bytes[0].rsplit(' ').next()), (1, Some("6000")));
    assert!(!text.contains("istio_request_bytes"), "{text}");
    assert_eq!(lines(&text, "istio_tcp_connections_closed_total").len(), 1);
    assert!(lines(&text, "istio_tcp_connections_opened_total")[0].contains("team=\"red\""));
}

// spec: TL-2
#[test]
fn the_last_word_on_a_label_counts() {
    let added = change("", &[], &[("team", "'red'")], false);
    let removed = change("requests_total", &["team"], &[], false);
    let text = shown(&[added.clone(), removed.clone()], &["a"]);
    assert!(!lines(&text, "istio_requests_total")[0].contains("team="), "{text}");
    assert!(lines(&text, "istio_response_bytes_sum")[0].contains("team="), "{text}");
    let text = shown(&[removed, added], &["a"]);
    assert!(lines(&text, "istio_requests_total")[0].contains("team=\"red\""), "{text}");
    let unread = shown(&[change("", &[], &[("x", "request.host + 'y'")], false)], &["a"]);
    assert!(lines(&unread, "istio_requests_total")[0].contains("x=\"unknown\""), "{unread}");
    assert!(Changes::parse(&[]).unwrap().is_none());
    let wrong = Changes::parse(&[change("requests", &[], &[], false)]).unwrap_err();
    assert_eq!(wrong.field, "metrics[0].name");
}

#[test]
fn series_are_bounded_and_return_when_the_configuration_goes() {
    let changes = || Changes::parse(&[change("", &[], &[("host", "request.host")], false)]).unwrap().unwrap();
    let mut registry = Registry::new();
    let metrics = IstioMetrics::new(Rc::new(registry.registrar(8)));
    let ask = |changes: &Arc<Changes>, host: &str| {
        let head = RequestHead::new(Version::H11, b"GET", b"http", host.as_bytes(), b"/");
        let facts = LogFacts { request: Some(&head), ..LogFacts::default() };
        metrics.report(&ends(), &REPORT, Some((changes, &facts)));
    };
    let first = changes();
    ["a", "b", "c"].into_iter().for_each(|host| ask(&first, host));
    let text = registry.collect().prometheus(&Selection::default());
    assert!(text.contains("host=\"b\"") && !text.contains("host=\"c\"") && text.contains("\"overflow\""), "{text}");
    drop(first);
    ask(&changes(), "d");
    assert!(registry.collect().prometheus(&Selection::default()).contains("host=\"d\""));
}

/// The labels of a line, each of which must be there once.
fn labels(line: &str) -> BTreeMap<String, String> {
    let inner = line.split_once('{').unwrap().1.rsplit_once("\"}").unwrap().0;
    let pairs: Vec<(&str, &str)> = inner.split("\",").map(|pair| pair.split_once("=\"").unwrap()).collect();
    let labels: BTreeMap<String, String> =
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    assert_eq!(labels.len(), pairs.len(), "{line}");
    labels
}

// spec: LBL-7
#[test]
fn labels_are_added_replaced_and_removed_in_any_order() {
    let of = |changes: &[MetricConfig]| labels(lines(&shown(changes, &["a"]), "istio_requests_total")[0]);
    let mut expected = of(&[change("request_bytes", &[], &[], true)]);
    assert!(expected.contains_key("source_app") && expected["response_code"] == "200");
    let added = [("team", "'red'"), ("response_code", "request.host"), ("destination_app", "'other'")];
    expected.extend(
        [("team", "red"), ("response_code", "a"), ("destination_app", "other")]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    for removed in ["source_app", "source_version"] {
        expected.remove(removed).unwrap();
    }
    // As pilot sends it: one message for a metric.
    assert_eq!(of(&[change("requests_total", &["source_app", "source_version"], &added, false)]), expected);
    let backwards: Vec<_> = added.iter().rev().copied().collect();
    assert_eq!(of(&[change("requests_total", &["source_version", "source_app"], &backwards, false)]), expected);
    let one = |removed: &[&str], at: usize| change("requests_total", removed, &added[at..=at], false);
    let mut several = vec![one(&["source_version"], 2), one(&[], 1), one(&["source_app"], 0)];
    assert_eq!(of(&several), expected);
    several.reverse();
    assert_eq!(of(&several), expected);
}
