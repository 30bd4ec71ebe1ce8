//! One request through filters, route, tries and back.

use super::config::HcmConfig;
use super::downstream::{Downstream, Sent, Watch};
use super::headers::finish_response;
use super::limits::Limits;
use super::rounds::Rounds;
use super::{forwarded, log, normalize, request_id, router, trace};
use crate::drain::Drain;
use crate::env::Instant;
use crate::filter::{
    End, Facts, Filter, FilterState, Pulled, Received, StreamCx, Verdict, is_grpc, plain, reply, request_half,
    response_half,
};
use crate::message::{Body, Frame, Known, Request, RequestHead, Response, ResponseHead, Source};
use crate::net::PeerFacts;
use crate::outcome::{Outcome, Reason};
use crate::route::RouteTable;
use crate::telemetry::Cells;
use crate::telemetry::names::HttpMetric;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a connection manager knows (`HttpConnectionManager`), on one worker.
#[derive(Debug)]
pub struct Settings {
    /// What is configured.
    pub config: Arc<HcmConfig>,
    /// Clock, clusters.
    pub facts: Rc<Facts>,
    /// The current route table; a stream pins the one it started with.
    pub routes: RefCell<Arc<RouteTable>>,
    /// The listener takes traffic of the workload's clients, not its own.
    pub inbound: bool,
    /// Its connections, and whether they are to leave.
    pub drain: Rc<Drain>,
    /// Its statistics.
    pub(super) stats: Rc<Cells<HttpMetric>>,
    /// Its open gRPC streams.
    rounds: Rc<Rounds>,
}

impl Settings {
    /// Settings of one connection manager; `routes` is replaced as RDS brings others.
    pub fn new(config: Arc<HcmConfig>, facts: Rc<Facts>, routes: Arc<RouteTable>, inbound: bool) -> Self {
        let stats = facts.stats.http(&config.stat_prefix);
        Self {
            config,
            facts,
            routes: RefCell::new(routes),
            inbound,
            drain: Rc::default(),
            stats,
            rounds: Rc::default(),
        }
    }

    /// Whether a connection that has had so many requests since its first byte, at `since`, is to end (HP-6).
    pub(super) fn ends(&self, requests: u32, since: Instant) -> bool {
        let config = &self.config;
        (config.max_requests_per_connection > 0 && requests >= config.max_requests_per_connection)
            || config.max_connection_duration.is_some_and(|limit| since + limit <= self.facts.env.now())
    }

    /// Whether a request may upgrade to `protocol`.
    pub fn allows_upgrade(&self, protocol: &[u8]) -> bool {
        self.config.upgrades.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(protocol))
    }

    /// Waits for a head within the connection's idle timeout; running into it is a quiet end.
    pub(super) async fn await_head<T>(
        &self,
        head: impl Future<Output = Result<Option<T>, Outcome>>,
    ) -> Result<Option<T>, Outcome> {
        match self.config.idle_timeout {
            None => head.await,
            Some(limit) => tokio::time::timeout(limit, head).await.unwrap_or(Ok(None)),
        }
    }
}

/// What one stream owns while it is worked on; survives the work being cut short.
struct Work {
    request: Request,
    states: SmallVec<[FilterState; 8]>,
    response: Option<ResponseHead>,
    sent: Sent,
}

/// Serves one request and logs it. Gives back why the stream ended: exactly once per request.
#[expect(clippy::too_many_arguments, reason = "a request and what it is served by")]
pub async fn serve_stream(
    settings: &Rc<Settings>,
    chain: &Arc<[Filter]>,
    peer: &Rc<PeerFacts>,
    request: Request,
    down: &mut Downstream,
    start: Instant,
) -> Outcome {
    let table = Arc::clone(&settings.routes.borrow());
    let mut cx = StreamCx::new(&settings.facts, peer, table, start);
    cx.inbound = settings.inbound;
    let states = chain.iter().map(|_| FilterState::None).collect();
    let mut work = Work { request, states, response: None, sent: Sent::default() };
    let client = forwarded::client(&work.request.head, &settings.config);
    let answered = arrive(settings, &cx, &mut work.request);
    if let Some(client) = client {
        cx.peer = Rc::new(PeerFacts { remote: SocketAddr::new(client, 0), ..PeerFacts::clone(peer) });
    }
    if settings.facts.taps.opens() {
        log::began(&cx, &work.request.head);
    }
    if let Some(response) = answered {
        let outcome = match answer(settings, &cx, &mut work, response, down).await {
            Ok(()) => Reason::Complete.into(),
            Err(gone) => gone,
        };
        finish(settings, chain, &cx, &mut work, &outcome);
        return outcome;
    }
    let watch = down.watch();
    let limits = Limits::of(&settings.config, &cx, &work.request.head);
    let period = if is_grpc(&work.request.head) { chain.iter().find_map(Filter::period) } else { None };
    let mut outcome = {
        let running = pin!(drive(settings, chain, &cx, &mut work, down));
        let running = periodic((period, &settings.rounds), chain, &cx, running);
        limited(limits, &cx, watch, pin!(running)).await
    };
    if outcome.reason != Reason::Complete && outcome.reason != Reason::DownstreamGone && !down.started() {
        cx.note(outcome.clone());
        let mut response = reply(&outcome, &work.request.head);
        router::finish_local(&cx, &work.request.head, &mut response.head);
        if let Err(gone) = answer(settings, &cx, &mut work, response, down).await {
            outcome = gone;
        }
    } else if outcome.reason != Reason::Complete {
        cx.note(outcome.clone());
    }
    finish(settings, chain, &cx, &mut work, &outcome);
    outcome
}

