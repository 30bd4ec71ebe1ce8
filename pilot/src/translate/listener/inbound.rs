//! The listener for what a workload receives (MT-2 to MT-5, OD-4, OD-5, FC-5, PA-4, PA-5).

use super::super::defaults;
use super::super::inputs::InboundInput;
use super::super::matcher;
use super::super::message::{address, boolean, config_metadata, duration, uint};
use super::super::names;
use super::super::telemetry::{self, Direction};
use super::super::tls;
use super::chain::{self, PLAIN_HTTP};
use super::manager::Manager;
use crate::model::authn::Mode;
use crate::registry::Protocol;
use proto::envoy::core::{Metadata, TrafficDirection};
use proto::envoy::listener::{Filter, FilterChain, FilterChainMatch, Listener};
use proto::envoy::route::route_action::{ClusterSpecifier, MaxStreamDuration};
use proto::envoy::route::{Decorator, RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost, route};
use std::time::Duration;

/// What a client of the mesh offers for HTTP.
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// What a client of the mesh offers, whatever it speaks.
const MESH_ANY: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// What the server answers for HTTP and for TCP (MT-2).
const SERVER_HTTP: [&str; 2] = ["h2", "http/1.1"];
const SERVER_TCP: [&str; 3] = ["istio-peer-exchange", "h2", "http/1.1"];

/// A port as the chains are made for it.
struct Served {
    /// Port to match; 0 for every port without a chain of its own.
    port: u16,
    protocol: Protocol,
    mode: Mode,
    cluster: String,
    /// Name of the chain, and of the one for HTTP where they differ.
    name: String,
    http_name: String,
    stat_prefix: String,
    route: String,
    virtual_host: String,
    operation: String,
    metadata: Option<Metadata>,
}

impl Served {
    /// Traffic to ports that no service has.
    fn passthrough(port: u16, mode: Mode) -> Self {
        let cluster = proto::wire::CLUSTER_INBOUND_PASSTHROUGH.to_owned();
        Self {
            port,
            protocol: Protocol::Sniff,
            mode,
            name: "virtualInbound".to_owned(),
            http_name: "virtualInbound-catchall-http".to_owned(),
            stat_prefix: cluster.clone(),
            route: cluster.clone(),
            virtual_host: "inbound|http|0".to_owned(),
            operation: ":0/*".to_owned(),
            metadata: None,
            cluster,
        }
    }
}

/// The ports that the workload serves, by what its Sidecar says, else by its services.
fn served(input: &InboundInput) -> Vec<Served> {
    let mut out: Vec<Served> = Vec::new();
    let wildcard = input.owner.families.wildcard();
    if let Some(sidecar) = &input.sidecar {
        for ingress in &sidecar.ingress {
            let name = names::listener(input.address.as_deref().unwrap_or(wildcard), ingress.port);
            out.push(Served {
                port: ingress.port,
                protocol: ingress.protocol,
                mode: input.authn.of_port(ingress.port),
                cluster: names::inbound(ingress.port),
                stat_prefix: format!("inbound_{name}"),
                http_name: name.clone(),
                name,
                route: names::inbound(ingress.port),
                virtual_host: format!("inbound|http|{}", ingress.port),
                operation: format!("{}.{}:{}/*", sidecar.key.name, input.namespace, ingress.port),
                metadata: config_metadata(&sidecar.key),
            });
        }
        return out;
    }
    for instance in &input.instances {
        if out.iter().any(|known| known.port == instance.port) {
            continue;
        }
        let protocol = instance.service.port(instance.service_port).map_or(Protocol::Tcp, |port| port.protocol);
        let name = names::listener(wildcard, instance.port);
        out.push(Served {
            port: instance.port,
            protocol,
            mode: input.authn.of_port(instance.port),
            cluster: names::inbound(instance.port),
            stat_prefix: format!("inbound_{name}"),
            http_name: name.clone(),
            name,
            route: names::inbound(instance.port),
            virtual_host: format!("inbound|http|{}", instance.service_port),
            operation: format!("{}:{}/*", instance.service.key.host, instance.service_port),
            metadata: None,
        });
    }
    out
}

