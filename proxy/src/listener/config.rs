//! `Listener` → how connections are accepted, inspected and matched.

use super::PortRule;
use super::chain_match::{ChainMatch, SourceType};
use crate::http::config::{self as http, HcmConfig};
use crate::message::matcher::cidr;
use crate::refusal::{Refusal, Within};
use crate::route::RouteContext;
use crate::tcp::config::{self as tcp, NetworkFilter, TcpConfig};
use crate::telemetry::access_log::AccessLog;
use crate::tls::{self, ServerContext};
use arc_swap::ArcSwapOption;
use ipnet::IpNet;
use proto::any;
use proto::duration::from_proto;
use proto::envoy::core::{self, address, socket_address::PortSpecifier};
use proto::envoy::hcm::HttpConnectionManager;
use proto::envoy::listener::{
    FilterChain, FilterChainMatch, Listener, ListenerFilter, ListenerFilterChainMatchPredicate, filter,
    listener::DrainType, listener_filter,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What a chain does with a connection.
#[derive(Debug)]
pub enum Terminal {
    /// HTTP.
    Http(Arc<HcmConfig>),
    /// Bytes both ways.
    Tcp(Arc<TcpConfig>),
}

/// One filter chain.
#[derive(Debug)]
pub struct ChainConfig {
    /// Name.
    pub name: Box<str>,
    /// Which connections it takes.
    pub matching: ChainMatch,
    /// TLS; none is plaintext.
    pub tls: Option<(Arc<ServerContext>, Arc<tls::Spec>)>,
    /// Bound of the TLS handshake.
    pub handshake_timeout: Duration,
    /// Network filters before the terminal one.
    pub filters: Arc<[NetworkFilter]>,
    /// What ends the chain.
    pub terminal: Terminal,
}

/// Which inspectors run, in the order that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inspectors {
    /// The address that the client dialled before redirection.
    pub original_dst: bool,
    /// PROXY protocol is expected; `allow_requests_without_proxy_protocol`.
    pub proxy_protocol: Option<bool>,
    /// Server name and ALPN of a TLS hello.
    pub tls: bool,
    /// HTTP or not.
    pub http: bool,
}

/// A parsed listener.
#[derive(Debug)]
pub struct ListenerConfig {
    /// Name.
    pub name: Arc<str>,
    /// Address.
    pub address: SocketAddr,
    /// Other addresses (dual stack).
    pub more_addresses: Box<[SocketAddr]>,
    /// Whether it has a socket of its own; otherwise connections come from the one with `use_original_dst`.
    pub bind_to_port: bool,
    /// Hands connections to the listener of their original destination.
    pub use_original_dst: bool,
    /// Inbound or outbound, for drain and metrics.
    pub inbound: bool,
    /// Drains only where it is changed or removed itself (`drain_type: MODIFY_ONLY`).
    pub drains_by_change: bool,
    /// Inspectors.
    pub inspectors: Inspectors,
    /// Ports at which the TLS inspector does not run.
    pub no_tls: Option<PortRule>,
    /// Ports at which the HTTP inspector does not run.
    pub no_http: Option<PortRule>,
    /// Bound of inspection; `None` waits for ever.
    pub inspect_timeout: Option<Duration>,
    /// What happens then: go on with what is known, or close.
    pub continue_on_timeout: bool,
    /// Chains in order.
    pub chains: Vec<Arc<ChainConfig>>,
    /// Chain for connections that match none.
    pub default_chain: Option<Arc<ChainConfig>>,
    /// Access logs of connections that no chain takes.
    pub access_log: Vec<AccessLog>,
}

