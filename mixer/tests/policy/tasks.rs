//! Istio's documented policy tasks, with their YAML as written.

use crate::request::{engine, ext_authz, get};
use mixer::policy::Engine;
use proto::envoy::auth::CheckRequest;
use proto::envoy::auth::authorization_server::Authorization as _;
use proto::envoy::auth::check_response::HttpResponse;
use std::sync::Arc;

/// HTTP status and body that a client would get; 200 and nothing where the request may go on.
pub(crate) async fn ask(engine: &Arc<Engine>, request: CheckRequest) -> (i32, String) {
    let service = ext_authz(engine);
    let answer = service.check(tonic::Request::new(request)).await.unwrap().into_inner();
    match answer.http_response.unwrap() {
        HttpResponse::DeniedResponse(denied) => (denied.status.unwrap().code, denied.body),
        HttpResponse::OkResponse(_) => (200, String::new()),
        HttpResponse::ErrorResponse(other) => panic!("{other:?}"),
    }
}

/// Simple denial, 1.1's form.
const DENY_LABEL: &str = include_str!("yaml/deny-label.yaml");

/// The same in 1.0's form: a kind per adapter and per template.
const DENY_LABEL_OLD: &str = include_str!("yaml/deny-label-1.0.yaml");

// spec: MX-72, MX-44, MX-45, MX-46, MX-47, MX-51, MX-104
#[tokio::test]
async fn denials_by_label() {
    for yaml in [DENY_LABEL, DENY_LABEL_OLD] {
        let engine = engine(yaml);
        let (status, body) = ask(&engine, get("reviews-v3", "ratings", &[])).await;
        assert_eq!((status, body.as_str()), (403, "PERMISSION_DENIED:denyreviewsv3handler.default:Not allowed"));
        assert_eq!(ask(&engine, get("reviews-v2", "ratings", &[])).await.0, 200);
        assert_eq!(ask(&engine, get("reviews-v3", "details", &[])).await.0, 200);
        assert_eq!(ask(&engine, get("nobody", "ratings", &[])).await.0, 200, "an absent label is no match");
        let view = engine.view();
        assert_eq!((view.rules[0].hits, view.rules[0].denials, view.rules[0].failures), (1, 1, 1));
        assert_eq!((view.handlers[0].asked, view.handlers[0].refused), (1, 1));
    }
}

/// Control of headers: the demo adapter `keyval`, which is built in here.
const KEYVAL: &str = include_str!("yaml/keyval.yaml");