/// The listener `virtualInbound`.
pub fn listener(input: &InboundInput) -> Listener {
    let own = input.owner.mesh.proxy_inbound_listen_port;
    let ports = served(input);
    let named: Vec<u16> =
        input.authn.ports.keys().copied().filter(|port| ports.iter().all(|s| s.port != *port)).collect();
    let mut all = vec![Served::passthrough(0, input.authn.mode)];
    all.extend(named.iter().map(|port| Served::passthrough(*port, input.authn.of_port(*port))));
    all.extend(ports);
    let mut chains = vec![black_hole(own, input)];
    chains.extend(all.iter().flat_map(|served| chains_of(served, input)));
    let mut listener_filters = vec![chain::original_dst()];
    if all.iter().any(|served| served.mode != Mode::Disable) {
        listener_filters.push(if input.authn.mode == Mode::Disable {
            chain::tls_inspector_on(&named_ports(&all, |served| served.mode != Mode::Disable))
        } else {
            chain::tls_inspector(&ports_where(&all, own, |served| served.mode == Mode::Disable))
        });
    }
    // Only plain bytes are looked at: the client of mesh mTLS says by ALPN what comes.
    let looks = |served: &Served| served.protocol == Protocol::Sniff && served.mode != Mode::Strict;
    if all.iter().any(looks) {
        let disabled = ports_where(&all, own, |served| !looks(served));
        listener_filters.push(chain::http_inspector(&disabled));
    }
    Listener {
        name: "virtualInbound".to_owned(),
        address: address(input.owner.families.wildcard(), own),
        additional_addresses: chain::other_wildcard(input.owner.families, own),
        traffic_direction: TrafficDirection::Inbound.into(),
        max_connections_to_accept_per_socket_event: uint(1),
        continue_on_listener_filters_timeout: true,
        listener_filters_timeout: duration(defaults::detection_timeout(&input.owner.mesh)),
        filter_chains: chains,
        listener_filters,
        access_log: telemetry::listener_access_log(&input.owner, Direction::Inbound),
        ..Listener::default()
    }
}

/// The named ports for which something holds, and the listener's own, in order.
fn ports_where(all: &[Served], own: u16, holds: impl Fn(&Served) -> bool) -> Vec<u16> {
    let mut ports = named_ports(all, holds);
    ports.push(own);
    ports.sort_unstable();
    ports
}

fn named_ports(all: &[Served], holds: impl Fn(&Served) -> bool) -> Vec<u16> {
    let named = all.iter().filter(|served| served.port != 0 && holds(served));
    let mut ports: Vec<u16> = named.map(|served| served.port).collect();
    ports.sort_unstable();
    ports
}

/// Traffic to the listener's own port would go round in circles (OD-3).
fn black_hole(port: u16, input: &InboundInput) -> FilterChain {
    let owner = &input.owner;
    let own = chain::metadata_exchange(owner.flavor).into_iter().chain(chain::stats(owner, Direction::Inbound));
    FilterChain {
        name: "virtualInbound-blackhole".to_owned(),
        filter_chain_match: Some(chain::chain_match("", &[], port)),
        filters: own.chain([chain::black_hole()]).collect(),
        ..FilterChain::default()
    }
}

/// The chains of one port: by mode and protocol (MT-3 to MT-5).
fn chains_of(served: &Served, input: &InboundInput) -> Vec<FilterChain> {
    let build = Build { served, input };
    let protocol = served.protocol;
    let mut out = Vec::new();
    if protocol.is_http() {
        match served.mode {
            Mode::Strict => out.push(build.http("tls", &[], true)),
            Mode::Permissive => {
                out.push(build.http("tls", &MESH_ANY, true));
                out.push(build.http("raw_buffer", &[], false));
            }
            Mode::Disable => out.push(build.http("raw_buffer", &[], false)),
        }
    } else if protocol == Protocol::Sniff {
        match served.mode {
            Mode::Strict => {
                out.push(build.http("tls", &MESH_HTTP, true));
                out.push(build.tcp("tls", &[], true));
            }
            Mode::Permissive => {
                out.push(build.http("tls", &MESH_HTTP, true));
                out.push(build.http("raw_buffer", &PLAIN_HTTP, false));
                out.push(build.tcp("tls", &tls::MESH_ALPN, true));
                out.push(build.tcp("raw_buffer", &[], false));
                out.push(build.tcp("tls", &[], false));
            }
            Mode::Disable => {
                out.push(build.http("raw_buffer", &PLAIN_HTTP, false));
                out.push(build.tcp("raw_buffer", &[], false));
            }
        }
    } else {
        match served.mode {
            Mode::Strict => out.push(build.tcp("tls", &[], true)),
            Mode::Permissive => {
                out.push(build.tcp("tls", &MESH_ANY, true));
                out.push(build.tcp("tls", &[], false));
                out.push(build.tcp("raw_buffer", &[], false));
            }
            // Without TLS inspection everything is raw, TLS of the application too.
            Mode::Disable => out.push(build.tcp("raw_buffer", &[], false)),
        }
    }
    out
}

