//! The mesh as a graph: services with their versions, and the calls between them, with figures and health. Pure.

use crate::page::objects::Objects;
use crate::report::traffic::{Edge, Node, UNKNOWN, View};
use std::collections::BTreeMap;
use std::time::Duration;

/// Seconds over which rates are taken.
pub const WINDOW_SECONDS: u32 = 5;
/// Share of failed requests from which a service is degraded, and from which it is failing.
const DEGRADED: f64 = 0.001;
const FAILING: f64 = 0.1;
/// Share of refused requests (4xx) from which a service is degraded.
const REFUSING: f64 = 0.1;
/// Services that are drawn; the quietest are left out and counted.
const MAX_SERVICES: usize = 150;

/// How well something does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Health {
    /// Nothing happens.
    #[default]
    Idle,
    /// All is well.
    Healthy,
    /// Some requests fail, or many are refused.
    Degraded,
    /// Many requests fail.
    Failing,
}

impl Health {
    fn of(requests: u64, failed: u64, refused: u64) -> Self {
        let share = |count: u64| count as f64 / requests.max(1) as f64;
        match () {
            () if requests == 0 => Self::Idle,
            () if share(failed) >= FAILING => Self::Failing,
            () if share(failed) >= DEGRADED || share(refused) >= REFUSING => Self::Degraded,
            () => Self::Healthy,
        }
    }

    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }

    /// A sign of its own shape, so that colour is not needed.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Idle => "○",
            Self::Healthy => "●",
            Self::Degraded => "▲",
            Self::Failing => "✖",
        }
    }
}

/// A service: one box.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How well it answers, all versions together.
    pub health: Health,
    /// The service as a whole first (no version), then its versions.
    pub rows: Vec<Row>,
}

/// A version of a service.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which.
    pub node: Node,
    /// How well it answers.
    pub health: Health,
}

/// Calls from one version to another: one arrow.
#[derive(Debug, Clone)]
pub struct Call {
    /// Box and row that calls.
    pub from: (usize, usize),
    /// Box and row that is called.
    pub to: (usize, usize),
    /// Both ends.
    pub edge: Edge,
    /// The figures.
    pub figures: Figures,
}

/// The figures of calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    /// Requests, or connections, per second.
    pub rate: f64,
    /// Percentage that failed.
    pub failed_percent: f64,
    /// Percentage that was refused.
    pub refused_percent: f64,
    /// Median of the time to the answer, milliseconds.
    pub p50_ms: Option<f64>,
    /// 99th percentile.
    pub p99_ms: Option<f64>,
    /// Bytes per second of connections, both ways.
    pub bytes_rate: f64,
    /// Whether it is over mutual TLS, where known.
    pub mutual_tls: Option<bool>,
    /// Percentage of the caller's requests to this service that this version got, where there are several.
    pub share_percent: Option<f64>,
    /// Percentage that the configuration wants it to get.
    pub weight_percent: Option<f64>,
    /// How well it goes.
    pub health: Health,
}

/// The graph.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Services, by namespace and name.
    pub services: Vec<Service>,
    /// Calls.
    pub calls: Vec<Call>,
    /// Services that were left out because there are too many.
    pub left_out: usize,
}

/// Requests, failures and refusals.
type Counts = (u64, u64, u64);

impl Graph {
    /// From what is seen now. What has been silent for longer than `forget` is left out.
    pub fn new(mut views: Vec<View>, objects: &Objects, forget: Duration) -> Self {
        views.retain(|view| view.idle < forget);
        let mut graph = Self::default();
        let left_out = busiest(&mut views);
        graph.left_out = left_out;
        let mut index: BTreeMap<(String, String), BTreeMap<String, (Node, Counts)>> = BTreeMap::new();
        for view in &views {
            for (node, counts) in ends(view) {
                let versions = index.entry((node.namespace.clone(), node.app.clone())).or_default();
                let whole = Node { version: String::new(), ..node.clone() };
                add(&mut versions.entry(String::new()).or_insert((whole, (0, 0, 0))).1, counts);
                if !node.version.is_empty() {
                    add(
                        &mut versions.entry(node.version.clone()).or_insert_with(|| (node.clone(), (0, 0, 0))).1,
                        counts,
                    );
                }
            }
        }
        for ((namespace, name), versions) in index {
            let health = |(requests, failed, refused): Counts| Health::of(requests, failed, refused);
            let rows: Vec<Row> =
                versions.into_values().map(|(node, counts)| Row { node, health: health(counts) }).collect();
            let whole = rows.first().map_or(Health::Idle, |row| row.health);
            graph.services.push(Service { namespace, name, health: whole, rows });
        }
        for view in views {
            let (Some(from), Some(to)) = (graph.find(&view.edge.source), graph.find(&view.edge.destination)) else {
                continue;
            };
            let figures = figures(&view);
            graph.calls.push(Call { from, to, edge: view.edge, figures });
        }
        graph.shares(objects);
        graph
    }

