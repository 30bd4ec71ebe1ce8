//! One HTTP/2 connection from a client: its streams are futures in one set, polled by the connection's task.

use super::crew::Crew;
use super::downstream::{Downstream, Sent};
use super::hands::Hands;
use super::stream::{Settings, serve_stream};
use crate::codec::bridge::strip_connection_headers;
use crate::codec::h2::{Code, Config, Connection, Role};
use crate::drain::{self, Stay};
use crate::env::Instant;
use crate::filter::Filter;
use crate::message::{Body, Frame, Request, RequestHead, ResponseHead, Source};
use crate::net::{Io, PeerFacts};
use crate::outcome::{Outcome, Reason};
use crate::pool::Link;
use bytes::BytesMut;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// The request's body.
struct RequestBody {
    link: Rc<Link>,
    id: u32,
    /// A tunnel's bytes wait until it is granted.
    held: Option<Rc<Cell<bool>>>,
}

impl RequestBody {
    fn is_held(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.get())
    }
}

impl Source for RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        if self.is_held() {
            return Poll::Pending;
        }
        self.link.with(|connection| connection.poll_frame(self.id, cx))
    }

    fn length(&self) -> Option<u64> {
        if self.is_held() { None } else { self.link.look(|connection| connection.remaining(self.id)) }
    }
}

/// The response to one request.
#[derive(Debug)]
pub struct Reply {
    link: Rc<Link>,
    id: u32,
    head_only: bool,
    tunnel: Option<Rc<Cell<bool>>>,
    started: bool,
}

impl Reply {
    pub(super) fn started(&self) -> bool {
        self.started
    }

    pub(super) fn watch(&self) -> (Rc<Link>, u32) {
        (Rc::clone(&self.link), self.id)
    }

    pub(super) fn interim(&self, head: &ResponseHead) {
        self.link.with(|connection| connection.send_response(self.id, head, None, false));
    }

    pub(super) async fn send(&mut self, head: &ResponseHead, mut body: Body, sent: &mut Sent) -> Result<(), Outcome> {
        self.started = true;
        let id = self.id;
        if head.status == 101 {
            // What is an upgrade inside is a plain success of CONNECT here (RFC 8441 section 4).
            let mut head = head.clone();
            head.status = 200;
            strip_connection_headers(&mut head.headers);
            self.link.with(|connection| connection.send_response(id, &head, None, false));
            if let Some(held) = &self.tunnel {
                held.set(false);
            }
        } else {
            if self.head_only {
                body = Body::Empty;
            }
            let length = if self.head_only { None } else { body.length().filter(|_| !body.is_empty()) };
            let end = body.is_empty();
            self.link.with(|connection| connection.send_response(id, head, length, end));
            if end {
                return Ok(());
            }
        }
        let result = poll_fn(|cx| self.poll_send(cx, &mut body, sent)).await;
        if result.is_err() {
            self.link.with(|connection| connection.reset(id, Code::INTERNAL_ERROR));
        }
        result
    }

    fn poll_send(&self, cx: &mut Context<'_>, body: &mut Body, sent: &mut Sent) -> Poll<Result<(), Outcome>> {
        loop {
            match self.link.with(|connection| connection.poll_send(self.id, cx)) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            match body.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(outcome))) => return Poll::Ready(Err(outcome)),
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    sent.body_bytes += data.len() as u64;
                    self.link.with(|connection| connection.send_data(self.id, data));
                }
                Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                    self.link.with(|connection| connection.send_end(self.id, Some(trailers.clone())));
                    sent.trailers = Some(trailers);
                    break;
                }
                Poll::Ready(None) => {
                    self.link.with(|connection| connection.send_end(self.id, None));
                    break;
                }
            }
        }
        self.link.with(|connection| connection.poll_sent(self.id, cx))
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.link.with(|connection| {
            if !self.started {
                connection.reset(self.id, Code::INTERNAL_ERROR);
            }
            connection.release(self.id);
        });
    }
}

/// Serves one connection until it ends. `io` is past TLS and inspectors; `first` was read from it already.
pub async fn serve_h2((io, first): (Io, BytesMut), settings: Rc<Settings>, chain: Arc<[Filter]>, peer: Rc<PeerFacts>) {
    let config = Config {
        max_streams: settings.config.max_concurrent_streams,
        stream_window: settings.config.stream_window,
        connection_window: settings.config.connection_window,
        max_header_bytes: settings.config.head_limits.max_bytes,
        max_fields: settings.config.head_limits.max_fields,
        connect_protocol: !settings.config.upgrades.is_empty(),
    };
    let link = Link::new(io, Connection::new(Role::Server, config));
    link.with(|connection| connection.receive(&first));
    let crew = Crew::new();
    let work = async |job| pin!(one_request(Rc::clone(&link), job, &settings, &chain, &peer)).await;
    let mut streams = Hands::new();
    let (mut leave, mut rest) = (Leave::new(&settings), Rest::default());
    let mut turn = |streams: &mut Hands<_>, cx: &mut Context<'_>| {
        let cut = leave.stay.poll(cx, drain::Stage::Over).is_ready();
        if cut {
            link.with(Connection::close);
        }
        let gone = link.poll_read(cx).is_ready() || cut;
        let mut arrived = None;
        while let Some((id, head, empty)) = link.with(Connection::next_request) {
            leave.requests += 1;
            // What was read together has arrived together: one look at the clock.
            let start = *arrived.get_or_insert_with(Instant::now);
            if let Some(seat) = crew.give(Job { id, head, empty, start }) {
                streams.push(Box::pin(crew.work(seat, &work)));
            }
        }
        streams.poll();
        rest.poll(cx, &crew, leave.requests);
        leave.poll(cx, &settings, &link);
        let over = gone || link.look(Connection::is_closed);
        if over && (crew.busy() == 0 || gone) { Poll::Ready(()) } else { Poll::Pending }
    };
    poll_fn(|cx| streams.turn(cx, &mut turn)).await;
    // A peer that is gone takes its streams with it: dropping them ends their work and returns their permits.
    drop(streams);
    link.shutdown().await;
}

