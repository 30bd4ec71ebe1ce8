//! Listeners of gateways (GW-2, GW-6 to GW-10, GW-19, GW-21).

use super::super::inputs::GatewayListenerInput;
use super::super::message::{address, uint};
use super::super::names;
use super::super::telemetry::Direction;
use super::super::tls;
use super::chain;
use super::manager::Manager;
use super::outbound::Routing;
use crate::model::gateway::{Gateway, Server, Tls};
use proto::envoy::core::{TrafficDirection, TransportSocket};
use proto::envoy::listener::{Filter, FilterChain, FilterChainMatch, Listener};
use proto::envoy::tcp_proxy::TcpProxy;

/// A listener of a gateway; without a chain where no rule says where its connections go.
pub fn listener(input: &GatewayListenerInput) -> Listener {
    let plain = input.route.as_ref().map(|route| chain::outbound(vec![requests(input, route.clone())]));
    let servers = input.servers.iter().filter_map(|(gateway, index)| Some((gateway, gateway.servers.get(*index)?)));
    // The first by age keeps a name that two servers claim.
    let chains =
        chain::distinct(plain.into_iter().chain(servers.flat_map(|(gateway, s)| of_server(gateway, s, input))));
    let looks = |chain: &FilterChain| chain.filter_chain_match.is_some() || chain.transport_socket.is_some();
    Listener {
        name: names::listener(&input.address, input.port),
        address: address(&input.address, input.port),
        additional_addresses: if input.wildcard {
            chain::other_wildcard(input.owner.families, input.port)
        } else {
            Vec::new()
        },
        traffic_direction: TrafficDirection::Outbound.into(),
        max_connections_to_accept_per_socket_event: uint(1),
        listener_filters: { input.owner.topology.proxy_protocol.then(chain::proxy_protocol).into_iter() }
            .chain(chains.iter().any(looks).then(|| chain::tls_inspector(&[])))
            .collect(),
        filter_chains: chains,
        ..Listener::default()
    }
}

/// Name of the routes of a server that ends TLS.
pub fn route_name(gateway: &Gateway, server: &Server) -> String {
    let bind = server.bind.as_ref().map(|bind| format!(".{bind}")).unwrap_or_default();
    format!("https.{}.{}.{}.{}{bind}", server.port, server.port_name, gateway.key.name, gateway.key.namespace)
}

fn requests(input: &GatewayListenerInput, route: String) -> Filter {
    let manager = Manager {
        direction: Direction::Gateway,
        stat_prefix: input.stat_prefix.clone().unwrap_or_else(|| format!("outbound_{}_{}", input.address, input.port)),
        routes: Ok(route),
        authz: &input.authz,
        judges: &input.judges,
        tokens: &input.tokens,
        limits: &input.limits,
        grpc_web: input.grpc_web,
        owner: &input.owner,
    };
    manager.build()
}

/// The chains of a server for TLS or TCP.
fn of_server(gateway: &Gateway, server: &Server, input: &GatewayListenerInput) -> Vec<FilterChain> {
    let full_name = gateway.full_name();
    let connections = Connections {
        server,
        input,
        routing: Routing {
            address: &input.address,
            port: server.port,
            gateway: &full_name,
            rules: &input.rules,
            upstreams: &input.upstreams,
            client: &input.client,
            owner: &input.owner,
        },
    };
    match &server.tls {
        Some(Tls::Passthrough) => connections.by_name(),
        Some(Tls::Terminate(termination)) => {
            let socket = tls::gateway_server(termination, server.is_http());
            let filters = if server.is_http() {
                Some(vec![requests(input, route_name(gateway, server))])
            } else {
                connections.all()
            };
            filters.map(|filters| with_names(filters, server.names(), Some(socket))).into_iter().collect()
        }
        None => connections.all().map(|filters| with_names(filters, Vec::new(), None)).into_iter().collect(),
    }
}

fn with_names(filters: Vec<Filter>, names: Vec<String>, socket: Option<TransportSocket>) -> FilterChain {
    let mut out = chain::outbound(filters);
    out.filter_chain_match =
        (!names.is_empty()).then(|| FilterChainMatch { server_names: names, ..FilterChainMatch::default() });
    out.transport_socket = socket;
    out
}

/// Where the connections of a server go that are no requests.
struct Connections<'a> {
    server: &'a Server,
    input: &'a GatewayListenerInput,
    routing: Routing<'a>,
}

impl Connections<'_> {
    fn filters(&self, proxy: TcpProxy) -> Vec<Filter> {
        let mut out = chain::policies(&self.input.authz, &self.input.judges, &self.input.owner.mesh);
        out.extend(chain::stats(&self.input.owner, Direction::Gateway));
        out.push(chain::tcp_proxy(proxy, &self.input.owner, Direction::Gateway));
        out
    }

    /// The rules bound to the server's gateway and to one of its hosts.
    fn rules(&self) -> impl Iterator<Item = &crate::model::virtual_service::VirtualService> {
        let served = |namespace: &str, host: &String| !self.server.bound_hosts(namespace, host).is_empty();
        let rules = self.input.rules.iter().filter(|rule| rule.is_bound_to(self.routing.gateway));
        rules.filter(move |rule| rule.hosts.iter().any(|host| served(&rule.key.namespace, host))).map(|rule| &**rule)
    }

    fn admits(&self, port: Option<u32>, gateways: &[String]) -> bool {
        self.routing.admits(port, gateways, "", &Default::default())
    }

    /// The first TCP route takes all.
    fn all(&self) -> Option<Vec<Filter>> {
        let routes = self.rules().flat_map(|rule| rule.tcp.iter().map(move |route| (rule, route)));
        let mut admitted = routes.filter(|(_, route)| {
            route.matches.is_empty() || route.matches.iter().any(|block| self.admits(block.port, &block.gateways))
        });
        admitted.next().map(|(rule, route)| self.filters(self.routing.destinations(rule, &route.route)))
    }

    /// TLS that passes through: the name decides (GW-10).
    fn by_name(&self) -> Vec<FilterChain> {
        let mut out = Vec::new();
        for (rule, route) in self.rules().flat_map(|rule| rule.tls.iter().map(move |route| (rule, route))) {
            for block in route.matches.iter().filter(|block| self.admits(block.port, &block.gateways)) {
                let filters = self.filters(self.routing.destinations(rule, &route.route));
                out.push(with_names(filters, block.sni_hosts.clone(), None));
            }
        }
        out
    }
}
