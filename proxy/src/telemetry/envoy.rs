//! Envoy's statistics of one worker: scopes by name, and what the end of a stream means for them (spec ST-1, ST-2, ST-3);
//! and those of mixer's rules and of rate limits that are decided here.

use super::counters::{Cells, InFamily};
use super::names::{
    ClusterMetric, ConnectionMetric, HttpMetric, LimitMetric, ListenerMetric, PolicyMetric, ServerMetric, TcpMetric,
};
use super::series::{Labels, Registrar};
use crate::message::Version;
use crate::outcome::Flags;
use foldhash::HashMap;
use proto::program::{HANDLER, LIMIT, RULE};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Rules and handlers whose decisions one worker counts, and as many limits; those of further ones are not counted.
const MAX_RULES: usize = 1_000;

/// Scopes of one kind by name.
type Scopes<M> = RefCell<HashMap<Box<str>, Rc<Cells<M>>>>;

/// Scopes by rule and handler.
type ByRule = HashMap<[Box<str>; 2], Rc<Cells<PolicyMetric>>>;

/// Envoy's statistics of one worker.
#[derive(Debug)]
pub struct EnvoyStats {
    registrar: Rc<Registrar>,
    http: Scopes<HttpMetric>,
    clusters: Scopes<ClusterMetric>,
    connections: Scopes<ConnectionMetric>,
    listeners: Scopes<ListenerMetric>,
    tcp: Scopes<TcpMetric>,
    server: OnceCell<Rc<Cells<ServerMetric>>>,
    policy: RefCell<ByRule>,
    limits: Scopes<LimitMetric>,
}

/// A stream that has ended.
#[derive(Debug, Clone, Copy)]
pub struct StreamEnd<'a> {
    /// HTTP version of the client.
    pub version: Version,
    /// Status that the client saw; 0 where it saw none.
    pub status: u16,
    /// Response flags.
    pub flags: Flags,
    /// Response code details.
    pub details: &'a str,
    /// Tries.
    pub attempts: u32,
    /// From the start to the end.
    pub total: Duration,
    /// From the first byte upstream to the end, where the upstream answered.
    pub upstream: Option<Duration>,
}

impl EnvoyStats {
    /// Statistics whose scopes are registered by `registrar`.
    pub fn new(registrar: Rc<Registrar>) -> Self {
        Self {
            registrar,
            http: Scopes::default(),
            clusters: Scopes::default(),
            connections: Scopes::default(),
            listeners: Scopes::default(),
            tcp: Scopes::default(),
            server: OnceCell::new(),
            policy: RefCell::default(),
            limits: Scopes::default(),
        }
    }

    /// The scope of a connection manager.
    pub fn http(&self, prefix: &str) -> Rc<Cells<HttpMetric>> {
        scope(&self.http, &self.registrar, prefix)
    }

    /// The scope of a cluster.
    pub fn cluster(&self, name: &str) -> Rc<Cells<ClusterMetric>> {
        scope(&self.clusters, &self.registrar, name)
    }

    /// The scope of a cluster's connections.
    pub fn connections(&self, name: &str) -> Rc<Cells<ConnectionMetric>> {
        scope(&self.connections, &self.registrar, name)
    }

    /// The scope of a TCP proxy.
    pub fn tcp(&self, prefix: &str) -> Rc<Cells<TcpMetric>> {
        scope(&self.tcp, &self.registrar, prefix)
    }

    /// The scope of a listener's address.
    pub fn listener(&self, address: &str) -> Rc<Cells<ListenerMetric>> {
        scope(&self.listeners, &self.registrar, address)
    }

    /// This worker's part in the scope of the process.
    pub fn server(&self) -> &Rc<Cells<ServerMetric>> {
        self.server.get_or_init(|| Rc::new(self.registrar.cells(Labels::default())))
    }

    /// The scope of a rule of mixer's and one of its handlers. It stays when the rule goes, so that its counts never fall.
    pub fn policy(&self, rule: &str, handler: &str) -> Rc<Cells<PolicyMetric>> {
        let mut known = self.policy.borrow_mut();
        let key = [rule.into(), handler.into()];
        if let Some(found) = known.get(&key) {
            return Rc::clone(found);
        }
        let room = known.len() < MAX_RULES;
        let labels = || [(RULE, rule.into()), (HANDLER, handler.into())].into();
        let Some(cells) = room.then(|| self.registrar.try_cells(labels())).flatten().map(Rc::new) else {
            return Rc::new(Cells::unread());
        };
        known.insert(key, Rc::clone(&cells));
        cells
    }