// spec: MX-24, MX-25, MX-45, MX-69
#[tokio::test]
async fn control_of_headers() {
    let engine = engine(KEYVAL);
    let service = ext_authz(&engine);
    let asked = tonic::Request::new(get("ingress", "productpage", &[("user", "jason")]));
    let answer = service.check(asked).await.unwrap().into_inner();
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!("refused") };
    let header = ok.headers[0].header.clone().unwrap();
    assert_eq!((header.key.as_str(), header.value.as_str()), ("user-group", "admin"));
    let (status, body) = ask(&engine, get("ingress", "productpage", &[("user", "bill")])).await;
    assert_eq!((status, body.as_str()), (404, r#"<error_detail>key "bill" not found</error_detail>"#));

    let path = KEYVAL.replace("user-group", "\":path\"").replace("[ x.output.value ]", r#"[ '"/status/418"' ]"#);
    let engine = crate::request::engine(&path);
    let service = ext_authz(&engine);
    let asked = tonic::Request::new(get("ingress", "productpage", &[("user", "jason")]));
    let answer = service.check(asked).await.unwrap().into_inner();
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!("refused") };
    let header = ok.headers[0].header.clone().unwrap();
    assert_eq!((header.key.as_str(), header.value.as_str()), (":path", "/status/418"));
}

/// White list by attribute, 1.0's form.
const WHITELIST: &str = include_str!("yaml/whitelist.yaml");

// spec: MX-73, MX-63, MX-50, MX-56
#[tokio::test]
async fn white_and_black_lists_by_attribute() {
    let white = engine(WHITELIST);
    let (status, body) = ask(&white, get("reviews-v3", "ratings", &[])).await;
    assert_eq!((status, body.as_str()), (403, "PERMISSION_DENIED:whitelist.default:v3 is not whitelisted"));
    assert_eq!(ask(&white, get("reviews-v2", "ratings", &[])).await.0, 200);
    assert_eq!(ask(&white, get("reviews-v3", "details", &[])).await.0, 200);
    let (status, body) = ask(&white, get("nobody", "ratings", &[])).await;
    assert_eq!(status, 400, "who brings no entry is on no list");
    assert!(body.contains("source.labels[\"version\"] is absent"), "{body}");
    let black = engine(&WHITELIST.replace("blacklist: false", "blacklist: true"));
    assert_eq!(ask(&black, get("reviews-v3", "ratings", &[])).await.0, 200);
    let (status, body) = ask(&black, get("reviews-v2", "ratings", &[])).await;
    assert_eq!((status, body.as_str()), (403, "PERMISSION_DENIED:whitelist.default:v2 is blacklisted"));
}

/// White list by address, 1.1's form.
const WHITELIST_IP: &str = include_str!("yaml/whitelist-ip.yaml");

// spec: MX-73, MX-55
#[tokio::test]
async fn white_lists_by_address() {
    let (status, body) = ask(&engine(WHITELIST_IP), get("ingress", "productpage", &[])).await;
    assert_eq!((status, body.as_str()), (403, "PERMISSION_DENIED:whitelistip.default:10.0.0.5 is not whitelisted"));
    let wider = engine(&WHITELIST_IP.replace("10.57.0.0/16", "10.0.0.0/16"));
    assert_eq!(ask(&wider, get("ingress", "productpage", &[])).await.0, 200);
}

/// Rate limits, without the handler and the last lines of the rule.
const QUOTA: &str = include_str!("yaml/quota.yaml");

const MEMQUOTA: &str = include_str!("yaml/memquota.yaml");

fn memquota() -> String {
    format!("{MEMQUOTA}{}", QUOTA.replace("HANDLER", "quotahandler"))
}

fn from(client: &str) -> CheckRequest {
    get("ingress", "productpage", &[("x-forwarded-for", client)])
}

// spec: MX-74, MX-49, MX-64, MX-21
#[tokio::test(start_paused = true)]
async fn rate_limits_in_memory() {
    let engine = engine(&memquota());
    for _ in 0..2 {
        assert_eq!(ask(&engine, from("1.2.3.4")).await.0, 200);
    }
    let (status, body) = ask(&engine, from("1.2.3.4")).await;
    assert_eq!((status, body.as_str()), (429, "RESOURCE_EXHAUSTED:Quota is exhausted for: requestcountquota"));
    assert_eq!(ask(&engine, from("5.6.7.8")).await.0, 200, "a counter per source");
    for _ in 0..100 {
        assert_eq!(ask(&engine, from("10.28.11.20")).await.0, 200, "an override of its own");
        assert_eq!(ask(&engine, get("ingress", "reviews-v2", &[])).await.0, 200, "not bound to the quota");
    }
    tokio::time::advance(std::time::Duration::from_millis(5_100)).await;
    assert_eq!(ask(&engine, from("1.2.3.4")).await.0, 200, "the window has passed");
    assert_eq!(engine.view().rules[0].denials, 1);
}

// spec: MX-49
#[tokio::test(start_paused = true)]
async fn a_quota_may_be_bound_to_every_service_and_to_some_requests_only() {
    let all = memquota().replace("- name: productpage\n    namespace: default", "- service: '*'");
    let engine = engine(&all.replace(
        "rules:\n  - quotas:",
        "rules:\n  - match:\n    - clause: {request.method: {exact: POST}}\n    quotas:",
    ));
    for _ in 0..3 {
        assert_eq!(ask(&engine, get("ingress", "reviews-v2", &[])).await.0, 200, "a GET is not charged");
    }
    let engine = crate::request::engine(&all);
    assert_eq!(ask(&engine, get("ingress", "reviews-v2", &[])).await.0, 200);
    assert_eq!(ask(&engine, get("ingress", "reviews-v2", &[])).await.0, 429);
}

// spec: MX-54, MX-23
#[tokio::test(start_paused = true)]
async fn conditional_rate_limits() {
    let yaml = memquota().replace("  # match: match", "  match: match");
    let engine = engine(&yaml);
    let request = |cookie| get("ingress", "productpage", &[("cookie", cookie)]);
    for _ in 0..10 {
        assert_eq!(ask(&engine, request("session=jason")).await.0, 200, "who is logged in is not limited");
    }
    assert_eq!(ask(&engine, request("theme=dark")).await.0, 200);
    assert_eq!(ask(&engine, request("theme=dark")).await.0, 200);
    assert_eq!(ask(&engine, request("theme=dark")).await.0, 429);
}

// spec: MX-74
#[tokio::test]
async fn a_rule_whose_handler_has_no_limit_for_its_quota_is_refused() {
    let engine = Arc::new(Engine::new());
    let yaml = memquota().replace("name: requestcountquota.instance.istio-system", "name: other");
    engine.load(&mut mixer::policy::load::Loader::default(), &crate::request::texts(&yaml));
    let problem = engine.view().problems.remove(0);
    assert!(problem.contains("spec.actions[0].instances[0]: the handler has no limit for it"), "{problem}");
}

const REDISQUOTA: &str = include_str!("yaml/redisquota.yaml");

/// Asks until a status comes.
async fn until(engine: &Arc<Engine>, request: impl Fn() -> CheckRequest, status: i32) {
    let asked = async {
        while ask(engine, request()).await.0 != status {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), asked).await.unwrap();
}

// spec: MX-75
#[tokio::test]
async fn rate_limits_in_redis_with_redis_killed_and_back_in_between() {
    for algorithm in ["ROLLING_WINDOW", "FIXED_WINDOW"] {
        let mut redis = crate::redis_server::RedisServer::start();
        // Ten seconds instead of one, so that a slow machine cannot pass the window; as the task has it: ROLLING_WINDOW.
        let yaml = format!("{REDISQUOTA}{}", QUOTA.replace("HANDLER", "redishandler"))
            .replace("redis-release-master:6379", &redis.address())
            .replace("validDuration: 1s", "validDuration: 10s")
            .replace("ROLLING_WINDOW", algorithm);
        // Two mixers share what they count.
        let engines = [engine(&yaml), engine(&yaml)];
        assert_eq!(ask(&engines[0], from("1.2.3.4")).await.0, 200);
        assert_eq!(ask(&engines[1], from("1.2.3.4")).await.0, 200);
        let (status, body) = ask(&engines[0], from("1.2.3.4")).await;
        assert_eq!((status, body.as_str()), (429, "RESOURCE_EXHAUSTED:Quota is exhausted for: requestcountquota"));
        assert_eq!(ask(&engines[1], from("5.6.7.8")).await.0, 200);
        redis.kill();
        let started = std::time::Instant::now();
        let (status, body) = ask(&engines[0], from("5.6.7.8")).await;
        assert_eq!(status, 503, "what cannot be counted is not let through: {body}");
        assert!(started.elapsed() < std::time::Duration::from_secs(1), "{:?}", started.elapsed());
        redis.restart();
        until(&engines[0], || from("9.9.9.9"), 200).await;
        assert_eq!(ask(&engines[1], from("1.2.3.4")).await.0, 200, "only what the window held is lost");
    }
    let redis = crate::redis_server::RedisServer::start();
    let yaml = format!("{REDISQUOTA}{}", QUOTA.replace("HANDLER", "redishandler"));
    let as_written = engine(&yaml.replace("redis-release-master:6379", &redis.address()));
    until(&as_written, || from("7.7.7.7"), 429).await;
    until(&as_written, || from("7.7.7.7"), 200).await;
}
