//! Limits and timeouts of connections, and which endpoints are left out (DR-21 to DR-28, DR-31 to DR-33).

use super::super::message::{duration, uint};
use super::super::policy::Policy;
use crate::model::MeshConfig;
use proto::envoy::cluster::circuit_breakers::{Thresholds, thresholds};
use proto::envoy::cluster::{CircuitBreakers, Cluster, OutlierDetection, UpstreamConnectionOptions};
use proto::envoy::core::{self, TcpKeepalive};
use proto::envoy::types::Percent;
use proto::envoy::upstream_http::HttpProtocolOptions;
use proto::istio::destination_rule::{ConnectionPoolSettings, TcpKeepalive as WrittenKeepalive};

/// The limits of a cluster; none written: none.
pub fn breakers(pool: Option<&ConnectionPoolSettings>) -> Thresholds {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    let limit = |own: Option<u32>| uint(own.filter(|value| *value > 0).unwrap_or(u32::MAX));
    Thresholds {
        max_connections: limit(tcp.and_then(|tcp| tcp.max_connections)),
        max_pending_requests: limit(http.and_then(|http| http.http1_max_pending_requests)),
        max_requests: limit(http.and_then(|http| http.http2_max_requests)),
        max_retries: limit(http.and_then(|http| http.max_retries)),
        ..Thresholds::default()
    }
}

/// Limits and timeouts of connections (DR-21 to DR-28, DR-33).
pub(super) fn limits(
    cluster: &mut Cluster,
    http: &mut HttpProtocolOptions,
    pool: Option<&ConnectionPoolSettings>,
    mesh: &MeshConfig,
) {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let settings = pool.and_then(|pool| pool.http.as_ref());
    cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![breakers(pool)], ..CircuitBreakers::default() });
    cluster.connect_timeout = duration(tcp.and_then(|tcp| tcp.connect_timeout).map_or(mesh.connect_timeout, |d| d.0));
    if let Some(own) = tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref()).or(mesh.tcp_keepalive.as_ref()) {
        cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(keepalive(own)),
            ..UpstreamConnectionOptions::default()
        });
    }
    let idle = settings.and_then(|http| http.idle_timeout).or_else(|| tcp.and_then(|tcp| tcp.idle_timeout));
    let lifetime = tcp.and_then(|tcp| tcp.max_connection_duration);
    let requests = settings.and_then(|http| http.max_requests_per_connection).filter(|max| *max > 0);
    let streams = settings.and_then(|http| http.max_concurrent_streams).filter(|max| *max > 0);
    if idle.is_some() || lifetime.is_some() || requests.is_some() || streams.is_some() {
        http.common_http_protocol_options = Some(core::HttpProtocolOptions {
            idle_timeout: idle.and_then(|d| duration(d.0)),
            max_connection_duration: lifetime.and_then(|d| duration(d.0)),
            max_requests_per_connection: requests.and_then(uint),
            ..core::HttpProtocolOptions::default()
        });
    }
}

/// A budget of retries, which Envoy prefers to their limit (DR-33).
pub(super) fn retry_budget(cluster: &mut Cluster, policy: &Policy) {
    let Some(own) = &policy.retry_budget else { return };
    for limits in cluster.circuit_breakers.iter_mut().flat_map(|breakers| &mut breakers.thresholds) {
        limits.retry_budget = Some(thresholds::RetryBudget {
            budget_percent: Some(Percent { value: own.percent.unwrap_or(20.0) }),
            min_retry_concurrency: uint(own.min_retry_concurrency.unwrap_or(3)),
            ..thresholds::RetryBudget::default()
        });
    }
}

fn keepalive(own: &WrittenKeepalive) -> TcpKeepalive {
    let seconds =
        |d: Option<proto::istio::Duration>| d.and_then(|d| uint(u32::try_from(d.0.as_secs()).unwrap_or(u32::MAX)));
    TcpKeepalive {
        keepalive_probes: own.probes.and_then(uint),
        keepalive_time: seconds(own.time),
        keepalive_interval: seconds(own.interval),
    }
}

/// Ejection of endpoints (DR-31, DR-32).
pub(super) fn outliers(cluster: &mut Cluster, policy: &Policy) {
    let Some(own) = &policy.outliers else { return };
    let enforcing = |value: Option<u32>| value.and_then(|value| uint(if value > 0 { 100 } else { 0 }));
    let split = own.split_external_local_origin_errors == Some(true);
    let consecutive = own.consecutive_5xx_errors.or(own.consecutive_errors);
    let local = own.consecutive_local_origin_failures.filter(|_| split);
    cluster.outlier_detection = Some(OutlierDetection {
        consecutive_5xx: consecutive.and_then(uint),
        enforcing_consecutive_5xx: enforcing(consecutive),
        consecutive_gateway_failure: own.consecutive_gateway_errors.and_then(uint),
        enforcing_consecutive_gateway_failure: enforcing(own.consecutive_gateway_errors),
        interval: own.interval.and_then(|d| duration(d.0)),
        base_ejection_time: own.base_ejection_time.and_then(|d| duration(d.0)),
        max_ejection_percent: own.max_ejection_percent.filter(|percent| *percent > 0).and_then(uint),
        enforcing_success_rate: uint(0),
        split_external_local_origin_errors: split,
        consecutive_local_origin_failure: local.and_then(uint),
        enforcing_consecutive_local_origin_failure: enforcing(local),
        enforcing_local_origin_success_rate: if split { uint(0) } else { None },
        ..OutlierDetection::default()
    });
    let percent = f64::from(own.min_health_percent.unwrap_or(0));
    cluster.common_lb_config.get_or_insert_default().healthy_panic_threshold = Some(Percent { value: percent });
}
