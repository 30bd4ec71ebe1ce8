//! The page of a service, and the page of an edge: 15 minutes of figures, recent failures, objects.

use super::failures::{FailureView, latest};
use super::graph::{Call, words};
use super::mesh::{CallView, current};
use super::objects::Object;
use super::text::{ms, percent, rate};
use super::{Frame, Pages, answer};
use crate::report::entry::Entry;
use crate::report::traffic::{Edge, Node};
use crate::report::window::Sample;
use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

/// Failures that a page lists.
const FAILURES: usize = 20;
/// Parts that 15 minutes have.
const PARTS: f64 = 89.;
/// Seconds of one part of the history.
const PART_SECONDS: f64 = 10.;

#[derive(Template)]
#[template(path = "detail.html", blocks = ["content"])]
struct Page {
    frame: Frame,
    title: String,
    charts: Vec<Chart>,
    groups: Vec<Group>,
    failures: Vec<FailureView>,
    objects: Vec<Object>,
    objects_none: &'static str,
}

/// Calls under one title.
struct Group {
    title: &'static str,
    calls: Vec<CallView>,
}

/// One figure over 15 minutes.
struct Chart {
    name: &'static str,
    now: String,
    path: String,
    summary: String,
}

/// `GET /service/{namespace}/{name}`.
pub async fn service(
    State(pages): State<Pages>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let graph = current(&pages).await;
    let is = |node: &Node| node.namespace == namespace && node.app == name;
    let calls = |wanted: &dyn Fn(&Call) -> bool| graph.calls.iter().filter(|c| wanted(c)).map(CallView::new).collect();
    let groups = vec![
        Group { title: "Called by", calls: calls(&|call| is(&call.edge.destination)) },
        Group { title: "Calls", calls: calls(&|call| is(&call.edge.source)) },
    ];
    let (ns, app) = (namespace.clone(), name.clone());
    let of_edge = move |edge: &Edge| edge.destination.namespace == ns && edge.destination.app == app;
    let (ns, app) = (namespace.clone(), name.clone());
    let of_entry = move |entry: &Entry| {
        let node = entry.destination.node();
        let whole = entry.service.split('.').next() == Some(&*app);
        (node.namespace == ns && node.app == app) || whole
    };
    let title = format!("{name} ({namespace})");
    build(&pages, &headers, title, (groups, of_edge, of_entry), (&namespace, &name)).await
}

/// Both ends of an edge.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Ends {
    from_namespace: String,
    from: String,
    from_version: String,
    to_namespace: String,
    to: String,
    to_version: String,
}

impl Ends {
    fn matches(&self, source: &Node, destination: &Node) -> bool {
        let from = source.namespace == self.from_namespace && source.app == self.from;
        let to = destination.namespace == self.to_namespace && destination.app == self.to;
        from && to && source.version == self.from_version && destination.version == self.to_version
    }
}

/// `GET /edge`.
pub async fn edge(State(pages): State<Pages>, Query(ends): Query<Ends>, headers: HeaderMap) -> Response {
    let graph = current(&pages).await;
    let wanted = |call: &&Call| ends.matches(&call.edge.source, &call.edge.destination);
    let groups = vec![Group { title: "Now", calls: graph.calls.iter().filter(wanted).map(CallView::new).collect() }];
    let node = |namespace: &str, app: &str, version: &str| {
        let (namespace, app, version) = (namespace.to_owned(), app.to_owned(), version.to_owned());
        words(&Node { namespace, app, version })
    };
    let title = format!(
        "{} to {}",
        node(&ends.from_namespace, &ends.from, &ends.from_version),
        node(&ends.to_namespace, &ends.to, &ends.to_version)
    );
    let of = ends.clone();
    let of_edge = move |edge: &Edge| of.matches(&edge.source, &edge.destination);
    let of = ends.clone();
    let of_entry = move |entry: &Entry| {
        let (source, destination) = (entry.source.node(), entry.destination.node());
        let to_service = of.to_version.is_empty() && entry.service.split('.').next() == Some(&*of.to);
        of.matches(&source, &destination) || (to_service && source.app == of.from && source.version == of.from_version)
    };
    build(&pages, &headers, title, (groups, of_edge, of_entry), (&ends.to_namespace, &ends.to)).await
}

async fn build(
    pages: &Pages,
    headers: &HeaderMap,
    title: String,
    (groups, of_edge, of_entry): (
        Vec<Group>,
        impl Fn(&Edge) -> bool + Send + 'static,
        impl Fn(&Entry) -> bool + Send + 'static,
    ),
    (namespace, name): (&str, &str),
) -> Response {
    let frame = pages.frame("", true).await;
    let asked =
        pages.hub.ask(move |state, now| (state.traffic().history(now, of_edge), latest(state, FAILURES, of_entry)));
    let (history, failures) = asked.await.unwrap_or_default();
    let objects = pages.objects().await;
    let page = Page {
        frame,
        title,
        charts: charts(&history),
        groups,
        failures: failures.iter().map(|entry| FailureView::new(entry)).collect(),
        objects: objects.shaping(namespace, name).into_iter().cloned().collect(),
        objects_none: if pages.objects.is_some() { "None." } else { "Not known: mixer runs without --pilot." },
    };
    answer(headers, &page, &page.as_content())
}

fn charts(history: &[Sample]) -> Vec<Chart> {
    let share = |count: u64, sample: &Sample| count as f64 * 100. / sample.requests.max(1) as f64;
    let rates: Vec<f64> = history.iter().map(|s| s.requests as f64 / PART_SECONDS).collect();
    let failed: Vec<f64> = history.iter().map(|s| share(s.failed, s)).collect();
    let refused: Vec<f64> = history.iter().map(|s| share(s.refused, s)).collect();
    let latency = |q: f64| history.iter().map(|s| s.latency_ms(q).unwrap_or(0.)).collect::<Vec<f64>>();
    let in_ms = |value: f64| ms(Some(value));
    vec![
        chart("Requests per second", &rates, rate),
        chart("Failed", &failed, percent),
        chart("Refused", &refused, percent),
        chart("Median time", &latency(0.5), in_ms),
        chart("99th percentile", &latency(0.99), in_ms),
    ]
}

/// A line through the values, in a box of 100 by 40.
fn chart(name: &'static str, values: &[f64], words: impl Fn(f64) -> String) -> Chart {
    let most = values.iter().copied().fold(0., f64::max);
    let scale = if most > 0. { 36. / most } else { 0. };
    let step = 100. / (PARTS - 1.);
    // The last part stands at the right, however short the time is.
    let left = 100. - step * (values.len().max(1) - 1) as f64;
    let points = values.iter().enumerate().map(|(index, value)| {
        let command = if index == 0 { 'M' } else { 'L' };
        format!("{command}{:.1} {:.1}", left + index as f64 * step, 38. - value * scale)
    });
    let now = values.last().copied().unwrap_or_default();
    Chart {
        name,
        now: words(now),
        path: points.collect(),
        summary: format!("at most {}, now {}", words(most), words(now)),
    }
}
