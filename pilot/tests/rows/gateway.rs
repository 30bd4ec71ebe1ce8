//! Spec 1.5: Gateway.

use crate::told::{World, manager, object, object_in, problems, refused, texts};
use pilot::model::references;
use pilot::source::{Store, memory};
use pilot::translate::cache::ResourceType;
use serde_json::{Value, json};

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
    assert_eq!(hosts("shop.com", "other.com"), "blackhole:80", "not bound");
    assert_eq!(hosts("default/shop.com", "shop.com"), "shop.com:80");
    assert_eq!(hosts("./shop.com", "shop.com"), "shop.com:80");
    assert_eq!(hosts("other/shop.com", "shop.com"), "blackhole:80", "rules of that namespace alone");
}

// spec: GW-5
#[test]
fn https_redirect_requires_tls_for_all() {
    let gateway = "selector: {istio: ingressgateway}\nservers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [old.com], tls: {httpsRedirect: true}}]";
    assert_eq!(world(gateway, "").gateway().host("http.8080", "old.com:80")["require_tls"], "ALL");
    let bound = world(gateway, &rule("v", "old.com", &format!("{{{TO}}}"))).gateway().host("http.8080", "old.com:80");
    assert_eq!((&bound["require_tls"], &bound["routes"]), (&json!("ALL"), &Value::Null), "a rule changes nothing");
    let plain = world(SHOP, &rule("v", "shop.com", &format!("{{{TO}}}"))).gateway().host("http.8080", "shop.com:80");
    assert_eq!(plain["require_tls"], Value::Null);
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
    let one_host = rule("v", "shop.com", &format!("{{match: [{{uri: {{prefix: /v}}}}], {TO}}}"))
        + &rule("w", "shop.com", &format!("{{match: [{{uri: {{prefix: /w}}}}], {TO}}}"));
    let routes = world(SHOP, &one_host).gateway().routes("http.8080");
    assert_eq!(crate::told::names(&routes["virtual_hosts"]), ["shop.com:80"], "one host, however many rules");
    assert_eq!(routes["virtual_hosts"][0]["routes"].as_array().unwrap().len(), 2);
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
    let host = world(SHOP, "").gateway().host("http.8080", "blackhole:80");
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
    let server = |protocol: &str, tls: &str| {
        format!(
            "selector: {{}}\nservers: [{{port: {{number: 443, name: a, protocol: {protocol}}}, hosts: [a.com]{tls}}}]"
        )
    };
    let found = |spec: &str| problems(&object_in("default", "Gateway", "x", spec))[0].message.clone();
    let later = |field: &str| format!("not supported yet: spec.servers[0].tls.{field}");
    assert_eq!(found(&server("TLS", ", tls: {mode: AUTO_PASSTHROUGH}")), later("mode"));
    assert_eq!(found(&server("HTTPS", ", tls: {mode: SIMPLE, tlsCertificates: [{}]}")), later("tlsCertificates"));
    assert_eq!(refused("Gateway", &server("HTTPS", "")), "spec.servers[0].tls");
    assert_eq!(refused("Gateway", &server("HTTP", ", tls: {mode: SIMPLE}")), "spec.servers[0].tls");
    assert_eq!(refused("Gateway", &server("UDP", "")), "spec.servers[0].port.protocol");
}

fn secure(server: &str, rules: &str) -> Value {
    let gateway = format!("selector: {{istio: ingressgateway}}\nservers: [{server}]");
    world(&gateway, rules).gateway().listener("0.0.0.0_443")
}

fn terminating(tls: &str) -> String {
    format!("{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [shop.com, '*.shop.com'], tls: {{{tls}}}}}")
}

const FILES: &str = "serverCertificate: /c.pem, privateKey: /k.pem";
const CIPHER: &str = "ECDHE-RSA-AES256-GCM-SHA384";

