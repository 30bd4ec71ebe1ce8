//! `istio.stats`: Istio's standard metrics at the end of a request (TM-1 to TM-4, LBL-1 to LBL-6), and the messages of a gRPC
//! stream while it is open (TL-3).

use super::{End, StreamCx, is_grpc, peer_metadata};
use crate::cluster::Cluster;
use crate::message::{Known, RequestHead};
use crate::outcome::Reason;
use crate::refusal::Refusal;
use crate::route::Action;
use crate::telemetry::access_log::{LogFacts, Upstream};
use crate::telemetry::istio::{Changes, Ends, Reporter, RequestReport, Security, Service, Workload};
use proto::any;
use proto::duration::from_proto;
use proto::envoy::wkt::Any;
use proto::missing::PluginConfig;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Time between two reports of what goes on, where nothing is said.
pub const PERIOD: Duration = Duration::from_secs(5);
/// Reports are not made more often than this.
pub const SHORTEST_PERIOD: Duration = Duration::from_millis(100);

/// What a chain reports.
#[derive(Debug, Clone)]
pub struct Stats {
    host_fallback: bool,
    changes: Option<Arc<Changes>>,
    /// Time between two reports of a gRPC stream that goes on.
    pub(super) period: Duration,
}

/// Time between two reports of what goes on (`tcp_reporting_duration`, which holds for gRPC streams as well).
pub fn period(written: &PluginConfig) -> Duration {
    written.tcp_reporting_duration.as_ref().map_or(PERIOD, from_proto).max(SHORTEST_PERIOD)
}

/// Parses the filter.
///
/// # Errors
/// A change of metrics that are not Istio's.
pub fn parse(typed: &Any) -> Result<Stats, Refusal> {
    let written: PluginConfig = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let changes = Changes::parse(&written.metrics)?;
    Ok(Stats { host_fallback: !written.disable_host_header_fallback, changes, period: period(&written) })
}

impl Stats {
    /// Counts the messages since the last time. To the client's side the server is not known before it answers.
    pub(super) fn on_period(&self, cx: &StreamCx) {
        if cx.inbound || cx.info.borrow().response_start.is_some() {
            self.count_messages(cx);
        }
    }

    /// As Istio does it, a label of the user's own sees the connections only, not the heads: a stream has one series from its
    /// beginning to its end.
    fn count_messages(&self, cx: &StreamCx) {
        let info = cx.info.borrow();
        let Some(grpc) = &info.grpc else { return };
        let ends = sides(cx, || None, || self.host_fallback.then_some(&*grpc.host));
        let facts = LogFacts {
            peer: Some(&cx.peer),
            upstream: Upstream {
                host: info.endpoint.as_ref().map(|endpoint| &*endpoint.text),
                cluster: info.cluster(),
                local: info.upstream_local,
                ..Upstream::default()
            },
            ..LogFacts::default()
        };
        cx.facts.metrics.messages(&ends, grpc.untold(), self.changes.as_ref().map(|changes| (changes, &facts)));
    }

    pub(super) fn on_end(&self, end: &End<'_>, cx: &StreamCx) {
        self.count_messages(cx);
        let ends = ends(end.request, cx, self.host_fallback);
        let info = cx.info.borrow();
        let grpc = is_grpc(end.request);
        let in_trailers = info.trailers.as_ref().and_then(|trailers| trailers.get(Known::GrpcStatus));
        let in_headers = end.response.and_then(|head| head.headers.get(Known::GrpcStatus));
        let status = in_trailers.or(in_headers).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        let code = match end.outcome.reason {
            Reason::DownstreamGone => 0,
            _ => end.response.map_or(0, |head| head.status),
        };
        let route = self.changes.as_ref().and_then(|_| cx.route(end.request));
        let facts = self.changes.as_ref().map(|_| LogFacts {
            request: Some(end.request),
            response: end.response,
            trailers: info.trailers.as_ref(),
            protocol: Some(end.request.version),
            status: Some(code),
            flags: info.flags,
            details: info.details.as_deref(),
            peer: Some(&cx.peer),
            route_name: route.map(|route| &*route.name),
            upstream: Upstream {
                host: info.endpoint.as_ref().map(|endpoint| &*endpoint.text),
                cluster: info.cluster(),
                local: info.upstream_local,
                transport_failure: info.transport_failure.as_deref(),
                attempts: (info.attempts > 0).then_some(info.attempts),
                ..Upstream::default()
            },
            ..LogFacts::default()
        });
        cx.facts.metrics.report(
            &ends,
            &RequestReport {
                code,
                flags: info.flags,
                grpc_status: status.filter(|_| grpc),
                is_grpc: grpc,
                duration: info.response_end.unwrap_or_else(|| cx.now()).saturating_duration_since(cx.start),
                request_bytes: info.received.bytes() + info.header_bytes_received,
                response_bytes: info.bytes_sent + info.header_bytes_sent,
            },
            self.changes.as_ref().zip(facts.as_ref()),
        );
    }
}

/// The two ends of a request, and the service that was asked for; with `host_fallback` the Host header names the service
/// where its cluster does not.
pub fn ends(request: &RequestHead, cx: &StreamCx, host_fallback: bool) -> Ends {
    // A filter may have answered before the router chose the cluster; the route names it all the same.
    let routed = || match cx.route(request).as_ref().map(|route| &route.action) {
        Some(Action::Cluster(name)) => cx.cluster(name),
        _ => None,
    };
    sides(cx, routed, || host_fallback.then(|| std::str::from_utf8(request.authority()).ok()).flatten())
}

fn sides<'h>(
    cx: &StreamCx,
    routed: impl FnOnce() -> Option<Rc<Cluster>>,
    host: impl FnOnce() -> Option<&'h str>,
) -> Ends {
    let (info, metrics) = (cx.info.borrow(), &cx.facts.metrics);
    let own = metrics.own(&cx.facts.node.workload);
    let routed = if info.cluster().is_none() { routed() } else { None };
    let service = match info.upstream.as_ref().or(routed.as_ref()).and_then(|cluster| cluster.config.service.as_ref()) {
        Some(metadata) => metrics.service_of(metadata),
        None => {
            let service = Service::of_cluster(info.cluster().unwrap_or(""), None, host());
            metrics.intern_service(service)
        }
    };
    if cx.inbound {
        let peer = cx.peer.peer_id();
        let source = info
            .downstream_workload
            .clone()
            .or_else(|| metrics.workload_of(b"", peer, || Some(Workload::new(|_| None, peer))))
            .unwrap_or_default();
        let security = Security::of(Reporter::Destination, cx.peer.is_mutual());
        return Ends { reporter: Reporter::Destination, source, destination: own, service, security };
    }
    let identity = info.upstream_identity.as_deref();
    let by_endpoint = || {
        let text = info.endpoint.as_ref().and_then(|endpoint| endpoint.workload.as_deref()).unwrap_or_default();
        let read = || match text {
            "" => Some(Workload::default()),
            text => Some(peer_metadata::of_endpoint(text, identity)),
        };
        metrics.workload_of(text.as_bytes(), identity.filter(|_| !text.is_empty()), read)
    };
    let destination = info.upstream_workload.clone().or_else(by_endpoint).unwrap_or_default();
    let security = Security::of(Reporter::Source, false);
    Ends { reporter: Reporter::Source, source: own, destination, service, security }
}
