//! The xDS protocol: delta and state of the world, sessions without I/O, their gRPC service, who may connect.
//!
//! What this part knows: nonces, subscriptions, what each client holds. What it must never know: how a resource is
//! made; it takes snapshots and sends what differs.

pub mod access;
pub mod authenticate;
pub mod codec;
pub mod debug;
pub mod frame;
pub mod gate;
pub mod relay;
pub mod service;
pub mod session;
pub mod tls;

#[cfg(test)]
mod session_tests;
