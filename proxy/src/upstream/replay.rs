//! A body kept while it passes: for another try, and for copies.

use crate::message::{Body, Frame, Headers, Source};
use crate::outcome::{Outcome, Reason};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Clone)]
enum Kept {
    Data(Bytes),
    Trailers(Headers),
}

impl From<&Kept> for Frame {
    fn from(kept: &Kept) -> Self {
        match kept {
            Kept::Data(data) => Self::Data(data.clone()),
            Kept::Trailers(trailers) => Self::Trailers(trailers.clone()),
        }
    }
}

/// A copy's place in the body.
struct Tee {
    at: usize,
    waker: Option<Waker>,
}

struct State {
    source: Body,
    length: Option<u64>,
    /// Frames from number `base` on.
    kept: VecDeque<Kept>,
    base: usize,
    kept_bytes: usize,
    limit_bytes: usize,
    ended: bool,
    failed: Option<Outcome>,
    /// Over the limit: frames that all readers have passed are gone, there is no way back.
    spilled: bool,
    main_at: usize,
    tees: Vec<Option<Tee>>,
}

/// Keeps what it passes on, up to a limit. Past the limit the body still flows, but cannot be rewound, and copies that
/// lag behind are cut off: memory stays within the limit.
pub struct Replay {
    state: RefCell<State>,
}

impl Replay {
    /// Keeps at most `limit_bytes` of `body`.
    pub fn new(body: Body, limit_bytes: usize) -> Rc<Self> {
        let state = State {
            length: body.length(),
            source: body,
            kept: VecDeque::new(),
            base: 0,
            kept_bytes: 0,
            limit_bytes,
            ended: false,
            failed: None,
            spilled: false,
            main_at: 0,
            tees: Vec::new(),
        };
        Rc::new(Self { state: RefCell::new(state) })
    }

    /// The body from its start; `None` once it spilled. Only the newest of these bodies may be polled.
    pub fn rewind(self: &Rc<Self>) -> Option<Body> {
        let mut state = self.state.borrow_mut();
        if state.spilled || state.base > 0 {
            return None;
        }
        state.main_at = 0;
        Some(Body::source(Main { replay: Rc::clone(self) }))
    }

    /// A copy of the body from its start, fed as the main reader pulls; `None` once it spilled.
    pub fn tee(self: &Rc<Self>) -> Option<Body> {
        let mut state = self.state.borrow_mut();
        if state.spilled || state.base > 0 {
            return None;
        }
        state.tees.push(Some(Tee { at: 0, waker: None }));
        let index = state.tees.len() - 1;
        Some(Body::source(Copy { replay: Rc::clone(self), index }))
    }

    /// Whether the body went over the limit.
    pub fn spilled(&self) -> bool {
        self.state.borrow().spilled
    }

    /// Bytes that are kept now.
    pub fn kept_bytes(&self) -> usize {
        self.state.borrow().kept_bytes
    }

    /// No more tries: what copies have taken is let go, and copies of an unfinished body end with it.
    pub fn abandon(&self) {
        let mut state = self.state.borrow_mut();
        state.source = Body::Empty;
        if !state.ended {
            state.failed.get_or_insert_with(|| Reason::DownstreamGone.into());
        }
        state.spilled = true;
        state.main_at = usize::MAX;
        state.trim();
        state.wake_tees();
    }

    /// No more tries, but the current one goes on.
    pub fn commit(&self) {
        let mut state = self.state.borrow_mut();
        state.spilled = true;
        state.trim();
    }
}

impl State {
    fn end_at(&self) -> usize {
        self.base + self.kept.len()
    }

    fn frame(&self, at: usize) -> Option<Frame> {
        self.kept.get(at.checked_sub(self.base)?).map(Frame::from)
    }

    fn keep(&mut self, frame: Frame) {
        let kept = match frame {
            Frame::Data(data) => {
                self.kept_bytes += data.len();
                Kept::Data(data)
            }
            Frame::Trailers(trailers) => {
                self.ended = true;
                self.kept_bytes += trailers.size_bytes();
                Kept::Trailers(trailers)
            }
        };
        self.kept.push_back(kept);
        if self.kept_bytes > self.limit_bytes {
            self.spilled = true;
        }
    }

    /// Lets go of what nobody can read again.
    fn trim(&mut self) {
        if !self.spilled {
            return;
        }
        let slowest = self.tees.iter().flatten().map(|tee| tee.at).min().unwrap_or(usize::MAX).min(self.main_at);
        self.drop_before(slowest);
        if self.kept_bytes > self.limit_bytes {
            // A copy lags too far behind: the copy goes, not the request.
            let behind = self.main_at;
            for tee in self.tees.iter_mut().filter(|tee| tee.as_ref().is_some_and(|tee| tee.at < behind)) {
                if let Some(waker) = tee.take().and_then(|tee| tee.waker) {
                    waker.wake();
                }
            }
            self.drop_before(behind);
        }
    }

