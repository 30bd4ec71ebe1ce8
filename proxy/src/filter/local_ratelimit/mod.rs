//! `envoy.filters.http.local_ratelimit`: buckets of tokens that all workers share (HP-11, LR-18).

mod bucket;

pub use bucket::Bucket;

use super::{Decision, Field, Step, StreamCx, plain};
use crate::message::Request;
use crate::outcome::{Outcome, Reason};
use crate::refusal::{Refusal, Within};
use crate::route::{DescriptorFacts, Entries, RateLimit};
use crate::telemetry::names::LimitMetric;
use bucket::Buckets;
use proto::any;
use proto::duration::from_proto;
use proto::envoy::core::{RuntimeFractionalPercent, header_value_option::HeaderAppendAction};
use proto::envoy::extensions::common::ratelimit::v3::LocalRateLimitDescriptor;
use proto::envoy::http_filters::local_ratelimit::v3::LocalRateLimit as Written;
use proto::envoy::types::{TokenBucket, fractional_percent::DenominatorType};
use proto::envoy::wkt::Any;
use std::time::Duration;

/// The filter's name, under which routes have their own bucket.
pub const NAME: &str = "envoy.filters.http.local_ratelimit";

/// Keys of a descriptor without values that are told apart where nothing is said (Envoy: `max_dynamic_descriptors`).
const KEYS: u32 = 20;
/// The most that can be asked for.
const MAX_KEYS: u32 = 65_536;

/// The filter, or what a route has for it.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// `stat_prefix`, under which hits are counted.
    name: Box<str>,
    /// For requests without a descriptor of their own, or for all.
    bucket: Option<Bucket>,
    for_all: bool,
    descriptors: Box<[Descriptor]>,
    /// What makes descriptors; empty: what the route says.
    limits: Box<[RateLimit]>,
    stage: u32,
    status: u16,
    enabled: (u64, u64),
    enforced: (u64, u64),
    response_headers: Vec<Field>,
}

/// A key and its value; none: any.
type Entry = (Box<str>, Option<Box<str>>);

/// Requests with these entries have a bucket of their own.
#[derive(Debug)]
struct Descriptor {
    /// Keys and values; none: any value, and each has its bucket.
    entries: Box<[Entry]>,
    tokens: Tokens,
}

#[derive(Debug)]
enum Tokens {
    One(Bucket),
    PerKey(Buckets),
}

/// Parses the filter, or what a route has for it.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any) -> Result<LocalRateLimit, Refusal> {
    let written: Written = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let status = written.status.as_ref().and_then(|s| u16::try_from(s.code).ok()).filter(|s| *s >= 400).unwrap_or(429);
    let headers = written.response_headers_to_add.iter().filter_map(|option| {
        let known = HeaderAppendAction::try_from(option.append_action).is_ok();
        let header = option.header.as_ref().filter(|_| known)?;
        Some((header.key.as_bytes().into(), header.value.as_bytes().into()))
    });
    let keys = written.max_dynamic_descriptors.as_ref().map_or(KEYS, |keys| keys.value).min(MAX_KEYS);
    let descriptors = written.descriptors.iter().enumerate();
    let descriptors = descriptors.map(|(i, d)| Descriptor::parse(d, keys).within(&format!("descriptors[{i}]")));
    let limits = written.rate_limits.iter().enumerate();
    let limits = limits.map(|(i, limit)| RateLimit::parse(limit).within(&format!("rate_limits[{i}]")));
    Ok(LocalRateLimit {
        name: written.stat_prefix.into(),
        bucket: written.token_bucket.as_ref().map(|written| terms(written).map(of)).transpose()?,
        for_all: written.always_consume_default_token_bucket.as_ref().is_none_or(|on| on.value),
        descriptors: descriptors.collect::<Result<_, _>>()?,
        limits: limits.collect::<Result<_, _>>()?,
        stage: written.stage,
        status,
        // HP-11: nothing is enabled or enforced unless it is said.
        enabled: share(written.filter_enabled.as_ref()),
        enforced: share(written.filter_enforced.as_ref()),
        response_headers: headers.collect(),
    })
}

/// Tokens at most, tokens per fill, time between two fills.
type Terms = (u32, u32, Duration);

fn terms(written: &TokenBucket) -> Result<Terms, Refusal> {
    let interval = written.fill_interval.as_ref().map_or(Duration::ZERO, from_proto);
    if interval < Duration::from_millis(50) {
        return Err(Refusal::new("token_bucket.fill_interval", "at least 50 ms"));
    }
    Ok((written.max_tokens, written.tokens_per_fill.as_ref().map_or(1, |n| n.value), interval))
}

fn of((max, per_fill, interval): Terms) -> Bucket {
    Bucket::new(max, per_fill, interval)
}

