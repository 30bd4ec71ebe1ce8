//! What follows a head. Pull only: not polling is the backpressure.

use super::Headers;
use crate::outcome::Outcome;
use bytes::Bytes;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

/// A piece of a body.
#[derive(Debug)]
pub enum Frame {
    /// Bytes; never empty.
    Data(Bytes),
    /// Trailers: always the last frame.
    Trailers(Headers),
}

/// Where a body comes from: a codec, an upstream, a replay, a body filter.
pub trait Source {
    /// The next frame; `None` at the end, after which it is not polled again. An error is the end as well.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>>;

    /// How many bytes are still to come, where that is known (`content-length`).
    fn length(&self) -> Option<u64>;
}

/// The body of a message; one box per message that has one.
pub enum Body {
    /// Nothing.
    Empty,
    /// All of it, at hand.
    Full(Bytes),
    /// To be pulled.
    Source(Box<dyn Source>),
}

impl Body {
    /// A body that is at hand; `Empty` where there are no bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }

    /// A body to be pulled from `source`.
    pub fn source(source: impl Source + 'static) -> Self {
        Self::Source(Box::new(source))
    }

    /// Whether nothing follows the head for certain.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The next frame; `None` at the end. Cancel-safe.
    pub async fn frame(&mut self) -> Option<Result<Frame, Outcome>> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }
}

impl Source for Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::Data(bytes))))
            }
            Self::Source(source) => {
                let polled = source.poll_frame(cx);
                if matches!(polled, Poll::Ready(None | Some(Err(_) | Ok(Frame::Trailers(_))))) {
                    *self = Self::Empty;
                }
                polled
            }
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Source(source) => source.length(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Source(source) => write!(f, "Source({:?})", source.length()),
        }
    }
}
