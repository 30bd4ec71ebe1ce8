//! References that lead nowhere: hosts without a service, subsets without a rule.
//!
//! A rule that dangles is applied as it is (the cluster is missing, requests get 503 with flag NC: VS-16), unless an
//! earlier version of the same object did not dangle: then that one stays until the reference exists.

use super::gateway::Gateway;
use super::mesh::Mesh;
use super::virtual_service::VirtualService;
use crate::source::{Class, Object, Problem};
use proto::istio::virtual_service::Destination;
use std::collections::BTreeSet;

/// The Secrets that a Gateway names and that are missing or broken, for each namespace in which proxies serve it.
pub fn secrets(object: &Object, gateway: &Gateway, mesh: &Mesh) -> Vec<Problem> {
    if gateway.secrets().next().is_none() {
        return Vec::new();
    }
    let serving = mesh.workloads.values().filter(|workload| gateway.selects(&workload.labels));
    let namespaces: BTreeSet<&str> = serving.map(|workload| workload.namespace.as_str()).collect();
    let mut problems = Vec::new();
    for (field, name) in gateway.secrets() {
        for lack in namespaces.iter().filter_map(|namespace| mesh.secrets.lack(name, namespace)) {
            problems.push(object.problem(Class::DanglingReference, field.clone(), lack.to_string()));
        }
    }
    problems
}

/// The references of a VirtualService that lead nowhere.
pub fn dangling(object: &Object, rule: &VirtualService, mesh: &Mesh) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut look = |at: String, destination: Option<&Destination>| {
        let Some(destination) = destination else { return };
        let services: Vec<_> = mesh.services.iter().filter(|service| *service.key.host == *destination.host).collect();
        if services.is_empty() {
            let message = format!("no service has the host {}", destination.host);
            problems.push(object.problem(Class::DanglingReference, format!("{at}.host"), message));
            return;
        }
        let defined = |subset: &str| {
            mesh.rules.iter().any(|rule| {
                super::host::covers(&rule.host, &destination.host) && rule.subsets.iter().any(|own| own.name == subset)
            })
        };
        if !destination.subset.is_empty() && !defined(&destination.subset) {
            let message =
                format!("no DestinationRule for {} defines the subset {}", destination.host, destination.subset);
            problems.push(object.problem(Class::DanglingReference, format!("{at}.subset"), message));
        }
        if let Some(port) = &destination.port {
            let known =
                services.iter().any(|service| service.ports.iter().any(|own| u32::from(own.number) == port.number));
            if !known {
                let message = format!("{} has no port {}", destination.host, port.number);
                problems.push(object.problem(Class::DanglingReference, format!("{at}.port.number"), message));
            }
        }
    };
    for (i, route) in rule.http.iter().enumerate() {
        for (j, to) in route.route.iter().enumerate() {
            look(format!("spec.http[{i}].route[{j}].destination"), to.destination.as_ref());
        }
        look(format!("spec.http[{i}].mirror"), route.mirror.as_ref());
        for (j, mirror) in route.mirrors.iter().enumerate() {
            look(format!("spec.http[{i}].mirrors[{j}].destination"), mirror.destination.as_ref());
        }
    }
    for (i, route) in rule.tls.iter().enumerate() {
        for (j, to) in route.route.iter().enumerate() {
            look(format!("spec.tls[{i}].route[{j}].destination"), to.destination.as_ref());
        }
    }
    for (i, route) in rule.tcp.iter().enumerate() {
        for (j, to) in route.route.iter().enumerate() {
            look(format!("spec.tcp[{i}].route[{j}].destination"), to.destination.as_ref());
        }
    }
    problems
}