/// Runs the work, and tells the filters now and then that a gRPC stream goes on.
async fn periodic(
    (period, rounds): (Option<Duration>, &Rc<Rounds>),
    chain: &[Filter],
    cx: &StreamCx,
    running: Pin<&mut impl Future<Output = Outcome>>,
) -> Outcome {
    match period {
        None => running.await,
        Some(period) => rounds.attend(period, || chain.iter().for_each(|filter| filter.on_period(cx)), running).await,
    }
}

/// Runs the work under the stream's time limits and a watch on the client. A panic ends this stream alone.
async fn limited(
    limits: Limits,
    cx: &StreamCx,
    mut watch: Watch,
    mut running: Pin<&mut impl Future<Output = Outcome>>,
) -> Outcome {
    let work = poll_fn(|task| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(task)));
        match polled {
            Ok(Poll::Ready(outcome)) => return Poll::Ready(outcome),
            Ok(Poll::Pending) => {}
            Err(_panic) => return Poll::Ready(Reason::Internal.into()),
        }
        watch.poll_gone(task).map(|()| Reason::DownstreamGone.into())
    });
    if limits.idle.is_none() && limits.life.is_none() {
        return work.await;
    }
    let mut work = pin!(work);
    loop {
        let idle = limits.idle.map(|limit| cx.active.get() + limit);
        let life = limits.life.map(|limit| cx.start + limit);
        let Some(until) = idle.into_iter().chain(life).min() else { return work.await };
        if let Ok(outcome) = tokio::time::timeout_at(until, work.as_mut()).await {
            return outcome;
        }
        let now = cx.now();
        if let Some(limit) = limits.life.filter(|limit| cx.start + *limit <= now) {
            return Outcome::from(Reason::MaxDuration).over("max_stream_duration_ms", log::millis(limit));
        }
        if let Some(limit) = limits.idle.filter(|limit| cx.active.get() + *limit <= now) {
            let complete = cx.request_end().is_some();
            let reason = if complete { Reason::IdleTimeout } else { Reason::RequestIdleTimeout };
            return Outcome::from(reason).over("stream_idle_timeout_ms", log::millis(limit));
        }
    }
}

async fn drive(
    settings: &Settings,
    chain: &[Filter],
    cx: &StreamCx,
    work: &mut Work,
    down: &mut Downstream,
) -> Outcome {
    let verdict = request_half(chain, &mut work.states, &mut work.request, cx).await;
    let mut response = match verdict {
        Verdict::Reply(mut response) => {
            // A filter's own protocol (CORS) is no local reply.
            if cx.info.borrow().outcome.is_some() {
                router::finish_local(cx, &work.request.head, &mut response.head);
            }
            *response
        }
        Verdict::Continue => match router::forward(cx, &mut work.request, down).await {
            Ok(response) => response,
            Err(outcome) if outcome.reason == Reason::DownstreamGone => return outcome,
            Err(outcome) => {
                cx.note(outcome.clone());
                let retried = cx.info.borrow().attempts > 1;
                let mut response = reply(&outcome, &work.request.head);
                if retried && outcome.reason.reset_text().is_some() {
                    let head = response.head;
                    response = plain(head.status, outcome.body(true), &work.request.head);
                }
                router::finish_local(cx, &work.request.head, &mut response.head);
                response
            }
        },
    };
    response_half(chain, &mut work.states, &mut response, cx).await;
    match answer(settings, cx, work, response, down).await {
        Ok(()) => Reason::Complete.into(),
        Err(outcome) => outcome,
    }
}

