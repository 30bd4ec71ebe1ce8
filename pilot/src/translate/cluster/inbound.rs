//! Clusters of the ports that a workload serves, and those that every proxy has.

use super::super::endpoint;
use super::super::family::Families;
use super::super::inputs::{FixedCluster, InboundClusterInput};
use super::super::message::{duration, socket_address, text};
use super::super::names;
use super::super::node::Flavor;
use super::super::policy;
use super::{IstioMetadata, discovery, http, metadata_exchange, pool, with_name};
use crate::model::MeshConfig;
use crate::registry::{Protocol, Service};
use proto::envoy::cluster::cluster::{CommonLbConfig, DiscoveryType, LbPolicy};
use proto::envoy::cluster::{CircuitBreakers, Cluster};
use proto::envoy::core::{self, BindConfig, ExtraSourceAddress, Http2ProtocolOptions};
use proto::envoy::upstream_http::HttpProtocolOptions;
use proto::envoy::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use proto::wire;
use std::time::Duration;

/// Cleanup of original-destination hosts that never comes: the longest duration of a Go program, in whole seconds.
const NEVER: Duration = Duration::from_secs(9_223_372_035);

/// The address by which the redirection knows the proxy's own connections to the workload (PT-13).
fn from_passthrough_address(families: Families) -> Option<BindConfig> {
    let (first, extra) = match families {
        Families::V4 => (wire::INBOUND_PASSTHROUGH_SOURCE, None),
        Families::V6 => (wire::INBOUND_PASSTHROUGH_SOURCE_V6, None),
        Families::Both => (wire::INBOUND_PASSTHROUGH_SOURCE, Some(wire::INBOUND_PASSTHROUGH_SOURCE_V6)),
    };
    let extra = extra.map(|address| ExtraSourceAddress {
        address: Some(socket_address(address, 0)),
        ..ExtraSourceAddress::default()
    });
    Some(BindConfig {
        source_address: Some(socket_address(first, 0)),
        extra_source_addresses: extra.into_iter().collect(),
        ..BindConfig::default()
    })
}

/// The cluster of a port that the workload serves: its own address, or what a Sidecar says (OD-5, SC-4, DR-38).
pub fn inbound(input: &InboundClusterInput) -> Cluster {
    let mut cluster = with_name(names::inbound(input.port));
    let services: Vec<&Service> = input.services.iter().map(|service| &**service).collect();
    let mut metadata = IstioMetadata::new(&services);
    if let Some(rule) = &input.rule {
        metadata.set("config", text(names::config_path(&rule.key)));
    }
    let policy = policy::effective(input.rule.as_deref(), None, input.service_port);
    let mut options = HttpProtocolOptions::default();
    let protocol = services.first().and_then(|service| service.port(input.service_port)).map(|port| port.protocol);
    options.upstream_protocol_options = match protocol {
        Some(protocol) if protocol.is_http2() => {
            Some(http::explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())))
        }
        Some(Protocol::Sniff) => Some(http::use_downstream()),
        _ => None,
    };
    pool::limits(&mut cluster, &mut options, policy.pool.as_ref(), &input.mesh);
    http::set(&mut cluster, options);
    cluster.common_lb_config = Some(CommonLbConfig::default());
    cluster.metadata = metadata.finish();
    match &input.endpoint {
        Some((address, port)) if !address.is_empty() => {
            cluster.cluster_discovery_type = discovery(DiscoveryType::Static);
            cluster.load_assignment = Some(endpoint::single(&cluster.name, address, *port));
        }
        _ => {
            cluster.cluster_discovery_type = discovery(DiscoveryType::OriginalDst);
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.cleanup_interval = duration(NEVER);
            cluster.upstream_bind_config = from_passthrough_address(input.families);
        }
    }
    cluster
}

/// The clusters that every proxy has (OD-2 to OD-4).
pub fn fixed(which: FixedCluster, flavor: Flavor, families: Families, mesh: &MeshConfig) -> Cluster {
    let name = match which {
        FixedCluster::BlackHole => wire::CLUSTER_BLACK_HOLE,
        FixedCluster::Passthrough => wire::CLUSTER_PASSTHROUGH,
        FixedCluster::InboundPassthrough => wire::CLUSTER_INBOUND_PASSTHROUGH,
    };
    let mut cluster = with_name(name.to_owned());
    cluster.connect_timeout = duration(mesh.connect_timeout);
    if which == FixedCluster::BlackHole {
        cluster.cluster_discovery_type = discovery(DiscoveryType::Static);
        return cluster;
    }
    // The name in statistics is one for both, as istiod has it.
    cluster.alt_stat_name = format!("{};", wire::CLUSTER_PASSTHROUGH);
    cluster.cluster_discovery_type = discovery(DiscoveryType::OriginalDst);
    cluster.lb_policy = LbPolicy::ClusterProvided.into();
    cluster.circuit_breakers =
        Some(CircuitBreakers { thresholds: vec![pool::breakers(None)], ..CircuitBreakers::default() });
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: duration(Duration::from_secs(300)),
            ..core::HttpProtocolOptions::default()
        }),
        upstream_protocol_options: Some(http::use_downstream()),
        ..HttpProtocolOptions::default()
    };
    http::set(&mut cluster, options);
    if which == FixedCluster::InboundPassthrough {
        cluster.upstream_bind_config = from_passthrough_address(families);
    } else if flavor == Flavor::Istio {
        cluster.filters = vec![metadata_exchange()];
    }
    cluster
}