    /// The scope of a rate limit. It stays when the limit goes, so that its counts never fall.
    pub fn limit(&self, name: &str) -> Rc<Cells<LimitMetric>> {
        let mut known = self.limits.borrow_mut();
        if let Some(found) = known.get(name) {
            return Rc::clone(found);
        }
        let room = known.len() < MAX_RULES;
        let labels = || [(LIMIT, name.into())].into();
        let Some(cells) = room.then(|| self.registrar.try_cells(labels())).flatten().map(Rc::new) else {
            return Rc::new(Cells::unread());
        };
        known.insert(name.into(), Rc::clone(&cells));
        cells
    }

    /// A cluster is gone, and its statistics with it.
    pub fn forget_cluster(&self, name: &str) {
        self.clusters.borrow_mut().remove(name);
        self.connections.borrow_mut().remove(name);
    }
}

impl StreamEnd<'_> {
    /// Counts it where its connection manager counts, and where the cluster does that it went to.
    pub fn count(&self, http: &Cells<HttpMetric>, cluster: Option<&Cells<ClusterMetric>>) {
        downstream(http, self);
        if let Some(cluster) = cluster {
            http.increment(HttpMetric::RqTotal);
            upstream(cluster, self);
        }
    }
}

fn scope<M: InFamily>(scopes: &Scopes<M>, registrar: &Registrar, name: &str) -> Rc<Cells<M>> {
    if let Some(found) = scopes.borrow().get(name) {
        return found.clone();
    }
    let fresh = Rc::new(registrar.named(name));
    scopes.borrow_mut().insert(name.into(), fresh.clone());
    fresh
}

fn downstream(cells: &Cells<HttpMetric>, end: &StreamEnd<'_>) {
    use HttpMetric as M;
    cells.increment(M::DownstreamRqTotal);
    cells.increment(if end.version == Version::H2 { M::DownstreamRqHttp2Total } else { M::DownstreamRqHttp1Total });
    let class = match end.status / 100 {
        1 => Some(M::DownstreamRq1xx),
        2 => Some(M::DownstreamRq2xx),
        3 => Some(M::DownstreamRq3xx),
        4 => Some(M::DownstreamRq4xx),
        5 => Some(M::DownstreamRq5xx),
        _ => None,
    };
    if let Some(class) = class {
        cells.increment(class);
        cells.increment(M::DownstreamRqCompleted);
        cells.record(M::DownstreamRqTime, millis(end.total));
    }
    let by_flag = [
        (Flags::NR, M::NoRoute),
        (Flags::NC, M::NoCluster),
        (Flags::DC, M::DownstreamRqRxReset),
        (Flags::SI, M::DownstreamRqIdleTimeout),
        (Flags::FI, M::FaultAbortsInjected),
        (Flags::DI, M::FaultDelaysInjected),
        (Flags::RL, M::LocalRateLimited),
    ];
    for (_, metric) in by_flag.into_iter().filter(|(flag, _)| end.flags.intersects(*flag)) {
        cells.increment(metric);
    }
    let by_details = match end.details {
        "direct_response" if (300..400).contains(&end.status) => Some(M::RqRedirect),
        "direct_response" => Some(M::RqDirectResponse),
        "ext_authz_denied" => Some(M::ExtAuthzDenied),
        "ext_authz_error" => Some(M::ExtAuthzError),
        "request_payload_too_large" => Some(M::DownstreamRqTooLarge),
        "max_duration_timeout" => Some(M::DownstreamRqMaxDurationReached),
        "upgrade_failed" => Some(M::DownstreamRqWsOnNonWsRoute),
        details if details.starts_with("rbac_access_denied") => Some(M::RbacDenied),
        details if details.starts_with("jwt_authn_access_denied") => Some(M::JwtDenied),
        _ => None,
    };
    if let Some(metric) = by_details {
        cells.increment(metric);
    }
}

