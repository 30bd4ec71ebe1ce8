//! Spec 1.11 and 1.13: PeerAuthentication and AuthorizationPolicy.

use crate::told::{World, object, object_in, refused};
use serde_json::{Value, json};

fn chains(yaml: &str) -> Vec<String> {
    let chains = World::new(yaml).server().inbound();
    let text = |chain: &Value| {
        let condition = &chain["filter_chain_match"];
        let tls = if chain["transport_socket"].is_object() { " terminated" } else { "" };
        format!(
            "{} {} {}{tls}",
            condition["destination_port"].as_u64().unwrap_or(0),
            condition["transport_protocol"].as_str().unwrap_or("any"),
            condition["application_protocols"].as_array().map_or(0, Vec::len)
        )
    };
    let mut out: Vec<String> = chains.iter().map(text).filter(|text| text.starts_with("9080 ")).collect();
    out.sort();
    out
}

fn peer(mode: &str) -> String {
    object("PeerAuthentication", "p", &format!("mtls: {{mode: {mode}}}"))
}

// spec: PA-1, PA-4, MT-4, MT-5
#[test]
fn modes_decide_which_connections_are_accepted() {
    let permissive = ["9080 raw_buffer 0", "9080 tls 5 terminated"];
    assert_eq!(chains(""), permissive, "nothing configured is PERMISSIVE");
    assert_eq!(chains(&peer("PERMISSIVE")), permissive);
    assert_eq!(chains(&peer("UNSET")), permissive);
    assert_eq!(chains(&peer("STRICT")), ["9080 tls 0 terminated"]);
    assert_eq!(chains(&peer("DISABLE")), ["9080 raw_buffer 0"]);
}

// spec: PA-2, PA-3
#[test]
fn ports_of_the_workload_have_modes_of_their_own() {
    let policy =
        "selector: {matchLabels: {app: reviews}}\nportLevelMtls: {9080: {mode: STRICT}, 7070: {mode: DISABLE}}";
    assert_eq!(chains(&object("PeerAuthentication", "p", policy)), ["9080 tls 0 terminated"]);
    let told = World::new(&object("PeerAuthentication", "p", policy)).server();
    let other: Vec<_> =
        told.inbound().iter().filter(|c| c["filter_chain_match"]["destination_port"] == 7070).cloned().collect();
    assert!(
        other.iter().all(|chain| chain["filter_chain_match"]["transport_protocol"] == "raw_buffer") && other.len() == 2
    );
    let inherits =
        "selector: {matchLabels: {app: reviews}}\nmtls: {mode: STRICT}\nportLevelMtls: {9080: {mode: UNSET}}";
    assert_eq!(chains(&object("PeerAuthentication", "p", inherits)), ["9080 tls 0 terminated"], "the workload's mode");
    assert_eq!(refused("PeerAuthentication", "portLevelMtls: {80: {mode: STRICT}}"), "spec.portLevelMtls");
    assert_eq!(
        refused("PeerAuthentication", "selector: {matchLabels: {a: b}}\nportLevelMtls: {http: {mode: STRICT}}"),
        "spec.portLevelMtls.http"
    );
}

// spec: PA-3, GEN-5, GEN-6
#[test]
fn mesh_namespace_and_workload_compose_and_unset_inherits() {
    let mesh = object_in("istio-system", "PeerAuthentication", "m", "mtls: {mode: STRICT}");
    let namespace = peer("DISABLE");
    let workload = |mode: &str| {
        object(
            "PeerAuthentication",
            "w",
            &format!("selector: {{matchLabels: {{app: reviews}}}}\nmtls: {{mode: {mode}}}"),
        )
    };
    let strict = ["9080 tls 0 terminated"];
    assert_eq!(chains(&mesh), strict);
    assert_eq!(chains(&format!("{mesh}{namespace}")), ["9080 raw_buffer 0"]);
    assert_eq!(chains(&format!("{mesh}{namespace}{}", workload("STRICT"))), strict);
    assert_eq!(chains(&format!("{mesh}{}", workload("UNSET"))), strict);
    let other = object("PeerAuthentication", "w", "selector: {matchLabels: {app: other}}\nmtls: {mode: STRICT}");
    assert_eq!(chains(&other).len(), 2, "not for this workload");
    assert_eq!(
        chains(&object_in("other", "PeerAuthentication", "n", "mtls: {mode: STRICT}")).len(),
        2,
        "not for this namespace"
    );
    let older = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: z, namespace: default, creationTimestamp: '2020-01-01T00:00:00Z'}\nspec: {mtls: {mode: STRICT}}\n";
    let younger = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: default, creationTimestamp: '2021-01-01T00:00:00Z'}\nspec: {mtls: {mode: DISABLE}}\n";
    assert_eq!(chains(&format!("{younger}{older}")), strict, "the oldest wins inside a scope");
}

