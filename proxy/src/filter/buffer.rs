//! `envoy.filters.http.buffer`: the whole request before the first byte goes upstream (HP-9, LR-28b).

use super::{Decision, Step, StreamCx, reply};
use crate::message::{Body, Frame, Headers, Known, Request, Source};
use crate::outcome::{Outcome, Reason};
use crate::refusal::Refusal;
use bytes::{Bytes, BytesMut};
use proto::any;
use proto::envoy::http_filters::buffer::v3::{BufferPerRoute, buffer_per_route};
use proto::envoy::wkt::Any;
use std::task::{Context, Poll};

/// The filter's name, under which routes have their own limit.
pub const NAME: &str = "envoy.filters.http.buffer";

/// How much may be held; none switches the filter off.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    max_bytes: Option<usize>,
}

/// Parses the filter.
///
/// # Errors
/// A limit that is missing.
pub fn parse(typed: &Any) -> Result<Buffer, Refusal> {
    let written: proto::envoy::http_filters::buffer::v3::Buffer =
        any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let max = written.max_request_bytes.ok_or_else(|| Refusal::new("max_request_bytes", "is needed"))?;
    Ok(Buffer { max_bytes: Some(max.value as usize) })
}

/// Parses what a route has for the filter.
///
/// # Errors
/// A limit that is missing.
pub fn parse_override(typed: &Any) -> Result<Buffer, Refusal> {
    let written: BufferPerRoute = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    match written.r#override {
        Some(buffer_per_route::Override::Disabled(true)) => Ok(Buffer { max_bytes: None }),
        Some(buffer_per_route::Override::Buffer(buffer)) => {
            let max = buffer.max_request_bytes.ok_or_else(|| Refusal::new("buffer.max_request_bytes", "is needed"))?;
            Ok(Buffer { max_bytes: Some(max.value as usize) })
        }
        _ => Err(Refusal::new("override", "disabled: true or buffer is needed")),
    }
}

impl Buffer {
    pub(super) fn on_request<'a>(self, rq: &'a mut Request, cx: &'a StreamCx) -> Step<'a> {
        let own = cx.override_of::<Self>(&rq.head, NAME);
        let Some(max) = own.map_or(self, |own| *own).max_bytes else { return Step::CONTINUE };
        if rq.head.wants_tunnel() {
            return Step::CONTINUE;
        }
        match &rq.body {
            Body::Source(_) => {}
            Body::Full(bytes) if bytes.len() > max => {
                let outcome = Outcome::from(Reason::PayloadTooLarge);
                cx.note(outcome.clone());
                return Step::Done(Decision::Reply(Box::new(reply(&outcome, &rq.head))));
            }
            Body::Empty | Body::Full(_) => return Step::CONTINUE,
        }
        Step::Wait(Box::pin(async move {
            match gather(rq, max).await {
                Ok(()) => Decision::Continue,
                Err(outcome) => {
                    cx.note(outcome.clone());
                    Decision::Reply(Box::new(reply(&outcome, &rq.head)))
                }
            }
        }))
    }
}

async fn gather(rq: &mut Request, max: usize) -> Result<(), Outcome> {
    let (mut bytes, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = rq.body.frame().await {
        match frame? {
            Frame::Data(data) if bytes.len() + data.len() > max => return Err(Reason::PayloadTooLarge.into()),
            Frame::Data(data) => bytes.extend_from_slice(&data),
            Frame::Trailers(last) => trailers = Some(last),
        }
    }
    rq.head.headers.set(Known::ContentLength, bytes.len().to_string().as_bytes());
    rq.body = match trailers {
        None => Body::full(bytes.freeze()),
        Some(trailers) => Body::source(Gathered { data: Some(bytes.freeze()), trailers: Some(trailers) }),
    };
    Ok(())
}

/// A body at hand that ends with trailers.
struct Gathered {
    data: Option<Bytes>,
    trailers: Option<Headers>,
}

impl Source for Gathered {
    fn poll_frame(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        let data = self.data.take().filter(|data| !data.is_empty()).map(Frame::Data);
        Poll::Ready(data.or_else(|| self.trailers.take().map(Frame::Trailers)).map(Ok))
    }

    fn length(&self) -> Option<u64> {
        None
    }
}
