//! Rows of the specification: YAML in, Envoy's resources out, read as JSON.
//!
//! Each test names its rows (`// spec: ID`) and fails when their code is broken. What a real istiod sends for whole
//! cases is compared in `golden.rs`; here each row stands alone, without recordings.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connection_rules;
mod custom;
mod destination_rule;
mod families;
mod gateway;
mod general;
mod grpc;
mod inbound;
mod names;
mod outbound;
mod proxy_config;
mod secret;
mod security;
mod service_entry;
mod sidecar;
mod telemetry;
mod tokens;
mod told;
mod types;
mod virtual_service;
