//! `envoy.filters.http.ratelimit`: a service counts requests for all proxies (LR-18, MX-97, MX-110).
//!
//! Beyond Envoy it honours the `quota` of an answer: so many requests with the same descriptors need no further call
//! (Envoy 1.40 ignores it); a refusal holds until the limit is reset.
//!
//! - `config.rs`: the filter and what routes have for it

mod config;

pub use config::{Override, parse, parse_override};

use super::lease::{Count, Terms};
use super::{Decision, Field, FilterState, Step, StreamCx, grpc_reply, is_grpc, plain};
use crate::codec::bytes::is_token;
use crate::env::Instant;
use crate::message::{Headers, Request};
use crate::net::Service;
use crate::outcome::{Outcome, Reason};
use crate::route::{DescriptorFacts, Entries, RateLimit, Route};
use crate::telemetry::envoy::EnvoyStats;
use crate::telemetry::names::LimitMetric;
use crate::upstream::{Method, unary};
use prost::Message as _;
use proto::envoy::core::HeaderValue;
use proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::envoy::ratelimit::rate_limit_response::{Code, DescriptorStatus, Quota, quota::ExpirationSpecifier};
use proto::envoy::ratelimit::{RateLimitRequest, RateLimitResponse};
use proto::envoy::wkt::{Value, value::Kind};
use proto::program::{LIMITS_FIELD, MAX_COUNTED};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

/// The filter's name, under which routes have their own descriptors.
pub const NAME: &str = "envoy.filters.http.ratelimit";

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// gRPC status where a limit is used up: UNAVAILABLE, or RESOURCE_EXHAUSTED where that is asked for.
const UNAVAILABLE: u32 = 14;
const RESOURCE_EXHAUSTED: u32 = 8;

/// The filter.
#[derive(Debug)]
pub struct RateLimitFilter {
    /// Its own among all filters: leases are kept under it, and go with it.
    pub(super) id: u64,
    domain: Box<str>,
    stage: u32,
    service: Service,
    timeout: Duration,
    deny_on_error: bool,
    status_on_error: u16,
    status: u16,
    /// `x-envoy-ratelimited` marks a refusal.
    mark: bool,
    /// `x-ratelimit-limit`, `-remaining`, `-reset` go to the client.
    headers: bool,
    resource_exhausted: bool,
    own: Box<[RateLimit]>,
}

/// What is asked: descriptors, and how many hits each is.
type Asked = Vec<(Entries, Option<u32>)>;

impl RateLimitFilter {
    /// Cluster of the service.
    pub fn cluster(&self) -> &str {
        &self.service.cluster
    }

    pub(super) fn on_request<'a>(&'a self, st: &'a mut FilterState, rq: &'a mut Request, cx: &'a StreamCx) -> Step<'a> {
        let Some(route) = cx.route(&rq.head) else { return Step::CONTINUE };
        let own = cx.override_of::<Override>(&rq.head, NAME);
        let asked = self.descriptors(rq, route, own.as_deref(), cx);
        if asked.is_empty() {
            return Step::CONTINUE;
        }
        let domain = own.as_ref().and_then(|own| own.domain.as_deref()).unwrap_or(&self.domain).to_owned();
        let question = question(domain, asked);
        let key = self.key(&question);
        match cx.facts.leases.limits.take(&key, cx.now()) {
            Some(leased) => Step::Done(self.obey(&leased, st, rq, cx)),
            None => Step::Wait(Box::pin(self.ask(question, key, (st, rq), cx))),
        }
    }

    /// All descriptors of a request (Envoy's order: the route's, then the virtual host's).
    fn descriptors(&self, rq: &Request, route: &Route, own: Option<&Override>, cx: &StreamCx) -> Asked {
        let choice = route.choose(&rq.head, cx.random).map(|choice| choice.cluster);
        let facts = DescriptorFacts {
            head: &rq.head,
            peer: &cx.peer,
            source: &cx.facts.node.cluster,
            destination: choice.as_deref(),
        };
        let of = |limits: &[RateLimit]| -> Asked {
            let staged = limits.iter().filter(|limit| limit.stage == self.stage);
            staged.filter_map(|limit| Some((limit.descriptor(facts)?, limit.hits(facts.head)))).collect()
        };
        if let Some(own) = own.filter(|own| !own.limits.is_empty()) {
            return of(&own.limits);
        }
        if !self.own.is_empty() {
            return of(&self.own);
        }
        let mut asked = of(&route.rate_limits);
        let host = own.map(|own| own.virtual_host).unwrap_or_default();
        if host.includes(route.rate_limits.is_empty(), route.include_host_rate_limits) {
            asked.extend(of(&route.host_rate_limits));
        }
        asked
    }

