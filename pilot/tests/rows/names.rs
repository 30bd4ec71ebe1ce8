//! Spec 3.4: names, and the metadata that goes with them.

use crate::told::{REVIEWS, World, manager, object};
use pilot::translate::cache::ResourceType;
use serde_json::json;

// spec: NM-1, NM-2, NM-4, NM-10
#[test]
fn clusters() {
    let names = World::new("").server().names(ResourceType::Cluster);
    for name in [REVIEWS, "inbound|9080||", "PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster"] {
        assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
    }
    let told = World::new("").server();
    assert_eq!(told.cluster(REVIEWS)["alt_stat_name"], format!("{REVIEWS};"));
    assert_eq!(told.cluster("inbound|9080||")["alt_stat_name"], "inbound|9080||;");
}

// spec: NM-5, NM-6, PT-1, PT-2
#[test]
fn listeners_and_routes() {
    let told = World::new("").client();
    for name in ["virtualInbound", "virtualOutbound", "0.0.0.0_9080", "10.96.0.3_3306", "10.96.0.4_8000"] {
        assert!(told.has_listener(name), "{name}");
    }
    assert_eq!(told.names(ResourceType::Route), ["80", "8080", "9080", "plain.default.svc.cluster.local:8000"]);
    assert_eq!(told.listener("virtualOutbound")["address"]["socket_address"]["port_value"], 15001);
    assert_eq!(told.listener("virtualInbound")["address"]["socket_address"]["port_value"], 15006);
    let moved = World::with_mesh("proxyListenPort: 16001\nproxyInboundListenPort: 16006\n", "").client();
    assert_eq!(moved.listener("virtualOutbound")["address"]["socket_address"]["port_value"], 16001);
    assert_eq!(moved.listener("virtualInbound")["address"]["socket_address"]["port_value"], 16006);
}

// spec: NM-7, NM-10, FC-5
#[test]
fn inbound_routes() {
    let chains = World::new("").server().inbound();
    let manager = manager(chains.iter().find(|chain| chain["name"] == "0.0.0.0_9080").unwrap());
    let routes = &manager["route_config"];
    assert_eq!(
        (&routes["name"], &routes["virtual_hosts"][0]["name"]),
        (&json!("inbound|9080||"), &json!("inbound|http|9080"))
    );
    assert_eq!(manager["stat_prefix"], "inbound_0.0.0.0_9080;");
}

// spec: NM-11, NM-3, NM-12
#[test]
fn transport_sockets_and_secrets() {
    let cluster = World::new("").client().cluster(REVIEWS);
    let matches = &cluster["transport_socket_matches"];
    assert_eq!((&matches[0]["name"], &matches[0]["match"]), (&json!("tlsMode-istio"), &json!({"tlsMode": "istio"})));
    assert_eq!((&matches[1]["name"], &matches[1]["match"]), (&json!("tlsMode-disabled"), &json!({})));
    let context = &matches[0]["transport_socket"]["typed_config"];
    assert_eq!(context["sni"], "outbound_.9080_._.reviews.default.svc.cluster.local");
    let common = &context["common_tls_context"];
    assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "default");
    let root = &common["combined_validation_context"]["validation_context_sds_secret_config"];
    assert_eq!(root["name"], "ROOTCA");
    assert_eq!(root["sds_config"]["api_config_source"]["grpc_services"][0]["envoy_grpc"]["cluster_name"], "sds-grpc");
    assert_eq!(root["sds_config"]["initial_fetch_timeout"], "0s");
}

// spec: XI-8
#[test]
fn metadata_names_services_and_rules() {
    let rules = object("DestinationRule", "r", "host: reviews\nsubsets: [{name: v1, labels: {version: v1}}]")
        + &object("VirtualService", "v", "hosts: [reviews]\nhttp: [{route: [{destination: {host: reviews}}]}]");
    let told = World::new(&rules).client();
    let istio =
        told.cluster("outbound|9080|v1|reviews.default.svc.cluster.local")["metadata"]["filter_metadata"]["istio"]
            .clone();
    assert_eq!(
        istio["services"],
        json!([{"host": "reviews.default.svc.cluster.local", "name": "reviews", "namespace": "default"}])
    );
    assert_eq!(
        (&istio["config"], &istio["subset"]),
        (&json!("/apis/networking.istio.io/v1/namespaces/default/destination-rule/r"), &json!("v1"))
    );
    assert_eq!(
        told.reviews()[0]["metadata"]["filter_metadata"]["istio"]["config"],
        "/apis/networking.istio.io/v1/namespaces/default/virtual-service/v"
    );
}

// spec: XI-7, MD-5, PI-92
#[test]
fn endpoints_carry_health_weight_locality_and_workload() {
    let assignment = World::new("").client().endpoints(REVIEWS);
    let first = &assignment["endpoints"][0];
    assert_eq!(first["locality"], json!({"region": "r1", "zone": "z1"}));
    let endpoint = &first["lb_endpoints"][0];
    assert_eq!((&endpoint["health_status"], &endpoint["load_balancing_weight"]), (&json!("HEALTHY"), &json!(1)));
    assert_eq!(endpoint["metadata"]["filter_metadata"]["istio"]["workload"], "reviews-1;default;reviews;v1;Kubernetes");
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: reviews-x, labels: {kubernetes.io/service-name: reviews}}\naddressType: IPv4\nports: [{name: http, port: 9080}, {name: other, port: 1}]\nendpoints: [{addresses: [10.0.9.1], conditions: {ready: false}}, {addresses: [10.0.9.2]}, {addresses: [pod.example]}]\n";
    let addresses = World::new(slice).client().addresses(REVIEWS);
    assert!(addresses.contains(&"10.0.9.2".to_owned()), "{addresses:?}");
    assert_eq!(
        addresses.len(),
        4,
        "neither what is not ready nor what is a name, and no port of another name: {addresses:?}"
    );
}
