//! The input structs of the translators: everything that a resource depends on, and so its cache key.

use super::node::{Flavor, Role};
use super::telemetry::Identity;
use crate::model::authn::{Effective, Policies};
use crate::model::authz::AuthorizationPolicy;
use crate::model::destination_rule::DestinationRule;
use crate::model::gateway::Gateway;
use crate::model::mesh::Instance;
use crate::model::sidecar::Sidecar;
use crate::model::virtual_service::VirtualService;
use crate::model::{MeshConfig, Shared};
use crate::registry::{EndpointSet, Locality, Protocol, Service};
use proto::istio::sidecar::OutboundMode;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The input of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "one variant per kind of resource")]
pub enum Input {
    Cluster(ClusterInput),
    InboundCluster(InboundClusterInput),
    FixedCluster(FixedCluster, Flavor, Shared<MeshConfig>),
    Endpoints(EndpointsInput),
    OutboundHttp(OutboundHttpInput),
    OutboundTcp(OutboundTcpInput),
    VirtualOutbound(OutboundMode, Flavor, Identity, Shared<MeshConfig>),
    VirtualInbound(InboundInput),
    GatewayListener(GatewayListenerInput),
    OutboundRoute(OutboundRouteInput),
    GatewayRoute(GatewayRouteInput),
    NameTable(NameTableInput),
}

/// A cluster of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterInput {
    /// The service.
    pub service: Shared<Service>,
    /// Number of its port.
    pub port: u16,
    /// Index of the subset in the rule.
    pub subset: Option<usize>,
    /// The rule that the client follows.
    pub rule: Option<Shared<DestinationRule>>,
    /// Identities behind the service.
    pub identities: Vec<String>,
    /// Endpoints, where the cluster itself holds them (DNS).
    pub endpoints: Option<Shared<EndpointSet>>,
    /// What the client is.
    pub role: Role,
    /// Which filters it has.
    pub flavor: Flavor,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// A cluster of a port that the workload serves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InboundClusterInput {
    /// The port.
    pub port: u16,
    /// The services of that port.
    pub services: Vec<Shared<Service>>,
    /// Number of the first service's port.
    pub service_port: u16,
    /// The rule for the first of them.
    pub rule: Option<Shared<DestinationRule>>,
    /// Where requests go instead of to the original destination.
    pub endpoint: Option<(String, u16)>,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// The clusters that every proxy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "their names are Istio's")]
pub enum FixedCluster {
    BlackHole,
    Passthrough,
    InboundPassthrough,
}

