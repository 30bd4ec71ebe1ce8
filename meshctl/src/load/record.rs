//! What calls came to: codes, latencies as Fortio counts them, and latencies without its two blind spots.
//!
//! - Fortio interpolates percentiles within buckets of one millisecond. [`Record::exact`] keeps three digits.
//! - Fortio counts from the moment at which a call was sent. Where a slow answer delays the calls after it, those that
//!   were due meanwhile are missing (coordinated omission). [`Record::corrected`] counts from the time at which a call
//!   was due.

use super::histogram::Histogram;
use super::plan::Plan;
use std::borrow::Cow;
use std::time::Duration;

/// Width of the buckets of whole answers, in bytes; Fortio's.
const SIZE_RESOLUTION: f64 = 100.0;
/// Width of the buckets of heads, in bytes; Fortio's.
const HEAD_RESOLUTION: f64 = 5.0;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// An HTTP status; −1 where the connection failed.
    Status(i16),
    /// A gRPC health status, or `OK` and errors of TCP and UDP.
    Named(Cow<'static, str>),
}

/// The code of a connection that failed or was too slow.
pub const SOCKET_ERROR: Code = Code::Status(-1);

impl std::fmt::Display for Code {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => status.fmt(out),
            Self::Named(name) => name.fmt(out),
        }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How the call ended.
    pub code: Code,
    /// Whether that is a success.
    pub good: bool,
    /// Bytes of the answer, with its head where the client counts that.
    pub size: u64,
    /// Bytes of its head; 0 where the client cannot say.
    pub head_size: u64,
}

impl Answer {
    /// No answer: the connection failed or time ran out.
    pub fn none() -> Self {
        Self { code: SOCKET_ERROR, good: false, size: 0, head_size: 0 }
    }

    /// An HTTP answer. 2xx is good, and so is 418, as for Fortio.
    pub fn http(status: u16, size: u64, head_size: u64) -> Self {
        let good = (200..300).contains(&status) || status == 418;
        Self { code: Code::Status(i16::try_from(status).unwrap_or(-1)), good, size, head_size }
    }
}

/// Latencies to three digits, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Exact(hdrhistogram::Histogram<u32>);

impl Exact {
    fn new() -> Self {
        let mut histogram = hdrhistogram::Histogram::new(3).expect("three digits are within the library's range");
        histogram.auto(true);
        Self(histogram)
    }

    fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.record(nanos).unwrap_or(()); // it grows by itself
    }

    fn add(&mut self, other: &Self) {
        self.0.add(&other.0).unwrap_or(()); // it grows by itself
    }

    /// A percentile in seconds, to three digits.
    pub fn percentile(&self, percentile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_percentile(percentile) as f64 / 1e9 }
    }

    /// Several percentiles, each with its value in seconds.
    pub fn percentiles(&self, percentiles: &[f64]) -> Vec<(f64, f64)> {
        percentiles.iter().map(|p| (*p, self.percentile(*p))).collect()
    }
}

/// What many calls came to.
#[derive(Debug, Clone)]
pub struct Record {
    /// Codes with how often they came, in order of their first coming.
    pub codes: Vec<(Code, u64)>,
    /// Latencies of all calls, in seconds.
    pub latency: Histogram,
    /// Latencies of the calls that failed, in seconds.
    pub failed: Histogram,
    /// Latencies of all calls.
    pub exact: Exact,
    /// Latencies from the time at which the calls were due, in seconds; empty without a rate.
    pub corrected: Histogram,
    /// The same to three digits.
    pub exact_corrected: Exact,
    /// Waits before calls, in seconds; negative where a call was late.
    pub waits: Histogram,
    /// Sizes of answers in bytes.
    pub sizes: Histogram,
    /// Sizes of their heads in bytes.
    pub head_sizes: Histogram,
    /// Calls that were too late to be made.
    pub skipped: u64,
}

