//! Buckets of tokens that all workers share without a lock: one, and one per key.

use crate::route::Entries;
use foldhash::fast::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How fast a bucket fills: `max` tokens at most, `per_fill` more each `interval`.
#[derive(Debug, Clone)]
struct Rate {
    max: u64,
    per_fill: u64,
    interval_ms: u64,
    started: std::time::Instant,
}

impl Rate {
    fn new(max: u32, per_fill: u32, interval: Duration) -> Self {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        Self { max: max.into(), per_fill: per_fill.into(), interval_ms, started: now() }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(now().duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    fn fills(&self, elapsed_ms: u64) -> u64 {
        (elapsed_ms / self.interval_ms) & 0xffff_ffff
    }

    /// Takes tokens, if there are as many. The state has tokens in its low half, the number of the last fill in its high
    /// half.
    fn take(&self, state: &AtomicU64, hits: u64, elapsed_ms: u64) -> bool {
        let fills = self.fills(elapsed_ms);
        let next = |state: u64| {
            let (last, tokens) = (state >> 32, state & 0xffff_ffff);
            let filled = tokens.saturating_add(fills.saturating_sub(last).saturating_mul(self.per_fill)).min(self.max);
            let last = last.max(fills);
            filled.checked_sub(hits).map(|left| last << 32 | left)
        };
        state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    /// The state of a full bucket.
    fn full(&self, elapsed_ms: u64) -> u64 {
        self.fills(elapsed_ms) << 32 | self.max
    }
}

/// A bucket of tokens.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    state: AtomicU64,
}

impl Bucket {
    /// A full bucket. `interval` is at least a millisecond.
    pub fn new(max: u32, per_fill: u32, interval: Duration) -> Self {
        Self { rate: Rate::new(max, per_fill, interval), state: AtomicU64::new(max.into()) }
    }

    /// Takes a token, if there is one.
    pub fn take(&self) -> bool {
        self.take_hits(1)
    }

    /// Takes tokens, if there are as many.
    pub fn take_hits(&self, hits: u32) -> bool {
        self.rate.take(&self.state, hits.into(), self.rate.elapsed_ms())
    }
}

/// Slots in which a key may be.
const PROBES: usize = 8;

/// A bucket for each key: a table of a fixed size. A key that is new takes the slot that was in use longest ago of the few
/// that it may be in.
#[derive(Debug)]
pub(super) struct Buckets {
    rate: Rate,
    slots: Box<[Slot]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Slot {
    /// Hash of the key; 0: nobody's.
    key: AtomicU64,
    state: AtomicU64,
}

impl Buckets {
    /// Full buckets for about `keys` keys.
    pub(super) fn new((max, per_fill, interval): (u32, u32, Duration), keys: usize) -> Self {
        let slots = std::iter::repeat_with(Slot::default).take((2 * keys.max(PROBES)).next_power_of_two());
        Self { rate: Rate::new(max, per_fill, interval), slots: slots.collect(), hasher: RandomState::default() }
    }

    /// Takes tokens of the key's bucket, if there are as many.
    pub(super) fn take_hits(&self, key: &Entries, hits: u32) -> bool {
        let elapsed = self.rate.elapsed_ms();
        match self.slot(self.hasher.hash_one(key).max(1), elapsed) {
            Some(slot) => self.rate.take(&slot.state, hits.into(), elapsed),
            None => true,
        }
    }

    fn slot(&self, key: u64, elapsed_ms: u64) -> Option<&Slot> {
        let mask = self.slots.len() - 1;
        let probed = || (0..PROBES).filter_map(|n| self.slots.get((key as usize).wrapping_add(n) & mask));
        let found = || probed().find(|slot| slot.key.load(Ordering::Acquire) == key);
        if let Some(found) = found() {
            return Some(found);
        }
        let age = |slot: &&Slot| match slot.key.load(Ordering::Acquire) {
            0 => 0,
            _ => 1 + (slot.state.load(Ordering::Acquire) >> 32),
        };
        let oldest = probed().min_by_key(age)?;
        let before = oldest.key.load(Ordering::Acquire);
        if oldest.key.compare_exchange(before, key, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            oldest.state.store(self.rate.full(elapsed_ms), Ordering::Release);
            return Some(oldest);
        }
        // another worker was faster, maybe with the same key
        found().or(Some(oldest))
    }
}

/// The clock of the buckets: tokio's, so that tests can move it.
fn now() -> std::time::Instant {
    crate::env::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: HP-11
    #[test]
    fn tokens_run_out_and_come_back_with_each_interval() {
        let bucket = Bucket::new(3, 2, Duration::from_millis(100));
        let taken = |at: u64| (0..10).filter(|_| bucket.rate.take(&bucket.state, 1, at)).count();
        assert_eq!(taken(0), 3);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(100), 2);
        assert_eq!(taken(1000), 3, "never more than the bucket holds");
        assert!(!bucket.rate.take(&bucket.state, 4, 5000) && bucket.rate.take(&bucket.state, 3, 5000));
    }

    #[tokio::test(start_paused = true)]
    async fn each_key_has_its_bucket_and_the_table_does_not_grow() {
        let buckets = Buckets::new((3, 3, Duration::from_secs(60)), 100);
        let key = |n: usize| vec![(Box::from("user"), n.to_string())];
        let taken = |n: usize| (0..5).filter(|_| buckets.take_hits(&key(n), 1)).count();
        assert_eq!((0..100).map(taken).sum::<usize>(), 300);
        assert_eq!((0..100).map(taken).sum::<usize>(), 0, "all of them are remembered");
        assert_eq!(buckets.slots.len(), 256);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(taken(1), 3);
        assert!((1000..3000).all(|n| taken(n) == 3));
        assert_eq!((3000..3010).map(taken).sum::<usize>(), 30, "new keys find a place in a full table");
    }

    #[test]
    fn workers_that_meet_at_a_new_key_share_its_bucket() {
        let buckets = Buckets::new((1000, 1, Duration::from_secs(3600)), 100);
        let key: Entries = vec![(Box::from("user"), "a".to_owned())];
        let taken: usize = std::thread::scope(|scope| {
            let worker = || (0..1000).filter(|_| buckets.take_hits(&key, 1)).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        // A worker that has just made the bucket fills it once more at most.
        assert!((1000..=2000).contains(&taken), "{taken}");
    }
}
