//! What a filter may touch.

use super::alpn::Alpn;
use super::ext_authz::{Programs, Told};
use super::grpc_stats::Counts;
use super::lease::{Leases, Shapes};
use super::rate_limit_quota::Quotas;
use crate::cluster::{Cluster, ClusterSet};
use crate::endpoint::Endpoint;
use crate::env::{Env, Instant, ProcessClock};
use crate::message::{Headers, Metadata, RequestHead};
use crate::net::PeerFacts;
use crate::node::NodeFacts;
use crate::outcome::{Flags, Outcome};
use crate::route::{Asked, FilterDisabled, Lookup, Route, RouteId, RouteTable};
use crate::telemetry::access_log::{LogBuffers, LogSinks};
use crate::telemetry::envoy::EnvoyStats;
use crate::telemetry::istio::{IstioMetrics, Workload};
use crate::telemetry::tap::Taps;
use crate::telemetry::trace::Trace;
use crate::xds::FeedHandle;
use proto::envoy::auth::CheckResponse;
use proto::envoy::ratelimit::RateLimitResponse;
use serde_json::{Map, Value};
use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// What all streams of one worker share.
#[derive(Debug)]
pub struct Facts {
    /// Clock and random numbers.
    pub env: Rc<Env>,
    /// The worker's clusters.
    pub clusters: Rc<ClusterSet>,
    /// Who this proxy is.
    pub node: Arc<NodeFacts>,
    /// Istio's metrics.
    pub metrics: Rc<IstioMetrics>,
    /// Envoy's statistics.
    pub stats: Rc<EnvoyStats>,
    /// Where the entries of access logs go.
    pub logs: Rc<LogSinks>,
    /// Who looks at requests as they pass.
    pub taps: Taps,
    /// The clock of what workers share.
    pub clock: Arc<ProcessClock>,
    /// Decisions that services have left with this worker.
    pub leases: Rc<LeaseBook>,
    /// Asks for configuration on demand; none where there is no feed.
    pub feed: Option<FeedHandle>,
}

impl Facts {
    /// Facts of a worker that stands alone: no node, metrics that nobody reads, logs that nobody writes.
    pub fn alone(env: Env) -> Self {
        let registrar = Rc::new(crate::telemetry::Registry::new().registrar(crate::telemetry::MAX_SCOPES));
        Self {
            env: Rc::new(env),
            clusters: Rc::default(),
            node: Arc::default(),
            metrics: Rc::new(IstioMetrics::new(Rc::clone(&registrar))),
            stats: Rc::new(EnvoyStats::new(Rc::clone(&registrar))),
            logs: Rc::new(LogSinks::new(LogBuffers::detached(), registrar)),
            taps: Taps::default(),
            clock: ProcessClock::start(),
            leases: Rc::default(),
            feed: None,
        }
    }
}

/// Leases of one worker, by kind of service.
#[derive(Debug, Default)]
pub struct LeaseBook {
    /// What each filter's leases depend on.
    pub shapes: Shapes,
    /// Answers of authorization services.
    pub checks: Leases<CheckResponse>,
    /// Answers of those that are asked over HTTP.
    pub http_checks: Leases<Told>,
    /// Policies that authorization services left here as a whole.
    pub programs: Programs,
    /// Answers of rate limit services.
    pub limits: Leases<RateLimitResponse>,
    /// Shares of quotas.
    pub quotas: Quotas,
}

/// What came of the request's body.
#[derive(Debug, Default)]
pub enum Received {
    /// Not known: there was no sound request.
    #[default]
    Nothing,
    /// All of it, with the head: so many bytes.
    Whole(u64),
    /// A streamed body, noted as it is pulled.
    Streamed(Rc<Pulled>),
}

/// What was pulled of a streamed body.
#[derive(Debug, Default)]
pub struct Pulled {
    /// Bytes.
    pub bytes: Cell<u64>,
    /// When its end was reached.
    pub ended: Cell<Option<Instant>>,
}

impl Received {
    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Whole(bytes) => *bytes,
            Self::Streamed(pulled) => pulled.bytes.get(),
        }
    }

    /// When the request had arrived as a whole, of which the head came at `start`.
    pub fn ended(&self, start: Instant) -> Option<Instant> {
        match self {
            Self::Nothing => None,
            Self::Whole(_) => Some(start),
            Self::Streamed(pulled) => pulled.ended.get(),
        }
    }
}

