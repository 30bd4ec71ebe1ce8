//! HTTP/2 (RFC 9113): frames, header compression, flow control, stream states. Sans-IO: bytes in, bytes out.
//!
//! One engine for both roles. It keeps the wakers of those who wait for a stream, and nothing else of a runtime.

mod connection;
mod control;
mod frame;
mod heads;
mod hpack;
mod limits;
mod spare;
mod stream;
mod streams;
mod table;

pub use connection::{Config, Connection, Role};
pub use frame::{Code, PREFACE};

#[cfg(test)]
mod tests;
