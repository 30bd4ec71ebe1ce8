//! Where objects come from: a directory of YAML, a Kubernetes API, or memory.
//!
//! What this part knows: kinds, how an object is decoded, which object is the last good one, which line of
//! which file is wrong. What it must never know: what an object means for a proxy.

pub mod file;
pub mod key_sets;
pub mod kinds;
pub mod kube;
pub mod memory;
pub mod mesh_file;
pub mod object;
pub mod problem;
mod secret;
pub mod store;
pub mod yaml;

pub use object::{HostAddress, Key, Kind, Object, Spec};
pub use problem::{Class, Problem};
pub use store::Store;

use std::sync::Arc;

/// What a source reports.
#[derive(Debug, Clone)]
pub enum Event {
    /// An object is new or has changed.
    Upsert(Arc<Object>),
    /// An object is gone.
    Delete(Key),
    /// Everything that existed at the start has been reported.
    Synced,
    /// The mesh's own settings have changed.
    Mesh(Arc<proto::istio::mesh_config::MeshConfig>),
    /// What is known of the keys of token issuers, replacing what was known before.
    KeySets(Arc<key_sets::KeySets>),
    /// The problems of the source as a whole, replacing those reported before.
    Problems(Arc<[Problem]>),
}
