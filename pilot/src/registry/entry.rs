//! ServiceEntry and WorkloadEntry (spec 1.6).

use super::Settings;
use super::endpoint::{self, Endpoint, EndpointSet, Health, Locality};
use super::pod::{self, Workload};
use super::protocol::Protocol;
use super::service::{Port, Registry, Resolution, Service, ServiceKey};
use crate::source::{Kind, Object, Spec, Store};
use proto::istio::service_entry::{self, Location, ServiceEntry, WorkloadEntry};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One service per host of the entry (SE-1 to SE-8).
pub fn services(object: &Object, spec: &ServiceEntry) -> Vec<Service> {
    let resolution = match spec.resolution {
        service_entry::Resolution::None => Resolution::Passthrough,
        service_entry::Resolution::Static => Resolution::Endpoints,
        service_entry::Resolution::Dns | service_entry::Resolution::DynamicDns => Resolution::Dns,
        service_entry::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
    };
    let ports: Vec<Port> = spec
        .ports
        .iter()
        .map(|port| Port {
            name: port.name.clone(),
            number: u16::try_from(port.number).unwrap_or(0),
            target: port.target_port.and_then(|number| u16::try_from(number).ok()),
            protocol: Protocol::parse(&port.protocol).unwrap_or(Protocol::Sniff),
        })
        .filter(|port| port.protocol != Protocol::Udp)
        .collect();
    let service = |host: &String| Service {
        key: ServiceKey { host: host.to_ascii_lowercase().into(), namespace: object.key.namespace.clone() },
        name: host.clone(),
        ports: ports.clone(),
        addresses: spec.addresses.iter().map(|address| single(address)).collect(),
        allocated: Vec::new(),
        resolution,
        registry: Registry::External,
        external: spec.location == Location::MeshExternal,
        headless: false,
        export_to: spec.export_to.clone(),
        selector: spec.workload_selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default(),
        subject_alt_names: spec.subject_alt_names.clone(),
        aliases: Vec::new(),
        declared_by: object.key.clone(),
    };
    spec.hosts.iter().map(service).collect()
}

/// The endpoints of a ServiceEntry's service: inline ones, selected ones, or its host itself where DNS is asked.
pub fn endpoints(service: &Service, store: &Store, settings: &Settings) -> EndpointSet {
    let Some(object) = store.get(&service.declared_by) else { return EndpointSet::default() };
    let Spec::ServiceEntry(spec) = &object.spec else { return EndpointSet::default() };
    let mut out = Vec::new();
    if !service.selector.is_empty() {
        add_selected(&mut out, service, store, settings, &[Kind::WorkloadEntry, Kind::Pod]);
    } else if spec.endpoints.is_empty() && matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin) {
        let host = WorkloadEntry { address: service.key.host.to_string(), ..WorkloadEntry::default() };
        for port in &service.ports {
            out.push(inline(service, port, &host, &object.key.name, settings));
        }
    } else {
        for (index, entry) in spec.endpoints.iter().enumerate() {
            let name = format!("{}-{index}", object.key.name);
            for port in &service.ports {
                out.push(inline(service, port, entry, &name, settings));
            }
        }
    }
    out.sort_by(|a, b| (a.service_port, &a.address, a.port).cmp(&(b.service_port, &b.address, b.port)));
    EndpointSet::new(out, &settings.trust_domains)
}

fn inline(service: &Service, port: &Port, entry: &WorkloadEntry, name: &str, settings: &Settings) -> Endpoint {
    let namespace = &service.key.namespace;
    Endpoint {
        address: entry.address.clone(),
        port: port_of(entry, port),
        service_port: port.number,
        namespace: namespace.to_string(),
        service_account: entry.service_account.clone(),
        locality: Locality::parse(&entry.locality),
        weight: entry.weight.unwrap_or(1).max(1),
        health: Health::Unknown,
        mesh_tls: mesh_tls(entry),
        workload: endpoint::workload_text(name, namespace, &entry.labels, &settings.cluster),
        hostname: String::new(),
        labels: Arc::new(entry.labels.clone()),
    }
}

fn port_of(entry: &WorkloadEntry, port: &Port) -> u16 {
    let named = entry.ports.get(&port.name).and_then(|number| u16::try_from(*number).ok());
    named.or(port.target).unwrap_or(port.number)
}

/// The label says it; without it, a service account means mesh mTLS (as Istio has it for entries).
fn mesh_tls(entry: &WorkloadEntry) -> bool {
    match entry.labels.get(proto::wire::LABEL_TLS_MODE) {
        Some(mode) => mode == "istio",
        None => !entry.service_account.is_empty(),
    }
}

/// Whether all labels of a selector are there.
pub fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Adds the workloads of the service's namespace that its selector picks (SE-10, PI-20).
pub fn add_selected(out: &mut Vec<Endpoint>, service: &Service, store: &Store, settings: &Settings, kinds: &[Kind]) {
    for object in kinds.iter().flat_map(|kind| store.in_namespace(*kind, &service.key.namespace)) {
        match &object.spec {
            Spec::WorkloadEntry(entry) if selects(&service.selector, &labels(object, entry)) => {
                for port in &service.ports {
                    let mut endpoint = inline(service, port, entry, &object.key.name, settings);
                    endpoint.labels = Arc::new(labels(object, entry));
                    endpoint.workload = endpoint::workload_text(
                        &object.key.name,
                        &object.key.namespace,
                        &endpoint.labels,
                        &settings.cluster,
                    );
                    out.push(endpoint);
                }
            }
            Spec::Pod(..) if selects(&service.selector, &object.meta.labels) => {
                let Some(workload) = pod::workload(object, store, settings) else { continue };
                for port in &service.ports {
                    out.push(of_pod(service, port, &workload));
                }
            }
            _ => {}
        }
    }
}

fn of_pod(service: &Service, port: &Port, workload: &Workload) -> Endpoint {
    Endpoint {
        address: workload.addresses.first().cloned().unwrap_or_default(),
        port: port.target.unwrap_or(port.number),
        service_port: port.number,
        labels: workload.labels.clone(),
        namespace: service.key.namespace.to_string(),
        service_account: workload.service_account.clone(),
        locality: workload.locality.clone(),
        weight: 1,
        health: Health::Healthy,
        mesh_tls: workload.mesh_tls,
        workload: workload.text.clone(),
        hostname: String::new(),
    }
}

/// Labels of an entry: those of its content over those of its metadata.
fn labels(object: &Object, entry: &WorkloadEntry) -> BTreeMap<String, String> {
    let mut labels = object.meta.labels.clone();
    labels.extend(entry.labels.clone());
    labels
}

/// The workload of a WorkloadEntry.
pub fn workload(object: &Object, entry: &WorkloadEntry, settings: &Settings) -> Workload {
    let labels = labels(object, entry);
    let name = labels.get(proto::wire::LABEL_WORKLOAD_NAME).map_or(&*object.key.name, String::as_str);
    Workload {
        addresses: vec![entry.address.clone()],
        namespace: object.key.namespace.to_string(),
        name: object.key.name.to_string(),
        service_account: entry.service_account.clone(),
        locality: Locality::parse(&entry.locality),
        mesh_tls: mesh_tls(entry),
        text: endpoint::workload_text(name, &object.key.namespace, &labels, &settings.cluster),
        labels: Arc::new(labels),
    }
}

/// A network of one address is that address.
fn single(address: &str) -> String {
    let whole = if address.contains(':') { "/128" } else { "/32" };
    address.strip_suffix(whole).unwrap_or(address).to_owned()
}
