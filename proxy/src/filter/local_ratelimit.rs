//! `envoy.filters.http.local_ratelimit`: a token bucket that all workers share (HP-11, LR-18).

use super::{Decision, Step, StreamCx, plain};
use crate::message::Request;
use crate::outcome::{Outcome, Reason};
use crate::refusal::Refusal;
use proto::any;
use proto::duration::from_proto;
use proto::envoy::core::{RuntimeFractionalPercent, header_value_option::HeaderAppendAction};
use proto::envoy::http_filters::local_ratelimit::v3::LocalRateLimit as Written;
use proto::envoy::types::{TokenBucket, fractional_percent::DenominatorType};
use proto::envoy::wkt::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The filter's name, under which routes have their own bucket.
pub const NAME: &str = "envoy.filters.http.local_ratelimit";

/// A bucket of tokens: `max` at most, `per_fill` more each `interval`.
#[derive(Debug)]
pub struct Bucket {
    max: u64,
    per_fill: u64,
    interval_ms: u64,
    started: std::time::Instant,
    /// Tokens in the low half, number of the last fill in the high half; written by every worker.
    state: AtomicU64,
}

impl Bucket {
    /// A full bucket. `interval` is at least a millisecond.
    pub fn new(max: u32, per_fill: u32, interval: Duration) -> Self {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let (max, per_fill) = (u64::from(max), u64::from(per_fill));
        Self { max, per_fill, interval_ms, started: now(), state: AtomicU64::new(max) }
    }

    /// Takes a token, if there is one.
    pub fn take(&self) -> bool {
        let elapsed = u64::try_from(now().duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        self.take_at(elapsed)
    }

    fn take_at(&self, elapsed_ms: u64) -> bool {
        let fills = (elapsed_ms / self.interval_ms) & 0xffff_ffff;
        let next = |state: u64| {
            let (last, tokens) = (state >> 32, state & 0xffff_ffff);
            let filled = tokens.saturating_add(fills.saturating_sub(last).saturating_mul(self.per_fill)).min(self.max);
            let last = last.max(fills);
            filled.checked_sub(1).map(|left| last << 32 | left)
        };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }
}

/// The clock of the bucket: tokio's, so that tests can move it.
fn now() -> std::time::Instant {
    crate::env::Instant::now().into_std()
}

/// A name and a value.
type Field = (Box<[u8]>, Box<[u8]>);

/// The filter, or what a route has for it.
#[derive(Debug)]
pub struct LocalRateLimit {
    bucket: Option<Bucket>,
    status: u16,
    enabled: (u64, u64),
    enforced: (u64, u64),
    response_headers: Vec<Field>,
}

/// Parses the filter, or what a route has for it.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any) -> Result<LocalRateLimit, Refusal> {
    let written: Written = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    if !written.descriptors.is_empty() {
        return Err(Refusal::unsupported("descriptors"));
    }
    let status = written.status.as_ref().and_then(|s| u16::try_from(s.code).ok()).filter(|s| *s >= 400).unwrap_or(429);
    let headers = written.response_headers_to_add.iter().filter_map(|option| {
        let known = HeaderAppendAction::try_from(option.append_action).is_ok();
        let header = option.header.as_ref().filter(|_| known)?;
        Some((header.key.as_bytes().into(), header.value.as_bytes().into()))
    });
    Ok(LocalRateLimit {
        bucket: written.token_bucket.as_ref().map(bucket).transpose()?,
        status,
        // HP-11: nothing is enabled or enforced unless it is said.
        enabled: share(written.filter_enabled.as_ref()),
        enforced: share(written.filter_enforced.as_ref()),
        response_headers: headers.collect(),
    })
}

fn bucket(written: &TokenBucket) -> Result<Bucket, Refusal> {
    let interval = written.fill_interval.as_ref().map_or(Duration::ZERO, from_proto);
    if interval < Duration::from_millis(50) {
        return Err(Refusal::new("token_bucket.fill_interval", "at least 50 ms"));
    }
    Ok(Bucket::new(written.max_tokens, written.tokens_per_fill.as_ref().map_or(1, |n| n.value), interval))
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

impl LocalRateLimit {
    pub(super) fn on_request<'a>(&'a self, rq: &'a Request, cx: &'a StreamCx) -> Step<'a> {
        let own = cx.override_of::<Self>(&rq.head, NAME);
        let limit = own.as_deref().unwrap_or(self);
        let Some(bucket) = &limit.bucket else { return Step::CONTINUE };
        let hit = |(numerator, denominator)| cx.facts.env.chance(numerator, denominator);
        if limit.enabled.0 == 0 || !hit(limit.enabled) || bucket.take() || !hit(limit.enforced) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: HP-11
    #[test]
    fn tokens_run_out_and_come_back_with_each_interval() {
        let bucket = Bucket::new(3, 2, Duration::from_millis(100));
        let taken = |at: u64| (0..10).filter(|_| bucket.take_at(at)).count();
        assert_eq!(taken(0), 3);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(100), 2);
        assert_eq!(taken(1000), 3, "never more than the bucket holds");
    }
}
