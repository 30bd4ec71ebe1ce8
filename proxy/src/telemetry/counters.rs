//! Cells: the numbers of one scope of one worker, written by it alone and read by the main thread.
//!
//! A counter is a load and a store, no locked instruction: each cell has one writer (design decision A). A histogram is a
//! row of cells, one per bucket, and one for the sum.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution over [`BUCKETS`].
    Histogram,
}

/// Upper bounds of histogram buckets, in the metric's unit (spec TM-2).
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Cells of a histogram: one per bucket, one above the last, one for the sum.
const HISTOGRAM_CELLS: usize = BUCKETS.len() + 2;

/// One metric of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name within the family.
    pub name: &'static str,
    /// What it counts.
    pub kind: MetricKind,
    /// What it says, and in which unit.
    pub help: &'static str,
}

impl Metric {
    const fn cells(&self) -> usize {
        match self.kind {
            MetricKind::Counter | MetricKind::Gauge => 1,
            MetricKind::Histogram => HISTOGRAM_CELLS,
        }
    }
}

/// Metrics that share their labels.
#[derive(Debug)]
pub struct Family {
    /// First part of Envoy's dotted names (`cluster`); empty: the metric's name stands alone.
    pub prefix: &'static str,
    /// Label of the second part (`envoy_cluster_name`); none: there is no second part.
    pub label: Option<&'static str>,
    /// The metrics, in the order of their cells.
    pub metrics: &'static [Metric],
}

impl Family {
    /// Number of cells of one scope.
    pub const fn cells(&self) -> usize {
        self.offset(self.metrics.len())
    }

    /// First cell of a metric.
    pub const fn offset(&self, metric: usize) -> usize {
        let (mut cells, mut at) = (0, 0);
        while at < metric && at < self.metrics.len() {
            cells += self.metrics[at].cells();
            at += 1;
        }
        cells
    }

    /// The cells of a metric among those of a scope.
    pub fn of<'a>(&self, metric: usize, cells: &'a [u64]) -> &'a [u64] {
        let from = self.offset(metric);
        let len = self.metrics.get(metric).map_or(0, Metric::cells);
        cells.get(from..from + len).unwrap_or_default()
    }
}

/// The names of a family as an enum.
pub trait InFamily: Copy {
    /// The family.
    const FAMILY: &'static Family;
    /// First cell of each metric.
    const OFFSETS: &'static [usize];
    /// Position of this metric.
    fn index(self) -> usize;
}

/// The cells of one scope. The worker that made them is their only writer.
#[derive(Debug)]
pub struct Cells<M> {
    cells: Arc<[AtomicU64]>,
    metrics: PhantomData<fn(M)>,
}

impl<M: InFamily> Cells<M> {
    /// Cells that nobody reads.
    pub fn unread() -> Self {
        Self::new(zeroed(M::FAMILY.cells()))
    }

    pub(super) fn new(cells: Arc<[AtomicU64]>) -> Self {
        Self { cells, metrics: PhantomData }
    }

    /// Counts `n` more.
    #[inline]
    pub fn add(&self, metric: M, n: u64) {
        bump(&self.cells, M::OFFSETS.get(metric.index()).copied().unwrap_or(usize::MAX), n);
    }

    /// Counts one more.
    #[inline]
    pub fn increment(&self, metric: M) {
        self.add(metric, 1);
    }

    /// Takes `n` from a gauge.
    #[inline]
    pub fn subtract(&self, metric: M, n: u64) {
        self.add(metric, n.wrapping_neg());
    }

    /// Sets a gauge.
    pub fn set(&self, metric: M, value: u64) {
        let at = M::OFFSETS.get(metric.index()).copied().unwrap_or(usize::MAX);
        if let Some(cell) = self.cells.get(at) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Records a value in a histogram.
    pub fn record(&self, metric: M, value: u64) {
        record(&self.cells, M::OFFSETS.get(metric.index()).copied().unwrap_or(usize::MAX), value);
    }

    /// The value of a counter or gauge as this worker sees it.
    pub fn get(&self, metric: M) -> u64 {
        let at = M::OFFSETS.get(metric.index()).copied().unwrap_or(usize::MAX);
        self.cells.get(at).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// A gauge that counts one for as long as the guard lives.
    pub fn hold(self: &std::rc::Rc<Self>, metric: M) -> Held<M> {
        self.increment(metric);
        Held { cells: self.clone(), metric }
    }
}

/// Adds to a cell.
#[inline]
pub(super) fn bump(cells: &[AtomicU64], at: usize, n: u64) {
    if let Some(cell) = cells.get(at) {
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

/// Records a value in the histogram whose first cell is `at`.
pub(super) fn record(cells: &[AtomicU64], at: usize, value: u64) {
    let bucket = BUCKETS.iter().position(|bound| value as f64 <= *bound).unwrap_or(BUCKETS.len());
    bump(cells, at.saturating_add(bucket), 1);
    bump(cells, at.saturating_add(HISTOGRAM_CELLS - 1), value);
}

/// One in a gauge.
#[derive(Debug)]
pub struct Held<M: InFamily> {
    cells: std::rc::Rc<Cells<M>>,
    metric: M,
}

impl<M: InFamily> Drop for Held<M> {
    fn drop(&mut self) {
        self.cells.subtract(self.metric, 1);
    }
}

pub(super) fn zeroed(count: usize) -> Arc<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}