// spec: PA-5, OD-4
#[test]
fn strict_holds_for_ports_without_a_service_too() {
    let chains = World::new(&peer("STRICT")).server().inbound();
    let rest: Vec<_> = chains
        .iter()
        .filter(|c| {
            c["name"].as_str().unwrap().starts_with("virtualInbound") && c["name"] != "virtualInbound-blackhole"
        })
        .collect();
    assert_eq!(rest.len(), 2);
    assert!(rest.iter().all(
        |chain| chain["filter_chain_match"]["transport_protocol"] == "tls" && chain["transport_socket"].is_object()
    ));
}

// spec: PA-6, MT-7
#[test]
fn clients_know_which_endpoint_takes_mesh_mtls() {
    let tls = |yaml: &str| {
        let assignment = World::new(yaml).client().endpoints(crate::told::REVIEWS);
        let groups = assignment["endpoints"].as_array().unwrap().clone();
        let all = groups.iter().flat_map(|group| group["lb_endpoints"].as_array().unwrap().clone());
        all.filter(|e| e["metadata"]["filter_metadata"]["envoy.transport_socket_match"]["tlsMode"] == "istio").count()
    };
    assert_eq!(tls(""), 2, "the third has no proxy");
    assert_eq!(tls(&peer("DISABLE")), 0);
    let one = "selector: {matchLabels: {version: v1}}\nportLevelMtls: {9080: {mode: DISABLE}}";
    assert_eq!(tls(&object("PeerAuthentication", "p", one)), 1);
}

/// The RBAC filters of the HTTP chain of `reviews`, and of the TCP chain for other ports.
fn filters(yaml: &str) -> (Vec<Value>, Vec<Value>) {
    filters_in(&World::new(yaml))
}

fn filters_in(world: &World) -> (Vec<Value>, Vec<Value>) {
    let chains = world.server().inbound();
    let http = chains.iter().find(|chain| chain["filter_chain_match"]["destination_port"] == 9080).unwrap();
    let manager = crate::told::manager(http);
    let tcp = chains.iter().find(|chain| chain["name"] == "virtualInbound").unwrap();
    let of = |list: &Value, name: &str| -> Vec<Value> {
        list.as_array().unwrap().iter().filter(|f| f["name"] == name).map(|f| f["typed_config"].clone()).collect()
    };
    (of(&manager["http_filters"], "envoy.filters.http.rbac"), of(&tcp["filters"], "envoy.filters.network.rbac"))
}

fn policy(spec: &str) -> (Vec<Value>, Vec<Value>) {
    filters(&object("AuthorizationPolicy", "p", spec))
}

/// The only policy of the only filter.
fn rule(rule: &str) -> Value {
    let (http, _) = policy(&format!("rules:\n- {rule}"));
    http[0]["rules"]["policies"]["ns[default]-policy[p]-rule[0]"].clone()
}

fn permissions(operation: &str) -> Value {
    rule(&format!("to: [{{operation: {operation}}}]"))["permissions"][0]["and_rules"]["rules"].clone()
}

fn principals(source: &str) -> Value {
    rule(&format!("from: [{{source: {source}}}]"))["principals"][0]["and_ids"]["ids"].clone()
}

// spec: AZ-1, AZ-2, FC-1
#[test]
fn audit_deny_and_allow_in_this_order_each_where_it_exists() {
    let of = |name: &str, action: &str| {
        object(
            "AuthorizationPolicy",
            name,
            &format!("action: {action}\nrules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]"),
        )
    };
    let (http, tcp) = filters(&format!("{}{}{}", of("a", "ALLOW"), of("d", "DENY"), of("l", "AUDIT")));
    let actions: Vec<_> = http.iter().map(|filter| filter["rules"]["action"].as_str().unwrap_or("ALLOW")).collect();
    assert_eq!(actions, ["LOG", "DENY", "ALLOW"]);
    assert_eq!(tcp.len(), 3);
    assert_eq!(filters("").0.len(), 0);
    assert_eq!(policy("rules: [{}]").0[0]["rules"]["action"], Value::Null, "ALLOW is the default");
}

