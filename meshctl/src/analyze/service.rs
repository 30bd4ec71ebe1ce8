//! Ports of services, ServiceEntries and Gateways.

use super::code::Code;
use super::message::Message;
use super::view::{View, full, shown};
use pilot::registry::Protocol;
use pilot::registry::entry::selects;
use pilot::source::{Kind, Object, Spec};
use proto::istio::core::{IntOrString, ServicePort, ServiceSpec};
use std::collections::{BTreeMap, BTreeSet};

/// `exportTo` of what all namespaces see.
const EVERYWHERE: &str = "*";

/// Ports whose name says no protocol, and names that an ExternalName service must not have.
pub fn port_names(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    for object in view.kind(Kind::Service).filter(|object| !object.key.namespace.starts_with("kube-")) {
        let Spec::Service(spec) = &object.spec else { continue };
        let external = spec.service_type.as_deref() == Some("ExternalName");
        for (i, port) in spec.ports.iter().enumerate() {
            let at = format!("spec.ports[{i}]");
            let name = port.name.as_deref().unwrap_or_default();
            let transport = port.protocol.as_deref().unwrap_or("TCP");
            let protocol = Protocol::of_port(port.port, name, transport, port.app_protocol.as_deref());
            if external && matches!(protocol, Protocol::Sniff | Protocol::Tcp) {
                let text = "Port name for ExternalName service is invalid. Proxy may prevent tcp named ports and unmatched \
                            traffic for ports serving TCP protocol from being forwarded correctly";
                found.push(Message::at(Code::ExternalNameServiceTypeInvalidPortName, object, &at, text));
            } else if protocol == Protocol::Sniff {
                let text = format!(
                    "Port name {name} (port: {}, targetPort: {}) doesn't follow the naming convention of Istio port.",
                    port.port,
                    target(port)
                );
                found.push(Message::at(Code::PortNameIsNotUnderNamingConvention, object, &at, text));
            }
        }
    }
    found
}

/// Port of the pod that a port of a service leads to: number or name.
pub fn target(port: &ServicePort) -> String {
    match &port.target_port {
        Some(IntOrString::Number(number)) => number.to_string(),
        Some(IntOrString::Name(name)) => name.clone(),
        None => port.port.to_string(),
    }
}

/// A ServiceEntry and the protocol that it gives a port.
type Entry<'a> = (&'a Object, String);

/// ServiceEntries that give a port of a host two protocols in the same namespaces.
pub fn protocols(view: &View<'_>) -> Vec<Message> {
    let mut index: BTreeMap<(&str, &str, u32), Vec<Entry<'_>>> = BTreeMap::new();
    for object in view.kind(Kind::ServiceEntry) {
        let Spec::ServiceEntry(spec) = &object.spec else { continue };
        let everywhere = spec.export_to.is_empty() || spec.export_to.iter().any(|to| to == EVERYWHERE);
        let own = spec.export_to.iter().map(|to| if to == "." { &*object.key.namespace } else { to.as_str() });
        let scopes: BTreeSet<&str> = if everywhere { [EVERYWHERE].into() } else { own.collect() };
        for scope in scopes {
            for (host, port) in spec.hosts.iter().flat_map(|host| spec.ports.iter().map(move |port| (host, port))) {
                let entries = index.entry((scope, host, port.number)).or_default();
                entries.push((object, port.protocol.to_ascii_uppercase()));
            }
        }
    }
    let (mut found, mut told) = (Vec::new(), BTreeSet::new());
    for ((scope, host, port), entries) in &index {
        let public = index.get(&(EVERYWHERE, *host, *port)).filter(|_| *scope != EVERYWHERE);
        let all: Vec<&Entry<'_>> = entries.iter().chain(public.into_iter().flatten()).collect();
        let protocols: BTreeSet<&str> = all.iter().map(|(_, protocol)| protocol.as_str()).collect();
        if protocols.len() < 2 {
            continue;
        }
        let names: BTreeSet<String> = all.iter().map(|(object, _)| full(object)).collect();
        let text = format!(
            "Multiple ServiceEntries ({}) define the same host {host:?} and port {port} with conflicting protocols ({}).",
            names.into_iter().collect::<Vec<_>>().join(", "),
            protocols.into_iter().collect::<Vec<_>>().join(", "),
        );
        let new = all.iter().filter(|(object, _)| told.insert(&object.key));
        let code = Code::ConflictingServiceEntryProtocol;
        found.extend(new.map(|(object, _)| Message::at(code, object, "metadata.name", text.clone())));
    }
    found
}

/// Gateways that select no pod, or listen where no Service of their pods leads.
pub fn gateways(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    for (object, spec) in view.gateways().into_iter().filter(|(_, spec)| !spec.selector.is_empty()) {
        let pods = view.pods(&spec.selector, None);
        if pods.is_empty() {
            let text = format!("Referenced selector not found: {:?}", shown(&spec.selector));
            found.push(Message::at(Code::ReferencedResourceNotFound, object, "spec.selector", text));
            continue;
        }
        let services: Vec<&ServiceSpec> = view.kind(Kind::Service).filter_map(|own| before(own, &pods)).collect();
        // Without a Service there is nothing that could lack the port.
        for (i, server) in spec.servers.iter().enumerate().filter(|_| !services.is_empty()) {
            let Some(port) = server.port.as_ref() else { continue };
            let leads =
                |own: &ServicePort| u32::from(own.port) == port.number || target(own) == port.number.to_string();
            if !services.iter().flat_map(|service| &service.ports).any(leads) {
                let text = format!(
                    "The gateway is listening on a target port (port {}) that is not defined in the Service associated with \
                     its workload instances (Pod selector {}). If you need to access the gateway port through the gateway \
                     Service, it will not be available.",
                    port.number,
                    shown(&spec.selector)
                );
                let at = format!("spec.servers[{i}].port");
                found.push(Message::at(Code::GatewayPortNotDefinedOnService, object, &at, text));
            }
        }
    }
    found
}

/// The content of a Service that selects one of the pods.
fn before<'a>(service: &'a Object, pods: &[&Object]) -> Option<&'a ServiceSpec> {
    let Spec::Service(spec) = &service.spec else { return None };
    let fits = |labels: &BTreeMap<String, String>| !spec.selector.is_empty() && selects(&spec.selector, labels);
    let any = pods.iter().any(|pod| pod.key.namespace == service.key.namespace && fits(&pod.meta.labels));
    any.then_some(&**spec)
}
