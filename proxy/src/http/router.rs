//! The router: route → cluster → tries → response (the end of every filter chain).

use super::downstream::Downstream;
use super::limits;
use super::log::{self, facts, millis};
use super::trace;
use crate::cluster::{Cluster, Failure, Upstream};
use crate::endpoint::{Limit, Permit, Verdict};
use crate::env::Instant;
use crate::filter::{StreamCx, plain};
use crate::message::{Body, Known, Request, RequestHead, Response, ResponseHead};
use crate::outcome::{Flags, Outcome, Reason, Side};
use crate::route::{Action as RouteAction, HostAvoidance, Mirror, Redirect, Route};
use crate::upstream::{Action, Ask, Event, Plan, Replay, attempt};
use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Sleep;

/// Request bodies are kept up to this size for another try (RT-3, D3).
const REPLAY_BYTES: usize = 64 << 10;

/// Forwards the request and gives back the response.
///
/// # Errors
/// Why there is none.
pub(super) async fn forward(cx: &StreamCx, rq: &mut Request, down: &mut Downstream) -> Result<Response, Outcome> {
    let route = cx.route(&rq.head).ok_or(Reason::NoRoute)?;
    let choice = match &route.action {
        RouteAction::Direct { status, body } => return Ok(direct(cx, route, rq, *status, body.clone())),
        RouteAction::Redirect(redirect) => return Ok(redirected(cx, route, rq, redirect)),
        _ => route.choose(&rq.head, cx.random).ok_or(Reason::NoRoute)?,
    };
    let cluster = cx.cluster(&choice.cluster).ok_or_else(|| {
        cx.info.borrow_mut().unknown_cluster = Some((&*choice.cluster).into());
        Reason::UnknownCluster
    })?;
    cx.info.borrow_mut().upstream = Some(Rc::clone(&cluster));
    if route.changes_request(&choice) {
        let (info, before) = (cx.info.borrow(), rq.head.clone());
        route.change_request(&choice, &mut rq.head, &facts(cx, &before, &info, None));
    }
    route.rewrite(&mut rq.head, choice.weighted.and_then(|weighted| weighted.host_rewrite.as_deref()));
    if route.append_x_forwarded_host
        && let Some(original) = rq.head.headers.get(Known::XEnvoyOriginalHost).map(<[u8]>::to_vec)
    {
        rq.head.headers.append_known(Known::XForwardedHost, &original);
    }
    let mut response = Tries::new(cx, route, cluster, rq).run(rq, down).await?;
    if response.head.status != 101 {
        crate::codec::bridge::strip_connection_headers(&mut response.head.headers);
    }
    if route.changes_response(Some(&choice)) {
        route.change_response(Some(&choice), &mut response.head, &facts(cx, &rq.head, &cx.info.borrow(), None));
    }
    Ok(response)
}

fn direct(cx: &StreamCx, route: &Route, rq: &Request, status: u16, body: bytes::Bytes) -> Response {
    cx.info.borrow_mut().details = Some(Cow::Borrowed("direct_response"));
    let mut response = plain(status, body, &rq.head);
    route.change_response(None, &mut response.head, &facts(cx, &rq.head, &cx.info.borrow(), None));
    response
}

fn redirected(cx: &StreamCx, route: &Route, rq: &Request, redirect: &Redirect) -> Response {
    cx.info.borrow_mut().details = Some(Cow::Borrowed("direct_response"));
    let mut head = ResponseHead::new(redirect.status);
    head.headers.append_known(Known::Location, &redirect.location(&rq.head));
    route.change_response(None, &mut head, &facts(cx, &rq.head, &cx.info.borrow(), None));
    Response { head, body: Body::Empty }
}

