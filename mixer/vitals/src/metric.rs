//! Metrics made and registered in one step.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, Result};

/// What a registry makes. All of it fails where a name is malformed or taken.
pub trait Register {
    /// Registers a metric, and gives a handle of it.
    ///
    /// # Errors
    /// Where its name is taken.
    fn keep<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C>;

    /// A counter.
    ///
    /// # Errors
    /// Where the name is malformed or taken.
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.keep(IntCounter::new(name, help)?)
    }

    /// A counter for each set of values of these labels.
    ///
    /// # Errors
    /// Where a name is malformed or taken.
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// A gauge.
    ///
    /// # Errors
    /// Where the name is malformed or taken.
    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.keep(IntGauge::new(name, help)?)
    }

    /// A histogram with these upper bounds.
    ///
    /// # Errors
    /// Where the name is malformed or taken, or the bounds do not ascend.
    fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Result<Histogram> {
        self.keep(Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec()))?)
    }

    /// A histogram for each set of values of these labels.
    ///
    /// # Errors
    /// Where a name is malformed or taken, or the bounds do not ascend.
    fn histograms(&self, name: &str, help: &str, (bounds, labels): (&[f64], &[&str])) -> Result<HistogramVec> {
        self.keep(HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels)?)
    }
}

impl Register for Registry {
    fn keep<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C> {
        self.register(Box::new(metric.clone())).map(|()| metric)
    }
}
