//! When to ask for a certificate: sans-IO, driven by the proxy and by citadel's agent (spec CA-23).
//!
//! The driver makes a new [`crate::csr::Csr`] for each [`Action::Ask`], waits for the answer at most
//! [`ATTEMPT_TIMEOUT`], and keeps its old certificate until a new one was installed.

use crate::svid::Lifetime;
use std::time::{Duration, SystemTime};

/// How long one attempt may take (CA-23).
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// First pause after a failure; doubled up to [`MAX_BACKOFF`] (CA-23).
pub const MIN_BACKOFF: Duration = Duration::from_millis(50);
/// Longest pause between attempts.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// The part of a certificate's life after which it is renewed (SECRET_GRACE_PERIOD_RATIO).
pub const RENEW_AT: f64 = 0.5;
/// Largest deviation from [`RENEW_AT`], as a part of the life (SECRET_GRACE_PERIOD_RATIO_JITTER).
pub const RENEW_JITTER: f64 = 0.01;
/// Never renew more often than this, however short the certificates that a CA hands out.
const MIN_RENEWAL: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The process starts, with a certificate kept from before or without one.
    Started(Option<Lifetime>),
    /// The time of the last [`Action::WaitUntil`] has come.
    Timer,
    /// A new certificate was issued and installed.
    Issued(Lifetime),
    /// The attempt failed or timed out.
    Failed,
    /// The certificate must be replaced now: revoked, or the roots changed.
    Renew,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a new key and ask the CA.
    Ask,
    /// Send [`Event::Timer`] at this time.
    WaitUntil(SystemTime),
}

/// The state of one identity's renewal.
#[derive(Debug)]
pub struct Enrolment {
    backoff: Duration,
    random: fastrand::Rng,
    asking: bool,
}

impl Enrolment {
    /// A new state; `seed` drives the jitter.
    pub fn new(seed: u64) -> Self {
        Self { backoff: MIN_BACKOFF, random: fastrand::Rng::with_seed(seed), asking: false }
    }

    /// Takes an event and says what to do.
    pub fn handle(&mut self, event: Event, now: SystemTime) -> Action {
        match event {
            Event::Started(None) | Event::Timer | Event::Renew => self.ask(),
            Event::Started(Some(held)) if held.not_after <= now => self.ask(),
            Event::Started(Some(held)) => {
                let due = self.due(held);
                if due <= now { self.ask() } else { Action::WaitUntil(due) }
            }
            Event::Issued(held) => {
                self.asking = false;
                self.backoff = MIN_BACKOFF;
                Action::WaitUntil(self.due(held).max(now + MIN_RENEWAL))
            }
            Event::Failed => {
                self.asking = false;
                let pause = self.backoff;
                self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
                Action::WaitUntil(now + pause)
            }
        }
    }

    /// Whether an attempt is under way.
    pub fn is_asking(&self) -> bool {
        self.asking
    }

    fn ask(&mut self) -> Action {
        self.asking = true;
        Action::Ask
    }

    /// Half of the life, moved by the jitter so that workloads started together do not ask together.
    fn due(&mut self, held: Lifetime) -> SystemTime {
        let ratio = RENEW_AT + (self.random.f64() * 2.0 - 1.0) * RENEW_JITTER;
        held.not_before + held.length().mul_f64(ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const DAY: Duration = Duration::from_secs(86_400);

    fn life(start: SystemTime) -> Lifetime {
        Lifetime { not_before: start, not_after: start + DAY }
    }

    fn until(action: Action) -> SystemTime {
        match action {
            Action::WaitUntil(time) => time,
            Action::Ask => panic!("asks at once"),
        }
    }

    // spec: CA-23
    #[test]
    fn renews_at_half_life_with_jitter() {
        let start = UNIX_EPOCH + DAY;
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut enrolment = Enrolment::new(seed);
            assert_eq!(enrolment.handle(Event::Started(None), start), Action::Ask);
            let due = until(enrolment.handle(Event::Issued(life(start)), start));
            let ratio = due.duration_since(start).unwrap().as_secs_f64() / DAY.as_secs_f64();
            assert!((0.49..=0.51).contains(&ratio), "{ratio}");
            assert_eq!(enrolment.handle(Event::Timer, due), Action::Ask);
            seen.insert(due);
        }
        assert!(seen.len() > 150, "no jitter");
    }

    // spec: CA-23
    #[test]
    fn backs_off_from_50_ms_to_10_s_and_starts_again_after_success() {
        let now = UNIX_EPOCH + DAY;
        let mut enrolment = Enrolment::new(1);
        enrolment.handle(Event::Started(None), now);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pauses.push(until(enrolment.handle(Event::Failed, now)).duration_since(now).unwrap().as_millis());
            assert!(!enrolment.is_asking());
            assert_eq!(enrolment.handle(Event::Timer, now), Action::Ask);
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        enrolment.handle(Event::Issued(life(now)), now);
        assert_eq!(until(enrolment.handle(Event::Failed, now)), now + MIN_BACKOFF);
    }

    #[test]
    fn a_kept_certificate_is_used_as_long_as_it_lives() {
        let now = UNIX_EPOCH + DAY * 10;
        let fresh = until(Enrolment::new(1).handle(Event::Started(Some(life(now))), now));
        assert!(fresh > now + DAY / 3);
        assert_eq!(Enrolment::new(1).handle(Event::Started(Some(life(now - DAY * 2 / 3))), now), Action::Ask);
        assert_eq!(Enrolment::new(1).handle(Event::Started(Some(life(now - DAY * 2))), now), Action::Ask);
    }

    #[test]
    fn a_ca_that_hands_out_dead_certificates_is_not_hammered() {
        let now = UNIX_EPOCH + DAY * 10;
        assert_eq!(until(Enrolment::new(1).handle(Event::Issued(life(now - DAY * 3)), now)), now + MIN_RENEWAL);
    }
}
