//! One exchange with an endpoint, whatever protocol carries it.

use crate::endpoint::{Endpoint, Permit};
use crate::env::Instant;
use crate::message::{Body, Frame, ResponseHead, Source};
use crate::net::Io;
use crate::outcome::{Outcome, Reason};
use crate::pool::{Counted, h1, h2};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// Which endpoint an exchange goes to, and how.
#[derive(Debug, Clone, Copy)]
pub struct Pick<'a> {
    /// The endpoint.
    pub endpoint: &'a Arc<Endpoint>,
    /// ALPN protocols to offer instead of the cluster's (`istio.alpn`).
    pub alpn: Option<&'a Arc<[Vec<u8>]>>,
    /// Whether the request counts against the high-priority breakers.
    pub high_priority: bool,
    /// Never on a used connection: the replay after a stale one died.
    pub fresh: bool,
}

impl<'a> Pick<'a> {
    /// An exchange with `endpoint` and nothing special.
    pub fn new(endpoint: &'a Arc<Endpoint>) -> Self {
        Self { endpoint, alpn: None, high_priority: false, fresh: false }
    }
}

/// Why a try failed, and what is known about what the server saw of it.
#[derive(Debug)]
pub struct Failure {
    /// The reason.
    pub outcome: Outcome,
    /// Nothing of the request was sent.
    pub unsent: bool,
    /// The connection died without a byte of answer.
    pub silent: bool,
    /// It had served before.
    pub reused: bool,
    /// It ended, and the peer has not read all that was sent.
    pub unread: bool,
}

impl Failure {
    /// A failure before anything was sent.
    pub fn before_sending(outcome: Outcome) -> Self {
        Self { outcome, unsent: true, silent: false, reused: false, unread: false }
    }
}

/// Counts a request in flight at an endpoint and below the cluster's limit.
#[derive(Debug)]
pub(super) struct InFlight {
    endpoint: Arc<Endpoint>,
    _permit: Permit,
}

impl InFlight {
    pub(super) fn new(endpoint: &Arc<Endpoint>, permit: Permit) -> Self {
        endpoint.shared.active.fetch_add(1, Ordering::Relaxed);
        Self { endpoint: Arc::clone(endpoint), _permit: permit }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.shared.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection to an endpoint for bytes both ways.
#[derive(Debug)]
pub struct TcpUpstream {
    /// The bytes.
    pub io: Io,
    /// Our address.
    pub local: Option<SocketAddr>,
    pub(super) _held: (InFlight, Counted),
}

enum Wire {
    H1(Box<h1::Exchange>),
    H2(Box<h2::Exchange>),
}

/// A request in flight: owns its lease and the request's body.
pub struct Upstream {
    wire: Wire,
    flight: InFlight,
}

impl Upstream {
    pub(super) fn h1(exchange: h1::Exchange, flight: InFlight) -> Self {
        Self { wire: Wire::H1(Box::new(exchange)), flight }
    }

    pub(super) fn h2(exchange: h2::Exchange, flight: InFlight) -> Self {
        Self { wire: Wire::H2(Box::new(exchange)), flight }
    }

    /// The next head, interim ones too. Pumps the upload.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Outcome>> {
        match &mut self.wire {
            Wire::H1(exchange) => exchange.poll_head(cx),
            Wire::H2(exchange) => exchange.poll_head(cx),
        }
    }

    /// The endpoint that was picked.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.flight.endpoint
    }

    /// Our address towards it.
    pub fn local(&self) -> Option<SocketAddr> {
        match &self.wire {
            Wire::H1(exchange) => exchange.local(),
            Wire::H2(exchange) => exchange.local(),
        }
    }

    /// The identity that the endpoint proved.
    pub fn peer_id(&self) -> Option<Arc<str>> {
        match &self.wire {
            Wire::H1(exchange) => exchange.peer_id(),
            Wire::H2(exchange) => exchange.peer_id(),
        }
    }

    /// The failure of this exchange for `outcome`.
    pub fn failure(&self, outcome: Outcome) -> Failure {
        let progress = match &self.wire {
            Wire::H1(exchange) => exchange.progress(),
            Wire::H2(exchange) => exchange.progress(),
        };
        let silent = !progress.answered && outcome.reason == Reason::UpstreamClosed;
        Failure { outcome, unsent: progress.sent_bytes == 0, silent, reused: progress.reused, unread: progress.unread }
    }

    /// The response's body, after a final head.
    pub fn into_body(mut self, now: Instant) -> Body {
        let ready = match &mut self.wire {
            Wire::H1(exchange) => exchange.take_ready_body(now),
            Wire::H2(exchange) => exchange.take_ready_body(),
        };
        ready.unwrap_or_else(|| Body::source(self))
    }
}

impl Source for Upstream {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        match &mut self.wire {
            Wire::H1(exchange) => exchange.poll_frame(cx),
            Wire::H2(exchange) => exchange.poll_frame(cx),
        }
    }

    fn length(&self) -> Option<u64> {
        match &self.wire {
            Wire::H1(exchange) => exchange.length(),
            Wire::H2(exchange) => exchange.length(),
        }
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("flight", &self.flight).finish_non_exhaustive()
    }
}
