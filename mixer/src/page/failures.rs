//! Failed requests with their full reason (D13).

use super::graph::words;
use super::text::time_of_day;
use super::{Frame, Pages, answer};
use crate::report::entry::{Entry, Kind, Party};
use crate::report::state::State as Known;
use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use std::sync::Arc;

/// Failures that the page lists.
const LISTED: usize = 100;

#[derive(Template)]
#[template(path = "failures.html", blocks = ["content"])]
struct Page {
    frame: Frame,
    failures: Vec<FailureView>,
    remembered: usize,
}

/// A failed request, in words.
#[derive(Debug, Clone)]
pub struct FailureView {
    /// Tells it apart from others, over refreshes.
    pub key: String,
    /// Status and flags.
    pub outcome: String,
    /// Method, host and path.
    pub request: String,
    /// When.
    pub time: String,
    /// One sentence.
    pub why: String,
    /// Everything else that is known.
    pub facts: Vec<(&'static str, String)>,
}

impl FailureView {
    /// An entry in words.
    pub fn new(entry: &Entry) -> Self {
        let request = match entry.kind {
            Kind::Http => format!("{} {}{}", entry.method, entry.authority, entry.path),
            _ => format!("connection to {}", entry.service),
        };
        let status = if entry.code == 0 { "no answer".to_owned() } else { entry.code.to_string() };
        let outcome = if entry.flags.is_empty() { status } else { format!("{status} {}", entry.flags) };
        Self {
            key: format!("{} {} {}", entry.node, entry.start.as_micros(), entry.request_id),
            outcome,
            request,
            time: time_of_day(entry.start),
            why: entry.sentence(),
            facts: facts(entry),
        }
    }
}

/// What is known, without what is not.
fn facts(entry: &Entry) -> Vec<(&'static str, String)> {
    let reason = &entry.reason;
    let [upstream, _, downstream_local, downstream] = &entry.addresses;
    let tries = if entry.attempts > 0 { entry.attempts.to_string() } else { String::new() };
    let facts = [
        ("Guilty side", reason.side.clone()),
        ("Peer", reason.peer.clone()),
        ("Limit", reason.limit.clone()),
        ("Policy", reason.policy.clone()),
        ("Object", reason.object.clone()),
        ("From", party(&entry.source)),
        ("To", party(&entry.destination)),
        ("Service", entry.service.clone()),
        ("Reported by", entry.node.clone()),
        ("Details", entry.details.clone()),
        ("Transport", entry.transport_failure.clone()),
        ("Connection ended", entry.termination.clone()),
        ("gRPC status", entry.grpc_status.clone()),
        ("Route", entry.route.clone()),
        ("Cluster", entry.cluster.clone()),
        ("Endpoint", upstream.clone()),
        ("Asked at", downstream_local.clone()),
        ("Client's address", downstream.clone()),
        ("Tries", tries),
        ("Took", format!("{} ms", entry.duration.as_millis())),
        ("Bytes", format!("{} received, {} sent", entry.request_bytes.1, entry.response_bytes.1)),
        ("Request id", entry.request_id.clone()),
        ("User agent", entry.user_agent.clone()),
        ("SNI", entry.server_name.clone()),
        ("Mutual TLS", if entry.mutual_tls { "yes".to_owned() } else { String::new() }),
    ];
    facts.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn party(party: &Party) -> String {
    let node = party.node();
    let name =
        if party.app.is_empty() { party.address.map(|a| a.to_string()).unwrap_or_default() } else { words(&node) };
    let pod = if party.name.is_empty() { String::new() } else { format!(", pod {}", party.name) };
    let principal = if party.principal.is_empty() { String::new() } else { format!(", {}", party.principal) };
    format!("{name}{pod}{principal}")
}

/// The latest failures that are wanted.
pub fn latest(state: &Known, count: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
    state.failures().filter(|entry| wanted(entry)).take(count).cloned().collect()
}

/// `GET /failures`.
pub async fn show(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let frame = pages.frame("/failures", true).await;
    let asked = pages.hub.ask(|state, _| (latest(state, LISTED, |_| true), state.failures().count()));
    let (failures, remembered) = asked.await.unwrap_or_default();
    let failures = failures.iter().map(|entry| FailureView::new(entry)).collect();
    let page = Page { frame, failures, remembered };
    answer(&headers, &page, &page.as_content())
}
