//! mixer's own metrics about reports.

use vitals::metric::Register as _;
use vitals::prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

/// Handles of the metrics.
#[derive(Debug, Clone)]
pub struct Meters {
    /// Messages taken, by kind: `metrics`, `access_log`, `logs`, `spans`.
    pub messages: IntCounterVec,
    /// Points, entries and spans taken, by kind.
    pub items: IntCounterVec,
    /// Items not kept, by kind and reason.
    pub dropped: IntCounterVec,
    /// Series in memory.
    pub series: IntGauge,
    /// Proxies that have reported.
    pub senders: IntGauge,
    /// Edges in memory.
    pub edges: IntGauge,
    /// Lines of the access log written.
    pub lines: IntCounter,
    /// Batches exported to another collector.
    pub exported: IntCounter,
}

impl Meters {
    /// Registers all of them.
    ///
    /// # Errors
    /// When one is registered already.
    pub fn new(registry: &Registry) -> anyhow::Result<Self> {
        Ok(Self {
            messages: registry.counters("mixer_report_messages_total", "Messages of reports taken.", &["kind"])?,
            items: registry.counters("mixer_report_items_total", "Points, log entries and spans taken.", &["kind"])?,
            dropped: registry.counters(
                "mixer_report_dropped_total",
                "Items of reports not kept.",
                &["kind", "reason"],
            )?,
            series: registry.gauge("mixer_series", "Series in memory, merged over all proxies.")?,
            senders: registry.gauge("mixer_senders", "Proxies that have reported.")?,
            edges: registry.gauge("mixer_edges", "Edges of the graph in memory.")?,
            lines: registry.counter("mixer_access_log_lines_total", "Lines of the access log written.")?,
            exported: registry.counter("mixer_export_batches_total", "Batches that another collector took.")?,
        })
    }

    /// Counts items that are not kept.
    pub fn drop(&self, kind: &str, reason: &str, count: usize) {
        if count > 0 {
            self.dropped.with_label_values(&[kind, reason]).inc_by(count as u64);
        }
    }

    /// Counts a message with so many items.
    pub fn take(&self, kind: &str, count: usize) {
        self.messages.with_label_values(&[kind]).inc();
        self.items.with_label_values(&[kind]).inc_by(count as u64);
    }
}
