//! The input structs of the translators: everything that a resource depends on, and so its cache key.

use super::custom::Judge;
use super::family::Families;
use super::grpc::{GrpcClusterInput, GrpcListenerInput, GrpcServerInput};
use super::locality::Place;
use super::names;
use super::node::{Flavor, Role};
use super::policy::{self, Policy};
use super::telemetry::{Identity, Reports};
use crate::model::authn::{Effective, Policies};
use crate::model::authz::AuthorizationPolicy;
use crate::model::destination_rule::DestinationRule;
use crate::model::gateway::Gateway;
use crate::model::mesh::Instance;
use crate::model::proxy_config::Topology;
use crate::model::rate_limit::RateLimit;
use crate::model::request_authn::RequestAuthentication;
use crate::model::secret::Content;
use crate::model::sidecar::Sidecar;
use crate::model::virtual_service::VirtualService;
use crate::model::{MeshConfig, Shared};
use crate::registry::entry::selects;
use crate::registry::{Endpoint, EndpointSet, Protocol, Service};
use proto::istio::destination_rule::Subset;
use proto::istio::sidecar::OutboundMode;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The input of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "one variant per kind of resource")]
pub enum Input {
    Cluster(ClusterInput),
    InboundCluster(InboundClusterInput),
    FixedCluster(FixedCluster, Flavor, Families, Shared<MeshConfig>),
    Endpoints(EndpointsInput),
    OutboundHttp(OutboundHttpInput),
    OutboundTcp(OutboundTcpInput),
    VirtualOutbound(OutboundMode, Owner),
    VirtualInbound(InboundInput),
    GatewayListener(GatewayListenerInput),
    OutboundRoute(OutboundRouteInput),
    GrpcListener(GrpcListenerInput),
    GrpcServer(GrpcServerInput),
    GrpcCluster(GrpcClusterInput),
    GrpcRoute(OutboundRouteInput),
    GatewayRoute(GatewayRouteInput),
    Secret(SecretInput),
    NameTable(NameTableInput),
}

/// A port of a service and maybe a subset of it, under the rule that the client follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Part {
    /// The service.
    pub service: Shared<Service>,
    /// Number of its port.
    pub port: u16,
    /// Index of the subset in the rule.
    pub subset: Option<usize>,
    /// The rule.
    pub rule: Option<Shared<DestinationRule>>,
}

impl Part {
    /// The subset.
    pub fn subset(&self) -> Option<&Subset> {
        self.subset.and_then(|index| self.rule.as_ref()?.subsets.get(index))
    }

    /// Name of the subset; empty for the whole.
    pub fn subset_name(&self) -> &str {
        self.subset().map_or("", |subset| subset.name.as_str())
    }

    /// Name of the cluster (NM-1).
    pub fn cluster_name(&self) -> String {
        names::outbound(self.port, self.subset_name(), &self.service.key.host)
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        policy::effective(self.rule.as_deref(), self.subset, self.port)
    }

    /// What the port speaks.
    pub fn protocol(&self) -> Protocol {
        self.service.port(self.port).map_or(Protocol::Tcp, |port| port.protocol)
    }

    /// Whether an endpoint belongs to it.
    pub fn has(&self, endpoint: &Endpoint) -> bool {
        let in_subset = self.subset().is_none_or(|subset| selects(&subset.labels, &endpoint.labels));
        endpoint.service_port == self.port && in_subset
    }
}

/// A cluster of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterInput {
    /// What it leads to.
    pub part: Part,
    /// Identities behind the service.
    pub identities: Vec<String>,
    /// Endpoints, where the cluster itself holds them (DNS).
    pub endpoints: Option<Shared<EndpointSet>>,
    /// What the client is.
    pub role: Role,
    /// Which filters it has.
    pub flavor: Flavor,
    /// Which addresses it can reach.
    pub families: Families,
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
    /// Which addresses the workload has.
    pub families: Families,
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
    /// What they are endpoints of.
    pub part: Part,
    /// The endpoints of the service.
    pub endpoints: Shared<EndpointSet>,
    /// PeerAuthentications, where any turns mTLS off.
    pub authn: Option<Shared<Policies>>,
    /// Where the client is, where that matters.
    pub client: Option<Place>,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// The proxy that a listener is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Which filters it has.
    pub flavor: Flavor,
    /// Which addresses it has.
    pub families: Families,
    /// Who it is, for telemetry.
    pub identity: Identity,
    /// What it reports, and to whom.
    pub reports: Arc<Reports>,
    /// What stands before a gateway.
    pub topology: Topology,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// A service that connections may lead to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// The service.
    pub service: Shared<Service>,
    /// The rule that the client follows for it.
    pub rule: Option<Shared<DestinationRule>>,
}

