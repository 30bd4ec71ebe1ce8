//! External authorization, rate limits and rate limit quotas, and how often mixer is asked.

use crate::mesh::{Mixer, Place, get, grpc_service, proxy, received};
use e2e::proxies::Flavour;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Who brings `x-user: eve` is refused, others get a header more and one less.
pub(crate) const RULES: &str = r#"
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: deny, namespace: istio-system}
spec: {compiledAdapter: denier, params: {status: {code: 7, message: not you}}}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: nothing, namespace: istio-system}
spec: {compiledTemplate: checknothing}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: no-eve, namespace: istio-system}
spec:
  match: request.headers["x-user"] == "eve" && source.ip == ip("127.0.0.1") && request.path == "/a?b=c"
  actions: [{handler: deny, instances: [nothing]}]
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: headers, namespace: istio-system}
spec:
  requestHeaderOperations:
  - {name: x-checked, values: [request.method]}
  - {name: x-secret, operation: REMOVE}
"#;

/// Istio's sample, and a bucket of two requests an hour.
const LIMITS: &str = "domain: echo-ratelimit\ndescriptors:\n- key: PATH\n  value: \"/\"\n  rate_limit:\n    unit: minute\n    requests_per_unit: 1\n- key: PATH\n  rate_limit:\n    unit: minute\n    requests_per_unit: 100\n- key: bucket\n  value: small\n  rate_limit:\n    unit: hour\n    requests_per_unit: 2\n";

fn is_decided_by_rules(address: SocketAddr) {
    let denied = get(address, "/a?b=c", "x-user: eve\r\n");
    assert_eq!((denied.status, denied.body.as_str()), (403, "PERMISSION_DENIED:deny.istio-system:not you"));
    assert_eq!(denied.head.header("content-type"), Some("text/plain"));
    for (path, user) in [("/a?b=c", "ann"), ("/a", "eve")] {
        let allowed = get(address, path, &format!("x-user: {user}\r\nx-secret: s\r\nx-checked: spoofed\r\n"));
        assert_eq!(allowed.status, 200, "{}", allowed.body);
        assert_eq!(received(&allowed, "x-checked").as_deref(), Some("GET"));
        assert_eq!(received(&allowed, "x-secret"), None);
    }
}

// spec: MX-96, MX-24
#[test]
fn external_authorization_over_grpc() {
    for flavour in [Flavour::Envoy, Flavour::Ferromesh] {
        let mixer = Mixer::start(RULES, LIMITS, None);
        let filter = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "grpc_service": grpc_service(), "transport_api_version": "V3",
        });
        let (_proxy, address) =
            proxy(Place::here(flavour), &mixer, ("envoy.filters.http.ext_authz", filter), &Value::Null);
        is_decided_by_rules(address);
        let before = mixer.metric("mixer_runtime_dispatch_duration_seconds_count");
        for n in 0..200 {
            let user = if n % 2 == 0 { "ann" } else { "eve" };
            let expected = if n % 2 == 0 { 200 } else { 403 };
            assert_eq!(get(address, "/a?b=c", &format!("x-user: {user}\r\n")).status, expected);
        }
        let calls = mixer.metric("mixer_runtime_dispatch_duration_seconds_count") - before;
        eprintln!("external authorization, {flavour:?}: {calls} calls for 200 requests");
        assert!(if flavour == Flavour::Envoy { calls == 200 } else { calls <= 20 }, "{flavour:?}: {calls}");
    }
}

