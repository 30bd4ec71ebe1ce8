//! Recent traces, at bounded number of traces and of spans.

use super::point::{cut, text};
use foldhash::HashMap;
use proto::otlp::trace::{ResourceSpans, Span as Sent, status::StatusCode};
use std::collections::VecDeque;

/// Traces that are kept.
pub const MAX_TRACES: usize = 500;
/// Spans that are kept over all traces.
pub const MAX_SPANS: usize = 8_000;
/// Spans that one trace may have.
const MAX_SPANS_PER_TRACE: usize = 200;
/// Tags that are kept of a span.
const MAX_TAGS: usize = 24;
/// Longest text that is kept.
const MAX_TEXT_BYTES: usize = 128;

/// A part of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its trace, in hexadecimal.
    pub trace: String,
    /// Itself.
    pub id: String,
    /// Its parent; empty for the root.
    pub parent: String,
    /// Service that did it.
    pub service: String,
    /// What it did.
    pub name: String,
    /// When it began, Unix nanoseconds.
    pub start_nanos: u64,
    /// How long it took.
    pub duration_nanos: u64,
    /// Whether it failed.
    pub failed: bool,
    /// Further facts.
    pub tags: Vec<(String, String)>,
}

/// A trace.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// In hexadecimal.
    pub id: String,
    /// Its spans, as they came.
    pub spans: Vec<Span>,
}

impl Trace {
    /// From the first start to the last end, nanoseconds.
    pub fn bounds(&self) -> (u64, u64) {
        let start = self.spans.iter().map(|span| span.start_nanos).min().unwrap_or_default();
        let end = self.spans.iter().map(|span| span.start_nanos.saturating_add(span.duration_nanos)).max();
        (start, end.unwrap_or_default())
    }

    /// The span that has no parent here.
    pub fn root(&self) -> Option<&Span> {
        let known = |id: &str| self.spans.iter().any(|span| span.id == id);
        let roots = self.spans.iter().filter(|span| span.parent.is_empty() || !known(&span.parent));
        roots.min_by_key(|span| span.start_nanos)
    }
}

/// The recent ones.
#[derive(Debug, Default)]
pub struct Traces {
    order: VecDeque<String>,
    traces: HashMap<String, Trace>,
    spans: usize,
}

impl Traces {
    /// Adds a span; the oldest traces go when there are too many.
    pub fn add(&mut self, span: Span) {
        if !self.traces.contains_key(&span.trace) {
            self.order.push_back(span.trace.clone());
        }
        let id = span.trace.clone();
        let trace = self.traces.entry(id).or_insert_with(|| Trace { id: span.trace.clone(), spans: Vec::new() });
        // Both ends of a shared span (Zipkin) have one id: they are two spans here.
        if trace.spans.len() >= MAX_SPANS_PER_TRACE {
            return;
        }
        trace.spans.push(span);
        self.spans += 1;
        while self.order.len() > MAX_TRACES || (self.spans > MAX_SPANS && self.order.len() > 1) {
            let Some(oldest) = self.order.pop_front().and_then(|id| self.traces.remove(&id)) else { break };
            self.spans -= oldest.spans.len();
        }
    }

    /// All, the latest first.
    pub fn latest(&self) -> impl Iterator<Item = &Trace> {
        self.order.iter().rev().filter_map(|id| self.traces.get(id))
    }

    /// One of them.
    pub fn get(&self, id: &str) -> Option<&Trace> {
        self.traces.get(id)
    }
}

/// Spans of a message.
pub fn take(resources: &[ResourceSpans]) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in resources {
        let attributes = resource.resource.as_ref().map(|r| &r.attributes[..]).unwrap_or_default();
        let service = attributes.iter().find(|a| a.key == "service.name").and_then(|a| text(a.value.as_ref()));
        let service = short(service.as_deref().unwrap_or("unknown"));
        for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
            spans.extend(one(span, &service));
        }
    }
    spans
}

/// Nothing for ids of a wrong length.
fn one(span: &Sent, service: &str) -> Option<Span> {
    let sound = span.trace_id.len() == 16 && span.span_id.len() == 8;
    let tags = span.attributes.iter().take(MAX_TAGS);
    let tags: Vec<_> = tags.filter_map(|tag| Some((short(&tag.key), short(&text(tag.value.as_ref())?)))).collect();
    let erroneous = span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32);
    let tagged = tags.iter().any(|(name, value)| name == "error" && value == "true");
    sound.then(|| Span {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        service: service.to_owned(),
        name: short(&span.name),
        start_nanos: span.start_time_unix_nano,
        duration_nanos: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
        failed: erroneous || tagged,
        tags,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn short(text: &str) -> String {
    cut(text, MAX_TEXT_BYTES).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(trace: usize, id: usize) -> Span {
        Span {
            trace: format!("{trace:032x}"),
            id: format!("{id:016x}"),
            parent: if id == 0 { String::new() } else { format!("{:016x}", id - 1) },
            service: "s".into(),
            name: "n".into(),
            start_nanos: id as u64,
            duration_nanos: 10,
            failed: false,
            tags: Vec::new(),
        }
    }

    #[test]
    fn the_oldest_traces_go() {
        let mut traces = Traces::default();
        for trace in 0..MAX_TRACES + 10 {
            traces.add(span(trace, 0));
        }
        assert_eq!(traces.latest().count(), MAX_TRACES);
        assert!(traces.get(&format!("{:032x}", 9)).is_none() && traces.get(&format!("{:032x}", 10)).is_some());
        for trace in 0..100 {
            for id in 0..150 {
                traces.add(span(10_000 + trace, id));
            }
        }
        assert!(traces.latest().map(|trace| trace.spans.len()).sum::<usize>() <= MAX_SPANS);
        let last = traces.latest().next().unwrap();
        assert_eq!((last.bounds(), last.root().unwrap().id.as_str()), ((0, 159), "0000000000000000"));
    }
}
