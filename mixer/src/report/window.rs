//! The last 15 minutes of one edge, at fixed size: a ring of seconds and a ring of tens of seconds.
//!
//! Proxies report running totals once a second. What came in between two reports is spread over that time, so that
//! rates do not jump with the phase of the reports; a rate is taken up to the last report and so lags by nothing.

use super::family::{BUCKETS, quantile};
use std::time::Duration;

/// Slots of one second.
const FINE: usize = 30;
/// Slots of ten seconds: 15 minutes.
const COARSE: usize = 90;
const COARSE_SECONDS: u64 = 10;
/// How far back what comes first from a sender may be spread, and how long a gap between reports may be.
pub const SPREAD: Duration = Duration::from_secs(10);
/// Reports come every second: an edge that none has mentioned for longer has no traffic.
const LATE: Duration = Duration::from_millis(1500);
/// Bytes of one ring; the limit of edges times this bounds the memory of all.
pub const BYTES: usize = (FINE + COARSE) * size_of::<Slot>();

/// What happened on an edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// Requests, or connections opened.
    pub requests: u64,
    /// Of these, those that failed: 5xx, no answer, gRPC errors of the server's kind.
    pub failed: u64,
    /// Of these, those that were refused: 4xx.
    pub refused: u64,
    /// Of these, those over mutual TLS, where the reporter knows.
    pub mutual_tls: u64,
    /// Bytes to TCP clients.
    pub sent: u64,
    /// Bytes from TCP clients.
    pub received: u64,
    /// Requests by duration, in Istio's buckets.
    pub latency: [u64; BUCKETS],
}

impl Sample {
    fn add(&mut self, slot: &Slot) {
        self.requests += u64::from(slot.requests);
        self.failed += u64::from(slot.failed);
        self.refused += u64::from(slot.refused);
        self.mutual_tls += u64::from(slot.mutual_tls);
        self.sent += slot.sent;
        self.received += slot.received;
        for (sum, count) in self.latency.iter_mut().zip(slot.latency) {
            *sum += u64::from(count);
        }
    }

    /// What lies in time below the share `share` of the requests, in milliseconds.
    pub fn latency_ms(&self, share: f64) -> Option<f64> {
        quantile(&self.latency, share)
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.refused += other.refused;
        self.mutual_tls += other.mutual_tls;
        self.sent += other.sent;
        self.received += other.received;
        for (sum, count) in self.latency.iter_mut().zip(other.latency) {
            *sum += count;
        }
    }
}

/// A part of time.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Number of the part, from 1; 0: never used.
    number: u32,
    requests: u32,
    failed: u32,
    refused: u32,
    mutual_tls: u32,
    latency: [u32; BUCKETS],
    sent: u64,
    received: u64,
}

impl Slot {
    /// Adds the part of `sample` between the shares `from` and `to` of its time; all parts add up to all of it.
    fn add(&mut self, sample: &Sample, from: f64, to: f64) {
        let part = |count: u64| {
            let upto = |share: f64| (count as f64 * share).round() as u64;
            if count == 0 { 0 } else { upto(to).saturating_sub(upto(from)) }
        };
        let small = |sum: u32, count: u64| sum.saturating_add(u32::try_from(part(count)).unwrap_or(u32::MAX));
        self.requests = small(self.requests, sample.requests);
        self.failed = small(self.failed, sample.failed);
        self.refused = small(self.refused, sample.refused);
        self.mutual_tls = small(self.mutual_tls, sample.mutual_tls);
        self.sent = self.sent.saturating_add(part(sample.sent));
        self.received = self.received.saturating_add(part(sample.received));
        for (sum, count) in self.latency.iter_mut().zip(sample.latency) {
            *sum = small(*sum, count);
        }
    }
}

/// What an edge did in a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    /// All of it.
    pub sample: Sample,
    /// Its length.
    pub seconds: f64,
}

impl Stretch {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.sample.requests as f64 / self.seconds
    }
}

/// The rings of an edge. Times count from the start of mixer.
#[derive(Debug)]
pub struct Window {
    fine: Box<[Slot; FINE]>,
    coarse: Box<[Slot; COARSE]>,
    until: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            fine: Box::new([Slot::default(); FINE]),
            coarse: Box::new([Slot::default(); COARSE]),
            until: Duration::ZERO,
        }
    }
}

