//! Listeners for what a workload sends (PR-6 to PR-8, OD-1 to OD-3, VS-38 to VS-40).

use super::super::defaults;
use super::super::inputs::{Client, OutboundHttpInput, OutboundInput, OutboundTcpInput, Owner, Upstream};
use super::super::message::{address, boolean, cidr, config_metadata, duration};
use super::super::names;
use super::super::policy;
use super::super::telemetry::{self, Direction};
use super::chain::{self, PLAIN_HTTP};
use super::manager::Manager;
use crate::model::virtual_service::{MESH, VirtualService};
use crate::model::{Shared, host};
use crate::registry::entry::selects;
use crate::registry::{Protocol, Service};
use proto::envoy::core::TrafficDirection;
use proto::envoy::listener::{FilterChain, FilterChainMatch, Listener};
use proto::envoy::tcp_proxy::TcpProxy;
use proto::envoy::tcp_proxy::tcp_proxy::weighted_cluster::ClusterWeight;
use proto::envoy::tcp_proxy::tcp_proxy::{ClusterSpecifier, WeightedCluster};
use proto::envoy::types::HashPolicy;
use proto::envoy::types::hash_policy::{PolicySpecifier, SourceIp};
use proto::istio::sidecar::OutboundMode;
use proto::istio::virtual_service::{Destination, RouteDestination};
use std::collections::BTreeMap;
use std::time::Duration;

fn listener(input: &OutboundInput, detection: Duration) -> Listener {
    let families = input.owner.families;
    Listener {
        name: names::listener(&input.address, input.port),
        address: address(&input.address, input.port),
        additional_addresses: if input.address == families.wildcard() {
            chain::other_wildcard(families, input.port)
        } else {
            Vec::new()
        },
        traffic_direction: TrafficDirection::Outbound.into(),
        bind_to_port: if input.bind { None } else { boolean(false) },
        continue_on_listener_filters_timeout: true,
        listener_filters_timeout: duration(detection),
        ..Listener::default()
    }
}

/// The cluster of what no service is known for.
fn unknown(mode: OutboundMode) -> &'static str {
    match mode {
        OutboundMode::AllowAny => proto::wire::CLUSTER_PASSTHROUGH,
        OutboundMode::RegistryOnly => proto::wire::CLUSTER_BLACK_HOLE,
    }
}

fn passthrough_chain(mode: OutboundMode, owner: &Owner) -> FilterChain {
    let stats = chain::stats(owner, Direction::Outbound);
    let proxy = chain::tcp_proxy(chain::to_cluster(unknown(mode)), owner, Direction::Outbound);
    FilterChain {
        name: "PassthroughFilterChain".to_owned(),
        filter_chain_match: Some(FilterChainMatch::default()),
        filters: stats.into_iter().chain([proxy]).collect(),
        ..FilterChain::default()
    }
}

/// A listener for HTTP: of a port that many services share, or of one service whose protocol is found out.
pub fn http(input: &OutboundHttpInput) -> Listener {
    let outbound = &input.outbound;
    let routes = match &input.sniffed {
        Some(service) => format!("{}:{}", service.key.host, outbound.port),
        None => outbound.port.to_string(),
    };
    let grpc_web = input
        .sniffed
        .as_ref()
        .and_then(|service| service.port(outbound.port))
        .is_some_and(|port| port.protocol == Protocol::GrpcWeb);
    let manager = Manager {
        direction: Direction::Outbound,
        stat_prefix: format!("outbound_{}_{}", outbound.address, outbound.port),
        routes: Ok(routes),
        authz: &[],
        judges: &[],
        tokens: &[],
        limits: &[],
        grpc_web,
        owner: &outbound.owner,
    };
    let mut http = chain::outbound(vec![manager.build()]);
    http.filter_chain_match = Some(chain::chain_match("raw_buffer", &PLAIN_HTTP, 0));
    // Where all is declared to be HTTP the client speaks first, at whatever time: it may open connections in advance.
    let mesh = &outbound.owner.mesh;
    let undeclared = input.sniffed.is_some();
    let detection = if undeclared { defaults::detection_timeout(mesh) } else { mesh.protocol_detection_timeout };
    let mut out = listener(outbound, detection);
    let mut others = match &input.sniffed {
        None => Vec::new(),
        Some(service) => chain::distinct(Routing::of(outbound).tcp_chains(service)),
    };
    let rest = others.iter().position(|chain| chain.filter_chain_match.is_none()).map(|rest| others.remove(rest));
    out.default_filter_chain = Some(rest.unwrap_or_else(|| passthrough_chain(outbound.outbound_mode, &outbound.owner)));
    out.filter_chains = others.into_iter().chain([http]).collect();
    out.listener_filters = vec![chain::http_inspector(&[])];
    out
}

