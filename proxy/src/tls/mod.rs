//! TLS contexts: secrets and settings → sessions, for both directions.
//!
//! Knows certificates and rustls. Must never know a message or a route.

mod connect;
pub mod enrol;

pub use connect::ClientContext;
