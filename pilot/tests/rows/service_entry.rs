//! Spec 1.6: ServiceEntry and WorkloadEntry.

use crate::told::{World, object, refused, texts};
use serde_json::{Value, json};

fn entry(spec: &str) -> World {
    World::new(&object("ServiceEntry", "e", spec))
}

// spec: SE-1, SE-5, PR-6
#[test]
fn wildcards_forward_to_where_the_client_went() {
    let told = entry("hosts: ['*.wild.com']\nresolution: NONE\nports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]").client();
    let cluster = told.cluster("outbound|80||*.wild.com");
    assert_eq!((&cluster["type"], &cluster["lb_policy"]), (&json!("ORIGINAL_DST"), &json!("CLUSTER_PROVIDED")));
    assert!(texts(&told.host("80", "*.wild.com:80")["domains"]).contains(&"*.wild.com"));
    assert_eq!(
        told.listener("0.0.0.0_443")["filter_chains"][0]["filter_chain_match"]["server_names"],
        json!(["*.wild.com"])
    );
    assert_eq!(
        refused("ServiceEntry", "hosts: ['*.a.com']\nresolution: DNS\nports: [{number: 80, name: a, protocol: HTTP}]"),
        "spec.hosts[0]"
    );
}

// spec: SE-1
#[test]
fn hosts_are_compared_in_lower_case_and_each_is_a_service() {
    let told = World::new(&object(
        "ServiceEntry",
        "e",
        "hosts: [Api.Example.Com, '*.wild.com']\nresolution: NONE\nports: [{number: 80, name: http, protocol: HTTP}]",
    ))
    .client();
    assert!(told.has_cluster("outbound|80||api.example.com") && told.has_cluster("outbound|80||*.wild.com"));
    let host = told.host("80", "*.wild.com:80");
    assert!(host["domains"].as_array().unwrap().contains(&"*.wild.com".into()), "{host}");
}

// spec: SE-2
#[test]
fn addresses_are_where_tcp_listens() {
    let told = entry("hosts: [db.com]\naddresses: [192.0.2.10]\nresolution: STATIC\nports: [{number: 5432, name: tcp, protocol: TCP}]\nendpoints: [{address: 198.51.100.1}]").client();
    assert!(told.has_listener("192.0.2.10_5432"));
    let anywhere = entry("hosts: [db.com]\nresolution: STATIC\nports: [{number: 5432, name: tcp, protocol: TCP}]\nendpoints: [{address: 198.51.100.1}]").client();
    assert!(anywhere.has_listener("0.0.0.0_5432"));
    let network = entry("hosts: [db.com]\naddresses: [192.0.2.0/24, 203.0.113.7/32]\nresolution: STATIC\nports: [{number: 5432, name: tcp, protocol: TCP}]\nendpoints: [{address: 198.51.100.1}]").client();
    let shared = network.listener("0.0.0.0_5432");
    let prefix = json!([{"address_prefix": "192.0.2.0", "prefix_len": 24}]);
    assert_eq!(shared["filter_chains"][0]["filter_chain_match"]["prefix_ranges"], prefix);
    assert_eq!(shared["default_filter_chain"]["name"], "PassthroughFilterChain", "other networks are not of it");
    assert!(network.has_listener("203.0.113.7_5432"), "a network of one address is that address");
    let other = |name: &str, networks: &str| {
        object(
            "ServiceEntry",
            name,
            &format!(
                "hosts: [{name}.com]\naddresses: [{networks}]\nresolution: STATIC\nports: [{{number: 1, name: tcp, protocol: TCP}}]\nendpoints: [{{address: 198.51.100.1}}]"
            ),
        )
    };
    let shared = World::new(&(other("one", "192.0.2.0/24") + &other("two", "192.0.2.0/24, 198.51.100.0/24")))
        .client()
        .listener("0.0.0.0_1");
    let second = json!([{"address_prefix": "198.51.100.0", "prefix_len": 24}]);
    assert_eq!(
        shared["filter_chains"][1]["filter_chain_match"]["prefix_ranges"], second,
        "a network is the first one's"
    );
    assert_eq!(
        refused("ServiceEntry", "hosts: [a.com]\naddresses: [x]\nports: [{number: 1, name: a, protocol: TCP}]"),
        "spec.addresses[0]"
    );
}