/// A connection without requests for so long lets go of the memory that they needed.
const REST_AFTER: Duration = Duration::from_secs(1);

/// Sends a crew home when there is nothing to do: looked at now and then, because between two bursts is no rest.
#[derive(Default)]
struct Rest {
    look: Option<Pin<Box<Sleep>>>,
    /// Requests that there had been when it was looked last.
    requests: u32,
}

impl Rest {
    fn poll<J>(&mut self, cx: &mut Context<'_>, crew: &Crew<J>, requests: u32) {
        if self.look.is_none() && !crew.can_shrink() {
            return;
        }
        let look = self.look.get_or_insert_with(|| {
            self.requests = requests;
            Box::pin(tokio::time::sleep(REST_AFTER))
        });
        while look.as_mut().poll(cx).is_ready() {
            if crew.busy() == 0 && self.requests == requests {
                crew.shrink();
                self.look = None;
                return;
            }
            self.requests = requests;
            look.as_mut().reset(Instant::now() + REST_AFTER);
        }
    }
}

/// How a connection takes its leave: a GOAWAY that refuses nothing yet, and after a while the one that does (RFC 9113
/// section 6.8), so that requests on their way are served.
struct Leave {
    stay: Stay,
    started: Instant,
    requests: u32,
    stage: Stage,
    /// The end of the connection's life, then that of the warning.
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Stays,
    Warned,
    Left,
}

impl Leave {
    fn new(settings: &Settings) -> Self {
        let started = Instant::now();
        let life = settings.config.max_connection_duration;
        let timer = life.map(|life| Box::pin(tokio::time::sleep_until(started + life)));
        let stay = settings.drain.join(&settings.facts.env);
        Self { stay, started, requests: 0, stage: Stage::Stays, timer }
    }

    fn poll(&mut self, cx: &mut Context<'_>, settings: &Settings, link: &Rc<Link>) {
        let asked = self.stay.stage() >= drain::Stage::Asked;
        if self.stage == Stage::Stays && (asked || settings.ends(self.requests, self.started) || self.is_time(cx)) {
            link.with(|connection| connection.go_away(false));
            self.timer = Some(Box::pin(tokio::time::sleep(settings.config.drain_timeout)));
            self.stage = Stage::Warned;
        }
        if self.stage == Stage::Warned && self.is_time(cx) {
            link.with(|connection| connection.go_away(true));
            self.timer = None;
            self.stage = Stage::Left;
        }
    }

    fn is_time(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }
}

/// A request whose head has arrived.
struct Job {
    id: u32,
    head: RequestHead,
    /// No body follows.
    empty: bool,
    start: Instant,
}

async fn one_request(
    link: Rc<Link>,
    Job { id, mut head, empty, start }: Job,
    settings: &Rc<Settings>,
    chain: &Arc<[Filter]>,
    peer: &Rc<PeerFacts>,
) {
    let tunnel = head.wants_tunnel() && (head.method() == b"CONNECT" || settings.allows_upgrade(head.protocol()));
    let refused = head.wants_tunnel() && !tunnel;
    let held = tunnel.then(|| Rc::new(Cell::new(true)));
    let streamed = || Body::source(RequestBody { link: Rc::clone(&link), id, held: held.clone() });
    let body = match (empty, tunnel) {
        (true, false) => Body::Empty,
        (_, true) => streamed(),
        _ => link.with(|connection| connection.take_ready_body(id)).map_or_else(streamed, Body::full),
    };
    let head_only = head.method() == b"HEAD";
    let reply = Reply { link, id, head_only, tunnel: held, started: false };
    let mut down = Downstream::H2(reply);
    if refused {
        head.set_protocol(b"");
        super::stream::refuse(settings, peer, &head, &Reason::UpgradeFailed.into(), &mut down).await;
        return;
    }
    pin!(serve_stream(settings, chain, peer, Request { head, body }, &mut down, start)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[tokio::test(start_paused = true)]
    async fn a_crew_stays_between_bursts_and_leaves_an_idle_connection() {
        let (crew, mut rest) = (Crew::new(), Rest::default());
        let mut cx = Context::from_waker(Waker::noop());
        let mut hands: Vec<_> = [1, 2, 3].into_iter().filter_map(|job| crew.give(job)).collect();
        let mut hands: Vec<_> = hands.drain(..).map(|seat| Box::pin(crew.work(seat, async |_: u32| {}))).collect();
        hands.iter_mut().for_each(|hand| assert!(hand.as_mut().poll(&mut cx).is_pending()));
        rest.poll(&mut cx, &crew, 3);
        for (requests, stay) in [(3, true), (5, true), (5, false)] {
            if requests == 3 {
                tokio::time::advance(REST_AFTER / 2).await;
            } else {
                tokio::time::advance(REST_AFTER).await;
            }
            rest.poll(&mut cx, &crew, requests);
            assert_eq!(crew.can_shrink(), stay, "{requests}");
        }
        assert!(rest.look.is_none(), "nothing is left to look at");
    }
}
