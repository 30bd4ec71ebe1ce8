//! Traces: which request is followed, what the next hop is told of it, and what a collector is told (TR-1 to TR-4).
//!
//! - `config.rs`: `HttpConnectionManager.Tracing` of Envoy's API
//! - `context.rs`: B3 and W3C headers
//! - `span.rs`: the spans of one request
//! - `write.rs`: spans for Zipkin and for OTLP
//!
//! Knows headers and facts. Must never know who gathers the facts.

mod config;
mod context;
mod span;
mod write;

pub use config::{Driver, HeaderKind, Share, TraceConfig};
pub use context::Context;
pub use span::{Direction, Teller, Trace};
