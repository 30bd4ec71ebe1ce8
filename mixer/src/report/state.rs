//! All that mixer knows from reports: bounded, pure, driven by reports and the time.

use super::decided::Decided;
use super::entry::Entry;
use super::family::Family;
use super::names::Meters;
use super::point::{Report, Value, attribute};
use super::sender::{Gain, Senders};
use super::series::SeriesTable;
use super::span::{Span, Traces};
use super::traffic::Traffic;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Failed requests that are kept.
pub const MAX_FAILURES: usize = 1_000;

/// Proxies report every second.
const FLUSH: Duration = Duration::from_secs(1);
/// Reports further apart are not two in a row.
const REGULAR: Duration = Duration::from_millis(2500);

/// What is known.
#[derive(Debug)]
pub struct State {
    series: SeriesTable,
    senders: Senders,
    traffic: Traffic,
    failures: VecDeque<Arc<Entry>>,
    traces: Traces,
    meters: Meters,
}

impl State {
    /// Nothing yet; at most `max_series` merged series.
    pub fn new(max_series: usize, meters: Meters) -> Self {
        Self {
            series: SeriesTable::new(max_series),
            senders: Senders::default(),
            traffic: Traffic::default(),
            failures: VecDeque::new(),
            traces: Traces::default(),
            meters,
        }
    }

    /// Notes that a component of this version runs, for `istio_build`.
    pub fn runs(&mut self, component: &str, version: &str) {
        let labels = [attribute("component", component), attribute("tag", version)];
        let series = self.series.find(Family::Build, &labels);
        self.series.add(series, &Value::Number(1.));
    }

    /// Takes what a proxy counted. Gives what it decided by itself since its last report.
    pub fn metrics(&mut self, report: &Report, now: Duration) -> Vec<Decided> {
        let mut decided = Vec::new();
        if report.counted_here && self.senders.counts_itself(&report.sender) {
            return decided;
        }
        let Some(previous) = self.senders.note(&report.sender, report.points.len(), now) else {
            self.meters.drop("metrics", "sender", report.points.len());
            return decided;
        };
        if !report.counted_here && report.points.iter().any(|point| !point.family.is_policy()) {
            self.senders.note_own_counts(&report.sender);
        }
        // A proxy without traffic says nothing: what comes after silence has just happened.
        let from = if now.saturating_sub(previous) > REGULAR { now.saturating_sub(FLUSH) } else { previous };
        for point in &report.points {
            let find = || self.series.find(point.family, &point.labels);
            let Some(Gain { series, value, recent }) = self.senders.gain(&report.sender, point, now, find) else {
                self.meters.drop("metrics", "memory", 1);
                continue;
            };
            self.series.add(series, &value);
            decided.extend(Decided::new(point, &value));
            if self.series.is_overflow(series) {
                self.meters.drop("metrics", "overflow", 1);
            } else if let Some(found) = self.series.get(series).filter(|_| recent) {
                self.traffic.add((series, found.family, &found.labels), &value, (from, now));
            }
        }
        self.meters.series.set(self.series.len() as i64);
        self.meters.senders.set(self.senders.len() as i64);
        self.meters.edges.set(self.traffic.len() as i64);
        decided
    }

    /// Takes a logged request; failed ones are kept.
    pub fn entry(&mut self, entry: Entry) {
        if !entry.failed() {
            return;
        }
        if self.failures.len() >= MAX_FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back(Arc::new(entry));
    }

    /// Takes a span.
    pub fn span(&mut self, span: Span) {
        self.traces.add(span);
    }

    /// Totals by series.
    pub fn series(&self) -> &SeriesTable {
        &self.series
    }

    /// Who reports.
    pub fn senders(&self) -> &Senders {
        &self.senders
    }

    /// The edges.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Recent failures, the latest first.
    pub fn failures(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.failures.iter().rev()
    }

    /// Recent traces.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }
}

#[cfg(test)]
mod tests;
