//! HTTP/1: a strict scanner and plain writers (RFC 9110, RFC 9112).
//!
//! Strictness is a feature: whatever RFC 9112 forbids with a MUST is refused, because a proxy and a server that read
//! one request differently are a smuggling hole.

mod framing;
mod outgoing;
mod scan;
mod write;

pub use framing::{BodyReader, Decoded, Framing};
pub use outgoing::Outgoing;
pub(crate) use scan::valid_authority;
pub use scan::{HeadLimits, RequestMeta, ResponseMeta, scan_request, scan_response};
pub use write::{Announce, chunk_head, write_request, write_response, write_trailers};
