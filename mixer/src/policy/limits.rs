//! The adapters `memquota` and `redisquota` (MX-74, MX-75): limits per quota, with other limits for some dimensions.

use super::code::Code;
use super::decision::Answer;
use super::instance::Instance;
use super::object::references;
use crate::quota::memory::Memory;
use crate::quota::redis::Redis;
use crate::quota::{Ask, Counters, DEDUPLICATION, Grant, MAX_BUCKETS, Window};
use crate::yaml::{Fault, Place};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// Where Redis is, if the handler does not say.
const REDIS: &str = "localhost:6379";
/// The length of a tick of a rolling window in memory.
const TICK: Duration = Duration::from_millis(100);

/// A configured adapter.
#[derive(Debug)]
pub struct Limits {
    owner: String,
    limits: Vec<Limit>,
    counters: Counters,
}

/// The limit of one quota.
#[derive(Debug)]
struct Limit {
    name: String,
    amount: u64,
    window: Window,
    overrides: Vec<Override>,
}

/// Another limit, where these dimensions have these values.
#[derive(Debug)]
struct Override {
    dimensions: Vec<(String, String)>,
    amount: u64,
    window: Window,
}

/// How a window counts.
#[derive(Debug, Clone, Copy)]
enum Algorithm {
    Ticks,
    Fixed,
    Rolling(Duration),
}

/// Values of a quota's dimensions.
pub type Dimensions<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// What a request asks of a quota.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// How much.
    pub amount: i64,
    /// Whether more is welcome, for a lease.
    pub ahead: bool,
    /// Identity of the question.
    pub dedup: Option<&'a str>,
}

impl Limits {
    /// Reads `params` of memquota; needs a runtime of tokio. `owner` tells the counters of handlers apart.
    ///
    /// # Errors
    /// An unknown field or a value out of range.
    pub fn memory(params: &Place<'_>, owner: String) -> Result<Self, Fault> {
        let mut fields = params.fields()?;
        let deduplication = fields.duration("minDeduplicationDuration", DEDUPLICATION)?;
        if deduplication.is_zero() {
            return Err(params.fault("minDeduplicationDuration is more than 0s"));
        }
        let limits = limits(&fields.list("quotas")?, false)?;
        fields.done()?;
        Ok(Self { owner, limits, counters: Counters::Memory(Memory::start(deduplication)) })
    }

    /// Reads `params` of redisquota; needs a runtime of tokio.
    ///
    /// # Errors
    /// An unknown field or a value out of range.
    pub fn redis(params: &Place<'_>, owner: String) -> Result<Self, Fault> {
        let mut fields = params.fields()?;
        let address = fields.get("redisServerUrl");
        let text = address.as_ref().map_or_else(|| Ok(REDIS.to_owned()), Place::text)?;
        let at = address.unwrap_or_else(|| params.clone());
        // One multiplexed connection does the work of a pool.
        fields.get("connectionPoolSize").map(|size| size.int()).transpose()?;
        let limits = limits(&fields.list("quotas")?, true)?;
        fields.done()?;
        let redis = Redis::new(&text).map_err(|reason| at.fault(reason))?;
        Ok(Self { owner, limits, counters: Counters::Redis(redis) })
    }

    fn limit(&self, name: &str, namespace: &str) -> Option<&Limit> {
        let names = |limit: &&Limit| {
            references(&limit.name, namespace).iter().any(|(_, space, short)| space == namespace && short == name)
        };
        self.limits.iter().find(names)
    }

    /// Whether there is a limit for a quota.
    ///
    /// # Errors
    /// Says what to write.
    pub fn takes(&self, instance: &Instance) -> Result<(), String> {
        let Instance { name, namespace, .. } = instance;
        match self.limit(name, namespace) {
            Some(_) => Ok(()),
            None => Err(format!(
                "the handler has no limit for it: add one to its quotas, named {name}.instance.{namespace}"
            )),
        }
    }

    /// Asks for a charge.
    pub async fn check(&self, instance: &Instance, dimensions: &Dimensions<'_>, charge: Charge<'_>) -> Answer {
        let Some(limit) = self.limit(&instance.name, &instance.namespace) else {
            return Answer::failed(Code::INVALID_ARGUMENT, format!("no limit for {}", instance.name));
        };
        let fits = |other: &&Override| {
            let has =
                |(name, value): &(String, String)| dimensions.iter().any(|(known, got)| known == name && got == value);
            other.dimensions.iter().all(has)
        };
        // The first that fits counts, from top to bottom.
        let (amount, window) = limit
            .overrides
            .iter()
            .find(fits)
            .map_or((limit.amount, limit.window), |other| (other.amount, other.window));
        let ask = Ask {
            key: self.key(instance, dimensions),
            limit: amount,
            window,
            amount: charge.amount,
            best_effort: false,
            ahead: charge.ahead.then_some(u64::MAX),
            dedup: charge.dedup.map(str::to_owned),
        };
        match self.counters.take(ask).await {
            Ok(grant) => answer(&instance.name, charge.amount, grant),
            // What cannot be counted is not let through.
            Err(error) => Answer::failed(Code::UNAVAILABLE, error.to_string()),
        }
    }