/// The endpoints of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointsInput {
    /// The service.
    pub service: Shared<Service>,
    /// Number of its port.
    pub port: u16,
    /// Index of the subset in the rule.
    pub subset: Option<usize>,
    /// The rule that the client follows.
    pub rule: Option<Shared<DestinationRule>>,
    /// The endpoints of the service.
    pub endpoints: Shared<EndpointSet>,
    /// PeerAuthentications, where any turns mTLS off.
    pub authn: Option<Shared<Policies>>,
    /// Where the client is and its labels, where that matters.
    pub client: Option<(Locality, Arc<BTreeMap<String, String>>)>,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// What a listener for HTTP is made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutboundHttpInput {
    /// Address to listen on.
    pub address: String,
    /// Port to listen on.
    pub port: u16,
    /// A service whose protocol is found out: its cluster takes what is no HTTP. None: a port that many share.
    pub sniffed: Option<Shared<Service>>,
    /// TCP and TLS rules for that service.
    pub rules: Vec<Shared<VirtualService>>,
    /// Who asks, for rules with source conditions.
    pub client: Client,
    /// Bind to the port rather than take captured traffic.
    pub bind: bool,
    /// What becomes of what is no HTTP.
    pub outbound_mode: OutboundMode,
    /// Which filters the proxy has.
    pub flavor: Flavor,
    /// Who the proxy is, for telemetry.
    pub identity: Identity,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// A listener for TCP and TLS that passes through.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutboundTcpInput {
    /// Address to listen on.
    pub address: String,
    /// Port to listen on.
    pub port: u16,
    /// Services of that address and port, oldest first.
    pub services: Vec<Shared<Service>>,
    /// Rules that may apply.
    pub rules: Vec<Shared<VirtualService>>,
    /// DestinationRules of the services, for hash policies.
    pub destination_rules: Vec<Shared<DestinationRule>>,
    /// Who asks.
    pub client: Client,
    /// Bind to the port rather than take captured traffic.
    pub bind: bool,
    /// What becomes of what matches no SNI.
    pub outbound_mode: OutboundMode,
    /// Which filters the proxy has.
    pub flavor: Flavor,
    /// Who the proxy is, for telemetry.
    pub identity: Identity,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// The listener of everything that arrives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InboundInput {
    /// What the workload serves.
    pub instances: Vec<Instance>,
    /// Which connections it accepts.
    pub authn: Effective,
    /// Who may do what.
    pub authz: Vec<Shared<AuthorizationPolicy>>,
    /// The Sidecar, if it has ingress listeners.
    pub sidecar: Option<Shared<Sidecar>>,
    /// The workload's address, where the names need it.
    pub address: String,
    /// Name of the workload's namespace.
    pub namespace: String,
    /// Which filters the proxy has.
    pub flavor: Flavor,
    /// Who the proxy is, for telemetry.
    pub identity: Identity,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// A listener of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayListenerInput {
    /// Address to listen on.
    pub address: String,
    /// Port to listen on.
    pub port: u16,
    /// Name of the routes of requests without TLS, where it takes such.
    pub route: Option<String>,
    /// Prefix of its statistics, where a server gives one.
    pub stat_prefix: Option<String>,
    /// Servers for TLS and TCP: Gateways with the index of their server.
    pub servers: Vec<(Shared<Gateway>, usize)>,
    /// TLS and TCP rules bound to them.
    pub rules: Vec<Shared<VirtualService>>,
    /// Services that destinations of the rules name.
    pub services: Vec<Shared<Service>>,
    /// DestinationRules of these services.
    pub destination_rules: Vec<Shared<DestinationRule>>,
    /// Who asks.
    pub client: Client,
    /// Who may do what.
    pub authz: Vec<Shared<AuthorizationPolicy>>,
    /// Which filters the proxy has.
    pub flavor: Flavor,
    /// Who the proxy is, for telemetry.
    pub identity: Identity,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// Who asks, as far as rules look at it; labels only where a rule has source labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Client {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
}

/// The routes of an HTTP port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutboundRouteInput {
    /// Name of the resource.
    pub name: String,
    /// The port.
    pub port: u16,
    /// The services of that port, in order of age.
    pub services: Vec<Shared<Service>>,
    /// One service of its own: its protocol is found out.
    pub sniffed: bool,
    /// Rules, in the order in which they apply.
    pub rules: Vec<Shared<VirtualService>>,
    /// DestinationRules with a hash policy, by host.
    pub hashing: BTreeMap<String, Shared<DestinationRule>>,
    /// Who asks.
    pub client: Client,
    /// What becomes of requests to unknown hosts.
    pub outbound_mode: OutboundMode,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// The routes of a port of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayRouteInput {
    /// Name of the resource.
    pub name: String,
    /// The port that the proxy listens on.
    pub port: u16,
    /// Gateways with the index of their server on that port.
    pub servers: Vec<(Shared<Gateway>, usize)>,
    /// Rules bound to them, in the order in which they apply.
    pub rules: Vec<Shared<VirtualService>>,
    /// Services that destinations of the rules name.
    pub services: Vec<Shared<Service>>,
    /// DestinationRules with a hash policy, by host.
    pub hashing: BTreeMap<String, Shared<DestinationRule>>,
    /// Who asks.
    pub client: Client,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// The names that a proxy's DNS answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameTableInput {
    /// Services with their endpoints where those are the answer (headless).
    pub services: Vec<(Shared<Service>, Option<Shared<EndpointSet>>)>,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// A port of a Sidecar's ingress or of a service, as the inbound side sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServedPort {
    /// Port of the workload.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
}
