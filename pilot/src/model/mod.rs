//! The mesh as it is meant: immutable, indexed, validated.
//!
//! What this part knows: what Istio's objects mean and which of them applies to whom. Parsing an object into its
//! model type is its validation. What it must never know: Envoy's messages, connections, time.

pub mod authn;
pub mod authz;
pub mod caution;
pub mod check;
pub mod claim;
pub mod delegate;
pub mod destination_rule;
pub mod export;
pub mod gateway;
pub mod host;
pub mod mesh;
pub mod mesh_config;
pub mod proxy_config;
pub mod rate_limit;
pub mod references;
pub mod request_authn;
pub mod scope;
pub mod secret;
pub mod service_entry;
pub mod shared;
pub mod sidecar;
pub mod telemetry;
pub mod validate;
pub mod virtual_service;

pub use mesh::Mesh;
pub use mesh_config::MeshConfig;
pub use scope::Scope;
pub use shared::Shared;

#[cfg(test)]
mod tests;