    fn drop_before(&mut self, at: usize) {
        while self.base < at {
            let Some(gone) = self.kept.pop_front() else { break };
            self.kept_bytes -= match &gone {
                Kept::Data(data) => data.len(),
                Kept::Trailers(trailers) => trailers.size_bytes(),
            };
            self.base += 1;
        }
    }

    fn wake_tees(&mut self) {
        for tee in self.tees.iter_mut().flatten() {
            if let Some(waker) = tee.waker.take() {
                waker.wake();
            }
        }
    }

    fn poll_main(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        if self.main_at == self.end_at() && !self.ended {
            match self.source.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(outcome))) => {
                    self.failed = Some(outcome.clone());
                    self.ended = true;
                    self.wake_tees();
                    return Poll::Ready(Some(Err(outcome)));
                }
                Poll::Ready(Some(Ok(frame))) => self.keep(frame),
            }
            self.wake_tees();
        }
        let frame = self.frame(self.main_at);
        if frame.is_some() {
            self.main_at += 1;
        }
        self.trim();
        Poll::Ready(frame.map(Ok))
    }

    fn poll_tee(&mut self, index: usize, cx: &Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        let cut_off = || Outcome::from(Reason::Overflow);
        let Some(at) = self.tees.get(index).and_then(|tee| tee.as_ref()).map(|tee| tee.at) else {
            return Poll::Ready(Some(Err(cut_off())));
        };
        if let Some(frame) = self.frame(at) {
            if let Some(Some(tee)) = self.tees.get_mut(index) {
                tee.at += 1;
            }
            self.trim();
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(outcome) = &self.failed {
            return Poll::Ready(Some(Err(outcome.clone())));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(Some(tee)) = self.tees.get_mut(index) {
            tee.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

struct Main {
    replay: Rc<Replay>,
}

impl Source for Main {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        self.replay.state.borrow_mut().poll_main(cx)
    }

    fn length(&self) -> Option<u64> {
        self.replay.state.borrow().length
    }
}

struct Copy {
    replay: Rc<Replay>,
    index: usize,
}

impl Source for Copy {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        self.replay.state.borrow_mut().poll_tee(self.index, cx)
    }

    fn length(&self) -> Option<u64> {
        self.replay.state.borrow().length
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let mut state = self.replay.state.borrow_mut();
        if let Some(tee) = state.tees.get_mut(self.index) {
            *tee = None;
        }
        state.trim();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// A body of so many frames of so many bytes each.
    struct Frames(usize, usize);

    impl Source for Frames {
        fn poll_frame(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
            if self.0 == 0 {
                return Poll::Ready(None);
            }
            self.0 -= 1;
            Poll::Ready(Some(Ok(Frame::Data(Bytes::from(vec![b'x'; self.1])))))
        }

        fn length(&self) -> Option<u64> {
            Some((self.0 * self.1) as u64)
        }
    }

    async fn drain(body: &mut Body, frames: usize) -> usize {
        let mut bytes = 0;
        for _ in 0..frames {
            match poll_fn(|cx| body.poll_frame(cx)).await {
                Some(Ok(Frame::Data(data))) => bytes += data.len(),
                _ => break,
            }
        }
        bytes
    }

    // spec: RT-3, VS-26
    #[tokio::test]
    async fn rewinds_until_the_limit_and_not_after() {
        let replay = Replay::new(Body::source(Frames(4, 10)), 100);
        let mut first = replay.rewind().expect("fits");
        assert_eq!(first.length(), Some(40));
        assert_eq!(drain(&mut first, 2).await, 20);
        let mut second = replay.rewind().expect("fits");
        assert_eq!(drain(&mut second, 9).await, 40);
        assert_eq!(replay.kept_bytes(), 40);
        let replay = Replay::new(Body::source(Frames(40, 10)), 100);
        let mut body = replay.rewind().expect("fits");
        assert_eq!(drain(&mut body, 100).await, 400);
        assert!(replay.spilled() && replay.rewind().is_none() && replay.kept_bytes() == 0);
    }

    // spec: VS-36, RT-11
    #[tokio::test]
    async fn a_copy_gets_every_byte_or_is_cut_off_when_it_lags() {
        let replay = Replay::new(Body::source(Frames(20, 10)), 50);
        let (mut main, mut copy) = (replay.rewind().expect("fits"), replay.tee().expect("fits"));
        let mut copied = 0;
        for _ in 0..20 {
            assert_eq!(drain(&mut main, 1).await, 10);
            copied += drain(&mut copy, 1).await;
            assert!(replay.kept_bytes() <= 60, "{}", replay.kept_bytes());
        }
        assert_eq!(copied, 200);
        let replay = Replay::new(Body::source(Frames(20, 10)), 50);
        let (mut main, mut copy) = (replay.rewind().expect("fits"), replay.tee().expect("fits"));
        assert_eq!(drain(&mut main, 99).await, 200);
        assert!(matches!(copy.frame().await, Some(Err(_))));
        assert_eq!(replay.kept_bytes(), 0);
    }
}
