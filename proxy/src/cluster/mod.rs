//! A worker's clusters: endpoints, balancer, limits and pools under one name.
//!
//! Knows how to open an exchange with an endpoint. Must never know a route, a filter or a retry.

pub mod config;
mod set;
mod settings;
mod upstream;

pub use config::Pace;
pub use set::{Cluster, ClusterSet, Dialer};
pub use settings::{ClusterConfig, Discovery, Protocol, TransportMatch};
pub use upstream::{Failure, Pick, TcpUpstream, Upstream};
