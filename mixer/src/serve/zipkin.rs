//! Zipkin's collector (MX-101): `POST /api/v2/spans`, JSON or protobuf. Spans become OTLP spans and go the same way.

use super::door::Client;
use super::otlp::{MAX_MESSAGE_BYTES, Otlp, Refused};
use super::otlp_http::{Encoding, body};
use crate::report::point::attribute;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use prost::Message as _;
use proto::otlp::resource::Resource;
use proto::otlp::trace::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode as SpanStatus};
use proto::otlp::trace_service::ExportTraceServiceRequest;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The route.
pub fn router(otlp: Otlp) -> Router {
    Router::new().route("/api/v2/spans", post(spans)).layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES)).with_state(otlp)
}

async fn spans(
    State(otlp): State<Otlp>,
    ConnectInfo(Client(peer)): ConnectInfo<Client>,
    headers: HeaderMap,
    sent: Bytes,
) -> Response {
    let (bytes, encoding) = match body(&headers, sent) {
        Ok(taken) => taken,
        Err(refused) => return refused.into_response(),
    };
    let spans = match encoding {
        Encoding::Json => serde_json::from_slice::<Vec<JsonSpan>>(&bytes)
            .map(|spans| spans.into_iter().filter_map(JsonSpan::into_otlp).collect())
            .map_err(|error| error.to_string()),
        Encoding::Protobuf => ListOfSpans::decode(bytes)
            .map(|list| list.spans.into_iter().map(ProtoSpan::into_otlp).collect::<Vec<_>>())
            .map_err(|error| error.to_string()),
    };
    let resource_spans = match spans {
        Ok(spans) => spans,
        Err(error) => return (StatusCode::BAD_REQUEST, error).into_response(),
    };
    match otlp.traces(ExportTraceServiceRequest { resource_spans }, (&peer).into()).await {
        Ok(_) => StatusCode::ACCEPTED.into_response(),
        Err(Refused::Forged(forged)) => (StatusCode::FORBIDDEN, forged.to_string()).into_response(),
        Err(Refused::Busy(busy)) => (StatusCode::SERVICE_UNAVAILABLE, busy.to_string()).into_response(),
    }
}

/// A span in Zipkin's JSON (`zipkin2-api.yaml`, `Span`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonSpan {
    trace_id: String,
    #[serde(default)]
    parent_id: String,
    id: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    /// Microseconds.
    #[serde(default)]
    timestamp: u64,
    #[serde(default)]
    duration: u64,
    #[serde(default)]
    local_endpoint: Endpoint,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default)]
    service_name: String,
}

impl JsonSpan {
    /// Nothing where an id is no hexadecimal number of the right length.
    fn into_otlp(self) -> Option<ResourceSpans> {
        let (trace, id) = (from_hex(&self.trace_id, 16)?, from_hex(&self.id, 8)?);
        let parent = if self.parent_id.is_empty() { Vec::new() } else { from_hex(&self.parent_id, 8)? };
        let kind = match self.kind.as_str() {
            "CLIENT" => SpanKind::Client,
            "SERVER" => SpanKind::Server,
            "PRODUCER" => SpanKind::Producer,
            "CONSUMER" => SpanKind::Consumer,
            _ => SpanKind::Internal,
        };
        let times = (self.timestamp, self.duration);
        Some(span([trace, id, parent], (kind, self.name), times, (self.local_endpoint.service_name, self.tags)))
    }
}

/// `zipkin.proto3.ListOfSpans` (openzipkin/zipkin-api:zipkin.proto).
#[derive(Clone, PartialEq, prost::Message)]
struct ListOfSpans {
    #[prost(message, repeated, tag = "1")]
    spans: Vec<ProtoSpan>,
}

/// `zipkin.proto3.Span`.
#[derive(Clone, PartialEq, prost::Message)]
struct ProtoSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    parent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
    #[prost(int32, tag = "4")]
    kind: i32,
    #[prost(string, tag = "5")]
    name: String,
    /// Microseconds.
    #[prost(fixed64, tag = "6")]
    timestamp: u64,
    #[prost(uint64, tag = "7")]
    duration: u64,
    #[prost(message, optional, tag = "8")]
    local_endpoint: Option<ProtoEndpoint>,
    #[prost(btree_map = "string, string", tag = "11")]
    tags: BTreeMap<String, String>,
}

/// `zipkin.proto3.Endpoint`.
#[derive(Clone, PartialEq, prost::Message)]
struct ProtoEndpoint {
    #[prost(string, tag = "1")]
    service_name: String,
}

impl ProtoSpan {
    fn into_otlp(self) -> ResourceSpans {
        let kind = match self.kind {
            1 => SpanKind::Client,
            2 => SpanKind::Server,
            3 => SpanKind::Producer,
            4 => SpanKind::Consumer,
            _ => SpanKind::Internal,
        };
        let service = self.local_endpoint.unwrap_or_default().service_name;
        let ids = [padded(self.trace_id, 16), self.id, self.parent_id];
        span(ids, (kind, self.name), (self.timestamp, self.duration), (service, self.tags))
    }
}

fn span(
    ids: [Vec<u8>; 3],
    (kind, name): (SpanKind, String),
    (start_us, duration_us): (u64, u64),
    (service, tags): (String, BTreeMap<String, String>),
) -> ResourceSpans {
    let [trace_id, span_id, parent_span_id] = ids;
    let failed = tags.contains_key("error");
    let start = start_us.saturating_mul(1000);
    let span = Span {
        trace_id,
        span_id,
        parent_span_id,
        name,
        kind: kind as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(duration_us.saturating_mul(1000)),
        attributes: tags.into_iter().map(|(name, value)| attribute(&name, &value)).collect(),
        status: failed.then(|| Status { code: SpanStatus::Error as i32, ..Status::default() }),
        ..Span::default()
    };
    ResourceSpans {
        resource: Some(Resource { attributes: vec![attribute("service.name", &service)], ..Resource::default() }),
        scope_spans: vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

fn from_hex(text: &str, bytes: usize) -> Option<Vec<u8>> {
    let sound = !text.is_empty() && text.len().is_multiple_of(2) && text.len() <= 2 * bytes && text.is_ascii();
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let value: Vec<u8> = digits.filter(|_| sound)?.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    Some(padded(value, bytes))
}

/// Ids of 64 bits are the lower half of an id of 128.
fn padded(mut id: Vec<u8>, bytes: usize) -> Vec<u8> {
    while id.len() < bytes {
        id.insert(0, 0);
    }
    id
}
