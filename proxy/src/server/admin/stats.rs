//! `/stats` and `/stats/prometheus`: metrics are collected by the one task that owns the registry.

use super::info::{Stage, memory_bytes};
use super::{AdminParts, Published};
use crate::endpoint::{Endpoint, Health, Limit};
use crate::server::answer::{Answer, json, text, with_type};
use crate::telemetry::names::{
    ClusterManagerMetric, ClusterState, ControlPlaneMetric, ListenerManagerMetric, ServerMetric,
};
use crate::telemetry::{Cells, Histograms, Labels, MetricKind, Registrar, Registry, Selection, Snapshot};
use crate::xds::{Kind, certificates};
use regex::Regex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, mpsc, oneshot};

/// Asks the owner of the registry for snapshots.
#[derive(Debug, Clone)]
pub struct StatsReader {
    ask: mpsc::Sender<oneshot::Sender<Snapshot>>,
}

/// Owns the registry until all readers are gone.
pub async fn own_stats(mut registry: Registry, mut asked: mpsc::Receiver<oneshot::Sender<Snapshot>>) {
    while let Some(to) = asked.recv().await {
        if to.send(registry.collect()).is_err() {
            tracing::trace!("nobody waits for the metrics any more");
        }
    }
}

impl StatsReader {
    /// A reader, and what the owner is to be started with.
    pub fn channel() -> (Self, mpsc::Receiver<oneshot::Sender<Snapshot>>) {
        let (ask, asked) = mpsc::channel(8);
        (Self { ask }, asked)
    }

    /// The metrics now; `None` where the owner has ended.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (to, from) = oneshot::channel();
        self.ask.send(to).await.ok()?;
        from.await.ok()
    }
}

/// Metrics of the main thread itself; it is their only writer.
#[derive(Debug)]
pub struct MainStats {
    /// Refreshed by one question at a time.
    cells: Mutex<MainCells>,
}

#[derive(Debug)]
struct MainCells {
    registrar: Registrar,
    server: Cells<ServerMetric>,
    /// Whether the time of the start has been recorded.
    live_told: bool,
    clusters: Cells<ClusterManagerMetric>,
    listeners: Cells<ListenerManagerMetric>,
    control_plane: Cells<ControlPlaneMetric>,
    states: HashMap<Arc<str>, Cells<ClusterState>>,
}

impl MainStats {
    /// Registers them.
    pub fn new(registry: &Registry) -> Self {
        let registrar = registry.registrar(0);
        let cells = MainCells {
            server: registrar.cells(Labels::default()),
            live_told: false,
            clusters: registrar.cells(Labels::default()),
            listeners: registrar.cells(Labels::default()),
            control_plane: registrar.cells(Labels::default()),
            states: HashMap::new(),
            registrar,
        };
        Self { cells: Mutex::new(cells) }
    }

    /// Takes over what the snapshots of the main thread say.
    pub(super) async fn refresh(&self, parts: &AdminParts) {
        self.cells.lock().await.refresh(parts);
    }
}

impl MainCells {
    fn refresh(&mut self, parts: &AdminParts) {
        let stage = *parts.stage.borrow();
        let (resident, data) = memory_bytes();
        self.server.set(ServerMetric::State, stage.number());
        self.server.set(ServerMetric::Live, u64::from(stage == Stage::Live));
        self.server.set(ServerMetric::Uptime, parts.lifecycle.uptime_s());
        self.server.set(ServerMetric::Concurrency, parts.bootstrap.concurrency.get() as u64);
        self.server.set(ServerMetric::HotRestartEpoch, parts.bootstrap.flags.restart_epoch.unwrap_or(0).into());
        if let Some(took) = parts.lifecycle.live_after().filter(|_| !self.live_told) {
            self.live_told = true;
            self.server.record(ServerMetric::InitializationTimeMs, took.as_millis().try_into().unwrap_or(u64::MAX));
        }
        self.server.set(ServerMetric::MemoryAllocated, resident);
        self.server.set(ServerMetric::MemoryHeapSize, data);
        let store = parts.store.borrow();
        self.control_plane.set(ControlPlaneMetric::ConnectedState, u64::from(store.connected));
        let (cds, lds) = (store.stats(Kind::Cluster), store.stats(Kind::Listener));
        self.clusters.set(ClusterManagerMetric::CdsUpdateAttempt, cds.attempts);
        self.clusters.set(ClusterManagerMetric::CdsUpdateSuccess, cds.successes);
        self.clusters.set(ClusterManagerMetric::CdsUpdateRejected, cds.rejections);
        self.listeners.set(ListenerManagerMetric::LdsUpdateAttempt, lds.attempts);
        self.listeners.set(ListenerManagerMetric::LdsUpdateSuccess, lds.successes);
        self.listeners.set(ListenerManagerMetric::LdsUpdateRejected, lds.rejections);
        self.listeners.set(ListenerManagerMetric::WorkersStarted, u64::from(stage == Stage::Live));
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let ends = certificates(&store).into_iter().flat_map(|secret| secret.chain).map(|c| c.validity.1);
        let days = ends.min().map_or(0, |end| end.saturating_sub(now_s.cast_signed()).max(0).cast_unsigned() / 86_400);
        self.server.set(ServerMetric::DaysUntilFirstCertExpiring, days);
        self.refresh_clusters(&parts.published.borrow(), parts.clock.now_ms());
    }

