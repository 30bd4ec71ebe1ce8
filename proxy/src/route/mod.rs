//! Which cluster a request goes to, and under which policy: route tables as immutable data.
//!
//! Knows request heads. Must never know a connection, a cluster's endpoints or a filter (their per-route configuration
//! passes through here unread).

mod action;
mod config;
mod hash;
mod header_ops;
mod matcher;
mod rate_limit;
mod retry;
mod rewrite;
mod table;
mod template;

pub use action::Choice;
pub use config::{FilterDisabled, ParseOverride, RouteContext};
pub use hash::{HashPolicy, HashSource, Hashed, NewCookie};
pub use matcher::Condition;
pub use rate_limit::{DescriptorFacts, Entries, RateLimit};
pub use retry::{HostAvoidance, RateLimitedBackoff, ResetFormat, RetryOn, RetryPolicy};
pub use table::{Asked, Lookup, RouteId, RouteTable};
pub use template::{Template as PathTemplate, TemplateRewrite};

use crate::telemetry::access_log::Format;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// What a route does with a request.
#[derive(Debug)]
pub enum Action {
    /// Forward to one cluster.
    Cluster(Arc<str>),
    /// Forward to one of several clusters by weight.
    Weighted(Box<[WeightedCluster]>, u64),
    /// Forward to the cluster that a request header names.
    ClusterHeader(Box<[u8]>),
    /// Answer with a redirect.
    Redirect(Box<Redirect>),
    /// Answer at once.
    Direct {
        /// Status code.
        status: u16,
        /// Body.
        body: bytes::Bytes,
    },
    /// Refuse the way a non-forwarding action does; never forwards.
    NonForwarding,
}

/// One choice of a weighted split.
#[derive(Debug)]
pub struct WeightedCluster {
    /// Cluster name.
    pub name: Arc<str>,
    /// Share of the total weight.
    pub weight: u32,
    /// Header operations of this choice, applied before those of the route.
    pub request_headers: HeaderOps,
    /// The same for the response.
    pub response_headers: HeaderOps,
    /// Replaces the authority.
    pub host_rewrite: Option<Box<str>>,
    /// Per-filter configuration of this choice, by filter name.
    pub filters: Overrides,
}

/// Where a redirect points.
#[derive(Debug, Default)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// New scheme.
    pub scheme: Option<Box<str>>,
    /// New host.
    pub host: Option<Box<str>>,
    /// New port; 0 leaves it out.
    pub port: Option<u16>,
    /// New path.
    pub path: Option<PathRewrite>,
    /// Whether the query is dropped.
    pub strip_query: bool,
}

/// A new path.
#[derive(Debug)]
pub enum PathRewrite {
    /// The whole path and query.
    Full(Box<str>),
    /// Instead of the prefix (or exact path) that matched; `usize` is its length in bytes.
    Prefix(Box<str>, usize),
    /// A regex over the path without query, and its substitution with `${1}` groups.
    Regex(Box<regex::bytes::Regex>, Box<[u8]>),
    /// Made of the variables of the path template that matched.
    Template(Box<TemplateRewrite>),
}

/// A new host.
#[derive(Debug)]
pub enum HostRewrite {
    /// This text.
    Literal(Box<str>),
    /// The upstream endpoint's host name.
    Auto,
    /// The value of a request header.
    Header(Box<[u8]>),
    /// A regex over the path, and its substitution.
    PathRegex(Box<regex::bytes::Regex>, Box<[u8]>),
}

/// What happens to one header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    /// Append, whether there or not.
    AppendIfExistsOrAdd,
    /// Add only if absent.
    AddIfAbsent,
    /// Replace, or add.
    OverwriteIfExistsOrAdd,
    /// Replace only if present.
    OverwriteIfExists,
}

/// Headers to add, set and remove. Values are templates of command operators (`%DOWNSTREAM_REMOTE_ADDRESS%`).
#[derive(Debug, Default)]
pub struct HeaderOps {
    /// Name, value template, action, whether an empty value is kept.
    pub add: Vec<HeaderOp>,
    /// Names to remove.
    pub remove: Vec<Box<[u8]>>,
}

/// One header to add or set.
#[derive(Debug)]
pub struct HeaderOp {
    /// Header name; `:authority`, `:path` and `:method` address the pseudo-headers.
    pub name: Box<[u8]>,
    /// Value with its operators.
    pub value: Format,
    /// What to do where the header exists.
    pub action: AppendAction,
    /// Whether the header is kept if the value turns out empty.
    pub keep_empty: bool,
}

/// A copy of the request that goes elsewhere, its answer dropped.
#[derive(Debug)]
pub struct Mirror {
    /// Cluster that gets the copy.
    pub cluster: Arc<str>,
    /// Numerator of the share of requests.
    pub numerator: u64,
    /// Denominator of the share.
    pub denominator: u64,
    /// Whether `-shadow` is appended to the host.
    pub host_suffix: bool,
}

/// An upgrade type in lower case, and whether it is allowed.
pub type Upgrade = (Box<str>, bool);

