//! Simulated byte streams: two ends in one thread, delivery under the test's control.
//!
//! What an end writes waits "on the wire" until the test delivers it (or at once, where `auto` is set), up to a window
//! that stands for the peer's receive buffer: a stalled reader stops the writer as a socket would.

use super::io::Liveness;
use bytes::{Buf, BytesMut};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    wire: BytesMut,
    ready: BytesMut,
    window: usize,
    auto: bool,
    fin: bool,
    fin_delivered: bool,
    rst: bool,
    written: u64,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn deliver(&mut self, n: usize) {
        let n = n.min(self.wire.len());
        let moved = self.wire.split_to(n);
        self.ready.unsplit(moved);
        self.fin_delivered |= self.fin && self.wire.is_empty();
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// One end of a simulated stream.
#[derive(Debug, Clone)]
pub struct Pipe {
    lanes: Rc<RefCell<[Lane; 2]>>,
    /// Which lane this end writes.
    out: usize,
}

impl Pipe {
    /// Two ends; each lane holds at most `window` bytes that its reader has not taken.
    pub fn pair(window: usize, auto: bool) -> (Self, Self) {
        let lane = || Lane { window, auto, ..Lane::default() };
        let lanes = Rc::new(RefCell::new([lane(), lane()]));
        (Self { lanes: Rc::clone(&lanes), out: 0 }, Self { lanes, out: 1 })
    }

    fn with<T>(&self, lane: usize, f: impl FnOnce(&mut Lane) -> T) -> T {
        f(&mut self.lanes.borrow_mut()[lane & 1])
    }

    fn inward(&self) -> usize {
        1 - self.out
    }

    /// Lets up to `n` bytes of what this end wrote arrive at the other.
    pub fn deliver(&self, n: usize) {
        self.with(self.out, |lane| lane.deliver(n));
    }

    /// Bytes that this end wrote and the other has not taken.
    pub fn in_flight(&self) -> usize {
        self.with(self.out, |lane| lane.wire.len() + lane.ready.len())
    }

    /// All bytes that this end has ever written.
    pub fn written(&self) -> u64 {
        self.with(self.out, |lane| lane.written)
    }

    /// Resets both directions.
    pub fn reset(&self) {
        for lane in 0..2 {
            self.with(lane, |lane| {
                lane.rst = true;
                wake(&mut lane.reader);
                wake(&mut lane.writer);
            });
        }
    }

    pub(super) fn poll_read(&self, cx: &Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.with(self.inward(), |lane| {
            if lane.rst {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if lane.ready.is_empty() {
                if lane.fin_delivered {
                    return Poll::Ready(Ok(0));
                }
                lane.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let n = lane.ready.len().min(super::io::READ_BYTES);
            into.extend_from_slice(&lane.ready.split_to(n));
            wake(&mut lane.writer);
            Poll::Ready(Ok(n))
        })
    }

    pub(super) fn poll_write(&self, cx: &Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.with(self.out, |lane| {
            if lane.rst || lane.fin {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let mut room = lane.window.saturating_sub(lane.wire.len() + lane.ready.len());
            if room == 0 {
                lane.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let mut taken = 0;
            for buf in bufs {
                let n = buf.len().min(room);
                lane.wire.extend_from_slice(buf.get(..n).unwrap_or_default());
                room -= n;
                taken += n;
            }
            lane.written += taken as u64;
            if lane.auto {
                lane.deliver(usize::MAX);
            }
            Poll::Ready(Ok(taken))
        })
    }

    /// Closes this end's write half.
    pub fn poll_shutdown(&self) -> Poll<io::Result<()>> {
        self.with(self.out, |lane| {
            lane.fin = true;
            if lane.auto || lane.wire.is_empty() {
                lane.deliver(usize::MAX);
            }
        });
        Poll::Ready(Ok(()))
    }

    pub(super) fn liveness(&self) -> Liveness {
        self.with(self.inward(), |lane| match (lane.rst, lane.ready.has_remaining(), lane.fin_delivered) {
            (true, ..) => Liveness::Rst,
            (_, true, _) => Liveness::Bytes,
            (_, _, true) => Liveness::Fin,
            _ => Liveness::Open,
        })
    }
}
