//! What ProxyConfig, of the mesh or of a proxy, changes in what is sent.

use crate::told::{Told, World, manager, object};
use serde_json::{Value, json};

const GATEWAY: &str = "selector: {istio: ingressgateway}\nservers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.example]}]";

fn world(mesh: &str) -> World {
    let rule = "hosts: [a.example]\ngateways: [g]\nhttp: [{route: [{destination: {host: reviews}}]}]";
    World::with_mesh(mesh, &format!("{}{}", object("Gateway", "g", GATEWAY), object("VirtualService", "v", rule)))
}

/// The connection manager of what a sidecar is asked.
fn inbound(told: &Told) -> Value {
    let chains = told.inbound();
    let http = chains.iter().find(|chain| chain.to_string().contains("http_connection_manager"));
    manager(http.unwrap())
}

fn gateway(told: &Told) -> Value {
    told.listener("0.0.0.0_8080")
}

// spec: GW-19, PC-2, PC-3, PI-32
#[test]
fn what_stands_before_a_gateway_is_said_by_the_mesh_or_by_the_gateway_itself() {
    let plain = gateway(&world("").gateway());
    let hcm = manager(&plain["filter_chains"][0]);
    assert_eq!(
        (&hcm["xff_num_trusted_hops"], &hcm["forward_client_cert_details"]),
        (&Value::Null, &json!("SANITIZE_SET"))
    );
    assert_eq!(plain["listener_filters"], Value::Null);

    let mesh = "defaultConfig: {gatewayTopology: {numTrustedProxies: 2, forwardClientCertDetails: FORWARD_ONLY, proxyProtocol: {}}}\n";
    let behind = gateway(&world(mesh).gateway());
    let hcm = manager(&behind["filter_chains"][0]);
    assert_eq!(
        (&hcm["xff_num_trusted_hops"], &hcm["forward_client_cert_details"]),
        (&json!(2), &json!("FORWARD_ONLY"))
    );
    assert_eq!(behind["listener_filters"][0]["name"], "envoy.filters.listener.proxy_protocol");

    let own = json!({"gatewayTopology": {"numTrustedProxies": 1}});
    let told = world(mesh).with_proxy_config("router~10.0.0.10~gw-1.istio-system~istio-system.svc.cluster.local", &own);
    let hcm = manager(&gateway(&told)["filter_chains"][0]);
    assert_eq!(
        (&hcm["xff_num_trusted_hops"], &hcm["forward_client_cert_details"]),
        (&json!(1), &json!("SANITIZE_SET")),
        "its own topology is all of it"
    );
    assert_eq!(
        inbound(&world(mesh).server())["xff_num_trusted_hops"],
        Value::Null,
        "a sidecar stands behind no load balancer"
    );
}

// spec: PC-2, TR-2
#[test]
fn traces_are_taken_as_often_as_the_mesh_or_the_pod_says() {
    let share = |told: &Told| inbound(told)["tracing"]["random_sampling"]["value"].as_f64();
    let provider = "defaultProviders: {tracing: [z]}\nextensionProviders: [{name: z, zipkin: {service: ratings.default.svc.cluster.local, port: 9080}}]\n";
    assert_eq!(share(&World::with_mesh(provider, "").server()), Some(1.0));
    let mesh = format!("{provider}defaultConfig: {{tracing: {{sampling: 25}}}}\n");
    assert_eq!(share(&World::with_mesh(&mesh, "").server()), Some(25.0));
    let own = json!({"tracing": {"sampling": 0.5}});
    let told = World::with_mesh(&mesh, "")
        .with_proxy_config("sidecar~10.0.0.1~reviews-1.default~default.svc.cluster.local", &own);
    assert_eq!(share(&told), Some(0.5));
}
