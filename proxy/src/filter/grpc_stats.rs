//! `envoy.filters.http.grpc_stats`: counts the messages of gRPC streams (TM-4).

use super::{StreamCx, is_grpc};
use crate::message::{Body, Frame, Request, Response, Source};
use crate::outcome::Outcome;
use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Messages of one stream: from the client, and to it.
#[derive(Debug, Default)]
pub struct Counts {
    passed: [Cell<u64>; 2],
    told: Cell<(u64, u64)>,
    /// The host that was asked for.
    pub(super) host: Box<str>,
}

impl Counts {
    /// Messages since the last time that this was asked.
    pub(super) fn untold(&self) -> (u64, u64) {
        let [received, sent] = &self.passed;
        let now = (received.get(), sent.get());
        let before = self.told.replace(now);
        (now.0 - before.0, now.1 - before.1)
    }
}

/// The request passes: its body is counted as it is pulled.
pub(super) fn on_request(rq: &mut Request, cx: &StreamCx) {
    if is_grpc(&rq.head) {
        let host = String::from_utf8_lossy(rq.head.authority()).into();
        let counts = Rc::new(Counts { host, ..Counts::default() });
        wrap(&mut rq.body, &counts, 0);
        cx.info.borrow_mut().grpc = Some(counts);
    }
}

/// The response passes.
pub(super) fn on_response(rs: &mut Response, cx: &StreamCx) {
    let counts = cx.info.borrow().grpc.clone();
    if let Some(counts) = counts {
        wrap(&mut rs.body, &counts, 1);
    }
}

fn wrap(body: &mut Body, counts: &Rc<Counts>, side: usize) {
    let inner = std::mem::replace(body, Body::Empty);
    *body = match inner {
        Body::Empty => Body::Empty,
        inner => Body::source(Counted { inner, messages: Messages::default(), counts: Rc::clone(counts), side }),
    };
}

struct Counted {
    inner: Body,
    messages: Messages,
    counts: Rc<Counts>,
    side: usize,
}

impl Source for Counted {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        let frame = ready!(self.inner.poll_frame(cx));
        if let Some(Ok(Frame::Data(data))) = &frame
            && let Some(count) = self.counts.passed.get(self.side)
        {
            count.set(count.get() + self.messages.take(data));
        }
        Poll::Ready(frame)
    }

    fn length(&self) -> Option<u64> {
        self.inner.length()
    }
}

/// Finds the starts of length-prefixed messages in a stream of bytes (gRPC over HTTP/2: a flag byte, four of length).
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; 5],
    held: usize,
    left: u64,
}

impl Messages {
    /// How many messages begin in `data`.
    fn take(&mut self, mut data: &[u8]) -> u64 {
        let mut count = 0;
        while !data.is_empty() {
            if self.left > 0 {
                let skip = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                self.left -= skip as u64;
                data = data.get(skip..).unwrap_or_default();
                continue;
            }
            let (byte, rest) = (data.first().copied().unwrap_or(0), data.get(1..).unwrap_or_default());
            if let Some(slot) = self.prefix.get_mut(self.held) {
                *slot = byte;
            }
            self.held += 1;
            data = rest;
            if self.held == self.prefix.len() {
                let [_, a, b, c, d] = self.prefix;
                self.left = u64::from(u32::from_be_bytes([a, b, c, d]));
                self.held = 0;
                count += 1;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: TM-4
    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let stream: Vec<u8> = [0_usize, 5, 300, 1]
            .iter()
            .flat_map(|n| [&[0, 0, 0, (n >> 8) as u8, *n as u8][..], &vec![7; *n]].concat())
            .collect();
        for step in 1..40 {
            let mut messages = Messages::default();
            assert_eq!(stream.chunks(step).map(|chunk| messages.take(chunk)).sum::<u64>(), 4, "{step}");
        }
    }
}
