//! What mixer serves, one file per protocol. These files translate; they decide nothing.
//!
//! - [`door`]: who gets in
//! - [`access_log`]: Envoy's access log service
//! - [`otlp`], [`otlp_http`]: OpenTelemetry's protocol
//! - [`zipkin`]: Zipkin's collector
//! - [`policy`]: starts what serves policy
//! - [`ext_authz`], [`ext_authz_http`]: Envoy's external authorization
//! - [`ratelimit`], [`ratelimit_http`]: Envoy's rate limit service
//! - [`ratelimit_quota`]: Envoy's rate limit quota service
//! - [`metrics`]: Prometheus' exposition

pub mod access_log;
pub mod door;
pub mod ext_authz;
pub mod ext_authz_http;
pub mod metrics;
pub mod otlp;
pub mod otlp_http;
pub mod policy;
pub mod ratelimit;
pub mod ratelimit_http;
pub mod ratelimit_quota;
pub mod zipkin;
