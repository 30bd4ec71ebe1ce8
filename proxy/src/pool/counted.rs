//! What is counted of a cluster's connections (ST-1).

use crate::telemetry::Cells;
use crate::telemetry::names::ConnectionMetric as Metric;
use std::rc::Rc;
use std::time::Duration;

/// One open connection; it is counted until this is dropped.
#[derive(Debug)]
pub struct Counted {
    cells: Rc<Cells<Metric>>,
}

/// The protocol that a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carries {
    /// HTTP/1.
    H1,
    /// HTTP/2.
    H2,
    /// Bytes.
    Tcp,
}

impl Counted {
    /// Counts a connection that was opened within `took`.
    pub fn opened(cells: Rc<Cells<Metric>>, carries: Carries, took: Duration) -> Self {
        cells.increment(Metric::UpstreamCxTotal);
        cells.increment(Metric::UpstreamCxActive);
        match carries {
            Carries::H1 => cells.increment(Metric::UpstreamCxHttp1Total),
            Carries::H2 => cells.increment(Metric::UpstreamCxHttp2Total),
            Carries::Tcp => {}
        }
        cells.record(Metric::UpstreamCxConnectMs, u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        Self { cells }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.cells.subtract(Metric::UpstreamCxActive, 1);
        self.cells.increment(Metric::UpstreamCxDestroy);
    }
}
