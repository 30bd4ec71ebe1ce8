//! The graph page.

use super::graph::{Call, Figures, Graph, Health, Service, WINDOW_SECONDS, words};
use super::layout::{BOX_WIDTH, Drawn, Layout, Placed, place};
use super::text::{bytes_rate, encoded, ms, percent, rate, short};
use super::{Frame, Pages, answer};
use crate::report::traffic::{Edge, Node};
use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use std::time::Duration;

/// What has been silent for so long is no longer drawn.
const FORGET: Duration = Duration::from_secs(15 * 60);

#[derive(Template)]
#[template(path = "graph.html", blocks = ["content"])]
struct Page {
    frame: Frame,
    width: f64,
    height: f64,
    left_out: usize,
    boxes: Vec<BoxView>,
    arrows: Vec<ArrowView>,
    calls: Vec<CallView>,
}

/// A box, drawn.
struct BoxView {
    name: String,
    link: String,
    health: Health,
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    rows: Vec<RowView>,
}

/// A row of a box, drawn.
struct RowView {
    name: String,
    short: String,
    aria: String,
    health: Health,
    mark: String,
    y: f64,
    middle: f64,
    height: f64,
}

/// An arrow, drawn.
struct ArrowView {
    from: String,
    to: String,
    link: String,
    aria: String,
    class: &'static str,
    path: String,
    tip: f64,
    x: f64,
    y: f64,
    first: String,
    second: String,
    lock: bool,
}

/// Calls in a table.
#[derive(Debug, Clone)]
pub struct CallView {
    /// The caller, in words.
    pub from: String,
    /// The called, in words.
    pub to: String,
    /// Page of this edge.
    pub link: String,
    /// Its health.
    pub health: Health,
    /// Figures for machines, with a point.
    pub rate: String,
    /// Percentage that failed.
    pub failed: String,
    /// Percentage of the caller's requests.
    pub share_value: String,
    /// Milliseconds.
    pub p50_value: String,
    /// Milliseconds.
    pub p99_value: String,
    /// The same in words.
    pub rate_text: String,
    /// Failed.
    pub failed_text: String,
    /// Refused.
    pub refused_text: String,
    /// Median.
    pub p50_text: String,
    /// 99th percentile.
    pub p99_text: String,
    /// Observed share and wanted share.
    pub share_text: String,
    /// `mutual TLS`, `plain text` or that nobody knows.
    pub protection: &'static str,
    /// Protocol.
    pub protocol: String,
}

impl CallView {
    /// Calls of a graph in words.
    pub fn new(call: &Call) -> Self {
        let figures = &call.figures;
        let number = |value: Option<f64>| value.map(|v| format!("{v:.2}")).unwrap_or_default();
        Self {
            from: words(&call.edge.source),
            to: words(&call.edge.destination),
            link: link(&call.edge),
            health: figures.health,
            rate: format!("{:.2}", figures.rate),
            failed: format!("{:.2}", figures.failed_percent),
            share_value: number(figures.share_percent),
            p50_value: number(figures.p50_ms),
            p99_value: number(figures.p99_ms),
            rate_text: rate(figures.rate),
            failed_text: percent(figures.failed_percent),
            refused_text: percent(figures.refused_percent),
            p50_text: ms(figures.p50_ms),
            p99_text: ms(figures.p99_ms),
            share_text: share(figures),
            protection: match figures.mutual_tls {
                Some(true) => "mutual TLS",
                Some(false) => "plain text",
                None => "not known",
            },
            protocol: call.edge.protocol.clone(),
        }
    }
}

fn share(figures: &Figures) -> String {
    let wanted = figures.weight_percent.map(|weight| format!(" ({})", percent(weight))).unwrap_or_default();
    match figures.share_percent {
        Some(share) => format!("{}{wanted}", percent(share)),
        None if !wanted.is_empty() => wanted.trim().to_owned(),
        None => String::new(),
    }
}

/// The page of an edge.
pub fn link(edge: &Edge) -> String {
    let end = |side: &str, node: &Node| {
        format!(
            "{side}_namespace={}&{side}={}&{side}_version={}",
            encoded(&node.namespace),
            encoded(&node.app),
            encoded(&node.version)
        )
    };
    format!("/edge?{}&{}", end("from", &edge.source), end("to", &edge.destination))
}

