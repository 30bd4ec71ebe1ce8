//! `/stats` and `/stats/prometheus`: metrics are collected by the one task that owns the registry.

use super::AdminParts;
use super::info::{Stage, memory_bytes};
use crate::server::answer::{Answer, json, text, with_type};
use crate::telemetry::names::{ClusterManagerMetric, ControlPlaneMetric, ListenerManagerMetric, ServerMetric};
use crate::telemetry::{Cells, Labels, MetricKind, Registry, Selection, Snapshot};
use crate::xds::Kind;
use regex::Regex;
use tokio::sync::{mpsc, oneshot};

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
    server: Cells<ServerMetric>,
    clusters: Cells<ClusterManagerMetric>,
    listeners: Cells<ListenerManagerMetric>,
    control_plane: Cells<ControlPlaneMetric>,
}

impl MainStats {
    /// Registers them.
    pub fn new(registry: &Registry) -> Self {
        let registrar = registry.registrar(0);
        Self {
            server: registrar.cells(Labels::default()),
            clusters: registrar.cells(Labels::default()),
            listeners: registrar.cells(Labels::default()),
            control_plane: registrar.cells(Labels::default()),
        }
    }

    /// Takes over what the snapshots of the main thread say.
    pub(super) fn refresh(&self, parts: &AdminParts) {
        let stage = *parts.stage.borrow();
        let (resident, data) = memory_bytes();
        self.server.set(ServerMetric::State, stage.number());
        self.server.set(ServerMetric::Live, u64::from(stage == Stage::Live));
        self.server.set(ServerMetric::Uptime, parts.lifecycle.uptime_s());
        self.server.set(ServerMetric::Concurrency, parts.bootstrap.concurrency.get() as u64);
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
        let published = parts.published.borrow();
        self.clusters.set(ClusterManagerMetric::ActiveClusters, published.clusters.len() as u64);
        self.listeners.set(ListenerManagerMetric::TotalListenersActive, published.listeners.len() as u64);
        self.listeners.set(ListenerManagerMetric::WorkersStarted, u64::from(stage == Stage::Live));
        let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let ends = crate::xds::certificates(&store).into_iter().flat_map(|secret| secret.chain).map(|c| c.validity.1);
        let days = ends.min().map_or(0, |end| end.saturating_sub(now_s.cast_signed()).max(0).cast_unsigned() / 86_400);
        self.server.set(ServerMetric::DaysUntilFirstCertExpiring, days);
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
    parts.main_stats.refresh(parts);
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
    Ok(Selection { filter, used_only: value(ask, "usedonly").is_some(), kind })
}
