//! `istio.alpn`: what a mesh client offers in its TLS hello, by the protocol that it will speak (MT-1).

use crate::message::Version;
use crate::refusal::Refusal;
use proto::any;
use proto::envoy::wkt::Any;
use proto::missing::AlpnFilterConfig;
use std::sync::Arc;

/// ALPN protocols by version of the upstream's HTTP.
#[derive(Debug, Clone, Default)]
pub struct Alpn {
    lists: [Option<Arc<[Vec<u8>]>>; 3],
}

/// Parses the filter.
///
/// # Errors
/// A message that cannot be read.
pub fn parse(typed: &Any) -> Result<Alpn, Refusal> {
    let written: AlpnFilterConfig = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let mut alpn = Alpn::default();
    for entry in &written.alpn_override {
        let list = entry.alpn_override.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        // FilterConfig.Protocol: HTTP10 = 0, HTTP11 = 1, HTTP2 = 2.
        if let Some(slot) = usize::try_from(entry.upstream_protocol).ok().and_then(|i| alpn.lists.get_mut(i)) {
            *slot = Some(list);
        }
    }
    Ok(alpn)
}

impl Alpn {
    /// What is offered to an upstream that speaks `version`; none leaves it to the cluster.
    pub fn offer(&self, version: Version) -> Option<Arc<[Vec<u8>]>> {
        let [h10, h11, h2] = &self.lists;
        match version {
            Version::H10 => h10.clone(),
            Version::H11 => h11.clone(),
            Version::H2 => h2.clone(),
        }
    }
}
