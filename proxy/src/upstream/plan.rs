//! Whether a try is repeated: sans-IO, driven by events (spec 4.3, D3, D4).

use crate::env::Instant;
use crate::message::{Known, ResponseHead};
use crate::outcome::{Outcome, Reason};
use crate::route::{RetryOn, RetryPolicy};
use std::time::Duration;

/// Conditions that a request meets of which nothing was sent.
const UNREACHED: RetryOn = RetryOn::CONNECT_FAILURE.with(RetryOn::RESET_BEFORE_REQUEST);

/// What happened to the current try.
#[derive(Debug)]
pub enum Event<'a> {
    /// A final response head.
    Head(&'a ResponseHead),
    /// The head by which a proven peer's proxy says that its application has seen nothing of the request.
    Unreached(&'a ResponseHead),
    /// The try failed.
    Failed {
        /// Why.
        outcome: &'a Outcome,
        /// Nothing of the request was sent.
        unsent: bool,
        /// A connection died without a byte of answer that had served before, or whose end, the own application, has not read
        /// the request.
        stale: bool,
    },
    /// The try's own timeout passed.
    TryTimeout,
    /// The route's timeout passed.
    Deadline,
    /// The body is over the replay limit: no more retries.
    Spilled,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Pass the response on.
    Forward,
    /// Try again.
    Retry {
        /// Back-off.
        after: Duration,
        /// On a connection that nobody used before.
        fresh: bool,
        /// By the retry policy (counts against the retry limit), not by the safe replay of D3.
        by_policy: bool,
    },
    /// Give up.
    Fail(Outcome),
    /// Nothing changes.
    Continue,
}

/// The retry state of one request.
#[derive(Debug)]
pub struct Plan<'a> {
    policy: Option<&'a RetryPolicy>,
    idempotent: bool,
    replayed: bool,
    spilled: bool,
    retries: u32,
    deadline: Option<Instant>,
}

impl<'a> Plan<'a> {
    /// A plan before the first try. `idempotent`: the method may be repeated (RFC 9110 section 9.2.2).
    pub fn new(policy: Option<&'a RetryPolicy>, idempotent: bool) -> Self {
        Self { policy, idempotent, replayed: false, spilled: false, retries: 0, deadline: None }
    }

    /// Whether the body must be kept for another try.
    pub fn may_retry(&self) -> bool {
        !self.spilled && (self.policy.is_some_and(|p| self.retries < p.num_retries) || !self.replayed)
    }

    /// Retries by policy so far.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// How long a try may take.
    pub fn try_limit(&self) -> Option<Duration> {
        self.policy.and_then(|policy| policy.per_try_timeout)
    }

    /// Says when the whole request times out: known once the request has arrived as a whole.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// When the whole request times out.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether retries were allowed and are used up: the flag `URX`.
    pub fn exhausted(&self) -> bool {
        self.retries > 0 && self.policy.is_some_and(|p| self.retries >= p.num_retries)
    }

    /// Takes an event; `random` in 0..1 spreads the back-off.
    pub fn handle(&mut self, event: Event<'_>, now: Instant, random: f64) -> Action {
        match event {
            Event::Spilled => {
                self.spilled = true;
                Action::Continue
            }
            Event::Deadline => Action::Fail(Reason::RouteTimeout.into()),
            Event::Head(head) if self.wants(conditions_of(head), Some(head)) => {
                self.again(now, random).unwrap_or(Action::Forward)
            }
            // An application that ends closes its port before all have heard that its pod is leaving.
            Event::Unreached(head) if self.wants(conditions_of(head).with(UNREACHED), Some(head)) => {
                self.again(now, random).unwrap_or(Action::Forward)
            }
            Event::Head(_) | Event::Unreached(_) => Action::Forward,
            Event::TryTimeout => {
                let on = RetryOn::FIVE_XX.with(RetryOn::RESET).with(RetryOn::GATEWAY_ERROR);
                let retry = self.wants(on, None).then(|| self.again(now, random)).flatten();
                retry.unwrap_or_else(|| Action::Fail(Reason::PerTryTimeout.into()))
            }
            Event::Failed { outcome, unsent, stale } => self.failed(outcome, (unsent, stale), now, random),
        }
    }

