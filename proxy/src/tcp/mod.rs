//! Connections that are not HTTP: bytes both ways.
//!
//! Knows clusters and sockets. Must never know a message.

pub mod config;
mod copy;
pub mod ext_authz;
mod proxy;
mod report;
mod splice;

pub use proxy::serve_tcp;