/// What is noted about a stream while it runs, for logs, metrics and headers.
#[derive(Debug, Default)]
pub struct StreamInfo {
    /// Response flags.
    pub flags: Flags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Option<Cow<'static, str>>,
    /// Why this proxy answered by itself.
    pub outcome: Option<Box<Outcome>>,
    /// What a proxy on the way says of why it answered by itself (`x-ferromesh-reason`).
    pub told: Option<Box<str>>,
    /// The trace that the request belongs to.
    pub trace: Option<Trace>,
    /// The cluster that the route chose.
    pub upstream: Option<Rc<Cluster>>,
    /// Its name, where there is none of that name.
    pub unknown_cluster: Option<Box<str>>,
    /// Endpoint of the last try.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Our address towards it.
    pub upstream_local: Option<SocketAddr>,
    /// Tries so far.
    pub attempts: u32,
    /// A try failed, or was repeated, whose endpoint may have read the request.
    pub reached: bool,
    /// Why the upstream's transport failed.
    pub transport_failure: Option<Box<str>>,
    /// The request's body.
    pub received: Received,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// When the first byte went to the upstream.
    pub upstream_start: Option<Instant>,
    /// When the head of the answer came.
    pub response_start: Option<Instant>,
    /// When the last byte went to the client.
    pub response_end: Option<Instant>,
    /// Trailers of the response (`grpc-status`).
    pub trailers: Option<Headers>,
    /// Header bytes from the client, as decoded.
    pub header_bytes_received: u64,
    /// Header bytes to the client, as decoded.
    pub header_bytes_sent: u64,
    /// Messages of a gRPC stream, counted as they pass.
    pub grpc: Option<Rc<Counts>>,
    /// The client's workload, by metadata exchange.
    pub downstream_workload: Option<Rc<Workload>>,
    /// The server's workload, by metadata exchange.
    pub upstream_workload: Option<Rc<Workload>>,
    /// The server's proven identity.
    pub upstream_identity: Option<Arc<str>>,
    /// What filters leave for those behind them (dynamic metadata).
    pub metadata: Option<Box<Metadata>>,
}

impl StreamInfo {
    /// Name of the cluster that the route chose.
    pub fn cluster(&self) -> Option<&str> {
        self.upstream.as_ref().map(|cluster| &*cluster.config.name).or(self.unknown_cluster.as_deref())
    }

    /// Leaves values for the filters behind one, and for logs.
    pub fn leave(&mut self, filter: &str, values: Map<String, Value>) {
        let own =
            self.metadata.get_or_insert_default().entry(filter.into()).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(own) = own {
            own.extend(values);
        }
    }
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
    /// The listener takes traffic of the workload's clients, not its own.
    pub inbound: bool,
    /// What a TLS hello offers, by protocol.
    pub alpn: RefCell<Option<Alpn>>,
    table: Arc<RouteTable>,
    /// The route, once it was looked up.
    route: Cell<Option<Option<RouteId>>>,
    /// When a byte moved last, for the idle timeout.
    pub active: Cell<Instant>,
    /// A filter or the client had to be waited for: the last look at the clock is some time ago.
    pub waited: Cell<bool>,
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
            inbound: false,
            alpn: RefCell::new(None),
            table,
            route: Cell::new(None),
            active: Cell::new(start),
            waited: Cell::new(false),
        }
    }

    /// The route of the request: looked up once, since filters need its configuration before the router does.
    /// None where there is none.
    pub fn route(&self, head: &RequestHead) -> Option<&Route> {
        let found = self.route.get().unwrap_or_else(|| {
            // Other tables do not look at what filters have left, and may be asked while that is written.
            let info = self.table.reads_metadata().then(|| self.info.borrow());
            let metadata = info.as_ref().and_then(|info| info.metadata.as_deref());
            let found = match self.table.lookup(head, Asked { random: self.random, metadata }) {
                Lookup::Found(route) => Some(route),
                Lookup::NoRoute | Lookup::Ask(_) => None,
            };
            self.route.set(Some(found));
            found
        });
        self.table.route(found?)
    }

    /// The most specific configuration that the route has for a filter.
    pub fn override_of<T: Any + Send + Sync>(&self, head: &RequestHead, filter: &str) -> Option<Arc<T>> {
        let route = self.route(head)?;
        let mut levels = route.filters.iter().flat_map(|overrides| overrides.0.iter());
        levels.find(|(name, _)| **name == *filter).and_then(|(_, config)| Arc::clone(config).downcast().ok())
    }

    /// Whether the route switches a filter off.
    pub fn is_disabled(&self, head: &RequestHead, filter: &str) -> bool {
        self.override_of::<FilterDisabled>(head, filter).is_some()
    }

    /// Forgets the route: what it depends on has changed (JWT claims, header mutation).
    pub fn clear_route(&self) {
        self.route.set(None);
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
        info.outcome = Some(Box::new(outcome));
    }

    /// When the request had arrived as a whole.
    pub fn request_end(&self) -> Option<Instant> {
        self.info.borrow().received.ended(self.start)
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.facts.env.now()
    }
}
