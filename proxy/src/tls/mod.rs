//! TLS contexts: secrets and settings → sessions, for both directions.
//!
//! Knows certificates and rustls. Must never know a message or a route.

mod accept;
pub mod config;
mod connect;
pub mod enrol;
mod params;
mod pins;
mod secrets;
mod validation;

pub use accept::{ServerContext, ServerReady, cert_facts};
pub use config::Spec;
pub use connect::ClientContext;
pub use params::Params;
pub use secrets::Secrets;
pub use validation::{Unverified, Validation};

#[cfg(test)]
mod tests;
