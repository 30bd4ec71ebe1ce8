//! Objects that contradict each other.

use super::code::Code;
use super::message::Message;
use super::view::{View, full, list, shown};
use pilot::model::host;
use pilot::source::{Kind, Object, Spec};
use std::collections::{BTreeMap, BTreeSet};

/// A host that two VirtualServices of sidecars define.
pub fn hosts(view: &View<'_>) -> Vec<Message> {
    let mut by_host: BTreeMap<String, Vec<&Object>> = BTreeMap::new();
    for (object, spec) in view.virtual_services() {
        if spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh") {
            for name in spec.hosts.iter().collect::<BTreeSet<_>>() {
                by_host.entry(view.resolve(name, &object.key.namespace)).or_default().push(object);
            }
        }
    }
    let mut found = Vec::new();
    for (name, objects) in by_host.into_iter().filter(|(_, objects)| objects.len() > 1) {
        let names = objects.iter().map(|object| full(object)).collect::<Vec<_>>().join(",");
        let text = format!(
            "The VirtualServices {names} associated with mesh gateway define the same host {name} which can lead to undefined \
             behavior. This can be fixed by merging the conflicting VirtualServices into a single resource."
        );
        let code = Code::ConflictingMeshGatewayVirtualServiceHosts;
        found.extend(objects.iter().map(|object| Message::at(code, object, "spec.hosts", text.clone())));
    }
    found
}

/// Codes and words of a kind of which one object may select a workload.
struct Exclusive {
    plural: &'static str,
    same: Code,
    none: Code,
}

/// Sidecars that select the same workload, or none of them any.
pub fn sidecars(view: &View<'_>) -> Vec<Message> {
    let kind = Exclusive {
        plural: "Sidecars",
        same: Code::ConflictingSidecarWorkloadSelectors,
        none: Code::MultipleSidecarsWithoutWorkloadSelectors,
    };
    let all = view.kind(Kind::Sidecar).filter_map(|object| match &object.spec {
        Spec::Sidecar(spec) => Some((object, spec.workload_selector.as_ref().map(|s| s.match_labels.clone()))),
        _ => None,
    });
    exclusive(view, &kind, all.collect())
}

/// The same for Telemetries.
pub fn telemetries(view: &View<'_>) -> Vec<Message> {
    let kind = Exclusive {
        plural: "Telemetries",
        same: Code::ConflictingTelemetryWorkloadSelectors,
        none: Code::MultipleTelemetriesWithoutWorkloadSelectors,
    };
    let all = view.kind(Kind::Telemetry).filter_map(|object| match &object.spec {
        Spec::Telemetry(spec) => Some((object, spec.selector.as_ref().map(|s| s.match_labels.clone()))),
        _ => None,
    });
    exclusive(view, &kind, all.collect())
}

/// An object with its selector.
type Selecting<'a> = (&'a Object, Option<BTreeMap<String, String>>);

fn exclusive(view: &View<'_>, kind: &Exclusive, all: Vec<Selecting<'_>>) -> Vec<Message> {
    let mut by_namespace: BTreeMap<&str, Vec<Selecting<'_>>> = BTreeMap::new();
    for (object, selector) in all {
        by_namespace.entry(&object.key.namespace).or_default().push((object, selector.filter(|own| !own.is_empty())));
    }
    let mut found = Vec::new();
    for (namespace, objects) in by_namespace {
        let names = |objects: &[&Object]| list(objects.iter().map(|object| object.key.name.to_string()));
        let all: Vec<&Object> = objects.iter().filter(|(_, selector)| selector.is_none()).map(|(o, _)| *o).collect();
        if all.len() > 1 {
            let text = format!(
                "The {} {} in namespace {namespace:?} have no workload selector, which can lead to undefined behavior.",
                kind.plural,
                names(&all)
            );
            found.extend(all.iter().map(|object| Message::at(kind.none, object, "metadata.name", text.clone())));
        }
        let mut by_pod: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
        for (object, selector) in &objects {
            for pod in selector.iter().flat_map(|selector| view.pods(selector, Some(namespace))) {
                by_pod.entry(&pod.key.name).or_default().push(object);
            }
        }
        for (pod, objects) in by_pod.into_iter().filter(|(_, objects)| objects.len() > 1) {
            let text = format!(
                "The {} {} in namespace {namespace:?} select the same workload pod {pod:?}, which can lead to undefined \
                 behavior.",
                kind.plural,
                names(&objects)
            );
            let one = |object: &&Object| Message::at(kind.same, object, "metadata.name", text.clone());
            found.extend(objects.iter().map(one));
        }
    }
    found
}

/// By what a server's certificate is named: a secret, or a file.
fn certificate(server: &proto::istio::gateway::Server) -> Option<&str> {
    let tls = server.tls.as_ref()?;
    [&tls.credential_name, &tls.server_certificate].into_iter().map(String::as_str).find(|name| !name.is_empty())
}

/// Gateways of one selector that serve the same port and host, or show the same certificate.
pub fn gateways(view: &View<'_>) -> Vec<Message> {
    let all = view.gateways();
    let mut found = Vec::new();
    for (object, spec) in &all {
        let others = || all.iter().filter(|(other, own)| other.key != object.key && own.selector == spec.selector);
        let mut same_certificate = BTreeSet::new();
        for (i, server) in spec.servers.iter().enumerate() {
            let port = server.port.as_ref().map_or(0, |port| port.number);
            let certificate = certificate(server);
            for (other, theirs) in others() {
                let meets = |their: &&proto::istio::gateway::Server| {
                    their.port.as_ref().map_or(0, |port| port.number) == port
                        && their.hosts.iter().any(|a| server.hosts.iter().any(|b| host::overlap(bare(a), bare(b))))
                };
                if theirs.servers.iter().any(|their| meets(&their)) {
                    let text = format!(
                        "Conflict with gateways {} (workload selector {}, port {port}, hosts {}).",
                        full(other),
                        shown(&spec.selector),
                        server.hosts.join(","),
                    );
                    let at = format!("spec.servers[{i}].hosts");
                    found.push(Message::at(Code::ConflictingGateways, object, &at, text));
                }
                let shows = |their: &proto::istio::gateway::Server| self::certificate(their) == certificate;
                if certificate.is_some() && theirs.servers.iter().any(shows) {
                    same_certificate.extend([full(object), full(other)]);
                }
            }
        }
        if !same_certificate.is_empty() {
            let text = format!(
                "Duplicate certificate in multiple gateways {} may cause 404s if clients re-use HTTP2 connections.",
                list(same_certificate)
            );
            found.push(Message::at(Code::GatewayDuplicateCertificate, object, "spec.servers", text));
        }
    }
    found
}

/// A host of a server without its namespace.
fn bare(host: &str) -> &str {
    host.split_once('/').map_or(host, |(_, host)| host)
}
