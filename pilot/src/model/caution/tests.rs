use super::*;
use crate::source::memory;

fn object(kind: &str, meta: &str, spec: &str) -> std::sync::Arc<Object> {
    let group = if kind == "AuthorizationPolicy" { "security" } else { "networking" };
    let text = format!("apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: o{meta}}}\nspec: {spec}\n");
    let parsed = memory::parse(&text, None);
    assert!(parsed.problems.is_empty(), "{spec}: {:?}", parsed.problems);
    parsed.objects[0].clone()
}

fn told(object: &Object) -> Vec<String> {
    warnings(object, &MeshConfig::default())
}

fn policy(spec: &str) -> Vec<String> {
    told(&object("AuthorizationPolicy", "", spec))
}

// spec: AZ-17
#[test]
fn a_policy_that_closes_tcp_ports_is_told_of() {
    let deny = "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only \
                HTTP attributes in a DENY rule; it is recommended to explicitly specify the port";
    for spec in [
        "{action: DENY, rules: [{to: [{operation: {methods: [POST], hosts: [a]}}]}]}",
        "{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]}",
        "{action: DENY, rules: [{when: [{key: 'request.headers[x]', values: [a]}]}]}",
        "{action: DENY, rules: [{to: [{operation: {paths: [/a]}}]}, {to: [{operation: {paths: [/b]}}]}]}",
        "{action: DENY, rules: [{to: [{operation: {ports: ['80'], paths: [/a]}}, {operation: {paths: [/b]}}]}]}",
    ] {
        assert_eq!(policy(spec), [deny], "{spec}");
    }
    let part = "rule 1 of the DENY policy closes TCP ports to everybody its other conditions fit, as paths, methods cannot be \
                checked there; name the ports in to.operation.ports";
    let rules = "{from: [{source: {namespaces: [x]}}]}, {from: [{source: {namespaces: [x]}}], to: [{operation: {paths: [/a]}}, \
                 {operation: {methods: [GET]}}]}";
    assert_eq!(policy(&format!("{{action: DENY, rules: [{rules}]}}")), [part]);
    let allow = deny.replace("a DENY", "an ALLOW");
    assert_eq!(policy("{rules: [{to: [{operation: {methods: [GET]}}]}]}"), [allow]);
}

// spec: AZ-17
#[test]
fn a_policy_that_leaves_tcp_ports_alone_or_means_them_is_not() {
    for spec in [
        "{action: DENY, rules: [{to: [{operation: {ports: ['8080'], methods: [POST]}}]}]}",
        "{action: DENY, rules: [{to: [{operation: {methods: [POST]}}], when: [{key: destination.port, values: ['80']}]}]}",
        "{action: DENY, rules: [{from: [{source: {namespaces: [x]}}]}]}",
        "{action: DENY, rules: [{}]}",
        "{action: AUDIT, rules: [{to: [{operation: {methods: [POST]}}]}]}",
        "{rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {ports: ['9000']}}]}]}",
        "{rules: [{from: [{source: {namespaces: [x]}}], to: [{operation: {methods: [GET]}}]}]}",
        "{}",
    ] {
        assert_eq!(policy(spec), [""; 0], "{spec}");
    }
    let spec = "{action: DENY, rules: [{to: [{operation: {methods: [POST]}}]}]}";
    for annotation in ["istio.io/dry-run: 'true'", "galley.istio.io/analyze-suppress: 'IST0102, IST0133'"] {
        let silent = object("AuthorizationPolicy", &format!(", annotations: {{{annotation}}}"), spec);
        assert_eq!(told(&silent), [""; 0], "{annotation}");
    }
}

#[test]
fn a_rule_that_no_request_reaches_is_told_of_and_a_match_twice_is_left_to_analyze() {
    let rules = "{route: [{destination: {host: a}}]}, {match: [{uri: {exact: /a}}], route: [{destination: {host: a}}]}";
    let found = object("VirtualService", "", &format!("{{hosts: [a], http: [{rules}]}}"));
    assert_eq!(told(&found), ["VirtualService rule #1 not used (only the last rule can have no matches)."]);
    let twice = "{match: [{uri: {exact: /a}}, {uri: {exact: /a}}], route: [{destination: {host: a}}]}";
    let found = object("VirtualService", "", &format!("{{hosts: [a], http: [{twice}]}}"));
    assert_eq!((told(&found).len(), cautions(&found, &MeshConfig::default()).len()), (0, 1));
}

// spec: SE-13
#[test]
fn a_tcp_port_without_addresses_is_told_of_unless_pilot_chooses_some() {
    let entry = |labels: &str, spec: &str| {
        let spec = format!("{{hosts: [a.example], ports: [{{number: 1, name: tcp, protocol: TCP}}], {spec}}}");
        object("ServiceEntry", labels, &spec)
    };
    let captures = MeshConfig { captures_dns: true, ..MeshConfig::default() };
    let count = |object: &Object, config: &MeshConfig| warnings(object, config).len();
    assert_eq!(told(&entry("", "resolution: DNS")), ["ServiceEntry addresses are required for this protocol."]);
    assert_eq!(count(&entry("", "resolution: DNS"), &captures), 0);
    assert_eq!(count(&entry("", "resolution: NONE"), &captures), 1);
    let without = entry(", labels: {networking.istio.io/enable-autoallocate-ip: 'false'}", "resolution: DNS");
    assert_eq!(count(&without, &captures), 1);
    assert_eq!(count(&entry("", "resolution: DNS"), &MeshConfig { ip_autoallocate: false, ..captures }), 1);
    assert_eq!(told(&entry("", "resolution: DNS, addresses: [192.0.2.1]")), [""; 0]);
}
