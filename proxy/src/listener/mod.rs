//! From an accepted socket to the filter chain that takes it.
//!
//! Knows addresses and first bytes. Must never know a request.

mod accept;
mod chain_match;
pub mod config;
mod inspect;
mod original_dst;
mod peers;
mod port_rule;

pub use accept::{Chain, Connections, Listener, Serve, accept_loop, of_destination};
pub use chain_match::{ChainMatch, Ends, Hello, SourceType, find};
pub use config::ListenerConfig;
pub use peers::{Peers, Place};
pub use port_rule::PortRule;
