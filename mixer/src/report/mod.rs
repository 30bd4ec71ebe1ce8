//! Reports: from what proxies send to what mixer knows. Everything in memory is bounded.
//!
//! - [`family`]: Istio's families of metrics
//! - [`point`]: OTLP metrics, taken apart
//! - [`sender`]: what each proxy counted so far; running totals become gains
//! - [`series`]: totals over all proxies
//! - [`window`], [`traffic`]: the last 15 minutes of each edge
//! - [`entry`], [`als`], [`log`]: logged requests, from Envoy's access log service and from OTLP logs
//! - [`count`]: families counted from access logs, for proxies that do not count themselves
//! - [`proof`]: what the sender's certificate says of all that
//! - [`decided`]: decisions that proxies took by themselves
//! - [`span`]: recent traces
//! - [`state`]: all of it together
//! - [`hub`]: its one owner
//! - [`names`]: mixer's own metrics about reports
//!
//! It never calls anybody: who is behind an address comes from the table of workloads.

pub mod als;
pub mod count;
pub mod decided;
pub mod entry;
pub mod family;
pub mod hub;
pub mod log;
pub mod names;
pub mod point;
pub mod proof;
pub mod sender;
pub mod series;
pub mod span;
pub mod state;
pub mod traffic;
pub mod window;
