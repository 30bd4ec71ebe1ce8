//! Workloads: pods and WorkloadEntries by address (PI-16, PI-19).

use super::Settings;
use super::endpoint::{self, Health, Locality};
use super::owner::workload_name;
use crate::source::{Key, Kind, Object, Spec, Store};
use proto::istio::core::PodStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Workload {
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Its service account.
    pub service_account: String,
    /// Where it runs.
    pub locality: Locality,
    /// Node that it runs on; empty where none is known.
    pub node: String,
    /// Whether it accepts mesh mTLS.
    pub mesh_tls: bool,
    /// `workload;namespace;canonical-name;canonical-revision;cluster`.
    pub text: String,
}

/// The workload of a pod; none while it has no address, and once it has ended, when another pod may have its address.
pub fn workload(object: &Object, store: &Store, settings: &Settings) -> Option<Workload> {
    let Spec::Pod(spec, status) = &object.spec else { return None };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let mut addresses: Vec<String> = status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
    addresses.extend(status.pod_ip.clone());
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() {
        return None;
    }
    let labels = &object.meta.labels;
    let own = labels.get("topology.istio.io/locality").or_else(|| labels.get("istio-locality"));
    let locality = own.map_or_else(
        || locality_of_node(spec.node_name.as_deref(), None, store),
        |text| Locality::parse(&text.replace('.', "/")),
    );
    Some(Workload {
        addresses,
        namespace: object.key.namespace.to_string(),
        name: object.key.name.to_string(),
        service_account: spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
        locality,
        node: spec.node_name.clone().unwrap_or_default(),
        mesh_tls: labels.get(proto::wire::LABEL_TLS_MODE).is_some_and(|mode| mode == "istio"),
        text: endpoint::workload_text(workload_name(&object.meta), &object.key.namespace, labels, &settings.cluster),
        labels: Arc::new(labels.clone()),
    })
}

/// Whether a pod takes traffic: not before it is ready, and not once it ends (SE-10). One without conditions is written in a
/// file, and takes it. No part of its [`Workload`], on which far more rests.
pub fn health(object: &Object, status: &PodStatus) -> Health {
    if status.ready.unwrap_or(true) && object.meta.deletion_timestamp.is_none() {
        Health::Healthy
    } else {
        Health::NotReady
    }
}

/// The locality that the labels of a node say; the zone of the slice where the node is not known.
pub fn locality_of_node(node: Option<&str>, zone: Option<&str>, store: &Store) -> Locality {
    let object = node.and_then(|name| store.get(&Key { kind: Kind::Node, namespace: "".into(), name: name.into() }));
    let Some(object) = object else {
        return Locality { zone: zone.unwrap_or_default().to_owned(), ..Locality::default() };
    };
    let label = |key: &str| object.meta.labels.get(key).cloned().unwrap_or_default();
    Locality {
        region: label(endpoint::LABEL_REGION),
        zone: label(endpoint::LABEL_ZONE),
        sub_zone: label(endpoint::LABEL_SUB_ZONE),
    }
}

/// Workloads by address, namespace and name: pods on their node's network share its address.
pub type Workloads = BTreeMap<(String, String, String), Arc<Workload>>;

/// The workload of a namespace at an address, that of this name where there are several.
pub fn at<'w>(workloads: &'w Workloads, address: &str, namespace: &str, name: &str) -> Option<&'w Arc<Workload>> {
    let key = |name: &str| (address.to_owned(), namespace.to_owned(), name.to_owned());
    let first = || {
        let (found, workload) = workloads.range(key("")..).next()?;
        (found.0 == address && found.1 == namespace).then_some(workload)
    };
    workloads.get(&key(name)).or_else(first)
}

/// All workloads; of an address that a pod has no entry counts.
pub fn workloads(store: &Store, settings: &Settings) -> Workloads {
    let entry = |object: &Arc<Object>| match &object.spec {
        Spec::WorkloadEntry(spec) => Some(super::entry::workload(object, spec, settings)),
        _ => None,
    };
    let pods: Vec<Workload> = store.of_kind(Kind::Pod).filter_map(|object| workload(object, store, settings)).collect();
    let taken: BTreeSet<&String> = pods.iter().flat_map(|pod| &pod.addresses).collect();
    let free = |workload: &Workload| !workload.addresses.iter().any(|address| taken.contains(address));
    let entries: Vec<Workload> = store.of_kind(Kind::WorkloadEntry).filter_map(entry).filter(free).collect();
    let mut out = Workloads::new();
    for workload in pods.into_iter().chain(entries).map(Arc::new) {
        for address in &workload.addresses {
            out.insert((address.clone(), workload.namespace.clone(), workload.name.clone()), workload.clone());
        }
    }
    out
}
