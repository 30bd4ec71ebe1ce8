//! One input struct → one Envoy resource; the struct is the cache key (design decision E).
//!
//! What this part knows: Envoy's messages and Istio's names and orders for them. What it must never know:
//! connections, time, anything that is not in the input struct.

pub mod authz;
pub mod authz_claims;
pub mod authz_identities;
pub mod cache;
pub mod class;
pub mod class_inputs;
pub mod cluster;
pub mod custom;
pub mod defaults;
pub mod endpoint;
pub mod family;
pub mod fault;
pub mod grpc;
pub mod inputs;
pub mod listener;
pub mod locality;
pub mod matcher;
pub mod message;
pub mod name_table;
pub mod names;
pub mod node;
pub mod outbound_plan;
pub mod policy;
mod rate_limit;
pub mod route;
pub mod route_action;
pub mod secret;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod tokens;

pub use cache::{Cache, Encoded};
pub use class::Class;
pub use node::Node;
pub use snapshot::Snapshot;
