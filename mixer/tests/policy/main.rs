//! Policy, in process and over loopback: Istio's tasks with their YAML, leases, stores, and real Envoys.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

mod ext_authz;
mod redis_server;
mod request;
mod tasks;
