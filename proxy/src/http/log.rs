//! The facts of a stream as access logs see them.

use crate::env::Instant;
use crate::filter::{End, StreamCx, StreamInfo};
use crate::message::RequestHead;
use crate::outcome::Reason;
use crate::route::Action;
use crate::telemetry::access_log::{AccessLog, Bytes, Entry, LogFacts, Times, Upstream};
use crate::telemetry::envoy::StreamEnd;
use std::time::Duration;

/// Counts a stream that has ended, at `now`, in Envoy's statistics.
pub(super) fn count(prefix: &str, cx: &StreamCx, end: &End<'_>, now: Instant) {
    let info = cx.info.borrow();
    let answered = info.response_start.is_some();
    cx.facts.stats.stream_ended(&StreamEnd {
        prefix,
        cluster: info.upstream.as_ref().map(|cluster| &*cluster.config.name),
        version: end.request.version,
        status: end.response.map_or(0, |head| head.status),
        flags: info.flags,
        details: info.details.as_deref().unwrap_or_default(),
        attempts: info.attempts,
        total: now.saturating_duration_since(cx.start),
        upstream: info.upstream_start.filter(|_| answered).map(|start| now.saturating_duration_since(start)),
    });
}

/// Writes the entries of a stream that has ended at `now`.
pub(super) fn write(logs: &[AccessLog], cx: &StreamCx, end: &End<'_>, now: Instant) {
    if logs.is_empty() {
        return;
    }
    let info = cx.info.borrow();
    let host = info.endpoint.as_ref().map(|endpoint| &*endpoint.text);
    let route = cx.route(end.request);
    // A filter may have answered before the router chose the cluster; the route names it all the same.
    let routed = match route.as_ref().map(|route| &route.action) {
        Some(Action::Cluster(name)) if info.cluster.is_none() && cx.cluster(name).is_some() => Some(&**name),
        _ => None,
    };
    let mut facts = LogFacts {
        request: Some(end.request),
        response: end.response,
        status: Some(match end.outcome.reason {
            Reason::DownstreamGone if end.response.is_none() => 0,
            _ => end.response.map_or(0, |head| head.status),
        }),
        route_name: route.as_ref().map(|route| &*route.name),
        entry: Entry::DownstreamEnd,
        ..facts(cx, end.request, &info, host)
    };
    facts.upstream.cluster = facts.upstream.cluster.or(routed);
    facts.times.total = Some(now.saturating_duration_since(cx.start));
    for log in logs {
        log.log(&facts, cx.random, &cx.facts.logs);
    }
}

/// What is known of a stream so far: for header templates as well.
pub(super) fn facts<'a>(
    cx: &'a StreamCx,
    request: &'a RequestHead,
    info: &'a StreamInfo,
    host: Option<&'a str>,
) -> LogFacts<'a> {
    let since = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(cx.start));
    let response_start = since(info.response_start);
    LogFacts {
        request: Some(request),
        trailers: info.trailers.as_ref(),
        protocol: Some(request.version),
        flags: info.flags,
        details: info.details.as_deref(),
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

/// Whole milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
