//! Filter chains and listener filters: the pieces that all listeners are made of (FC-2, FC-3).

use super::super::authz::{self, Protocol};
use super::super::custom::{self, Judge};
use super::super::family::Families;
use super::super::inputs::Owner;
use super::super::message::{address, duration, uint};
use super::super::node::Flavor;
use super::super::telemetry::{self, Direction, Entries};
use crate::model::authz::AuthorizationPolicy;
use crate::model::{MeshConfig, Shared};
use proto::any;
use proto::envoy::core::CidrRange;
use proto::envoy::listener::listener_filter_chain_match_predicate::{MatchSet, Rule};
use proto::envoy::listener::{
    AdditionalAddress, Filter, FilterChain, FilterChainMatch, ListenerFilter, ListenerFilterChainMatchPredicate,
};
use proto::envoy::listener::{filter, listener_filter};
use proto::envoy::listener_filters::{http_inspector, original_dst, proxy_protocol, tls_inspector};
use proto::envoy::tcp_proxy::TcpProxy;
use proto::envoy::types::Int32Range;
use proto::envoy::wkt::Any;
use std::collections::HashSet;
use std::time::Duration;

/// The first bytes of HTTP without TLS, as the inspector names them (PR-8).
pub const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];
/// How long a TLS handshake may take (FC-4).
pub const HANDSHAKE: Duration = Duration::from_secs(15);

/// A network filter.
pub fn filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// The exchange of metadata over TCP; a stock Envoy has none (XM-5).
pub fn metadata_exchange(flavor: Flavor) -> Option<Filter> {
    (flavor == Flavor::Istio).then(|| filter("istio.metadata_exchange", telemetry::tcp_metadata_exchange()))
}

/// The stats filter, where metrics are on.
pub fn stats(owner: &Owner, direction: Direction) -> Option<Filter> {
    telemetry::stats(owner, direction).map(|config| filter("istio.stats", config))
}

/// The TCP proxy.
pub fn tcp_proxy(mut proxy: TcpProxy, owner: &Owner, direction: Direction) -> Filter {
    proxy.access_log = telemetry::access_log(owner, direction, Entries::Connections);
    filter("envoy.filters.network.tcp_proxy", any::pack(&proxy))
}

/// The TCP proxy of traffic that would come back to the listener itself; nothing of it is logged.
pub fn black_hole() -> Filter {
    filter("envoy.filters.network.tcp_proxy", any::pack(&to_cluster(proto::wire::CLUSTER_BLACK_HOLE)))
}

/// A TCP proxy to one cluster.
pub fn to_cluster(cluster: &str) -> TcpProxy {
    TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(proto::envoy::tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(cluster.to_owned())),
        ..TcpProxy::default()
    }
}

/// A match by transport, offered protocols and port; a port of 0 is any.
pub fn chain_match(transport: &str, alpn: &[&str], port: u16) -> FilterChainMatch {
    FilterChainMatch {
        destination_port: if port == 0 { None } else { uint(u32::from(port)) },
        transport_protocol: transport.to_owned(),
        application_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        ..FilterChainMatch::default()
    }
}

/// Chains of which no two match alike: Envoy refuses a listener where two do. What two claim is the first one's.
pub fn distinct(chains: impl IntoIterator<Item = FilterChain>) -> Vec<FilterChain> {
    let mut taken: HashSet<(String, String)> = HashSet::new();
    let mut out = Vec::new();
    for mut chain in chains {
        let mut rule = chain.filter_chain_match.clone().unwrap_or_default();
        let network = |range: &CidrRange| format!("{}/{:?}", range.address_prefix, range.prefix_len);
        let networks = |rule: &FilterChainMatch| match rule.prefix_ranges.as_slice() {
            [] => vec![String::new()],
            ranges => ranges.iter().map(network).collect(),
        };
        if rule.server_names.is_empty() {
            let all = rule.prefix_ranges.len();
            rule.prefix_ranges.retain(|range| !taken.contains(&(String::new(), network(range))));
            let nothing = if all == 0 { taken.contains(&Default::default()) } else { rule.prefix_ranges.is_empty() };
            if nothing {
                continue;
            }
            taken.extend(networks(&rule).into_iter().map(|network| (String::new(), network)));
        } else {
            let networks = networks(&rule);
            let pairs =
                |name: &String| networks.iter().map(|network| (name.clone(), network.clone())).collect::<Vec<_>>();
            rule.server_names.retain(|name| {
                let pairs = pairs(name);
                let free = !pairs.iter().any(|pair| taken.contains(pair));
                taken.extend(pairs);
                free
            });
            if rule.server_names.is_empty() {
                continue;
            }
        }
        chain.filter_chain_match = chain.filter_chain_match.is_some().then_some(rule);
        out.push(chain);
    }
    out
}

