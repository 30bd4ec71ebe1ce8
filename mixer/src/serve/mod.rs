//! What mixer serves, one file per protocol. These files translate; they decide nothing.
//!
//! - [`access_log`]: Envoy's access log service
//! - [`otlp`], [`otlp_http`]: OpenTelemetry's protocol
//! - [`zipkin`]: Zipkin's collector
//! - [`policy`]: starts what serves policy
//! - [`ext_authz`]: Envoy's external authorization
//! - [`metrics`]: Prometheus' exposition

pub mod access_log;
pub mod ext_authz;
pub mod metrics;
pub mod otlp;
pub mod otlp_http;
pub mod policy;
pub mod zipkin;
