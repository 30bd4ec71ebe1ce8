//! The rate limit filter against a real gRPC service.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proto::envoy::core::HeaderValue;
use proto::envoy::ratelimit::rate_limit_response::{
    Code, DescriptorStatus, Quota, RateLimit, quota::ExpirationSpecifier,
};
use proto::envoy::ratelimit::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};
use proto::envoy::ratelimit::{RateLimitRequest, RateLimitResponse};
use proto::envoy::wkt::{Duration as WrittenDuration, Timestamp};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Proxy, cluster, free_port, http, listener, read_head, upstream};
use tonic::{Request, Response, Status};

/// Refuses what is asked with the value `over`; is slow for `slow`; grants a hundred ahead for `quota`.
struct Counter(Sender<RateLimitRequest>);

/// Domain, entries and hits of a question.
type Heard = (String, Vec<(String, String)>, Vec<u64>);

#[tonic::async_trait]
impl RateLimitService for Counter {
    async fn should_rate_limit(&self, asked: Request<RateLimitRequest>) -> Result<Response<RateLimitResponse>, Status> {
        let asked = asked.into_inner();
        self.0.send(asked.clone()).unwrap();
        let has = |value: &str| asked.descriptors.iter().flat_map(|d| &d.entries).any(|entry| entry.value == value);
        if has("slow") {
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        let code = if has("over") { Code::OverLimit } else { Code::Ok };
        let status = DescriptorStatus {
            code: code.into(),
            current_limit: Some(RateLimit { requests_per_unit: 5, unit: 2, name: String::new() }),
            limit_remaining: 3,
            duration_until_reset: Some(WrittenDuration { seconds: 40, nanos: 0 }),
            ..DescriptorStatus::default()
        };
        let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
        let until = Timestamp { seconds: i64::try_from(soon).unwrap(), nanos: 0 };
        let quota = Quota {
            requests: 100,
            id: String::new(),
            expiration_specifier: Some(ExpirationSpecifier::ValidUntil(until)),
        };
        let header =
            |key: &str, value: &str| HeaderValue { key: key.into(), value: value.into(), ..HeaderValue::default() };
        Ok(Response::new(RateLimitResponse {
            overall_code: code.into(),
            statuses: vec![status],
            response_headers_to_add: vec![header("X-Told", "client"), header("bad\r\nname", "x")],
            request_headers_to_add: vec![header("x-told", "server")],
            quota: has("quota").then_some(quota),
            ..RateLimitResponse::default()
        }))
    }
}

async fn counter() -> (u16, Receiver<RateLimitRequest>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (heard, asked) = channel();
    let server = tonic::transport::Server::builder().add_service(RateLimitServiceServer::new(Counter(heard)));
    tokio::spawn(server.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)));
    (port, asked)
}

/// Answers with the head that it got.
fn echo() -> u16 {
    upstream(|mut stream: TcpStream| {
        let head = read_head(&mut stream);
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        stream.write_all(answer.as_bytes()).unwrap();
    })
}

