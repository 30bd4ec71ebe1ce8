//! Objects → services, endpoints and workloads. Pure functions.
//!
//! What this part knows: what Kubernetes' and Istio's registry kinds say about hosts, ports and addresses.
//! What it must never know: rules, proxies, Envoy's messages.

pub mod allocate;
pub mod endpoint;
pub mod endpoint_slice;
pub mod entry;
pub mod owner;
pub mod pod;
pub mod protocol;
pub mod service;

pub use endpoint::{Endpoint, EndpointSet, Health, Locality};
pub use pod::Workload;
pub use protocol::Protocol;
pub use service::{Port, Registry, Resolution, Service, ServiceKey};

use crate::source::{Kind, Object, Spec, Store};
use std::sync::Arc;

/// What the registry must know of the mesh: the domain of its services, its cluster's name, its trust domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Domain of Kubernetes services (`cluster.local`).
    pub domain: String,
    /// Name of the cluster (`Kubernetes`).
    pub cluster: String,
    /// Trust domains of identities: the mesh's own first, then its aliases.
    pub trust_domains: Vec<String>,
    /// Whether hosts of ServiceEntries without addresses get some.
    pub autoallocate: bool,
}

/// All services that the objects declare, oldest first; of two with one name in one namespace a Kubernetes Service
/// wins over a ServiceEntry, else the older stays, and takes in what ports and endpoints the younger adds (PI-85, PI-86).
pub fn services(store: &Store, settings: &Settings) -> Vec<Service> {
    let mut objects: Vec<&Arc<Object>> =
        store.of_kind(Kind::Service).chain(store.of_kind(Kind::ServiceEntry)).collect();
    objects.sort_by(|a, b| a.age().cmp(&b.age()));
    let mut services: Vec<Service> = Vec::new();
    let mut seen = std::collections::HashMap::new();
    for object in objects {
        let declared = match &object.spec {
            Spec::Service(spec) => service::from_kubernetes(object, spec, settings).into_iter().collect(),
            Spec::ServiceEntry(spec) => entry::services(object, spec),
            _ => Vec::new(),
        };
        for service in declared {
            match seen.get(&service.key) {
                None => {
                    seen.insert(service.key.clone(), services.len());
                    services.push(service);
                }
                Some(&at)
                    if service.registry == Registry::Kubernetes && services[at].registry == Registry::External =>
                {
                    services[at] = service;
                }
                Some(&older) => services[older].absorb(service),
            }
        }
    }
    service::add_aliases(&mut services, store, settings);
    if settings.autoallocate {
        allocate::allocate(&mut services, store);
    }
    services
}

/// The endpoints of one service.
pub fn endpoints(service: &Service, store: &Store, settings: &Settings) -> EndpointSet {
    match service.registry {
        Registry::Kubernetes => endpoint_slice::endpoints(service, store, settings),
        Registry::External => entry::endpoints(service, store, settings),
    }
}

#[cfg(test)]
mod tests;
