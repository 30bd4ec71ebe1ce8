//! The rate limit service over gRPC: `envoy.service.ratelimit.v3.RateLimitService` (MX-97, MX-110).
//!
//! To a caller that honours leases ([`LEASE_HEADER`]) the answer says in `quota` how many requests with the same
//! descriptors, this one included, may go on without a question, and until when; then the caller asks again. A refusal
//! holds for the longest `duration_until_reset` among the descriptors that are beyond their limit. `dynamic_metadata` names the
//! limits ([`LIMITS_FIELD`]), so that the caller can say which of them it counted.

use super::ext_authz::LEASE_HEADER;
use crate::ratelimit::domain::Unit;
use crate::ratelimit::limiter::{Answer, Descriptor, Limiter, MAX_DESCRIPTORS, MAX_ENTRIES, Question, Status};
use proto::envoy::core::HeaderValue;
use proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::envoy::ratelimit::rate_limit_response::quota::ExpirationSpecifier;
use proto::envoy::ratelimit::rate_limit_response::{Code, DescriptorStatus, Quota, RateLimit};
use proto::envoy::ratelimit::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};
use proto::envoy::ratelimit::{RateLimitRequest, RateLimitResponse};
use proto::envoy::wkt;
use proto::envoy::wkt::value::Kind;
use proto::program::LIMITS_FIELD;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tonic::{Request, Response};

/// The service.
#[derive(Debug, Clone)]
pub struct RateLimits {
    /// Who answers.
    pub limiter: Arc<Limiter>,
    /// Whether answers carry `RateLimit-Limit`, `-Remaining` and `-Reset` for the client (MX-115).
    pub headers: bool,
}

impl RateLimits {
    /// For the gRPC server.
    pub fn service(self) -> RateLimitServiceServer<Self> {
        RateLimitServiceServer::new(self)
    }
}

#[tonic::async_trait]
impl RateLimitService for RateLimits {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, tonic::Status> {
        let leases = request.metadata().contains_key(LEASE_HEADER);
        let question = question(request.into_inner(), leases).map_err(tonic::Status::invalid_argument)?;
        match self.limiter.decide(&question).await {
            Ok(answer) => Ok(Response::new(response(&answer, self.headers, leases))),
            Err(error) => Err(tonic::Status::unavailable(error.to_string())),
        }
    }
}

/// What Envoy asks, in our words.
fn question(request: RateLimitRequest, leases: bool) -> Result<Question, String> {
    if request.domain.is_empty() {
        return Err("rate limit domain must not be empty".to_owned());
    }
    if request.descriptors.is_empty() {
        return Err("rate limit descriptor list must not be empty".to_owned());
    }
    if request.descriptors.len() > MAX_DESCRIPTORS {
        return Err(format!("more than {MAX_DESCRIPTORS} descriptors"));
    }
    let descriptors = request.descriptors.into_iter().map(descriptor).collect::<Result<_, _>>()?;
    Ok(Question { domain: request.domain, descriptors, hits: request.hits_addend, leases })
}

fn descriptor(descriptor: RateLimitDescriptor) -> Result<Descriptor, String> {
    if descriptor.entries.len() > MAX_ENTRIES {
        return Err(format!("more than {MAX_ENTRIES} entries"));
    }
    let hits = descriptor.hits_addend.map(|hits| i64::try_from(hits.value).unwrap_or(i64::MAX));
    let hits = if descriptor.is_negative_hits { Some(-hits.unwrap_or(1)) } else { hits };
    let limit = descriptor.limit.and_then(|limit| Some((limit.requests_per_unit, Unit::of_override(limit.unit)?)));
    Ok(Descriptor {
        entries: descriptor.entries.into_iter().map(|entry| (entry.key, entry.value)).collect(),
        limit,
        hits,
    })
}

fn response(answer: &Answer, headers: bool, leases: bool) -> RateLimitResponse {
    RateLimitResponse {
        overall_code: code(answer.over).into(),
        statuses: answer.statuses.iter().map(|one| status(one, leases)).collect(),
        response_headers_to_add: if headers { client_headers(&answer.statuses) } else { Vec::new() },
        quota: answer.lease.map(|(requests, time)| Quota {
            requests,
            id: String::new(),
            expiration_specifier: Some(ExpirationSpecifier::ValidUntil(timestamp(SystemTime::now() + time))),
        }),
        dynamic_metadata: leases.then(|| limits(&answer.statuses)),
        ..RateLimitResponse::default()
    }
}

/// Which limit each descriptor met.
fn limits(statuses: &[Status]) -> wkt::Struct {
    let name = |status: &Status| {
        let counted = status.limit.as_ref().filter(|limit| limit.per_unit.is_some());
        let name = counted.map(|limit| limit.path.clone()).unwrap_or_default();
        wkt::Value { kind: Some(Kind::StringValue(name)) }
    };
    let names = wkt::ListValue { values: statuses.iter().map(name).collect() };
    let names = wkt::Value { kind: Some(Kind::ListValue(names)) };
    wkt::Struct { fields: [(LIMITS_FIELD.to_owned(), names)].into() }
}

fn code(over: bool) -> Code {
    if over { Code::OverLimit } else { Code::Ok }
}

/// `exact`: the time until the reset holds for a lease, so that it is not rounded.
fn status(status: &Status, exact: bool) -> DescriptorStatus {
    let limit = status.limit.as_ref().and_then(|limit| {
        Some(RateLimit { name: limit.name.clone(), requests_per_unit: limit.per_unit?, unit: limit.unit.number() })
    });
    let counted = limit.is_some();
    DescriptorStatus {
        code: code(status.over).into(),
        current_limit: limit,
        limit_remaining: status.remaining,
        duration_until_reset: counted.then(|| {
            let reset = if exact { status.until_reset } else { seconds(status.until_reset) };
            proto::duration::to_proto(reset)
        }),
        quota: None,
    }
}

/// Whole seconds, as envoyproxy/ratelimit gives them: never less than what is true.
fn seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

fn timestamp(time: SystemTime) -> wkt::Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    wkt::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

/// Headers for the client, of the descriptor that has least left (MX-115).
fn client_headers(statuses: &[Status]) -> Vec<HeaderValue> {
    let limited = statuses.iter().filter_map(|status| Some((status, status.limit.as_ref()?.per_unit?)));
    let Some((status, per_unit)) = limited.min_by_key(|(status, _)| status.remaining) else { return Vec::new() };
    let header =
        |key: &str, value: u64| HeaderValue { key: key.to_owned(), value: value.to_string(), ..HeaderValue::default() };
    vec![
        header("RateLimit-Limit", per_unit.into()),
        header("RateLimit-Remaining", status.remaining.into()),
        header("RateLimit-Reset", seconds(status.until_reset).as_secs()),
    ]
}
