//! `RetryPolicy` → policy (spec RT-1 to RT-8).

use super::refuse;
use crate::message::matcher::HeaderMatcher;
use crate::refusal::{Refusal, Within};
use crate::route::{HostAvoidance, RateLimitedBackoff, ResetFormat, RetryOn, RetryPolicy};
use proto::duration::from_proto;
use proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use proto::envoy::route::retry_policy::{ResetHeaderFormat, retry_host_predicate, retry_priority};
use proto::envoy::route::{self, RetryPolicy as Written};
use std::time::Duration;

const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";

pub(super) fn parse(written: &Written) -> Result<RetryPolicy, Refusal> {
    refuse(&[
        ("retry_options_predicates", !written.retry_options_predicates.is_empty()),
        ("refresh_cluster_on_retry", written.refresh_cluster_on_retry),
    ])?;
    let (on, unknown) = RetryOn::parse(&written.retry_on);
    for name in unknown {
        tracing::warn!(name, "unknown retry_on condition is passed over, as Envoy does");
    }
    let (backoff_base, backoff_max) = backoff(written).within("retry_back_off")?;
    Ok(RetryPolicy {
        on,
        num_retries: written.num_retries.as_ref().map_or(1, |count| count.value),
        per_try_timeout: written.per_try_timeout.as_ref().map(from_proto).filter(|limit| !limit.is_zero()),
        per_try_idle_timeout: written.per_try_idle_timeout.as_ref().map(from_proto).filter(|limit| !limit.is_zero()),
        backoff_base,
        backoff_max,
        status_codes: written.retriable_status_codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect(),
        avoid: avoidance(written)?,
        retriable_headers: matchers(&written.retriable_headers, "retriable_headers")?,
        request_headers: matchers(&written.retriable_request_headers, "retriable_request_headers")?,
        rate_limited: rate_limited(written).within("rate_limited_retry_back_off")?,
        priority_update_frequency: priority(written).within("retry_priority")?,
    })
}

/// 25 ms and ten times the base where nothing is said (RT-4).
fn backoff(written: &Written) -> Result<(Duration, Duration), Refusal> {
    let default = RetryPolicy::default();
    let Some(backoff) = &written.retry_back_off else { return Ok((default.backoff_base, default.backoff_max)) };
    let base =
        backoff.base_interval.as_ref().map(from_proto).ok_or_else(|| Refusal::new("base_interval", "is missing"))?;
    if base.is_zero() {
        return Err(Refusal::new("base_interval", "must be more than zero"));
    }
    let base = base.max(Duration::from_millis(1));
    let max = backoff.max_interval.as_ref().map_or_else(|| base.saturating_mul(10), from_proto);
    if max < base {
        return Err(Refusal::new("max_interval", "must not be less than base_interval"));
    }
    Ok((base, max))
}

fn avoidance(written: &Written) -> Result<HostAvoidance, Refusal> {
    let mut avoid = HostAvoidance::None;
    for (index, predicate) in written.retry_host_predicate.iter().enumerate() {
        let type_name = match &predicate.config_type {
            Some(retry_host_predicate::ConfigType::TypedConfig(any)) => proto::any::type_name(&any.type_url),
            None => "",
        };
        if type_name != PREVIOUS_HOSTS && predicate.name != "envoy.retry_host_predicates.previous_hosts" {
            return Err(Refusal::unsupported(format!("retry_host_predicate[{index}]: {}", predicate.name)));
        }
        let picks = u32::try_from(written.host_selection_retry_max_attempts).unwrap_or(0).max(1);
        avoid = HostAvoidance::PreviousHosts(picks);
    }
    Ok(avoid)
}

fn priority(written: &Written) -> Result<Option<u32>, Refusal> {
    let Some(priority) = &written.retry_priority else { return Ok(None) };
    let Some(retry_priority::ConfigType::TypedConfig(any)) = &priority.config_type else {
        return Err(Refusal::unsupported(priority.name.as_str()));
    };
    let config: PreviousPrioritiesConfig =
        proto::any::unpack(any).map_err(|error| Refusal::new("typed_config", error.to_string()))?;
    match u32::try_from(config.update_frequency) {
        Ok(frequency) if frequency > 0 => Ok(Some(frequency)),
        _ => Err(Refusal::new("typed_config.update_frequency", "must be more than zero")),
    }
}

fn rate_limited(written: &Written) -> Result<Option<RateLimitedBackoff>, Refusal> {
    let Some(backoff) = &written.rate_limited_retry_back_off else { return Ok(None) };
    let mut headers: Vec<(Box<str>, ResetFormat)> = Vec::new();
    for header in &backoff.reset_headers {
        let format = match ResetHeaderFormat::try_from(header.format) {
            Ok(ResetHeaderFormat::Seconds) => ResetFormat::Seconds,
            Ok(ResetHeaderFormat::UnixTimestamp) => ResetFormat::UnixTimestamp,
            Err(_) => return Err(Refusal::new("reset_headers.format", "one of SECONDS, UNIX_TIMESTAMP")),
        };
        headers.push((header.name.to_ascii_lowercase().into(), format));
    }
    if headers.is_empty() {
        return Err(Refusal::new("reset_headers", "is empty"));
    }
    let max = backoff.max_interval.as_ref().map_or(Duration::from_secs(300), from_proto);
    Ok(Some(RateLimitedBackoff { headers: headers.into(), max }))
}

fn matchers(written: &[route::HeaderMatcher], field: &str) -> Result<Box<[HeaderMatcher]>, Refusal> {
    let numbered = written.iter().enumerate();
    numbered.map(|(index, matcher)| HeaderMatcher::parse(matcher).within(&format!("{field}[{index}]"))).collect()
}
