//! Our proxy under a control plane by other people's code (grpcio, xds-protos), state of the world and delta.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

use e2e::app::Echo;
use e2e::client::exchange;
use e2e::proxies::{Flavour, Proxy, free_address};
use e2e::python_ads::PythonAds;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn bootstrap(ads: u16, api_type: &str) -> Value {
    let endpoint = json!({"endpoint": {"address": socket(([127, 0, 0, 1], ads).into())}});
    let source = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": socket(([127, 0, 0, 1], 0).into())},
        "dynamic_resources": {
            "ads_config": {"api_type": api_type, "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
            "cds_config": source, "lds_config": source,
        },
        "static_resources": {"clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [endpoint]}]},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
        }]},
    })
}

fn cluster(name: &str) -> Value {
    let source = json!({"ads": {}, "resource_api_version": "V3"});
    json!({"name": name, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": source}})
}

fn endpoints(name: &str, address: SocketAddr) -> Value {
    let endpoint = json!({"endpoint": {"address": socket(address)}});
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]})
}

fn listener(address: SocketAddr) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test", "rds": {"route_config_name": "routes", "config_source": {"ads": {}, "resource_api_version": "V3"}},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
    });
    let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    json!({"name": "test", "address": socket(address), "filter_chains": [{"filters": [filter]}]})
}

fn routes(cluster: &str) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}});
    json!({"name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]})
}

/// Waits until the proxy's answers come from this upstream.
fn until_answered_by(address: SocketAddr, upstream: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    loop {
        let last = match exchange(address, request) {
            Ok(answer) if answer.head.header("x-upstream") == Some(upstream) => return,
            Ok(answer) => format!("{} {}", answer.status, answer.body),
            Err(error) => error.to_string(),
        };
        assert!(Instant::now() < deadline, "not answered by {upstream}; last: {last}");
        std::thread::yield_now();
    }
}

fn driven(api_type: &str) {
    let (one, two) = (Echo::start("one").unwrap(), Echo::start("two").unwrap());
    let address = free_address().unwrap();
    let mut ads = PythonAds::start().unwrap();
    ads.set(&json!({
        "Cluster": [cluster("one"), cluster("two")],
        "ClusterLoadAssignment": [endpoints("one", one.address), endpoints("two", two.address)],
        "Listener": [listener(address)], "RouteConfiguration": [routes("one")],
    }))
    .unwrap();
    let proxy = Proxy::start(Flavour::Ferromesh, |_| bootstrap(ads.port, api_type)).unwrap();
    until_answered_by(address, "one");
    let mut missing: BTreeSet<&str> = ["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"].into();
    while !missing.is_empty() {
        let event = ads.wait("that all types are acknowledged", |event| Some(event.clone())).unwrap();
        assert!(event["nack"].is_null(), "{event}");
        missing.remove(event["ack"].as_str().unwrap_or_default());
    }
    // spec: XD-3
    ads.set(&json!({"RouteConfiguration": [routes("two")]})).unwrap();
    until_answered_by(address, "two");
    ads.wait("an acknowledgement", |event| (event["ack"] == "RouteConfiguration").then_some(())).unwrap();

    // A bad cluster beside a changed good one: the bad one is named, the good one is taken, traffic goes on.
    let mut bad = cluster("bad");
    bad["eds_cluster_config"] = Value::Null;
    bad["type"] = "STATIC".into();
    bad["load_assignment"] = json!({"cluster_name": "bad", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "no-ip", "port_value": 1}}}}]}]});
    ads.set(&json!({
        "Cluster": [cluster("one"), cluster("two"), cluster("three"), bad],
        "ClusterLoadAssignment": [endpoints("one", one.address), endpoints("two", two.address), endpoints("three", one.address)],
    }))
    .unwrap();
    let detail =
        ads.wait("a refusal", |event| (event["nack"] == "Cluster").then(|| event["detail"].to_string())).unwrap();
    assert!(detail.contains("bad") && detail.contains("no-ip"), "{detail}");
    ads.set(&json!({"RouteConfiguration": [routes("three")]})).unwrap();
    until_answered_by(address, "one");
    drop(proxy);
}

#[test]
fn a_state_of_the_world_server_drives_our_proxy() {
    driven("GRPC");
}

#[test]
fn a_delta_server_drives_our_proxy() {
    driven("DELTA_GRPC");
}
