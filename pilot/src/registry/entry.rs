//! ServiceEntry and WorkloadEntry (spec 1.6).

use super::Settings;
use super::endpoint::{self, Endpoint, EndpointSet, Health, Locality};
use super::pod::{self, Workload};
use super::protocol::Protocol;
use super::service::{Distribution, Port, Registry, Resolution, Service, ServiceKey};
use crate::source::{Kind, Object, Spec, Store};
use proto::istio::service_entry::{self, Location, ServiceEntry, WorkloadEntry};
use std::collections::{BTreeMap, HashSet};
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
            target_name: None,
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
        distribution: Distribution::of(None, object),
        node_local: false,
        export_to: spec.export_to.clone(),
        selector: spec.workload_selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default(),
        subject_alt_names: spec.subject_alt_names.clone(),
        aliases: Vec::new(),
        declared_by: object.key.clone(),
        added_by: Vec::new(),
    };
    spec.hosts.iter().map(service).collect()
}

/// The endpoints of a ServiceEntry's service: inline ones, selected ones, or its host itself where DNS is asked.
pub fn endpoints(service: &Service, store: &Store, settings: &Settings) -> EndpointSet {
    let mut out = Vec::new();
    if service.selector.is_empty() {
        for object in service.declared().filter_map(|key| store.get(key)) {
            add_declared(&mut out, service, object, settings);
        }
    } else {
        add_selected(&mut out, service, store, settings, &[Kind::WorkloadEntry, Kind::Pod]);
    }
    if service.resolution == Resolution::DnsRoundRobin {
        // A cluster of this kind has one name to ask for: the oldest entry's.
        out.sort_by_key(|endpoint| endpoint.health);
        let mut seen = HashSet::new();
        out.retain(|endpoint| seen.insert(endpoint.service_port));
    }
    EndpointSet::new(out, &settings.trust_domains)
}

/// Adds what one of the entries of a service says of the ports that it declares.
fn add_declared(out: &mut Vec<Endpoint>, service: &Service, object: &Object, settings: &Settings) {
    let Spec::ServiceEntry(spec) = &object.spec else { return };
    let own = |port: &&Port| spec.ports.iter().any(|declared| declared.number == u32::from(port.number));
    let ports: Vec<&Port> = service.ports.iter().filter(own).collect();
    if spec.endpoints.is_empty() && matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin) {
        let host = WorkloadEntry { address: service.key.host.to_string(), ..WorkloadEntry::default() };
        for port in ports {
            out.extend(inline(service, port, &host, &object.key.name, settings));
        }
    } else {
        for (index, entry) in spec.endpoints.iter().enumerate() {
            let name = format!("{}-{index}", object.key.name);
            for port in &ports {
                out.extend(inline(service, port, entry, &name, settings));
            }
        }
    }
}

fn inline(service: &Service, port: &Port, entry: &WorkloadEntry, name: &str, settings: &Settings) -> Option<Endpoint> {
    let namespace = &service.key.namespace;
    Some(Endpoint {
        address: entry.address.clone(),
        port: port_of(entry, port)?,
        service_port: port.number,
        namespace: namespace.to_string(),
        service_account: entry.service_account.clone(),
        locality: Locality::parse(&entry.locality),
        node: String::new(),
        weight: entry.weight.unwrap_or(1).max(1),
        health: Health::Unknown,
        mesh_tls: mesh_tls(entry),
        workload: endpoint::workload_text(name, namespace, &entry.labels, &settings.cluster),
        hostname: String::new(),
        labels: Arc::new(entry.labels.clone()),
    })
}

/// The port at a workload: by the name that the service's target has, else by that of its port, else by number. None where
/// the workload has no port of the target's name.
fn port_of(entry: &WorkloadEntry, port: &Port) -> Option<u16> {
    let named = |name: &str| entry.ports.get(name).and_then(|number| u16::try_from(*number).ok());
    match &port.target_name {
        Some(target) => named(target),
        None => named(&port.name).or(port.target).or(Some(port.number)),
    }
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
                    let Some(mut endpoint) = inline(service, port, entry, &object.key.name, settings) else { continue };
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
            Spec::Pod(_, status) if selects(&service.selector, &object.meta.labels) => {
                let Some(workload) = pod::workload(object, store, settings) else { continue };
                let health = pod::health(object, status);
                for port in &service.ports {
                    out.push(of_pod(service, port, &workload, health));
                }
            }
            _ => {}
        }
    }
}

fn of_pod(service: &Service, port: &Port, workload: &Workload, health: Health) -> Endpoint {
    Endpoint {
        address: workload.addresses.first().cloned().unwrap_or_default(),
        port: port.target.unwrap_or(port.number),
        service_port: port.number,
        labels: workload.labels.clone(),
        namespace: service.key.namespace.to_string(),
        service_account: workload.service_account.clone(),
        locality: workload.locality.clone(),
        node: workload.node.clone(),
        weight: 1,
        health,
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
        node: String::new(),
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