/// Sends a response with the connection manager's headers.
async fn answer(
    settings: &Settings,
    cx: &StreamCx,
    work: &mut Work,
    mut response: Response,
    down: &mut Downstream,
) -> Result<(), Outcome> {
    let answered = cx.info.borrow().response_start;
    let now = answered.unwrap_or_else(|| cx.now());
    finish_response(&mut response.head, &settings.config.server, &cx.facts.env, now);
    if settings.config.request_id_in_response
        && let Some(id) = work.request.head.headers.get(Known::XRequestId)
    {
        response.head.headers.set(Known::XRequestId, id);
    }
    trace::answered(cx, &work.request.head, &mut response.head);
    log::tell_peer(cx, &work.request.head, &mut response.head);
    let head = work.response.insert(response.head);
    cx.info.borrow_mut().header_bytes_sent = head.headers.size_bytes() as u64;
    let result = {
        let mut sending = pin!(down.send(head, response.body, &mut work.sent));
        poll_fn(|task| {
            let polled = sending.as_mut().poll(task);
            if polled.is_pending() {
                cx.waited.set(true);
            }
            polled
        })
        .await
    };
    // What is sent at once has taken no time that is worth a look at the clock.
    let ended = if cx.waited.get() { cx.now() } else { now };
    let mut info = cx.info.borrow_mut();
    info.bytes_sent = work.sent.body_bytes;
    info.trailers = work.sent.trailers.take();
    info.response_end = Some(ended);
    result
}

/// What the connection manager does to a request before the filters see it; an answer where it goes no further.
pub fn arrive(settings: &Settings, cx: &StreamCx, rq: &mut Request) -> Option<Response> {
    let config = &settings.config;
    cx.info.borrow_mut().header_bytes_received = rq.head.headers.size_bytes() as u64;
    match normalize::request(&mut rq.head, config) {
        normalize::Verdict::Continue => {}
        normalize::Verdict::Redirect(path) => {
            let mut head = ResponseHead::new(307);
            head.headers.append_known(Known::Location, &path);
            return Some(Response { head, body: Body::Empty });
        }
        normalize::Verdict::Refuse(outcome) => {
            cx.note(outcome.clone());
            return Some(reply(&outcome, &rq.head));
        }
    }
    forwarded::request(&mut rq.head, config, cx);
    request_id::request(&mut rq.head, config, &cx.facts.env);
    if let Some(tracing) = &config.tracing {
        trace::begin(tracing, config.request_id_reason, cx, &mut rq.head);
    }
    let body = std::mem::replace(&mut rq.body, Body::Empty);
    (rq.body, cx.info.borrow_mut().received) = match body {
        Body::Empty => (Body::Empty, Received::Whole(0)),
        Body::Full(bytes) => {
            let received = Received::Whole(bytes.len() as u64);
            (Body::Full(bytes), received)
        }
        Body::Source(body) => {
            let pulled = Rc::new(Pulled::default());
            (Body::source(Noted { body, pulled: Rc::clone(&pulled) }), Received::Streamed(pulled))
        }
    };
    None
}

/// A streamed body that notes what is pulled.
struct Noted {
    body: Box<dyn Source>,
    pulled: Rc<Pulled>,
}

impl Source for Noted {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        let polled = self.body.poll_frame(cx);
        let ended = match &polled {
            Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                self.pulled.bytes.set(self.pulled.bytes.get() + data.len() as u64);
                self.body.length() == Some(0)
            }
            Poll::Ready(Some(Ok(Frame::Trailers(_))) | None) => true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if ended && self.pulled.ended.get().is_none() {
            self.pulled.ended.set(Some(Instant::now()));
        }
        polled
    }

    fn length(&self) -> Option<u64> {
        self.body.length()
    }
}

fn finish(settings: &Settings, chain: &[Filter], cx: &StreamCx, work: &mut Work, outcome: &Outcome) {
    let end = End { outcome, request: &work.request.head, response: work.response.as_ref() };
    for (filter, state) in chain.iter().zip(&mut work.states) {
        filter.on_end(state, &end, cx);
    }
    let ended = cx.info.borrow().response_end;
    let now = ended.unwrap_or_else(|| cx.now());
    log::write(&settings.config, cx, &end, now);
    log::count(&settings.stats, cx, &end, now);
    work.request.body = Body::Empty;
}

/// Answers bytes that are no request: no filter sees them, but the log does.
pub(super) async fn refuse(
    settings: &Rc<Settings>,
    peer: &Rc<PeerFacts>,
    head: &RequestHead,
    outcome: &Outcome,
    down: &mut Downstream,
) {
    let cx = StreamCx::new(&settings.facts, peer, Arc::clone(&settings.routes.borrow()), settings.facts.env.now());
    cx.note(outcome.clone());
    let mut response = reply(outcome, head);
    finish_response(&mut response.head, &settings.config.server, &cx.facts.env, cx.now());
    let mut sent = Sent::default();
    if let Err(gone) = down.send(&response.head, response.body, &mut sent).await {
        tracing::trace!(%gone, "client left before the refusal was written");
    }
    cx.info.borrow_mut().bytes_sent = sent.body_bytes;
    let end = End { outcome, request: head, response: Some(&response.head) };
    let now = cx.now();
    log::write(&settings.config, &cx, &end, now);
    log::count(&settings.stats, &cx, &end, now);
}
