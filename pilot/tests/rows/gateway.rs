//! Spec 1.5: Gateway, the plain HTTP part.

use crate::told::{World, manager, object, object_in, problems, refused, texts};
use pilot::translate::cache::ResourceType;
use serde_json::json;

const SHOP: &str = "selector: {istio: ingressgateway}\nservers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.com, '*.shop.com']}]";
const TO: &str = "route: [{destination: {host: reviews}}]";

fn world(gateway: &str, rules: &str) -> World {
    World::new(&format!("{}{rules}", object("Gateway", "g", gateway)))
}

fn rule(name: &str, host: &str, http: &str) -> String {
    object("VirtualService", name, &format!("hosts: ['{host}']\ngateways: [g]\nhttp: [{http}]"))
}

// spec: GW-1, GW-2, NM-8
#[test]
fn a_gateway_listens_where_its_service_leads() {
    let told = world(SHOP, "").gateway();
    assert_eq!(told.names(ResourceType::Listener), ["0.0.0.0_8080"], "80 is 8080 in the pod");
    assert_eq!(told.names(ResourceType::Route), ["http.8080"]);
    let other = world(&SHOP.replace("istio: ingressgateway", "istio: egressgateway"), "").gateway();
    assert!(other.names(ResourceType::Listener).is_empty(), "another proxy serves it");
    assert!(World::new("").gateway().names(ResourceType::Listener).is_empty());
}

// spec: GW-3, VSM-8
#[test]
fn rules_are_bound_to_hosts_of_the_servers() {
    let hosts = |server_hosts: &str, rule_host: &str| {
        let gateway = format!(
            "selector: {{istio: ingressgateway}}\nservers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{server_hosts}]}}]"
        );
        let routes = world(&gateway, &rule("v", rule_host, &format!("{{{TO}}}"))).gateway().routes("http.8080");
        routes["virtual_hosts"][0]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(hosts("shop.com", "shop.com"), "shop.com:80");
    assert_eq!(hosts("'*.shop.com'", "a.shop.com"), "a.shop.com:80", "the narrower of the two");
    assert_eq!(hosts("a.shop.com", "*.shop.com"), "a.shop.com:80");
    assert_eq!(hosts("shop.com", "other.com"), "blackhole:8080", "not bound");
    assert_eq!(hosts("default/shop.com", "shop.com"), "shop.com:80");
    assert_eq!(hosts("./shop.com", "shop.com"), "shop.com:80");
    assert_eq!(hosts("other/shop.com", "shop.com"), "blackhole:8080", "rules of that namespace alone");
}

// spec: GW-5
#[test]
fn https_redirect_requires_tls_for_all() {
    let gateway = "selector: {istio: ingressgateway}\nservers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [old.com], tls: {httpsRedirect: true}}]";
    assert_eq!(world(gateway, "").gateway().host("http.8080", "old.com:80")["require_tls"], "ALL");
}

// spec: GW-17
#[test]
fn servers_of_one_port_share_one_table() {
    let second = object(
        "Gateway",
        "h",
        "selector: {istio: ingressgateway}\nservers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [b.com]}]",
    );
    let rules = rule("v", "shop.com", &format!("{{{TO}}}"))
        + &object("VirtualService", "w", &format!("hosts: [b.com]\ngateways: [h]\nhttp: [{{{TO}}}]"));
    let told = world(SHOP, &format!("{second}{rules}")).gateway();
    assert_eq!(told.names(ResourceType::Route), ["http.8080"]);
    let routes = told.routes("http.8080");
    let names: Vec<_> = crate::told::names(&routes["virtual_hosts"]);
    assert_eq!(names, ["b.com:80", "shop.com:80"]);
}

// spec: GW-19, GW-20, FC-4
#[test]
fn clients_come_from_outside() {
    let listener = world(SHOP, "").gateway().listener("0.0.0.0_8080");
    let manager = manager(&listener["filter_chains"][0]);
    assert_eq!(
        (&manager["use_remote_address"], &manager["forward_client_cert_details"], &manager["server_name"]),
        (&json!(true), &json!("SANITIZE_SET"), &json!("istio-envoy"))
    );
    assert_eq!(
        manager["set_current_client_cert_details"],
        json!({"subject": true, "cert": true, "dns": true, "uri": true})
    );
    assert_eq!(listener["filter_chains"][0]["transport_socket_connect_timeout"], "15s");
    assert_eq!(listener["max_connections_to_accept_per_socket_event"], 1);
}

// spec: GW-4
#[test]
fn a_server_may_bind_an_address_and_name_its_statistics() {
    let gateway = "selector: {istio: ingressgateway}\nservers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [a.com], bind: 10.1.1.1, name: mine}]";
    let told = world(gateway, "").gateway();
    let listener = told.listener("10.1.1.1_8080");
    assert_eq!(manager(&listener["filter_chains"][0])["stat_prefix"], "mine;");
    assert_eq!(told.names(ResourceType::Route), ["http.8080.10.1.1.1"]);
}

// spec: VSM-2
#[test]
fn rules_for_one_host_are_merged_and_catch_alls_go_last() {
    let first = rule("a", "shop.com", &format!("{{{TO}}}"));
    let second = rule("b", "shop.com", &format!("{{match: [{{uri: {{prefix: /b}}}}], {TO}}}"));
    let host = world(SHOP, &format!("{first}{second}")).gateway().host("http.8080", "shop.com:80");
    let prefixes: Vec<_> =
        host["routes"].as_array().unwrap().iter().map(|r| r["match"]["prefix"].as_str().unwrap()).collect();
    assert_eq!(prefixes, ["/b", "/"]);
}

// spec: VSM-9, NM-9
#[test]
fn a_port_without_rules_is_a_black_hole() {
    let host = world(SHOP, "").gateway().host("http.8080", "blackhole:8080");
    assert_eq!(texts(&host["domains"]), ["*"]);
    assert!(host["routes"].is_null(), "404 NR");
}

// spec: VS-2, VS-14, VS-16
#[test]
fn matches_are_decided_for_the_gateway_and_a_lone_port_need_not_be_named() {
    let both = object(
        "VirtualService",
        "v",
        &format!(
            "hosts: [shop.com]\ngateways: [g, mesh]\nhttp: [{{match: [{{uri: {{exact: /a}}, gateways: [g]}}, {{uri: {{prefix: /b}}}}], {TO}}}, {{match: [{{gateways: [mesh]}}], {TO}}}]"
        ),
    );
    let world = world(SHOP, &both);
    let host = world.gateway().host("http.8080", "shop.com:80");
    assert_eq!(host["routes"].as_array().unwrap().len(), 2);
    assert_eq!(host["routes"][0]["route"]["cluster"], "outbound|9080||reviews.default.svc.cluster.local");
    assert_eq!(world.client().host("80", "shop.com:80")["routes"].as_array().unwrap().len(), 2);
}

#[test]
fn what_comes_later_is_refused_by_field() {
    let server = |more: &str| {
        format!(
            "selector: {{}}\nservers: [{{port: {{number: 443, name: a, protocol: {more}, hosts: [a.com]}}]",
            more = format_args!("{more}}}")
        )
    };
    assert_eq!(refused("Gateway", &server("HTTPS")), "spec.servers[0].port.protocol");
    let tls =
        "selector: {}\nservers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: [a.com], tls: {mode: SIMPLE}}]";
    let found = problems(&object_in("default", "Gateway", "x", tls));
    assert_eq!(found[0].message, "not supported yet: spec.servers[0].tls.mode");
}
