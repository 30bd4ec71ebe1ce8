//! References to services, subsets and gateways.

use super::code::Code;
use super::message::Message;
use super::view::{Of, View, list};
use pilot::model::host;
use pilot::model::secret::Lack;
use pilot::registry::Service;
use pilot::source::Kind;
use proto::istio::gateway::Gateway;
use proto::istio::virtual_service::{Destination, VirtualService};
use std::collections::BTreeSet;

/// The gateway of sidecars.
const MESH: &str = "mesh";

/// Every destination of a VirtualService, with its field.
fn destinations<'a>(spec: &'a VirtualService) -> Vec<(String, &'a Destination)> {
    let mut found: Vec<(String, &'a Destination)> = Vec::new();
    let mut add = |at: String, to: Option<&'a Destination>| found.extend(to.map(|to| (at, to)));
    for (i, route) in spec.http.iter().enumerate() {
        for (j, to) in route.route.iter().enumerate() {
            add(format!("spec.http[{i}].route[{j}].destination"), to.destination.as_ref());
        }
        add(format!("spec.http[{i}].mirror"), route.mirror.as_ref());
        for (j, to) in route.mirrors.iter().enumerate() {
            add(format!("spec.http[{i}].mirrors[{j}].destination"), to.destination.as_ref());
        }
    }
    let tls = spec.tls.iter().enumerate().map(|(i, route)| (format!("spec.tls[{i}]"), &route.route));
    let tcp = spec.tcp.iter().enumerate().map(|(i, route)| (format!("spec.tcp[{i}]"), &route.route));
    for (at, routes) in tls.chain(tcp) {
        for (j, to) in routes.iter().enumerate() {
            add(format!("{at}.route[{j}].destination"), to.destination.as_ref());
        }
    }
    found
}

fn missing(what: &str, value: &str) -> String {
    format!("Referenced {what} not found: {value:?}")
}

/// Destinations without a service, without that port, or that must say a port.
pub fn hosts(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    for (object, spec) in view.virtual_services() {
        for (at, to) in destinations(spec) {
            let Some(service) = view.service(&view.resolve(&to.host, &object.key.namespace)) else {
                let text = missing("host", &to.host);
                found.push(Message::at(Code::ReferencedResourceNotFound, object, &format!("{at}.host"), text));
                continue;
            };
            found.extend(port(service, to).map(|(code, text)| Message::at(code, object, &format!("{at}.host"), text)));
        }
    }
    found
}

fn port(service: &Service, to: &Destination) -> Option<(Code, String)> {
    match &to.port {
        Some(port) if service.ports.iter().any(|own| u32::from(own.number) == port.number) => None,
        Some(port) => {
            Some((Code::ReferencedResourceNotFound, missing("host:port", &format!("{}:{}", to.host, port.number))))
        }
        None if service.ports.len() > 1 => Some((
            Code::VirtualServiceDestinationPortSelectorRequired,
            format!(
                "This VirtualService routes to a service {:?} that exposes multiple ports {}. Specifying a port in the \
                 destination is required to disambiguate.",
                to.host,
                list(service.ports.iter().map(|port| port.number)),
            ),
        )),
        None => None,
    }
}

/// Subsets that no DestinationRule of the host defines.
pub fn subsets(view: &View<'_>) -> Vec<Message> {
    let defined = |name: &str, subset: &str| {
        view.rules().into_iter().any(|(object, rule)| {
            host::covers(&view.resolve(&rule.host, &object.key.namespace), name)
                && rule.subsets.iter().any(|own| own.name == subset)
        })
    };
    let mut found = Vec::new();
    for (object, spec) in view.virtual_services() {
        for (at, to) in destinations(spec).into_iter().filter(|(_, to)| !to.subset.is_empty()) {
            if !defined(&view.resolve(&to.host, &object.key.namespace), &to.subset) {
                let text = missing("host+subset in destinationrule", &format!("{}+{}", to.host, to.subset));
                found.push(Message::at(Code::ReferencedResourceNotFound, object, &format!("{at}.subset"), text));
            }
        }
    }
    found
}

/// Gateways that a VirtualService names: absent, or without its hosts.
pub fn gateways(view: &View<'_>) -> Vec<Message> {
    let all = view.gateways();
    let mut found = Vec::new();
    for (object, spec) in view.virtual_services() {
        for (i, name) in spec.gateways.iter().enumerate().filter(|(_, name)| *name != MESH) {
            let at = format!("spec.gateways[{i}]");
            let (namespace, short) = name.split_once('/').unwrap_or((&object.key.namespace, name));
            let own =
                |(gateway, _): &&Of<'_, Gateway>| *gateway.key.namespace == *namespace && *gateway.key.name == *short;
            let Some((gateway, content)) = all.iter().find(own) else {
                found.push(Message::at(Code::ReferencedResourceNotFound, object, &at, missing("gateway", name)));
                continue;
            };
            let served = |wanted: &String| {
                let hosts = content.servers.iter().flat_map(|server| &server.hosts);
                hosts
                    .map(|own| own.split_once('/').map_or(own.as_str(), |(_, own)| own))
                    .any(|own| host::overlap(own, wanted))
            };
            if !spec.hosts.iter().any(served) {
                let text = format!(
                    "one or more host {} defined in VirtualService {}/{} not found in Gateway {}/{}.",
                    list(&spec.hosts),
                    object.key.namespace,
                    object.key.name,
                    gateway.key.namespace,
                    gateway.key.name,
                );
                found.push(Message::at(Code::VirtualServiceHostNotFoundInGateway, object, "spec.hosts", text));
            }
        }
    }
    found
}

/// Credentials of Gateways that are absent or broken in the namespaces of the pods that serve them.
pub fn secrets(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    let mesh = &view.offline.mesh;
    for object in view.kind(Kind::Gateway) {
        let Some(gateway) = mesh.gateways.iter().find(|gateway| gateway.key == object.key) else { continue };
        let pods = view.pods(&gateway.selector, None);
        let namespaces: BTreeSet<&str> = pods.iter().map(|pod| &*pod.key.namespace).collect();
        for (field, name) in gateway.secrets() {
            for lack in namespaces.iter().filter_map(|namespace| mesh.secrets.lack(name, namespace)) {
                let (code, text) = match &lack {
                    Lack::Missing(why) => {
                        let short = name.trim_start_matches("kubernetes://");
                        (Code::ReferencedResourceNotFound, format!("{}: {why}", missing("credentialName", short)))
                    }
                    Lack::Broken(why) => (
                        Code::InvalidGatewayCredential,
                        format!(
                            "The credential referenced by the Gateway {} in namespace {} is not valid, which can cause the \
                             traffic not to work as expected: {why}",
                            object.key.name, object.key.namespace
                        ),
                    ),
                };
                found.push(Message::at(code, object, &field, text));
            }
        }
    }
    found
}

/// DestinationRules for hosts that no service has.
pub fn rules(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    for (object, rule) in view.rules() {
        let name = view.resolve(&rule.host, &object.key.namespace);
        let known = view.service(&name).is_some()
            || view.offline.mesh.services.iter().any(|service| host::covers(&name, &service.key.host));
        if !known {
            let text = format!(
                "The host {} defined in the DestinationRule does not match any services in the mesh.",
                rule.host
            );
            found.push(Message::at(Code::UnknownDestinationRuleHost, object, "spec.host", text));
        }
    }
    found
}
