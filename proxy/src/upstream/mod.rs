//! One request to an upstream: tries, replays, copies, and the proxy's own calls.
//!
//! Knows clusters and retry policies. Must never know a downstream connection or a filter.

mod attempt;
mod call;
mod grpc;
mod pipe;
mod plan;
mod replay;

pub use attempt::{Ask, attempt};
pub use call::call;
pub use grpc::{Method, framed, unary, unary_bytes};
pub use pipe::Pipe;
pub use plan::{Action, Event, Plan};
pub use replay::Replay;
