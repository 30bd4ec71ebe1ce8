//! Spec 1.7: Sidecar.

use crate::told::{World, object, object_in, refused};
use pilot::translate::cache::ResourceType;
use serde_json::{Value, json};

const FAR: &str = "outbound|8080||far.other.svc.cluster.local";

fn default(spec: &str) -> String {
    object("Sidecar", "default", spec)
}

// spec: SC-1, PI-89
#[test]
fn the_selector_comes_before_the_namespace_and_the_namespace_before_the_root() {
    let sees = |yaml: String| World::new(&yaml).client().has_cluster(FAR);
    let root = object_in("istio-system", "Sidecar", "default", "egress: [{hosts: ['./*']}]");
    let own = default("egress: [{hosts: ['*/*']}]");
    let selected = object("Sidecar", "c", "workloadSelector: {labels: {app: client}}\negress: [{hosts: ['./*']}]");
    let other = object("Sidecar", "o", "workloadSelector: {labels: {app: other}}\negress: [{hosts: ['./*']}]");
    assert!(sees(String::new()), "without one everything is imported");
    assert!(!sees(root.clone()));
    let everywhere = World::new(&root).client();
    assert!(everywhere.has_cluster(crate::told::REVIEWS), "`.` is the namespace of who follows it");
    assert!(sees(format!("{root}{own}")));
    assert!(!sees(format!("{root}{own}{selected}")));
    assert!(sees(other), "not for this workload");
    assert!(World::new(&root).gateway().has_cluster(FAR), "gateways ignore it");
    let labelled = "workloadSelector: {labels: {app: client}}\negress: [{hosts: ['./*']}]";
    assert!(sees(object_in("istio-system", "Sidecar", "s", labelled)), "of the root namespace only the default counts");
}

// spec: SC-2, PI-37
#[test]
fn egress_hosts_limit_what_is_sent() {
    let told = |hosts: &str| World::new(&default(&format!("egress: [{{hosts: [{hosts}]}}]"))).client();
    let own = told("'./*'");
    assert!(own.has_cluster(crate::told::REVIEWS) && !own.has_cluster(FAR));
    assert!(!own.has_listener("0.0.0.0_8080") && !own.names(ResourceType::Route).contains(&"8080".to_owned()));
    assert!(told("other/*").has_cluster(FAR) && !told("other/*").has_cluster(crate::told::REVIEWS));
    assert!(told("'*/far.other.svc.cluster.local'").has_cluster(FAR));
    let nothing = told("'~/*'").names(ResourceType::Cluster);
    assert!(nothing.iter().all(|name| !name.starts_with("outbound")), "{nothing:?}");
    assert_eq!(refused("Sidecar", "egress: [{hosts: [reviews]}]"), "spec.egress[0].hosts[0]");
}

// spec: PI-86
#[test]
fn a_service_that_is_not_imported_hides_none_that_is() {
    let entry = |namespace: &str, year: u32| {
        object_in(
            namespace,
            "ServiceEntry",
            "x",
            "hosts: [api.x.com]\nresolution: DNS\nports: [{number: 443, name: tls, protocol: TLS}]",
        )
        .replace("name: x,", &format!("name: x, creationTimestamp: '{year}-01-01T00:00:00Z',"))
    };
    let imports = default("egress: [{hosts: ['shared/*']}]");
    let told = World::new(&format!("{}{}{imports}", entry("team-a", 2000), entry("shared", 2010))).client();
    assert!(told.has_cluster("outbound|443||api.x.com"));
}

// spec: SC-3
#[test]
fn an_egress_listener_may_have_a_port_of_its_own() {
    let yaml = default(
        "egress:\n- port: {number: 8080, protocol: HTTP, name: http}\n  bind: 127.0.0.1\n  hosts: ['other/*']\n- hosts: ['./*']",
    );
    let told = World::new(&yaml).client();
    let listener = told.listener("127.0.0.1_8080");
    assert_eq!(listener["bind_to_port"], false, "it takes what is captured for that address");
    assert_eq!(told.host("8080", "far.other.svc.cluster.local:8080")["name"], "far.other.svc.cluster.local:8080");
    assert!(told.has_listener("0.0.0.0_9080"));
    assert_eq!(refused("Sidecar", "egress: [{hosts: ['./*']}, {hosts: ['*/*']}]"), "spec.egress[1]");
}

