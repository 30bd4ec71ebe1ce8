//! Injected faults and cross-origin rules, as configuration of one route (VS-34, VS-35, VS-37).

use super::matcher;
use super::message::{boolean, duration};
use crate::model::validate::GRPC_STATUS;
use proto::any;
use proto::envoy::core::RuntimeFractionalPercent;
use proto::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use proto::envoy::http_filters::cors::v3::CorsPolicy as CorsConfig;
use proto::envoy::http_filters::fault::v3::{FaultAbort, HttpFault, fault_abort};
use proto::envoy::types::FractionalPercent;
use proto::envoy::types::fractional_percent::DenominatorType;
use proto::envoy::wkt::Any;
use proto::istio::virtual_service::{CorsPolicy, HttpFaultInjection, UnmatchedPreflights};

/// Parts per million.
pub fn per_million(percent: f64) -> FractionalPercent {
    FractionalPercent { numerator: (percent * 10_000.0).round() as u32, denominator: DenominatorType::Million.into() }
}

/// Whole percents.
pub fn percent(percent: u32) -> FractionalPercent {
    FractionalPercent { numerator: percent, denominator: DenominatorType::Hundred.into() }
}

/// The filter without faults: routes have them.
pub fn none() -> Any {
    any::pack(&HttpFault::default())
}

/// The faults of a route.
pub fn fault(written: &HttpFaultInjection) -> Any {
    let delay = written.delay.as_ref().map(|delay| FaultDelay {
        percentage: Some(match &delay.percentage {
            Some(share) => per_million(share.value),
            None => percent(u32::try_from(delay.percent.unwrap_or(0)).unwrap_or(0)),
        }),
        fault_delay_secifier: delay
            .fixed_delay
            .and_then(|d| duration(d.0))
            .map(fault_delay::FaultDelaySecifier::FixedDelay),
    });
    let abort = written.abort.as_ref().map(|abort| FaultAbort {
        percentage: Some(per_million(abort.percentage.as_ref().map_or(0.0, |share| share.value))),
        error_type: match (&abort.grpc_status, abort.http_status) {
            (Some(name), _) => {
                let code = GRPC_STATUS.iter().position(|known| known == name).unwrap_or(2);
                Some(fault_abort::ErrorType::GrpcStatus(u32::try_from(code).unwrap_or(2)))
            }
            (None, status) => status.map(fault_abort::ErrorType::HttpStatus),
        },
        ..FaultAbort::default()
    });
    any::pack(&HttpFault { delay, abort, ..HttpFault::default() })
}

/// The cross-origin rules of a route.
pub fn cors(written: &CorsPolicy) -> Any {
    let exact = |origin: &String| proto::istio::StringMatch { exact: Some(origin.clone()), ..Default::default() };
    let old: Vec<_> = written.allow_origin.iter().map(exact).collect();
    let origins = if written.allow_origins.is_empty() { &old } else { &written.allow_origins };
    any::pack(&CorsConfig {
        allow_origin_string_match: origins.iter().filter_map(matcher::string).collect(),
        allow_methods: written.allow_methods.join(","),
        allow_headers: written.allow_headers.join(","),
        expose_headers: written.expose_headers.join(","),
        max_age: written.max_age.map(|d| d.0.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: written.allow_credentials.and_then(boolean),
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(percent(100)),
            ..RuntimeFractionalPercent::default()
        }),
        forward_not_matching_preflights: boolean(written.unmatched_preflights != Some(UnmatchedPreflights::Ignore)),
        ..CorsConfig::default()
    })
}