/// A listener for TCP, and for TLS that passes through.
pub fn tcp(input: &OutboundTcpInput) -> Listener {
    let outbound = &input.outbound;
    let routing = Routing::of(outbound);
    // The first by age keeps a match that two services claim (PR-7).
    let mut chains = chain::distinct(input.services.iter().flat_map(|service| routing.chains(service)));
    let by_name = |chain: &FilterChain| chain.filter_chain_match.as_ref().is_some_and(|m| !m.server_names.is_empty());
    let mut out = listener(outbound, Duration::ZERO);
    if chains.iter().any(by_name) {
        out.listener_filters = vec![chain::tls_inspector(&[])];
        out.listener_filters_timeout = duration(defaults::detection_timeout(&outbound.owner.mesh));
    }
    // What matches everything is asked last; alone it needs not be the default.
    let rest = chains.iter().position(|chain| chain.filter_chain_match.is_none());
    out.default_filter_chain = match rest {
        Some(_) if chains.len() == 1 => None,
        Some(rest) => Some(chains.remove(rest)),
        None => Some(passthrough_chain(outbound.outbound_mode, &outbound.owner)),
    };
    out.filter_chains = chains;
    out
}

/// A match by name and network; none for every connection.
fn condition(server_names: Vec<String>, networks: &[String]) -> Option<FilterChainMatch> {
    let prefix_ranges: Vec<_> = networks.iter().filter_map(|network| cidr(network)).collect();
    let any = server_names.is_empty() && prefix_ranges.is_empty();
    (!any).then(|| FilterChainMatch { server_names, prefix_ranges, ..FilterChainMatch::default() })
}

/// How connections of one listener find their cluster.
pub struct Routing<'a> {
    /// Address of the listener.
    pub address: &'a str,
    /// Port as rules see it.
    pub port: u16,
    /// `mesh`, or the gateway.
    pub gateway: &'a str,
    /// TLS and TCP rules.
    pub rules: &'a [Shared<VirtualService>],
    /// What they may lead to.
    pub upstreams: &'a [Upstream],
    /// Who asks.
    pub client: &'a Client,
    /// Whose listener it is.
    pub owner: &'a Owner,
}

impl<'a> Routing<'a> {
    fn of(input: &'a OutboundInput) -> Self {
        Self {
            address: &input.address,
            port: input.port,
            gateway: MESH,
            rules: &input.rules,
            upstreams: &input.upstreams,
            client: &input.client,
            owner: &input.owner,
        }
    }

    fn chains(&self, service: &Service) -> Vec<FilterChain> {
        let protocol = service.port(self.port).map_or(Protocol::Tcp, |port| port.protocol);
        if !protocol.is_tls() {
            return self.tcp_chains(service);
        }
        let mut chains = self.tls_chains(service);
        if chains.is_empty() {
            // An address of its own needs no name to be told apart.
            let name = self.is_shared().then(|| service.key.host.to_string());
            chains.push(self.own_chain(service, name));
        }
        chains
    }

