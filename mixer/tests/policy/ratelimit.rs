//! Rate limits over the wire: gRPC, HTTP, quotas; files that change; Redis.

use crate::redis_server::RedisServer;
use crate::support::{get, http, start};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::envoy::rate_limit_quota::rate_limit_quota_response::bucket_action::BucketAction;
use proto::envoy::rate_limit_quota::rate_limit_quota_service_client::RateLimitQuotaServiceClient;
use proto::envoy::rate_limit_quota::rate_limit_quota_usage_reports::BucketQuotaUsage;
use proto::envoy::rate_limit_quota::{BucketId, RateLimitQuotaResponse, RateLimitQuotaUsageReports};
use proto::envoy::ratelimit::rate_limit_response::Code;
use proto::envoy::ratelimit::rate_limit_service_client::RateLimitServiceClient;
use proto::envoy::ratelimit::{RateLimitRequest, RateLimitResponse};
use proto::envoy::types::rate_limit_strategy::Strategy;
use proto::envoy::wkt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Istio's sample (samples/ratelimit).
const SAMPLE: &str = "domain: echo-ratelimit\ndescriptors:\n- key: PATH\n  value: \"/\"\n  rate_limit:\n    unit: minute\n    requests_per_unit: 1\n- key: PATH\n  rate_limit:\n    unit: minute\n    requests_per_unit: 100\n";

async fn client(address: SocketAddr) -> RateLimitServiceClient<Channel> {
    RateLimitServiceClient::connect(format!("http://{address}")).await.unwrap()
}

fn request(domain: &str, entries: &[(&str, &str)]) -> RateLimitRequest {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    let descriptor =
        RateLimitDescriptor { entries: entries.iter().map(entry).collect(), ..RateLimitDescriptor::default() };
    RateLimitRequest { domain: domain.to_owned(), descriptors: vec![descriptor], hits_addend: 0 }
}

async fn ask(client: &mut RateLimitServiceClient<Channel>, asked: RateLimitRequest, leases: bool) -> RateLimitResponse {
    let mut asked = tonic::Request::new(asked);
    if leases {
        asked.metadata_mut().insert("x-ferromesh-lease", "1".parse().unwrap());
    }
    client.should_rate_limit(asked).await.unwrap().into_inner()
}

/// Were the minute to end in the middle of a test, what was used up would be granted again.
async fn away_from_the_end_of_a_minute() {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let left = 60 - since.as_secs() % 60;
    if left < 5 {
        tokio::time::sleep(Duration::from_secs(left)).await;
    }
}

