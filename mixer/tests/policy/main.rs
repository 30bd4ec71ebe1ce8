//! Policy, in process and over loopback: Istio's tasks with their YAML, leases, stores, and real Envoys.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

mod ext_authz;
mod ext_authz_http;
mod ratelimit;
mod redis_server;
mod reports;
mod request;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
