//! What a filter may touch.

use crate::cluster::{Cluster, ClusterSet};
use crate::endpoint::Endpoint;
use crate::env::{Env, Instant};
use crate::message::{Headers, RequestHead};
use crate::net::PeerFacts;
use crate::outcome::{Flags, Outcome};
use crate::route::{Asked, Lookup, Route, RouteTable};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// What is fixed for all streams of a filter chain on one worker.
#[derive(Debug)]
pub struct Facts {
    /// Clock and random numbers.
    pub env: Rc<Env>,
    /// The worker's clusters.
    pub clusters: Rc<ClusterSet>,
}

/// What is noted about a stream while it runs, for logs, metrics and headers.
#[derive(Debug, Default)]
pub struct StreamInfo {
    /// Response flags.
    pub flags: Flags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Option<Cow<'static, str>>,
    /// Name of the cluster that the route chose.
    pub cluster: Option<Arc<str>>,
    /// Endpoint of the last try.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Our address towards it.
    pub upstream_local: Option<SocketAddr>,
    /// Tries so far.
    pub attempts: u32,
    /// Why the upstream's transport failed.
    pub transport_failure: Option<Box<str>>,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// When the last byte of the request was read.
    pub request_end: Option<Instant>,
    /// When the first byte went to the upstream.
    pub upstream_start: Option<Instant>,
    /// When the head of the answer came.
    pub response_start: Option<Instant>,
    /// When the last byte went to the client.
    pub response_end: Option<Instant>,
    /// Trailers of the response (`grpc-status`).
    pub trailers: Option<Headers>,
}

/// Context of one stream: never the worker itself.
#[derive(Debug)]
pub struct StreamCx {
    /// What all streams of the chain share.
    pub facts: Rc<Facts>,
    /// The downstream connection.
    pub peer: Rc<PeerFacts>,
    /// When the request's head arrived.
    pub start: Instant,
    /// A random number that stays the same for all decisions about this stream.
    pub random: u64,
    /// Notes.
    pub info: RefCell<StreamInfo>,
    table: Arc<RouteTable>,
    route: RefCell<Option<Lookup>>,
    /// When a byte moved last, for the idle timeout.
    pub active: Cell<Instant>,
}

impl StreamCx {
    /// A context for a request that arrived at `start`.
    pub fn new(facts: &Rc<Facts>, peer: &Rc<PeerFacts>, table: Arc<RouteTable>, start: Instant) -> Self {
        let random = facts.env.below(u64::MAX);
        Self {
            facts: Rc::clone(facts),
            peer: Rc::clone(peer),
            start,
            random,
            info: RefCell::default(),
            table,
            route: RefCell::new(None),
            active: Cell::new(start),
        }
    }

    /// The route of the request: looked up once, since filters need its configuration before the router does.
    pub fn lookup(&self, head: &RequestHead) -> Lookup {
        let mut route = self.route.borrow_mut();
        route.get_or_insert_with(|| self.table.lookup(head, Asked { random: self.random })).clone()
    }

    /// The route, if one was found.
    pub fn route(&self, head: &RequestHead) -> Option<Arc<Route>> {
        match self.lookup(head) {
            Lookup::Found(route) => Some(route),
            Lookup::NoRoute | Lookup::Ask(_) => None,
        }
    }

    /// Forgets the route: what it depends on has changed (JWT claims, header mutation).
    pub fn clear_route(&self) {
        *self.route.borrow_mut() = None;
    }

    /// The cluster of this name on this worker.
    pub fn cluster(&self, name: &str) -> Option<Rc<Cluster>> {
        self.facts.clusters.get(name)
    }

    /// Notes why this proxy answers by itself: flags and details.
    pub fn note(&self, outcome: impl Into<Outcome>) {
        let outcome = outcome.into();
        let mut info = self.info.borrow_mut();
        info.flags.insert(outcome.reason.face().flags);
        info.details = Some(Cow::Owned(outcome.details()));
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.facts.env.now()
    }
}