// spec: AZ-3
#[test]
fn policies_of_the_root_namespace_and_of_the_own_one_apply_by_selector() {
    let spec = |selector: &str| format!("{selector}rules: [{{}}]");
    assert_eq!(filters(&object_in("istio-system", "AuthorizationPolicy", "r", &spec(""))).0.len(), 1);
    assert_eq!(filters(&object_in("other", "AuthorizationPolicy", "o", &spec(""))).0.len(), 0);
    assert_eq!(policy(&spec("selector: {matchLabels: {app: reviews}}\n")).0.len(), 1);
    assert_eq!(policy(&spec("selector: {matchLabels: {app: other}}\n")).0.len(), 0);
}

// spec: AZ-4
#[test]
fn no_rules_never_match_and_an_empty_rule_matches_everything() {
    let (http, _) =
        filters("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {}\n");
    let never = &http[0]["rules"]["policies"]["ns[default]-policy[p]-rule[0]"];
    assert_eq!(never["permissions"], json!([{"not_rule": {"any": true}}]));
    let (http, _) = policy("rules: [{}]");
    let all = &http[0]["rules"]["policies"]["ns[default]-policy[p]-rule[0]"];
    assert_eq!(all["principals"], json!([{"and_ids": {"ids": [{"any": true}]}}]));
    assert_eq!(all["permissions"], json!([{"and_rules": {"rules": [{"any": true}]}}]));
}

// spec: AZ-5
#[test]
fn sources_and_operations_are_alternatives_and_their_fields_all_hold() {
    let found = rule(
        "from: [{source: {namespaces: [a]}}, {source: {namespaces: [b], notNamespaces: [c]}}]\n  to: [{operation: {methods: [GET, PUT]}}, {operation: {notMethods: [DELETE]}}]",
    );
    assert_eq!(found["principals"].as_array().unwrap().len(), 2);
    assert_eq!(found["principals"][1]["and_ids"]["ids"].as_array().unwrap().len(), 2);
    assert_eq!(found["permissions"][0]["and_rules"]["rules"][0]["or_rules"]["rules"].as_array().unwrap().len(), 2);
    assert!(found["permissions"][1]["and_rules"]["rules"][0]["not_rule"]["or_rules"].is_object());
    let (http, _) = policy("rules: [{}, {}]");
    assert_eq!(http[0]["rules"]["policies"].as_object().unwrap().len(), 2, "rules are alternatives");
}

fn id(source: &str) -> Value {
    principals(source)[0]["or_ids"]["ids"][0]["authenticated"]["principal_name"].clone()
}

// spec: AZ-6, AZ-16
#[test]
fn principals_come_from_the_certificate() {
    assert_eq!(id("{principals: [cluster.local/ns/a/sa/b]}"), json!({"exact": "spiffe://cluster.local/ns/a/sa/b"}));
    assert_eq!(id("{principals: ['cluster.local/ns/a/*']}"), json!({"prefix": "spiffe://cluster.local/ns/a/"}));
    assert_eq!(id("{principals: ['*/sa/b']}"), json!({"suffix": "/sa/b"}));
    assert_eq!(id("{principals: ['*']}"), json!({"safe_regex": {"regex": ".+"}}));
    assert!(principals("{notPrincipals: [a]}")[0]["not_id"]["or_ids"].is_object());
    let world = World::with_mesh(
        "trustDomain: corp\n",
        &object("AuthorizationPolicy", "p", "rules: [{from: [{source: {principals: [cluster.local/ns/a/sa/b]}}]}]"),
    );
    assert!(
        world.server().listener("virtualInbound").to_string().contains("spiffe://corp/ns/a/sa/b"),
        "cluster.local is the mesh's own domain"
    );
}

// spec: AZ-7
#[test]
fn namespaces_accounts_and_trust_domains() {
    assert_eq!(id("{namespaces: [a]}"), json!({"safe_regex": {"regex": ".*/ns/a/.*"}}));
    assert_eq!(id("{serviceAccounts: [a/b]}"), json!({"safe_regex": {"regex": "spiffe://.+/ns/a/(.+/|)sa/b(/.+)?"}}));
    let own = json!({"safe_regex": {"regex": "spiffe://.+/ns/default/(.+/|)sa/b\\.c(/.+)?"}});
    assert_eq!(id("{serviceAccounts: [b.c]}"), own, "of the policy's namespace, and a dot is a dot");
    assert_eq!(principals("{notServiceAccounts: [b]}")[0]["not_id"]["or_ids"]["ids"].as_array().unwrap().len(), 1);
    assert_eq!(id("{trustDomains: [corp.com]}"), json!({"safe_regex": {"regex": "spiffe://corp\\.com/.*"}}));
    let wild = "rules: [{from: [{source: {serviceAccounts: ['a/*']}}]}]";
    assert_eq!(refused("AuthorizationPolicy", wild), "spec.rules[0].from[0].source.serviceAccounts[0]");
    let mixed = "rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]";
    assert_eq!(refused("AuthorizationPolicy", mixed), "spec.rules[0].from[0].source.serviceAccounts");
}

