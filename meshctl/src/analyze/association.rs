//! Workloads whose services contradict each other about a port.

use super::code::Code;
use super::message::Message;
use super::view::{View, full, list};
use super::workload;
use pilot::registry::entry::selects;
use pilot::registry::owner::workload_name;
use pilot::source::{Kind, Object, Spec};
use proto::istio::core::ServiceSpec;
use std::collections::{BTreeMap, BTreeSet};

/// Workloads of the mesh of which two services give a port two protocols, or lead from two ports to one of the pod's.
/// Pods stand for the deployment that made them: pilot watches no deployments.
pub fn services(view: &View<'_>) -> Vec<Message> {
    let mut workloads: BTreeMap<(&str, &str), &Object> = BTreeMap::new();
    for pod in view.kind(Kind::Pod).filter(|pod| workload::in_mesh(view, pod)) {
        workloads.entry((&pod.key.namespace, workload_name(&pod.meta))).or_insert(pod);
    }
    let of = |((_, name), pod): ((&str, &str), &Object)| {
        let services = before(view, pod);
        [protocols(name, pod, &services), ports(name, pod, &services)].concat()
    };
    workloads.into_iter().flat_map(of).collect()
}

/// The services that select a pod.
fn before<'a>(view: &View<'a>, pod: &Object) -> Vec<(&'a Object, &'a ServiceSpec)> {
    let own = view.kind(Kind::Service).filter(|service| service.key.namespace == pod.key.namespace);
    let specs =
        own.filter_map(|object| if let Spec::Service(spec) = &object.spec { Some((object, &**spec)) } else { None });
    specs.filter(|(_, spec)| !spec.selector.is_empty() && selects(&spec.selector, &pod.meta.labels)).collect()
}

fn protocols(name: &str, pod: &Object, services: &[(&Object, &ServiceSpec)]) -> Vec<Message> {
    let mut by_port: BTreeMap<u16, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for (object, spec) in services {
        for port in &spec.ports {
            let protocol = port.protocol.as_deref().filter(|own| !own.is_empty()).unwrap_or("TCP");
            by_port.entry(port.port).or_default().entry(protocol).or_default().push(full(object));
        }
    }
    let found = by_port.into_iter().filter(|(_, protocols)| protocols.len() > 1).map(|(port, protocols)| {
        let mut names: Vec<String> = protocols.into_values().flatten().collect();
        names.sort();
        let text = format!(
            "This deployment {name} is associated with multiple services using port {port} but different protocols: {}",
            list(names)
        );
        Message::at(Code::DeploymentAssociatedToMultipleServices, pod, "metadata.name", text)
    });
    found.collect()
}

fn ports(name: &str, pod: &Object, services: &[(&Object, &ServiceSpec)]) -> Vec<Message> {
    let mut by_target: BTreeMap<String, BTreeMap<u16, String>> = BTreeMap::new();
    for (object, spec) in services {
        for port in &spec.ports {
            by_target.entry(super::service::target(port)).or_default().insert(port.port, full(object));
        }
    }
    let found = by_target.into_iter().filter(|(_, ports)| ports.len() > 1).map(|(target, ports)| {
        let numbers: BTreeSet<u16> = ports.keys().copied().collect();
        let mut names: Vec<String> = ports.into_values().collect();
        names.sort();
        let text = format!(
            "This deployment {name} is associated with multiple services {} using targetPort {target:?} but different ports: \
             {}.",
            list(names),
            list(numbers)
        );
        Message::at(Code::DeploymentConflictingPorts, pod, "metadata.name", text)
    });
    found.collect()
}
