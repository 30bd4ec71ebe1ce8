//! The facts of a stream as access logs see them.

use super::config::HcmConfig;
use crate::env::Instant;
use crate::filter::{End, StreamCx, StreamInfo, ends};
use crate::message::{Known, RequestHead, ResponseHead};
use crate::outcome::Reason;
use crate::route::Action;
use crate::telemetry::Cells;
use crate::telemetry::access_log::{Bytes, Entry, LogFacts, Times, Upstream, is_of_network, provenance};
use crate::telemetry::envoy::StreamEnd;
use crate::telemetry::names::HttpMetric;
use crate::telemetry::tap::Seen;
use crate::telemetry::trace::{Teller, Trace};
use std::time::Duration;

/// Counts a stream that has ended, at `now`, in Envoy's statistics: `cells` are its connection manager's.
pub(super) fn count(cells: &Cells<HttpMetric>, cx: &StreamCx, end: &End<'_>, now: Instant) {
    let info = cx.info.borrow();
    let total = now.saturating_duration_since(cx.start);
    let answered = info.response_start.is_some();
    let cluster = info.upstream.as_ref().map(|cluster| cluster.requests(&cx.facts.stats));
    let ended = StreamEnd {
        version: end.request.version,
        status: end.response.map_or(0, |head| head.status),
        flags: info.flags,
        details: info.details.as_deref().unwrap_or_default(),
        attempts: info.attempts,
        total,
        upstream: info.upstream_start.filter(|_| answered).map(|start| match start == cx.start {
            true => total,
            false => now.saturating_duration_since(start),
        }),
    };
    ended.count(cells, cluster);
}

/// Writes the entries of a stream that has ended at `now`, and its spans.
pub(super) fn write(config: &HcmConfig, cx: &StreamCx, end: &End<'_>, now: Instant) {
    let info = cx.info.borrow();
    let trace = info.trace.as_ref().filter(|trace| trace.is_sampled());
    let taps = &cx.facts.taps;
    if config.access_log.is_empty() && trace.is_none() && !taps.any() {
        return;
    }
    let host = info.endpoint.as_ref().map(|endpoint| &*endpoint.text);
    let route = cx.route(end.request);
    // A filter may have answered before the router chose the cluster; the route names it all the same.
    let routed = match route.map(|route| &route.action) {
        Some(Action::Cluster(name)) if info.cluster().is_none() && cx.cluster(name).is_some() => Some(&**name),
        _ => None,
    };
    // Changed in place: the facts are some 900 bytes, which `..facts(…)` would copy.
    let mut facts = facts(cx, end.request, &info, host);
    facts.response = end.response;
    facts.status = Some(match end.outcome.reason {
        Reason::DownstreamGone if end.response.is_none() => 0,
        _ => end.response.map_or(0, |head| head.status),
    });
    facts.route_name = route.map(|route| &*route.name);
    facts.origin = route.and_then(|route| route.origin.as_deref());
    facts.entry = Entry::DownstreamEnd;
    facts.upstream.cluster = facts.upstream.cluster.or(routed);
    facts.times.total = Some(now.saturating_duration_since(cx.start));
    for log in &config.access_log {
        log.log(&facts, cx.random, &cx.facts.logs);
    }
    if let Some(trace) = trace {
        let teller = Teller { node: &cx.facts.node.id, cluster: &cx.facts.node.cluster };
        trace.report(&facts, teller, &cx.facts.logs.outbox);
    }
    if taps.any() {
        taps.ended(&seen(cx, &info, &facts), now, || ends(end.request, cx, true));
    }
}

/// Shows a request that has begun to who wants to see it.
pub(super) fn began(cx: &StreamCx, request: &RequestHead) {
    let info = cx.info.borrow();
    let facts = facts(cx, request, &info, None);
    cx.facts.taps.began(&seen(cx, &info, &facts), cx.start);
}