// spec: MX-97, MX-110, MX-113, MX-115, MX-116
#[tokio::test]
async fn istios_sample_over_grpc_and_http_with_files_that_change() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.yaml"), SAMPLE).unwrap();
    let config = format!("--ratelimit-config={}", directory.path().display());
    let own =
        ["--ratelimit-grpc-addr=127.0.0.1:0", "--ratelimit-http-addr=127.0.0.1:0", "--ratelimit-response-headers"];
    let running = start(&[&[config.as_str()], own.as_slice()].concat()).await;
    away_from_the_end_of_a_minute().await;
    let mut grpc = client(running.ratelimit_grpc.unwrap()).await;
    let path = || request("echo-ratelimit", &[("PATH", "/")]);
    let first = ask(&mut grpc, path(), false).await;
    assert_eq!((first.overall_code(), first.quota.clone()), (Code::Ok, None), "no lease for who does not ask for it");
    let limit = first.statuses[0].current_limit.clone().unwrap();
    assert_eq!((limit.requests_per_unit, limit.unit, first.statuses[0].limit_remaining), (1, 2, 0));
    assert_eq!(first.response_headers_to_add[0].key, "RateLimit-Limit");
    let mut other = client(running.grpc.unwrap()).await;
    assert_eq!(ask(&mut other, path(), false).await.overall_code(), Code::OverLimit, "the same on the common port");
    let empty = grpc.should_rate_limit(RateLimitRequest::default()).await.unwrap_err();
    assert!(empty.message().contains("domain must not be empty"));

    let address = running.ratelimit_http.unwrap();
    let json = async |path: &str| {
        let body = format!(
            r#"{{"domain":"echo-ratelimit","descriptors":[{{"entries":[{{"key":"PATH","value":"{path}"}}]}}]}}"#
        );
        let asked = Request::post(format!("http://{address}/json")).body(Full::new(Bytes::from(body))).unwrap();
        http(asked).await
    };
    let (status, body) = json("/").await;
    assert_eq!(status, 429);
    assert!(body.contains(r#""overallCode":"OVER_LIMIT""#) && body.contains(r#""unit":"MINUTE""#), "{body}");
    assert_eq!(json("/b").await.0, 200);
    let (status, _) =
        http(Request::post(format!("http://{address}/json")).body(Full::new(Bytes::from("{"))).unwrap()).await;
    assert_eq!(status, 400);
    assert_eq!(get(address, "/healthcheck").await, (hyper::StatusCode::OK, "OK".to_owned()));
    let (_, shown) = get(address, "/rlconfig").await;
    assert!(shown.contains("echo-ratelimit.PATH_/: unit=MINUTE requests_per_unit=1, shadow_mode: false"), "{shown}");
    let (_, metrics) = get(running.monitoring.unwrap(), "/metrics").await;
    assert!(metrics.contains(r#"ratelimit_service_rate_limit_over_limit{domain="echo-ratelimit",key="PATH_/"} 2"#));

    std::fs::write(
        directory.path().join("config.yaml"),
        SAMPLE.replace("requests_per_unit: 1\n", "requests_per_unit: 50\n"),
    )
    .unwrap();
    let changed = async {
        while ask(&mut grpc, path(), false).await.overall_code() == Code::OverLimit {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), changed).await.unwrap();
    running.stop(Duration::from_secs(1)).await;
}

// spec: MX-97
#[tokio::test]
async fn a_caller_that_honours_leases_asks_seldom_and_never_exceeds_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let text = "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1000}}]";
    std::fs::write(directory.path().join("a.yaml"), text).unwrap();
    for redis in [None, Some(RedisServer::start())] {
        let mut flags = vec![format!("--ratelimit-config={}", directory.path().display())];
        flags.extend(redis.as_ref().map(|redis| format!("--redis={}", redis.address())));
        let running = start(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut grpc = client(running.grpc.unwrap()).await;
        let (mut calls, mut requests) = (0, 0);
        loop {
            let answer = ask(&mut grpc, request("d", &[("a", "x")]), true).await;
            calls += 1;
            if answer.overall_code() == Code::OverLimit {
                break;
            }
            requests += answer.quota.unwrap().requests;
        }
        assert_eq!(requests, 1_000, "in {calls} calls");
        assert!(calls < 20, "{calls} calls for 1,000 requests");
        eprintln!("RLS, redis {}: {calls} calls per 1,000 requests", redis.is_some());
        running.stop(Duration::from_secs(1)).await;
    }
}

// spec: MX-114
#[tokio::test]
async fn limits_in_redis_hold_over_several_mixers_and_through_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let text = "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 3}}]";
    std::fs::write(directory.path().join("a.yaml"), text).unwrap();
    let mut redis = RedisServer::start();
    let flags = [format!("--ratelimit-config={}", directory.path().display()), format!("--redis={}", redis.address())];
    let flags = flags.each_ref().map(String::as_str);
    let mixers = [start(&flags).await, start(&flags).await];
    let mut grpc = [client(mixers[0].grpc.unwrap()).await, client(mixers[1].grpc.unwrap()).await];
    let asked = || request("d", &[("a", "x")]);
    for n in 0..3 {
        assert_eq!(ask(&mut grpc[n % 2], asked(), false).await.overall_code(), Code::Ok);
    }
    assert_eq!(ask(&mut grpc[1], asked(), false).await.overall_code(), Code::OverLimit);
    redis.kill();
    let known = ask(&mut grpc[1], asked(), false).await;
    assert_eq!(known.overall_code(), Code::OverLimit, "what is known to be used up needs no Redis");
    let error = grpc[0].should_rate_limit(request("d", &[("a", "y")])).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error:?}");
    redis.restart();
    let back = async {
        while grpc[0].should_rate_limit(request("d", &[("a", "z")])).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    for mixer in mixers {
        mixer.stop(Duration::from_secs(1)).await;
    }
}

// spec: MX-114
#[tokio::test]
async fn limits_of_a_second_have_a_redis_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let text = "domain: d\ndescriptors: [{key: day, rate_limit: {unit: day, requests_per_unit: 3}}, {key: second, rate_limit: {unit: second, requests_per_unit: 3}}]";
    std::fs::write(directory.path().join("a.yaml"), text).unwrap();
    let (common, mut own) = (RedisServer::start(), RedisServer::start());
    let flags = [
        format!("--ratelimit-config={}", directory.path().display()),
        format!("--redis={}", common.address()),
        format!("--redis-per-second={}", own.address()),
    ];
    let running = start(&flags.each_ref().map(String::as_str)).await;
    let mut grpc = client(running.grpc.unwrap()).await;
    assert_eq!(ask(&mut grpc, request("d", &[("second", "x")]), false).await.overall_code(), Code::Ok);
    own.kill();
    assert!(grpc.should_rate_limit(request("d", &[("second", "x")])).await.is_err());
    assert_eq!(ask(&mut grpc, request("d", &[("day", "x")]), false).await.overall_code(), Code::Ok);
    running.stop(Duration::from_secs(1)).await;
}

/// A client of the quota service.
struct Reporter {
    reports: mpsc::Sender<RateLimitQuotaUsageReports>,
    answers: tonic::Streaming<RateLimitQuotaResponse>,
}

impl Reporter {
    /// Joins; answers come once the first report is sent.
    async fn join(address: SocketAddr, allowed: u64) -> Self {
        let mut client = RateLimitQuotaServiceClient::connect(format!("http://{address}")).await.unwrap();
        let (reports, sent) = mpsc::channel(8);
        reports.send(report("d", "gold", allowed)).await.unwrap();
        let answers = client.stream_rate_limit_quotas(ReceiverStream::new(sent)).await.unwrap().into_inner();
        Self { reports, answers }
    }

    /// Tokens of the next assignment; nothing where all may pass.
    async fn assigned(&mut self) -> Option<u32> {
        let answer =
            tokio::time::timeout(Duration::from_secs(5), self.answers.message()).await.unwrap().unwrap().unwrap();
        let Some(BucketAction::QuotaAssignmentAction(action)) = answer.bucket_action[0].bucket_action else {
            panic!("{answer:?}")
        };
        match action.rate_limit_strategy?.strategy.unwrap() {
            Strategy::TokenBucket(bucket) => Some(bucket.max_tokens),
            other => panic!("{other:?}"),
        }
    }
}

fn report(domain: &str, tier: &str, allowed: u64) -> RateLimitQuotaUsageReports {
    let bucket =
        BucketId { bucket: [("tier".to_owned(), tier.to_owned()), ("name".to_owned(), "n".to_owned())].into() };
    RateLimitQuotaUsageReports {
        domain: domain.to_owned(),
        bucket_quota_usages: vec![BucketQuotaUsage {
            bucket_id: Some(bucket),
            time_elapsed: Some(wkt::Duration { seconds: 1, nanos: 0 }),
            num_requests_allowed: allowed,
            num_requests_denied: 0,
        }],
    }
}

// spec: MX-98
#[tokio::test]
async fn quotas_are_split_over_the_clients_by_use() {
    let directory = tempfile::tempdir().unwrap();
    let text = "domain: d\ndescriptors:\n- key: name\n  descriptors:\n  - {key: tier, value: gold, rate_limit: {unit: second, requests_per_unit: 100}}\n";
    std::fs::write(directory.path().join("a.yaml"), text).unwrap();
    let running = start(&[&format!("--ratelimit-config={}", directory.path().display())]).await;
    let address = running.grpc.unwrap();
    let mut first = Reporter::join(address, 10).await;
    assert_eq!(first.assigned().await, Some(100), "alone it has all");
    let mut second = Reporter::join(address, 30).await;
    assert_eq!(second.assigned().await, Some(73));
    assert_eq!(first.assigned().await, Some(27), "told without having asked");
    first.reports.send(report("", "gold", 10)).await.unwrap();
    assert_eq!(first.assigned().await, Some(27), "each report renews the assignment");
    first.reports.send(report("", "silver", 10)).await.unwrap();
    assert_eq!(first.assigned().await, None, "no limit, no strategy");
    drop(second);
    assert_eq!(first.assigned().await, Some(100), "what a client leaves goes to the others");
    drop(first);
    running.stop(Duration::from_secs(1)).await;
}
