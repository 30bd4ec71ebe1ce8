//! TLS contexts: secrets and settings → sessions, for both directions.
//!
//! Knows certificates and rustls. Must never know a message or a route.

mod accept;
pub mod config;
mod connect;
pub mod enrol;
mod secrets;

pub use accept::{ServerContext, ServerReady, cert_facts};
pub use config::{Params, Spec, Unverified, Validation};
pub use connect::ClientContext;
pub use secrets::Secrets;

#[cfg(test)]
mod tests;
