//! `RateLimitQuotaFilterConfig`, `RateLimitQuotaOverride` and the settings of buckets of Envoy's API.

use super::client::{Mailbox, WAITING};
use super::share::{Rule, Strategy};
use super::{Fraction, RateLimitQuota};
use crate::codec::bytes::is_token;
use crate::filter::{Field, next_id};
use crate::message::RequestHead;
use crate::message::matcher::{Tree, header_of};
use crate::net::Service;
use crate::refusal::{Refusal, Within};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use proto::any;
use proto::duration::from_proto;
use proto::envoy::core::RuntimeFractionalPercent;
use proto::envoy::http_filters::rate_limit_quota::v3::rate_limit_quota_bucket_settings::{
    DenyResponseSettings, bucket_id_builder::ValueBuilder, bucket_id_builder::value_builder::ValueSpecifier,
    expired_assignment_behavior::ExpiredAssignmentBehavior, no_assignment_behavior::NoAssignmentBehavior,
};
use proto::envoy::http_filters::rate_limit_quota::v3::{
    RateLimitQuotaBucketSettings, RateLimitQuotaFilterConfig, RateLimitQuotaOverride,
};
use proto::envoy::types::rate_limit_strategy::{BlanketRule, Strategy as Written};
use proto::envoy::types::{RateLimitStrategy, RateLimitUnit, fractional_percent::DenominatorType};
use proto::envoy::wkt::Any;
use proto::envoy::xds::r#type::matcher::v3::Matcher;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Shortest time between two reports (Envoy's own limit).
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Shortest time between two fills.
const MIN_FILL: Duration = Duration::from_millis(1);
/// gRPC status of a refusal where none is written.
const UNAVAILABLE: u32 = 14;

/// What holds for a kind of buckets.
#[derive(Debug)]
pub(super) struct Settings {
    /// What names the bucket of a request, by key; none: the bucket is not reported.
    pub(super) id: Option<Box<[Part]>>,
    pub(super) interval: Duration,
    pub(super) deny: Deny,
    pub(super) unassigned: Unassigned,
    /// How long an assignment is made do with when its time is over, and what counts meanwhile; none: what counted before.
    pub(super) expired: Option<(Duration, Option<Strategy>)>,
}

/// What counts before there is an assignment.
#[derive(Debug)]
pub(super) struct Unassigned {
    strategy: Strategy,
    /// For what is not reported.
    rule: Rule,
}

impl Unassigned {
    fn new(strategy: Strategy) -> Self {
        Self { strategy, rule: strategy.rule() }
    }

    pub(super) fn take(&self) -> bool {
        self.rule.take()
    }

    /// The rule for a bucket that is new.
    pub(super) fn fresh(&self) -> Rule {
        self.strategy.rule()
    }
}

/// How a refusal looks.
#[derive(Debug)]
pub(super) struct Deny {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) grpc_status: u32,
    pub(super) grpc_message: Box<str>,
    pub(super) headers: Box<[Field]>,
}

/// One part of a bucket's id.
#[derive(Debug)]
pub(super) struct Part {
    key: Box<str>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Text(Box<str>),
    /// The value of a header, lower case.
    Header(Box<[u8]>),
}

impl Part {
    /// Writes the part so that no two ids are the same bytes; false where the request lacks the header.
    pub(super) fn write(&self, head: &RequestHead, out: &mut Vec<u8>) -> bool {
        let mut put = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        put(self.key.as_bytes());
        match &self.value {
            Value::Text(text) => put(text.as_bytes()),
            Value::Header(name) => match head.headers.joined(name) {
                Some(value) => put(&value),
                None => return false,
            },
        }
        true
    }

    /// Key and value, as the service reads them.
    pub(super) fn pair(&self, head: &RequestHead) -> Option<(String, String)> {
        let value = match &self.value {
            Value::Text(text) => text.to_string(),
            Value::Header(name) => String::from_utf8_lossy(&head.headers.joined(name)?).into_owned(),
        };
        Some((self.key.to_string(), value))
    }
}

/// What a route has for the filter.
#[derive(Debug)]
pub struct Override {
    pub(super) tree: Tree<Arc<Settings>>,
}

