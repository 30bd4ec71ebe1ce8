//! Spec 1.13, AZ-20: CUSTOM policies.

use crate::told::{World, object, problems, refused};
use serde_json::{Value, json};

const PROVIDERS: &str = "
extensionProviders:
- name: web
  envoyExtAuthzHttp:
    service: default/ratings.default.svc.cluster.local
    port: '9080'
    timeout: 10s
    failOpen: true
    statusOnError: '403'
    pathPrefix: /check
    includeRequestHeadersInCheck: [x-custom-id, x-prefix-*, '*-suffix']
    includeAdditionalHeadersInCheck: {x-b: '2', x-a: '1'}
    includeRequestBodyInCheck: {maxRequestBytes: 2048, allowPartialMessage: true, packAsBytes: true}
    headersToUpstreamOnAllow: [Authorization]
    headersToDownstreamOnDeny: [Set-cookie]
    headersToDownstreamOnAllow: [x-prefix-*]
- name: rpc
  envoyExtAuthzGrpc: {service: ratings.default.svc.cluster.local, port: 9080}
- name: away
  envoyExtAuthzGrpc: {service: nowhere.default.svc.cluster.local, port: 9080}
";

fn policy(name: &str, provider: &str, path: &str) -> String {
    let spec = format!(
        "action: CUSTOM\nprovider: {{name: {provider}}}\nrules: [{{to: [{{operation: {{paths: [{path}]}}}}]}}]"
    );
    object("AuthorizationPolicy", name, &spec)
}

/// The filters of policies on requests to `reviews`, with their names.
fn filters(yaml: &str) -> Vec<(String, Value)> {
    of_kind(yaml, "http_connection_manager")
}

fn of_kind(yaml: &str, last: &str) -> Vec<(String, Value)> {
    let chains = World::with_mesh(PROVIDERS, yaml).server().inbound();
    let ending = chains.iter().filter(|chain| chain["filters"].to_string().contains(last));
    let chain = ending.max_by_key(|chain| chain["filters"].as_array().map_or(0, Vec::len)).unwrap();
    let all = chain["filters"].as_array().unwrap();
    let manager = all.iter().find(|f| f["typed_config"]["http_filters"].is_array());
    let all = manager.map_or(all, |manager| manager["typed_config"]["http_filters"].as_array().unwrap());
    let named = |f: &Value| (f["name"].as_str().unwrap().to_owned(), f["typed_config"].clone());
    all.iter().map(named).filter(|(name, _)| name.contains("rbac") || name.contains("ext_authz")).collect()
}

fn names(filters: &[(String, Value)]) -> Vec<&str> {
    filters.iter().map(|(name, _)| name.strip_prefix("envoy.filters.").unwrap()).collect()
}

// spec: AZ-20, AZ-2
#[test]
fn shadow_rules_choose_and_a_service_decides() {
    let deny = object("AuthorizationPolicy", "d", "action: DENY\nrules: [{}]");
    let found = filters(&format!("{deny}{}", policy("p", "web", "/admin")));
    assert_eq!(names(&found), ["http.rbac", "http.ext_authz", "http.rbac"], "CUSTOM comes first");
    let name = "istio-ext-authz-web-ns[default]-policy[p]-rule[0]";
    let shadow = &found[0].1;
    assert_eq!(shadow["shadow_rules_stat_prefix"], "istio_ext_authz_");
    assert_eq!((&shadow["shadow_rules"]["action"], shadow["rules"].is_null()), (&json!("DENY"), true));
    let path = &shadow["shadow_rules"]["policies"][name]["permissions"][0]["and_rules"]["rules"][0];
    assert_eq!(path["or_rules"]["rules"][0]["url_path"]["path"]["exact"], "/admin");
    let text = |form: &str, text: &str| json!({form: text, "ignore_case": true});
    let host = "ratings.default.svc.cluster.local";
    let mut ask = found[1].1.clone();
    ask.as_object_mut().unwrap().remove("@type");
    assert_eq!(
        ask,
        json!({
            "transport_api_version": "V3", "failure_mode_allow": true, "status_on_error": {"code": "Forbidden"},
            "allowed_headers": {"patterns": [text("exact", "x-custom-id"), text("prefix", "x-prefix-"), text("suffix", "-suffix")]},
            "with_request_body": {"max_request_bytes": 2048, "allow_partial_message": true, "pack_as_bytes": true},
            "filter_enabled_metadata": {
                "filter": "envoy.filters.http.rbac", "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
                "value": {"string_match": {"prefix": "istio-ext-authz-web"}},
            },
            "http_service": {
                "path_prefix": "/check",
                "server_uri": {"uri": format!("http://{host}"), "cluster": format!("outbound|9080||{host}"), "timeout": "10s"},
                "authorization_request": {"headers_to_add": [{"key": "x-a", "value": "1"}, {"key": "x-b", "value": "2"}]},
                "authorization_response": {
                    "allowed_upstream_headers": {"patterns": [text("exact", "Authorization")]},
                    "allowed_client_headers": {"patterns": [text("exact", "Set-cookie")]},
                    "allowed_client_headers_on_success": {"patterns": [text("prefix", "x-prefix-")]},
                },
            },
        })
    );
}