// spec: SE-3
#[test]
fn ports_have_names_protocols_and_targets() {
    let told = entry("hosts: [a.com]\nresolution: DNS\nports: [{number: 80, name: http, protocol: HTTP, targetPort: 8443}, {number: 81, name: h2, protocol: GRPC}]").client();
    let address = &told.cluster("outbound|80||a.com")["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        ["address"]["socket_address"];
    assert_eq!(*address, json!({"address": "a.com", "port_value": 8443}));
    assert!(
        told.cluster("outbound|81||a.com")["typed_extension_protocol_options"]
            .to_string()
            .contains("http2_protocol_options")
    );
    let twice = "hosts: [a.com]\nresolution: DNS\nports: [{number: 80, name: a, protocol: HTTP}, {number: 80, name: b, protocol: HTTP}]";
    assert_eq!(refused("ServiceEntry", twice), "spec.ports[1].number");
    assert_eq!(
        refused(
            "ServiceEntry",
            "hosts: [a.com]\nresolution: DNS\nports: [{number: 80, name: a, protocol: CARRIER_PIGEON}]"
        ),
        "spec.ports[0].protocol"
    );
}

// spec: SE-4, MD-4, XI-8
#[test]
fn what_is_outside_of_the_mesh_is_spoken_to_in_the_clear() {
    let cluster = |location: &str| {
        entry(&format!(
            "hosts: [a.com]\nlocation: {location}\nresolution: DNS\nports: [{{number: 80, name: http, protocol: HTTP}}]"
        ))
        .client()
        .cluster("outbound|80||a.com")
    };
    let outside = cluster("MESH_EXTERNAL");
    assert_eq!(
        (&outside["transport_socket_matches"], &outside["metadata"]["filter_metadata"]["istio"]["external"]),
        (&Value::Null, &json!(true))
    );
    let inside = cluster("MESH_INTERNAL");
    assert!(inside["transport_socket_matches"].is_array());
    assert_eq!(inside["metadata"]["filter_metadata"]["istio"]["external"], Value::Null);
}

// spec: SE-6, WE-1
#[test]
fn static_endpoints_have_ports_weights_and_localities() {
    let told = entry("hosts: [db.com]\nresolution: STATIC\nports: [{number: 5432, name: pg, protocol: TCP}]\nendpoints: [{address: 1.1.1.1, ports: {pg: 15432}, weight: 3, locality: eu/a/1}, {address: 1.1.1.2}]").client();
    let assignment = told.endpoints("outbound|5432||db.com");
    let first = assignment["endpoints"].as_array().unwrap().iter().find(|g| g["locality"]["region"] == "eu").unwrap();
    assert_eq!(first["locality"], json!({"region": "eu", "zone": "a", "sub_zone": "1"}));
    assert_eq!(
        (
            &first["load_balancing_weight"],
            &first["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"]
        ),
        (&json!(3), &json!(15432))
    );
    assert_eq!(first["lb_endpoints"][0]["health_status"], Value::Null, "nobody reports its health");
    assert_eq!(
        refused(
            "ServiceEntry",
            "hosts: [a.com]\nresolution: STATIC\nports: [{number: 1, name: a, protocol: TCP}]\nendpoints: [{address: name.com}]"
        ),
        "spec.endpoints[0].address"
    );
}

// spec: SE-7, SE-8, SE-12
#[test]
fn dns_is_asked_by_the_proxy() {
    let cluster = |config: &str, resolution: &str| {
        World::with_mesh(
            config,
            &object(
                "ServiceEntry",
                "e",
                &format!(
                    "hosts: [a.com]\nresolution: {resolution}\nports: [{{number: 80, name: http, protocol: HTTP}}]"
                ),
            ),
        )
        .client()
        .cluster("outbound|80||a.com")
    };
    let strict = cluster("", "DNS");
    assert_eq!(
        (&strict["type"], &strict["dns_refresh_rate"], &strict["respect_dns_ttl"], &strict["dns_jitter"]),
        (&json!("STRICT_DNS"), &json!("60s"), &json!(true), &json!("0.100s"))
    );
    assert_eq!(cluster("", "DNS_ROUND_ROBIN")["type"], "LOGICAL_DNS");
    assert_eq!(cluster("dnsRefreshRate: 5s\n", "DNS")["dns_refresh_rate"], "5s");
    let named = entry("hosts: [a.com]\nresolution: DNS\nports: [{number: 80, name: http, protocol: HTTP}]\nendpoints: [{address: real.com}]").client().cluster("outbound|80||a.com").to_string();
    assert!(named.contains("\"real.com\""), "endpoints' names come before the host");
    assert_eq!(
        refused(
            "ServiceEntry",
            "hosts: [a.com]\nresolution: DYNAMIC_DNS\nports: [{number: 80, name: a, protocol: HTTP}]"
        ),
        "spec.resolution"
    );
}

// spec: SE-10, PI-20
#[test]
fn a_selector_picks_entries_and_pods_and_services_pick_entries() {
    let vm = object("WorkloadEntry", "w", "address: 10.9.9.9\nlabels: {app: reviews, version: v9}\nserviceAccount: vm");
    let service = object(
        "ServiceEntry",
        "e",
        "hosts: [vm.internal]\nlocation: MESH_INTERNAL\nresolution: STATIC\nports: [{number: 80, name: http, protocol: HTTP, targetPort: 9090}]\nworkloadSelector: {labels: {app: reviews}}",
    );
    let told = World::new(&format!("{vm}{service}")).client();
    let mut addresses = told.addresses("outbound|80||vm.internal");
    addresses.sort();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.9.9.9"]);
    assert!(
        told.addresses(crate::told::REVIEWS).contains(&"10.9.9.9".to_owned()),
        "a Kubernetes service selects entries too"
    );
    let identities = told.cluster(crate::told::REVIEWS).to_string();
    assert!(identities.contains("spiffe://cluster.local/ns/default/sa/vm"));
    let both = "hosts: [a.com]\nresolution: STATIC\nports: [{number: 1, name: a, protocol: TCP}]\nendpoints: [{address: 1.1.1.1}]\nworkloadSelector: {labels: {a: b}}";
    assert_eq!(refused("ServiceEntry", both), "spec.workloadSelector");
    let several = "hosts: [a.com]\nresolution: DNS_ROUND_ROBIN\nports: [{number: 1, name: a, protocol: TCP}]\nendpoints: [{address: b.com}, {address: c.com}]";
    assert_eq!(refused("ServiceEntry", several), "spec.endpoints");
}

// spec: SE-10
#[test]
fn pods_take_no_traffic_before_they_are_ready_and_once_they_end() {
    let pod = |name: &str, meta: &str, conditions: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: db}}{meta}}}\nspec: {{}}\nstatus: {{podIP: {name}, conditions: [{conditions}]}}\n"
        )
    };
    let ready = "{type: PodScheduled, status: 'True'}, {type: Ready, status: 'True'}";
    let pods = pod("10.0.8.1", "", ready)
        + &pod("10.0.8.2", "", "{type: PodScheduled, status: 'True'}, {type: Ready, status: 'False'}")
        + &pod("10.0.8.3", "", "{type: PodScheduled, status: 'True'}")
        + &pod("10.0.8.4", ", deletionTimestamp: '2026-01-01T00:00:00Z'", ready)
        + &pod("10.0.8.5", "", "");
    let world = |resolution: &str| {
        let entry = format!(
            "hosts: [db.internal]\nlocation: MESH_INTERNAL\nresolution: {resolution}\nports: [{{number: 80, name: http, protocol: HTTP}}]\nworkloadSelector: {{labels: {{app: db}}}}"
        );
        World::new(&format!("{pods}{}", object("ServiceEntry", "e", &entry)))
    };
    let told = world("STATIC").client();
    assert_eq!(told.addresses("outbound|80||db.internal"), ["10.0.8.1", "10.0.8.5"]);
    let of_dns = world("DNS").client().cluster("outbound|80||db.internal")["load_assignment"].to_string();
    assert!(of_dns.contains("10.0.8.1") && !of_dns.contains("10.0.8.2"), "{of_dns}");
    let own = world("STATIC").node("sidecar~10.0.8.2~x.default~default.svc.cluster.local", &[]);
    assert!(own.has_cluster("inbound|80||"), "its own proxy knows what it will serve");
}