fn upstream(cells: &Cells<ClusterMetric>, end: &StreamEnd<'_>) {
    use ClusterMetric as M;
    cells.add(M::UpstreamRqTotal, u64::from(end.attempts));
    let class = match end.status / 100 {
        1 => Some(M::UpstreamRq1xx),
        2 => Some(M::UpstreamRq2xx),
        3 => Some(M::UpstreamRq3xx),
        4 => Some(M::UpstreamRq4xx),
        5 => Some(M::UpstreamRq5xx),
        _ => None,
    };
    if let Some(class) = class {
        cells.increment(class);
        cells.increment(M::UpstreamRqCompleted);
    }
    if let Some(time) = end.upstream {
        cells.record(M::UpstreamRqTime, millis(time));
    }
    if end.attempts > 1 {
        cells.add(M::UpstreamRqRetry, u64::from(end.attempts - 1));
        if (1..500).contains(&end.status) {
            cells.increment(M::UpstreamRqRetrySuccess);
        }
    }
    if end.details == "upstream_per_try_timeout" {
        cells.increment(M::UpstreamRqPerTryTimeout);
    }
    let by_flag = [
        (Flags::URX, M::UpstreamRqRetryLimitExceeded),
        (Flags::UT, M::UpstreamRqTimeout),
        (Flags::UO, M::UpstreamRqPendingOverflow),
        (Flags::UF, M::UpstreamCxConnectFail),
        (Flags::UH, M::UpstreamCxNoneHealthy),
        (Flags::UR, M::UpstreamRqRxReset),
        (Flags::UC, M::UpstreamCxDestroyWithActiveRq),
        (Flags::UPE, M::UpstreamCxProtocolError),
    ];
    for (_, metric) in by_flag.into_iter().filter(|(flag, _)| end.flags.intersects(*flag)) {
        cells.increment(metric);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::scrape::{Registry, Selection};
    use super::*;

    fn end(status: u16, flags: Flags, details: &'static str) -> StreamEnd<'static> {
        StreamEnd {
            version: Version::H11,
            status,
            flags,
            details,
            attempts: 1,
            total: Duration::from_millis(7),
            upstream: Some(Duration::from_millis(5)),
        }
    }

    /// `name value` of all counters that moved, histograms by their count.
    fn moved(streams: &[StreamEnd<'_>], cluster: Option<&str>) -> String {
        let mut registry = Registry::new();
        let stats = EnvoyStats::new(Rc::new(registry.registrar(10)));
        let cluster = cluster.map(|name| stats.cluster(name));
        streams.iter().for_each(|stream| stream.count(&stats.http("in"), cluster.as_deref()));
        let text = registry.collect().text(&Selection { used_only: true, ..Selection::default() });
        let plain = text.lines().filter(|line| !line.contains("P0"));
        plain.map(|line| line.replace(": ", " ")).collect::<Vec<_>>().join("\n")
    }

    // spec: ST-1, ST-2
    #[test]
    fn the_end_of_a_stream_is_counted_where_envoy_counts_it() {
        let retried = StreamEnd { attempts: 3, version: Version::H2, ..end(200, Flags::NONE, "via_upstream") };
        let failed = StreamEnd { upstream: None, ..end(503, Flags::UF, "upstream_reset_before_response_started") };
        let text = moved(&[retried, failed], Some("c"));
        let expected = "cluster.c.upstream_cx_connect_fail 1\n\
            cluster.c.upstream_rq_2xx 1\n\
            cluster.c.upstream_rq_5xx 1\n\
            cluster.c.upstream_rq_completed 2\n\
            cluster.c.upstream_rq_retry 2\n\
            cluster.c.upstream_rq_retry_success 1\n\
            cluster.c.upstream_rq_total 4\n\
            http.in.downstream_rq_2xx 1\n\
            http.in.downstream_rq_5xx 1\n\
            http.in.downstream_rq_completed 2\n\
            http.in.downstream_rq_http1_total 1\n\
            http.in.downstream_rq_http2_total 1\n\
            http.in.downstream_rq_total 2\n\
            http.in.rq_total 2";
        assert_eq!(text, expected);
        let local = |status, flags, details| moved(&[end(status, flags, details)], None);
        let cases = [
            (404, Flags::NR, "route_not_found", "http.in.no_route 1"),
            (301, Flags::NONE, "direct_response", "http.in.rq_redirect 1"),
            (200, Flags::NONE, "direct_response", "http.in.rq_direct_response 1"),
            (403, Flags::NONE, "rbac_access_denied_matched_policy[none]", "http.in.rbac.denied 1"),
            (503, Flags::FI, "fault_filter_abort", "http.in.fault.aborts_injected 1"),
            (429, Flags::RL, "local_rate_limited", "http.in.http_local_rate_limit.rate_limited 1"),
            (0, Flags::DC, "downstream_remote_disconnect", "http.in.downstream_rq_rx_reset 1"),
            (413, Flags::NONE, "request_payload_too_large", "http.in.downstream_rq_too_large 1"),
        ];
        for (status, flags, details, expected) in cases {
            let text = local(status, flags, details);
            assert!(text.lines().any(|line| line == expected), "{expected} in {text}");
        }
        assert!(!local(0, Flags::DC, "x").contains("completed"));
    }

    #[test]
    fn a_cluster_that_is_gone_leaves_no_statistics() {
        let mut registry = Registry::new();
        let stats = EnvoyStats::new(Rc::new(registry.registrar(10)));
        end(200, Flags::NONE, "").count(&stats.http("in"), Some(&stats.cluster("c")));
        let listener = stats.listener("127.0.0.1:80");
        let held = listener.hold(ListenerMetric::DownstreamCxActive);
        assert_eq!(registry.collect().value("listener.127.0.0.1_80.downstream_cx_active"), Some(1));
        drop(held);
        stats.forget_cluster("c");
        registry.collect();
        let snapshot = registry.collect();
        assert_eq!(snapshot.value("cluster.c.upstream_rq_total"), None);
        assert_eq!(snapshot.value("listener.127.0.0.1_80.downstream_cx_active"), Some(0));
    }
}
