use super::super::config::AccessLog;
use super::super::sinks::LogSinks;
use super::*;
use crate::bootstrap::Environment;
use crate::message::{RequestHead, Version};
use crate::outcome::Flags;
use crate::telemetry::access_log::{Bytes, LogBuffers, Times};
use crate::telemetry::{Registry, Selection};
use serde_json::{Value, json};
use std::time::Duration;

fn config() -> Value {
    let tags = json!([
        {"name": "reporter", "value_format": "source"},
        {"name": "principal", "value_format": "%DOWNSTREAM_PEER_URI_SAN%"},
        {"name": "code", "value_format": "%RESPONSE_CODE%"},
        {"name": "mixed.tag", "value_format": "a%GRPC_STATUS%b:%PROTOCOL%"},
    ]);
    json!({
        "stat_prefix": "custom",
        "counters": [
            {"stat": {"name": "requests", "tags": tags}, "value_fixed": 1},
            {"stat": {"name": "sent.bytes"}, "value_format": "%BYTES_SENT%"},
            {"stat": {"name": "no_number"}, "value_format": "%PROTOCOL%"},
        ],
        "histograms": [
            {"stat": {"name": "duration", "tags": tags}, "unit": "Milliseconds", "value_format": "%DURATION%"},
        ],
    })
}

fn parse(config: &Value) -> Result<AccessLog, Refusal> {
    let mut typed = config.clone();
    typed["@type"] = "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config".into();
    let written = json!({"name": "envoy.access_loggers.stats", "typed_config": typed});
    let bytes = proto::json::from_value("envoy.config.accesslog.v3.AccessLog", &written).unwrap();
    let written = prost::Message::decode(bytes.as_slice()).unwrap();
    let (environment, runtime) = (Environment::default(), std::collections::BTreeMap::new());
    AccessLog::parse(&written, LogContext { environment: &environment, runtime: &runtime })
}

fn sinks(registry: &Registry, most: usize) -> LogSinks {
    LogSinks::new(LogBuffers::detached(), Rc::new(registry.registrar(most)))
}

fn facts(head: &RequestHead, status: u16, ms: u64) -> LogFacts<'_> {
    LogFacts {
        request: Some(head),
        protocol: Some(Version::H11),
        status: Some(status),
        flags: Flags::NONE,
        bytes: Bytes { sent: 121, ..Bytes::default() },
        times: Times { total: Some(Duration::from_millis(ms)), ..Times::default() },
        ..LogFacts::default()
    }
}

// spec: XT-7
#[test]
fn names_tags_and_values_are_as_envoy_shows_them() {
    let mut registry = Registry::new();
    let (log, sinks) = (parse(&config()).unwrap(), sinks(&registry, 10));
    let head = RequestHead::new(Version::H11, b"GET", b"http", b"a", b"/");
    for (status, ms) in [(200, 3), (200, 7), (503, 0)] {
        log.log(&facts(&head, status, ms), 0, &sinks);
    }
    let used = Selection { used_only: true, ..Selection::default() };
    let snapshot = registry.collect();
    let shown = snapshot.prometheus(&used);
    let tags = |code: u16| format!("reporter=\"source\",principal=\"\",code=\"{code}\",mixed_tag=\"ab:HTTP/1.1\"");
    for line in [
        "# TYPE envoy_custom_requests counter".to_owned(),
        format!("envoy_custom_requests{{{}}} 2", tags(200)),
        format!("envoy_custom_requests{{{}}} 1", tags(503)),
        "envoy_custom_sent_bytes{} 363".to_owned(),
        "# TYPE envoy_custom_duration histogram".to_owned(),
        format!("envoy_custom_duration_bucket{{{},le=\"5\"}} 1", tags(200)),
        format!("envoy_custom_duration_sum{{{}}} 10", tags(200)),
        format!("envoy_custom_duration_count{{{}}} 2", tags(200)),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in\n{shown}");
    }
    assert!(!shown.contains("no_number"));
    let dotted = "custom.requests.reporter.source.principal..code.200.mixed.tag.ab:HTTP/1.1: 2";
    assert!(snapshot.text(&used).lines().any(|line| line == dotted), "{}", snapshot.text(&used));
    assert_eq!(snapshot.value("custom.sent.bytes"), Some(363));
}

#[test]
fn series_are_bounded_and_go_with_their_configuration() {
    let mut registry = Registry::new();
    let (log, sinks) = (parse(&config()).unwrap(), sinks(&registry, 3));
    let head = RequestHead::new(Version::H11, b"GET", b"http", b"a", b"/");
    for status in 200..210 {
        log.log(&facts(&head, status, 0), 0, &sinks);
    }
    let shown = registry.collect().prometheus(&Selection::default());
    let series = |text: &str| text.lines().filter(|line| line.starts_with("envoy_custom_requests{")).count();
    assert_eq!(series(&shown), 3, "two, for the group without tags has one of three, and the overflow: {shown}");
    let rest = "envoy_custom_requests{reporter=\"overflow\",principal=\"overflow\",code=\"overflow\",mixed_tag=\"overflow\"} 8";
    assert!(shown.contains(rest), "{shown}");
    drop(log);
    let mut changed = config();
    changed["counters"].as_array_mut().unwrap().truncate(1);
    parse(&changed).unwrap().log(&facts(&head, 200, 0), 0, &sinks);
    registry.collect();
    let shown = registry.collect().prometheus(&Selection::default());
    assert_eq!(series(&shown), 1, "{shown}");
}

#[test]
fn what_cannot_be_counted_is_refused_by_its_field() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut config = config();
        change(&mut config);
        parse(&config).unwrap_err().to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Change<'_>, &str); 6] = [
        (&|config| config["stat_prefix"] = "".into(), "stat_prefix"),
        (&|config| config["gauges"] = json!([{"stat": {"name": "g"}, "value_fixed": 1}]), "gauges"),
        (&|config| config["histograms"][0]["unit"] = "Percent".into(), "histograms[0].unit Percent"),
        (&|config| config["histograms"][0]["value_format"] = "%NO%".into(), "histograms[0].value_format"),
        (&|config| config["counters"][0]["value_format"] = "%DURATION%".into(), "counters[0].value_fixed"),
        (&|config| config["counters"][1]["stat"]["name"] = "".into(), "counters[1].stat.name"),
    ];
    for (change, field) in cases {
        let text = refused(change);
        assert!(text.contains(field), "{field} in {text}");
    }
}