    fn key(&self, question: &RateLimitRequest) -> Rc<[u8]> {
        let mut key = self.id.to_be_bytes().to_vec();
        key.extend_from_slice(&question.encode_to_vec());
        key.into()
    }

    async fn ask(
        &self,
        question: RateLimitRequest,
        key: Rc<[u8]>,
        (st, rq): (&mut FilterState, &mut Request),
        cx: &StreamCx,
    ) -> Decision {
        let deadline = Instant::now() + self.timeout;
        let answer = async {
            let cluster = cx.cluster(&self.service.cluster).ok_or(Reason::UnknownCluster)?;
            let metadata = &[(super::lease::HEADER, "1")];
            let method = Method { cluster: &cluster, authority: &self.service.authority, path: PATH, metadata };
            unary::<RateLimitResponse>(method, &question, (self.timeout, deadline)).await
        };
        let answer: Result<RateLimitResponse, Outcome> = match tokio::time::timeout_at(deadline, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Reason::RouteTimeout.into()),
        };
        match answer {
            Ok(answer) if answer.overall_code != i32::from(Code::Unknown) => {
                let decision = self.obey(&answer, st, rq, cx);
                keep(key, &question, answer, cx);
                decision
            }
            Ok(_) | Err(_) if !self.deny_on_error => Decision::Continue,
            Ok(_) | Err(_) => {
                cx.note(Reason::RateLimitError);
                Decision::Reply(Box::new(plain(self.status_on_error, String::new(), &rq.head)))
            }
        }
    }

    fn obey(&self, answer: &RateLimitResponse, st: &mut FilterState, rq: &mut Request, cx: &StreamCx) -> Decision {
        let mut headers: Vec<Field> = answer.response_headers_to_add.iter().filter_map(writable).collect();
        if self.headers {
            headers.extend(standard_headers(answer));
        }
        if answer.overall_code != i32::from(Code::OverLimit) {
            for (name, value) in answer.request_headers_to_add.iter().filter_map(writable) {
                rq.head.headers.append(&name, &value);
            }
            *st = FilterState::ForClient(headers.into());
            return Decision::Continue;
        }
        cx.note(Outcome::with_detail(Reason::RateLimited, &*self.domain));
        let mut response = if is_grpc(&rq.head) {
            let status = if self.resource_exhausted { RESOURCE_EXHAUSTED } else { UNAVAILABLE };
            grpc_reply(status, "")
        } else {
            plain(self.status, answer.raw_body.clone(), &rq.head)
        };
        if self.mark {
            response.head.headers.append_known(crate::message::Known::XEnvoyRatelimited, b"true");
        }
        add(&headers, &mut response.head.headers);
        Decision::Reply(Box::new(response))
    }
}

fn add(headers: &[Field], to: &mut Headers) {
    headers.iter().for_each(|(name, value)| to.append(name, value));
}

fn question(domain: String, asked: Asked) -> RateLimitRequest {
    let descriptor = |(entries, hits): (Entries, Option<u32>)| RateLimitDescriptor {
        entries: entries.into_iter().map(|(key, value)| Entry { key: key.into(), value }).collect(),
        hits_addend: hits.map(|hits| proto::envoy::wkt::UInt64Value { value: hits.into() }),
        ..RateLimitDescriptor::default()
    };
    RateLimitRequest { domain, descriptors: asked.into_iter().map(descriptor).collect(), hits_addend: 0 }
}

/// How long a refusal is believed at most: a limit that is raised should be felt before the window ends.
const REFUSED: Duration = Duration::from_secs(5);