// spec: AZ-8, AZ-15
#[test]
fn tokens_are_issuer_subject_and_claims() {
    let metadata = |principal: &Value| {
        let own = &principal["metadata"];
        let path: Vec<&str> = own["path"].as_array().unwrap().iter().map(|p| p["key"].as_str().unwrap()).collect();
        (path.join("."), own["value"].clone())
    };
    let both = principals("{requestPrincipals: ['https://i.com/*']}")[0]["and_ids"]["ids"].clone();
    assert_eq!(metadata(&both[0]), ("payload.iss".into(), json!({"string_match": {"exact": "https://i.com"}})));
    assert_eq!(metadata(&both[1]), ("payload.sub".into(), json!({"string_match": {"safe_regex": {"regex": ".+"}}})));
    assert!(principals("{notRequestPrincipals: ['*']}")[0]["not_id"]["and_ids"].is_object());
    let condition = |key: &str| {
        let found = rule(&format!("when: [{{key: '{key}', values: [x]}}]"));
        metadata(&found["principals"][0]["and_ids"]["ids"][0])
    };
    let (path, value) = condition("request.auth.claims[a][b]");
    assert_eq!(path, "payload.a.b");
    assert_eq!(
        value["or_match"]["value_matchers"],
        json!([{"list_match": {"one_of": {"string_match": {"exact": "x"}}}}, {"string_match": {"exact": "x"}}])
    );
    assert_eq!(
        (condition("request.auth.audiences").0.as_str(), condition("request.auth.presenter").0.as_str()),
        ("payload.aud", "payload.azp")
    );
    let (_, tcp) = policy("rules: [{from: [{source: {requestPrincipals: ['*']}}]}]");
    assert_eq!(tcp[0]["rules"]["policies"], Value::Null, "a connection has no token");
}

