use super::super::LogBuffers;
use super::super::format::ISTIO_TEXT;
use super::*;
use crate::message::{RequestHead, Version};
use crate::telemetry::Registry;
use prost::Message;
use serde_json::json;
use std::rc::Rc;
use std::time::Duration;

fn try_parse(json: &serde_json::Value) -> Result<AccessLog, Refusal> {
    let bytes = proto::json::from_value("envoy.config.accesslog.v3.AccessLog", json).unwrap();
    let (environment, runtime) = (Environment::default(), BTreeMap::from([("min".to_owned(), 250.0)]));
    AccessLog::parse(
        &Written::decode(bytes.as_slice()).unwrap(),
        LogContext { environment: &environment, runtime: &runtime },
    )
}

fn file(format: serde_json::Value) -> serde_json::Value {
    let mut config = json!({"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "/dev/stdout"});
    config.as_object_mut().unwrap().extend(format.as_object().unwrap().clone());
    json!({"name": "envoy.access_loggers.file", "typed_config": config})
}

fn line(log: &AccessLog, facts: &LogFacts<'_>) -> String {
    let Sink::Lines(_, line) = &log.sink else { panic!("no lines") };
    let mut out = Vec::new();
    line.write(facts, &mut out);
    String::from_utf8(out).unwrap()
}

fn path(log: &AccessLog) -> &str {
    let Sink::Lines(path, _) = &log.sink else { panic!("no lines") };
    path
}

// spec: AL-1, AL-2, AL-6
#[test]
fn files_and_streams_in_text_and_json() {
    let facts = LogFacts { status: Some(204), ..LogFacts::default() };
    let text = try_parse(&file(json!({"log_format": {"text_format_source": {"inline_string": ISTIO_TEXT}}}))).unwrap();
    assert_eq!(path(&text), "/dev/stdout");
    assert!(line(&text, &facts).starts_with("[-] \"- - -\" 204 - "));
    let default = try_parse(&file(json!({}))).unwrap();
    assert!(line(&default, &facts).starts_with("[-] \"- - -\" 204 - 0 0 "));
    let object = json!({"b": "%RESPONSE_CODE%", "a": "%REQ(x)%", "n": 1.5, "nested": {"l": ["%PROTOCOL%", true]}});
    let sorted = try_parse(&file(json!({"log_format": {"json_format": object}}))).unwrap();
    assert_eq!(line(&sorted, &facts), "{\"a\":null,\"b\":204,\"n\":1.5,\"nested\":{\"l\":[null,true]}}\n");
    let omitting = try_parse(&file(json!({"log_format": {"json_format": object, "omit_empty_values": true}}))).unwrap();
    assert_eq!(line(&omitting, &facts), "{\"b\":204,\"n\":1.5,\"nested\":{\"l\":[null,true]}}\n");
    let out = try_parse(&json!({"name": "out", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
        "log_format": {"text_format": "%RESPONSE_CODE%%REQ(x)%\n", "omit_empty_values": true}}}))
    .unwrap();
    assert_eq!((path(&out), line(&out, &facts).as_str()), ("/dev/stderr", "204\n"));
}

// spec: AL-3, AL-5
#[test]
fn filters_decide_what_is_logged() {
    let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"a", b"/");
    head.headers.append(b"x-log", b"yes");
    let facts = |status: u16, flags: Flags, ms: u64| LogFacts {
        request: Some(&head),
        status: Some(status),
        flags,
        entry: Entry::DownstreamEnd,
        times: super::super::Times { total: Some(Duration::from_millis(ms)), ..Default::default() },
        ..LogFacts::default()
    };
    let status = |op: &str, value: u32| json!({"status_code_filter": {"comparison": {"op": op, "value": {"default_value": value, "runtime_key": "none"}}}});
    let cel = json!({"extension_filter": {"name": "cel", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", "expression": "response.code >= 400"}}});
    let cases = [
        (status("GE", 400), facts(400, Flags::NONE, 0), facts(399, Flags::NONE, 0)),
        (status("EQ", 200), facts(200, Flags::NONE, 0), facts(201, Flags::NONE, 0)),
        (status("LE", 200), facts(200, Flags::NONE, 0), facts(201, Flags::NONE, 0)),
        (status("NE", 200), facts(201, Flags::NONE, 0), facts(200, Flags::NONE, 0)),
        (
            json!({"duration_filter": {"comparison": {"op": "GE", "value": {"default_value": 1, "runtime_key": "min"}}}}),
            facts(200, Flags::NONE, 250),
            facts(200, Flags::NONE, 249),
        ),
        (json!({"response_flag_filter": {"flags": ["NR", "UH"]}}), facts(404, Flags::NR, 0), facts(503, Flags::UF, 0)),
        (json!({"response_flag_filter": {}}), facts(404, Flags::NR, 0), facts(200, Flags::NONE, 0)),
        (
            json!({"grpc_status_filter": {"statuses": ["UNAVAILABLE"]}}),
            facts(503, Flags::NONE, 0),
            facts(200, Flags::NONE, 0),
        ),
        (
            json!({"grpc_status_filter": {"statuses": ["OK"], "exclude": true}}),
            facts(503, Flags::NONE, 0),
            facts(200, Flags::NONE, 0),
        ),
        (
            json!({"and_filter": {"filters": [status("GE", 400), {"header_filter": {"header": {"name": "x-log"}}}]}}),
            facts(400, Flags::NONE, 0),
            facts(200, Flags::NONE, 0),
        ),
        (
            json!({"or_filter": {"filters": [status("GE", 500), status("EQ", 404)]}}),
            facts(404, Flags::NONE, 0),
            facts(400, Flags::NONE, 0),
        ),
        (cel, facts(400, Flags::NONE, 0), facts(200, Flags::NONE, 0)),
    ];
    let sinks = LogSinks::new(LogBuffers::detached(), Rc::new(Registry::new().registrar(1)));
    let logged = |log: &AccessLog, facts: &LogFacts<'_>, random: u64| {
        let before = sinks.lines.waiting_lines();
        log.log(facts, random, &sinks);
        sinks.lines.waiting_lines() > before
    };
    let with = |filter: &serde_json::Value| {
        let mut config = file(json!({}));
        config["filter"] = filter.clone();
        try_parse(&config).unwrap()
    };
    for (filter, yes, no) in &cases {
        let log = with(filter);
        assert!(logged(&log, yes, 0) && !logged(&log, no, 0), "{filter}");
    }
    let share = with(&json!({"runtime_filter": {"runtime_key": "none", "percent_sampled": {"numerator": 5}}}));
    assert!(logged(&share, &facts(200, Flags::NONE, 0), 104) && !logged(&share, &facts(200, Flags::NONE, 0), 105));
    let ends = with(&json!({"log_type_filter": {"types": ["DownstreamEnd"]}}));
    assert!(logged(&ends, &facts(200, Flags::NONE, 0), 0) && !logged(&ends, &LogFacts::default(), 0));
    assert!(logged(&with(&json!({"not_health_check_filter": {}})), &LogFacts::default(), 0));
}

#[test]
fn what_cannot_be_obeyed_is_refused_by_its_path() {
    let grpc = json!({"name": "x", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"}});
    let mut traceable = file(json!({}));
    traceable["filter"] = json!({"or_filter": {"filters": [{"traceable_filter": {}}]}});
    let mut flag = file(json!({}));
    flag["filter"] = json!({"response_flag_filter": {"flags": ["XX"]}});
    let cases = [
        (grpc, "typed_config.common_config"),
        (file(json!({"path": ""})), "typed_config.path"),
        (file(json!({"log_format": {"text_format": "%NOPE%"}})), "typed_config.log_format.text_format"),
        (file(json!({"log_format": {"json_format": {"a": "%NOPE%"}}})), "typed_config.log_format.json_format"),
        (traceable, "filter.or_filter.filters[0].traceable_filter"),
        (flag, "filter.response_flag_filter.flags"),
    ];
    for (config, field) in cases {
        assert_eq!(try_parse(&config).unwrap_err().field.trim_end_matches('.'), field);
    }
}