/// What every listener for what a workload sends depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutboundInput {
    /// Address to listen on.
    pub address: String,
    /// Port to listen on.
    pub port: u16,
    /// TCP and TLS rules that may apply.
    pub rules: Vec<Shared<VirtualService>>,
    /// Where connections may go: to the services of the listener, and to what the rules name.
    pub upstreams: Vec<Upstream>,
    /// Who asks, for rules with source conditions.
    pub client: Client,
    /// Bind to the port rather than take captured traffic.
    pub bind: bool,
    /// What becomes of what no service is known for.
    pub outbound_mode: OutboundMode,
    /// Whose listener it is.
    pub owner: Owner,
}

/// A listener for HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutboundHttpInput {
    /// Where, for whom and by which rules.
    pub outbound: OutboundInput,
    /// A service whose protocol is found out: its cluster takes what is no HTTP. None: a port that many share.
    pub sniffed: Option<Shared<Service>>,
}

/// A listener for TCP and TLS that passes through.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutboundTcpInput {
    /// Where, for whom and by which rules.
    pub outbound: OutboundInput,
    /// Services of that address and port, oldest first.
    pub services: Vec<Shared<Service>>,
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
    /// Who decides where CUSTOM policies say so.
    pub judges: Vec<Judge>,
    /// Whose tokens of end users are believed.
    pub tokens: Vec<Shared<RequestAuthentication>>,
    /// What of it is counted.
    pub limits: Vec<Shared<RateLimit>>,
    /// The Sidecar, if it has ingress listeners.
    pub sidecar: Option<Shared<Sidecar>>,
    /// The workload's address, where the names need it.
    pub address: Option<String>,
    /// Name of the workload's namespace.
    pub namespace: String,
    /// Whose listener it is.
    pub owner: Owner,
}

/// A listener of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayListenerInput {
    /// Address to listen on.
    pub address: String,
    /// Whether that is every address.
    pub wildcard: bool,
    /// Port to listen on.
    pub port: u16,
    /// Name of the routes of requests without TLS, where it takes such.
    pub route: Option<String>,
    /// Requests without TLS may be gRPC-Web.
    pub grpc_web: bool,
    /// Prefix of its statistics, where a server gives one.
    pub stat_prefix: Option<String>,
    /// Servers for TLS and TCP: Gateways with the index of their server.
    pub servers: Vec<(Shared<Gateway>, usize)>,
    /// TLS and TCP rules bound to them.
    pub rules: Vec<Shared<VirtualService>>,
    /// What destinations of the rules name.
    pub upstreams: Vec<Upstream>,
    /// Who asks.
    pub client: Client,
    /// Who may do what.
    pub authz: Vec<Shared<AuthorizationPolicy>>,
    /// Who decides where CUSTOM policies say so.
    pub judges: Vec<Judge>,
    /// Whose tokens of end users are believed.
    pub tokens: Vec<Shared<RequestAuthentication>>,
    /// What of it is counted.
    pub limits: Vec<Shared<RateLimit>>,
    /// Whose listener it is.
    pub owner: Owner,
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

/// A secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretInput {
    /// Name of the resource.
    pub name: String,
    /// What it holds.
    pub content: Content,
}

/// The names that a proxy's DNS answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameTableInput {
    /// The services.
    pub services: Vec<Named>,
    /// The mesh's settings.
    pub mesh: Shared<MeshConfig>,
}

/// A service, and what else its name leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Named {
    /// The service.
    pub service: Shared<Service>,
    /// Addresses that were chosen for it.
    pub allocated: Vec<std::net::IpAddr>,
    /// Its endpoints, where they are the answer (headless).
    pub endpoints: Option<Shared<EndpointSet>>,
}

/// A port of a Sidecar's ingress or of a service, as the inbound side sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServedPort {
    /// Port of the workload.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
}
