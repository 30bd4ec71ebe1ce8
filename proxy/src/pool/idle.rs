//! How long an idle connection may be used again: learnt from the peer (D3).

use std::time::Duration;

/// Share of the peer's known idle limit that is used, in percent.
const SAFE_PERCENT: u32 = 80;
/// Below this an observed close says nothing about an idle limit.
const SHORTEST_LESSON: Duration = Duration::from_millis(5);

/// What is known of a peer's idle limit.
#[derive(Debug, Clone)]
pub struct IdleAge {
    /// Configured upper bound (`idle_timeout`, DR-28).
    configured: Duration,
    /// Used until the peer has taught otherwise.
    assumed: Duration,
    learnt: Option<Duration>,
}

impl IdleAge {
    /// `configured` is the upper bound, `assumed` what to expect of a peer of which nothing is known.
    pub fn new(configured: Duration, assumed: Duration) -> Self {
        Self { configured, assumed, learnt: None }
    }

    /// Connections idle for less may be used.
    pub fn reusable(&self) -> Duration {
        let known = self.learnt.map_or(self.assumed, |peer| peer * SAFE_PERCENT / 100);
        known.min(self.configured)
    }

    /// The peer announced its limit.
    pub fn told(&mut self, limit: Duration) {
        self.learnt = Some(self.learnt.map_or(limit, |known| known.min(limit)));
    }

    /// The peer closed a connection that was idle for `idle_for`: its limit is no longer than that.
    pub fn closed_after(&mut self, idle_for: Duration) {
        if idle_for >= SHORTEST_LESSON {
            self.told(idle_for);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_the_shortest_limit_and_stays_below_it() {
        let mut age = IdleAge::new(Duration::from_secs(3600), Duration::from_secs(3));
        assert_eq!(age.reusable(), Duration::from_secs(3));
        age.told(Duration::from_secs(60));
        assert_eq!(age.reusable(), Duration::from_secs(48));
        age.closed_after(Duration::from_millis(30));
        assert_eq!(age.reusable(), Duration::from_millis(24));
        age.closed_after(Duration::from_millis(2));
        age.told(Duration::from_secs(60));
        assert_eq!(age.reusable(), Duration::from_millis(24));
        let age = IdleAge::new(Duration::from_secs(1), Duration::from_secs(3));
        assert_eq!(age.reusable(), Duration::from_secs(1));
    }
}
