//! Access logs: what is logged about a stream or connection, how it looks and where it goes.
//!
//! Knows facts, formats and sinks. Must never know who gathers the facts. Header values with command operators are the
//! same formats, so `route/` uses them too.

mod config;
mod expression;
mod facts;
mod file;
mod filter;
mod format;
mod grpc;
mod header_choice;
mod operator;
mod otlp;
mod plain;
mod reason;
mod sinks;
mod stats;
mod tag;
mod time;
mod value;

pub use config::{AccessLog, LogContext};
pub use facts::{Bytes, Entry, FilterState, LogFacts, Times, Upstream};
pub use file::{LogBuffers, LogWriter};
pub use format::{ENVOY_TEXT, Format, FormatError, ISTIO_TEXT, JsonFormat};
pub(super) use reason::PARTS;
pub use reason::{Part, is_of_network, object_of, provenance};
pub use sinks::LogSinks;
pub use stats::LoggedStats;
pub use tag::Tag;
pub use time::TimeFormat;