/// The same port on every address of the other family, where the proxy has two.
pub fn other_wildcard(families: Families, port: u16) -> Vec<AdditionalAddress> {
    let one = |host| AdditionalAddress { address: address(host, port), ..AdditionalAddress::default() };
    families.other_wildcard().map(one).into_iter().collect()
}

/// A chain for traffic that leaves.
pub fn outbound(filters: Vec<Filter>) -> FilterChain {
    FilterChain { filters, transport_socket_connect_timeout: duration(HANDSHAKE), ..FilterChain::default() }
}

fn listener_filter(name: &str, config: Any, disabled: Option<ListenerFilterChainMatchPredicate>) -> ListenerFilter {
    ListenerFilter {
        name: format!("envoy.filters.listener.{name}"),
        filter_disabled: disabled,
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
    }
}

/// Finds the destination of captured traffic.
pub fn original_dst() -> ListenerFilter {
    listener_filter("original_dst", any::pack(&original_dst::v3::OriginalDst::default()), None)
}

/// Reads the addresses that a load balancer sends first (PROXY protocol), which every connection must.
pub fn proxy_protocol() -> ListenerFilter {
    listener_filter("proxy_protocol", any::pack(&proxy_protocol::v3::ProxyProtocol::default()), None)
}

/// Looks at the first bytes for TLS, but on these ports.
pub fn tls_inspector(disabled: &[u16]) -> ListenerFilter {
    tls_inspector_unless(on_ports(disabled))
}

/// Looks at the first bytes for TLS on these ports alone.
pub fn tls_inspector_on(enabled: &[u16]) -> ListenerFilter {
    let not = |rule| ListenerFilterChainMatchPredicate { rule: Some(Rule::NotMatch(Box::new(rule))) };
    tls_inspector_unless(on_ports(enabled).map(not))
}

fn tls_inspector_unless(disabled: Option<ListenerFilterChainMatchPredicate>) -> ListenerFilter {
    let config = tls_inspector::v3::TlsInspector { initial_read_buffer_size: uint(512), ..Default::default() };
    listener_filter("tls_inspector", any::pack(&config), disabled)
}

/// Looks at the first bytes for HTTP, but on these ports.
pub fn http_inspector(disabled: &[u16]) -> ListenerFilter {
    listener_filter("http_inspector", any::pack(&http_inspector::v3::HttpInspector::default()), on_ports(disabled))
}

fn on_ports(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let one = |port: &u16| ListenerFilterChainMatchPredicate {
        rule: Some(Rule::DestinationPortRange(Int32Range { start: i32::from(*port), end: i32::from(*port) + 1 })),
    };
    match ports {
        [] => None,
        [only] => Some(one(only)),
        many => Some(ListenerFilterChainMatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet { rules: many.iter().map(one).collect() })),
        }),
    }
}

/// The filters that decide which connections may pass.
pub fn policies(policies: &[Shared<AuthorizationPolicy>], judges: &[Judge], mesh: &MeshConfig) -> Vec<Filter> {
    let custom = custom::filters(policies, judges, Protocol::Tcp, mesh).into_iter();
    let own = authz::filters(policies, Protocol::Tcp, mesh).into_iter();
    let own = own.map(|config| ("envoy.filters.network.rbac", config));
    custom.chain(own).map(|(name, config)| filter(name, config)).collect()
}
