//! How far a proxy is with what it is told.

use crate::translate::cache::ResourceType;
use std::collections::BTreeMap;

/// What a client refused.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Nack {
    /// Nonce of the refused response.
    pub nonce: String,
    /// gRPC status code.
    pub code: i32,
    /// The client's words; they name the resources.
    pub message: String,
}

/// How far a client is with one type.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// Nonce of the last response.
    pub sent: String,
    /// Nonce of the last response that the client took.
    pub acked: String,
    /// The last refusal, until a later response is taken.
    pub nack: Option<Nack>,
    /// How many resources the client holds.
    pub resources: usize,
}

/// Where a stream writes how far its client is, per type; whoever asks looks there.
pub type Reports = tokio::sync::watch::Sender<BTreeMap<ResourceType, Progress>>;
