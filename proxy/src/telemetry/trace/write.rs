//! Spans for Zipkin (v2, JSON) and for OTLP, and the tags that Envoy gives them (TR-3).

use super::config::{Driver, TraceConfig};
use super::context::{Hex, hex};
use super::span::{Direction, Span, Teller, Try};
use crate::message::{Known, Version};
use crate::telemetry::access_log::LogFacts;
use crate::telemetry::otlp::{nanos, string};
use crate::telemetry::outbox::{Shape, field};
use prost::Message;
use proto::otlp::trace::span::SpanKind;
use proto::otlp::trace::{Span as Told, Status, status::StatusCode};
use serde_json::json;
use std::time::UNIX_EPOCH;

/// Appends a span in the words of the collector.
pub(super) fn span(driver: &Driver, span: &Span<'_>, teller: Teller<'_>, out: &mut Vec<u8>) {
    match &driver.to.shape {
        Shape::ZipkinSpans { .. } => {
            out.extend_from_slice(zipkin(span, teller).to_string().as_bytes());
            out.push(b',');
        }
        _ => field(2, &otlp(span).encode_to_vec(), out),
    }
}

fn text(hex: Hex) -> String {
    String::from_utf8(hex.into_vec()).unwrap_or_default()
}

fn zipkin(span: &Span<'_>, teller: Teller<'_>) -> serde_json::Value {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut endpoint = json!({"serviceName": teller.cluster});
    if let Some(local) = span.local {
        let family = if local.is_ipv4() { "ipv4" } else { "ipv6" };
        endpoint[family] = local.ip().to_string().into();
        endpoint["port"] = local.port().into();
    }
    let tags: serde_json::Map<_, _> =
        span.tags.iter().map(|(key, value)| ((*key).to_owned(), value.as_str().into())).collect();
    let mut told = json!({
        "traceId": span.context.trace_text(),
        "id": text(hex(span.context.span.into(), 16)),
        "name": span.name,
        "kind": if span.direction == Direction::Inbound { "SERVER" } else { "CLIENT" },
        "timestamp": micros(span.start.duration_since(UNIX_EPOCH).unwrap_or_default()),
        "duration": micros(span.duration),
        "localEndpoint": endpoint,
        "tags": tags,
    });
    if let Some(parent) = span.context.parent {
        told["parentId"] = text(hex(parent.into(), 16)).into();
    }
    if span.shared {
        told["shared"] = true.into();
    }
    told
}

fn otlp(span: &Span<'_>) -> Told {
    let start = nanos(span.start);
    Told {
        trace_id: span.context.trace.to_be_bytes().to_vec(),
        span_id: span.context.span.to_be_bytes().to_vec(),
        parent_span_id: span.context.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        name: span.name.to_owned(),
        kind: if span.direction == Direction::Inbound { SpanKind::Server } else { SpanKind::Client }.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(u64::try_from(span.duration.as_nanos()).unwrap_or(u64::MAX)),
        attributes: span.tags.iter().map(|(key, value)| string(key, value.as_str())).collect(),
        status: span.failed.then(|| Status { code: StatusCode::Error.into(), ..Status::default() }),
        ..Told::default()
    }
}

/// Envoy's tags of a request, and the configured ones.
pub(super) fn tags<'a>(config: &'a TraceConfig, facts: &LogFacts<'_>, teller: Teller<'_>) -> Vec<(&'a str, String)> {
    let mut tags: Vec<(&'a str, String)> = vec![("component", "proxy".to_owned()), ("node_id", teller.node.to_owned())];
    if let Some(head) = facts.request {
        let header = |known| head.headers.get(known).map(|value| String::from_utf8_lossy(value).into_owned());
        if let Some(id) = header(Known::XRequestId) {
            tags.push(("guid:x-request-id", id));
        }
        if let Some(id) = header(Known::XClientTraceId) {
            tags.push(("guid:x-client-trace-id", id));
        }
        let path =
            header(Known::XEnvoyOriginalPath).unwrap_or_else(|| String::from_utf8_lossy(head.path()).into_owned());
        let path: String = path.chars().take(config.max_path).collect();
        let (scheme, host) = (String::from_utf8_lossy(head.scheme()), String::from_utf8_lossy(head.authority()));
        tags.push(("http.url", format!("{scheme}://{host}{path}")));
        tags.push(("http.method", String::from_utf8_lossy(head.method()).into_owned()));
        tags.push(("user_agent", header(Known::UserAgent).unwrap_or_else(|| "-".to_owned())));
        tags.push((
            "downstream_cluster",
            header(Known::XEnvoyDownstreamServiceCluster).unwrap_or_else(|| "-".to_owned()),
        ));
    }
    tags.push(("http.protocol", facts.protocol.map_or("-", Version::as_str).to_owned()));
    if let Some(peer) = facts.peer {
        tags.push(("peer.address", peer.direct_remote.ip().to_string()));
    }
    if let Some(cluster) = facts.upstream.cluster {
        tags.push(("upstream_cluster", cluster.to_owned()));
        tags.push(("upstream_cluster.name", facts.upstream.cluster_alias.unwrap_or(cluster).to_owned()));
    }
    if let Some(host) = facts.upstream.host {
        tags.push(("upstream_address", host.to_owned()));
    }
    let status = facts.status.unwrap_or_default();
    tags.push(("http.status_code", status.to_string()));
    if let Some(status) = facts.grpc_status() {
        tags.push(("grpc.status_code", status.to_string()));
    }
    tags.push(("request_size", facts.bytes.received.to_string()));
    tags.push(("response_size", facts.bytes.sent.to_string()));
    tags.push(("response_flags", facts.flags.to_string()));
    if status == 0 || status >= 500 {
        tags.push(("error", "true".to_owned()));
    }
    tags.extend(config.tags.iter().filter_map(|tag| Some((tag.name(), tag.value(facts)?))));
    tags
}

/// Tags of a try.
pub(super) fn tags_of_try(one: &Try) -> Vec<(&'static str, String)> {
    let mut tags = vec![
        ("component", "proxy".to_owned()),
        ("upstream_cluster", one.cluster.to_string()),
        ("http.status_code", one.status.to_string()),
    ];
    if let Some(peer) = &one.peer {
        tags.push(("upstream_address", peer.to_string()));
    }
    if one.status == 0 || one.status >= 500 {
        tags.push(("error", "true".to_owned()));
    }
    tags
}