    /// Whether the listener takes connections to any address.
    fn is_shared(&self) -> bool {
        self.address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified())
    }

    /// The networks of a service that has no single address (SE-2).
    fn networks(&self, service: &Service) -> Vec<String> {
        let networks = service.addresses.iter().filter(|address| self.is_shared() && address.contains('/'));
        networks.cloned().collect()
    }

    fn own_chain(&self, service: &Service, server_name: Option<String>) -> FilterChain {
        let own = Destination { host: service.key.host.to_string(), ..Destination::default() };
        let mut chain = self.chain(self.to(&own));
        chain.filter_chain_match = condition(server_name.into_iter().collect(), &self.networks(service));
        chain
    }

    fn chain(&self, proxy: TcpProxy) -> FilterChain {
        let stats = chain::stats(self.owner, Direction::Outbound);
        chain::outbound(stats.into_iter().chain([chain::tcp_proxy(proxy, self.owner, Direction::Outbound)]).collect())
    }

    /// Idle timeout, longest duration and hash of the rule for a destination (DR-12, DR-24).
    fn with_policy(&self, mut proxy: TcpProxy, destination: &Destination) -> TcpProxy {
        let rule = self.upstream(destination).and_then(|upstream| upstream.rule.as_deref());
        let subset = rule.and_then(|rule| rule.subsets.iter().position(|own| own.name == destination.subset));
        let policy = policy::effective(rule, subset, self.port_of(destination));
        let tcp = policy.pool.as_ref().and_then(|pool| pool.tcp.as_ref());
        proxy.idle_timeout = tcp.and_then(|tcp| tcp.idle_timeout).and_then(|idle| duration(idle.0));
        proxy.max_downstream_connection_duration =
            tcp.and_then(|tcp| tcp.max_connection_duration).and_then(|most| duration(most.0));
        let hash = policy.load_balancer.as_ref().and_then(|balancer| balancer.consistent_hash.as_ref());
        if hash.is_some_and(|hash| hash.use_source_ip == Some(true)) {
            proxy.hash_policy = vec![HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})) }];
        }
        proxy
    }

    /// Whether the conditions that are decided here hold (VS-14).
    pub fn admits(
        &self,
        port: Option<u32>,
        gateways: &[String],
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        port.is_none_or(|port| port == u32::from(self.port))
            && (gateways.is_empty() || gateways.iter().any(|gateway| gateway == self.gateway))
            && (namespace.is_empty() || namespace == self.client.namespace)
            && selects(labels, &self.client.labels)
    }

    /// The rules for a service, in the order in which they apply.
    fn applying(&self, service: &Service) -> impl Iterator<Item = &VirtualService> {
        let applies = move |rule: &&Shared<VirtualService>| {
            rule.hosts.iter().any(|host| host::covers(host, &service.key.host) || service.addresses.contains(host))
        };
        self.rules.iter().filter(applies).map(|rule| &**rule)
    }

    fn tls_chains(&self, service: &Service) -> Vec<FilterChain> {
        let mut out = Vec::new();
        for (rule, route) in self.applying(service).flat_map(|rule| rule.tls.iter().map(move |route| (rule, route))) {
            for block in &route.matches {
                if self.admits(block.port, &block.gateways, &block.source_namespace, &block.source_labels) {
                    let mut chain = self.chain(self.destinations(rule, &route.route));
                    chain.metadata = config_metadata(&rule.key);
                    let own = &block.destination_subnets;
                    let networks = if own.is_empty() { &self.networks(service) } else { own };
                    chain.filter_chain_match = condition(block.sni_hosts.clone(), networks);
                    out.push(chain);
                }
            }
        }
        out
    }

    /// The routes of the rules up to the one that takes everything; the service's own cluster where none does.
    fn tcp_chains(&self, service: &Service) -> Vec<FilterChain> {
        let mut out = Vec::new();
        let networks = self.networks(service);
        for (rule, route) in self.applying(service).flat_map(|rule| rule.tcp.iter().map(move |route| (rule, route))) {
            let blocks = route.matches.iter().filter(|block| {
                self.admits(block.port, &block.gateways, &block.source_namespace, &block.source_labels)
            });
            let subnets: Vec<&Vec<String>> = blocks.map(|block| &block.destination_subnets).collect();
            if subnets.is_empty() && !route.matches.is_empty() {
                continue;
            }
            let mut chain = self.chain(self.destinations(rule, &route.route));
            if subnets.iter().all(|subnets| !subnets.is_empty()) && !subnets.is_empty() {
                let subnets: Vec<String> = subnets.into_iter().flatten().cloned().collect();
                chain.filter_chain_match = condition(Vec::new(), &subnets);
                out.push(chain);
            } else {
                chain.metadata = config_metadata(&rule.key);
                chain.filter_chain_match = condition(Vec::new(), &networks);
                out.push(chain);
                return out;
            }
        }
        out.push(self.own_chain(service, None));
        out
    }

    fn upstream(&self, destination: &Destination) -> Option<&Upstream> {
        self.upstreams.iter().find(|upstream| *upstream.service.key.host == destination.host)
    }

    /// The port that a destination names, else the only one of its service, else the listener's (VS-16).
    fn port_of(&self, destination: &Destination) -> u16 {
        let own = destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
        let only = || match self.upstream(destination)?.service.ports.as_slice() {
            [only] => Some(only.number),
            _ => None,
        };
        own.or_else(only).unwrap_or(self.port)
    }

    fn cluster(&self, destination: &Destination) -> String {
        names::outbound(self.port_of(destination), &destination.subset, &destination.host)
    }

    fn to(&self, destination: &Destination) -> TcpProxy {
        self.with_policy(chain::to_cluster(&self.cluster(destination)), destination)
    }

    /// The proxy to the destinations of a route.
    pub fn destinations(&self, rule: &VirtualService, routes: &[RouteDestination]) -> TcpProxy {
        let weighted = routes.len() > 1;
        let live: Vec<_> = routes.iter().filter(|to| !weighted || to.weight.unwrap_or(0) > 0).collect();
        if let [only] = live.as_slice() {
            return self.to(&only.destination.clone().unwrap_or_default());
        }
        let weight = |to: &&RouteDestination| ClusterWeight {
            name: to.destination.as_ref().map(|to| self.cluster(to)).unwrap_or_default(),
            weight: u32::try_from(to.weight.unwrap_or(0)).unwrap_or(0),
            ..ClusterWeight::default()
        };
        let proxy = TcpProxy {
            stat_prefix: format!("{}.{}", rule.key.name, rule.key.namespace),
            cluster_specifier: Some(ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: live.iter().map(weight).collect(),
            })),
            ..TcpProxy::default()
        };
        // The rule of the first destination holds for all.
        let first = routes.first().and_then(|to| to.destination.clone()).unwrap_or_default();
        self.with_policy(proxy, &Destination { subset: String::new(), ..first })
    }
}