    fn refresh_clusters(&mut self, published: &Published, now_ms: u64) {
        self.clusters.set(ClusterManagerMetric::ActiveClusters, published.clusters.len() as u64);
        self.listeners.set(ListenerManagerMetric::TotalListenersActive, published.listeners.len() as u64);
        let names: HashSet<&Arc<str>> = published.clusters.iter().map(|(config, _)| &config.name).collect();
        self.states.retain(|name, _| names.contains(name));
        for (config, hosts) in &published.clusters {
            let registrar = &self.registrar;
            let cells = self.states.entry(config.name.clone()).or_insert_with(|| registrar.named(&config.name));
            let count =
                |wanted: &dyn Fn(&Endpoint) -> bool| hosts.iter().filter(|endpoint| wanted(endpoint)).count() as u64;
            let ejected = |endpoint: &Endpoint| endpoint.shared.ejected_until.load(Ordering::Relaxed) > now_ms;
            cells.set(ClusterState::MembershipTotal, count(&|_| true));
            cells.set(ClusterState::MembershipHealthy, count(&|e| e.health == Health::Healthy && !ejected(e)));
            cells.set(ClusterState::MembershipDegraded, count(&|e| e.health == Health::Degraded && !ejected(e)));
            cells.set(ClusterState::EjectionsActive, count(&ejected));
            let active: u64 = hosts.iter().map(|e| u64::from(e.shared.active.load(Ordering::Relaxed))).sum();
            cells.set(ClusterState::UpstreamRqActive, active);
            let [default, high] = &config.limits;
            for (limit, of_default, of_high) in [
                (Limit::Connections, ClusterState::CxOpen, ClusterState::HighCxOpen),
                (Limit::Requests, ClusterState::RqOpen, ClusterState::HighRqOpen),
                (Limit::Pending, ClusterState::RqPendingOpen, ClusterState::HighRqPendingOpen),
                (Limit::Retries, ClusterState::RqRetryOpen, ClusterState::HighRqRetryOpen),
            ] {
                cells.set(of_default, u64::from(default.is_open(limit)));
                cells.set(of_high, u64::from(high.is_open(limit)));
            }
        }
    }
}

pub(super) async fn stats(parts: &AdminParts, ask: &[(String, String)]) -> Answer {
    let selection = match selection(ask) {
        Ok(selection) => selection,
        Err(why) => return text(400, format!("{why}\n")),
    };
    let Some(snapshot) = snapshot(parts).await else { return text(503, "the process is ending\n") };
    match value(ask, "format") {
        Some("json") => json(&snapshot.json(&selection)),
        Some("prometheus") => with_type(200, PROMETHEUS_TEXT, snapshot.prometheus(&selection)),
        None | Some("text") => text(200, snapshot.text(&selection)),
        Some(other) => text(400, format!("usage: /stats?format=text|json|prometheus; not supported yet: {other}\n")),
    }
}

/// The content type of Prometheus' text format.
pub(in crate::server) const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn prometheus(parts: &AdminParts, ask: &[(String, String)]) -> Answer {
    match selection(ask) {
        Err(why) => text(400, format!("{why}\n")),
        Ok(selection) => match snapshot(parts).await {
            Some(snapshot) => with_type(200, PROMETHEUS_TEXT, snapshot.prometheus(&selection)),
            None => text(503, "the process is ending\n"),
        },
    }
}

pub(super) async fn snapshot(parts: &AdminParts) -> Option<Snapshot> {
    parts.main_stats.refresh(parts).await;
    parts.stats.snapshot().await
}

fn value<'a>(ask: &'a [(String, String)], name: &str) -> Option<&'a str> {
    ask.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

fn selection(ask: &[(String, String)]) -> Result<Selection, String> {
    let filter =
        value(ask, "filter").map(Regex::new).transpose().map_err(|error| format!("Invalid regex: \"{error}\""))?;
    let kind = match value(ask, "type") {
        None | Some("All") => None,
        Some("Counters") => Some(MetricKind::Counter),
        Some("Gauges") => Some(MetricKind::Gauge),
        Some("Histograms") => Some(MetricKind::Histogram),
        Some(other) => return Err(format!("invalid &type= param {other}: one of All, Counters, Gauges, Histograms")),
    };
    let histograms = match (value(ask, "histogram_buckets"), value(ask, "format")) {
        (None | Some("none" | "summary"), _) => Histograms::Quantiles,
        (Some("cumulative"), None | Some("text")) => Histograms::Cumulative,
        (Some("disjoint"), None | Some("text")) => Histograms::Disjoint,
        (Some("cumulative" | "disjoint"), Some(format)) => {
            return Err(format!("not supported yet: histogram_buckets with format={format}"));
        }
        (Some(other), _) => return Err(format!("not supported yet: histogram_buckets={other}")),
    };
    Ok(Selection { filter, used_only: value(ask, "usedonly").is_some(), kind, histograms })
}
