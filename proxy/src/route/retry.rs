//! Retry policy as data; the decisions are `upstream/plan.rs`.

use crate::message::ResponseHead;
use crate::message::matcher::HeaderMatcher;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Conditions under which a try is repeated (spec RT-1, RT-2): a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(pub u32);

impl RetryOn {
    /// `5xx`: any 5xx answer; reset, connect-failure and refused-stream as well.
    pub const FIVE_XX: Self = Self(1);
    /// `gateway-error`: 502, 503, 504.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// `reset`: the upstream ended without an answer.
    pub const RESET: Self = Self(1 << 2);
    /// `reset-before-request`: the same, before the request was sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// `connect-failure`.
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// `envoy-ratelimited`: the answer has `x-envoy-ratelimited`.
    pub const ENVOY_RATELIMITED: Self = Self(1 << 5);
    /// `retriable-4xx`: 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    /// `refused-stream`.
    pub const REFUSED_STREAM: Self = Self(1 << 7);
    /// `retriable-status-codes`.
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 8);
    /// `retriable-headers`.
    pub const RETRIABLE_HEADERS: Self = Self(1 << 9);
    /// `http3-post-connect-failure`: accepted, never occurs.
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 10);
    /// gRPC `cancelled` (1).
    pub const GRPC_CANCELLED: Self = Self(1 << 11);
    /// gRPC `deadline-exceeded` (4).
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 12);
    /// gRPC `internal` (13).
    pub const GRPC_INTERNAL: Self = Self(1 << 13);
    /// gRPC `resource-exhausted` (8).
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 14);
    /// gRPC `unavailable` (14).
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 15);

    const NAMES: &'static [(&'static str, Self)] = &[
        ("5xx", Self::FIVE_XX),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("envoy-ratelimited", Self::ENVOY_RATELIMITED),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-status-codes", Self::RETRIABLE_STATUS_CODES),
        ("retriable-headers", Self::RETRIABLE_HEADERS),
        ("http3-post-connect-failure", Self::HTTP3_POST_CONNECT_FAILURE),
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("internal", Self::GRPC_INTERNAL),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("unavailable", Self::GRPC_UNAVAILABLE),
    ];

    /// Reads a comma list. Unknown names come back for a warning; Envoy ignores them as well.
    pub fn parse(list: &str) -> (Self, Vec<&str>) {
        let (mut on, mut unknown) = (Self::default(), Vec::new());
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match Self::NAMES.iter().find(|(text, _)| *text == name) {
                Some((_, bit)) => on.0 |= bit.0,
                None => unknown.push(name),
            }
        }
        (on, unknown)
    }

    /// Whether any condition of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whether a try may go to an endpoint that was tried before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAvoidance {
    /// It may.
    None,
    /// Up to so many picks are made to find another one (`previous_hosts`, RT-7).
    PreviousHosts(u32),
}

/// When and how often a request is tried again.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Conditions.
    pub on: RetryOn,
    /// Retries at most (tries = 1 + this).
    pub num_retries: u32,
    /// Time limit of one try; `None`: the route's.
    pub per_try_timeout: Option<Duration>,
    /// Idle limit of one try.
    pub per_try_idle_timeout: Option<Duration>,
    /// Base of the back-off (RT-4: 25 ms).
    pub backoff_base: Duration,
    /// Cap of the back-off (RT-4: 10 × base).
    pub backoff_max: Duration,
    /// Status codes of `retriable-status-codes`.
    pub status_codes: Box<[u16]>,
    /// Endpoint choice of a retry.
    pub avoid: HostAvoidance,
    /// Response headers of `retriable-headers`: one that matches is enough.
    pub retriable_headers: Box<[HeaderMatcher]>,
    /// Only requests of which one header matches are tried again; empty: all.
    pub request_headers: Box<[HeaderMatcher]>,
    /// Waiting as long as the upstream asks for.
    pub rate_limited: Option<RateLimitedBackoff>,
    /// After every so many tries, priorities that were tried are left out (`previous_priorities`, RT-7).
    pub priority_update_frequency: Option<u32>,
}

/// Back-off that a response asks for by a header (RT-4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitedBackoff {
    /// Headers to look at, in order.
    pub headers: Box<[(Box<str>, ResetFormat)]>,
    /// A longer wait is not obeyed: the usual back-off is used instead.
    pub max: Duration,
}

/// How a header says when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetFormat {
    /// Seconds from now (`Retry-After`).
    Seconds,
    /// Seconds since 1970 (`X-RateLimit-Reset`).
    UnixTimestamp,
}

impl RateLimitedBackoff {
    /// How long the response asks to wait; `None` where it does not say, or asks for too much.
    pub fn wait(&self, head: &ResponseHead, now: SystemTime) -> Option<Duration> {
        self.headers.iter().find_map(|(name, format)| {
            let value = std::str::from_utf8(head.headers.get_name(name.as_bytes())?).ok()?;
            let seconds = Duration::from_secs(value.trim().parse().ok()?);
            let wait = match format {
                ResetFormat::Seconds => seconds,
                ResetFormat::UnixTimestamp => seconds.checked_sub(now.duration_since(UNIX_EPOCH).ok()?)?,
            };
            (wait <= self.max).then_some(wait)
        })
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            on: RetryOn::default(),
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            status_codes: Box::default(),
            avoid: HostAvoidance::None,
            retriable_headers: Box::default(),
            request_headers: Box::default(),
            rate_limited: None,
            priority_update_frequency: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: RT-1, RT-2
    #[test]
    fn reads_every_condition_by_name() {
        for (name, bit) in RetryOn::NAMES {
            assert_eq!(RetryOn::parse(name), (*bit, vec![]));
        }
        let (on, unknown) = RetryOn::parse("5xx, reset,bogus");
        assert_eq!((on, unknown), (RetryOn::FIVE_XX.with(RetryOn::RESET), vec!["bogus"]));
    }
    // spec: RT-4
    #[test]
    fn a_response_may_ask_for_a_longer_wait() {
        let backoff = RateLimitedBackoff {
            headers: [("retry-after".into(), ResetFormat::Seconds), ("x-reset".into(), ResetFormat::UnixTimestamp)]
                .into(),
            max: Duration::from_secs(30),
        };
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let wait = |name: &str, value: &str| {
            let mut head = ResponseHead::new(429);
            head.headers.append(name.as_bytes(), value.as_bytes());
            backoff.wait(&head, now)
        };
        assert_eq!(wait("Retry-After", "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("x-reset", "1005"), Some(Duration::from_secs(5)));
        assert_eq!(wait("x-reset", "5"), None, "in the past");
        assert_eq!(wait("retry-after", "31"), None, "too long");
        assert_eq!(wait("retry-after", "Wed"), None);
    }
}
