//! Recent traces, and one of them span by span.

use super::text::{nanos, time_of_day};
use super::{Frame, Pages, answer};
use crate::report::span::{Span, Trace};
use askama::Template;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use std::collections::BTreeMap;
use std::time::Duration;

/// Traces that the page lists.
const LISTED: usize = 100;
/// Width of a trace's picture.
const WIDTH: f64 = 200.;
/// Deeper spans are not indented further.
const MAX_DEPTH: usize = 20;

#[derive(Template)]
#[template(path = "traces.html", blocks = ["content"])]
struct List {
    frame: Frame,
    traces: Vec<TraceView>,
}

struct TraceView {
    id: String,
    time: String,
    service: String,
    name: String,
    spans: usize,
    took: String,
    failed: bool,
}

#[derive(Template)]
#[template(path = "trace.html", blocks = ["content"])]
struct One {
    frame: Frame,
    id: String,
    took: String,
    spans: Vec<SpanView>,
}

struct SpanView {
    id: String,
    indent: String,
    service: String,
    name: String,
    after: String,
    took: String,
    failed: bool,
    left: f64,
    width: f64,
    tags: Vec<(String, String)>,
}

/// `GET /traces`.
pub async fn list(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let frame = pages.frame("/traces", true).await;
    let asked = pages.hub.ask(|state, _| state.traces().latest().take(LISTED).map(line).collect::<Vec<_>>());
    let page = List { frame, traces: asked.await.unwrap_or_default() };
    answer(&headers, &page, &page.as_content())
}

fn line(trace: &Trace) -> TraceView {
    let (start, end) = trace.bounds();
    let root = trace.root();
    TraceView {
        id: trace.id.clone(),
        time: time_of_day(Duration::from_nanos(start)),
        service: root.map(|span| span.service.clone()).unwrap_or_default(),
        name: root.map(|span| span.name.clone()).unwrap_or_default(),
        spans: trace.spans.len(),
        took: nanos(end.saturating_sub(start)),
        failed: trace.spans.iter().any(|span| span.failed),
    }
}

/// `GET /trace/{id}`.
pub async fn one(State(pages): State<Pages>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let frame = pages.frame("/traces", true).await;
    let wanted = id.clone();
    let trace = pages.hub.ask(move |state, _| state.traces().get(&wanted).cloned()).await.flatten().unwrap_or_default();
    let (start, end) = trace.bounds();
    let page = One { frame, id, took: nanos(end.saturating_sub(start)), spans: spans(trace, start, end) };
    answer(&headers, &page, &page.as_content())
}

/// Spans with their children below them, in time.
fn spans(mut trace: Trace, start: u64, end: u64) -> Vec<SpanView> {
    trace.spans.sort_by_key(|span| (span.start_nanos, std::cmp::Reverse(span.duration_nanos)));
    let parents: BTreeMap<String, String> =
        trace.spans.iter().map(|span| (span.id.clone(), span.parent.clone())).collect();
    let depth = |span: &Span| {
        let mut at = &span.parent;
        (0..MAX_DEPTH).take_while(|_| parents.get(at).map(|parent| at = parent).is_some()).count()
    };
    let length = end.saturating_sub(start).max(1) as f64;
    let view = |span: &Span| SpanView {
        id: span.id.clone(),
        indent: "\u{a0}\u{a0}".repeat(depth(span)),
        service: span.service.clone(),
        name: span.name.clone(),
        after: nanos(span.start_nanos.saturating_sub(start)),
        took: nanos(span.duration_nanos),
        failed: span.failed,
        left: (span.start_nanos.saturating_sub(start) as f64 / length * WIDTH).round(),
        width: (span.duration_nanos as f64 / length * WIDTH).round().max(2.),
        tags: span.tags.clone(),
    };
    trace.spans.iter().map(view).collect()
}
