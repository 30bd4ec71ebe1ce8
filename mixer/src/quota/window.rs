//! One counter, sans-IO: it is told the time, in milliseconds since 1970.

use super::{Ask, Grant, Window};
use std::collections::VecDeque;
use std::time::Duration;

/// How long the use that a grant ahead foresees lasts.
const HORIZON_MS: u64 = 1_000;
/// How much larger than the last one a grant ahead may be.
const GROWTH: u64 = 10;

/// A counter.
#[derive(Debug, Default)]
pub struct Counter {
    /// Use by the beginning of its window or bucket.
    used: VecDeque<(u64, u64)>,
    last_ms: u64,
    last_granted: u64,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Counter {
    /// Answers a question.
    pub fn take(&mut self, ask: &Ask, now_ms: u64) -> Grant {
        self.forget(ask.window, now_ms);
        let used: u64 = self.used.iter().map(|(_, used)| used).sum();
        let Ok(amount) = u64::try_from(ask.amount) else {
            return self.free(ask, ask.amount.unsigned_abs(), now_ms);
        };
        let left = ask.limit.saturating_sub(used);
        let granted = match (left >= amount, ask.ahead) {
            (true, Some(welcome)) => self.ahead(amount, left.div_ceil(2).min(welcome), now_ms),
            (true, None) => amount,
            (false, _) if ask.best_effort => left,
            (false, _) => 0,
        };
        if granted > 0 {
            self.add(ask.window, granted, now_ms);
            self.last_ms = now_ms;
            self.last_granted = granted;
        }
        let until_reset = self.until_reset(ask.window, granted > 0 || amount == 0, now_ms);
        Grant { granted, remaining: left - granted, until_reset }
    }

    /// When it may be forgotten, if nobody asks again.
    pub fn expires_ms(&self, window: Window) -> Option<u64> {
        let (last, _) = self.used.back()?;
        match window {
            Window::Forever => None,
            Window::Fixed(length) | Window::Aligned(length) | Window::Rolling(length, _) => Some(last + ms(length)),
        }
    }

    /// Drops windows and buckets that are over.
    fn forget(&mut self, window: Window, now_ms: u64) {
        let length = match window {
            Window::Forever => return,
            Window::Fixed(length) | Window::Aligned(length) | Window::Rolling(length, _) => ms(length),
        };
        while self.used.front().is_some_and(|(start, _)| start.saturating_add(length) <= now_ms) {
            self.used.pop_front();
        }
    }

    /// A multiple of the amount: about what was used in the last second, and at most so much.
    fn ahead(&self, amount: u64, most: u64, now_ms: u64) -> u64 {
        let gap = now_ms.saturating_sub(self.last_ms).max(1);
        let foreseen = (self.last_granted * HORIZON_MS / gap).min(self.last_granted.saturating_mul(GROWTH));
        foreseen.min(most).max(amount) / amount.max(1) * amount
    }

    fn add(&mut self, window: Window, granted: u64, now_ms: u64) {
        let start = match window {
            Window::Forever => 0,
            Window::Fixed(_) => self.used.back().map_or(now_ms, |(start, _)| *start),
            Window::Aligned(length) => now_ms - now_ms % ms(length),
            Window::Rolling(_, bucket) => now_ms - now_ms % ms(bucket),
        };
        match self.used.back_mut() {
            Some((last, used)) if *last == start => *used += granted,
            _ => self.used.push_back((start, granted)),
        }
    }

    /// Gives back, the newest first.
    fn free(&mut self, ask: &Ask, mut amount: u64, now_ms: u64) -> Grant {
        self.last_granted = self.last_granted.saturating_sub(amount);
        for (_, used) in self.used.iter_mut().rev() {
            let back = amount.min(*used);
            *used -= back;
            amount -= back;
        }
        let used: u64 = self.used.iter().map(|(_, used)| used).sum();
        let until_reset = self.until_reset(ask.window, true, now_ms);
        Grant { granted: 0, remaining: ask.limit.saturating_sub(used), until_reset }
    }

    fn until_reset(&self, window: Window, granted: bool, now_ms: u64) -> Duration {
        let first = self.used.front().map_or(now_ms, |(start, _)| *start);
        let left = |from: u64, length: Duration| Duration::from_millis((from + ms(length)).saturating_sub(now_ms));
        match window {
            Window::Forever => Duration::MAX,
            Window::Fixed(length) => left(first, length),
            Window::Aligned(length) => left(now_ms - now_ms % ms(length), length),
            Window::Rolling(length, _) if granted => length,
            Window::Rolling(length, _) => left(first, length),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn ask(limit: u64, window: Window) -> Ask {
        Ask { key: "k".into(), limit, window, amount: 1, best_effort: false, ahead: None, dedup: None }
    }

    const SECOND: Duration = Duration::from_secs(1);

    // spec: MX-74
    #[test]
    fn a_rolling_window_lets_its_limit_through_in_any_such_time() {
        let ask = ask(2, Window::Rolling(SECOND * 5, SECOND / 10));
        let mut counter = Counter::default();
        let granted = |counter: &mut Counter, at| counter.take(&ask, at).granted;
        let answers: Vec<u64> =
            [0, 2_500, 4_900, 5_050, 7_400, 7_550].into_iter().map(|at| granted(&mut counter, 100_000 + at)).collect();
        assert_eq!(answers, [1, 1, 0, 1, 0, 1]);
        assert_eq!(counter.take(&ask, 107_600).until_reset, Duration::from_millis(2_400), "the one of 105.0 leaves");
    }

    // spec: MX-75
    #[test]
    fn a_fixed_window_begins_with_its_first_use_and_an_aligned_one_by_the_clock() {
        let mut counter = Counter::default();
        let fixed = ask(2, Window::Fixed(SECOND));
        let granted: Vec<u64> = [700, 1_500, 1_600, 1_700].map(|at| counter.take(&fixed, at).granted).into();
        assert_eq!(granted, [1, 1, 0, 1]);
        let mut counter = Counter::default();
        let aligned = ask(2, Window::Aligned(SECOND));
        let granted: Vec<u64> = [700, 800, 900, 1_000].map(|at| counter.take(&aligned, at).granted).into();
        assert_eq!(granted, [1, 1, 0, 1]);
        assert_eq!(counter.take(&aligned, 1_400).until_reset, Duration::from_millis(600));
    }

    // spec: MX-7, MX-74
    #[test]
    fn best_effort_takes_what_is_left_and_a_negative_amount_frees() {
        let mut counter = Counter::default();
        let ask = ask(5, Window::Forever);
        assert_eq!(counter.take(&Ask { amount: 3, ..ask.clone() }, 0).granted, 3);
        assert_eq!(counter.take(&Ask { amount: 3, ..ask.clone() }, 0).granted, 0, "all or nothing");
        assert_eq!(counter.take(&Ask { amount: 3, best_effort: true, ..ask.clone() }, 0).granted, 2);
        assert_eq!(counter.take(&Ask { amount: -4, ..ask.clone() }, 0).remaining, 4);
        assert_eq!(counter.take(&Ask { amount: 3, ..ask }, u64::MAX / 2).granted, 3, "it never ends by itself");
    }

    // spec: MX-35
    #[test]
    fn a_fast_caller_is_granted_about_a_second_ahead_and_a_slow_one_nothing() {
        let ask = Ask { ahead: Some(u64::MAX), ..ask(100_000, Window::Aligned(SECOND * 60)) };
        let mut counter = Counter::default();
        let mut now = 0;
        let mut calls = 0;
        // 1,000 requests a second for five seconds.
        while now < 5_000 {
            now += counter.take(&ask, now).granted;
            calls += 1;
        }
        assert!(calls < 15, "{calls} calls for 5,000 requests");
        let mut counter = Counter::default();
        assert!((0..10).all(|n| counter.take(&ask, n * 5_000).granted == 1), "one request each five seconds");
    }

    #[test]
    fn grants_ahead_leave_half_for_others() {
        let ask = Ask { ahead: Some(u64::MAX), ..ask(100, Window::Aligned(SECOND * 60)) };
        let mut counter = Counter::default();
        let grants: Vec<u64> = (0..9).map(|at| counter.take(&ask, at).granted).collect();
        assert_eq!(grants, [1, 10, 45, 22, 11, 6, 3, 1, 1]);
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_in_a_window(
            limit in 1_u64..20,
            steps in prop::collection::vec((0_u64..400, 1_i64..4, any::<bool>()), 1..200),
            rolling in any::<bool>(),
        ) {
            let window = match rolling {
                true => Window::Rolling(SECOND, SECOND / 10),
                false => Window::Aligned(SECOND),
            };
            let mut counter = Counter::default();
            let mut now = 1_000_000;
            let mut grants: Vec<(u64, u64)> = Vec::new();
            for (wait, amount, ahead) in steps {
                now += wait;
                let grant = counter.take(&Ask { amount, ahead: ahead.then_some(u64::MAX), ..ask(limit, window) }, now);
                prop_assert!(grant.granted == 0 || grant.granted >= amount.unsigned_abs());
                grants.push((now, grant.granted));
                // A bucket counts from its beginning, so up to a bucket's length is forgotten early.
                let from = if rolling { now - 899 } else { now - now % 1_000 };
                let sum: u64 = grants.iter().filter(|(at, _)| *at >= from).map(|(_, granted)| granted).sum();
                prop_assert!(sum <= limit, "{sum} of {limit}");
            }
        }
    }
}