/// Headers that the route wants of answers, on one that this proxy made itself. Redirects and direct responses have them
/// already.
pub(super) fn finish_local(cx: &StreamCx, request: &RequestHead, head: &mut ResponseHead) {
    let Some(route) = cx.route(request) else { return };
    let choice = match &route.action {
        RouteAction::Direct { .. } | RouteAction::Redirect(_) => return,
        _ => route.choose(request, cx.random),
    };
    let attempts = cx.info.borrow().attempts;
    if route.attempt_count_in_response && attempts > 0 {
        head.headers.set(Known::XEnvoyAttemptCount, attempts.to_string().as_bytes());
    }
    if route.changes_response(choice.as_ref()) {
        route.change_response(choice.as_ref(), head, &facts(cx, request, &cx.info.borrow(), None));
    }
}

/// The tries of one request.
struct Tries<'a> {
    cx: &'a StreamCx,
    route: &'a Route,
    cluster: Rc<Cluster>,
    plan: Plan<'a>,
    ask: Ask,
    replay: Option<Rc<Replay>>,
    retry_permit: Option<Permit>,
    /// How long all tries may take, from the end of the request, but not from before the router had it: what filters
    /// waited for is not the upstream's fault (RT-5, as in Envoy).
    limit: Option<Duration>,
    began: Instant,
}