    fn failed(&mut self, outcome: &Outcome, (unsent, stale): (bool, bool), now: Instant, random: f64) -> Action {
        // D3: nobody read the request, most likely. Once, on a fresh connection, where repeating is harmless.
        if stale && !self.replayed && !self.spilled && (self.idempotent || unsent) {
            self.replayed = true;
            return Action::Retry { after: Duration::ZERO, fresh: true, by_policy: false };
        }
        let on = match outcome.reason {
            Reason::ConnectFailure | Reason::ConnectTimeout => UNREACHED.with(RetryOn::FIVE_XX).with(RetryOn::RESET),
            Reason::UpstreamRefused => {
                RetryOn::REFUSED_STREAM.with(RetryOn::FIVE_XX).with(RetryOn::RESET).with(RetryOn::RESET_BEFORE_REQUEST)
            }
            Reason::UpstreamClosed | Reason::UpstreamReset => {
                let reset = RetryOn::RESET.with(RetryOn::FIVE_XX).with(RetryOn::GATEWAY_ERROR);
                if unsent { reset.with(RetryOn::RESET_BEFORE_REQUEST) } else { reset }
            }
            Reason::UpstreamProtocol => RetryOn::RESET.with(RetryOn::FIVE_XX),
            _ => RetryOn::default(),
        };
        let retry = self.wants(on, None).then(|| self.again(now, random)).flatten();
        retry.unwrap_or_else(|| Action::Fail(outcome.clone()))
    }

    fn wants(&self, on: RetryOn, head: Option<&ResponseHead>) -> bool {
        let Some(policy) = self.policy else { return false };
        let by_code = head.is_some_and(|head| {
            policy.on.has(RetryOn::RETRIABLE_STATUS_CODES) && policy.status_codes.contains(&head.status)
        });
        let by_header = policy.on.has(RetryOn::RETRIABLE_HEADERS)
            && head.is_some_and(|head| policy.retriable_headers.iter().any(|m| m.matches_headers(&head.headers)));
        let overloaded = head.is_some_and(|head| head.headers.contains(Known::XEnvoyOverloaded));
        !overloaded && (policy.on.has(on) || by_code || by_header)
    }

    fn again(&mut self, now: Instant, random: f64) -> Option<Action> {
        let policy = self.policy?;
        if self.spilled || self.retries >= policy.num_retries {
            return None;
        }
        self.retries += 1;
        // RT-4: full jitter below (2^n - 1) x base, capped.
        let factor = f64::from(2_u32.saturating_pow(self.retries.min(20)) - 1);
        let after = policy.backoff_base.mul_f64(factor).min(policy.backoff_max).mul_f64(random);
        if self.deadline.is_some_and(|deadline| now + after >= deadline) {
            return None;
        }
        Some(Action::Retry { after, fresh: false, by_policy: true })
    }
}