/// Time limits of a route; `None` is no limit.
#[derive(Debug, Clone, Default)]
pub struct Timeouts {
    /// From the end of the request to the end of the response, all tries included (RT-5).
    pub route: Option<Duration>,
    /// Idle time of the stream; overrides the connection manager's (RT-6).
    pub idle: Option<Option<Duration>>,
    /// Upper bound of the stream's life; overrides the connection manager's.
    pub max_stream_duration: Option<Option<Duration>>,
    /// Upper bound for `grpc-timeout` in place of `route` (`max_grpc_timeout`); `Some(None)` is no bound.
    pub max_grpc_timeout: Option<Option<Duration>>,
    /// Upper bound for `grpc-timeout` as the stream's life; `Some(None)` honours it without bound, `None` ignores the header (HD-21).
    pub grpc_timeout_max: Option<Option<Duration>>,
}

/// Per-filter configuration by filter name, parsed by the filter registry.
#[derive(Default, Clone)]
pub struct Overrides(pub Box<[(Box<str>, Override)]>);

/// What one filter made of its per-route configuration.
pub type Override = Arc<dyn Any + Send + Sync>;

impl Overrides {
    /// The configuration of a filter, if it is a `T`.
    pub fn get<T: Any + Send + Sync>(&self, filter: &str) -> Option<&T> {
        self.0.iter().find(|(name, _)| **name == *filter).and_then(|(_, config)| config.downcast_ref())
    }
}

impl std::fmt::Debug for Overrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// One route of a virtual host, ready to be followed.
#[derive(Debug)]
pub struct Route {
    /// Route name for logs and stats; empty if it has none.
    pub name: Box<str>,
    /// Name of its virtual host.
    pub virtual_host: Box<str>,
    /// What to do.
    pub action: Action,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Retry policy; `None` never retries by rule.
    pub retry: Option<RetryPolicy>,
    /// Copies.
    pub mirrors: Box<[Mirror]>,
    /// New path for the upstream.
    pub path_rewrite: Option<PathRewrite>,
    /// New host for the upstream.
    pub host_rewrite: Option<HostRewrite>,
    /// Whether the original host goes into `x-forwarded-host` when it is rewritten.
    pub append_x_forwarded_host: bool,
    /// Request header operations in the order in which they apply: route, virtual host, table.
    pub request_headers: Box<[Arc<HeaderOps>]>,
    /// The same for the response.
    pub response_headers: Box<[Arc<HeaderOps>]>,
    /// Whether `x-envoy-attempt-count` goes to the upstream.
    pub attempt_count_in_request: bool,
    /// Whether `x-envoy-attempt-count` goes to the client.
    pub attempt_count_in_response: bool,
    /// Upgrade types that this route allows or forbids, beyond the connection manager's.
    pub upgrades: Box<[Upgrade]>,
    /// Per-filter configuration, most specific first: route, virtual host, table.
    pub filters: Box<[Overrides]>,
    /// Request bodies above this size are not kept for a retry (RT-3).
    pub replay_limit_bytes: Option<u64>,
    /// Whether the most specific header operations have the last word instead of the least specific.
    pub most_specific_wins: bool,
    /// Descriptors for a rate limit service.
    pub rate_limits: Box<[RateLimit]>,
    /// Those of the virtual host.
    pub host_rate_limits: Arc<[RateLimit]>,
    /// The virtual host's count beside the route's (`include_vh_rate_limits`).
    pub include_host_rate_limits: bool,
    /// What consistent-hash balancers hash.
    pub hash_policy: Box<[HashPolicy]>,
    /// Status of the reply where the cluster does not exist (LR-5: 503).
    pub cluster_not_found_status: u16,
    /// Whether what filters have left decided for it, such as claims of a token.
    pub by_metadata: bool,
    /// Circuit-breaker priority: whether this is high-priority traffic.
    pub high_priority: bool,
    /// Operation name for traces.
    pub decorator: Option<Box<str>>,
    /// Whether the other side is told of that name.
    pub decorator_propagate: bool,
    /// The Istio object that made this route (`istio.config` metadata), for explain.
    pub origin: Option<Box<str>>,
}

impl Route {
    /// A route to one cluster with nothing else configured.
    pub fn to_cluster(cluster: &str) -> Self {
        Self::new(Action::Cluster(cluster.into()))
    }

    /// A route that does `action`, with nothing else configured.
    pub fn new(action: Action) -> Self {
        Self {
            name: "".into(),
            virtual_host: "".into(),
            action,
            timeouts: Timeouts::default(),
            retry: None,
            mirrors: Box::default(),
            path_rewrite: None,
            host_rewrite: None,
            append_x_forwarded_host: false,
            request_headers: Box::default(),
            response_headers: Box::default(),
            attempt_count_in_request: false,
            attempt_count_in_response: false,
            upgrades: Box::default(),
            filters: Box::default(),
            replay_limit_bytes: None,
            most_specific_wins: false,
            rate_limits: Box::default(),
            host_rate_limits: Arc::default(),
            include_host_rate_limits: false,
            hash_policy: Box::default(),
            cluster_not_found_status: 503,
            by_metadata: false,
            high_priority: false,
            decorator: None,
            decorator_propagate: false,
            origin: None,
        }
    }

    /// The most specific configuration of a filter for this route.
    pub fn filter<T: Any + Send + Sync>(&self, name: &str) -> Option<&T> {
        self.filters.iter().find_map(|overrides| overrides.get(name))
    }
}
