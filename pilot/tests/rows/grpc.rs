//! What gRPC is told that speaks xDS itself (PI-28).

use crate::told::{REVIEWS, Told, World, names, object};
use pilot::translate::cache::ResourceType;
use serde_json::{Value, json};

const GRPC: [(&str, &str); 1] = [("GENERATOR", "grpc")];

fn client(more: &str) -> Told {
    World::new(more).with_metadata("sidecar~10.0.0.9~client-1.default~default.svc.cluster.local", &GRPC)
}

fn server(more: &str) -> Told {
    World::new(more).with_metadata("sidecar~10.0.0.1~reviews-1.default~default.svc.cluster.local", &GRPC)
}

fn route(told: &Told) -> Value {
    let routes = told.routes(REVIEWS);
    assert_eq!(routes["virtual_hosts"].as_array().unwrap().len(), 1, "{routes}");
    assert_eq!(routes["virtual_hosts"][0]["domains"], json!(["*"]));
    routes["virtual_hosts"][0]["routes"][0].clone()
}

// spec: PI-28
#[test]
fn a_service_is_found_by_every_name_under_which_it_is_dialled() {
    let told = client("");
    let names_of_reviews = ["reviews", "reviews.default", "reviews.default.svc", "reviews.default.svc.cluster.local"];
    for name in names_of_reviews {
        let listener = told.listener(&format!("{name}:9080"));
        let manager = &listener["api_listener"]["api_listener"];
        assert_eq!(manager["rds"]["route_config_name"], REVIEWS);
        assert!(manager["rds"]["config_source"]["ads"].is_object());
        assert_eq!(names(&manager["http_filters"]), ["envoy.filters.http.fault", "envoy.filters.http.router"]);
    }
    assert!(!told.has_listener("far:8080"), "a short name is one of the client's own namespace");
    assert!(told.has_listener("far.other:8080"));
    assert!(!told.has_listener("virtualOutbound") && !told.has_cluster("PassthroughCluster"));
}

// spec: PI-28
#[test]
fn clusters_hold_what_grpc_reads_and_no_more() {
    let rule = "host: reviews\ntrafficPolicy:\n  connectionPool: {http: {http2MaxRequests: 7}}\nsubsets: [{name: v1, labels: {version: v1}}]";
    let told = client(&object("DestinationRule", "d", rule));
    let cluster = told.cluster("outbound|9080|v1|reviews.default.svc.cluster.local");
    let fields: Vec<&String> = cluster.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["name", "type", "eds_cluster_config", "circuit_breakers"], "{cluster}");
    assert_eq!(cluster["circuit_breakers"]["thresholds"][0]["max_requests"], 7);
    assert_eq!(told.addresses("outbound|9080|v1|reviews.default.svc.cluster.local"), ["10.0.0.1"]);
    assert_eq!(told.addresses(REVIEWS).len(), 3);
}

// spec: PI-28
#[test]
fn mesh_mtls_is_used_where_a_rule_asks_for_it() {
    assert!(client("").cluster(REVIEWS)["transport_socket"].is_null());
    let rule = "host: reviews\ntrafficPolicy: {tls: {mode: ISTIO_MUTUAL}}";
    let told = client(&object("DestinationRule", "d", rule));
    let context = told.cluster(REVIEWS)["transport_socket"]["typed_config"]["common_tls_context"].clone();
    assert_eq!(context["tls_certificate_provider_instance"]["instance_name"], "default");
    let validation = &context["validation_context"];
    assert_eq!(validation["ca_certificate_provider_instance"]["certificate_name"], "ROOTCA");
    assert_eq!(
        validation["match_subject_alt_names"],
        json!([{"exact": "spiffe://cluster.local/ns/default/sa/reviews"}])
    );
}

// spec: PI-28
#[test]
fn routes_are_those_of_sidecars_less_what_grpc_refuses() {
    let rule = "hosts: [reviews]\nhttp:\n- timeout: 3s\n  corsPolicy: {allowOrigins: [{exact: a}]}\n  fault: {abort: {httpStatus: 503, percentage: {value: 1}}}\n  route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews, subset: v2}, weight: 10}]";
    let route = route(&client(&object("VirtualService", "v", rule)));
    let clusters = route["route"]["weighted_clusters"]["clusters"].as_array().unwrap().clone();
    let weights: Vec<(&str, u64)> =
        clusters.iter().map(|c| (c["name"].as_str().unwrap(), c["weight"].as_u64().unwrap())).collect();
    assert_eq!(
        weights,
        [
            ("outbound|9080|v1|reviews.default.svc.cluster.local", 90),
            ("outbound|9080|v2|reviews.default.svc.cluster.local", 10)
        ]
    );
    assert_eq!(route["route"]["max_stream_duration"]["max_stream_duration"], "3s");
    let configured: Vec<&String> = route["typed_per_filter_config"].as_object().unwrap().keys().collect();
    assert_eq!(configured, ["envoy.filters.http.fault"]);
}

// spec: PI-28, PA-4
#[test]
fn a_server_is_told_by_the_address_on_which_it_listens() {
    let told = server("");
    for at in ["0.0.0.0:9080", "[::]:9080", "10.0.0.1:9080"] {
        let listener = told.listener(&format!("xds.istio.io/grpc/lds/inbound/{at}"));
        let chain = &listener["filter_chains"][0];
        assert_eq!(chain["name"], "inbound-mtls", "a meshed server takes what meshed clients send");
        assert_eq!(chain["transport_socket"]["typed_config"]["require_client_certificate"], true);
        let manager = &chain["filters"][0]["typed_config"];
        assert_eq!(names(&manager["http_filters"]), ["envoy.filters.http.router"]);
        assert!(
            manager["route_config"]["virtual_hosts"][0]["routes"][0]["non_forwarding_action"].is_object(),
            "{manager}"
        );
    }
    let listeners = told.names(ResourceType::Listener);
    assert_eq!(listeners.iter().filter(|name| name.starts_with("xds.istio.io/")).count(), 3);
    let off = server(&object("PeerAuthentication", "p", "mtls: {mode: DISABLE}"));
    let chain = off.listener("xds.istio.io/grpc/lds/inbound/0.0.0.0:9080")["filter_chains"][0].clone();
    assert_eq!((&chain["name"], chain["transport_socket"].is_null()), (&json!("inbound-plaintext"), true));
}

// spec: PI-28, AZ-2
#[test]
fn policies_protect_a_server_too() {
    let policies = object("AuthorizationPolicy", "a", "rules: [{to: [{operation: {paths: [/test.Echo/Say]}}]}]")
        + &object("AuthorizationPolicy", "d", "action: DENY\nrules: [{to: [{operation: {paths: [/test.Echo/No]}}]}]");
    let told = server(&policies);
    let listener = told.listener("xds.istio.io/grpc/lds/inbound/0.0.0.0:9080");
    let filters = &listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    assert_eq!(names(filters), ["envoy.filters.http.rbac.0", "envoy.filters.http.rbac.1", "envoy.filters.http.router"]);
    assert_eq!(filters[0]["typed_config"]["rules"]["action"], "DENY");
}