fn share(written: Option<&RuntimeFractionalPercent>) -> (u64, u64) {
    let Some(share) = written.and_then(|w| w.default_value.as_ref()) else { return (0, 100) };
    let denominator = match DenominatorType::try_from(share.denominator) {
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        _ => 100,
    };
    (u64::from(share.numerator), denominator)
}

impl Descriptor {
    fn parse(written: &LocalRateLimitDescriptor, keys: u32) -> Result<Self, Refusal> {
        if written.shadow_mode {
            return Err(Refusal::unsupported("shadow_mode"));
        }
        let bucket = written.token_bucket.as_ref().ok_or_else(|| Refusal::new("token_bucket", "is needed"))?;
        let terms = terms(bucket)?;
        let value = |text: &str| (!text.is_empty()).then(|| text.into());
        let entries: Box<[Entry]> = written.entries.iter().map(|e| (e.key.as_str().into(), value(&e.value))).collect();
        let any = entries.iter().any(|(_, value)| value.is_none());
        let tokens = if any { Tokens::PerKey(Buckets::new(terms, keys as usize)) } else { Tokens::One(of(terms)) };
        Ok(Self { entries, tokens })
    }

    fn fits(&self, asked: &Entries) -> bool {
        let mut pairs = self.entries.iter().zip(asked);
        self.entries.len() == asked.len()
            && pairs.all(|(own, asked)| own.0 == asked.0 && own.1.as_deref().is_none_or(|value| value == asked.1))
    }

    fn take(&self, asked: &Entries, hits: u32) -> bool {
        match &self.tokens {
            Tokens::One(bucket) => bucket.take_hits(hits),
            Tokens::PerKey(buckets) => buckets.take_hits(asked, hits),
        }
    }
}

impl LocalRateLimit {
    pub(super) fn on_request<'a>(&'a self, rq: &'a Request, cx: &'a StreamCx) -> Step<'a> {
        let own = cx.override_of::<Self>(&rq.head, NAME);
        let limit = own.as_deref().unwrap_or(self);
        let hit = |(numerator, denominator)| cx.facts.env.chance(numerator, denominator);
        if limit.enabled.0 == 0 || !hit(limit.enabled) {
            return Step::CONTINUE;
        }
        let (hits, enough) = limit.take(rq, cx);
        match enough {
            true if hits == 0 => {}
            true => cx.facts.stats.limit(&limit.name).add(LimitMetric::Within, hits),
            false => cx.facts.stats.limit(&limit.name).add(LimitMetric::Over, hits.max(1)),
        }
        if enough || !hit(limit.enforced) {
            return Step::CONTINUE;
        }
        let outcome = Outcome::from(Reason::LocalRateLimited);
        cx.note(outcome.clone());
        let mut response = plain(limit.status, outcome.body(false), &rq.head);
        for (name, value) in &limit.response_headers {
            response.head.headers.append(name, value);
        }
        Step::Done(Decision::Reply(Box::new(response)))
    }

    /// Takes the tokens of a request: of each descriptor that it fits, and of the bucket for all. Gives its hits, none where
    /// it is not limited, and whether there were enough tokens.
    fn take(&self, rq: &Request, cx: &StreamCx) -> (u64, bool) {
        let (mut fits, mut enough, mut taken) = (false, true, 0);
        if !self.descriptors.is_empty() {
            self.asked(rq, cx, |asked, hits| {
                if let Some(descriptor) = self.descriptors.iter().find(|descriptor| descriptor.fits(&asked)) {
                    fits = true;
                    taken += u64::from(hits);
                    enough &= descriptor.take(&asked, hits);
                }
            });
        }
        match &self.bucket {
            // What fits no descriptor of several is not the limit's.
            Some(bucket) if !self.for_all && !fits => (u64::from(self.descriptors.is_empty()), bucket.take()),
            Some(bucket) if self.for_all => (taken.max(1), enough && bucket.take()),
            _ => (taken, enough),
        }
    }

    /// The descriptors of a request.
    fn asked(&self, rq: &Request, cx: &StreamCx, mut tell: impl FnMut(Entries, u32)) {
        let Some(route) = cx.route(&rq.head) else { return };
        let choice = route.choose(&rq.head, cx.random).map(|choice| choice.cluster);
        let facts = DescriptorFacts {
            head: &rq.head,
            peer: &cx.peer,
            source: &cx.facts.node.cluster,
            destination: choice.as_deref(),
        };
        let limits = if self.limits.is_empty() { &route.rate_limits } else { &self.limits };
        for limit in limits.iter().filter(|limit| limit.stage == self.stage) {
            if let Some(asked) = limit.descriptor(facts) {
                tell(asked, limit.hits(facts.head).unwrap_or(1));
            }
        }
    }
}
