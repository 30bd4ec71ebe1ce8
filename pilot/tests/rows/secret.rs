//! Secrets for gateways and for TLS that rules begin (spec 3.3, GW-12).

use crate::told::{Told, World, object, object_in, refused};
use pilot::translate::cache::ResourceType;
use serde_json::{Value, json};

/// A Secret of a namespace with the test certificates.
fn secret(namespace: &str, name: &str, fields: &[(&str, &str)]) -> String {
    let pki = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/pki");
    let field = |(name, file): &(&str, &str)| {
        let text = std::fs::read_to_string(pki.join(file)).unwrap();
        let lines: String = text.lines().map(|line| format!("    {line}\n")).collect();
        format!("  {name}: |\n{lines}")
    };
    let fields: String = fields.iter().map(field).collect();
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData:\n{fields}"
    )
}

const PAIR: [(&str, &str); 2] = [("tls.crt", "server.pem"), ("tls.key", "server.key")];

fn server(host: &str, tls: &str) -> String {
    format!("{{port: {{number: 443, name: https-{host}, protocol: HTTPS}}, hosts: [{host}], tls: {{{tls}}}}}")
}

fn gateway(servers: &[String]) -> String {
    object("Gateway", "g", &format!("selector: {{istio: ingressgateway}}\nservers: [{}]", servers.join(", ")))
}

fn context(told: &Told, at: usize) -> Value {
    told.listener("0.0.0.0_443")["filter_chains"][at]["transport_socket"]["typed_config"].clone()
}

fn ads(name: &str) -> Value {
    json!({"name": name, "sds_config": {"ads": {}, "resource_api_version": "V3"}})
}

// spec: GW-6, GW-7, GW-12, NM-12, XI-4
#[test]
fn credentials_are_secrets_on_the_same_stream() {
    let servers = [
        server("a.com", "mode: SIMPLE, credentialName: a"),
        server("b.com", "mode: MUTUAL, credentialName: b, subjectAltNames: [client]"),
        server("c.com", "mode: OPTIONAL_MUTUAL, credentialNames: [c-rsa, c-ec], caCertCredentialName: clients"),
    ];
    let secrets = [
        secret("istio-system", "a", &PAIR),
        secret("istio-system", "b", &[&PAIR[..], &[("ca.crt", "roots.pem")]].concat()),
        secret("istio-system", "c-ec", &PAIR),
        secret("istio-system", "clients", &[("cacert", "roots.pem")]),
        secret("istio-system", "unnamed", &PAIR),
    ];
    let told = World::new(&format!("{}{}", gateway(&servers), secrets.concat())).gateway();
    let own = |at: usize| context(&told, at)["common_tls_context"]["tls_certificate_sds_secret_configs"].clone();
    let roots = |at: usize| {
        context(&told, at)["common_tls_context"]["combined_validation_context"]["validation_context_sds_secret_config"]
            .clone()
    };
    assert_eq!((own(0), roots(0)), (json!([ads("kubernetes://a")]), Value::Null));
    assert_eq!((own(1), roots(1)), (json!([ads("kubernetes://b")]), ads("kubernetes://b-cacert")));
    assert_eq!(context(&told, 1)["require_client_certificate"], true);
    assert_eq!(own(2), json!([ads("kubernetes://c-rsa"), ads("kubernetes://c-ec")]));
    assert_eq!(
        (roots(2), &context(&told, 2)["require_client_certificate"]),
        (ads("kubernetes://clients-cacert"), &json!(false))
    );
    let there = ["a", "b", "b-cacert", "c-ec", "clients-cacert"].map(|name| format!("kubernetes://{name}"));
    assert_eq!(
        told.names(ResourceType::Secret),
        there,
        "what is missing takes nothing else away, and nothing more is told"
    );
}

// spec: CA-27
#[test]
fn a_gateway_has_secrets_of_its_own_namespace_alone() {
    let servers = [
        server("a.com", "mode: SIMPLE, credentialName: a"),
        server("b.com", "mode: SIMPLE, credentialName: kubernetes://default/a"),
    ];
    let told = World::new(&format!("{}{}", gateway(&servers), secret("default", "a", &PAIR))).gateway();
    assert_eq!(told.names(ResourceType::Secret), Vec::<String>::new());
    let told = World::new(&format!("{}{}", gateway(&servers), secret("istio-system", "a", &PAIR))).gateway();
    assert_eq!(told.names(ResourceType::Secret), ["kubernetes://a"]);
}

// spec: GW-12
#[test]
fn credentials_that_make_no_sense_are_refused_by_field() {
    let field = |tls: &str| refused("Gateway", &format!("servers: [{}]", server("a.com", tls)));
    assert_eq!(field("mode: SIMPLE, credentialName: n/a"), "spec.servers[0].tls.credentialName");
    assert_eq!(field("mode: SIMPLE, credentialNames: [a, b, c]"), "spec.servers[0].tls.credentialNames");
    assert_eq!(field("mode: SIMPLE, credentialName: a, credentialNames: [a]"), "spec.servers[0].tls.credentialNames");
    assert_eq!(field("mode: ISTIO_MUTUAL, credentialName: a"), "spec.servers[0].tls");
    assert_eq!(
        field("mode: MUTUAL, credentialName: a, caCertCredentialName: 'sds://x'"),
        "spec.servers[0].tls.caCertCredentialName"
    );
}

// spec: DR-35, SA-38
#[test]
fn a_rule_names_secrets_for_gateways_and_for_the_workloads_that_it_selects() {
    let rule = |selector: &str| {
        object_in(
            "istio-system",
            "DestinationRule",
            "d",
            &format!(
                "host: far.other.svc.cluster.local\n{selector}trafficPolicy: {{tls: {{mode: MUTUAL, credentialName: c}}}}"
            ),
        )
    };
    let pair = secret("istio-system", "c", &[&PAIR[..], &[("ca.crt", "roots.pem")]].concat());
    let far = "outbound|8080||far.other.svc.cluster.local";
    let world = World::new(&format!("{}{pair}", rule("")));
    let told = world.gateway();
    let common = told.cluster(far)["transport_socket"]["typed_config"]["common_tls_context"].clone();
    assert_eq!(common["tls_certificate_sds_secret_configs"], json!([ads("kubernetes://c")]));
    let roots = &common["combined_validation_context"]["validation_context_sds_secret_config"];
    assert_eq!(*roots, ads("kubernetes://c-cacert"));
    assert_eq!(told.names(ResourceType::Secret), ["kubernetes://c", "kubernetes://c-cacert"]);

    let sidecar = world.client();
    assert_eq!(sidecar.cluster(far)["transport_socket"], Value::Null, "it gets no secret, and so speaks plainly");
    assert_eq!(sidecar.names(ResourceType::Secret), Vec::<String>::new());
    let own = rule("workloadSelector: {matchLabels: {app: client}}\n").replace("istio-system", "default");
    let simple = own.replace("mode: MUTUAL", "mode: SIMPLE");
    let pair = pair.replace("istio-system", "default");
    let sidecar = World::new(&format!("{own}{pair}")).client();
    assert_eq!(sidecar.names(ResourceType::Secret), ["kubernetes://c", "kubernetes://c-cacert"]);
    let sidecar = World::new(&format!("{simple}{pair}")).client();
    assert_eq!(sidecar.names(ResourceType::Secret), ["kubernetes://c-cacert"], "SIMPLE shows no certificate");
}
