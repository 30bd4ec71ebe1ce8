//! The mesh on Kubernetes: from what a user wants to objects, and the objects in a cluster.
//!
//! - [`schema`]: which fields of an IstioOperator and which values there are; others are refused by name
//! - [`profile`]: the values that nobody wrote
//! - [`spec`]: profile, files and `--set`, laid over each other
//! - [`objects`]: the specification as objects, by component; pure
//! - [`charts`]: the same objects as Helm charts
//! - [`platform`]: what a cluster is and who else is in it
//! - [`cluster`]: objects applied, awaited, listed and deleted
//! - [`installed`]: what is installed, and of which mesh it is; pure
//!
//! It knows what our components need of a cluster. It must never know how they do their work.

pub mod charts;
pub mod cluster;
pub mod installed;
pub mod objects;
pub mod platform;
pub mod profile;
pub mod schema;
pub mod spec;

pub use objects::{Component, Rendered, render};
pub use platform::Platform;
pub use spec::Spec;
