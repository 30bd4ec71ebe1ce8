//! Live requests for who asks to see them (`GET /tap` of the admin interface, CT-43).
//!
//! Knows what is asked, what is shown and how much of it. Must never know the admin interface, nor hold a worker up: a
//! line goes into a bounded queue, and what finds it full is left out and counted. While nobody asks, a finished request
//! costs one look at a flag of its worker.

mod ask;
mod line;

pub use ask::{Ask, Direction, MAX_PER_SECOND, MAX_SECONDS, PER_SECOND};

use super::access_log::LogFacts;
use super::istio::Ends;
use crate::env::Instant;
use bytes::Bytes;
use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};

/// Taps of one process at a time.
pub const MAX_TAPS: usize = 4;
/// Lines of one tap that may wait for its reader.
pub const MAX_WAITING_LINES: usize = 256;
/// The time in which a tap may be told so many requests.
const SECOND: Duration = Duration::from_secs(1);

/// What one tap was not shown.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Requests beyond what it wants per second; written by every worker and by the reader.
    over_cap: AtomicU64,
    /// Requests that found its queue full; written by every worker.
    slow_reader: AtomicU64,
}

impl LeftOut {
    /// One more beyond what is wanted per second.
    pub fn over_cap(&self) {
        self.over_cap.fetch_add(1, Ordering::Relaxed);
    }

    /// So many so far: beyond the cap, and for want of a reader who keeps up.
    pub fn so_far(&self) -> (u64, u64) {
        (self.over_cap.load(Ordering::Relaxed), self.slow_reader.load(Ordering::Relaxed))
    }
}

/// Somebody who looks at requests: the end that workers hold. It is over when the reader is gone.
#[derive(Debug, Clone)]
pub struct Tap {
    ask: Arc<Ask>,
    until: Instant,
    lines: mpsc::Sender<Bytes>,
    left_out: Arc<LeftOut>,
}

/// The reader's end of a tap.
#[derive(Debug)]
pub struct TapReader {
    /// Lines of JSON, one request each.
    pub lines: mpsc::Receiver<Bytes>,
    /// What is not among them.
    pub left_out: Arc<LeftOut>,
}

impl Tap {
    /// A tap, over at `until` at the latest, and its reader.
    pub fn new(ask: Ask, until: Instant) -> (Self, TapReader) {
        let (lines, read) = mpsc::channel(MAX_WAITING_LINES);
        let left_out = Arc::new(LeftOut::default());
        let reader = TapReader { lines: read, left_out: Arc::clone(&left_out) };
        (Self { ask: Arc::new(ask), until, lines, left_out }, reader)
    }

    /// Waits until the reader is gone.
    pub async fn reader_gone(&self) {
        self.lines.closed().await;
    }
}

/// So many per second, and no more: of one worker, or of one reader.
#[derive(Debug)]
pub struct Allowance {
    per_second: u32,
    since: Cell<Option<Instant>>,
    left: Cell<u32>,
}

impl Allowance {
    /// So many per second.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, since: Cell::new(None), left: Cell::new(0) }
    }

    /// Takes one, if this second still has one.
    pub fn take(&self, now: Instant) -> bool {
        if self.since.get().is_none_or(|since| now.saturating_duration_since(since) >= SECOND) {
            self.since.set(Some(now));
            self.left.set(self.per_second);
        }
        let left = self.left.get().checked_sub(1);
        left.inspect(|left| self.left.set(*left)).is_some()
    }
}

/// A request, for taps.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Number of the stream.
    pub id: u64,
    /// The request goes to the workload, not out of it.
    pub inbound: bool,
    /// Both ends proved who they are.
    pub mutual_tls: bool,
    /// What is known of it.
    pub facts: &'a LogFacts<'a>,
}

/// The taps of one worker.
#[derive(Debug, Default)]
pub struct Taps {
    any: Cell<bool>,
    opens: Cell<bool>,
    open: RefCell<Vec<Tapping>>,
}

#[derive(Debug)]
struct Tapping {
    tap: Tap,
    allowance: Allowance,
}

impl Taps {
    /// Whether anybody looks.
    #[inline]
    pub fn any(&self) -> bool {
        self.any.get()
    }

    /// Whether anybody wants to see requests begin.
    #[inline]
    pub fn opens(&self) -> bool {
        self.opens.get()
    }

    /// One more looks.
    pub fn add(&self, tap: Tap, now: Instant) {
        let allowance = Allowance::new(tap.ask.per_second);
        self.open.borrow_mut().push(Tapping { tap, allowance });
        self.sweep(now);
    }

    /// Forgets those whose reader is gone and those whose time is over.
    pub fn sweep(&self, now: Instant) {
        let mut open = self.open.borrow_mut();
        open.retain(|tapping| !tapping.tap.lines.is_closed() && now < tapping.tap.until);
        self.any.set(!open.is_empty());
        self.opens.set(open.iter().any(|tapping| tapping.tap.ask.open));
    }

    /// A request has begun.
    pub fn began(&self, seen: &Seen<'_>, now: Instant) {
        for tapping in self.open.borrow().iter().filter(|tapping| tapping.tap.ask.open) {
            if tapping.tap.ask.takes_request(seen) {
                tapping.show(now, |ask| line::opened(seen, ask));
            }
        }
    }

    /// A request has ended; `ends` is asked only where somebody may want to see it.
    pub fn ended(&self, seen: &Seen<'_>, now: Instant, ends: impl FnOnce() -> Ends) {
        let (found, mut ends) = (OnceCell::new(), Some(ends));
        for tapping in self.open.borrow().iter() {
            let ask = &tapping.tap.ask;
            if !ask.takes_request(seen) || !ask.takes_answer(seen.facts) {
                continue;
            }
            if let Some(ends) = ends.take() {
                drop(found.set(ends())); // the first and only one
            }
            let Some(ends) = found.get().filter(|ends| ask.takes_ends(ends)) else { continue };
            tapping.show(now, |ask| line::ended(seen, ends, ask));
        }
    }
}

impl Tapping {
    fn show(&self, now: Instant, line: impl FnOnce(&Ask) -> Option<Bytes>) {
        if !self.allowance.take(now) {
            return self.tap.left_out.over_cap();
        }
        let Some(line) = line(&self.tap.ask) else { return };
        if let Err(TrySendError::Full(_)) = self.tap.lines.try_send(line) {
            self.tap.left_out.slow_reader.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
