use super::*;
use prost::Message;
use serde_json::{Value, json};

fn try_manager(more: Value) -> Result<HcmConfig, Refusal> {
    let mut json = json!({"stat_prefix": "p", "rds": {"route_config_name": "80"}, "http_filters": [{"name": "router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]});
    json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let name = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let bytes = proto::json::from_value(name, &json).unwrap();
    let (environment, runtime) = Default::default();
    let cx = RouteContext { environment: &environment, runtime: &runtime, parse_override: &registry::parse_override };
    parse(&HttpConnectionManager::decode(bytes.as_slice()).unwrap(), cx)
}

fn manager(more: Value) -> HcmConfig {
    try_manager(more).unwrap()
}

// spec: HP-2, HP-6, HD-1, HD-2, HD-4, HD-14, HD-17
#[test]
fn what_is_not_said_has_a_default() {
    let plain = manager(json!({}));
    assert_eq!((plain.head_limits.max_bytes, plain.head_limits.max_fields), (60 * 1024, 100));
    let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs());
    assert_eq!(seconds(plain.idle_timeout), Some(3600));
    assert_eq!(seconds(plain.stream_idle_timeout), Some(300));
    assert_eq!(seconds(plain.request_headers_timeout), Some(10), "ours: slow headers end");
    assert_eq!((plain.request_timeout, plain.max_stream_duration, plain.max_connection_duration), (None, None, None));
    assert_eq!((plain.max_concurrent_streams, plain.max_requests_per_connection), (1024, 0));
    assert_eq!((plain.stream_window, plain.connection_window), (64 << 10, 1 << 20), "ours: D18");
    assert_eq!(plain.drain_timeout, Duration::from_secs(5));
    assert!(!plain.use_remote_address && plain.generate_request_id && !plain.preserve_external_request_id);
    assert_eq!((plain.xff_trusted_hops, plain.skip_xff_append), (0, false));
    assert_eq!(plain.client_cert, (ForwardClientCert::Sanitize, CertDetails::default()));
    let keep = PathRules { normalize: false, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };
    assert_eq!((plain.path, plain.codec), (keep, Codec::Auto));
    assert!(plain.strip_trailing_dot && plain.upgrades.is_empty() && !plain.refuse_underscores);
    assert!(matches!(plain.server, ServerHeader::Overwrite(name) if &*name == "envoy"));
    assert!(matches!(plain.routes, Routes::Rds(name) if &*name == "80"));
}

// spec: HP-2, HP-6
#[test]
fn limits_are_as_configured_and_zero_switches_a_timer_off() {
    let set = manager(json!({"max_request_headers_kb": 8, "stream_idle_timeout": "1s", "request_timeout": "2s",
        "request_headers_timeout": "3s", "drain_timeout": "4s",
        "common_http_protocol_options": {"max_headers_count": 7, "idle_timeout": "5s", "max_stream_duration": "6s",
            "max_connection_duration": "7s", "max_requests_per_connection": 8},
        "http2_protocol_options": {"max_concurrent_streams": 9, "initial_stream_window_size": 70_000,
            "initial_connection_window_size": 80_000}}));
    assert_eq!((set.head_limits.max_bytes, set.head_limits.max_fields), (8192, 7));
    let timers = [
        set.stream_idle_timeout,
        set.request_timeout,
        set.request_headers_timeout,
        Some(set.drain_timeout),
        set.idle_timeout,
        set.max_stream_duration,
        set.max_connection_duration,
    ];
    assert_eq!(timers.map(|timer| timer.unwrap().as_secs()), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(set.max_requests_per_connection, 8);
    assert_eq!((set.max_concurrent_streams, set.stream_window, set.connection_window), (9, 70_000, 80_000));
    let off = manager(json!({"stream_idle_timeout": "0s", "request_timeout": "0s", "request_headers_timeout": "0s",
        "common_http_protocol_options": {"idle_timeout": "0s"}}));
    let timers = [off.stream_idle_timeout, off.request_timeout, off.request_headers_timeout, off.idle_timeout];
    assert_eq!(timers, [None; 4]);
}

// spec: HD-1, HD-2, HD-4, HD-14, HD-17, MT-8, AZ-21
#[test]
fn headers_are_treated_as_configured() {
    let edge = manager(json!({"use_remote_address": true, "xff_num_trusted_hops": 2, "skip_xff_append": true,
        "generate_request_id": false, "preserve_external_request_id": true, "server_name": "istio-envoy"}));
    assert!(edge.use_remote_address && edge.skip_xff_append && edge.preserve_external_request_id);
    assert_eq!((edge.xff_trusted_hops, edge.generate_request_id), (2, false));
    assert!(matches!(edge.server, ServerHeader::Overwrite(name) if &*name == "istio-envoy"));
    let passing = manager(json!({"server_header_transformation": "PASS_THROUGH"}));
    assert!(matches!(passing.server, ServerHeader::PassThrough));
    let adding = manager(json!({"server_header_transformation": "APPEND_IF_ABSENT"}));
    assert!(matches!(adding.server, ServerHeader::AppendIfAbsent(name) if &*name == "envoy"));
    for (name, mode) in [
        ("SANITIZE", ForwardClientCert::Sanitize),
        ("FORWARD_ONLY", ForwardClientCert::ForwardOnly),
        ("APPEND_FORWARD", ForwardClientCert::AppendForward),
        ("SANITIZE_SET", ForwardClientCert::SanitizeSet),
        ("ALWAYS_FORWARD_ONLY", ForwardClientCert::AlwaysForwardOnly),
    ] {
        let config = manager(json!({"forward_client_cert_details": name,
            "set_current_client_cert_details": {"subject": true, "uri": true, "dns": true}}));
        let details = CertDetails { subject: true, uri: true, dns: true, ..CertDetails::default() };
        assert_eq!(config.client_cert, (mode, details));
    }
    for (name, escaped_slashes) in [
        ("KEEP_UNCHANGED", EscapedSlashes::Keep),
        ("REJECT_REQUEST", EscapedSlashes::Reject),
        ("UNESCAPE_AND_REDIRECT", EscapedSlashes::UnescapeAndRedirect),
        ("UNESCAPE_AND_FORWARD", EscapedSlashes::UnescapeAndForward),
    ] {
        let config =
            manager(json!({"normalize_path": true, "merge_slashes": true, "path_with_escaped_slashes_action": name}));
        assert_eq!(config.path, PathRules { normalize: true, merge_slashes: true, escaped_slashes });
    }
}

// spec: HP-1, HP-4, MT-3
#[test]
fn the_protocol_and_the_upgrades_are_as_configured() {
    for (name, codec) in [("AUTO", Codec::Auto), ("HTTP1", Codec::H1), ("HTTP2", Codec::H2)] {
        assert_eq!(manager(json!({"codec_type": name})).codec, codec);
    }
    assert_eq!(try_manager(json!({"codec_type": "HTTP3"})).unwrap_err().field, "codec_type: HTTP3");
    let config =
        manager(json!({"upgrade_configs": [{"upgrade_type": "WebSocket"}, {"upgrade_type": "x", "enabled": false}]}));
    assert_eq!(*config.upgrades, ["websocket".into()]);
    assert_eq!(try_manager(json!({"http_filters": []})).unwrap_err().field, "http_filters");
}