/// A request as taps see it.
fn seen<'a>(cx: &StreamCx, info: &StreamInfo, facts: &'a LogFacts<'a>) -> Seen<'a> {
    let mutual_tls = match cx.inbound {
        true => cx.peer.is_mutual(),
        false => info.upstream_identity.is_some(),
    };
    Seen { id: cx.random, inbound: cx.inbound, mutual_tls, facts }
}

/// What is known of a stream so far: for header templates as well.
pub(super) fn facts<'a>(
    cx: &'a StreamCx,
    request: &'a RequestHead,
    info: &'a StreamInfo,
    host: Option<&'a str>,
) -> LogFacts<'a> {
    // Where nothing waited, times are the start itself: a comparison costs less than a subtraction.
    let since = |at: Option<Instant>| {
        at.map(|at| if at == cx.start { Duration::ZERO } else { at.saturating_duration_since(cx.start) })
    };
    let response_start = since(info.response_start);
    LogFacts {
        request: Some(request),
        trailers: info.trailers.as_ref(),
        protocol: Some(request.version),
        flags: info.flags,
        details: info.details.as_deref(),
        outcome: info.outcome.as_deref(),
        told: info.told.as_deref(),
        reached: info.reached,
        downstream_workload: info.downstream_workload.as_deref(),
        upstream_workload: info.upstream_workload.as_deref(),
        metadata: info.metadata.as_deref(),
        trace: info.trace.as_ref().map(Trace::context),
        bytes: Bytes {
            received: info.received.bytes(),
            sent: info.bytes_sent,
            downstream_header_received: info.header_bytes_received,
            downstream_header_sent: info.header_bytes_sent,
            downstream_wire_received: info.header_bytes_received + info.received.bytes(),
            downstream_wire_sent: info.header_bytes_sent + info.bytes_sent,
            ..Bytes::default()
        },
        start: Some(cx.facts.env.wall(cx.start)),
        times: Times {
            request_end: since(info.received.ended(cx.start)),
            upstream_request_start: since(info.upstream_start),
            upstream_response_start: response_start,
            response_start,
            response_end: since(info.response_end),
            ..Times::default()
        },
        peer: Some(&cx.peer),
        upstream: Upstream {
            host,
            cluster: info.upstream.as_ref().map(|cluster| &*cluster.config.name),
            local: info.upstream_local,
            transport_failure: info.transport_failure.as_deref(),
            attempts: (info.attempts > 0).then_some(info.attempts),
            ..Upstream::default()
        },
        ..LogFacts::default()
    }
}

/// Tells a peer of the mesh, who has proven its identity, why this proxy answers by itself (design decision J).
pub(super) fn tell_peer(cx: &StreamCx, request: &RequestHead, head: &mut ResponseHead) {
    let info = cx.info.borrow();
    if info.outcome.is_none() || !cx.peer.is_mutual() {
        return;
    }
    let host = info.endpoint.as_ref().map(|endpoint| &*endpoint.text);
    let route = cx.route(request);
    let origin = route.and_then(|route| route.origin.as_deref());
    let text = provenance(&LogFacts { origin, ..facts(cx, request, &info, host) });
    head.headers.set(Known::XFerromeshReason, text.as_bytes());
}

/// Whether the proxy of a proven peer says that its application has seen nothing of the request.
pub(super) fn is_unreached(info: &StreamInfo, head: &ResponseHead) -> bool {
    info.upstream_identity.is_some() && head.headers.get(Known::XFerromeshReason).is_some_and(is_of_network)
}

/// Takes what a proxy on the way says of why it answered by itself. Only a proven peer is believed, and the client sees
/// it only where it is one itself.
pub(super) fn told(cx: &StreamCx, info: &mut StreamInfo, head: &mut ResponseHead) {
    let Some(text) = head.headers.get(Known::XFerromeshReason) else { return };
    if info.upstream_identity.is_some() {
        info.told = Some(String::from_utf8_lossy(text).into());
    }
    if info.upstream_identity.is_none() || !cx.peer.is_mutual() {
        head.headers.remove(Known::XFerromeshReason);
    }
}

/// Whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