/// The conditions that an answer meets.
fn conditions_of(head: &ResponseHead) -> RetryOn {
    let mut on = RetryOn::default();
    if (500..600).contains(&head.status) {
        on = on.with(RetryOn::FIVE_XX);
    }
    if matches!(head.status, 502..=504) {
        on = on.with(RetryOn::GATEWAY_ERROR);
    }
    if head.status == 409 {
        on = on.with(RetryOn::RETRIABLE_4XX);
    }
    if head.headers.contains(Known::XEnvoyRatelimited) {
        on = on.with(RetryOn::ENVOY_RATELIMITED);
    }
    match head.headers.get(Known::GrpcStatus) {
        Some(b"1") => on.with(RetryOn::GRPC_CANCELLED),
        Some(b"4") => on.with(RetryOn::GRPC_DEADLINE_EXCEEDED),
        Some(b"8") => on.with(RetryOn::GRPC_RESOURCE_EXHAUSTED),
        Some(b"13") => on.with(RetryOn::GRPC_INTERNAL),
        Some(b"14") => on.with(RetryOn::GRPC_UNAVAILABLE),
        _ => on,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::matcher::HeaderMatcher;

    fn policy(on: &str, num_retries: u32) -> RetryPolicy {
        RetryPolicy { on: RetryOn::parse(on).0, num_retries, ..RetryPolicy::default() }
    }

    fn head(status: u16, grpc: Option<&[u8]>) -> ResponseHead {
        let mut head = ResponseHead::new(status);
        if let Some(code) = grpc {
            head.headers.append_known(Known::GrpcStatus, code);
        }
        head
    }

    fn retries_head(on: &str, head: &ResponseHead) -> bool {
        let policy = policy(on, 1);
        let action = Plan::new(Some(&policy), true).handle(Event::Head(head), Instant::now(), 0.5);
        matches!(action, Action::Retry { .. })
    }

    fn retries_failure(on: &str, reason: Reason, unsent: bool) -> bool {
        let (policy, outcome) = (policy(on, 1), Outcome::from(reason));
        let event = Event::Failed { outcome: &outcome, unsent, stale: false };
        matches!(Plan::new(Some(&policy), true).handle(event, Instant::now(), 0.5), Action::Retry { .. })
    }

    // spec: F30
    #[test]
    fn a_request_that_the_application_never_saw_is_tried_again_where_a_failed_connection_is() {
        let (refused, now) = (head(503, None), Instant::now());
        for (on, again) in
            [("connect-failure", true), ("reset-before-request", true), ("5xx", true), ("cancelled", false)]
        {
            let policy = policy(on, 1);
            let mut plan = Plan::new(Some(&policy), false);
            let first = plan.handle(Event::Unreached(&refused), now, 0.5);
            assert_eq!(matches!(first, Action::Retry { by_policy: true, .. }), again, "{on}");
            assert_eq!(plan.handle(Event::Unreached(&refused), now, 0.5), Action::Forward, "{on}: the limit holds");
        }
        assert!(!retries_head("connect-failure", &refused), "what the application itself says is not tried again");
    }

    // spec: RT-1, VS-28
    #[test]
    fn http_conditions_decide() {
        assert!(retries_head("5xx", &head(500, None)) && !retries_head("5xx", &head(404, None)));
        assert!(retries_head("gateway-error", &head(503, None)) && !retries_head("gateway-error", &head(500, None)));
        assert!(retries_head("retriable-4xx", &head(409, None)) && !retries_head("retriable-4xx", &head(404, None)));
        let codes = RetryPolicy { status_codes: [418].into(), ..policy("retriable-status-codes", 1) };
        let now = Instant::now();
        let retry = |status| Plan::new(Some(&codes), true).handle(Event::Head(&head(status, None)), now, 0.0);
        assert!(matches!(retry(418), Action::Retry { .. }));
        assert_eq!(retry(503), Action::Forward);
        let again = proto::envoy::route::HeaderMatcher { name: "x-again".into(), ..Default::default() };
        let named = RetryPolicy {
            retriable_headers: [HeaderMatcher::parse(&again).unwrap()].into(),
            ..policy("retriable-headers", 1)
        };
        let mut asks = head(200, None);
        let retry = |head: &ResponseHead| Plan::new(Some(&named), true).handle(Event::Head(head), now, 0.0);
        assert_eq!(retry(&asks), Action::Forward);
        asks.headers.append(b"x-again", b"1");
        assert!(matches!(retry(&asks), Action::Retry { .. }));
        assert!(retries_failure("connect-failure", Reason::ConnectFailure, true));
        assert!(!retries_failure("connect-failure", Reason::UpstreamClosed, false));
        assert!(retries_failure("refused-stream", Reason::UpstreamRefused, true));
        assert!(retries_failure("reset", Reason::UpstreamClosed, false));
        assert!(retries_failure("reset-before-request", Reason::UpstreamClosed, true));
        assert!(!retries_failure("reset-before-request", Reason::UpstreamClosed, false));
        assert!(retries_failure("5xx", Reason::UpstreamClosed, false));
        for on in ["5xx", "reset", "reset-before-request"] {
            assert!(retries_failure(on, Reason::ConnectFailure, true), "{on} includes a failed connect");
            assert!(retries_failure(on, Reason::ConnectTimeout, true), "{on} includes a connect that takes too long");
            assert!(retries_failure(on, Reason::UpstreamRefused, true), "{on} includes a refused stream");
        }
        for on in ["gateway-error", "retriable-4xx", "unavailable"] {
            assert!(!retries_failure(on, Reason::ConnectFailure, true), "{on}");
        }
        assert!(retries_failure("gateway-error", Reason::UpstreamReset, false));
        assert!(retries_failure("connect-failure", Reason::ConnectTimeout, true));
        assert!(!retries_failure("5xx", Reason::Overflow, true), "a breaker's refusal is not asked again");
        let mut overloaded = head(503, None);
        overloaded.headers.append_known(Known::XEnvoyOverloaded, b"true");
        assert!(!retries_head("5xx", &overloaded));
    }

    // spec: RT-2
    #[test]
    fn grpc_conditions_read_the_status_in_the_headers() {
        let rows = [
            ("cancelled", "1"),
            ("deadline-exceeded", "4"),
            ("resource-exhausted", "8"),
            ("internal", "13"),
            ("unavailable", "14"),
        ];
        for (on, code) in rows {
            assert!(retries_head(on, &head(200, Some(code.as_bytes()))), "{on}");
            assert!(!retries_head(on, &head(200, Some(b"0"))), "{on}");
        }
    }

    // spec: RT-3, RT-5, VS-26, LR-7, LR-8
    #[test]
    fn retries_end_with_their_number_the_deadline_or_a_spilled_body() {
        let policy = policy("5xx", 2);
        let now = Instant::now();
        let bad = head(503, None);
        let mut plan = Plan::new(Some(&policy), true);
        assert!(matches!(plan.handle(Event::Head(&bad), now, 0.5), Action::Retry { .. }) && !plan.exhausted());
        assert!(matches!(plan.handle(Event::Head(&bad), now, 0.5), Action::Retry { .. }) && plan.exhausted());
        assert_eq!(plan.handle(Event::Head(&bad), now, 0.5), Action::Forward);
        let mut plan = Plan::new(Some(&policy), true);
        assert_eq!(plan.handle(Event::Spilled, now, 0.5), Action::Continue);
        assert!(!plan.may_retry());
        assert_eq!(plan.handle(Event::Head(&bad), now, 0.5), Action::Forward);
        let mut plan = Plan::new(Some(&policy), true);
        plan.set_deadline(now + Duration::from_millis(5));
        assert_eq!(plan.handle(Event::Head(&bad), now, 0.9), Action::Forward);
        assert_eq!(plan.handle(Event::Deadline, now, 0.0), Action::Fail(Reason::RouteTimeout.into()));
        let mut plan = Plan::new(None, true);
        assert_eq!(plan.handle(Event::TryTimeout, now, 0.0), Action::Fail(Reason::PerTryTimeout.into()));
    }

    // spec: RT-4, VS-31
    #[test]
    fn backoff_is_jittered_and_capped() {
        let policy = policy("5xx", 10);
        let now = Instant::now();
        let mut plan = Plan::new(Some(&policy), true);
        let expected_ms = [25, 75, 175, 250, 250];
        for limit in expected_ms {
            let Action::Retry { after, .. } = plan.handle(Event::Head(&head(500, None)), now, 1.0) else {
                panic!("no retry")
            };
            assert_eq!(after, Duration::from_millis(limit));
        }
        let Action::Retry { after, .. } = plan.handle(Event::Head(&head(500, None)), now, 0.0) else {
            panic!("no retry")
        };
        assert_eq!(after, Duration::ZERO);
    }

    #[test]
    fn a_stale_connection_is_replayed_once_and_only_where_harmless() {
        let outcome = Outcome::from(Reason::UpstreamClosed);
        let now = Instant::now();
        let event = |unsent| Event::Failed { outcome: &outcome, unsent, stale: true };
        let mut plan = Plan::new(None, true);
        assert_eq!(
            plan.handle(event(false), now, 0.0),
            Action::Retry { after: Duration::ZERO, fresh: true, by_policy: false }
        );
        assert_eq!(plan.handle(event(false), now, 0.0), Action::Fail(outcome.clone()));
        let mut post = Plan::new(None, false);
        assert_eq!(post.handle(event(false), now, 0.0), Action::Fail(outcome.clone()));
        let mut post = Plan::new(None, false);
        assert!(matches!(post.handle(event(true), now, 0.0), Action::Retry { fresh: true, .. }));
    }
}