// spec: SE-11, GEN-4
#[test]
fn export_and_names_of_the_server() {
    let spec = |export: &str| {
        format!(
            "hosts: [a.com]\nexportTo: ['{export}']\nresolution: DNS\nports: [{{number: 443, name: http, protocol: HTTP}}]\nsubjectAltNames: [san.com]"
        )
    };
    let told = |export: &str| World::new(&crate::told::object_in("other", "ServiceEntry", "e", &spec(export))).client();
    assert!(
        told("*").has_cluster("outbound|443||a.com")
            && !told(".").has_cluster("outbound|443||a.com")
            && !told("~").has_cluster("outbound|443||a.com")
    );
    let rule = object("DestinationRule", "r", "host: a.com\ntrafficPolicy: {tls: {mode: SIMPLE, sni: a.com}}");
    let world = World::new(&format!("{}{rule}", object("ServiceEntry", "e", &spec("*"))));
    assert!(world.client().cluster("outbound|443||a.com").to_string().contains("san.com"));
}

// spec: SE-11, MT-6
#[test]
fn names_of_the_server_are_expected_beside_identities_of_its_endpoints() {
    let entry = object(
        "ServiceEntry",
        "e",
        "hosts: [db.internal]\nlocation: MESH_INTERNAL\nresolution: STATIC\nports: [{number: 80, name: http, protocol: HTTP}]\nendpoints: [{address: 10.9.9.9, serviceAccount: vm}]\nsubjectAltNames: [db.example, 'spiffe://other/ns/a/sa/b']",
    );
    let names = |mode: &str| {
        let rule = match mode {
            "" => String::new(),
            mode => {
                object("DestinationRule", "r", &format!("host: db.internal\ntrafficPolicy: {{tls: {{mode: {mode}}}}}"))
            }
        };
        let cluster = World::new(&format!("{entry}{rule}")).client().cluster("outbound|80||db.internal");
        let socket = match mode {
            "" => &cluster["transport_socket_matches"][0]["transport_socket"],
            _ => &cluster["transport_socket"],
        };
        socket["typed_config"]["common_tls_context"]["combined_validation_context"]["default_validation_context"]["match_subject_alt_names"].clone()
    };
    let all = json!([
        {"exact": "db.example"},
        {"exact": "spiffe://cluster.local/ns/default/sa/vm"},
        {"exact": "spiffe://other/ns/a/sa/b"}
    ]);
    assert_eq!((names(""), names("ISTIO_MUTUAL")), (all.clone(), all));
    let own = json!([{"exact": "db.example"}, {"exact": "spiffe://other/ns/a/sa/b"}]);
    assert_eq!(names("SIMPLE"), own, "a server outside of the mesh has no identity in it");
}

