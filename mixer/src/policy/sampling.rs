//! Sampling of reports (MX-45): a share of them at random, and fewer once there are many.

use super::instance::expression;
use crate::attribute::Value;
use crate::expression::Expression;
use crate::expression::check::Scope;
use crate::expression::eval::Reader;
use crate::yaml::{Fault, Place};
use std::hash::{BuildHasher as _, BuildHasherDefault};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The `sampling` of a rule.
#[derive(Debug)]
pub struct Sampling {
    random: Option<Random>,
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Random {
    /// Requests with the same value are all in or all out.
    attribute: Option<Expression>,
    /// How many of `out_of`.
    sampled: u64,
    out_of: u64,
}

/// Two atomics, written by whoever reports: a race between two windows costs a report more or less.
#[derive(Debug)]
struct Limit {
    window: Duration,
    unsampled: u64,
    rate: u64,
    started: Instant,
    /// Milliseconds from `started` to the beginning of the window.
    window_ms: AtomicU64,
    seen: AtomicU64,
}

impl Sampling {
    /// Reads `sampling`.
    ///
    /// # Errors
    /// An unknown field or a value out of range.
    pub fn parse(place: &Place<'_>, scope: &Scope<'_>) -> Result<Self, Fault> {
        let mut fields = place.fields()?;
        let random = fields.get("random").map(|place| random(&place, scope)).transpose()?;
        let limit = fields.get("rateLimit").map(|place| limit(&place)).transpose()?;
        fields.done()?;
        Ok(Self { random, limit })
    }

    /// Whether a request is reported.
    pub fn takes<'a>(&'a self, reader: &mut Reader<'a, '_>) -> bool {
        self.random.as_ref().is_none_or(|random| random.takes(reader)) && self.limit.as_ref().is_none_or(Limit::takes)
    }
}

fn random(place: &Place<'_>, scope: &Scope<'_>) -> Result<Random, Fault> {
    let mut fields = place.fields()?;
    let attribute = fields.get("attributeExpression").map(|place| expression(&place, None, scope)).transpose()?;
    let independent = fields.bool("useIndependentRandomness")?;
    let percent = fields.need("percentSampled")?;
    fields.done()?;
    let mut fields = percent.fields()?;
    let sampled = fields.get("numerator").map_or(Ok(0), |place| whole(&place))?;
    let out_of = match fields.text("denominator")?.as_str() {
        "" | "HUNDRED" => 100,
        "TEN_THOUSAND" => 10_000,
        other => return Err(percent.fault(format!("unknown denominator {other}: HUNDRED or TEN_THOUSAND"))),
    };
    fields.done()?;
    Ok(Random { attribute: attribute.filter(|_| !independent), sampled, out_of })
}

fn limit(place: &Place<'_>) -> Result<Limit, Fault> {
    let mut fields = place.fields()?;
    let window = fields.need("samplingDuration")?.duration()?;
    let unsampled = fields.get("maxUnsampledEntries").map_or(Ok(0), |place| whole(&place))?;
    let rate = fields.get("samplingRate").map_or(Ok(1), |place| whole(&place))?;
    fields.done()?;
    if window.is_zero() || rate == 0 {
        return Err(place.fault("samplingDuration and samplingRate are more than 0"));
    }
    let started = Instant::now();
    Ok(Limit { window, unsampled, rate, started, window_ms: AtomicU64::new(0), seen: AtomicU64::new(0) })
}

fn whole(place: &Place<'_>) -> Result<u64, Fault> {
    u64::try_from(place.int()?).map_err(|_| place.fault("a number of 0 or more is asked for"))
}

impl Random {
    fn takes<'a>(&'a self, reader: &mut Reader<'a, '_>) -> bool {
        let value = self.attribute.as_ref().and_then(|attribute| attribute.eval(reader).ok());
        let drawn = match value.as_ref().map(Value::to_string) {
            // The same in every mixer.
            Some(text) => BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(text),
            None => fastrand::u64(..),
        };
        drawn % self.out_of < self.sampled
    }
}

impl Limit {
    fn takes(&self) -> bool {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let length = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        if now.saturating_sub(self.window_ms.load(Ordering::Relaxed)) >= length {
            self.window_ms.store(now, Ordering::Relaxed);
            self.seen.store(0, Ordering::Relaxed);
        }
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        seen < self.unsampled || (seen - self.unsampled).is_multiple_of(self.rate)
    }
}