/// Parses the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any) -> Result<RateLimitQuota, Refusal> {
    let written: RateLimitQuotaFilterConfig =
        any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    if !written.request_headers_to_add_when_not_enforced.is_empty() {
        return Err(Refusal::unsupported("request_headers_to_add_when_not_enforced"));
    }
    if written.domain.is_empty() {
        return Err(Refusal::new("domain", "is empty: the service looks its rules up by it"));
    }
    let (joining, mailbox) = mpsc::channel(WAITING);
    Ok(RateLimitQuota {
        id: next_id(),
        service: Service::parse(written.rlqs_server.as_ref()).within("rlqs_server")?,
        domain: written.domain.as_str().into(),
        tree: tree(written.bucket_matchers.as_ref())?,
        enabled: fraction(written.filter_enabled.as_ref()),
        enforced: fraction(written.filter_enforced.as_ref()),
        joining,
        mailbox: ArcSwapOption::from_pointee(Mailbox(mailbox)),
    })
}

/// Parses what a route has for the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse_override(typed: &Any) -> Result<Override, Refusal> {
    let written: RateLimitQuotaOverride = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    if !written.domain.is_empty() {
        return Err(Refusal::unsupported("domain"));
    }
    Ok(Override { tree: tree(written.bucket_matchers.as_ref())? })
}

fn tree(written: Option<&Matcher>) -> Result<Tree<Arc<Settings>>, Refusal> {
    let written = written.ok_or_else(|| Refusal::new("bucket_matchers", "is needed"))?;
    Tree::parse(written, &|typed| settings(typed).map(Arc::new)).within("bucket_matchers")
}

/// All requests where nothing is said.
fn fraction(written: Option<&RuntimeFractionalPercent>) -> Fraction {
    let Some(share) = written.and_then(|w| w.default_value.as_ref()) else { return (100, 100) };
    let denominator = match DenominatorType::try_from(share.denominator) {
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        _ => 100,
    };
    (u64::from(share.numerator), denominator)
}

/// The settings of a kind of buckets.
///
/// # Errors
/// The field that is wrong.
pub(super) fn settings(typed: &Any) -> Result<Settings, Refusal> {
    let written: RateLimitQuotaBucketSettings =
        any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let id = written.bucket_id_builder.as_ref().map(|builder| {
        let each = builder.bucket_id_builder.iter();
        let mut parts = each.map(|(key, value)| part(key, value)).collect::<Result<Vec<_>, _>>()?;
        if parts.is_empty() {
            return Err(Refusal::new("bucket_id_builder", "is empty"));
        }
        parts.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(parts.into_boxed_slice())
    });
    let interval = written.reporting_interval.as_ref().map_or(Duration::ZERO, from_proto);
    if interval <= MIN_INTERVAL && id.is_some() {
        return Err(Refusal::new("reporting_interval", "more than 100 ms"));
    }
    let unassigned = match written.no_assignment_behavior.and_then(|written| written.no_assignment_behavior) {
        None => Strategy::All,
        Some(NoAssignmentBehavior::FallbackRateLimit(written)) => {
            strategy(&written).within("no_assignment_behavior.fallback_rate_limit")?
        }
    };
    let expired = written.expired_assignment_behavior.map(|written| {
        let time = written.expired_assignment_behavior_timeout.as_ref().map_or(Duration::ZERO, from_proto);
        match written.expired_assignment_behavior {
            Some(ExpiredAssignmentBehavior::FallbackRateLimit(written)) => Ok((time, Some(strategy(&written)?))),
            Some(ExpiredAssignmentBehavior::ReuseLastAssignment(_)) => Ok((time, None)),
            None => Err(Refusal::new("", "fallback_rate_limit or reuse_last_assignment is needed")),
        }
    });
    Ok(Settings {
        id: id.transpose()?,
        interval,
        deny: deny(written.deny_response_settings.as_ref())?,
        unassigned: Unassigned::new(unassigned),
        expired: expired.transpose().within("expired_assignment_behavior")?,
    })
}

fn part(key: &str, written: &ValueBuilder) -> Result<Part, Refusal> {
    let place = format!("bucket_id_builder[{key}]");
    let value = match written.value_specifier.as_ref() {
        Some(ValueSpecifier::StringValue(text)) => Value::Text(text.as_str().into()),
        Some(ValueSpecifier::CustomValue(custom)) => {
            let typed = custom.typed_config.as_ref();
            let typed = typed.ok_or_else(|| Refusal::new("typed_config", "is needed")).within(&place)?;
            Value::Header(header_of(typed).within("custom_value").within(&place)?)
        }
        None => return Err(Refusal::new("value_specifier", "string_value or custom_value is needed")).within(&place),
    };
    Ok(Part { key: key.into(), value })
}

