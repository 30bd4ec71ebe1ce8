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
//! - [`source`], [`yaml`]: directories of YAML, watched; what stands in them, with lines
//! - [`join`]: a call joined with the workloads at its ends, as a bag of attributes
//! - [`attribute`]: what can be known of a request
//! - [`expression`]: the language of rules
//! - [`quota`]: counters with limits, in memory and in Redis
//! - [`ratelimit`]: rate limits by descriptors
//! - [`rule`]: rules, compiled
//! - [`policy`]: objects → rules → decisions
//! - [`page`]: the live page
//! - [`export`]: what leaves mixer: Prometheus' text, access logs, OTLP
//!
//! Nothing on a request's path waits for reports; decisions are leased, so that a common request costs no call.

pub mod args;
pub mod attribute;
pub mod export;
pub mod expression;
pub mod join;
pub mod page;
pub mod pilot;
pub mod policy;
pub mod quota;
pub mod ratelimit;
pub mod report;
pub mod rule;
pub mod serve;
pub mod server;
pub mod source;
pub mod workload;
pub mod yaml;
