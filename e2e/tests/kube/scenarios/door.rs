//! Callers of the gateway from outside of the cluster.

use super::space::page;
use std::net::SocketAddr;

/// Status of the gateway's answer to a request for ratings; 0 where there is none.
pub(crate) fn status(gateway: SocketAddr, host: &str) -> u16 {
    page(gateway, host, "/ratings/0").ok().and_then(|text| text.get(9..12)?.parse().ok()).unwrap_or(0)
}