    /// A counter for each combination of values.
    fn key(&self, instance: &Instance, dimensions: &Dimensions<'_>) -> String {
        let mut key = format!("{}|{}.{}", self.owner, instance.name, instance.namespace);
        let mut sorted: Vec<_> = dimensions.iter().collect();
        sorted.sort_unstable();
        for (name, value) in sorted {
            // Lengths keep values apart that contain what separates them; writing to a String cannot fail.
            let _fits = write!(key, "|{name}={}:{value}", value.len()).is_err();
        }
        key
    }
}

fn answer(name: &str, amount: i64, grant: Grant) -> Answer {
    match (u64::try_from(amount), grant.granted) {
        (Ok(0) | Err(_), _) => Answer::ok(Duration::ZERO, Some(0)),
        (Ok(_), 0) => {
            let message = format!("Quota is exhausted for: {name}");
            Answer::of(Code::RESOURCE_EXHAUSTED, message, grant.until_reset, None)
        }
        (Ok(amount), granted) => {
            Answer::ok(grant.until_reset, Some(u32::try_from(granted / amount).unwrap_or(u32::MAX)))
        }
    }
}

fn limits(places: &[Place<'_>], redis: bool) -> Result<Vec<Limit>, Fault> {
    places.iter().map(|place| limit(place, redis)).collect()
}

fn limit(place: &Place<'_>, redis: bool) -> Result<Limit, Fault> {
    let mut fields = place.fields()?;
    let name = fields.need("name")?.text()?;
    let amount = max_amount(&fields.need("maxAmount")?)?;
    let length = fields.duration("validDuration", Duration::ZERO)?;
    let algorithm = if redis {
        let bucket = fields.duration("bucketDuration", Duration::ZERO)?;
        match fields.text("rateLimitAlgorithm")?.as_str() {
            "" | "FIXED_WINDOW" => Algorithm::Fixed,
            "ROLLING_WINDOW" => Algorithm::Rolling(bucket),
            other => {
                return Err(place.fault(format!("unknown rateLimitAlgorithm {other}: FIXED_WINDOW or ROLLING_WINDOW")));
            }
        }
    } else {
        Algorithm::Ticks
    };
    let window = window(place, algorithm, length)?;
    let mut overrides = Vec::new();
    for place in fields.list("overrides")? {
        let mut fields = place.fields()?;
        let dimensions = fields.need("dimensions")?.entries()?;
        let dimensions = dimensions
            .into_iter()
            .map(|(name, value)| Ok((name.to_owned(), value.text()?)))
            .collect::<Result<_, _>>()?;
        let amount = max_amount(&fields.need("maxAmount")?)?;
        let window = self::window(&place, algorithm, fields.duration("validDuration", length)?)?;
        fields.done()?;
        overrides.push(Override { dimensions, amount, window });
    }
    fields.done()?;
    Ok(Limit { name, amount, window, overrides })
}

fn max_amount(place: &Place<'_>) -> Result<u64, Fault> {
    u64::try_from(place.int()?).map_err(|_| place.fault("an amount of 0 or more is asked for"))
}

fn window(place: &Place<'_>, algorithm: Algorithm, length: Duration) -> Result<Window, Fault> {
    match algorithm {
        Algorithm::Ticks if length.is_zero() => Ok(Window::Forever),
        Algorithm::Ticks => Ok(Window::Rolling(length, TICK.max(length / MAX_BUCKETS).min(length))),
        _ if length < Duration::from_millis(1) => Err(place.fault("validDuration is 1ms at least")),
        Algorithm::Fixed => Ok(Window::Fixed(length)),
        Algorithm::Rolling(bucket) if bucket < Duration::from_millis(1) || bucket >= length => {
            Err(place.fault("ROLLING_WINDOW needs a bucketDuration of 1ms or more, shorter than validDuration"))
        }
        Algorithm::Rolling(bucket) if length.as_millis().div_ceil(bucket.as_millis()) > u128::from(MAX_BUCKETS) => {
            Err(place.fault(format!("validDuration is at most {MAX_BUCKETS} times bucketDuration")))
        }
        Algorithm::Rolling(bucket) => Ok(Window::Rolling(length, bucket)),
    }
}
