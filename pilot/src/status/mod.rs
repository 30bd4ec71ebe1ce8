//! What became of each object, written into its status: accepted or refused, and how far the proxies are (D9, PI-45).
//!
//! One pilot of several writes: the one that holds the Lease `istio-status-leader` (PI-44, F27).
//! What this part knows: conditions, when to write them. What it must never know: how a proxy is told anything.

pub mod conditions;
pub mod leader;
pub mod writer;