/// The page of a service.
pub fn service_link(namespace: &str, name: &str) -> String {
    format!("/service/{}/{}", encoded(namespace), encoded(name))
}

/// The graph as it is now.
pub async fn current(pages: &Pages) -> Graph {
    let views = pages.hub.ask(|state, now| state.traffic().views(now, WINDOW_SECONDS)).await.unwrap_or_default();
    let objects = pages.objects().await;
    Graph::new(views, &objects, FORGET)
}

/// `GET /`.
pub async fn show(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let frame = pages.frame("/", true).await;
    let page = Page::new(frame, &current(&pages).await);
    answer(&headers, &page, &page.as_content())
}

impl Page {
    fn new(frame: Frame, graph: &Graph) -> Self {
        let rows: Vec<usize> = graph.services.iter().map(|service| service.rows.len()).collect();
        let arrows: Vec<_> = graph.calls.iter().map(|call| (call.from, call.to)).collect();
        let Layout { width, height, boxes, arrows } = place(&rows, &arrows);
        Self {
            frame,
            width,
            height,
            left_out: graph.left_out,
            boxes: graph.services.iter().zip(&boxes).map(|(service, placed)| BoxView::new(service, placed)).collect(),
            arrows: graph.calls.iter().zip(arrows).map(|(call, drawn)| ArrowView::new(call, drawn)).collect(),
            calls: graph.calls.iter().map(CallView::new).collect(),
        }
    }
}

impl BoxView {
    fn new(service: &Service, placed: &Placed) -> Self {
        let rows = service.rows.iter().zip(&placed.rows).map(|(row, (y, height))| {
            let name = if row.node.version.is_empty() { service_name(&row.node) } else { row.node.version.clone() };
            let middle = y + height / 2.;
            RowView {
                short: short(&name, 19),
                aria: format!("{}, {}", words(&row.node), row.health.word()),
                health: row.health,
                mark: mark(row.health, placed.x + 15., middle),
                y: *y,
                middle,
                height: *height,
                name,
            }
        });
        Self {
            name: service.name.clone(),
            link: service_link(&service.namespace, &service.name),
            health: service.health,
            x: placed.x,
            y: placed.y,
            width: BOX_WIDTH,
            height: placed.height,
            rows: rows.collect(),
        }
    }
}

fn service_name(node: &Node) -> String {
    if node.app == crate::report::traffic::UNKNOWN { "outside the mesh".to_owned() } else { node.app.clone() }
}

/// A sign of its own shape for each health: circle, triangle, cross, hollow circle.
fn mark(health: Health, x: f64, y: f64) -> String {
    let (left, top) = (x - 5., y - 5.);
    match health {
        Health::Healthy | Health::Idle => format!("M{left} {y}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z"),
        Health::Degraded => format!("M{x} {top}l6 10h-12z"),
        Health::Failing => format!("M{left} {top}l10 10m0 -10l-10 10"),
    }
}

impl ArrowView {
    fn new(call: &Call, drawn: Drawn) -> Self {
        let figures = &call.figures;
        let (from, to) = (words(&call.edge.source), words(&call.edge.destination));
        let health = figures.health;
        let tcp = call.edge.protocol == "tcp";
        let first = if tcp {
            format!("{} · {} conn/s", bytes_rate(figures.bytes_rate), rate(figures.rate))
        } else {
            format!("{} rps · {} failed", rate(figures.rate), percent(figures.failed_percent))
        };
        let mut second =
            if tcp { String::new() } else { format!("p50 {} · p99 {}", ms(figures.p50_ms), ms(figures.p99_ms)) };
        if !share(figures).is_empty() {
            second = format!("{second} · gets {}", share(figures));
        }
        let lock = figures.mutual_tls == Some(true);
        let protection = if lock { ", mutual TLS" } else { "" };
        Self {
            aria: format!("{from} calls {to}: {}, {first}, {second}{protection}", health.word()),
            link: link(&call.edge),
            class: match health {
                Health::Idle => "idle",
                Health::Healthy => "healthy",
                Health::Degraded | Health::Failing => "failing",
            },
            path: drawn.path,
            tip: drawn.label.0 + 12.,
            x: drawn.label.0 - if lock { 15. } else { 0. },
            y: drawn.label.1,
            from,
            to,
            first,
            second,
            lock,
        }
    }
}
