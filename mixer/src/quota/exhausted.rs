//! Counters that are known to be used up until their window ends: no need to ask the store again (MX-114).
//!
//! A table of a fixed size that any thread reads and writes without a lock: each place is one atomic, written by
//! whoever learned last, and holds a mark of the counter and the end of its window. Two counters in one place push each
//! other out, which costs a question and nothing else.

use foldhash::fast::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many counters are remembered.
const PLACES: usize = 1 << 14;
/// Bits of a place that hold the time in milliseconds: 34 years.
const TIME_BITS: u32 = 40;

/// The table.
#[derive(Debug)]
pub struct Exhausted {
    places: Box<[AtomicU64]>,
    hasher: RandomState,
    started: Instant,
}

impl Default for Exhausted {
    fn default() -> Self {
        let places = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { places, hasher: RandomState::default(), started: Instant::now() }
    }
}

impl Exhausted {
    /// Remembers that a counter is used up for so long.
    pub fn remember(&self, key: &str, until_reset: Duration) {
        let (place, mark) = self.place(key);
        let until = self.now_ms() + u64::try_from(until_reset.as_millis()).unwrap_or_default();
        if let Some(place) = place {
            place.store(mark | until & ((1 << TIME_BITS) - 1), Ordering::Relaxed);
        }
    }

    /// Forgets a counter: something was given back.
    pub fn forget(&self, key: &str) {
        if let (Some(place), _) = self.place(key) {
            place.store(0, Ordering::Relaxed);
        }
    }

    /// How long a counter is still used up.
    pub fn left(&self, key: &str) -> Option<Duration> {
        let (place, mark) = self.place(key);
        let held = place?.load(Ordering::Relaxed);
        let until = held & ((1 << TIME_BITS) - 1);
        let left = until.checked_sub(self.now_ms()).filter(|left| *left > 0)?;
        (held >> TIME_BITS == mark >> TIME_BITS).then(|| Duration::from_millis(left))
    }

    fn place(&self, key: &str) -> (Option<&AtomicU64>, u64) {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash & (PLACES as u64 - 1)).unwrap_or_default();
        (self.places.get(index), hash & !((1 << TIME_BITS) - 1))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or_default() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: MX-114
    #[test]
    fn what_is_used_up_is_remembered_until_its_window_ends() {
        let table = Exhausted::default();
        assert_eq!(table.left("a"), None);
        table.remember("a", Duration::from_secs(60));
        assert!(table.left("a").unwrap() > Duration::from_secs(59));
        assert_eq!(table.left("b"), None);
        table.remember("a", Duration::ZERO);
        assert_eq!(table.left("a"), None);
        table.remember("a", Duration::from_secs(60));
        table.forget("a");
        assert_eq!(table.left("a"), None);
    }
}
