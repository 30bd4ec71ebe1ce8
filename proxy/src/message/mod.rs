//! One HTTP message, whatever protocol carried it: head and body.
//!
//! Knows bytes and names. Must never know a connection, a codec or a route.

mod body;
mod head;
mod headers;
pub mod hex;
mod known;
pub mod matcher;

pub use body::{Body, Frame, Source};
pub use head::{RequestHead, ResponseHead, Version};
pub use headers::{Headers, HeadersIter, Name};
pub use known::Known;

/// What filters leave for those behind them (dynamic metadata), by the filter's name.
pub type Metadata = std::collections::BTreeMap<Box<str>, serde_json::Value>;

/// A request: head and body.
#[derive(Debug)]
pub struct Request {
    /// Method, target, headers.
    pub head: RequestHead,
    /// What follows the head.
    pub body: Body,
}

/// A response: head and body.
#[derive(Debug)]
pub struct Response {
    /// Status and headers.
    pub head: ResponseHead,
    /// What follows the head.
    pub body: Body,
}