/// Parses a listener.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(written: &Listener, cx: RouteContext<'_>) -> Result<ListenerConfig, Refusal> {
    refuse(written)?;
    let address = socket_address(written.address.as_ref()).within("address")?;
    let mut more = Vec::new();
    for (i, extra) in written.additional_addresses.iter().enumerate() {
        more.push(socket_address(extra.address.as_ref()).within(&format!("additional_addresses[{i}]"))?);
    }
    let mut chains = Vec::new();
    for (i, chain) in written.filter_chains.iter().enumerate() {
        chains.push(Arc::new(parse_chain(chain, cx).within(&format!("filter_chains[{i}]"))?));
    }
    let default_chain = match &written.default_filter_chain {
        Some(chain) => Some(Arc::new(parse_chain(chain, cx).within("default_filter_chain")?)),
        None => None,
    };
    if chains.is_empty() && default_chain.is_none() {
        return Err(Refusal::new("filter_chains", "at least one is needed"));
    }
    #[expect(deprecated, reason = "old bootstraps switch binding off here")]
    let bind_v1 = written.deprecated_v1.as_ref().and_then(|v1| v1.bind_to_port.as_ref()).is_none_or(|b| b.value);
    let bind = written.bind_to_port.as_ref().is_none_or(|b| b.value);
    let timeout = written.listener_filters_timeout.as_ref().map_or(Duration::from_secs(15), from_proto);
    Ok(ListenerConfig {
        name: written.name.as_str().into(),
        address,
        more_addresses: more.into(),
        bind_to_port: bind && bind_v1,
        use_original_dst: written.use_original_dst.as_ref().is_some_and(|b| b.value),
        inbound: written.traffic_direction == i32::from(core::TrafficDirection::Inbound),
        drains_by_change: written.drain_type == i32::from(DrainType::ModifyOnly),
        inspectors: inspectors(written)?,
        no_tls: disabled(written, TLS_INSPECTOR)?,
        no_http: disabled(written, HTTP_INSPECTOR)?,
        inspect_timeout: Some(timeout).filter(|t| !t.is_zero()),
        continue_on_timeout: written.continue_on_listener_filters_timeout,
        chains,
        default_chain,
        access_log: http::access_logs(&written.access_log, cx)?,
    })
}

/// Refuses what would change which connections are taken, or how, if it were not looked at. What only tunes the socket
/// or Envoy's own machinery has no effect and is let through.
#[expect(deprecated, reason = "an old field is refused by its name, too")]
fn refuse(written: &Listener) -> Result<(), Refusal> {
    let is_on = |value: &Option<proto::envoy::wkt::BoolValue>| value.as_ref().is_some_and(|value| value.value);
    let mut chains = written.filter_chains.iter().chain(&written.default_filter_chain);
    let refused = [
        ("fcds_config", written.fcds_config.is_some()),
        ("filter_chain_matcher", written.filter_chain_matcher.is_some()),
        ("transparent", is_on(&written.transparent)),
        ("freebind", is_on(&written.freebind)),
        ("socket_options", !written.socket_options.is_empty()),
        ("udp_listener_config", written.udp_listener_config.is_some()),
        ("api_listener", written.api_listener.is_some()),
        ("enable_mptcp", written.enable_mptcp),
        ("listener_specifier", written.listener_specifier.is_some()),
        ("filter_chains.use_proxy_proto", chains.any(|chain| is_on(&chain.use_proxy_proto))),
    ];
    match refused.iter().find(|(_, written)| *written) {
        Some((field, _)) => Err(Refusal::unsupported(*field)),
        None => Ok(()),
    }
}

impl ListenerConfig {
    /// Takes over what an update leaves as it was: where only chains differ, those with equal messages (LC-1). `written`
    /// and `before` are the message and what it replaces, with its parsed form.
    pub fn keep(&mut self, written: &Listener, (before, old): (&Listener, &Self)) {
        let frame =
            |listener: &Listener| Listener { filter_chains: vec![], default_filter_chain: None, ..listener.clone() };
        if frame(written) != frame(before) {
            return;
        }
        for (chain, message) in self.chains.iter_mut().zip(&written.filter_chains) {
            let mut held = before.filter_chains.iter().zip(&old.chains);
            if let Some((_, same)) = held.find(|(other, _)| *other == message) {
                *chain = Arc::clone(same);
            }
        }
        if written.default_filter_chain == before.default_filter_chain {
            self.default_chain.clone_from(&old.default_chain);
        }
    }

    /// The inspectors that run for a connection to `port`.
    pub fn inspectors_at(&self, port: u16) -> Inspectors {
        let off = |rule: &Option<PortRule>| rule.as_ref().is_some_and(|rule| rule.holds(port));
        let Inspectors { tls, http, .. } = self.inspectors;
        Inspectors { tls: tls && !off(&self.no_tls), http: http && !off(&self.no_http), ..self.inspectors }
    }
}

fn socket_address(written: Option<&core::Address>) -> Result<SocketAddr, Refusal> {
    let Some(address::Address::SocketAddress(socket)) = written.and_then(|a| a.address.as_ref()) else {
        return Err(Refusal::new("socket_address", "an IP address and a port are needed"));
    };
    let ip: IpAddr =
        socket.address.parse().map_err(|_| Refusal::new("socket_address.address", "an IP address is needed"))?;
    match &socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(*port)
            .map(|port| SocketAddr::new(ip, port))
            .map_err(|_| Refusal::new("socket_address.port_value", "at most 65535")),
        _ => Err(Refusal::new("socket_address.port_value", "is needed")),
    }
}

