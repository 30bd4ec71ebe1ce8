//! Buckets of quotas while the service is away: who falls into which, and what a refusal looks like.

use super::{bootstrap, cluster, compare, extension};
use e2e::app::Echo;
use e2e::client::exchange_h2;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

const QUOTA: &str = "envoy.extensions.filters.http.rate_limit_quota.v3";

fn header(name: &str) -> Value {
    json!({"name": "header", "typed_config": {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": name}})
}

fn bucket(id: &Value, rule: &str, deny: &Value) -> Value {
    let mut settings = json!({
        "@type": format!("type.googleapis.com/{QUOTA}.RateLimitQuotaBucketSettings"),
        "reporting_interval": "5s",
        "no_assignment_behavior": {"fallback_rate_limit": {"blanket_rule": rule}},
    });
    if !id.is_null() {
        settings["bucket_id_builder"] = json!({"bucket_id_builder": id});
    }
    if !deny.is_null() {
        settings["deny_response_settings"] = deny.clone();
    }
    json!({"action": {"name": "bucket", "typed_config": settings}})
}

fn when(predicate: Value, on_match: Value) -> Value {
    json!({"predicate": predicate, "on_match": on_match})
}

fn quotas(upstream: Echo, listener: SocketAddr, log: &Path) -> Value {
    let is = |name: &str, value: Value| json!({"single_predicate": {"input": header(name), "value_match": value}});
    let text = |value: &str| json!({"name": {"string_value": value}});
    let deny = json!({
        "http_status": {"code": "Forbidden"}, "http_body": "bm8gbW9yZQ==",
        "grpc_status": {"code": 8, "message": "no more"},
        "response_headers_to_add": [{"header": {"key": "x-quota", "value": "none"}}],
    });
    let group = json!({"group": {"custom_value": header("x-group")}});
    let matchers = json!([
        when(is("x-plan", json!({"exact": "free"})), bucket(&text("free"), "DENY_ALL", &Value::Null)),
        when(is("x-plan", json!({"prefix": "Trial", "ignore_case": true})), bucket(&text("trial"), "DENY_ALL", &deny)),
        when(
            json!({"and_matcher": {"predicate": [
                is("x-plan", json!({"safe_regex": {"google_re2": {}, "regex": "gold|silver"}})),
                {"not_matcher": is("x-vip", json!({"contains": "yes"}))},
            ]}}),
            bucket(&group, "DENY_ALL", &deny),
        ),
        when(
            json!({"or_matcher": {"predicate": [
                is("x-plan", json!({"suffix": "-paid"})), is("x-vip", json!({"exact": "yes"})),
            ]}}),
            bucket(&text("paid"), "ALLOW_ALL", &Value::Null),
        ),
    ]);
    let filter = extension(
        "envoy.filters.http.rate_limit_quota",
        &format!("{QUOTA}.RateLimitQuotaFilterConfig"),
        json!({
            "rlqs_server": {"envoy_grpc": {"cluster_name": "nobody"}}, "domain": "side",
            "bucket_matchers": {
                "matcher_list": {"matchers": matchers},
                "on_no_match": bucket(&Value::Null, "DENY_ALL", &deny),
            },
        }),
    );
    let routes = json!({"name": "side", "virtual_hosts": [{
        "name": "all", "domains": ["*"], "routes": [{"name": "all", "match": {"prefix": "/"}, "route": {"cluster": "one"}}]}]});
    let clusters = json!([cluster("one", Some(upstream.address)), cluster("nobody", None)]);
    bootstrap(listener, log, &routes, &[filter], &clusters)
}

fn requests() -> Vec<String> {
    let ask = |more: &str| {
        format!("GET / HTTP/1.1\r\nhost: a.example\r\nuser-agent: side\r\nconnection: close\r\n{more}\r\n")
    };
    let mut all = Vec::new();
    for plan in ["free", "Free", "trial", "TRIAL-2", "gold", "silver", "golden", "x-paid", "other", ""] {
        for more in ["", "x-group: a\r\n", "x-vip: yes\r\n", "x-vip: no\r\nx-group: b\r\n", "x-vip: yes, no\r\n"] {
            all.push(ask(&format!("x-plan: {plan}\r\n{more}")));
        }
    }
    all.push(ask(""));
    all.push(ask("x-plan: free\r\nx-plan: free\r\n"));
    all.push(ask("x-plan: free\r\ncontent-type: application/grpc\r\n"));
    all.push(ask("x-plan: trial\r\ncontent-type: application/grpc\r\n"));
    all.push(ask("x-plan: free\r\n"));
    all
}

// spec: MX-98
#[test]
fn quotas_without_their_service_are_those_of_envoy() {
    let upstream = Echo::start("one").unwrap();
    compare(|listener, log| quotas(upstream, listener, log), &requests(), super::h1);
    compare(|listener, log| quotas(upstream, listener, log), &requests(), exchange_h2);
}