fn deny(written: Option<&DenyResponseSettings>) -> Result<Deny, Refusal> {
    let grpc = written.and_then(|written| written.grpc_status.as_ref());
    let code = written.and_then(|written| written.http_status.as_ref()).map(|status| status.code);
    let headers = written.map(|written| written.response_headers_to_add.as_slice()).unwrap_or_default();
    let headers = headers.iter().filter_map(|option| option.header.as_ref()).map(|header| {
        let name = header.key.to_ascii_lowercase();
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        let good = !name.is_empty() && is_token(name.as_bytes()) && !value.iter().any(|byte| b"\r\n\0".contains(byte));
        if !good {
            return Err(Refusal::new(
                "deny_response_settings.response_headers_to_add",
                "cannot be written as a header",
            ));
        }
        Ok((name.into_bytes().into(), value.into()))
    });
    Ok(Deny {
        status: code.and_then(|code| u16::try_from(code).ok()).filter(|code| (200..600).contains(code)).unwrap_or(429),
        body: written.and_then(|w| w.http_body.as_ref()).map(|body| body.value.clone().into()).unwrap_or_default(),
        grpc_status: grpc.and_then(|status| u32::try_from(status.code).ok()).unwrap_or(UNAVAILABLE),
        grpc_message: grpc.map(|status| status.message.as_str().into()).unwrap_or_default(),
        headers: headers.collect::<Result<_, _>>()?,
    })
}

/// A strategy, as configured or as the service assigns it.
///
/// # Errors
/// The field that is wrong.
pub(super) fn strategy(written: &RateLimitStrategy) -> Result<Strategy, Refusal> {
    match &written.strategy {
        None => Ok(Strategy::All),
        Some(Written::BlanketRule(rule)) if *rule == i32::from(BlanketRule::DenyAll) => Ok(Strategy::Nothing),
        Some(Written::BlanketRule(_)) => Ok(Strategy::All),
        Some(Written::TokenBucket(bucket)) => {
            let interval = bucket.fill_interval.as_ref().map_or(Duration::ZERO, from_proto);
            if interval < MIN_FILL {
                return Err(Refusal::new("token_bucket.fill_interval", "at least 1 ms"));
            }
            let per_fill = bucket.tokens_per_fill.as_ref().map_or(1, |tokens| tokens.value);
            Ok(if bucket.max_tokens == 0 {
                Strategy::Nothing
            } else {
                Strategy::Tokens(bucket.max_tokens, per_fill, interval)
            })
        }
        Some(Written::RequestsPerTimeUnit(rate)) => {
            let unit = match RateLimitUnit::try_from(rate.time_unit) {
                _ if rate.requests_per_time_unit == 0 => return Ok(Strategy::Nothing),
                Ok(RateLimitUnit::Second) => 1,
                Ok(RateLimitUnit::Minute) => 60,
                Ok(RateLimitUnit::Hour) => 3_600,
                Ok(RateLimitUnit::Day) => 86_400,
                Ok(RateLimitUnit::Month) => 2_592_000,
                Ok(RateLimitUnit::Year) => 31_536_000,
                _ => return Err(Refusal::new("requests_per_time_unit.time_unit", "is not known")),
            };
            Ok(even(u32::try_from(rate.requests_per_time_unit).unwrap_or(u32::MAX), unit * 1_000))
        }
    }
}

/// So many requests in so many milliseconds, as evenly as it is exact.
fn even(requests: u32, unit_ms: u64) -> Strategy {
    let (mut one, mut other) = (u64::from(requests), unit_ms);
    while other != 0 {
        (one, other) = (other, one % other);
    }
    let per_fill = u32::try_from(u64::from(requests) / one).unwrap_or(u32::MAX);
    Strategy::Tokens(requests, per_fill, Duration::from_millis(unit_ms / one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_per_unit_are_exact() {
        assert_eq!(even(1_500, 1_000), Strategy::Tokens(1_500, 3, Duration::from_millis(2)));
        assert_eq!(even(7, 1_000), Strategy::Tokens(7, 7, Duration::from_millis(1_000)));
        assert_eq!(even(100, 60_000), Strategy::Tokens(100, 1, Duration::from_millis(600)));
    }
}