// spec: GW-6, GW-21
#[test]
fn https_ends_with_a_certificate_of_files() {
    let server = terminating(&format!("mode: SIMPLE, {FILES}, minProtocolVersion: TLSV1_2, cipherSuites: [{CIPHER}]"));
    let gateway = format!("selector: {{istio: ingressgateway}}\nservers: [{server}]");
    let told = world(&gateway, &rule("v", "shop.com", &format!("{{{TO}}}"))).gateway();
    let listener = told.listener("0.0.0.0_443");
    assert_eq!(listener["listener_filters"][0]["name"], "envoy.filters.listener.tls_inspector");
    let chain = &listener["filter_chains"][0];
    let names = json!(["shop.com", "*.shop.com"]);
    assert_eq!(chain["filter_chain_match"]["server_names"], names, "other names are closed");
    let context = &chain["transport_socket"]["typed_config"];
    assert_eq!(context["require_client_certificate"], false);
    let common = &context["common_tls_context"];
    assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "file-cert:/c.pem~/k.pem");
    assert_eq!(common["alpn_protocols"], json!(["h2", "http/1.1"]));
    assert_eq!(common["tls_params"], json!({"tls_minimum_protocol_version": "TLSv1_2", "cipher_suites": [CIPHER]}));
    let route = "https.443.https.g.default";
    assert_eq!(manager(chain)["rds"]["route_config_name"], route);
    assert_eq!(told.host(route, "shop.com:443")["domains"], json!(["shop.com"]));
    let any = secure(&server.replace("'*.shop.com'", "'*'"), "");
    assert_eq!(any["filter_chains"][0]["filter_chain_match"], Value::Null, "`*` takes every name, and none");
    let field = |tls: &str| refused("Gateway", &format!("servers: [{}]", terminating(tls)));
    assert_eq!(field("mode: SIMPLE, privateKey: /k"), "spec.servers[0].tls.serverCertificate");
    assert_eq!(field(&format!("mode: MUTUAL, {FILES}")), "spec.servers[0].tls.caCertificates");
    assert_eq!(
        field(&format!("mode: SIMPLE, {FILES}, minProtocolVersion: x")),
        "spec.servers[0].tls.minProtocolVersion"
    );
}

// spec: GW-7, GW-8, GW-9
#[test]
fn clients_are_asked_for_certificates() {
    let context =
        |tls: &str| secure(&terminating(tls), "")["filter_chains"][0]["transport_socket"]["typed_config"].clone();
    let root = |context: &Value| {
        context["common_tls_context"]["combined_validation_context"]["validation_context_sds_secret_config"]["name"]
            .clone()
    };
    let mutual = context(&format!("mode: MUTUAL, {FILES}, caCertificates: /ca.pem, subjectAltNames: [a]"));
    assert_eq!((&mutual["require_client_certificate"], root(&mutual)), (&json!(true), json!("file-root:/ca.pem")));
    let own = &mutual["common_tls_context"]["combined_validation_context"]["default_validation_context"];
    assert_eq!(own["match_subject_alt_names"], json!([{"exact": "a"}]));
    let optional = context(&format!("mode: OPTIONAL_MUTUAL, {FILES}, caCertificates: /ca.pem"));
    assert_eq!((&optional["require_client_certificate"], root(&optional)), (&json!(false), json!("file-root:/ca.pem")));
    let mesh = context("mode: ISTIO_MUTUAL");
    assert_eq!((&mesh["require_client_certificate"], root(&mesh)), (&json!(true), json!("ROOTCA")));
    assert_eq!(mesh["common_tls_context"]["tls_certificate_sds_secret_configs"][0]["name"], "default");
}