impl<'a> Tries<'a> {
    fn new(cx: &'a StreamCx, route: &'a Route, cluster: Rc<Cluster>, rq: &Request) -> Self {
        let idempotent = matches!(rq.head.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE");
        let avoid_attempts = match route.retry.as_ref().map(|policy| policy.avoid) {
            Some(HostAvoidance::PreviousHosts(picks)) => picks,
            _ => 0,
        };
        let version = cluster.upstream_version(rq.head.version);
        let ask = Ask {
            dialled: Some(cx.peer.local),
            high_priority: route.high_priority,
            avoid_attempts,
            leave_priorities_every: route.retry.as_ref().and_then(|policy| policy.priority_update_frequency),
            alpn: cx.alpn.borrow().as_ref().and_then(|alpn| alpn.offer(version)),
            ..Ask::default()
        };
        // `retriable_request_headers`: only requests that have one of them are tried again.
        let policy = route.retry.as_ref().filter(|policy| {
            policy.request_headers.is_empty() || policy.request_headers.iter().any(|m| m.matches_request(&rq.head))
        });
        let plan = Plan::new(policy, idempotent);
        let limit = limits::of_tries(&route.timeouts, &rq.head);
        let began = if cx.waited.get() { cx.now() } else { cx.start };
        let mut this = Self { cx, route, cluster, plan, ask, replay: None, retry_permit: None, limit, began };
        this.find_deadline();
        this
    }

    /// Sets the deadline, once the request has arrived as a whole.
    fn find_deadline(&mut self) {
        if self.plan.deadline().is_none()
            && let (Some(limit), Some(end)) = (self.limit, self.cx.request_end())
        {
            self.plan.set_deadline(end.max(self.began) + limit);
        }
    }

    async fn run(mut self, rq: &mut Request, down: &mut Downstream) -> Result<Response, Outcome> {
        let mut body = self.keep(rq);
        self.mirror(rq);
        let mut sent_at = self.began;
        loop {
            {
                let mut info = self.cx.info.borrow_mut();
                info.attempts += 1;
                info.upstream_start = Some(sent_at);
            }
            self.stamp(&mut rq.head, sent_at);
            trace::try_begins(self.cx, &mut rq.head, sent_at);
            let tried = self.one(&rq.head, body, sent_at, down).await;
            self.judge(&tried);
            trace::try_ended(self.cx, &self.cluster, sent_at, tried.status());
            self.find_deadline();
            let now = self.cx.now();
            let action = match tried {
                Tried::Head(head, upstream) => {
                    let unreached = log::is_unreached(&self.cx.info.borrow(), &head);
                    let event = if unreached { Event::Unreached(&head) } else { Event::Head(&head) };
                    let action = self.handle(event, now);
                    match action {
                        Action::Retry { after, fresh, by_policy } if self.can_rewind(by_policy) => {
                            drop(upstream);
                            self.cx.info.borrow_mut().reached |= !unreached;
                            let told = self.route.retry.as_ref().and_then(|policy| policy.rate_limited.as_ref());
                            let asked = told.and_then(|told| told.wait(&head, self.cx.facts.env.wall(now)));
                            Action::Retry { after: asked.unwrap_or(after), fresh, by_policy }
                        }
                        _ => return Ok(self.response(head, upstream, sent_at, now)),
                    }
                }
                Tried::Failed { outcome, unsent, stale, unread } => {
                    self.cx.info.borrow_mut().reached |= !(unsent || unread);
                    if let Some(detail) = &outcome.detail {
                        self.cx.info.borrow_mut().transport_failure = Some(detail.clone());
                    }
                    match self.handle(Event::Failed { outcome: &outcome, unsent, stale }, now) {
                        Action::Retry { by_policy, .. } if !self.can_rewind(by_policy) => Action::Fail(outcome),
                        action => action,
                    }
                }
                Tried::TryTimeout => {
                    self.cx.info.borrow_mut().reached = true;
                    match self.handle(Event::TryTimeout, now) {
                        Action::Retry { by_policy, .. } if !self.can_rewind(by_policy) => {
                            Action::Fail(Reason::PerTryTimeout.into())
                        }
                        action => action,
                    }
                }
                Tried::Deadline => self.handle(Event::Deadline, now),
            };
            match action {
                Action::Retry { after, fresh, .. } => {
                    self.ask.fresh = fresh;
                    if !after.is_zero() {
                        tokio::time::sleep(after).await;
                    }
                    body = self.rewound()?;
                    sent_at = self.cx.now();
                }
                Action::Fail(outcome) => return Err(self.fail(outcome)),
                Action::Forward | Action::Continue => return Err(Reason::Internal.into()),
            }
        }
    }

    /// Headers that tell the upstream of this try (HD-7, HD-8).
    fn stamp(&self, head: &mut RequestHead, now: Instant) {
        let mut digits = itoa::Buffer::new();
        if self.route.attempt_count_in_request {
            let attempts = self.cx.info.borrow().attempts;
            head.headers.set(Known::XEnvoyAttemptCount, digits.format(attempts).as_bytes());
        }
        let whole = self.plan.deadline().map(|end| end.saturating_duration_since(now)).or(self.limit);
        if let Some(left) = whole.into_iter().chain(self.plan.try_limit()).min() {
            // Rounded up: the first try has the whole time, as Envoy tells it.
            let left = left + Duration::from_micros(999);
            head.headers.set(Known::XEnvoyExpectedRqTimeoutMs, digits.format(millis(left)).as_bytes());
        }
    }

    /// Notes what the try says of its endpoint (LB-13).
    fn judge(&self, tried: &Tried) {
        let (Some(outlier), Some(endpoint)) = (&self.cluster.config.outlier, self.ask.tried.last()) else { return };
        let verdict = match tried {
            Tried::Head(head, _) if matches!(head.status, 502..=504) => Verdict::GatewayError,
            Tried::Head(head, _) if head.status >= 500 => Verdict::ServerError,
            Tried::Head(..) => Verdict::Good,
            Tried::Failed { outcome, .. } if outcome.reason.side() == Side::Upstream => Verdict::LocalError,
            Tried::TryTimeout | Tried::Deadline => Verdict::LocalError,
            Tried::Failed { .. } => return,
        };
        let now_ms = self.cx.facts.clock.now_ms();
        if outlier.note(endpoint, &self.cluster.hosts(), verdict, now_ms) {
            tracing::info!(cluster = &*self.cluster.config.name, endpoint = %endpoint.address, "endpoint ejected");
            self.cluster.refresh(now_ms);
        }
    }

    /// Puts a replay between the request's body and the upstream where another try or a copy may need it.
    fn keep(&mut self, rq: &mut Request) -> Body {
        let body = std::mem::replace(&mut rq.body, Body::Empty);
        if body.is_empty() {
            return body;
        }
        let limit = self.route.replay_limit_bytes.and_then(|n| usize::try_from(n).ok()).unwrap_or(REPLAY_BYTES);
        let replay = Replay::new(body, limit);
        let first = replay.rewind().unwrap_or(Body::Empty);
        self.replay = Some(replay);
        first
    }

    fn mirror(&self, rq: &Request) {
        for mirror in &self.route.mirrors {
            if !self.cx.facts.env.chance(mirror.numerator, mirror.denominator) {
                continue;
            }
            let Some(cluster) = self.cx.cluster(&mirror.cluster) else { continue };
            let body = match &self.replay {
                Some(replay) if !rq.head.wants_tunnel() => replay.tee().unwrap_or(Body::Empty),
                _ => Body::Empty,
            };
            let copy = Request { head: shadow(&rq.head, mirror), body };
            tokio::task::spawn_local(copy_request(cluster, copy));
        }
    }

    /// One try, begun at `now`, within its time limits: they run from the end of the request.
    async fn one(&mut self, head: &RequestHead, body: Body, now: Instant, down: &mut Downstream) -> Tried {
        let (cx, began, known) = (self.cx, self.began, self.plan.deadline());
        let (limit, try_limit) = (self.limit, self.plan.try_limit());
        let mut exchange = pin!(self.exchange(head, body, down));
        if limit.is_none() && try_limit.is_none() {
            return exchange.await;
        }
        let (mut timer, mut over) = (pin!(None::<Sleep>), Tried::Deadline);
        poll_fn(|task| {
            if let Poll::Ready(tried) = exchange.as_mut().poll(task) {
                return Poll::Ready(tried);
            }
            if timer.is_none()
                && let Some(end) = cx.request_end()
            {
                let all = known.or_else(|| limit.map(|limit| end.max(began) + limit));
                let this = try_limit.map(|limit| end.max(now) + limit);
                if this.is_some_and(|this| all.is_none_or(|all| this < all)) {
                    over = Tried::TryTimeout;
                }
                timer.set(all.into_iter().chain(this).min().map(tokio::time::sleep_until));
            }
            let Some(sleep) = timer.as_mut().as_pin_mut() else { return Poll::Pending };
            sleep.poll(task).map(|()| std::mem::replace(&mut over, Tried::Deadline))
        })
        .await
    }

    /// A connection that dies without a byte of answer is stale where it had served before (D3), and towards the own
    /// application where that has read nothing of it: one that ends closes its port, and whoever waits there to be accepted
    /// is cut off unseen.
    fn failed(&self, failure: Failure) -> Tried {
        let Failure { outcome, unsent, silent, reused, unread } = failure;
        let stale = silent && (reused || self.cx.inbound && (unsent || unread));
        Tried::Failed { outcome, unsent, stale, unread }
    }

    async fn exchange(&mut self, head: &RequestHead, body: Body, down: &mut Downstream) -> Tried {
        let opened = attempt(&self.cluster, head, body, &mut self.ask).await;
        if let Some(endpoint) = self.ask.tried.last() {
            self.cx.info.borrow_mut().endpoint = Some(Arc::clone(endpoint));
        }
        let mut upstream = match opened {
            Ok(upstream) => upstream,
            Err(failure) => {
                return self.failed(failure);
            }
        };
        {
            let mut info = self.cx.info.borrow_mut();
            info.upstream_local = upstream.local();
            info.upstream_identity = upstream.peer_id();
        }
        loop {
            match poll_fn(|task| upstream.poll_head(task)).await {
                Ok(head) if head.is_interim() => {
                    if let Err(outcome) = down.interim(head).await {
                        return Tried::Failed { outcome, unsent: false, stale: false, unread: false };
                    }
                }
                Ok(head) => return Tried::Head(head, upstream),
                Err(outcome) => {
                    return self.failed(upstream.failure(outcome));
                }
            }
        }
    }

    fn handle(&mut self, event: Event<'_>, now: Instant) -> Action {
        if self.replay.as_ref().is_some_and(|replay| replay.spilled()) {
            self.plan.handle(Event::Spilled, now, 0.0);
        }
        let random = self.cx.facts.env.below(1 << 32) as f64 / (1_u64 << 32) as f64;
        self.plan.handle(event, now, random)
    }

    /// Whether the body can be sent again and the retry limit has room.
    fn can_rewind(&mut self, by_policy: bool) -> bool {
        if self.replay.as_ref().is_some_and(|replay| replay.spilled()) {
            return false;
        }
        self.retry_permit = None;
        if by_policy {
            let limits = &self.cluster.config.limits[usize::from(self.route.high_priority)];
            match limits.take(Limit::Retries) {
                Ok(permit) => self.retry_permit = Some(permit),
                Err(_) => return false,
            }
        }
        true
    }

    fn rewound(&self) -> Result<Body, Outcome> {
        match &self.replay {
            None => Ok(Body::Empty),
            Some(replay) => replay.rewind().ok_or_else(|| Reason::Internal.into()),
        }
    }

    fn fail(&self, outcome: Outcome) -> Outcome {
        if let Some(replay) = &self.replay {
            replay.abandon();
        }
        if self.plan.exhausted() {
            self.cx.info.borrow_mut().flags.insert(Flags::URX);
        }
        let limit = match outcome.reason {
            Reason::RouteTimeout => self.limit.map(|limit| ("timeout_ms", limit)),
            Reason::PerTryTimeout => self.plan.try_limit().map(|limit| ("per_try_timeout_ms", limit)),
            Reason::ConnectTimeout => Some(("connect_timeout_ms", self.cluster.config.connect_timeout)),
            _ => None,
        };
        match limit {
            Some((name, limit)) => outcome.over(name, millis(limit)),
            None => outcome,
        }
    }

    fn response(&self, mut head: ResponseHead, upstream: Upstream, sent_at: Instant, now: Instant) -> Response {
        if let Some(replay) = &self.replay {
            replay.commit();
        }
        let mut info = self.cx.info.borrow_mut();
        log::told(self.cx, &mut info, &mut head);
        info.response_start = Some(now);
        info.details = Some(Cow::Borrowed("via_upstream"));
        if self.plan.exhausted() && head.status >= 500 {
            info.flags.insert(Flags::URX);
        }
        let mut digits = itoa::Buffer::new();
        let took = millis(now.saturating_duration_since(sent_at));
        head.headers.set(Known::XEnvoyUpstreamServiceTime, digits.format(took).as_bytes());
        if self.route.attempt_count_in_response {
            head.headers.set(Known::XEnvoyAttemptCount, digits.format(info.attempts).as_bytes());
        }
        Response { head, body: upstream.into_body(now) }
    }
}

enum Tried {
    Head(ResponseHead, Upstream),
    Failed { outcome: Outcome, unsent: bool, stale: bool, unread: bool },
    TryTimeout,
    Deadline,
}

impl Tried {
    /// Status of the answer, where there is one.
    fn status(&self) -> Option<u16> {
        match self {
            Self::Head(head, _) => Some(head.status),
            Self::Failed { .. } | Self::TryTimeout | Self::Deadline => None,
        }
    }
}

fn shadow(head: &RequestHead, mirror: &Mirror) -> RequestHead {
    let mut copy = head.clone();
    if mirror.host_suffix {
        let host = [copy.authority(), b"-shadow"].concat();
        copy.set_authority(&host);
    }
    copy
}

/// Sends a copy and drops the answer.
async fn copy_request(cluster: Rc<Cluster>, rq: Request) {
    let Ok(mut upstream) = attempt(&cluster, &rq.head, rq.body, &mut Ask::default()).await else { return };
    let head = poll_fn(|task| match upstream.poll_head(task) {
        Poll::Ready(Ok(head)) if head.is_interim() => {
            task.waker().wake_by_ref();
            Poll::Pending
        }
        other => other,
    })
    .await;
    if head.is_ok() {
        let mut body = upstream.into_body(Instant::now());
        while let Some(Ok(_)) = body.frame().await {}
    }
}
