//! EndpointSlices, pods and selected WorkloadEntries → endpoints of a Kubernetes service (PI-15, PI-16, PI-20).

use super::Settings;
use super::endpoint::{Endpoint, EndpointSet, Health};
use super::entry;
use super::pod;
use super::service::{Port, Service};
use crate::source::{Key, Kind, Spec, Store};
use proto::istio::core::{EndpointConditions, SliceEndpoint};
use std::sync::Arc;

/// The endpoints of a Kubernetes service.
pub fn endpoints(service: &Service, store: &Store, settings: &Settings) -> EndpointSet {
    let mut out = Vec::new();
    for object in store.slices_of(&service.key.namespace, &service.name) {
        let Spec::EndpointSlice(slice) = &object.spec else { continue };
        for slice_port in &slice.ports {
            let Some(number) = slice_port.port else { continue };
            let name = slice_port.name.as_deref().unwrap_or_default();
            let Some(port) = service.ports.iter().find(|port| port.name == name) else { continue };
            for endpoint in &slice.endpoints {
                add(&mut out, service, (port, number), endpoint, (store, settings));
            }
        }
    }
    if !service.selector.is_empty() {
        entry::add_selected(&mut out, service, store, settings, &[Kind::WorkloadEntry]);
    }
    EndpointSet::new(out, &settings.trust_domains)
}

fn health(conditions: &EndpointConditions) -> Health {
    // Who ends is ready where its service publishes it all the same, and only there.
    if conditions.ready.unwrap_or(true) { Health::Healthy } else { Health::NotReady }
}

fn add(
    out: &mut Vec<Endpoint>,
    service: &Service,
    (port, number): (&Port, u16),
    endpoint: &SliceEndpoint,
    (store, settings): (&Store, &Settings),
) {
    let Some(address) = endpoint.addresses.first() else { return };
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod").map(|target| {
        let namespace = target.namespace.as_deref().unwrap_or(&service.key.namespace);
        store.get(&Key { kind: Kind::Pod, namespace: namespace.into(), name: target.name.as_str().into() })
    });
    let workload = pod.flatten().and_then(|pod| pod::workload(pod, store, settings));
    // Who its pod is and whether it speaks mTLS is not known yet: it waits for the pod (PI-15).
    if pod.is_some() && workload.is_none() {
        return;
    }
    let locality = workload.as_ref().map_or_else(
        || pod::locality_of_node(endpoint.node_name.as_deref(), endpoint.zone.as_deref(), store),
        |workload| workload.locality.clone(),
    );
    out.push(Endpoint {
        address: address.clone(),
        port: number,
        service_port: port.number,
        namespace: service.key.namespace.to_string(),
        service_account: workload.as_ref().map(|w| w.service_account.clone()).unwrap_or_default(),
        locality,
        node: endpoint.node_name.clone().or_else(|| Some(workload.as_ref()?.node.clone())).unwrap_or_default(),
        weight: 1,
        health: health(&endpoint.conditions),
        mesh_tls: workload.as_ref().is_some_and(|w| w.mesh_tls),
        workload: workload.as_ref().map(|w| w.text.clone()).unwrap_or_default(),
        hostname: endpoint.hostname.clone().unwrap_or_default(),
        labels: workload.map_or_else(Arc::default, |w| w.labels),
    });
}
