//! One stream of a connection: what arrived and was not taken, what waits to be sent.

use crate::message::{Headers, RequestHead, ResponseHead};
use bytes::Bytes;
use std::collections::VecDeque;
use std::task::{Context, Waker};

use super::frame::Code;

/// How the sending half ends, once its pending bytes have left.
#[derive(Debug, Default)]
pub(super) enum Ending {
    /// It goes on.
    #[default]
    Open,
    /// END_STREAM.
    End,
    /// Trailers, with END_STREAM.
    Trailers(Box<Headers>),
}

/// A head that arrived.
#[derive(Debug)]
pub(super) enum Inbound {
    /// At a server.
    Request(RequestHead),
    /// At a client.
    Response(ResponseHead),
}

/// First in, first out; one that waits alone, the common case, needs no memory of its own.
#[derive(Debug)]
pub(super) struct Queue<T> {
    first: Option<T>,
    /// Boxed: nearly all queues never have a second.
    #[expect(clippy::box_collection, reason = "a stream is moved, and this is 8 bytes instead of 32")]
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> Queue<T> {
    const fn new() -> Self {
        Self { first: None, rest: None }
    }

    pub(super) fn push(&mut self, item: T) {
        match &self.first {
            None => self.first = Some(item),
            Some(_) => self.rest.get_or_insert_default().push_back(item),
        }
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let next = self.rest.as_mut().and_then(|rest| rest.pop_front());
        std::mem::replace(&mut self.first, next)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) send_window: i64,
    pub(super) recv_window: i64,
    /// Bytes taken by the reader that the peer has not been told of.
    pub(super) credit: u32,
    pub(super) heads: Queue<Inbound>,
    /// A final head arrived.
    pub(super) got_head: bool,
    pub(super) data: Queue<Bytes>,
    pub(super) trailers: Option<Box<Headers>>,
    pub(super) recv_end: bool,
    /// Bytes that content-length still announces.
    pub(super) announced: Option<u64>,
    pub(super) reset: Option<Code>,
    pub(super) pending: Bytes,
    pub(super) ending: Ending,
    pub(super) send_end: bool,
    /// Stands in the connection's list of streams that wait for window or room.
    pub(super) queued: bool,
    /// Nobody holds the stream any more.
    pub(super) released: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl Stream {
    /// One without windows.
    pub(super) fn new() -> Self {
        Self {
            send_window: 0,
            recv_window: 0,
            credit: 0,
            heads: Queue::new(),
            got_head: false,
            data: Queue::new(),
            trailers: None,
            recv_end: false,
            announced: None,
            reset: None,
            pending: Bytes::new(),
            ending: Ending::Open,
            send_end: false,
            queued: false,
            released: false,
            reader: None,
            writer: None,
        }
    }

    /// Becomes as new, where it is; field by field, since assigned as a whole it would be made elsewhere and moved.
    pub(super) fn clear(&mut self) {
        let Self {
            send_window,
            recv_window,
            credit,
            heads,
            got_head,
            data,
            trailers,
            recv_end,
            announced,
            reset,
            pending,
            ending,
            send_end,
            queued,
            released,
            reader,
            writer,
        } = self;
        (*send_window, *recv_window, *credit) = (0, 0, 0);
        (*heads, *data, *pending, *trailers) = (Queue::new(), Queue::new(), Bytes::new(), None);
        (*got_head, *recv_end, *send_end, *queued, *released) = (false, false, false, false, false);
        (*announced, *reset, *ending, *reader, *writer) = (None, None, Ending::Open, None, None);
    }

    /// Both halves have ended.
    pub(super) fn is_over(&self) -> bool {
        self.reset.is_some() || (self.recv_end && self.send_end)
    }

    pub(super) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_both(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }
}

/// Keeps the waker of `cx`, without a clone where it is kept already.
pub(super) fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}
