//! Endpoints of a cluster (XI-7, PI-92, MD-5).

use super::inputs::{EndpointsInput, Part};
use super::locality;
use super::message::{address, ordered, structure, text, uint};
use crate::model::authn::Mode;
use crate::registry::{Endpoint, EndpointSet, Health, Locality};
use proto::envoy::core::{HealthStatus, Metadata};
use proto::envoy::endpoint::lb_endpoint::HostIdentifier;
use proto::envoy::endpoint::{self as wire, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use proto::istio::destination_rule::ClientTlsMode;
use std::collections::BTreeMap;

/// The endpoints of a cluster, grouped by locality, with priorities or shares where locality matters.
pub fn assignment(input: &EndpointsInput) -> ClusterLoadAssignment {
    let policy = input.part.policy();
    let mesh_tls = policy.tls.as_ref().is_none_or(|tls| tls.mode == ClientTlsMode::IstioMutual);
    let mut groups: BTreeMap<&Locality, Vec<&Endpoint>> = BTreeMap::new();
    let node = input.client.as_ref().filter(|_| input.part.service.node_local).map(|client| &client.node);
    for endpoint in &input.endpoints.endpoints {
        // A name belongs into a DNS cluster, never into EDS.
        let is_ip = endpoint.address.parse::<std::net::IpAddr>().is_ok();
        let is_near = node.is_none_or(|node| *node == endpoint.node);
        if input.part.has(endpoint) && is_ip && is_near && endpoint.health != Health::NotReady {
            groups.entry(&endpoint.locality).or_default().push(endpoint);
        }
    }
    let setting = policy.locality(&input.part.service, &input.mesh);
    let tls = |endpoint: &Endpoint| mesh_tls && accepts_mesh_tls(input, endpoint);
    let endpoints = match (setting, &input.client) {
        (Some(setting), Some(client)) => locality::apply(&setting, client, &groups, &tls),
        _ => groups.iter().map(|(locality, endpoints)| group(locality, endpoints, &tls)).collect(),
    };
    ClusterLoadAssignment { cluster_name: input.part.cluster_name(), endpoints, ..ClusterLoadAssignment::default() }
}

/// Label of the workload and its effective mode (PA-6).
fn accepts_mesh_tls(input: &EndpointsInput, endpoint: &Endpoint) -> bool {
    let disabled = input.authn.as_ref().is_some_and(|policies| {
        policies.effective(&endpoint.namespace, &endpoint.labels).of_port(endpoint.port) == Mode::Disable
    });
    input.mesh.enable_auto_mtls && endpoint.mesh_tls && !disabled
}

/// One locality.
pub fn group(locality: &Locality, endpoints: &[&Endpoint], tls: &dyn Fn(&Endpoint) -> bool) -> LocalityLbEndpoints {
    LocalityLbEndpoints {
        locality: Some(proto::envoy::core::Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.sub_zone.clone(),
        }),
        load_balancing_weight: uint(endpoints.iter().map(|endpoint| endpoint.weight).sum()),
        lb_endpoints: endpoints.iter().map(|endpoint| lb_endpoint(endpoint, tls(endpoint))).collect(),
        ..LocalityLbEndpoints::default()
    }
}

fn lb_endpoint(endpoint: &Endpoint, mesh_tls: bool) -> LbEndpoint {
    let socket = mesh_tls.then(|| ("envoy.transport_socket_match".to_owned(), structure([("tlsMode", text("istio"))])));
    let workload = (!endpoint.workload.is_empty())
        .then(|| ("istio".to_owned(), structure([("workload", text(&endpoint.workload))])));
    let metadata = Metadata { filter_metadata: ordered(socket.into_iter().chain(workload)), ..Metadata::default() };
    LbEndpoint {
        health_status: match endpoint.health {
            Health::Healthy => HealthStatus::Healthy.into(),
            Health::Unknown | Health::NotReady => HealthStatus::Unknown.into(),
        },
        metadata: (!metadata.filter_metadata.is_empty()).then_some(metadata),
        load_balancing_weight: uint(endpoint.weight),
        host_identifier: Some(HostIdentifier::Endpoint(wire::Endpoint {
            address: address(&endpoint.address, endpoint.port),
            ..wire::Endpoint::default()
        })),
    }
}

/// The endpoints that a DNS cluster holds.
pub fn of_dns(part: &Part, set: &EndpointSet, name: &str) -> ClusterLoadAssignment {
    let mut groups: BTreeMap<&Locality, Vec<&Endpoint>> = BTreeMap::new();
    let serves = |endpoint: &&Endpoint| part.has(endpoint) && endpoint.health != Health::NotReady;
    for endpoint in set.endpoints.iter().filter(serves) {
        groups.entry(&endpoint.locality).or_default().push(endpoint);
    }
    let tls = |endpoint: &Endpoint| endpoint.mesh_tls && !part.service.external;
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: groups.iter().map(|(locality, endpoints)| group(locality, endpoints, &tls)).collect(),
        ..ClusterLoadAssignment::default()
    }
}

/// One fixed address.
pub fn single(name: &str, host: &str, port: u16) -> ClusterLoadAssignment {
    let endpoint = wire::Endpoint { address: address(host, port), ..wire::Endpoint::default() };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![LbEndpoint {
                host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
                ..LbEndpoint::default()
            }],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}
