//! Small pieces that many Envoy messages are made of.

use proto::envoy::core::address::Address as AddressKind;
use proto::envoy::core::socket_address::PortSpecifier;
use proto::envoy::core::{Address, ConfigSource, Metadata, SocketAddress};
use proto::envoy::core::{AggregatedConfigSource, ApiVersion, CidrRange, config_source::ConfigSourceSpecifier};
use proto::envoy::wkt::value::Kind;
use proto::envoy::wkt::{self, Struct, Value};
use std::collections::HashMap;
use std::time::Duration;

/// A wrapped number.
pub fn uint(value: u32) -> Option<wkt::UInt32Value> {
    Some(wkt::UInt32Value { value })
}

/// A wrapped truth value.
pub fn boolean(value: bool) -> Option<wkt::BoolValue> {
    Some(wkt::BoolValue { value })
}

/// A duration.
pub fn duration(value: Duration) -> Option<wkt::Duration> {
    Some(proto::duration::to_proto(value))
}

/// A text value.
pub fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

/// Maps of up to this many entries are put in order; larger ones are not made here.
const ORDERED: usize = 6;

/// A map that encodes its entries sorted by key.
///
/// Envoy's messages hold maps in a `HashMap`, whose order is seeded anew for each map. Equal content must encode to
/// equal bytes, or a restarted pilot would send everything again. So the map is made until its seed gives the sorted
/// order: for the two or three entries that maps have here that is a handful of tries.
pub fn ordered<V>(entries: impl IntoIterator<Item = (String, V)>) -> HashMap<String, V> {
    let mut map: HashMap<String, V> = entries.into_iter().collect();
    while map.len() <= ORDERED && !map.keys().is_sorted() {
        map = map.into_iter().collect();
    }
    map
}

/// A struct value.
pub fn structure(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Struct {
    Struct { fields: ordered(fields.into_iter().map(|(key, value)| (key.to_owned(), value))) }
}

/// A nested struct.
pub fn nested(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value { kind: Some(Kind::StructValue(structure(fields))) }
}

/// A list.
pub fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(wkt::ListValue { values })) }
}

/// Metadata under the key `istio`.
pub fn istio_metadata(fields: Struct) -> Option<Metadata> {
    Some(Metadata { filter_metadata: [("istio".to_owned(), fields)].into(), ..Metadata::default() })
}

/// Metadata that names the object a resource comes from.
pub fn config_metadata(key: &crate::source::Key) -> Option<Metadata> {
    istio_metadata(structure([("config", text(super::names::config_path(key)))]))
}

/// An address and port.
pub fn address(host: &str, port: u16) -> Option<Address> {
    Some(Address { address: Some(AddressKind::SocketAddress(socket_address(host, port))) })
}

/// An address and port, bare.
pub fn socket_address(host: &str, port: u16) -> SocketAddress {
    SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(u32::from(port))),
        ..SocketAddress::default()
    }
}

/// "Ask the control plane for it, on this stream."
pub fn ads() -> Option<ConfigSource> {
    Some(ConfigSource {
        initial_fetch_timeout: duration(Duration::ZERO),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    })
}

/// An address block; a bare address is the block of itself.
pub fn cidr(text: &str) -> Option<CidrRange> {
    let (address, length) = match text.parse::<ipnet::IpNet>() {
        Ok(net) => (net.addr().to_string(), net.prefix_len()),
        Err(_bare) => {
            let address: std::net::IpAddr = text.parse().ok()?;
            (address.to_string(), if address.is_ipv4() { 32 } else { 128 })
        }
    };
    Some(CidrRange { address_prefix: address, prefix_len: uint(u32::from(length)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn equal_content_encodes_to_equal_bytes() {
        let make =
            || structure([("c", text("1")), ("a", text("2")), ("b", text("3")), ("d", text("4"))]).encode_to_vec();
        let first = make();
        assert!((0..50).all(|_| make() == first));
    }
}
