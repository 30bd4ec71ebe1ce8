//! The first part of a body, read ahead and put back.

use super::BodyLimit;
use crate::message::{Body, Frame, Request, Source};
use crate::outcome::{Outcome, Reason};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::task::{Context, Poll};

/// Reads the body up to the limit and puts it back in front of what is still to come; also says whether that is only a part.
pub(super) async fn gather(rq: &mut Request, limit: BodyLimit) -> Result<(Bytes, bool), Outcome> {
    let length = rq.body.length();
    let (mut frames, mut bytes, mut ended) = (VecDeque::new(), 0, false);
    while bytes < limit.max_bytes {
        match rq.body.frame().await {
            None => {
                ended = true;
                break;
            }
            Some(frame) => {
                let frame = frame?;
                match &frame {
                    Frame::Data(data) => bytes += data.len(),
                    Frame::Trailers(_) => ended = true,
                }
                frames.push_back(frame);
                if ended {
                    break;
                }
            }
        }
    }
    let whole = ended || length == Some(bytes as u64);
    if !whole && !limit.allow_partial {
        return Err(Reason::PayloadTooLarge.into());
    }
    let mut seen = BytesMut::with_capacity(bytes.min(limit.max_bytes));
    for frame in &frames {
        if let Frame::Data(data) = frame {
            let room = limit.max_bytes - seen.len();
            seen.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        }
    }
    let rest = std::mem::replace(&mut rq.body, Body::Empty);
    if !frames.is_empty() {
        rq.body = Body::source(Regathered { frames, rest, length });
    } else if !ended {
        rq.body = rest;
    }
    let part = bytes > limit.max_bytes || length.is_some_and(|length| length > seen.len() as u64);
    Ok((seen.freeze(), part))
}

/// What was read, then what is still to come.
struct Regathered {
    frames: VecDeque<Frame>,
    rest: Body,
    length: Option<u64>,
}

impl Source for Regathered {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.rest.poll_frame(cx),
        }
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}
