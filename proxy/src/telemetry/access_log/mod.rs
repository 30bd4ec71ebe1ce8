//! Access logs: what is logged about a stream or connection, how it looks and where it goes.
//!
//! Knows facts, formats and sinks. Must never know who gathers the facts. Header values with command operators are the
//! same formats, so `route/` uses them too.

mod facts;
mod format;
mod operator;
mod time;
mod value;

pub use facts::{Bytes, Entry, FilterState, LogFacts, Metadata, Times, Upstream};
pub use format::{ENVOY_TEXT, Format, FormatError, ISTIO_TEXT, JsonFormat};
pub use time::TimeFormat;