// spec: AZ-9, AZ-10
#[test]
fn direct_and_original_addresses() {
    let direct = principals("{ipBlocks: [10.0.0.0/8, 1.2.3.4]}")[0]["or_ids"]["ids"].clone();
    assert_eq!(
        direct,
        json!([{"direct_remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}, {"direct_remote_ip": {"address_prefix": "1.2.3.4", "prefix_len": 32}}])
    );
    assert!(principals("{remoteIpBlocks: [10.0.0.0/8]}")[0]["or_ids"]["ids"][0]["remote_ip"].is_object());
    assert_eq!(
        refused("AuthorizationPolicy", "rules: [{from: [{source: {ipBlocks: [x]}}]}]"),
        "spec.rules[0].from[0].source.ipBlocks[0]"
    );
}

// spec: AZ-11, AZ-12, AZ-13
#[test]
fn hosts_ports_and_methods() {
    let only = |operation: &str| permissions(operation)[0]["or_rules"]["rules"][0].clone();
    assert_eq!(
        only("{hosts: [A.com]}"),
        json!({"header": {"name": ":authority", "string_match": {"exact": "A.com", "ignore_case": true}}})
    );
    assert_eq!(only("{ports: ['9080']}"), json!({"destination_port": 9080}));
    assert_eq!(only("{methods: [GET]}"), json!({"header": {"name": ":method", "string_match": {"exact": "GET"}}}));
    for not in ["notHosts: [a]", "notPorts: ['1']", "notMethods: [a]", "notPaths: [/a]"] {
        assert!(permissions(&format!("{{{not}}}"))[0]["not_rule"].is_object(), "{not}");
    }
    assert_eq!(
        refused("AuthorizationPolicy", "rules: [{to: [{operation: {ports: [http]}}]}]"),
        "spec.rules[0].to[0].operation.ports[0]"
    );
}

// spec: AZ-14
#[test]
fn paths_match_exactly_by_prefix_suffix_presence_and_template() {
    let only = |path: &str| permissions(&format!("{{paths: ['{path}']}}"))[0]["or_rules"]["rules"][0].clone();
    assert_eq!(only("/a")["url_path"]["path"], json!({"exact": "/a"}));
    assert_eq!(only("/a*")["url_path"]["path"], json!({"prefix": "/a"}));
    assert_eq!(only("*.x")["url_path"]["path"], json!({"suffix": ".x"}));
    assert_eq!(only("*")["url_path"]["path"], json!({"safe_regex": {"regex": ".+"}}));
    assert_eq!(only("/x/{*}/y/{**}")["uri_template"]["typed_config"]["path_template"], "/x/*/y/**");
    assert_eq!(
        refused("AuthorizationPolicy", "rules: [{to: [{operation: {paths: ['/a{*}*']}}]}]"),
        "spec.rules[0].to[0].operation.paths[0]"
    );
}

// spec: AZ-15
#[test]
fn conditions_on_attributes() {
    let condition = |key: &str, value: &str| rule(&format!("when: [{{key: '{key}', values: ['{value}']}}]"));
    let source = |key: &str, value: &str| {
        condition(key, value)["principals"][0]["and_ids"]["ids"][0]["or_ids"]["ids"][0].clone()
    };
    let target = |key: &str, value: &str| {
        condition(key, value)["permissions"][0]["and_rules"]["rules"][0]["or_rules"]["rules"][0].clone()
    };
    assert_eq!(source("request.headers[x-a]", "b"), json!({"header": {"name": "x-a", "string_match": {"exact": "b"}}}));
    assert_eq!(source("request.headers[x-a]", "*"), json!({"header": {"name": "x-a", "present_match": true}}));
    assert!(source("source.ip", "1.2.3.4")["direct_remote_ip"].is_object());
    assert!(source("remote.ip", "1.2.3.4")["remote_ip"].is_object());
    for key in ["source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain"] {
        assert!(source(key, "a")["authenticated"].is_object(), "{key}");
    }
    assert!(target("destination.ip", "1.2.3.4")["destination_ip"].is_object());
    assert_eq!(target("destination.port", "80"), json!({"destination_port": 80}));
    assert_eq!(target("connection.sni", "a.com"), json!({"requested_server_name": {"exact": "a.com"}}));
    let not = rule("when: [{key: source.ip, notValues: [1.2.3.4]}]");
    assert!(not["principals"][0]["and_ids"]["ids"][0]["not_id"].is_object());
    assert_eq!(
        refused("AuthorizationPolicy", "rules: [{when: [{key: moon.phase, values: [full]}]}]"),
        "spec.rules[0].when[0].key"
    );
    assert_eq!(refused("AuthorizationPolicy", "rules: [{when: [{key: source.ip}]}]"), "spec.rules[0].when[0].values");
}

// spec: AZ-17
#[test]
fn on_tcp_an_allow_rule_with_http_fields_never_matches_and_a_deny_rule_loses_them() {
    let rules = "rules: [{to: [{operation: {methods: [GET], ports: ['1']}}]}, {to: [{operation: {ports: ['2']}}]}]";
    let names = |filter: &Value| filter["rules"]["policies"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (_, tcp) = policy(rules);
    assert_eq!(names(&tcp[0]), ["ns[default]-policy[p]-rule[1]"]);
    let (_, tcp) = policy(&format!("action: DENY\n{rules}"));
    assert_eq!(names(&tcp[0]).len(), 2);
    let lost = &tcp[0]["rules"]["policies"]["ns[default]-policy[p]-rule[0]"]["permissions"][0]["and_rules"]["rules"];
    assert_eq!(*lost, json!([{"or_rules": {"rules": [{"destination_port": 1}]}}]));
    assert_eq!(tcp[0]["stat_prefix"], "tcp.");
}

// spec: AZ-18
#[test]
fn policies_are_named_so_that_a_denial_names_its_rule() {
    let (http, _) = filters(&object_in("istio-system", "AuthorizationPolicy", "deny", "action: DENY\nrules: [{}, {}]"));
    let names: Vec<_> = http[0]["rules"]["policies"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["ns[istio-system]-policy[deny]-rule[0]", "ns[istio-system]-policy[deny]-rule[1]"]);
}

// spec: AZ-19
#[test]
fn a_dry_run_is_a_shadow() {
    let yaml = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, annotations: {istio.io/dry-run: 'true'}}\nspec: {action: DENY, rules: [{}]}\n";
    let (http, _) = filters(yaml);
    assert_eq!(
        (&http[0]["rules"], &http[0]["shadow_rules_stat_prefix"]),
        (&Value::Null, &json!("istio_dry_run_deny_"))
    );
    assert_eq!(http[0]["shadow_rules"]["action"], "DENY");
}

// spec: AZ-21
#[test]
fn paths_are_normalised_before_anything_looks_at_them() {
    let manager = |config: &str| {
        let chains = World::with_mesh(config, "").server().inbound();
        crate::told::manager(chains.iter().find(|c| c["filter_chain_match"]["destination_port"] == 9080).unwrap())
    };
    let base = manager("");
    assert_eq!(
        (&base["normalize_path"], &base["merge_slashes"], &base["path_with_escaped_slashes_action"]),
        (&json!(true), &Value::Null, &json!("KEEP_UNCHANGED"))
    );
    assert_eq!(manager("pathNormalization: {normalization: NONE}\n")["normalize_path"], false);
    assert_eq!(manager("pathNormalization: {normalization: MERGE_SLASHES}\n")["merge_slashes"], true);
    let decoded = manager("pathNormalization: {normalization: DECODE_AND_MERGE_SLASHES}\n");
    assert_eq!(
        (&decoded["merge_slashes"], &decoded["path_with_escaped_slashes_action"]),
        (&json!(true), &json!("UNESCAPE_AND_FORWARD"))
    );
}

// spec: AZ-22, MT-6
#[test]
fn aliases_of_the_trust_domain_are_accepted() {
    let told = World::with_mesh("trustDomain: new\ntrustDomainAliases: [old]\n", "")
        .server()
        .listener("virtualInbound")
        .to_string();
    assert!(told.contains("spiffe://new/") && told.contains("spiffe://old/"));
}

/// What a rule says of sources, in a mesh that moves from `old` to `new`.
fn moving(rule: &str) -> Value {
    let policy = object("AuthorizationPolicy", "p", &format!("rules: [{rule}]"));
    let (http, _) = filters_in(&World::with_mesh("trustDomain: new\ntrustDomainAliases: [old]\n", &policy));
    let policy = &http[0]["rules"]["policies"]["ns[default]-policy[p]-rule[0]"];
    policy["principals"][0]["and_ids"]["ids"][0].clone()
}

// spec: AZ-6, AZ-7, AZ-22, CA-7
#[test]
fn a_policy_means_every_trust_domain_of_the_mesh() {
    let named = |ids: &Value| -> Vec<String> {
        let of = |id: &Value| {
            let name = &id["authenticated"]["principal_name"];
            let text = ["exact", "prefix", "suffix"].iter().find_map(|kind| name[kind].as_str());
            text.or_else(|| name["safe_regex"]["regex"].as_str()).unwrap().to_owned()
        };
        ids["or_ids"]["ids"].as_array().unwrap().iter().map(of).collect()
    };
    let of = |principal: &str| named(&moving(&format!("{{from: [{{source: {{principals: ['{principal}']}}}}]}}")));
    let both = ["spiffe://new/ns/a/sa/b", "spiffe://old/ns/a/sa/b"];
    for one in ["new/ns/a/sa/b", "old/ns/a/sa/b", "cluster.local/ns/a/sa/b", "ol*/ns/a/sa/b"] {
        assert_eq!(of(one), both, "{one}");
    }
    assert_eq!(of("other/ns/a/sa/b"), ["spiffe://other/ns/a/sa/b"], "the domain of others");
    assert_eq!(of("*/ns/a/sa/b"), ["/ns/a/sa/b"], "any domain");
    assert_eq!(of("*ld/ns/a/sa/b"), ["spiffe://new/ns/a/sa/b", "ld/ns/a/sa/b"], "a pattern stays for what it fits");
    assert_eq!(of("old/*"), ["spiffe://old/"], "not an identity as a whole");
    let when = moving("{when: [{key: source.principal, values: [old/ns/a/sa/b, new/ns/a/sa/b]}]}");
    assert_eq!(named(&when), both, "once each");
    let not = moving("{from: [{source: {notPrincipals: [old/ns/a/sa/b]}}]}");
    assert_eq!(named(&not["not_id"]), both);
    let domains = ["spiffe://new/.*", "spiffe://old/.*"];
    assert_eq!(named(&moving("{from: [{source: {trustDomains: [old]}}]}")), domains);
    assert_eq!(named(&moving("{when: [{key: source.trustDomain, values: [new]}]}")), domains);
}
