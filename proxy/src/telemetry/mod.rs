//! What the proxy tells about its work: metrics and access logs.
//!
//! Knows names, labels, cells and formats. Must never know a connection: those who do the work hand over facts.

pub mod access_log;
mod config;
mod counters;
pub mod envoy;
pub mod istio;
mod made_up;
pub mod names;
mod otlp;
pub mod outbox;
mod scrape;
mod series;
mod sink;
pub mod tap;
pub mod trace;

pub use config::StatsConfig;
pub use counters::{BUCKETS, Cells, Family, Held, InFamily, Metric, MetricKind};
pub use scrape::{Histograms, Registry, Selection, Snapshot};
pub use series::{Labels, MAX_SCOPES, Registrar};
pub use sink::{MetricSink, Report};