/// Keeps an answer for as long as it says.
fn keep(key: Rc<[u8]>, question: &RateLimitRequest, answer: RateLimitResponse, cx: &StreamCx) {
    let now = cx.now();
    let terms = if answer.overall_code == i32::from(Code::OverLimit) {
        let over = answer.statuses.iter().filter(|status| status.code == i32::from(Code::OverLimit));
        let longest =
            over.filter_map(|status| status.duration_until_reset.as_ref().map(proto::duration::from_proto)).max();
        longest.map(|time| (time.min(REFUSED), None))
    } else {
        answer
            .quota
            .as_ref()
            .and_then(|quota| Some((until(quota, cx, now)?, Some(u64::from(quota.requests).saturating_sub(1)))))
    };
    if let Some((time, uses)) = terms {
        let counts = counts(question, &answer, &cx.facts.stats);
        cx.facts.leases.limits.keep(key, answer, now, Terms { time, uses, counts });
    }
}

/// What each use counts: the hits of each descriptor, under the name of its limit.
fn counts(question: &RateLimitRequest, answer: &RateLimitResponse, stats: &EnvoyStats) -> Box<[Count]> {
    let named = answer.dynamic_metadata.as_ref().and_then(|metadata| metadata.fields.get(LIMITS_FIELD));
    let Some(Kind::ListValue(names)) = named.and_then(|field| field.kind.as_ref()) else { return Box::default() };
    let each = names.values.iter().zip(&question.descriptors).zip(&answer.statuses).take(MAX_COUNTED);
    let count = |((name, asked), status): ((&Value, &RateLimitDescriptor), &DescriptorStatus)| {
        let Some(Kind::StringValue(name)) = name.kind.as_ref().filter(|_| !asked.is_negative_hits) else { return None };
        let metric = match status.code == i32::from(Code::OverLimit) {
            true => LimitMetric::Over,
            false => LimitMetric::Within,
        };
        let hits = asked.hits_addend.as_ref().map_or(1, |hits| hits.value);
        (!name.is_empty()).then(|| Count::Limit(stats.limit(name), metric, hits))
    };
    each.filter_map(count).collect()
}

/// How long a quota may be used.
fn until(quota: &Quota, cx: &StreamCx, now: Instant) -> Option<Duration> {
    let ExpirationSpecifier::ValidUntil(at) = quota.expiration_specifier.as_ref()?;
    let end = Duration::new(u64::try_from(at.seconds).ok()?, u32::try_from(at.nanos).ok()?);
    (UNIX_EPOCH + end).duration_since(cx.facts.env.wall(now)).ok()
}

/// A header that can be written: what cannot is left out.
fn writable(header: &HeaderValue) -> Option<Field> {
    let name = header.key.to_ascii_lowercase();
    let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    let good = is_token(name.as_bytes()) && !name.is_empty() && !value.iter().any(|byte| b"\r\n\0".contains(byte));
    good.then(|| (name.into_bytes().into(), value.into()))
}

/// `x-ratelimit-*` of the descriptor that has least left (draft-ietf-httpapi-ratelimit-headers-03).
fn standard_headers(answer: &RateLimitResponse) -> Vec<Field> {
    let limited = answer.statuses.iter().filter_map(|status| Some((status, status.current_limit.as_ref()?)));
    let Some((status, limit)) = limited.min_by_key(|(status, _)| status.limit_remaining) else { return Vec::new() };
    let reset = status.duration_until_reset.as_ref().map_or(0, |time| time.seconds.max(0));
    let header = |name: &str, value: String| (name.as_bytes().into(), value.into_bytes().into());
    vec![
        header(
            "x-ratelimit-limit",
            format!("{}, {};w={}", limit.requests_per_unit, limit.requests_per_unit, window_s(limit.unit)),
        ),
        header("x-ratelimit-remaining", status.limit_remaining.to_string()),
        header("x-ratelimit-reset", reset.to_string()),
    ]
}

/// Seconds of a unit of Envoy's API.
fn window_s(unit: i32) -> u32 {
    match unit {
        1 => 1,
        2 => 60,
        3 => 3_600,
        4 => 86_400,
        5 => 2_592_000,
        6 => 31_536_000,
        7 => 604_800,
        _ => 0,
    }
}
