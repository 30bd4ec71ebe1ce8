//! Clusters: of services, of the ports that a workload serves, and those that every proxy has (spec 1.4, NM, OD).

mod balance;
mod http;
mod inbound;
mod pool;
mod secure;

pub use balance::by_hash;
pub use inbound::{fixed, inbound};
pub use pool::breakers;

use super::endpoint;
use super::family::Families;
use super::inputs::ClusterInput;
use super::message::{ads, duration, list, nested, text, uint};
use super::names;
use super::node::{Flavor, Role};
use super::policy::Policy;
use super::telemetry;
use crate::registry::{Resolution, Service};
use proto::any;
use proto::envoy::cluster::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
use proto::envoy::cluster::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
};
use proto::envoy::cluster::{Cluster, Filter};
use proto::envoy::core::{Metadata, TypedExtensionConfig};
use proto::envoy::types::Percent;
use proto::envoy::wkt::{Value, value};
use proto::istio::destination_rule::SimpleLb;
use std::time::Duration;

fn with_name(name: String) -> Cluster {
    Cluster { alt_stat_name: format!("{name};"), name, ..Cluster::default() }
}

fn discovery(kind: DiscoveryType) -> Option<ClusterDiscoveryType> {
    Some(ClusterDiscoveryType::Type(kind.into()))
}

/// The exchange of metadata over TCP, of the client's side.
fn metadata_exchange() -> Filter {
    Filter {
        name: "istio.metadata_exchange".to_owned(),
        typed_config: Some(telemetry::tcp_metadata_exchange()),
        ..Filter::default()
    }
}

/// Metadata `istio` of a cluster (XI-8).
struct IstioMetadata(Vec<(&'static str, Value)>);

impl IstioMetadata {
    fn new(services: &[&Service]) -> Self {
        let entry = |service: &&Service| {
            nested([
                ("host", text(&*service.key.host)),
                ("name", text(&service.name)),
                ("namespace", text(&*service.key.namespace)),
            ])
        };
        Self(vec![("services", list(services.iter().map(entry).collect()))])
    }

    fn set(&mut self, key: &'static str, value: Value) {
        self.0.push((key, value));
    }

    fn finish(self) -> Option<Metadata> {
        super::message::istio_metadata(super::message::structure(self.0))
    }
}

/// The cluster of a service, a port and maybe a subset of it.
pub fn outbound(input: &ClusterInput) -> Cluster {
    let part = &input.part;
    let service = &*part.service;
    let policy = part.policy();
    let mut metadata = IstioMetadata::new(&[service]);
    if let Some(rule) = &part.rule {
        metadata.set("config", text(names::config_path(&rule.key)));
    }
    if !part.subset_name().is_empty() {
        metadata.set("subset", text(part.subset_name()));
    }
    if service.external {
        metadata.set("external", Value { kind: Some(value::Kind::BoolValue(true)) });
    }
    let mut cluster = with_name(part.cluster_name());
    cluster.common_lb_config =
        Some(CommonLbConfig { healthy_panic_threshold: Some(Percent::default()), ..CommonLbConfig::default() });
    if input.flavor == Flavor::Istio {
        cluster.filters = vec![metadata_exchange()];
    }
    resolve(&mut cluster, input, &policy);
    balance::balance(&mut cluster, &policy);
    let mut options = http::options(&policy, input);
    pool::limits(&mut cluster, &mut options, policy.pool.as_ref(), &input.mesh);
    pool::retry_budget(&mut cluster, &policy);
    pool::outliers(&mut cluster, &policy);
    if policy.weighs_localities(service, &input.mesh) && input.role_uses_locality() {
        let common = cluster.common_lb_config.get_or_insert_default();
        common.locality_config_specifier =
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}));
    }
    if secure::secure(&mut cluster, &mut options, input, &policy) {
        metadata.set("alpn_override", text("false"));
    }
    http::set(&mut cluster, options);
    cluster.metadata = metadata.finish();
    cluster
}

impl ClusterInput {
    /// Locality weights mean nothing where the client's own destination is used.
    fn role_uses_locality(&self) -> bool {
        self.part.service.resolution != Resolution::Passthrough || self.role == Role::Router
    }

    /// Whether the destination is the client's own: headless services of sidecars, resolution NONE, PASSTHROUGH.
    fn passthrough(&self, policy: &Policy) -> bool {
        let asked = policy.load_balancer.as_ref().and_then(|balancer| balancer.simple) == Some(SimpleLb::Passthrough);
        let headless = self.part.service.headless && self.role == Role::Router;
        asked || (self.part.service.resolution == Resolution::Passthrough && !headless)
    }
}

fn resolve(cluster: &mut Cluster, input: &ClusterInput, policy: &Policy) {
    let service = &*input.part.service;
    let name = cluster.name.clone();
    if input.passthrough(policy) {
        cluster.cluster_discovery_type = discovery(DiscoveryType::OriginalDst);
        cluster.lb_policy = LbPolicy::ClusterProvided.into();
        return;
    }
    let kind = match service.resolution {
        Resolution::Dns => DiscoveryType::StrictDns,
        Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
        Resolution::Endpoints | Resolution::Passthrough => DiscoveryType::Eds,
    };
    cluster.cluster_discovery_type = discovery(kind);
    if kind == DiscoveryType::Eds {
        cluster.eds_cluster_config = Some(EdsClusterConfig { eds_config: ads(), service_name: name });
        return;
    }
    cluster.load_assignment = input.endpoints.as_ref().map(|set| endpoint::of_dns(&input.part, set, &name));
    dns(cluster, input);
    let cares = proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig {
        udp_max_queries: uint(100),
        ..Default::default()
    };
    cluster.typed_dns_resolver_config = Some(TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(any::pack(&cares)),
    });
}

/// How often DNS is asked (SE-12).
#[expect(deprecated, reason = "istiod sends these fields, and so every proxy of the mesh reads them")]
fn dns(cluster: &mut Cluster, input: &ClusterInput) {
    let family = match input.families {
        Families::V4 => DnsLookupFamily::V4Only,
        Families::V6 => DnsLookupFamily::V6Only,
        Families::Both => DnsLookupFamily::All,
    };
    cluster.dns_lookup_family = family.into();
    cluster.dns_refresh_rate = duration(input.mesh.dns_refresh_rate);
    cluster.dns_jitter = duration(Duration::from_millis(100));
    cluster.respect_dns_ttl = true;
}
