//! Requests as they pass, from the proxies that see them (CT-43), and what adds up from them (CT-42).
//!
//! - [`filter`]: which requests, as flags and as the query of a proxy's `/tap`
//! - [`stream`]: the taps of several proxies as one
//! - [`request`]: a line of a tap
//! - [`text`]: how it looks
//! - [`tally`]: requests by source, destination, method and path
//!
//! What is shown and hidden is decided in the proxy: here nothing comes back that it has left out.

pub mod filter;
pub mod request;
pub mod stream;
pub mod tally;
pub mod text;

pub use filter::Filter;
pub use request::Request;
pub use stream::{Stream, Told};
