//! Waits for quiet, but not for ever (PI-33).

use std::time::{Duration, Instant};

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// Time without an event after which a push begins.
    pub quiet: Duration,
    /// Longest time from the first event to the push.
    pub longest: Duration,
}

impl Default for Delays {
    /// Far shorter than istiod's 100 ms and 10 s: a push costs only what has changed.
    fn default() -> Self {
        Self { quiet: Duration::from_millis(1), longest: Duration::from_millis(10) }
    }
}

/// When the next push is due.
#[derive(Debug)]
pub struct Debounce {
    delays: Delays,
    waiting: Option<(Instant, Instant)>,
}

impl Debounce {
    /// Nothing is waiting.
    pub fn new(delays: Delays) -> Self {
        Self { delays, waiting: None }
    }

    /// An event came.
    pub fn handle_event(&mut self, now: Instant) {
        let first = self.waiting.map_or(now, |(first, _)| first);
        self.waiting = Some((first, now));
    }

    /// When the push is due; none while nothing waits.
    pub fn due(&self) -> Option<Instant> {
        let (first, last) = self.waiting?;
        Some((last + self.delays.quiet).min(first + self.delays.longest))
    }

    /// The push begins; says when the first event came that it is for.
    pub fn clear(&mut self) -> Option<Instant> {
        self.waiting.take().map(|(first, _)| first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: PI-33
    #[test]
    fn waits_for_quiet_and_never_longer_than_the_longest_time() {
        let mut debounce = Debounce::new(Delays::default());
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(debounce.due(), None);
        debounce.handle_event(start);
        assert_eq!(debounce.due(), Some(at(1)));
        debounce.handle_event(at(5));
        assert_eq!(debounce.due(), Some(at(6)));
        debounce.handle_event(at(9));
        debounce.handle_event(at(10));
        assert_eq!(debounce.due(), Some(at(10)), "a steady stream of events does not starve the proxies");
        debounce.clear();
        assert_eq!(debounce.due(), None);
    }
}
