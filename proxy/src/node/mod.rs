//! Who this proxy is: what others are told of it, and its place in metrics.

mod config;

use crate::telemetry::istio::Workload;
use std::sync::Arc;

/// Facts of the node, made once per process.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Node id.
    pub id: Box<str>,
    /// Service cluster.
    pub cluster: Box<str>,
    /// `x-envoy-peer-metadata`: base64 of a protobuf struct (MD-1, MD-2).
    pub exchange: Box<str>,
    /// The encoded `Node` without its lists of extensions: who sends a log.
    pub encoded: Box<[u8]>,
    /// The workload in metrics.
    pub workload: Arc<Workload>,
}
