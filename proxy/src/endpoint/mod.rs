//! The members of a cluster: addresses, priorities, localities, weights, health.
//!
//! Knows addresses and numbers. Must never know a request or a connection.

mod breaker;
pub mod config;
mod hosts;
mod outlier;

pub use breaker::{Limit, Limits, Permit, Thresholds};
pub use hosts::{Address, Endpoint, EndpointShared, Health, HostSet, Locality, Priority};
pub use outlier::{InARow, Outlier, Share, Verdict};
