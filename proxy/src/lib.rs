//! The data plane: sidecar and gateway, configured over xDS v3, one thread per core.
//!
//! The modules in the order in which a connection meets them, from the process down to the bytes; a folder imports
//! only what stands below it (kept by `e2e/tests/architecture.rs`):

pub mod server;

pub mod publish;

pub mod worker;

pub mod listener;

pub mod http;
pub mod tcp;

pub mod filter;

pub mod upstream;

pub mod cluster;

pub mod balancer;
pub mod codec;
pub mod endpoint;
pub mod pool;
pub mod route;
pub mod tls;

pub mod node;
pub mod telemetry;
pub mod xds;

pub mod message;
pub mod net;

pub mod bootstrap;
pub mod dns;
pub mod env;
pub mod outcome;
pub mod redirect;
pub mod refusal;
