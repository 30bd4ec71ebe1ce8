//! Which filter chain takes a connection (Envoy: `FilterChainMatch`, most specific first in a fixed order of criteria).

use super::config::{ChainConfig, ListenerConfig};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceType {
    /// Anywhere.
    #[default]
    Any,
    /// This host.
    SameIpOrLoopback,
    /// Another host.
    External,
}

/// Criteria of one chain; an empty one fits everything.
#[derive(Debug, Default)]
pub struct ChainMatch {
    /// Port that the client dialled.
    pub destination_port: Option<u16>,
    /// Address that the client dialled.
    pub prefixes: Box<[IpNet]>,
    /// Server names, lower case; `*.x` fits below x.
    pub server_names: Box<[Box<str>]>,
    /// `tls` or `raw_buffer`; empty: any.
    pub transport: Box<str>,
    /// ALPN, or what inspection found.
    pub applications: Box<[Box<[u8]>]>,
    /// Address of the socket's other end.
    pub direct_source: Box<[IpNet]>,
    /// Where it comes from.
    pub source_type: SourceType,
    /// Address of the client.
    pub source: Box<[IpNet]>,
    /// Port of the client.
    pub source_ports: Box<[u16]>,
}

/// What inspection found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// The client speaks TLS.
    pub tls: bool,
    /// Server name, lower case; empty if none.
    pub sni: String,
    /// ALPN protocols that the client offered, or `http/1.0`, `http/1.1`, `h2c` found in plaintext.
    pub applications: Vec<Vec<u8>>,
}

/// Addresses of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// What the client dialled.
    pub destination: SocketAddr,
    /// The client.
    pub source: SocketAddr,
    /// The socket's other end.
    pub direct_source: SocketAddr,
}

/// The chain for a connection: among those that fit, the one that is most specific in the first criterion in which they
/// differ, in Envoy's order: port, address, server name, transport, application, direct source, source type, source,
/// source port. The default chain where none fits.
pub fn find<'a>(listener: &'a ListenerConfig, ends: Ends, hello: &Hello) -> Option<&'a Arc<ChainConfig>> {
    let mut left: Vec<&Arc<ChainConfig>> = listener.chains.iter().collect();
    // Each criterion keeps only the chains of its best rank: Envoy never goes back to a less specific one.
    for criterion in 0..CRITERIA {
        let ranks: Vec<Option<u32>> = left.iter().map(|c| rank(&c.matching, criterion, ends, hello)).collect();
        let Some(top) = ranks.iter().flatten().max().copied() else { return listener.default_chain.as_ref() };
        let mut ranks = ranks.into_iter();
        left.retain(|_| ranks.next().flatten() == Some(top));
    }
    left.first().copied().or(listener.default_chain.as_ref())
}

/// Number of criteria in [`rank`].
const CRITERIA: usize = 9;

/// How specifically a chain fits in one criterion; `None`: it does not.
fn rank(m: &ChainMatch, criterion: usize, ends: Ends, hello: &Hello) -> Option<u32> {
    match criterion {
        0 => match m.destination_port {
            None => Some(0),
            Some(port) => (port == ends.destination.port()).then_some(1),
        },
        1 => longest(&m.prefixes, ends.destination.ip()),
        2 => server_name(&m.server_names, &hello.sni),
        3 => match &*m.transport {
            "" => Some(0),
            transport => (transport == if hello.tls { "tls" } else { "raw_buffer" }).then_some(1),
        },
        4 if m.applications.is_empty() => Some(0),
        4 => hello.applications.iter().any(|a| m.applications.iter().any(|want| **want == **a)).then_some(1),
        5 => longest(&m.direct_source, ends.direct_source.ip()),
        6 => {
            let local = ends.source.ip().is_loopback() || ends.source.ip() == ends.destination.ip();
            match m.source_type {
                SourceType::Any => Some(0),
                SourceType::SameIpOrLoopback => local.then_some(1),
                SourceType::External => (!local).then_some(1),
            }
        }
        7 => longest(&m.source, ends.source.ip()),
        _ if m.source_ports.is_empty() => Some(0),
        _ => m.source_ports.contains(&ends.source.port()).then_some(1),
    }
}

fn longest(prefixes: &[IpNet], ip: IpAddr) -> Option<u32> {
    if prefixes.is_empty() {
        return Some(0);
    }
    prefixes.iter().filter(|net| net.contains(&ip)).map(|net| u32::from(net.prefix_len()) + 1).max()
}

fn server_name(names: &[Box<str>], sni: &str) -> Option<u32> {
    if names.is_empty() {
        return Some(0);
    }
    let fits = |name: &str| match name.strip_prefix('*') {
        None => (name == sni).then_some(10_000),
        Some(suffix) => (sni.len() > suffix.len() && sni.ends_with(suffix)).then(|| 1 + suffix.len() as u32),
    };
    names.iter().filter_map(|name| fits(name)).max()
}

#[cfg(test)]
mod tests;
