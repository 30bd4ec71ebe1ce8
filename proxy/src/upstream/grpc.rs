//! gRPC calls of the proxy itself: one message out, one message back.

use super::call::call;
use crate::cluster::Cluster;
use crate::env::Instant;
use crate::message::{Body, Frame, Known, Request, RequestHead, Version};
use crate::outcome::{Outcome, Reason};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use std::rc::Rc;
use std::time::Duration;

/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Bytes before each message: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;

/// What is called.
#[derive(Debug, Clone, Copy)]
pub struct Method<'a> {
    /// Cluster of the service.
    pub cluster: &'a Rc<Cluster>,
    /// `:authority`.
    pub authority: &'a str,
    /// `/package.Service/Method`.
    pub path: &'a str,
    /// Further metadata: names, lower case, and values.
    pub metadata: &'a [(&'a str, &'a str)],
}

impl Method<'_> {
    /// The head of a call, without a time limit.
    pub fn head(&self) -> RequestHead {
        let (authority, path) = (self.authority.as_bytes(), self.path.as_bytes());
        let mut head = RequestHead::new(Version::H2, b"POST", b"http", authority, path);
        head.headers.append_known(Known::ContentType, b"application/grpc");
        head.headers.append_known(Known::Te, b"trailers");
        for (name, value) in self.metadata {
            head.headers.append(name.as_bytes(), value.as_bytes());
        }
        head
    }
}

/// A message as it is on the wire.
///
/// # Errors
/// It is longer than 4 GiB.
pub fn framed(message: &[u8]) -> Result<Bytes, Outcome> {
    let length = u32::try_from(message.len()).map_err(|_| Reason::PayloadTooLarge)?;
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(0);
    out.put_u32(length);
    out.put_slice(message);
    Ok(out.freeze())
}

/// Asks, and waits for the answer.
///
/// # Errors
/// Why there is none: the service cannot be reached, it answers with another status than OK, or with what cannot be
/// read.
pub async fn unary<A: Message + Default>(
    method: Method<'_>,
    question: &impl Message,
    (timeout, deadline): (Duration, Instant),
) -> Result<A, Outcome> {
    let message = framed(&question.encode_to_vec())?;
    A::decode(unary_bytes(method, message, (timeout, deadline)).await?).map_err(|_| Reason::UpstreamProtocol.into())
}

/// The same with a message that is encoded and framed already; the answer as its bytes.
///
/// # Errors
/// As [`unary`].
pub async fn unary_bytes(
    method: Method<'_>,
    framed: Bytes,
    (timeout, deadline): (Duration, Instant),
) -> Result<Bytes, Outcome> {
    let mut head = method.head();
    head.headers.append_known(Known::GrpcTimeout, format!("{}m", timeout.as_millis()).as_bytes());
    let mut answer = call(method.cluster, Request { head, body: Body::full(framed) }, deadline).await?;
    let failed = || Outcome::from(Reason::UpstreamProtocol);
    let (mut read, mut status) = (BytesMut::new(), answer.head.headers.get(Known::GrpcStatus).map(<[u8]>::to_vec));
    while let Some(frame) = answer.body.frame().await {
        match frame? {
            Frame::Data(data) if read.len() + data.len() <= MAX_ANSWER_BYTES => read.extend_from_slice(&data),
            Frame::Data(_) => return Err(failed()),
            Frame::Trailers(trailers) => status = trailers.get(Known::GrpcStatus).map(<[u8]>::to_vec),
        }
    }
    if answer.head.status != 200 || status.as_deref() != Some(b"0") || read.first() != Some(&0) {
        return Err(failed());
    }
    let whole = read.len() >= PREFIX;
    if whole { Ok(read.split_off(PREFIX).freeze()) } else { Err(failed()) }
}
