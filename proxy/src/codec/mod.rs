//! Bytes ↔ messages. Sans-IO: every codec here is fed bytes and asked for bytes.
//!
//! Knows HTTP's framing and nothing of sockets, routes or clusters.

pub mod bridge;
pub(crate) mod bytes;
pub mod h1;
pub mod h2;
