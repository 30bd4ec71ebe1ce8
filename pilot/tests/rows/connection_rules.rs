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
