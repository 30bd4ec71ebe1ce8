//! One line of a tap: JSON, bounded, without what must not be seen.

use super::ask::path;
use super::{Ask, Seen};
use crate::message::Headers;
use crate::telemetry::access_log::{PARTS, TimeFormat};
use crate::telemetry::istio::{Ends, Workload};
use bytes::Bytes;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest text that is shown, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// Headers whose values are never shown: they let others in.
const SECRET: [&str; 4] = ["authorization", "cookie", "set-cookie", "proxy-authorization"];
/// Headers whose values are URLs or paths: their queries are hidden as that of the path is.
const WITH_QUERY: [&str; 4] = ["referer", "location", "content-location", "x-envoy-original-path"];
/// Stands for what is not shown.
const HIDDEN: &str = "[hidden]";

type Text<'a> = Cow<'a, str>;
type Shown<'a> = BTreeMap<&'a str, Text<'a>>;

/// A request, at its beginning and at its end.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    event: &'static str,
    id: String,
    time: String,
    direction: &'static str,
    protocol: Option<&'static str>,
    method: Text<'a>,
    scheme: Text<'a>,
    authority: Text<'a>,
    path: Text<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    request_headers: Shown<'a>,
    /// The client's address.
    source_address: Option<String>,
    /// The address that the client dialled.
    destination_address: Option<String>,
    #[serde(rename = "mTLS")]
    mutual_tls: bool,
    trace_id: Option<String>,
    #[serde(flatten)]
    end: Option<End<'a>>,
}

/// What is known at its end alone.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct End<'a> {
    source: Party<'a>,
    destination: Party<'a>,
    service: &'a str,
    route: Option<Text<'a>>,
    cluster: Option<Text<'a>>,
    endpoint: Option<Text<'a>>,
    attempts: u32,
    status: u16,
    grpc_status: Option<u32>,
    flags: String,
    details: Option<Text<'a>>,
    /// Why it did not go as its client wanted (D13).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reason: Shown<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    response_headers: Shown<'a>,
    bytes_received: u64,
    bytes_sent: u64,
    /// From the first byte of the request to the last of the answer.
    total_ms: Option<f64>,
    /// From the first byte to the server to the first one of its answer.
    upstream_ms: Option<f64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Party<'a> {
    workload: Option<&'a str>,
    namespace: Option<&'a str>,
    principal: Option<&'a str>,
}

/// The line of a request that has begun.
pub(super) fn opened(seen: &Seen<'_>, ask: &Ask) -> Option<Bytes> {
    written(&request(seen, ask, "open")?)
}

/// The line of a request that has ended.
pub(super) fn ended(seen: &Seen<'_>, ends: &Ends, ask: &Ask) -> Option<Bytes> {
    let facts = seen.facts;
    let (times, upstream) = (&facts.times, &facts.upstream);
    let clipped = |value: &'_ str| text(value.as_bytes()).into_owned().into();
    let end = End {
        source: party(&ends.source),
        destination: party(&ends.destination),
        service: &ends.service.host,
        route: facts.route_name.filter(|name| !name.is_empty()).map(clipped),
        cluster: upstream.cluster.map(clipped),
        endpoint: upstream.host.map(clipped),
        attempts: upstream.attempts.unwrap_or(0),
        status: facts.status.unwrap_or(0),
        grpc_status: facts.grpc_status(),
        flags: facts.flags.to_string(),
        details: facts.details.map(clipped),
        reason: PARTS.iter().filter_map(|(name, part)| Some((*name, clipped(&part.of(facts)?)))).collect(),
        response_headers: facts.response.map(|head| shown(&head.headers, ask)).unwrap_or_default(),
        bytes_received: facts.bytes.received,
        bytes_sent: facts.bytes.sent,
        total_ms: times.total.map(millis),
        upstream_ms: times
            .upstream_request_start
            .zip(times.upstream_response_start)
            .map(|(start, end)| millis(end.saturating_sub(start))),
    };
    written(&Line { end: Some(end), ..request(seen, ask, "request")? })
}

fn request<'a>(seen: &Seen<'a>, ask: &'a Ask, event: &'static str) -> Option<Line<'a>> {
    let facts = seen.facts;
    let head = facts.request?;
    let mut time = Vec::with_capacity(24);
    if let Some(start) = facts.start {
        TimeFormat::iso().write(start, &mut time);
    }
    Some(Line {
        event,
        id: format!("{:016x}", seen.id),
        time: String::from_utf8_lossy(&time).into_owned(),
        direction: if seen.inbound { "inbound" } else { "outbound" },
        protocol: facts.protocol.map(|version| version.as_str()),
        method: text(head.method()),
        scheme: text(head.scheme()),
        authority: text(head.authority()),
        path: with_query(path(head), ask),
        request_headers: shown(&head.headers, ask),
        source_address: facts.peer.map(|peer| peer.remote.to_string()),
        destination_address: facts.peer.map(|peer| peer.local.to_string()),
        mutual_tls: seen.mutual_tls,
        trace_id: facts.trace.map(|span| span.trace_text()),
        end: None,
    })
}

fn written(line: &Line<'_>) -> Option<Bytes> {
    let mut out = serde_json::to_vec(line).ok()?;
    out.push(b'\n');
    Some(out.into())
}

fn party(workload: &Workload) -> Party<'_> {
    let known = |text: &'_ str| (!text.is_empty() && text != "unknown").then_some(());
    Party {
        workload: known(&workload.name).map(|()| &*workload.name),
        namespace: known(&workload.namespace).map(|()| &*workload.namespace),
        principal: known(&workload.principal).map(|()| &*workload.principal),
    }
}

/// The headers that are asked for by name.
fn shown<'a>(headers: &'a Headers, ask: &'a Ask) -> Shown<'a> {
    let value = |name: &'a String| {
        let value = headers.joined(name.as_bytes())?;
        Some((
            name.as_str(),
            match name.as_str() {
                secret if SECRET.contains(&secret) => HIDDEN.into(),
                url if WITH_QUERY.contains(&url) => with_query(&value, ask).into_owned().into(),
                _ => text(&value).into_owned().into(),
            },
        ))
    };
    ask.shown.iter().filter_map(value).collect()
}

/// A path or URL; the values of its query only where they are asked for.
fn with_query<'a>(path: &'a [u8], ask: &Ask) -> Text<'a> {
    let Some(at) = path.iter().position(|byte| *byte == b'?').filter(|_| !ask.show_query) else { return text(path) };
    let (bare, query) = path.split_at(at);
    let mut out = text(bare).into_owned();
    for (index, pair) in query.get(1..).unwrap_or_default().split(|byte| *byte == b'&').enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        // A text without a name is a value.
        if let Some(end) = pair.iter().position(|byte| *byte == b'=') {
            out.push_str(&text(pair.get(..end).unwrap_or_default()));
            out.push('=');
        }
        if !pair.is_empty() {
            out.push_str(HIDDEN);
        }
        if out.len() > MAX_TEXT_BYTES {
            out.push('…');
            break;
        }
    }
    out.into()
}

/// Text of limited length; bytes that are no UTF-8 become replacement characters.
fn text(bytes: &[u8]) -> Text<'_> {
    match bytes.get(..MAX_TEXT_BYTES) {
        Some(start) if bytes.len() > MAX_TEXT_BYTES => format!("{}…", String::from_utf8_lossy(start)).into(),
        _ => String::from_utf8_lossy(bytes),
    }
}

/// Milliseconds, to the microsecond.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
