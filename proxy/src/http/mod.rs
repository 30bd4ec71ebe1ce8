//! HTTP connections from clients: codec ↔ streams, and the life of one request.
//!
//! Knows codecs, filters and upstreams. Must never know how a connection was accepted or where its configuration
//! came from.

pub mod config;
mod crew;
mod downstream;
mod forwarded;
mod h1;
mod h2;
mod hands;
mod headers;
mod limits;
mod log;
mod normalize;
mod request_id;
mod rounds;
mod router;
pub mod serve;
mod stream;
mod trace;

pub use downstream::{Downstream, Sent, Watch};
pub use h1::{Conn as H1Conn, Reply as H1Reply, serve_h1};
pub use h2::{Reply as H2Reply, serve_h2};
pub use headers::ServerHeader;
pub use stream::{Settings, arrive, serve_stream};
