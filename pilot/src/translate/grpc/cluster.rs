//! Clusters of a gRPC client.

use super::super::cluster::{breakers, by_hash};
use super::super::message::ads;
use super::super::tls;
use super::inputs::GrpcClusterInput;
use proto::envoy::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use proto::envoy::cluster::{CircuitBreakers, Cluster};
use proto::istio::destination_rule::ClientTlsMode;

/// A cluster with endpoints from EDS.
///
/// gRPC knows round robin and hashing alone, and of the limits the one of requests. Mesh mTLS is used only where a rule
/// asks for it: a client without xDS credentials ignores it, and one with them cannot fall back.
pub fn cluster(input: &GrpcClusterInput) -> Cluster {
    let policy = input.part.policy();
    let name = input.part.cluster_name();
    let mut cluster = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: ads(), service_name: name.clone() }),
        name,
        ..Cluster::default()
    };
    if let Some(hash) = policy.load_balancer.as_ref().and_then(|balancer| balancer.consistent_hash.as_ref()) {
        by_hash(&mut cluster, hash);
    }
    if let Some(pool) = &policy.pool {
        let limits = breakers(Some(pool));
        cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![limits], ..CircuitBreakers::default() });
    }
    if let Some(settings) = policy.tls.as_ref().filter(|tls| tls.mode == ClientTlsMode::IstioMutual) {
        let own = &settings.subject_alt_names;
        cluster.transport_socket = Some(tls::grpc_client(if own.is_empty() { &input.identities } else { own }));
    }
    cluster
}
