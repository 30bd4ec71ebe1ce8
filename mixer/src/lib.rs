//! mixer: the policy and telemetry hub of the mesh. It speaks open protocols: Envoy's access log service, external
//! authorization, rate limits; OTLP in and out.
//!
//! The modules, in the order in which data meets them:
//! - [`args`]: the flags
//! - [`server`]: wires the parts
//! - [`serve`]: the protocols
//! - [`report`]: from what proxies send to what mixer knows
//! - [`workload`]: who is behind an address
//! - [`pilot`]: asking pilot
//! - [`export`]: what leaves mixer: Prometheus' text, access logs, OTLP
//!
//! Nothing on a request's path waits for reports; decisions are leased, so that a common request costs no call.

pub mod args;
pub mod export;
pub mod pilot;
pub mod report;
pub mod serve;
pub mod server;
pub mod workload;
