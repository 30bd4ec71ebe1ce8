//! How a control-plane process reports on itself: logs, metrics, readiness.
//!
//! This crate stays thin: tracing-subscriber, prometheus and axum do the work. It knows no component and no identity.
//! - [`process`]: memory and processor time as metrics
//! - [`metric`]: metrics made and registered in one step
//! - [`log`]: set-up of the log, text or JSON, with a level that can be changed at run time
//! - [`admin`]: the server of `/metrics`, `/ready`, `/logging` and `/version`

pub mod admin;
pub mod log;
pub mod metric;
pub mod process;

pub use prometheus;