/// The listener that takes captured traffic and hands it to the one of its destination (PT-1, OD-1, OD-3).
pub fn catch_all(mode: OutboundMode, owner: &Owner) -> Listener {
    let mesh = &owner.mesh;
    let port = mesh.proxy_listen_port;
    let with_stats = |proxy| chain::stats(owner, Direction::Outbound).into_iter().chain([proxy]).collect();
    let black_hole = FilterChain {
        name: "virtualOutbound-blackhole".to_owned(),
        filter_chain_match: Some(chain::chain_match("", &[], port)),
        filters: with_stats(chain::black_hole()),
        ..FilterChain::default()
    };
    let rest = FilterChain {
        name: "virtualOutbound-catchall-tcp".to_owned(),
        filters: with_stats(chain::tcp_proxy(chain::to_cluster(unknown(mode)), owner, Direction::Outbound)),
        ..FilterChain::default()
    };
    Listener {
        name: "virtualOutbound".to_owned(),
        address: address(owner.families.wildcard(), port),
        additional_addresses: chain::other_wildcard(owner.families, port),
        traffic_direction: TrafficDirection::Outbound.into(),
        use_original_dst: boolean(true),
        max_connections_to_accept_per_socket_event: super::super::message::uint(1),
        filter_chains: vec![black_hole, rest],
        access_log: telemetry::listener_access_log(owner, Direction::Outbound),
        ..Listener::default()
    }
}
