//! `RateLimit` and `RateLimitPerRoute` of Envoy's API.

use super::RateLimitFilter;
use crate::filter::next_id;
use crate::net::Service;
use crate::refusal::{Refusal, Within};
use crate::route::RateLimit;
use proto::any;
use proto::duration::from_proto;
use proto::envoy::http_filters::ratelimit::v3::{RateLimit as Written, RateLimitPerRoute};
use proto::envoy::route::RateLimit as WrittenLimit;
use proto::envoy::wkt::Any;
use std::time::Duration;

/// Envoy's limit where none is written.
const TIMEOUT: Duration = Duration::from_millis(20);

/// Whether the virtual host's descriptors count beside the route's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum HostLimits {
    /// Where the route has none of its own, or says that they do.
    #[default]
    Override,
    /// Always.
    Include,
    /// Never.
    Ignore,
}

impl HostLimits {
    pub(super) fn includes(self, route_has_none: bool, route_includes: bool) -> bool {
        match self {
            Self::Override => route_has_none || route_includes,
            Self::Include => true,
            Self::Ignore => false,
        }
    }
}

/// What a route has for the filter.
#[derive(Debug)]
pub struct Override {
    pub(super) virtual_host: HostLimits,
    /// Instead of the route's own.
    pub(super) limits: Box<[RateLimit]>,
    pub(super) domain: Option<Box<str>>,
}

/// Parses the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any) -> Result<RateLimitFilter, Refusal> {
    let written: Written = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let refused = [
        ("filter_enabled", written.filter_enabled.is_some()),
        ("filter_enforced", written.filter_enforced.is_some()),
        ("failure_mode_deny_percent", written.failure_mode_deny_percent.is_some()),
        ("response_headers_to_add", !written.response_headers_to_add.is_empty()),
        ("enable_retry_after_header", written.enable_retry_after_header),
        ("request_type", !matches!(written.request_type.as_str(), "" | "both")),
    ];
    if let Some((field, _)) = refused.iter().find(|(_, given)| *given) {
        return Err(Refusal::unsupported(*field));
    }
    if written.domain.is_empty() {
        return Err(Refusal::new("domain", "is empty: the service looks its rules up by it"));
    }
    let service = written.rate_limit_service.as_ref().and_then(|service| service.grpc_service.as_ref());
    let status = |written: Option<i32>, default: u16, least: u16| {
        written.and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= least).unwrap_or(default)
    };
    Ok(RateLimitFilter {
        id: next_id(),
        domain: written.domain.as_str().into(),
        stage: written.stage,
        service: Service::parse(service).within("rate_limit_service")?,
        timeout: written.timeout.as_ref().map_or(TIMEOUT, from_proto),
        deny_on_error: written.failure_mode_deny,
        status_on_error: status(written.status_on_error.as_ref().map(|status| status.code), 500, 100),
        status: status(written.rate_limited_status.as_ref().map(|status| status.code), 429, 400),
        mark: !written.disable_x_envoy_ratelimited_header,
        headers: written.enable_x_ratelimit_headers != 0,
        resource_exhausted: written.rate_limited_as_resource_exhausted,
        own: limits(&written.rate_limits)?,
    })
}

/// Parses what a route has for the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse_override(typed: &Any) -> Result<Override, Refusal> {
    let written: RateLimitPerRoute = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    Ok(Override {
        virtual_host: match written.vh_rate_limits {
            0 => HostLimits::Override,
            1 => HostLimits::Include,
            2 => HostLimits::Ignore,
            _ => return Err(Refusal::new("vh_rate_limits", "one of OVERRIDE, INCLUDE, IGNORE")),
        },
        limits: limits(&written.rate_limits)?,
        domain: Some(written.domain.as_str()).filter(|domain| !domain.is_empty()).map(Into::into),
    })
}

fn limits(written: &[WrittenLimit]) -> Result<Box<[RateLimit]>, Refusal> {
    let numbered = written.iter().enumerate();
    numbered.map(|(i, limit)| RateLimit::parse(limit).within(&format!("rate_limits[{i}]"))).collect()
}