// spec: SE-13, DN-1
#[test]
fn hosts_without_addresses_get_some_where_the_proxy_answers_dns() {
    let database = |name: &str, namespace: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  hosts: [{name}.example]\n  resolution: STATIC\n  ports: [{{number: 5432, name: tcp, protocol: TCP}}, {{number: 5433, name: other}}, {{number: 6432, name: tls, protocol: TLS}}]\n  endpoints: [{{address: 198.51.100.1}}]\n"
        )
    };
    let world = World::new(&(database("red", "default") + &database("blue", "other")));
    let id = "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local";
    let told = world.with_metadata(id, &[("DNS_CAPTURE", "true")]);
    let table = told.name_table().table;
    let mut seen = Vec::new();
    for host in ["red.example", "blue.example"] {
        let [address] = table[host].ips.as_slice() else { panic!("one address of its family: {:?}", table[host]) };
        assert!(address.starts_with("240.240.") && !seen.contains(address), "{address}");
        seen.push(address.clone());
        let chain = &told.listener(&format!("{address}_5432"))["filter_chains"][0];
        assert!(chain.to_string().contains(&format!("outbound|5432||{host}")), "{chain}");
        assert!(told.has_listener(&format!("{address}_5433")), "of a port whose protocol is found out as well");
        let tls = told.listener(&format!("{address}_6432"));
        assert!(tls["filter_chains"][0]["filter_chain_match"].is_null(), "no name is needed to tell it apart: {tls}");
    }
    assert!(!told.has_listener("0.0.0.0_5432") && !told.has_listener("0.0.0.0_6432"));
    let both = world.with_metadata(id, &[("DNS_CAPTURE", "true"), ("INSTANCE_IPS", "10.0.0.9,fd00::9")]);
    let six = &both.name_table().table["red.example"].ips[1];
    assert!(six.starts_with("2001:2::") && both.has_listener(&format!("[{six}]_5432")), "{six}");

    // Who asks another server for names never connects to such an address.
    let plain = world.client();
    assert!(plain.has_listener("0.0.0.0_5432") && !plain.name_table().table.contains_key("red.example"));
}