// spec: MX-96, MX-117
#[test]
fn external_authorization_over_http() {
    let mixer = Mixer::start(RULES, LIMITS, None);
    let any = json!({"patterns": [{"prefix": "x-"}, {"exact": "content-type"}]});
    let server = json!({"uri": "http://mixer", "cluster": "mixer-http", "timeout": "2s"});
    let filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "allowed_headers": {"patterns": [{"prefix": "x-"}]},
        "http_service": {
            "server_uri": server, "path_prefix": "/check",
            "authorization_request": {"headers_to_add": [
                {"key": mixer::serve::ext_authz_http::SOURCE_ADDRESS, "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
                {"key": mixer::serve::ext_authz_http::DESTINATION_ADDRESS, "value": "%DOWNSTREAM_LOCAL_ADDRESS%"},
            ]},
            "authorization_response": {"allowed_upstream_headers": any, "allowed_client_headers": any},
        },
    });
    let (_envoy, address) =
        proxy(Place::here(Flavour::Envoy), &mixer, ("envoy.filters.http.ext_authz", filter), &Value::Null);
    is_decided_by_rules(address);
    let allowed = get(address, "/x", "x-user: ann\r\n");
    assert_eq!(received(&allowed, "x-ext-authz-check-result").as_deref(), Some("allowed"));
    assert_eq!(received(&allowed, "x-ext-authz-check-received").as_deref(), Some("GET app /x"));
}

// spec: MX-97, MX-116, MX-115
#[test]
fn rate_limits_of_istios_sample() {
    for flavour in [Flavour::Envoy, Flavour::Ferromesh] {
        let mixer = Mixer::start(RULES, LIMITS, None);
        let filter = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": "echo-ratelimit", "failure_mode_deny": true, "timeout": "10s",
            "rate_limit_service": {"grpc_service": grpc_service(), "transport_api_version": "V3"},
        });
        let route = json!({"actions": [{"request_headers": {"header_name": ":path", "descriptor_key": "PATH"}}]});
        let (_proxy, address) = proxy(Place::here(flavour), &mixer, ("envoy.filters.http.ratelimit", filter), &route);
        // Two attempts: the minute may end in between.
        let limited = (0..2).any(|_| {
            let first = get(address, "/", "");
            assert!(matches!(first.status, 200 | 429), "{flavour:?}: {first:?}");
            get(address, "/", "").status == 429
        });
        assert!(limited, "{flavour:?}");
        let refused = get(address, "/", "");
        assert_eq!((refused.status, refused.head.header("x-envoy-ratelimited")), (429, Some("true")), "{flavour:?}");
        assert_eq!(refused.head.header("ratelimit-limit"), Some("1"), "{flavour:?}");
        // Exactly the limit within a minute, whoever counts; in the next one another path begins anew.
        let minute = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60;
        let within = (0..3).find_map(|turn| {
            let (began, path) = (minute(), format!("/other{turn}"));
            let passed = (0..150).filter(|_| get(address, &path, "").status == 200).count();
            (minute() == began).then_some(passed)
        });
        assert_eq!(within, Some(100), "{flavour:?}");
    }
}

// spec: MX-98
#[test]
fn rate_limit_quotas() {
    let settings = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaBucketSettings",
        "bucket_id_builder": {"bucket_id_builder": {"bucket": {"string_value": "small"}}},
        "reporting_interval": "1s",
        "no_assignment_behavior": {"fallback_rate_limit": {"blanket_rule": "ALLOW_ALL"}},
        "expired_assignment_behavior": {"fallback_rate_limit": {"blanket_rule": "ALLOW_ALL"}},
    });
    let filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig",
        "rlqs_server": grpc_service(), "domain": "echo-ratelimit",
        "bucket_matchers": {"on_no_match": {"action": {"name": "bucket", "typed_config": settings}}},
    });
    for flavour in [Flavour::Envoy, Flavour::Ferromesh] {
        let mixer = Mixer::start(RULES, LIMITS, None);
        let filter = ("envoy.filters.http.rate_limit_quota", filter.clone());
        let (_proxy, address) = proxy(Place::here(flavour), &mixer, filter, &Value::Null);
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut passed = 0;
        while get(address, "/", "").status == 200 {
            passed += 1;
            assert!(Instant::now() < deadline, "{flavour:?}: no assignment after {passed} requests");
        }
        // The assignment came, and its two tokens are used up: nothing passes for the rest of the hour.
        assert!((0..20).all(|_| get(address, "/", "").status == 429), "{flavour:?}");
    }
}
