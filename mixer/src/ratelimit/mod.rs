//! Rate limits by descriptors, as Envoy's rate limit service has them (MX-97, MX-105).
//!
//! - [`config`]: the YAML of envoyproxy/ratelimit → domains
//! - [`object`]: our own kind, `RateLimit` → domains
//! - [`domain`]: domains, and which limit a descriptor meets
//! - [`limiter`]: descriptors → an answer
//! - [`share`]: one limit split over clients that count by themselves
//! - [`meters`]: what is measured
//! - [`view`]: what a person may want to see
//!
//! What this part must never know: the wire.

pub mod config;
pub mod domain;
pub mod limiter;
pub mod meters;
pub mod object;
pub mod share;
pub mod view;
