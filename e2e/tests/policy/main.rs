//! A real Envoy and our proxy under mixer's policy.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

mod figures;
mod mesh;
mod programs;
#[path = "../../../mixer/tests/policy/redis_server.rs"]
mod redis_server;
mod services;
mod tasks;
