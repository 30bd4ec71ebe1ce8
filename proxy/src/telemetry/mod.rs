//! What the proxy tells about its work: metrics and access logs.
//!
//! Knows names, labels, cells and formats. Must never know a connection: those who do the work hand over facts.

pub mod access_log;
