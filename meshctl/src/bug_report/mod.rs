//! What somebody else needs to help, in one archive and without secrets (CT-23).
//!
//! - [`gather`]: what is asked of the cluster, of pilot and of the proxies
//! - [`redact`]: what nobody else may see is taken out; everything passes through it
//! - [`archive`]: the files as a compressed tar
//!
//! Secrets are never asked for. What one part refuses is written in its place: a report of a broken mesh is the one that is
//! needed.

pub mod archive;
pub mod gather;
pub mod redact;

pub use archive::Archive;