impl Record {
    /// An empty one with the buckets of a plan.
    pub fn new(plan: &Plan) -> Self {
        let latency = Histogram::new(plan.offset, plan.resolution);
        Self {
            codes: Vec::new(),
            failed: latency.clone(),
            corrected: latency.clone(),
            latency,
            exact: Exact::new(),
            exact_corrected: Exact::new(),
            waits: Histogram::new(-0.001, 0.001),
            sizes: Histogram::new(0.0, SIZE_RESOLUTION),
            head_sizes: Histogram::new(0.0, HEAD_RESOLUTION),
            skipped: 0,
        }
    }

    /// Takes one call: what came back, how long it took, and how long since it was due (with a rate).
    pub fn take(&mut self, answer: &Answer, latency: Duration, since_due: Option<Duration>) {
        let seconds = latency.as_secs_f64();
        self.latency.record(seconds);
        self.exact.record(latency);
        if !answer.good {
            self.failed.record(seconds);
        }
        if let Some(since_due) = since_due {
            self.corrected.record(since_due.as_secs_f64());
            self.exact_corrected.record(since_due);
        }
        self.sizes.record(answer.size as f64);
        self.head_sizes.record(answer.head_size as f64);
        match self.codes.iter_mut().find(|(code, _)| *code == answer.code) {
            Some((_, count)) => *count += 1,
            None => self.codes.push((answer.code.clone(), 1)),
        }
    }

    /// Takes what another one holds.
    pub fn add(&mut self, other: &Self) {
        for (code, count) in &other.codes {
            match self.codes.iter_mut().find(|(known, _)| known == code) {
                Some((_, known)) => *known += count,
                None => self.codes.push((code.clone(), *count)),
            }
        }
        for (own, others) in [
            (&mut self.latency, &other.latency),
            (&mut self.failed, &other.failed),
            (&mut self.corrected, &other.corrected),
            (&mut self.waits, &other.waits),
            (&mut self.sizes, &other.sizes),
            (&mut self.head_sizes, &other.head_sizes),
        ] {
            own.add(others);
        }
        self.exact.add(&other.exact);
        self.exact_corrected.add(&other.exact_corrected);
        self.skipped += other.skipped;
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.latency.counter.count
    }

    /// How many of them failed.
    pub fn failures(&self) -> u64 {
        self.failed.counter.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: FO-32
    #[test]
    fn failures_are_in_both_histograms() {
        let mut record = Record::new(&Plan::default());
        let ms = Duration::from_millis;
        record.take(&Answer::http(200, 100, 50), ms(1), None);
        record.take(&Answer::http(418, 100, 50), ms(1), None);
        record.take(&Answer::http(503, 100, 50), ms(2), None);
        record.take(&Answer::none(), ms(3), None);
        let codes: Vec<(String, u64)> = record.codes.iter().map(|(code, n)| (code.to_string(), *n)).collect();
        let expected = [("200", 1), ("418", 1), ("503", 1), ("-1", 1)].map(|(code, n)| (code.to_owned(), n));
        assert_eq!(codes, expected);
        assert_eq!((record.calls(), record.failures()), (4, 2));
        assert_eq!(record.failed.counter.max, 0.003);
    }

    // spec: FO-43
    #[test]
    fn exact_percentiles_are_not_a_line_through_the_first_bucket() {
        let mut record = Record::new(&Plan::default());
        for _ in 0..99 {
            record.take(&Answer::http(200, 1, 1), Duration::from_micros(50), Some(Duration::from_micros(50)));
        }
        record.take(&Answer::http(200, 1, 1), Duration::from_micros(900), Some(Duration::from_millis(20)));
        assert!((record.exact.percentile(50.0) - 50e-6).abs() < 1e-7);
        assert!(record.latency.export(&[]).percentile(50.0) > 400e-6, "Fortio's is half way to the slowest call");
        assert!((record.exact_corrected.percentile(99.9) - 0.02).abs() < 1e-4);
    }
}
