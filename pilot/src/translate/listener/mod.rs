//! Listeners: what sidecars send, what they receive, what gateways accept.

pub mod chain;
pub mod gateway;
pub mod inbound;
pub mod manager;
pub mod outbound;
