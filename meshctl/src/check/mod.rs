//! Whether a mesh is well, in linkerd's shape: groups of lines, each with what to do where it is not (CT-40).
//!
//! - [`report`]: lines, groups, and how they look
//! - [`facts`]: what is asked of pilot, citadel, mixer and the proxies
//! - [`cluster`]: what is asked of the API server
//! - [`judge`], [`installed`]: from facts to lines; pure
//!
//! A group whose first line fails is not looked at further: the rest would fail for the same reason.

pub mod cluster;
pub mod facts;
pub mod installed;
pub mod judge;
pub mod report;

pub use cluster::Kubernetes;
pub use facts::{Facts, Where};
pub use report::{Group, Line, Report};