fn inspectors(written: &Listener) -> Result<Inspectors, Refusal> {
    let mut inspectors = Inspectors::default();
    for (i, filter) in written.listener_filters.iter().enumerate() {
        let field = format!("listener_filters[{i}].typed_config");
        let Some(listener_filter::ConfigType::TypedConfig(typed)) = &filter.config_type else {
            return Err(Refusal::unsupported(format!("listener_filters[{i}].config_discovery")));
        };
        match any::type_name(&typed.type_url) {
            "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => inspectors.original_dst = true,
            TLS_INSPECTOR => inspectors.tls = true,
            HTTP_INSPECTOR => inspectors.http = true,
            "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
                let config: proto::envoy::listener_filters::proxy_protocol::v3::ProxyProtocol =
                    any::decode(typed).map_err(|e| Refusal::new(field, e.to_string()))?;
                inspectors.proxy_protocol = Some(config.allow_requests_without_proxy_protocol);
            }
            other => {
                let name = &filter.name;
                let text = format!("Didn't find a registered implementation for '{name}' with type URL: '{other}'");
                return Err(Refusal::new(field, text));
            }
        }
    }
    Ok(inspectors)
}

/// The ports at which an inspector does not run (`filter_disabled`).
fn disabled(written: &Listener, type_name: &str) -> Result<Option<PortRule>, Refusal> {
    let is = |filter: &&ListenerFilter| match &filter.config_type {
        Some(listener_filter::ConfigType::TypedConfig(typed)) => any::type_name(&typed.type_url) == type_name,
        _ => false,
    };
    let predicate = written.listener_filters.iter().find(is).and_then(|filter| filter.filter_disabled.as_ref());
    predicate.map(port_rule).transpose().within("listener_filters.filter_disabled")
}

fn port_rule(written: &ListenerFilterChainMatchPredicate) -> Result<PortRule, Refusal> {
    use proto::envoy::listener::listener_filter_chain_match_predicate::Rule;
    let all = |rules: &[ListenerFilterChainMatchPredicate]| rules.iter().map(port_rule).collect::<Result<Vec<_>, _>>();
    Ok(match &written.rule {
        Some(Rule::OrMatch(set)) => PortRule::Or(all(&set.rules)?),
        Some(Rule::AndMatch(set)) => PortRule::And(all(&set.rules)?),
        Some(Rule::NotMatch(rule)) => PortRule::Not(Box::new(port_rule(rule)?)),
        Some(Rule::AnyMatch(always)) => PortRule::Any(*always),
        Some(Rule::DestinationPortRange(range)) => {
            let bad = || Refusal::new("destination_port_range", "from 0 to 65536");
            PortRule::Range(
                u16::try_from(range.start).map_err(|_| bad())?,
                u32::try_from(range.end).map_err(|_| bad())?,
            )
        }
        None => return Err(Refusal::new("rule", "is needed")),
    })
}

fn parse_chain(written: &FilterChain, cx: RouteContext<'_>) -> Result<ChainConfig, Refusal> {
    let tls = tls::config::downstream(written.transport_socket.as_ref()).within("transport_socket")?;
    let context = || Arc::new(ServerContext { ready: ArcSwapOption::empty() });
    let (mut filters, mut terminal) = (Vec::new(), None);
    for (i, filter) in written.filters.iter().enumerate() {
        let field = format!("filters[{i}].typed_config");
        let Some(filter::ConfigType::TypedConfig(typed)) = &filter.config_type else {
            return Err(Refusal::unsupported(format!("filters[{i}].config_discovery")));
        };
        if terminal.is_some() {
            return Err(Refusal::new(field, "no filter may follow a terminal one"));
        }
        match any::type_name(&typed.type_url) {
            HCM => {
                let hcm: HttpConnectionManager =
                    any::decode(typed).map_err(|e| Refusal::new(field.clone(), e.to_string()))?;
                terminal = Some(Terminal::Http(Arc::new(http::parse(&hcm, cx).within(&field)?)));
            }
            TCP => terminal = Some(Terminal::Tcp(Arc::new(tcp::parse(typed, cx).within(&field)?))),
            _ => filters.extend(tcp::parse_filter(&filter.name, typed).within(&field)?),
        }
    }
    let handshake = written.transport_socket_connect_timeout.as_ref().map(from_proto).filter(|t| !t.is_zero());
    Ok(ChainConfig {
        name: written.name.as_str().into(),
        matching: chain_match(written.filter_chain_match.as_ref()).within("filter_chain_match")?,
        tls: tls.map(|spec| (context(), Arc::new(spec))),
        handshake_timeout: handshake.unwrap_or(HANDSHAKE),
        filters: filters.into(),
        terminal: terminal.ok_or_else(|| Refusal::new("filters", "a terminal filter is needed at the end"))?,
    })
}

