//! A gRPC stream of the proxy itself, in both directions: messages out as they come, messages back where somebody reads
//! them.

use super::call::call;
use super::grpc::{Method, PREFIX};
use crate::env::Instant;
use crate::message::{Body, Frame, Request, Source};
use crate::outcome::Outcome;
use bytes::{Buf as _, Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages of a stream that may wait for its window.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Largest message that is read.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// How long a stream may be open: it ends with the service or with this process.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// An open stream: its writing end.
#[derive(Default)]
pub struct Pipe {
    messages: RefCell<VecDeque<Bytes>>,
    bytes: Cell<usize>,
    waker: Cell<Option<Waker>>,
    /// No message follows.
    ended: Cell<bool>,
    /// The exchange is over.
    over: Cell<bool>,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe").field("bytes", &self.bytes).field("over", &self.over).finish_non_exhaustive()
    }
}

impl Pipe {
    /// Opens a stream, which lives until either side ends it. Messages that come back go to `answers`, which is closed
    /// when the stream is over; without it they are read past.
    pub fn open(method: Method<'_>, answers: Option<mpsc::Sender<Bytes>>) -> Rc<Self> {
        let pipe = Rc::new(Self::default());
        let (head, cluster, held) = (method.head(), Rc::clone(method.cluster), Rc::clone(&pipe));
        tokio::task::spawn_local(async move {
            let body = Body::source(Outgoing(Rc::clone(&held)));
            match call(&cluster, Request { head, body }, Instant::now() + LIFE).await {
                Ok(answer) if answer.head.status == 200 => read(answer.body, answers).await,
                Ok(answer) => {
                    tracing::debug!(cluster = &*cluster.config.name, status = answer.head.status, "stream refused");
                }
                Err(outcome) => tracing::debug!(cluster = &*cluster.config.name, %outcome, "stream ended"),
            }
            held.over.set(true);
        });
        pipe
    }

    /// Adds a message with its prefix; false where the stream is over or too many wait.
    pub fn push(&self, message: Bytes) -> bool {
        if self.over.get() || self.ended.get() || self.bytes.get() + message.len() > MAX_WAITING_BYTES {
            return false;
        }
        self.bytes.set(self.bytes.get() + message.len());
        self.messages.borrow_mut().push_back(message);
        self.wake();
        true
    }

    /// Says that no message follows.
    pub fn end(&self) {
        self.ended.set(true);
        self.wake();
    }

    /// Whether the exchange is over.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Hands on messages until the stream or its reader ends.
async fn read(mut body: Body, answers: Option<mpsc::Sender<Bytes>>) {
    let mut read = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        let (Frame::Data(data), Some(answers)) = (frame, &answers) else { continue };
        read.extend_from_slice(&data);
        while let Some(length) = length_of(&read) {
            if length > MAX_MESSAGE_BYTES {
                return;
            }
            if read.len() < PREFIX + length {
                break;
            }
            read.advance(PREFIX);
            if answers.send(read.split_to(length).freeze()).await.is_err() {
                return;
            }
        }
    }
}

/// Length of the next message; one that is compressed, which nobody asked for, is too long for anybody.
fn length_of(read: &BytesMut) -> Option<usize> {
    let (flag, length) = (read.first()?, read.get(1..PREFIX)?);
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    Some(if *flag == 0 { length } else { usize::MAX })
}

/// The reading end of a [`Pipe`].
struct Outgoing(Rc<Pipe>);

impl Source for Outgoing {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        let next = self.0.messages.borrow_mut().pop_front();
        match next {
            Some(message) => {
                self.0.bytes.set(self.0.bytes.get().saturating_sub(message.len()));
                Poll::Ready(Some(Ok(Frame::Data(message))))
            }
            None if self.0.ended.get() => Poll::Ready(None),
            None => {
                self.0.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    fn length(&self) -> Option<u64> {
        None
    }
}