// spec: GW-10, VS-38
#[test]
fn tls_that_passes_is_routed_by_name_and_tcp_by_port() {
    let server = "{port: {number: 443, name: tls, protocol: TLS}, hosts: [a.com, b.com], tls: {mode: PASSTHROUGH}}";
    let rules = object(
        "VirtualService",
        "v",
        "hosts: [a.com, b.com]\ngateways: [g]\ntls:\n- {match: [{port: 443, sniHosts: [a.com]}], route: [{destination: {host: reviews}}]}\n- {match: [{sniHosts: [b.com]}], route: [{destination: {host: ratings, port: {number: 1}}}]}\ntcp: [{route: [{destination: {host: mysql}}]}]",
    );
    let listener = secure(server, &rules);
    let chain = |at: usize| {
        let chain = &listener["filter_chains"][at];
        let cluster = chain["filters"].as_array().unwrap().last().unwrap()["typed_config"]["cluster"].clone();
        (chain["filter_chain_match"]["server_names"].clone(), cluster, chain["transport_socket"].clone())
    };
    let host = "default.svc.cluster.local";
    let only_port = format!("outbound|9080||reviews.{host}");
    assert_eq!(chain(0), (json!(["a.com"]), json!(only_port), Value::Null));
    assert_eq!(chain(1), (json!(["b.com"]), json!(format!("outbound|1||ratings.{host}")), Value::Null));
    let tcp = secure("{port: {number: 443, name: tcp, protocol: TCP}, hosts: ['*']}", &rules);
    assert_eq!(tcp["filter_chains"][0]["filter_chain_match"], Value::Null);
    let ended = secure(&server.replace("PASSTHROUGH", &format!("SIMPLE, {FILES}")), &rules);
    let socket = &ended["filter_chains"][0]["transport_socket"]["name"];
    assert_eq!(socket, "envoy.transport_sockets.tls", "TCP goes on behind TLS");
    let nothing = world(&format!("selector: {{istio: ingressgateway}}\nservers: [{server}]"), "").gateway();
    assert!(!nothing.has_listener("0.0.0.0_443"), "no rule says where to");
}

// spec: GW-21
#[test]
fn a_name_that_two_servers_claim_is_the_first_ones() {
    let server = |name: &str, hosts: &str| {
        format!(
            "{{port: {{number: 443, name: {name}, protocol: HTTPS}}, hosts: [{hosts}], tls: {{mode: SIMPLE, {FILES}}}}}"
        )
    };
    let both =
        format!("{}, {}, {}", server("one", "a.com, b.com"), server("two", "b.com, c.com"), server("three", "a.com"));
    let chains = secure(&both, "")["filter_chains"].as_array().unwrap().clone();
    let names: Vec<&Value> = chains.iter().map(|chain| &chain["filter_chain_match"]["server_names"]).collect();
    assert_eq!(names, [&json!(["a.com", "b.com"]), &json!(["c.com"])], "Envoy refuses a listener with a name twice");
}

/// A server at port 443, and what it takes.
fn taking(what: &str, name: &str) -> String {
    let (protocol, tls) = match what {
        "HTTPS" => ("HTTPS", format!(", tls: {{mode: SIMPLE, {FILES}}}")),
        "TLS" => ("TLS", ", tls: {mode: PASSTHROUGH}".to_owned()),
        plain => (plain, String::new()),
    };
    format!("{{port: {{number: 443, name: {name}, protocol: {protocol}}}, hosts: [{name}.com]{tls}}}")
}

const ALL: &str = "hosts: [a.com, b.com]\ngateways: [g, h]\ntls: [{match: [{sniHosts: [a.com]}, {sniHosts: [b.com]}], route: [{destination: {host: reviews}}]}]\ntcp: [{route: [{destination: {host: mysql}}]}]";

// spec: GW-17
#[test]
fn the_oldest_server_decides_what_a_port_is_for() {
    let rules = object("VirtualService", "v", ALL);
    let aged = |name: &str, year: u32, server: &str| {
        object("Gateway", name, &format!("selector: {{istio: ingressgateway}}\nservers: [{server}]"))
            .replace(&format!("name: {name},"), &format!("name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z',"))
    };
    for (first, second) in
        [("HTTPS", "HTTP"), ("HTTP", "HTTPS"), ("TLS", "TCP"), ("TCP", "TLS"), ("HTTP", "TCP"), ("TCP", "HTTP")]
    {
        let (one, other) = (taking(first, "a"), taking(second, "b"));
        let alone = secure(&one, &rules)["filter_chains"].clone();
        assert_eq!(secure(&format!("{one}, {other}"), &rules)["filter_chains"], alone, "{first} before {second}");
        let two = format!("{}{}{rules}", aged("g", 2000, &one), aged("h", 2010, &other));
        let told = World::new(&two).gateway();
        assert_eq!(told.listener("0.0.0.0_443")["filter_chains"], alone, "{first} older than {second}");
        let requests = usize::from(first.starts_with("HTTP"));
        assert_eq!(told.names(ResourceType::Route).len(), requests, "no routes for what is left out");
    }
    let both = secure(&format!("{}, {}", taking("HTTPS", "a"), taking("TLS", "b")), &rules);
    assert_eq!(both["filter_chains"].as_array().unwrap().len(), 2, "names tell TLS apart");
}

