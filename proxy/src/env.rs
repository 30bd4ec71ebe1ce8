//! The seams that simulation replaces: clock and random numbers of one worker.
//!
//! Time is tokio's clock, which tests pause and advance; nothing else on a worker may ask for the time.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

pub use tokio::time::Instant;

/// What one worker knows of the world beside its sockets.
#[derive(Debug)]
pub struct Env {
    random: RefCell<fastrand::Rng>,
    wall: Cell<Option<(Instant, SystemTime)>>,
}

impl Env {
    /// An environment whose random numbers follow from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self { random: RefCell::new(fastrand::Rng::with_seed(seed)), wall: Cell::new(None) }
    }

    /// An environment with a seed of the operating system.
    pub fn new() -> Self {
        Self { random: RefCell::new(fastrand::Rng::new()), wall: Cell::new(None) }
    }

    /// The monotonic clock.
    #[inline]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// The wall clock at `at`, from one reading per second, so that a log line costs no system call.
    pub fn wall(&self, at: Instant) -> SystemTime {
        let known = self.wall.get();
        if let Some((mark, wall)) = known
            && let Some(later) = at.checked_duration_since(mark)
            && later < Duration::from_secs(1)
        {
            return wall + later;
        }
        let (mark, wall) = match known {
            Some(pair) if at < pair.0 => pair,
            _ => (self.now(), SystemTime::now()),
        };
        self.wall.set(Some((mark, wall)));
        match at.checked_duration_since(mark) {
            Some(later) => wall + later,
            None => wall - mark.saturating_duration_since(at),
        }
    }

    /// A random number below `n`; 0 where `n` is 0.
    #[inline]
    pub fn below(&self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.random.borrow_mut().u64(..n) }
    }

    /// 128 random bits.
    #[inline]
    pub fn bits(&self) -> u128 {
        self.random.borrow_mut().u128(..)
    }

    /// Whether an event of `numerator` in `denominator` happens now.
    pub fn chance(&self, numerator: u64, denominator: u64) -> bool {
        numerator >= denominator || self.below(denominator) < numerator
    }
}

impl Default for Env {
    fn default() -> Self {
        Self::new()
    }
}

/// Milliseconds since the process started: the clock of what workers share (ejections).
#[derive(Debug)]
pub struct ProcessClock(Instant);

impl ProcessClock {
    /// A clock that starts now.
    pub fn start() -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self(Instant::now()))
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