impl Window {
    /// Adds what happened between two times, at most [`SPREAD`] apart.
    pub fn add(&mut self, from: Duration, to: Duration, sample: &Sample) {
        let from = from.clamp(to.saturating_sub(SPREAD), to);
        spread(&mut self.fine[..], 1, (from, to), sample);
        spread(&mut self.coarse[..], COARSE_SECONDS, (from, to), sample);
        self.until = self.until.max(to);
    }

    /// When it was last added to.
    pub fn until(&self) -> Duration {
        self.until
    }

    /// The last `seconds` (at most 20) up to the last report.
    pub fn last(&self, now: Duration, seconds: u32) -> Stretch {
        let end = self.until.max(now.saturating_sub(LATE)).min(now);
        let newest = end.as_secs();
        let oldest = newest.saturating_sub(u64::from(seconds.min(20)));
        let mut sample = Sample::default();
        for slot in self.fine.iter() {
            if slot.number > 0 && (oldest..=newest).contains(&(u64::from(slot.number) - 1)) {
                sample.add(slot);
            }
        }
        Stretch { sample, seconds: (end.as_secs_f64() - oldest as f64).max(0.1) }
    }

    /// The last 15 minutes in parts of ten seconds, the oldest first; the current part is left out.
    pub fn history(&self, now: Duration) -> Vec<Sample> {
        let current = now.as_secs() / COARSE_SECONDS + 1;
        let first = current.saturating_sub(COARSE as u64 - 1);
        (first..current)
            .map(|number| {
                let slot = &self.coarse[(number % COARSE as u64) as usize];
                let mut sample = Sample::default();
                if u64::from(slot.number) == number {
                    sample.add(slot);
                }
                sample
            })
            .collect()
    }
}

/// Spreads a sample over the slots that its time touches.
fn spread(slots: &mut [Slot], slot_seconds: u64, (from, to): (Duration, Duration), sample: &Sample) {
    let length = (to - from).as_secs_f64();
    let share = |at: Duration| {
        if length > 0. { (at.saturating_sub(from).as_secs_f64() / length).min(1.) } else { 1. }
    };
    // What ends at the border of a slot belongs to the slot before it.
    let last = to.saturating_sub(Duration::from_nanos(1)).max(from).as_secs() / slot_seconds;
    let mut done = 0.;
    for index in from.as_secs() / slot_seconds..=last {
        let end = Duration::from_secs((index + 1) * slot_seconds).min(to);
        let upto = if index == last { 1. } else { share(end) };
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let slot = &mut slots[(u64::from(number) % slots.len() as u64) as usize];
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot.add(sample, done, upto);
        done = upto;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn requests(count: u64) -> Sample {
        Sample { requests: count, ..Sample::default() }
    }

    #[test]
    fn the_rate_does_not_depend_on_the_phase_of_reports() {
        for phase in [0, 130, 500, 999] {
            let mut window = Window::default();
            for second in 1..60 {
                window.add(at(second * 1000 + phase - 1000), at(second * 1000 + phase), &requests(100));
                let now = at(second * 1000 + phase + 400);
                if second > 6 {
                    let rate = window.last(now, 5).rate();
                    assert!((rate - 100.).abs() < 1.5, "phase {phase}, second {second}: {rate}");
                }
            }
            let silent = window.last(at(70_000), 5);
            assert_eq!(silent.sample.requests, 0, "nothing is reported: nothing happens");
        }
    }

    #[test]
    fn nothing_is_lost_in_spreading() {
        let mut window = Window::default();
        let sample = Sample { requests: 1001, failed: 7, sent: 12345, ..Sample::default() };
        window.add(at(1234), at(8765), &sample);
        let all = window.last(at(9000), 20).sample;
        assert_eq!((all.requests, all.failed, all.sent), (1001, 7, 12345));
        let history = window.history(at(10_000));
        assert_eq!(history.iter().map(|part| part.requests).sum::<u64>(), 1001);
    }

    #[test]
    fn what_is_older_than_15_minutes_is_forgotten() {
        let mut window = Window::default();
        window.add(at(1000), at(2000), &requests(10));
        assert_eq!(window.history(at(890_000)).iter().map(|part| part.requests).sum::<u64>(), 10);
        window.add(at(901_000), at(902_000), &requests(1));
        assert_eq!(window.history(at(915_000)).iter().map(|part| part.requests).sum::<u64>(), 1);
    }

    #[test]
    fn the_size_is_what_the_docs_say() {
        assert_eq!(BYTES, 14_400, "docs/src/tour/telemetry.md names this figure");
    }
}
