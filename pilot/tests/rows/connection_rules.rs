//! Spec 1.1: rules for TLS and TCP, the conditions that are decided here and those that are left to the proxy.

use crate::told::{World, object};
use serde_json::{Value, json};

/// The chains of the listener at which `mysql` is reached, under these TCP routes.
fn tcp(routes: &str) -> Vec<Value> {
    let rule = object("VirtualService", "m", &format!("hosts: [mysql]\ntcp:\n{routes}"));
    World::new(&rule).client().listener("10.96.0.3_3306")["filter_chains"].as_array().unwrap().clone()
}

/// The cluster of the first chain.
fn leads_to(routes: &str) -> String {
    tcp(routes)[0]["filters"][0]["typed_config"]["cluster"].as_str().unwrap().to_owned()
}

const MYSQL: &str = "outbound|3306||mysql.default.svc.cluster.local";
const RATINGS: &str = "outbound|9080||ratings.default.svc.cluster.local";
const ROUTE: &str = "route: [{destination: {host: ratings, port: {number: 9080}}}]";

// spec: VS-40, VS-14
#[test]
fn a_tcp_rule_holds_for_the_port_labels_namespace_and_gateway_that_it_names() {
    for (block, holds) in [
        ("{port: 3306}", true),
        ("{port: 3307}", false),
        ("{sourceLabels: {app: client}}", true),
        ("{sourceLabels: {app: other}}", false),
        ("{sourceNamespace: default}", true),
        ("{sourceNamespace: other}", false),
        ("{gateways: [mesh]}", true),
        ("{gateways: [gw]}", false),
        ("{port: 3306, sourceLabels: {app: other}}", false),
    ] {
        let found = leads_to(&format!("- match: [{block}]\n  {ROUTE}"));
        assert_eq!(found, if holds { RATINGS } else { MYSQL }, "{block}");
    }
    assert_eq!(leads_to(&format!("- match: [{{port: 1}}, {{port: 3306}}]\n  {ROUTE}")), RATINGS, "one of two blocks");
    assert_eq!(leads_to(&format!("- {ROUTE}")), RATINGS, "without conditions");
}

// spec: VS-40
#[test]
fn networks_are_told_apart_by_the_proxy_and_the_first_rule_wins() {
    let chains = tcp(&format!(
        "- match: [{{destinationSubnets: [10.96.0.0/16, 10.97.1.1]}}]\n  {ROUTE}\n- route: [{{destination: {{host: mysql, subset: a}}}}]\n- {ROUTE}"
    ));
    assert_eq!(chains.len(), 1, "what matches everything is the default: {chains:?}");
    assert_eq!(
        chains[0]["filter_chain_match"]["prefix_ranges"],
        json!([{"address_prefix": "10.96.0.0", "prefix_len": 16}, {"address_prefix": "10.97.1.1", "prefix_len": 32}])
    );
    let split = tcp(
        "- route: [{destination: {host: mysql, subset: a}, weight: 70}, {destination: {host: mysql, subset: b}, weight: 30}, {destination: {host: mysql, subset: c}, weight: 0}]",
    );
    assert_eq!(
        split[0]["filters"][0]["typed_config"]["weighted_clusters"]["clusters"],
        json!([
            {"name": "outbound|3306|a|mysql.default.svc.cluster.local", "weight": 70},
            {"name": "outbound|3306|b|mysql.default.svc.cluster.local", "weight": 30}
        ])
    );
}

/// The conditions of the chains to `b.com` of a TLS port that `a.com` and `b.com` share, under these TLS matches.
fn tls(blocks: &str) -> Vec<Value> {
    let entry = object(
        "ServiceEntry",
        "e",
        "hosts: [a.com, b.com]\nresolution: DNS\nports: [{number: 443, name: tls, protocol: TLS}]",
    );
    let rule = object(
        "VirtualService",
        "v",
        &format!("hosts: [a.com, '*.a.com']\ntls: [{{match: [{blocks}], route: [{{destination: {{host: b.com}}}}]}}]"),
    );
    let listener = World::new(&format!("{entry}{rule}")).client().listener("0.0.0.0_443");
    let chains = listener["filter_chains"].as_array().unwrap().clone();
    let of_rule = |chain: &Value| {
        let names = &chain["filter_chain_match"]["server_names"];
        chain["filters"][0]["typed_config"]["cluster"] == "outbound|443||b.com" && *names != json!(["b.com"])
    };
    chains.into_iter().filter(of_rule).map(|chain| chain["filter_chain_match"].clone()).collect()
}