    /// Box and row of a node.
    fn find(&self, node: &Node) -> Option<(usize, usize)> {
        let service = self.services.iter().position(|s| s.namespace == node.namespace && s.name == node.app)?;
        let row = self.services.get(service)?.rows.iter().position(|row| row.node.version == node.version)?;
        Some((service, row))
    }

    /// What part of a caller's requests each version got, and should get.
    fn shares(&mut self, objects: &Objects) {
        let mut totals: BTreeMap<((usize, usize), String), (f64, usize)> = BTreeMap::new();
        for call in self.calls.iter().filter(|call| !call.edge.destination.version.is_empty()) {
            let total = totals.entry((call.from, call.edge.service.clone())).or_default();
            *total = (total.0 + call.figures.rate, total.1 + 1);
        }
        for call in self.calls.iter_mut().filter(|call| !call.edge.destination.version.is_empty()) {
            let (rate, versions) = totals.get(&(call.from, call.edge.service.clone())).copied().unwrap_or_default();
            let weight = objects.weight(&call.edge.service, &call.edge.destination.version);
            call.figures.weight_percent = weight;
            if (versions > 1 || weight.is_some()) && rate > 0. {
                call.figures.share_percent = Some(call.figures.rate / rate * 100.);
            }
        }
    }
}

fn add(sum: &mut Counts, counts: Counts) {
    *sum = (sum.0 + counts.0, sum.1 + counts.1, sum.2 + counts.2);
}

/// Both ends of a view; only the one that is called is judged by it.
fn ends(view: &View) -> [(&Node, Counts); 2] {
    let sample = &view.stretch.sample;
    // A connection may end, and fail, in a stretch in which none was opened.
    let requests = sample.requests.max(sample.failed);
    let counts = (requests, sample.failed, sample.refused);
    [(&view.edge.source, (0, 0, 0)), (&view.edge.destination, counts)]
}

/// Keeps the views of the busiest services, and says how many services are left out.
fn busiest(views: &mut Vec<View>) -> usize {
    let mut rates: BTreeMap<(String, String), f64> = BTreeMap::new();
    for view in &*views {
        for (node, _) in ends(view) {
            *rates.entry((node.namespace.clone(), node.app.clone())).or_default() += view.stretch.rate();
        }
    }
    if rates.len() <= MAX_SERVICES {
        return 0;
    }
    let left_out = rates.len() - MAX_SERVICES;
    let mut sorted: Vec<_> = rates.into_iter().collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    let kept: std::collections::BTreeSet<_> = sorted.into_iter().take(MAX_SERVICES).map(|(name, _)| name).collect();
    views.retain(|view| ends(view).iter().all(|(n, _)| kept.contains(&(n.namespace.clone(), n.app.clone()))));
    left_out
}

/// Figures of a view.
pub fn figures(view: &View) -> Figures {
    let (sample, seconds) = (&view.stretch.sample, view.stretch.seconds);
    let percent = |count: u64| count as f64 * 100. / sample.requests.max(sample.failed).max(1) as f64;
    let health = Health::of(sample.requests.max(sample.failed), sample.failed, sample.refused);
    Figures {
        rate: view.stretch.rate(),
        failed_percent: percent(sample.failed),
        refused_percent: percent(sample.refused),
        p50_ms: sample.latency_ms(0.5),
        p99_ms: sample.latency_ms(0.99),
        bytes_rate: (sample.sent + sample.received) as f64 / seconds,
        mutual_tls: view.mutual_tls,
        share_percent: None,
        weight_percent: None,
        health,
    }
}

/// A node in words: `reviews v2 (shop)`.
pub fn words(node: &Node) -> String {
    if node.app == UNKNOWN {
        return "outside the mesh".to_owned();
    }
    let version = if node.version.is_empty() { String::new() } else { format!(" {}", node.version) };
    format!("{}{version} ({})", node.app, node.namespace)
}
