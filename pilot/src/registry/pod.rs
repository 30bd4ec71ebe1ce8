//! Workloads: pods and WorkloadEntries by address (PI-16, PI-19).

use super::Settings;
use super::endpoint::{self, Locality};
use super::owner::workload_name;
use crate::source::{Key, Kind, Object, Spec, Store};
use std::collections::BTreeMap;
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
    /// Whether it accepts mesh mTLS.
    pub mesh_tls: bool,
    /// `workload;namespace;canonical-name;canonical-revision;cluster`.
    pub text: String,
}

/// The workload of a pod; none while it has no address.
pub fn workload(object: &Object, store: &Store, settings: &Settings) -> Option<Workload> {
    let Spec::Pod(spec, status) = &object.spec else { return None };
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
        mesh_tls: labels.get(proto::wire::LABEL_TLS_MODE).is_some_and(|mode| mode == "istio"),
        text: endpoint::workload_text(workload_name(&object.meta), &object.key.namespace, labels, &settings.cluster),
        labels: Arc::new(labels.clone()),
    })
}

/// The locality that the labels of a node say; the zone of the slice where the node is not known.
pub fn locality_of_node(node: Option<&str>, zone: Option<&str>, store: &Store) -> Locality {
    let object = node.and_then(|name| store.get(&Key { kind: Kind::Node, namespace: "".into(), name: name.into() }));
    let Some(object) = object else {
        return Locality { zone: zone.unwrap_or_default().to_owned(), ..Locality::default() };
    };
    let label = |key: &str| object.meta.labels.get(key).cloned().unwrap_or_default();
    Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        sub_zone: label("topology.istio.io/subzone"),
    }
}

/// All workloads by address; pods win over entries.
pub fn workloads(store: &Store, settings: &Settings) -> BTreeMap<String, Arc<Workload>> {
    let mut out = BTreeMap::new();
    for object in store.of_kind(Kind::WorkloadEntry).chain(store.of_kind(Kind::Pod)) {
        let workload = match &object.spec {
            Spec::Pod(..) => workload(object, store, settings),
            Spec::WorkloadEntry(spec) => Some(super::entry::workload(object, spec, settings)),
            _ => None,
        };
        if let Some(workload) = workload.map(Arc::new) {
            for address in &workload.addresses {
                out.insert(address.clone(), workload.clone());
            }
        }
    }
    out
}