// spec: VS-38, VS-39
#[test]
fn a_tls_rule_needs_its_name_and_every_other_condition() {
    assert_eq!(tls("{sniHosts: [a.com]}"), [json!({"server_names": ["a.com"]})]);
    assert_eq!(tls("{sniHosts: ['*.a.com', a.com]}"), [json!({"server_names": ["*.a.com", "a.com"]})]);
    assert_eq!(
        tls("{sniHosts: [a.com], destinationSubnets: [10.0.0.0/8]}"),
        [json!({"server_names": ["a.com"], "prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]})]
    );
    for (more, holds) in [
        ("port: 443", true),
        ("port: 444", false),
        ("sourceLabels: {app: client}", true),
        ("sourceLabels: {app: other}", false),
        ("sourceNamespace: default", true),
        ("sourceNamespace: other", false),
        ("gateways: [mesh]", true),
        ("gateways: [gw]", false),
    ] {
        assert_eq!(tls(&format!("{{sniHosts: [a.com], {more}}}")).len(), usize::from(holds), "{more}");
    }
}

/// The proxy of the first chain that takes a name; of any where it is empty.
fn proxy(listener: &Value, name: &str) -> Value {
    let chains = listener["filter_chains"].as_array().unwrap();
    let takes = |chain: &&Value| {
        let names = chain["filter_chain_match"]["server_names"].as_array();
        name.is_empty() || names.is_some_and(|names| names.contains(&json!(name)))
    };
    chains.iter().find(takes).unwrap()["filters"][0]["typed_config"].clone()
}

const ENTRY: &str = "hosts: [a.com, b.com]\nresolution: DNS\nports: [{number: 443, name: tls, protocol: TLS}]";
const TWIN: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: twin}\nspec: {clusterIP: 10.96.0.30, ports: [{name: tcp-a, port: 3306}, {name: tcp-b, port: 3307}]}\n";

// spec: VS-16, VS-39, VS-40
#[test]
fn a_destination_without_a_port_means_the_only_port_of_its_service() {
    assert_eq!(leads_to("- route: [{destination: {host: ratings}}]"), RATINGS);
    let split = tcp("- route: [{destination: {host: ratings}, weight: 1}, {destination: {host: mysql}, weight: 1}]");
    let clusters = &split[0]["filters"][0]["typed_config"]["weighted_clusters"]["clusters"];
    assert_eq!((&clusters[0]["name"], &clusters[1]["name"]), (&json!(RATINGS), &json!(MYSQL)));
    let rule = object("VirtualService", "m", "hosts: [mysql]\ntcp: [{route: [{destination: {host: twin}}]}]");
    let listener = World::new(&format!("{TWIN}{rule}")).client().listener("10.96.0.3_3306");
    assert_eq!(
        proxy(&listener, "")["cluster"],
        "outbound|3306||twin.default.svc.cluster.local",
        "of two the listener's"
    );
    let rule = object(
        "VirtualService",
        "v",
        "hosts: [a.com]\ntls: [{match: [{sniHosts: [a.com]}], route: [{destination: {host: ratings}}]}]",
    );
    let world = World::new(&format!("{}{rule}", object("ServiceEntry", "e", ENTRY)));
    assert_eq!(proxy(&world.client().listener("0.0.0.0_443"), "a.com")["cluster"], RATINGS);
}

// spec: DR-24, DR-12
#[test]
fn limits_of_connections_are_those_of_the_rule_for_the_destination() {
    let idle = |name: &str, host: &str, time: &str| {
        let policy = "loadBalancer: {consistentHash: {useSourceIp: true}}";
        let spec = format!(
            "host: '{host}'\ntrafficPolicy: {{{policy}, connectionPool: {{tcp: {{idleTimeout: {time}, maxConnectionDuration: 1h}}}}}}"
        );
        object("DestinationRule", name, &spec)
    };
    let is = |proxy: &Value, time: &str| {
        let found = (&proxy["idle_timeout"], &proxy["max_downstream_connection_duration"], &proxy["hash_policy"]);
        assert_eq!(found, (&json!(time), &json!("3600s"), &json!([{"source_ip": {}}])), "{proxy}");
    };
    // A port whose protocol is found out.
    let plain = World::new(&idle("r", "plain", "60s")).client().listener("10.96.0.4_8000");
    is(&plain["default_filter_chain"]["filters"][0]["typed_config"], "60s");
    // A rule that leads to another host.
    let rule = object("VirtualService", "m", "hosts: [mysql]\ntcp: [{route: [{destination: {host: ratings}}]}]");
    let both = format!("{}{}{rule}", idle("r", "ratings", "60s"), idle("s", "mysql", "70s"));
    is(&proxy(&World::new(&both).client().listener("10.96.0.3_3306"), ""), "60s");
    let port = "host: ratings\ntrafficPolicy: {portLevelSettings: [{port: {number: 9080}, connectionPool: {tcp: {idleTimeout: 80s}}}]}";
    let world = World::new(&format!("{}{rule}", object("DestinationRule", "r", port)));
    assert_eq!(
        proxy(&world.client().listener("10.96.0.3_3306"), "")["idle_timeout"],
        "80s",
        "of the port that it leads to"
    );
    // A wildcard, and the host itself.
    let entry = object("ServiceEntry", "e", ENTRY);
    let rules = format!("{}{}", idle("a", "*.com", "60s"), idle("b", "b.com", "70s"));
    let shared = World::new(&format!("{entry}{rules}")).client().listener("0.0.0.0_443");
    is(&proxy(&shared, "a.com"), "60s");
    is(&proxy(&shared, "b.com"), "70s");
}

// spec: VS-38, VS-40
#[test]
fn every_rule_for_a_host_is_looked_at() {
    let of_port = |name: &str, port: u16, to: &str| {
        let spec =
            format!("hosts: [twin]\ntcp: [{{match: [{{port: {port}}}], route: [{{destination: {{host: {to}}}}}]}}]");
        object("VirtualService", name, &spec)
    };
    let rules = format!("{}{}", of_port("a", 3306, "ratings"), of_port("b", 3307, "mysql"));
    let told = World::new(&format!("{TWIN}{rules}")).client();
    let leads_to = |listener: &str| proxy(&told.listener(listener), "")["cluster"].clone();
    assert_eq!((leads_to("10.96.0.30_3306"), leads_to("10.96.0.30_3307")), (json!(RATINGS), json!(MYSQL)));
    let of_name = |name: &str, sni: &str, to: &str| {
        let tls = format!("[{{match: [{{sniHosts: [{sni}]}}], route: [{{destination: {{host: {to}}}}}]}}]");
        object("VirtualService", name, &format!("hosts: [a.com, '*.a.com']\ntls: {tls}"))
    };
    let rules = format!("{}{}", of_name("a", "a.com", "ratings"), of_name("b", "x.a.com", "mysql"));
    let told = World::new(&format!("{}{rules}", object("ServiceEntry", "e", ENTRY))).client();
    let leads_to = |name: &str| proxy(&told.listener("0.0.0.0_443"), name)["cluster"].clone();
    assert_eq!((leads_to("a.com"), leads_to("x.a.com")), (json!(RATINGS), json!(MYSQL)));
}

// spec: VS-1
#[test]
fn a_rule_may_name_an_address_of_either_family() {
    let six = TWIN.replace("10.96.0.30", "fd00::30");
    for (service, address, listener) in [(TWIN, "10.96.0.30", "10.96.0.30_3306"), (&six, "fd00::30", "[fd00::30]_3306")]
    {
        let rule = object(
            "VirtualService",
            "v",
            &format!("hosts: ['{address}']\ntcp: [{{route: [{{destination: {{host: mysql}}}}]}}]"),
        );
        let told = World::new(&format!("{service}{rule}")).client();
        assert_eq!(proxy(&told.listener(listener), "")["cluster"], MYSQL, "{address}");
    }
}