// spec: SC-3
#[test]
fn where_nothing_is_captured_a_listener_binds_the_loopback() {
    let told = |more: &str| {
        let yaml = default(&format!("egress:\n- captureMode: NONE\n  hosts: ['./*']\n{more}"));
        World::new(&yaml).client()
    };
    let alone = told("");
    for name in ["127.0.0.1_9080", "127.0.0.1_3306", "127.0.0.1_8000"] {
        assert_eq!(alone.listener(name)["bind_to_port"], Value::Null, "{name} binds, and not for others");
    }
    for name in ["0.0.0.0_9080", "10.96.0.3_3306"] {
        assert!(!alone.has_listener(name), "{name} is no address of the workload, or of the network");
    }
    let to = alone.listener("127.0.0.1_3306")["filter_chains"][0]["filters"][0]["typed_config"]["cluster"].clone();
    assert_eq!(to, "outbound|3306||mysql.default.svc.cluster.local");
    let own = told("  bind: 127.0.0.7\n  port: {number: 3306, protocol: TCP, name: tcp}\n");
    assert_eq!(own.listener("127.0.0.7_3306")["bind_to_port"], Value::Null);
    let world = World::new(&default("egress: [{captureMode: NONE, hosts: ['./*']}]"));
    let six = world.node("sidecar~fd00::9~client-1.default~default.svc.cluster.local", &[]);
    assert!(six.has_listener("[::1]_9080"), "{:?}", six.names(ResourceType::Listener));
}

// spec: SC-3, PI-32
#[test]
fn the_mode_of_the_proxy_is_that_of_a_listener_that_names_none() {
    let bound = |sidecar: &str| {
        let id = "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local";
        let told = |mode: &str| World::new(sidecar).with_metadata(id, &[("INTERCEPTION_MODE", mode)]);
        ["NONE", "REDIRECT"].map(|mode| told(mode).has_listener("127.0.0.1_9080"))
    };
    assert_eq!(bound(&default("egress: [{hosts: ['./*']}]")), [true, false]);
    assert_eq!(bound(&default("egress: [{captureMode: IPTABLES, hosts: ['./*']}]")), [false, false]);
    assert_eq!(bound(""), [false, false], "without a Sidecar nothing is bound");
}

// spec: SC-4, OD-5
#[test]
fn ingress_listeners_replace_what_services_say() {
    let yaml = default(
        "ingress: [{port: {number: 9080, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:8080'}, {port: {number: 99, protocol: TCP, name: tcp}}]",
    );
    let told = World::new(&yaml).server();
    let cluster = told.cluster("inbound|9080||");
    assert_eq!(
        (
            &cluster["type"],
            &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        ),
        (&json!("STATIC"), &json!({"address": "127.0.0.1", "port_value": 8080}))
    );
    assert_eq!(told.cluster("inbound|99||")["type"], "ORIGINAL_DST");
    let chain = told.inbound().into_iter().find(|c| c["filter_chain_match"]["destination_port"] == 9080).unwrap();
    assert_eq!(chain["name"], "10.0.0.1_9080");
    assert_eq!(
        refused("Sidecar", "ingress: [{port: {number: 1, protocol: TCP, name: a}, defaultEndpoint: '10.0.0.1:1'}]"),
        "spec.ingress[0].defaultEndpoint"
    );
}

// spec: SC-6, OD-2, OD-3, NM-9
#[test]
fn unknown_hosts_pass_or_are_blocked() {
    let open = World::new("").client();
    assert_eq!(open.host("9080", "allow_any")["routes"][0]["route"]["cluster"], "PassthroughCluster");
    let text = open.listener("virtualOutbound").to_string();
    assert!(text.contains("PassthroughCluster"));
    for world in [
        World::new(&default("outboundTrafficPolicy: {mode: REGISTRY_ONLY}")),
        World::with_mesh("outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n", ""),
    ] {
        let told = world.client();
        assert_eq!(told.host("9080", "block_all")["routes"][0]["direct_response"]["status"], 502);
        assert!(!told.listener("virtualOutbound").to_string().contains("PassthroughCluster"));
    }
    let back = World::with_mesh(
        "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n",
        &default("outboundTrafficPolicy: {mode: ALLOW_ANY}"),
    );
    assert_eq!(back.client().host("9080", "allow_any")["name"], "allow_any");
}

// spec: SC-7
#[test]
fn a_rule_brings_the_services_that_it_leads_to() {
    let rule = object(
        "VirtualService",
        "v",
        "hosts: [reviews]\nhttp: [{route: [{destination: {host: far.other.svc.cluster.local, port: {number: 8080}}}]}]",
    );
    let told = World::new(&format!("{}{rule}", default("egress: [{hosts: ['./*']}]"))).client();
    assert!(told.has_cluster(FAR));
    assert!(!told.names(ResourceType::Route).contains(&"8080".to_owned()), "it is not addressed by its own name");
    let hidden = object_in(
        "other",
        "VirtualService",
        "v",
        "hosts: [reviews.default.svc.cluster.local]\nhttp: [{timeout: 9s, route: [{destination: {host: reviews.default.svc.cluster.local}}]}]",
    );
    let told = World::new(&format!("{}{hidden}", default("egress: [{hosts: ['./*']}]"))).client();
    assert_eq!(told.reviews()[0]["route"]["timeout"], "0s", "a rule of a namespace that is not imported");
}