struct Build<'a> {
    served: &'a Served,
    input: &'a InboundInput,
}

impl Build<'_> {
    fn chain(&self, condition: FilterChainMatch, filters: Vec<Filter>, alpn: Option<&[&str]>) -> FilterChain {
        FilterChain {
            filter_chain_match: Some(condition),
            filters: chain::metadata_exchange(self.input.owner.flavor).into_iter().chain(filters).collect(),
            transport_socket: alpn.map(|alpn| tls::mesh_server(alpn, &self.input.owner.mesh)),
            metadata: self.served.metadata.clone(),
            ..FilterChain::default()
        }
    }

    fn http(&self, transport: &str, offered: &[&str], mesh_tls: bool) -> FilterChain {
        let manager = Manager {
            direction: Direction::Inbound,
            stat_prefix: self.served.stat_prefix.clone(),
            routes: Err(self.routes()),
            authz: &self.input.authz,
            judges: &self.input.judges,
            tokens: &self.input.tokens,
            limits: &self.input.limits,
            grpc_web: self.served.protocol == Protocol::GrpcWeb,
            owner: &self.input.owner,
        };
        let condition = chain::chain_match(transport, offered, self.served.port);
        let mut out = self.chain(condition, vec![manager.build()], mesh_tls.then_some(&SERVER_HTTP));
        out.name.clone_from(&self.served.http_name);
        out
    }

    fn tcp(&self, transport: &str, offered: &[&str], mesh_tls: bool) -> FilterChain {
        let mut filters = chain::policies(&self.input.authz, &self.input.judges, &self.input.owner.mesh);
        filters.extend(chain::stats(&self.input.owner, Direction::Inbound));
        filters.push(chain::tcp_proxy(chain::to_cluster(&self.served.cluster), &self.input.owner, Direction::Inbound));
        let condition = chain::chain_match(transport, offered, self.served.port);
        let mut out = self.chain(condition, filters, mesh_tls.then_some(&SERVER_TCP));
        out.name.clone_from(&self.served.name);
        out
    }

    /// Everything to the workload, without a timeout; what the workload never saw is sent again (FC-5, VS-33).
    fn routes(&self) -> RouteConfiguration {
        let retried = self.served.protocol != Protocol::Grpc;
        let action = RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(self.served.cluster.clone())),
            timeout: duration(Duration::ZERO),
            max_stream_duration: Some(MaxStreamDuration {
                max_stream_duration: duration(Duration::ZERO),
                grpc_timeout_header_max: duration(Duration::ZERO),
                ..MaxStreamDuration::default()
            }),
            retry_policy: retried.then(|| RetryPolicy {
                num_retries: uint(2),
                retry_on: "reset-before-request".to_owned(),
                ..RetryPolicy::default()
            }),
            ..RouteAction::default()
        };
        let route = Route {
            name: "default".to_owned(),
            r#match: Some(matcher::everything()),
            decorator: Some(Decorator { operation: self.served.operation.clone(), ..Decorator::default() }),
            action: Some(route::Action::Route(action)),
            ..Route::default()
        };
        RouteConfiguration {
            name: self.served.route.clone(),
            validate_clusters: boolean(false),
            virtual_hosts: vec![VirtualHost {
                name: self.served.virtual_host.clone(),
                domains: vec!["*".to_owned()],
                routes: vec![route],
                ..VirtualHost::default()
            }],
            ..RouteConfiguration::default()
        }
    }
}