const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
const HTTP_INSPECTOR: &str = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
const HCM: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// Bound of a TLS handshake where nothing is configured (safe default; Istio's gateways: 15 s).
const HANDSHAKE: Duration = Duration::from_secs(15);

fn chain_match(written: Option<&FilterChainMatch>) -> Result<ChainMatch, Refusal> {
    let Some(written) = written else { return Ok(ChainMatch::default()) };
    let prefixes = |ranges: &[core::CidrRange], field: &str| -> Result<Box<[IpNet]>, Refusal> {
        let parsed = ranges.iter().enumerate().map(|(i, range)| cidr(range).within(&format!("{field}[{i}]")));
        parsed.collect()
    };
    let port = written.destination_port.as_ref().map(|port| port.value);
    Ok(ChainMatch {
        destination_port: port.map(|port| u16::try_from(port).unwrap_or(0)),
        prefixes: prefixes(&written.prefix_ranges, "prefix_ranges")?,
        server_names: written.server_names.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
        transport: written.transport_protocol.as_str().into(),
        applications: written.application_protocols.iter().map(|p| p.as_bytes().into()).collect(),
        direct_source: prefixes(&written.direct_source_prefix_ranges, "direct_source_prefix_ranges")?,
        source_type: match written.source_type {
            1 => SourceType::SameIpOrLoopback,
            2 => SourceType::External,
            _ => SourceType::Any,
        },
        source: prefixes(&written.source_prefix_ranges, "source_prefix_ranges")?,
        source_ports: written.source_ports.iter().filter_map(|port| u16::try_from(*port).ok()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::registry;
    use prost::Message;
    use serde_json::{Value, json};

    fn listener(more: &Value) -> ListenerConfig {
        let filters = json!([{"name": "tcp", "typed_config": {"stat_prefix": "p", "cluster": "c", "@type": format!("type.googleapis.com/{TCP}")}}]);
        let mut json = json!({"name": "l", "filter_chains": [{"filters": filters}],
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let bytes = proto::json::from_value("envoy.config.listener.v3.Listener", &json).unwrap();
        let (environment, runtime) = Default::default();
        let parse_override = &registry::parse_override;
        let cx = RouteContext { environment: &environment, runtime: &runtime, parse_override };
        parse(&Listener::decode(bytes.as_slice()).unwrap(), cx).unwrap()
    }

    // spec: PR-5, TC-5, OD-1
    #[test]
    fn inspection_takes_15_s_unless_told_and_for_ever_where_zero_is_said() {
        let plain = listener(&json!({}));
        assert_eq!((plain.inspect_timeout, plain.continue_on_timeout), (Some(Duration::from_secs(15)), false));
        assert!(plain.bind_to_port && !plain.use_original_dst && !plain.inbound);
        let istio = listener(&json!({"listener_filters_timeout": "0s", "continue_on_listener_filters_timeout": true,
            "use_original_dst": true, "bind_to_port": false, "traffic_direction": "INBOUND"}));
        assert_eq!((istio.inspect_timeout, istio.continue_on_timeout), (None, true));
        assert!(!istio.bind_to_port && istio.use_original_dst && istio.inbound);
    }

    // spec: PR-3, PR-5
    #[test]
    fn inspectors_leave_the_ports_alone_that_they_are_told_of() {
        let filter = |type_name: &str, port: u32| {
            json!({"name": "i", "typed_config": {"@type": format!("type.googleapis.com/{type_name}")},
                "filter_disabled": {"destination_port_range": {"start": port, "end": port + 1}}})
        };
        let both = listener(&json!({"listener_filters": [filter(TLS_INSPECTOR, 25), filter(HTTP_INSPECTOR, 3306)]}));
        let at = |port| (both.inspectors_at(port).tls, both.inspectors_at(port).http);
        assert_eq!((at(24), at(25), at(3306), at(3307)), ((true, true), (false, true), (true, false), (true, true)));
    }
}
