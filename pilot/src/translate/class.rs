//! Nodes that are told the same: work is done per class and not per node (design decision E).

use super::family::Families;
use super::locality::Place;
use super::node::{Flavor, Node, Role};
use super::telemetry::{Identity, Reports};
use crate::model::Mesh;
use crate::model::mesh::Instance;
use crate::model::proxy_config::Topology;
use crate::model::scope::Egress;
use crate::registry::{Resolution, Service};
use proto::istio::sidecar::CaptureMode;
use std::net::IpAddr;
use std::sync::Arc;

/// Everything about a node that any of its resources depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Class {
    /// What the proxy is for.
    pub role: Role,
    /// Its namespace.
    pub namespace: String,
    /// Where it is, and its labels.
    pub place: Place,
    /// Which filters it has.
    pub flavor: Flavor,
    /// Which kinds of addresses it has.
    pub families: Families,
    /// Who it is in its reports.
    pub identity: Identity,
    /// What it reports, and to whom.
    pub reports: Arc<Reports>,
    /// What it serves.
    pub instances: Vec<Instance>,
    /// Whether it answers its workload's DNS.
    pub captures_dns: bool,
    /// Whether its workload's connections are led to it.
    pub intercepts: bool,
    /// What stands before a gateway.
    pub topology: Topology,
    /// Its address, where a resource names it: headless services, Sidecars with ingress, gRPC servers.
    pub address: Option<String>,
}

impl Class {
    /// Whether the client's own destination address can choose an endpoint: not at a gateway, and not where no
    /// connection is captured.
    pub fn has_own_destination(&self) -> bool {
        self.role == Role::Sidecar && self.flavor != Flavor::Grpc
    }

    /// Whether clients connect to the listeners of an egress themselves: nothing leads their connections there (SC-3).
    pub fn binds(&self, egress: &Egress) -> bool {
        match egress.capture {
            CaptureMode::Default => !self.intercepts,
            CaptureMode::Iptables => false,
            CaptureMode::None => true,
        }
    }

    /// The addresses that pilot has chosen for a service, as far as the class can use them: names lead there only where the
    /// proxy answers DNS.
    pub fn allocated<'a>(&self, service: &'a Service) -> impl Iterator<Item = IpAddr> + use<'a> {
        let (families, captures) = (self.families, self.captures_dns);
        service.allocated.iter().copied().filter(move |address| captures && families.has(*address))
    }

    /// The class of a node in a mesh.
    pub fn of(node: &Node, mesh: &Mesh) -> Self {
        let node = node.with_workload(mesh);
        let served = node.addresses.iter().filter_map(|address| mesh.instances.get(address)).flatten();
        let mut instances: Vec<Instance> = Vec::new();
        for instance in served.filter(|instance| instance.service.key.namespace.as_ref() == node.namespace) {
            if !instances.contains(instance) {
                instances.push(instance.clone());
            }
        }
        instances.sort_by(|a, b| {
            (&a.service.declared_by.name, &a.service.key, a.service_port).cmp(&(
                &b.service.declared_by.name,
                &b.service.key,
                b.service_port,
            ))
        });
        let headless = instances.iter().any(|instance| instance.service.resolution == Resolution::Passthrough);
        let sidecar = crate::model::scope::choose(mesh, &node.namespace, &node.labels);
        let ingress = node.role == Role::Sidecar && sidecar.is_some_and(|sidecar| !sidecar.ingress.is_empty());
        let serves_grpc = node.flavor == Flavor::Grpc && !instances.is_empty();
        let label = |key: &str| node.labels.get(key).cloned();
        let service = label(proto::wire::LABEL_CANONICAL_NAME)
            .or_else(|| label("app.kubernetes.io/name"))
            .or_else(|| label("app"))
            .unwrap_or_else(|| node.name.clone());
        let revision = label(proto::wire::LABEL_CANONICAL_REVISION)
            .or_else(|| label("app.kubernetes.io/version"))
            .or_else(|| label("version"))
            .unwrap_or_else(|| "latest".to_owned());
        let ids = [&node.mesh_id, &mesh.config.mesh_id, &mesh.config.trust_domain];
        let mesh_id = ids.into_iter().find(|id| !id.is_empty()).cloned().unwrap_or_default();
        let proxy = node.proxy.clone().or(&mesh.config.proxy);
        let reports = Arc::new(Reports::of(&node.namespace, &node.labels, &proxy, mesh));
        Self {
            role: node.role,
            reports,
            identity: Identity { service, revision, cluster: node.cluster, mesh_id, namespace: node.namespace.clone() },
            namespace: node.namespace,
            place: Place {
                locality: node.locality,
                node: if mesh.counts_nodes { node.node } else { String::new() },
                labels: node.labels,
            },
            flavor: node.flavor,
            families: Families::of(&node.addresses),
            instances,
            captures_dns: node.captures_dns,
            intercepts: proxy.intercepts.unwrap_or(true),
            topology: proxy.topology.filter(|_| node.role == Role::Router).unwrap_or_default(),
            address: node.addresses.first().filter(|_| headless || ingress || serves_grpc).cloned(),
        }
    }
}
