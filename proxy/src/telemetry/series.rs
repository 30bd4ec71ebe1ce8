//! Label sets → cells: workers register scopes, the main thread reads them.
//!
//! A scope that its worker has dropped is read once more and then forgotten, so a removed cluster leaves no series
//! behind. The number of scopes of a worker is bounded: what comes after that shares one overflow scope.

use super::config::StatsConfig;
use super::counters::{Cells, Family, InFamily, Metric, zeroed};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;

/// Labels of a scope, in the order in which they are shown.
pub type Labels = Arc<[(&'static str, Box<str>)]>;

/// One scope of one worker, as the main thread sees it.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) family: &'static Family,
    pub(super) labels: Labels,
    pub(super) cells: Arc<[AtomicU64]>,
}

/// Registers scopes; one per worker.
#[derive(Debug)]
pub struct Registrar {
    sender: mpsc::Sender<Scope>,
    config: Arc<StatsConfig>,
    /// Scopes that this worker may still register.
    left: Cell<usize>,
}

/// Label sets that one worker may register where nothing is configured.
pub const MAX_SCOPES: usize = 20_000;

impl Registrar {
    pub(super) fn new(sender: mpsc::Sender<Scope>, config: Arc<StatsConfig>, most: usize) -> Self {
        Self { sender, config, left: Cell::new(most) }
    }

    /// Cells for a scope, or `None` once this worker has registered as many as it may.
    pub fn try_cells<M: InFamily>(&self, labels: Labels) -> Option<Cells<M>> {
        self.left.set(self.left.get().checked_sub(1)?);
        Some(self.make(labels))
    }

    /// Cells for a scope of the configuration, which is bounded by itself: a cluster, a listener.
    pub fn cells<M: InFamily>(&self, labels: Labels) -> Cells<M> {
        self.make(labels)
    }

    /// Cells for a scope with the one label of its family.
    pub fn named<M: InFamily>(&self, name: &str) -> Cells<M> {
        // a colon ends a part of a dotted name, so Envoy has none in its names
        let labels = M::FAMILY.label.map(|label| (label, Box::from(name.replace(':', "_"))));
        self.make(labels.into_iter().collect())
    }

    /// A registered scope is gone: there is room for another one.
    pub fn give_back(&self) {
        self.left.set(self.left.get() + 1);
    }

    fn make<M: InFamily>(&self, labels: Labels) -> Cells<M> {
        let cells = zeroed(M::FAMILY.cells());
        if !is_kept(&self.config, M::FAMILY, &labels) {
            return Cells::new(cells);
        }
        let scope = Scope { family: M::FAMILY, labels, cells: cells.clone() };
        if self.sender.send(scope).is_err() {
            tracing::debug!("nobody reads metrics any more");
        }
        Cells::new(cells)
    }
}

/// Whether any metric of a scope is kept. Istio's own always are: its lists of what is kept are about Envoy's.
fn is_kept(config: &StatsConfig, family: &Family, labels: &Labels) -> bool {
    family.prefix.is_empty()
        || config.keeps_all()
        || family.metrics.iter().any(|metric| config.keeps(&dotted_name(family, metric, labels)))
}

/// `cluster.NAME.upstream_rq_total`; Istio's metrics have their labels behind the name.
pub(super) fn dotted_name(family: &Family, metric: &Metric, labels: &Labels) -> String {
    if family.prefix.is_empty() {
        let list: Vec<String> = labels.iter().map(|(name, value)| format!("{name}.{value}")).collect();
        return if list.is_empty() { metric.name.to_owned() } else { format!("{}.{}", metric.name, list.join(".")) };
    }
    match labels.first() {
        Some((_, value)) => format!("{}.{value}.{}", family.prefix, metric.name),
        None => format!("{}.{}", family.prefix, metric.name),
    }
}