// spec: AZ-20
#[test]
fn a_grpc_service_has_ten_minutes_and_every_provider_its_own_pair() {
    let found = filters(&format!("{}{}", policy("a", "web", "/a"), policy("b", "rpc", "/b")));
    assert_eq!(names(&found), ["http.rbac", "http.ext_authz", "http.rbac", "http.ext_authz"]);
    let ask = &found[1].1;
    let host = "ratings.default.svc.cluster.local";
    let envoy = json!({"cluster_name": format!("outbound|9080||{host}"), "authority": host});
    assert_eq!(ask["grpc_service"], json!({"envoy_grpc": envoy, "timeout": "600s"}));
    assert_eq!(ask["filter_enabled_metadata"]["value"]["string_match"]["prefix"], "istio-ext-authz-rpc");
    let only = found[0].1["shadow_rules"]["policies"].as_object().unwrap();
    assert_eq!(only.keys().collect::<Vec<_>>(), ["istio-ext-authz-rpc-ns[default]-policy[b]-rule[0]"]);
}

// spec: AZ-20
#[test]
fn a_provider_that_cannot_be_asked_denies() {
    for provider in ["away", "unheard-of"] {
        let found = filters(&policy("p", provider, "/admin"));
        assert_eq!(names(&found), ["http.rbac"], "{provider}");
        let rules = &found[0].1["rules"];
        let name = format!("istio-ext-authz-{provider}-ns[default]-policy[p]-rule[0]-deny-due-to-bad-CUSTOM-action");
        assert_eq!((&rules["action"], rules["policies"][&name].is_object()), (&json!("DENY"), true));
    }
}

// spec: AZ-20, AZ-17
#[test]
fn connections_are_asked_about_by_grpc_alone() {
    let every = |provider: &str| {
        object("AuthorizationPolicy", "p", &format!("action: CUSTOM\nprovider: {{name: {provider}}}\nrules: [{{}}]"))
    };
    let found = of_kind(&every("rpc"), "tcp_proxy");
    assert_eq!(names(&found), ["network.rbac", "network.ext_authz"]);
    assert_eq!(found[1].1["filter_enabled_metadata"]["filter"], "envoy.filters.network.rbac");
    assert_eq!(found[1].1["stat_prefix"], "tcp.");
    assert!(of_kind(&every("web"), "tcp_proxy").is_empty());
    assert_eq!(names(&of_kind(&every("away"), "tcp_proxy")), ["network.rbac"]);
}

// spec: AZ-20
#[test]
fn what_custom_may_not_ask_is_refused() {
    let field = |rules: &str| {
        refused("AuthorizationPolicy", &format!("action: CUSTOM\nprovider: {{name: web}}\nrules: {rules}"))
    };
    assert_eq!(field("[]"), "spec.rules");
    for name in ["principals", "notNamespaces", "requestPrincipals", "serviceAccounts", "trustDomains"] {
        assert_eq!(
            field(&format!("[{{from: [{{source: {{{name}: [a]}}}}]}}]")),
            format!("spec.rules[0].from[0].source.{name}")
        );
    }
    for key in ["source.principal", "request.auth.claims[a]"] {
        assert_eq!(field(&format!("[{{when: [{{key: '{key}', values: [a]}}]}}]")), "spec.rules[0].when[0].key");
    }
    assert_eq!(refused("AuthorizationPolicy", "action: CUSTOM\nrules: [{}]"), "spec.provider.name");
    assert_eq!(refused("AuthorizationPolicy", "provider: {name: p}\nrules: [{}]"), "spec.provider");
    assert!(problems(&policy("p", "web", "/")).is_empty());
}
