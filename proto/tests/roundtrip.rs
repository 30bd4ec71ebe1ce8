//! JSON ↔ binary: what a person writes into a bootstrap file comes back from a dump.

use prost::Message;
use proto::envoy::{bootstrap::Bootstrap, hcm::HttpConnectionManager, listener, wkt};
use proto::json::{self, JsonError};
use serde_json::{Value, json};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

fn bootstrap() -> Value {
    json!({
        "node": {"id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local", "cluster": "a.default",
                 "metadata": {"LABELS": {"app": "a"}, "INTERCEPTION_MODE": "REDIRECT", "n": 1.5, "none": null}},
        "static_resources": {
            "listeners": [{
                "name": "in",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 8080}},
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "codec_type": "HTTP2",
                        "stat_prefix": "in",
                        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"],
                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "c", "timeout": "1.500s"}}]}]},
                        "http_filters": [
                            {"name": "istio.stats", "typed_config": {"@type": "type.googleapis.com/stats.PluginConfig",
                                "disable_host_header_fallback": true}},
                            {"name": "istio.metadata_exchange", "typed_config": {
                                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                                "type_url": "type.googleapis.com/io.istio.http.peer_metadata.Config",
                                "value": {"upstream_discovery": [{"istio_headers": {}}]}}},
                            {"name": "ours", "typed_config": {"@type": "type.googleapis.com/nobody.knows.This", "value": "CgFh"}},
                            {"name": "envoy.filters.http.router", "typed_config": {
                                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
                        ]
                    }
                }]}]
            }]
        }
    })
}

#[test]
fn a_bootstrap_with_nested_typed_config_survives_both_ways() {
    let bytes = json::from_value(BOOTSTRAP, &bootstrap()).unwrap();
    let typed = Bootstrap::decode(bytes.as_slice()).unwrap();
    let listener = &typed.static_resources.as_ref().unwrap().listeners[0];
    let Some(listener::filter::ConfigType::TypedConfig(any)) = &listener.filter_chains[0].filters[0].config_type else {
        panic!("typed_config lost");
    };
    let hcm: HttpConnectionManager = proto::any::unpack(any).unwrap();
    assert_eq!(hcm.codec_type, 2);
    assert_eq!(hcm.http_filters.len(), 4);
    assert_eq!(json::to_value(BOOTSTRAP, &bytes).unwrap(), bootstrap());
}

#[test]
fn both_spellings_quoted_numbers_and_enums_by_number_are_read() {
    let camel = json!({"staticResources": {"clusters": [{"name": "c", "connectTimeout": "0.25s", "type": 1,
        "perConnectionBufferLimitBytes": "32768", "lbPolicy": "ring_hash"}]}});
    let bytes = json::from_value(BOOTSTRAP, &camel).unwrap();
    let expected = json!({"static_resources": {"clusters": [{"name": "c", "connect_timeout": "0.250s",
        "type": "STRICT_DNS", "per_connection_buffer_limit_bytes": 32768, "lb_policy": "RING_HASH"}]}});
    assert_eq!(json::to_value(BOOTSTRAP, &bytes).unwrap(), expected);
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    let cases = [
        (json!({"static_resources": {"listener": []}}), "static_resources.listener", "did you mean listeners?"),
        (json!({"static_resources": {"listeners": [{"name": 5}]}}), "static_resources.listeners[0].name", "a string"),
        (
            json!({"admin": {"address": {"socket_address": {"port_value": -1}}}}),
            "admin.address.socket_address.port_value",
            "whole number",
        ),
        (
            json!({"static_resources": {"clusters": [{"lb_policy": "BEST"}]}}),
            "static_resources.clusters[0].lb_policy",
            "ROUND_ROBIN",
        ),
        (
            json!({"static_resources": {"clusters": [{"connect_timeout": "soon"}]}}),
            "static_resources.clusters[0].connect_timeout",
            "Duration",
        ),
        (
            json!({"static_resources": {"listeners": [{"filter_chains": [{"filters": [{"typed_config":
            {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", "x": 1}}]}]}]}}),
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.x",
            "unknown field",
        ),
        (
            json!({"static_resources": {"listeners": [{"filter_chains": [{"filters": [{"typed_config":
            {"@type": "nobody.knows.This", "x": 1, "y": 2}}]}]}]}}),
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config",
            "unknown type nobody.knows.This",
        ),
        (json!({"node": {"id": "a", "dynamic_parameters": 1}}), "node.dynamic_parameters", "map"),
        (json!([]), "(top)", "expected an object"),
    ];
    for (input, path, why) in cases {
        match json::from_value(BOOTSTRAP, &input) {
            Err(JsonError::Field { path: found, why: text }) => {
                assert_eq!(found, path);
                assert!(text.contains(why), "{text}");
            }
            other => panic!("{input}: {other:?}"),
        }
    }
}

#[test]
fn two_members_of_one_oneof_are_refused() {
    let both = json!({"address": {"socket_address": {"address": "::1", "port_value": 1}, "pipe": {"path": "/p"}}});
    let error = json::from_value("envoy.config.bootstrap.v3.Admin", &both).unwrap_err();
    assert!(error.to_string().contains("only one of"), "{error}");
}

#[test]
fn an_any_with_bad_bytes_does_not_fail_the_dump() {
    let broken = wkt::Any { type_url: format!("type.googleapis.com/{BOOTSTRAP}"), value: vec![0xff, 0xff, 0xff] };
    let shown = json::any_to_value(&broken.type_url, &broken.value);
    assert_eq!(shown, json!({"@type": format!("type.googleapis.com/{BOOTSTRAP}"), "value": "////"}));
}

#[test]
fn istio_types_that_envoy_lacks_are_known() {
    for name in [
        "istio.networking.nds.v1.NameTable",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        "xds.type.v3.TypedStruct",
        "io.istio.http.peer_metadata.Config",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
    ] {
        assert!(json::is_known(name), "{name}");
    }
    let table = json!({"table": {"a.default.svc": {"ips": ["10.0.0.1"], "registry": "Kubernetes"}}});
    let bytes = json::from_value("istio.networking.nds.v1.NameTable", &table).unwrap();
    assert_eq!(json::to_value("istio.networking.nds.v1.NameTable", &bytes).unwrap(), table);
}

// bar: S2
#[test]
fn secrets_are_redacted_inside_of_any_too() {
    let mut dump = json!({"dynamic_active_secrets": [{"name": "default", "secret": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "default",
        "tls_certificate": {"certificate_chain": {"inline_string": "public"}, "private_key": {"inline_bytes": "c2VjcmV0"},
                            "password": {"inline_string": "hunter2"}}}}]});
    json::redact("envoy.admin.v3.SecretsConfigDump", &mut dump).unwrap();
    let text = dump.to_string();
    assert!(!text.contains("c2VjcmV0") && !text.contains("hunter2"), "{text}");
    assert!(text.contains("public"), "{text}");
    let certificate = &dump["dynamic_active_secrets"][0]["secret"]["tls_certificate"];
    assert_eq!(certificate["password"]["inline_string"], json::REDACTED);
    assert_eq!(certificate["private_key"]["inline_bytes"], "W3JlZGFjdGVkXQ==");
    json::from_value("envoy.admin.v3.SecretsConfigDump", &dump).unwrap();
}