// spec: GW-17
#[test]
fn whoever_is_left_out_is_told() {
    let gateway = |name: &str, selector: &str, server: &str| {
        object("Gateway", name, &format!("selector: {{{selector}}}\nservers: [{server}]"))
    };
    let found = |second: &str| {
        let first = gateway("g", "istio: ingressgateway", &taking("HTTPS", "a"));
        let world = World::new(&format!("{first}{second}"));
        let objects = memory::parse(&format!("{first}{second}"), None).objects;
        let mut store = Store::default();
        objects.into_iter().for_each(|object| drop(store.insert(object)));
        references::without_effect(&store, &world.mesh).into_values().flatten().collect::<Vec<_>>()
    };
    let problems = found(&gateway("h", "istio: ingressgateway", &taking("HTTP", "b")));
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "Gateway default/h: spec.servers[0].port: port 443 is for TLS already by Gateway default/g: this server for HTTP is left out; give it another port or bind"
    );
    assert!(found(&gateway("h", "istio: ingressgateway", &taking("TLS", "b"))).is_empty());
    assert!(found(&gateway("h", "istio: egressgateway", &taking("HTTP", "b"))).is_empty(), "other proxies");
}

// spec: GW-2
#[test]
fn grpc_web_is_translated_at_the_gateway() {
    let filters = |servers: &str| {
        let listener = secure(servers, "");
        manager(&listener["filter_chains"][0])["http_filters"].to_string().contains("envoy.filters.http.grpc_web")
    };
    assert!(filters(&taking("GRPC-WEB", "a")));
    assert!(
        filters(&format!("{}, {}", taking("HTTP", "a"), taking("GRPC-WEB", "b"))),
        "where one of the servers asks for it"
    );
    assert!(!filters(&taking("HTTP", "a")) && !filters(&taking("HTTPS", "a")));
}

// spec: GW-2
#[test]
fn ports_of_one_gateway_have_names_of_their_own() {
    let servers = format!("servers: [{}, {}]", taking("HTTPS", "a"), taking("HTTPS", "a"));
    assert_eq!(refused("Gateway", &servers), "spec.servers[1].port.name");
}

// spec: GW-14, GW-15
#[test]
fn ciphers_and_versions_are_those_that_proxies_offer() {
    let server = |settings: &str| terminating(&format!("mode: SIMPLE, {FILES}, {settings}"));
    let written = format!("cipherSuites: [ALL, AES128-SHA, X, {CIPHER}, '[{CIPHER}|AES128-SHA]']");
    let chain = &secure(&server(&written), "")["filter_chains"][0];
    let common = &chain["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(common["tls_params"]["cipher_suites"], json!([CIPHER]));
    let found = |settings: &str| {
        let found = problems(&object_in("default", "Gateway", "x", &format!("servers: [{}]", server(settings))));
        assert_eq!(found.len(), 1, "{found:?}");
        (found[0].field.clone(), found[0].message.clone())
    };
    let (field, message) = found("cipherSuites: [ALL, AES128-SHA]");
    assert_eq!(field, "spec.servers[0].tls.cipherSuites");
    assert!(message.starts_with("none of ALL, AES128-SHA is offered") && message.contains(CIPHER), "{message}");
    let most = "spec.servers[0].tls.maxProtocolVersion";
    assert_eq!(
        found("maxProtocolVersion: TLSV1_1"),
        (most.to_owned(), "TLS below 1.2 is not offered: use TLSV1_2 or TLSV1_3".to_owned())
    );
    assert_eq!(found("minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2").0, most);
    let old = secure(&server("minProtocolVersion: TLSV1_0"), "");
    assert!(old["filter_chains"].is_array(), "a least version that is too low changes nothing");
}