fn ask(port: u16, path: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: b\r\nconnection: close\r\n{more}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const API: &str = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3";

/// Routes with descriptors of their own, of the virtual host, and of the route's configuration for the filter.
fn config(listen: u16, service: u16, up: u16, fields: &str) -> String {
    let own = |fields: &str| {
        format!(
            "typed_per_filter_config: {{envoy.filters.http.ratelimit: {{'@type': {API}.RateLimitPerRoute, {fields}}}}}"
        )
    };
    let header = "rate_limits: [{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}]";
    let routes = format!(
        "{{match: {{prefix: /user}}, route: {{cluster: up, {header}}}}}, \
         {{match: {{prefix: /both}}, route: {{cluster: up, include_vh_rate_limits: true, {header}}}}}, \
         {{match: {{prefix: /own}}, route: {{cluster: up, {header}}}, {}}}, \
         {{match: {{prefix: /none}}, route: {{cluster: up}}, {}}}, \
         {{match: {{prefix: /}}, route: {{cluster: up}}}}",
        own(
            "domain: other, rate_limits: [{actions: [{generic_key: {descriptor_value: own}}], hits_addend: {number: 7}}]"
        ),
        own("vh_rate_limits: IGNORE"),
    );
    let filter = format!(
        "{{name: envoy.filters.http.ratelimit, typed_config: {{'@type': {API}.RateLimit, domain: shop, timeout: 1s, {fields} \
         rate_limit_service: {{transport_api_version: V3, grpc_service: {{envoy_grpc: {{cluster_name: rls}}}}}}}}}}, "
    );
    let chain = http(&routes, "")
        .replace("http_filters: [", &format!("http_filters: [{filter}"))
        .replace("domains: ['*'],", "domains: ['*'], rate_limits: [{actions: [{remote_address: {}}]}],");
    let rls = cluster("rls", &[service]).replace("type: STATIC", "type: STATIC, http2_protocol_options: {}");
    format!(
        "  - {}\n  clusters:\n{}{rls}",
        listener("l", listen, "", &format!("{{filters: [{chain}]}}")),
        cluster("up", &[up])
    )
}

// spec: LR-18, MX-97, MX-110
#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_asked_about_the_descriptors_of_a_request_and_obeyed() {
    let (service, counter) = counter().await;
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let _proxy =
        Proxy::start(directory.path(), &config(port, service, echo(), "enable_x_ratelimit_headers: DRAFT_VERSION_03,"));
    let asked = || -> Vec<Heard> {
        let of = |asked: RateLimitRequest| {
            let hits = asked.descriptors.iter().filter_map(|d| d.hits_addend.map(|hits| hits.value)).collect();
            let entries = asked.descriptors.into_iter().flat_map(|d| d.entries).map(|e| (e.key, e.value)).collect();
            (asked.domain, entries, hits)
        };
        counter.try_iter().map(of).collect()
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let answer = ask(port, "/user", "x-user: jo\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("x-told: client") && answer.contains("x-told: server"),
        "{answer}"
    );
    assert!(answer.contains("x-ratelimit-limit: 5, 5;w=60") && answer.contains("x-ratelimit-remaining: 3"), "{answer}");
    assert_eq!(asked(), [("shop".to_owned(), vec![pair("user", "jo")], vec![])], "the virtual host's do not count");
    ask(port, "/both", "x-user: jo\r\n");
    assert_eq!(asked()[0].1, [pair("user", "jo"), pair("remote_address", "127.0.0.1")]);
    ask(port, "/own", "x-user: jo\r\n");
    assert_eq!(asked(), [("other".to_owned(), vec![pair("generic_key", "own")], vec![7])]);
    for path in ["/none", "/user"] {
        assert!(ask(port, path, "").starts_with("HTTP/1.1 200"));
        assert!(asked().is_empty(), "{path}: without a descriptor nobody is asked");
    }
    let over = ask(port, "/user", "x-user: over\r\n");
    assert!(
        over.starts_with("HTTP/1.1 429")
            && over.contains("x-envoy-ratelimited: true")
            && over.contains("x-told: client"),
        "{over}"
    );
    let grpc = ask(port, "/user", "x-user: over\r\ncontent-type: application/grpc\r\n");
    assert!(grpc.starts_with("HTTP/1.1 200") && grpc.contains("grpc-status: 14"), "{grpc}");
    assert!(
        ask(port, "/user", "x-user: slow\r\n").starts_with("HTTP/1.1 200"),
        "open where the service does not answer"
    );
}

// spec: MX-97
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_saves_the_calls_of_the_next_requests_and_a_refusal_holds_until_the_reset() {
    let (service, counter) = counter().await;
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let _proxy = Proxy::start(directory.path(), &config(port, service, echo(), ""));
    let calls = |user: &str, requests: usize, expected: &str| {
        for _ in 0..requests {
            let answer = ask(port, "/user", &format!("x-user: {user}\r\n"));
            assert!(answer.starts_with(expected), "{answer}");
        }
        counter.try_iter().count()
    };
    assert_eq!(calls("plain", 50, "HTTP/1.1 200"), 50, "without a quota each request is asked about");
    assert_eq!(calls("quota", 250, "HTTP/1.1 200"), 3, "a hundred requests each");
    assert_eq!(calls("over", 50, "HTTP/1.1 429"), 1);
}

// spec: LR-18
#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_to_deny_without_an_answer_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let log = directory.path().join("log");
    let yaml = config(port, free_port(), echo(), "failure_mode_deny: true, status_on_error: {code: 503},").replace(
        "stat_prefix: l,",
        &format!(
            "stat_prefix: l, access_log: {},",
            support::file_log(&log, "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%")
        ),
    );
    let proxy = Proxy::start(directory.path(), &yaml);
    assert!(ask(port, "/user", "x-user: jo\r\n").starts_with("HTTP/1.1 503"));
    proxy.quit();
    assert_eq!(std::fs::read_to_string(log).unwrap().trim(), "RLSE rate_limiter_error");
}
