//! CUSTOM policies as istiod sends them: shadow rules choose which requests a service is asked about. Dry runs likewise.

use super::{bootstrap, cluster, compare, extension};
use e2e::app::Echo;
use e2e::client::exchange_h2;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

fn filters() -> Vec<Value> {
    let http = |name: &str, message: &str, config: Value| {
        extension(&format!("envoy.filters.http.{name}"), &format!("envoy.extensions.filters.http.{message}"), config)
    };
    let path = |prefix: &str| json!({"permissions": [{"url_path": {"path": {"prefix": prefix}}}], "principals": [{"any": true}]});
    let chosen = json!({"action": "DENY", "policies": {
        "istio-ext-authz-judge-ns[foo]-policy[a]-rule[0]": path("/asked"),
        "istio-ext-authz-other-ns[foo]-policy[a]-rule[0]": path("/elsewhere"),
    }});
    let names = |list: &[(&str, &str)]| {
        let pattern = |(form, name): &(&str, &str)| json!({*form: name, "ignore_case": true});
        json!({"patterns": list.iter().map(pattern).collect::<Vec<_>>()})
    };
    let judge = |fail_open: bool, provider: &str, cluster: &str| {
        json!({
            "transport_api_version": "V3", "failure_mode_allow": fail_open, "status_on_error": {"code": "ServiceUnavailable"},
            "allowed_headers": names(&[("exact", "X-One"), ("prefix", "x-judge-"), ("suffix", "-seen")]),
            "with_request_body": {"max_request_bytes": 8, "allow_partial_message": true},
            "filter_enabled_metadata": {"filter": "envoy.filters.http.rbac",
                "path": [{"key": "istio_ext_authz_shadow_effective_policy_id"}],
                "value": {"string_match": {"prefix": format!("istio-ext-authz-{provider}")}}},
            "http_service": {
                "path_prefix": "/check", "server_uri": {"cluster": cluster, "timeout": "2s", "uri": "http://judge"},
                "authorization_request": {"headers_to_add": [{"key": "x-added", "value": "1"}]},
                "authorization_response": {
                    "allowed_upstream_headers": names(&[("exact", "X-User"), ("prefix", "x-up-")]),
                    "allowed_client_headers": names(&[("exact", "Set-Cookie"), ("suffix", "-no")]),
                    "allowed_client_headers_on_success": names(&[("exact", "x-client"), ("suffix", "-yes")]),
                },
            },
        })
    };
    let dry = |action: &str, prefix: &str, at: &str| json!({"shadow_rules": {"action": action, "policies": {"dry": path(at)}}, "shadow_rules_stat_prefix": prefix});
    vec![
        http("rbac", "rbac.v3.RBAC", json!({"shadow_rules": chosen, "shadow_rules_stat_prefix": "istio_ext_authz_"})),
        http("ext_authz", "ext_authz.v3.ExtAuthz", judge(false, "judge", "judge")),
        http("ext_authz", "ext_authz.v3.ExtAuthz", judge(true, "other", "nobody")),
        http("rbac", "rbac.v3.RBAC", dry("DENY", "istio_dry_run_deny_", "/dry")),
        http("rbac", "rbac.v3.RBAC", dry("ALLOW", "istio_dry_run_allow_", "/asked")),
    ]
}

fn custom(upstreams: [Echo; 2], listener: SocketAddr, log: &Path) -> Value {
    let told = |name: &str| json!({"header": {"key": name, "value": format!("%DYNAMIC_METADATA(envoy.filters.http.rbac:{name})%")}});
    let names = [
        "istio_ext_authz_shadow_effective_policy_id",
        "istio_ext_authz_shadow_engine_result",
        "istio_dry_run_deny_shadow_engine_result",
        "istio_dry_run_deny_shadow_effective_policy_id",
        "istio_dry_run_allow_shadow_engine_result",
    ];
    let routes = json!({"name": "side", "response_headers_to_add": names.map(told), "virtual_hosts": [{
        "name": "all", "domains": ["*"], "routes": [{"name": "all", "match": {"prefix": "/"}, "route": {"cluster": "one"}}]}]});
    let clusters = json!([
        cluster("one", Some(upstreams[0].address)),
        cluster("judge", Some(upstreams[1].address)),
        cluster("nobody", None)
    ]);
    bootstrap(listener, log, &routes, &filters(), &clusters)
}

fn requests() -> Vec<String> {
    let ask = |method: &str, path: &str, more: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: a.example\r\nuser-agent: side\r\nconnection: close\r\n{more}\r\n")
    };
    let mut all = Vec::new();
    for path in ["/", "/asked", "/asked/x?y=z", "/elsewhere", "/dry"] {
        for status in ["200", "403", "401", "500", "302"] {
            let headers = "x-user=alice,x-up-a=1,set-cookie=c=d,x-client=2,x-y-yes=3,x-y-no=4,location=/l,x-nothing=5,www-authenticate=Basic";
            let more = format!(
                "x-judge-status: {status}\r\nx-judge-headers: {headers}\r\nx-user: forged\r\nx-one: 1\r\nx-is-seen: 2\r\nx-hidden: 3\r\nauthorization: Basic a\r\n"
            );
            all.push(ask("GET", path, &more));
        }
    }
    for body in ["12345678", "123456789", ""] {
        let more = format!("x-judge-status: 403\r\ncontent-length: {}\r\n", body.len());
        all.push(ask("POST", "/asked", &more) + body);
    }
    all
}

// spec: AZ-19, AZ-20, HP-13, SA-50
#[test]
fn custom_policies_and_dry_runs_are_those_of_envoy() {
    let upstreams = [Echo::start("one").unwrap(), Echo::start("judge").unwrap()];
    compare(|listener, log| custom(upstreams, listener, log), &requests(), super::h1);
    compare(|listener, log| custom(upstreams, listener, log), &requests(), exchange_h2);
}
