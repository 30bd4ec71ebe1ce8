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
        self.try_cells_of(M::FAMILY, labels).map(Cells::new)
    }

    /// The same for a family that is known at run time only.
    pub(super) fn try_cells_of(&self, family: &'static Family, labels: Labels) -> Option<Arc<[AtomicU64]>> {
        self.left.set(self.left.get().checked_sub(1)?);
        Some(self.cells_of(family, labels))
    }

    /// Cells for a scope of the configuration, which is bounded by itself: a cluster, a listener.
    pub fn cells<M: InFamily>(&self, labels: Labels) -> Cells<M> {
        Cells::new(self.cells_of(M::FAMILY, labels))
    }

    /// Cells for a scope with the one label of its family.
    pub fn named<M: InFamily>(&self, name: &str) -> Cells<M> {
        // a colon ends a part of a dotted name, so Envoy has none in its names
        let labels = M::FAMILY.label.map(|label| (label, Box::from(name.replace(':', "_"))));
        self.cells(labels.into_iter().collect())
    }

    /// A registered scope is gone: there is room for another one.
    pub fn give_back(&self) {
        self.left.set(self.left.get() + 1);
    }

    /// Cells for a scope of a family, registered where any metric of it is kept.
    pub(super) fn cells_of(&self, family: &'static Family, labels: Labels) -> Arc<[AtomicU64]> {
        let cells = zeroed(family.cells());
        if !is_kept(&self.config, family, &labels) {
            return cells;
        }
        let scope = Scope { family, labels, cells: cells.clone() };
        if self.sender.send(scope).is_err() {
            tracing::debug!("nobody reads metrics any more");
        }
        cells
    }
}

/// Whether any metric of a scope is kept. Istio's own always are: its lists of what is kept are about Envoy's.
fn is_kept(config: &StatsConfig, family: &Family, labels: &Labels) -> bool {
    family.prefix.is_empty()
        || config.keeps_all()
        || family.metrics.iter().any(|metric| config.keeps(&dotted_name(family, metric, labels)))
}

/// `cluster.NAME.upstream_rq_total`; where the family has no label of its own, labels stand behind the name.
pub(super) fn dotted_name(family: &Family, metric: &Metric, labels: &Labels) -> String {
    let mut name = String::from(family.prefix);
    let mut push = |part: &str| {
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(part);
    };
    match (family.label, labels.first()) {
        (Some(_), Some((_, value))) => {
            push(value);
            push(metric.name);
        }
        _ => {
            push(metric.name);
            for (label, value) in labels.iter() {
                push(label);
                push(value);
            }
        }
    }
    name
}
