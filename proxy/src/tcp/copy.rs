//! Bytes both ways between any two streams, with half-close (TC-2).

use crate::env::Instant;
use crate::net::Io;
use bytes::{Buf, BytesMut};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

/// Bytes that wait in one direction at most.
const BUFFER_BYTES: usize = 64 << 10;

/// What was moved.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// From the client to the upstream.
    pub(super) up: Cell<u64>,
    /// From the upstream to the client.
    pub(super) down: Cell<u64>,
    /// When a byte moved last.
    pub(super) at: Cell<Option<Instant>>,
}

/// One direction.
#[derive(Default)]
struct Half {
    buf: BytesMut,
    ended: bool,
    closed: bool,
}

impl Half {
    /// Moves what can be moved; ready once the end was passed on.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut Io, to: &mut Io, moved: &mut u64) -> Poll<io::Result<()>> {
        loop {
            let mut waits = false;
            if !self.ended && self.buf.len() < BUFFER_BYTES {
                self.buf.reserve(BUFFER_BYTES / 4);
                match from.poll_read(cx, &mut self.buf)? {
                    Poll::Ready(0) => self.ended = true,
                    Poll::Ready(_) => {}
                    Poll::Pending => waits = true,
                }
            }
            while !self.buf.is_empty() {
                let Poll::Ready(n) = to.poll_write(cx, &[IoSlice::new(&self.buf)])? else { return Poll::Pending };
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.buf.advance(n);
                *moved += n as u64;
            }
            if to.poll_flush(cx)?.is_pending() {
                return Poll::Pending;
            }
            if self.ended {
                if !self.closed {
                    if to.poll_shutdown(cx)?.is_pending() {
                        return Poll::Pending;
                    }
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            if waits {
                // An idle direction holds no buffer.
                self.buf = BytesMut::new();
                return Poll::Pending;
            }
        }
    }
}

/// Copies until both directions have ended, or one fails.
///
/// # Errors
/// The socket's error.
pub(super) async fn both_ways(down: &mut Io, up: &mut Io, moved: &Moved) -> io::Result<()> {
    let (mut there, mut back) = (Half::default(), Half::default());
    std::future::poll_fn(|cx| {
        let (mut sent, mut received) = (0, 0);
        let first = there.poll(cx, down, up, &mut sent);
        let second = back.poll(cx, up, down, &mut received);
        if sent + received > 0 {
            moved.up.set(moved.up.get() + sent);
            moved.down.set(moved.down.get() + received);
            moved.at.set(Some(Instant::now()));
        }
        match (first?, second?) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await
}
