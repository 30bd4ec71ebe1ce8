//! What a change affects, and who must be told: from events of sources to snapshots of classes of nodes.
//!
//! One task owns store, mesh and cache: commands in, snapshots out by a watch per node. A watch holds the newest
//! snapshot alone, and so a node that is slow has 0 or 1 push waiting, however many changes there were (PI-36).
//!
//! What this part knows: what rests on what. What it must never know: the xDS protocol, where objects come from.

pub mod debounce;
pub mod grace;
pub mod hub;
pub mod intake;
pub mod metrics;
pub mod progress;
pub mod publish;
pub mod selection;
pub mod standing;

#[cfg(test)]
mod intake_tests;

pub use hub::{Command, Hub, HubHandle, Known};
