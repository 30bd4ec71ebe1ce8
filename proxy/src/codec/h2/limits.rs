//! What a peer may do without sending anything useful (HP-3): floods meet a budget.

/// Frames that cost us work, counted against what the connection has achieved.
#[derive(Debug, Default)]
pub(super) struct Budget {
    streams: u64,
    data_frames_sent: u64,
    empty_in_a_row: u32,
    control: u64,
    priorities: u64,
    window_updates: u64,
    resets: u64,
    own_resets: u64,
    continuations: u32,
}

/// A limit was passed: the connection ends with ENHANCE_YOUR_CALM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flood;

/// SETTINGS and PING frames beyond those that streams justify.
const CONTROL: u64 = 1_000;
/// PRIORITY frames for each stream (and one more stream).
const PRIORITIES_PER_STREAM: u64 = 100;
/// DATA and HEADERS frames without content, one after the other.
const EMPTY_IN_A_ROW: u32 = 100;
/// Resets by the peer that are always tolerated; beyond, half of the streams.
const RESETS: u64 = 500;
/// Resets that the peer makes us send (MadeYouReset).
const OWN_RESETS: u64 = 500;
/// CONTINUATION frames of one block.
const CONTINUATIONS: u32 = 64;

impl Budget {
    pub(super) fn stream(&mut self) {
        self.streams += 1;
        self.continuations = 0;
    }

    pub(super) fn data_sent(&mut self) {
        self.data_frames_sent += 1;
    }

    pub(super) fn data_received(&mut self, bytes: usize, end: bool) -> Result<(), Flood> {
        if bytes > 0 || end {
            self.empty_in_a_row = 0;
            return Ok(());
        }
        self.empty_in_a_row += 1;
        check(self.empty_in_a_row <= EMPTY_IN_A_ROW)
    }

    pub(super) fn control(&mut self) -> Result<(), Flood> {
        self.control += 1;
        check(self.control <= CONTROL + 10 * self.streams)
    }

    pub(super) fn priority(&mut self) -> Result<(), Flood> {
        self.priorities += 1;
        check(self.priorities <= PRIORITIES_PER_STREAM * (self.streams + 1))
    }

    pub(super) fn window_update(&mut self) -> Result<(), Flood> {
        self.window_updates += 1;
        check(self.window_updates <= 1_000 + 5 * self.streams + 10 * self.data_frames_sent)
    }

    pub(super) fn reset(&mut self) -> Result<(), Flood> {
        self.resets += 1;
        check(self.resets <= RESETS || self.resets <= self.streams / 2)
    }

    pub(super) fn own_reset(&mut self) -> Result<(), Flood> {
        self.own_resets += 1;
        check(self.own_resets <= OWN_RESETS || self.own_resets <= self.streams / 2)
    }

    pub(super) fn continuation(&mut self) -> Result<(), Flood> {
        self.continuations += 1;
        check(self.continuations <= CONTINUATIONS)
    }
}

fn check(fine: bool) -> Result<(), Flood> {
    if fine { Ok(()) } else { Err(Flood) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until_flood(mut step: impl FnMut() -> Result<(), Flood>) -> usize {
        (0..1_000_000).take_while(|_| step().is_ok()).count()
    }

    // spec: HP-3
    #[test]
    fn every_flood_meets_its_budget_and_honest_use_does_not() {
        let mut b = Budget::default();
        assert_eq!(until_flood(|| b.control()), 1_000);
        assert_eq!(until_flood(|| b.priority()), 100);
        assert_eq!(until_flood(|| b.window_update()), 1_000);
        assert_eq!(until_flood(|| b.reset()), 500);
        assert_eq!(until_flood(|| b.own_reset()), 500);
        assert_eq!(until_flood(|| b.continuation()), 64);
        assert_eq!(until_flood(|| b.data_received(0, false)), 100);
        let mut honest = Budget::default();
        for _ in 0..100_000 {
            honest.stream();
            honest.data_sent();
            assert!(
                honest.control().is_ok() && honest.window_update().is_ok() && honest.data_received(0, true).is_ok()
            );
        }
    }
}
