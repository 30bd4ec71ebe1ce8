//! IPv6 and dual stack (PR-9, OD-1, NM-5, PT-13).

use crate::told::{Told, World, object};
use serde_json::{Value, json};

const V6: &str = "sidecar~fd00::9~client-6.default~default.svc.cluster.local";
const V4: &str = "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local";

fn both(world: &World) -> Told {
    world.with_metadata(V4, &[("INSTANCE_IPS", "10.0.0.9,fd00::9")])
}

/// All addresses of a listener with their ports.
fn addresses(listener: &Value) -> Vec<(String, u64)> {
    let more = listener["additional_addresses"].as_array().cloned().unwrap_or_default();
    let all = std::iter::once(&listener["address"]).chain(more.iter().map(|extra| &extra["address"]));
    all.map(|address| &address["socket_address"])
        .map(|socket| (socket["address"].as_str().unwrap().to_owned(), socket["port_value"].as_u64().unwrap()))
        .collect()
}

// spec: PR-9, OD-1, NM-5
#[test]
fn a_proxy_with_ipv6_alone_listens_there_alone() {
    let world = World::new("");
    let told = world.node(V6, &[]);
    for (name, port) in [("virtualOutbound", 15001), ("virtualInbound", 15006), ("[::]_9080", 9080)] {
        assert_eq!(addresses(&told.listener(name)), [("::".to_owned(), port)], "{name}");
    }
    assert!(!told.has_listener("0.0.0.0_9080"));
    assert_eq!(told.listener("[::]_9080")["bind_to_port"], false);
    let source = &told.cluster("InboundPassthroughCluster")["upstream_bind_config"]["source_address"];
    assert_eq!(source["address"], "::6");
}

// spec: PR-9, OD-1, NM-5, PT-13
#[test]
fn a_proxy_with_both_families_listens_on_both_under_one_name() {
    let told = both(&World::new(""));
    for (name, port) in [("virtualOutbound", 15001), ("virtualInbound", 15006), ("0.0.0.0_9080", 9080)] {
        let expected = [("0.0.0.0".to_owned(), port), ("::".to_owned(), port)];
        assert_eq!(addresses(&told.listener(name)), expected, "{name}");
    }
    // A service's own address has one family.
    assert_eq!(addresses(&told.listener("10.96.0.3_3306")), [("10.96.0.3".to_owned(), 3306)]);
    let bind = told.cluster("InboundPassthroughCluster")["upstream_bind_config"].clone();
    assert_eq!(bind["source_address"]["address"], "127.0.0.6");
    assert_eq!(bind["extra_source_addresses"][0]["address"]["address"], "::6");
}

// spec: PR-9
#[test]
fn a_proxy_with_ipv4_alone_has_no_other_address() {
    let told = World::new("").client();
    assert_eq!(addresses(&told.listener("virtualOutbound")), [("0.0.0.0".to_owned(), 15001)]);
    let bind = told.cluster("InboundPassthroughCluster")["upstream_bind_config"].clone();
    assert!(bind["extra_source_addresses"].is_null(), "{bind}");
}

// spec: PR-6, PR-9
#[test]
fn a_service_with_addresses_of_both_families_has_a_listener_for_each() {
    let world = World::new(
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: two}\nspec: {clusterIP: 10.96.0.77, clusterIPs: [10.96.0.77, 'fd00:96::77'], ports: [{name: tcp, port: 5432}]}\n",
    );
    let told = both(&world);
    for (name, address) in [("10.96.0.77_5432", "10.96.0.77"), ("[fd00:96::77]_5432", "fd00:96::77")] {
        let listener = told.listener(name);
        assert_eq!(addresses(&listener), [(address.to_owned(), 5432)]);
        assert!(listener.to_string().contains("outbound|5432||two.default.svc.cluster.local"));
    }
}

// spec: SE-12, PR-9
#[test]
fn dns_is_asked_for_the_families_that_the_proxy_has() {
    let entry = "hosts: [far.example.com]\nresolution: DNS\nports: [{number: 80, name: http, protocol: HTTP}]";
    let world = World::new(&object("ServiceEntry", "e", entry));
    let family = |told: &Told| told.cluster("outbound|80||far.example.com")["dns_lookup_family"].clone();
    assert_eq!(family(&world.client()), json!("V4_ONLY"));
    assert_eq!(family(&world.node(V6, &[])), json!("V6_ONLY"));
    assert_eq!(family(&both(&world)), json!("ALL"));
}

// spec: GW-2, PR-9
#[test]
fn a_gateway_with_both_families_listens_on_both_unless_it_is_bound() {
    let server = |port: u16, bind: &str| {
        format!(
            "selector: {{istio: ingressgateway}}\nservers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']{bind}}}]"
        )
    };
    let rules = object("Gateway", "g", &server(80, "")) + &object("Gateway", "h", &server(81, ", bind: 10.0.0.10"));
    let world = World::new(&rules);
    let id = "router~10.0.0.10~gw-1.istio-system~istio-system.svc.cluster.local";
    let told = world.with_metadata(id, &[("INSTANCE_IPS", "10.0.0.10,fd00::10")]);
    let expected = [("0.0.0.0".to_owned(), 8080), ("::".to_owned(), 8080)];
    assert_eq!(addresses(&told.listener("0.0.0.0_8080")), expected);
    assert_eq!(addresses(&told.listener("10.0.0.10_81")), [("10.0.0.10".to_owned(), 81)]);
}
