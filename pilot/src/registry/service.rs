//! A service: a host name with ports, and how its addresses are found (PI-14).

use super::Settings;
use super::endpoint::{LABEL_NETWORK, LABEL_NODE, LABEL_REGION, LABEL_SUB_ZONE, LABEL_ZONE};
use super::protocol::Protocol;
use crate::source::{Key, Kind, Object, Spec, Store};
use proto::istio::core::ServiceSpec;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The name of a service: the host and the namespace that declares it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct ServiceKey {
    /// Host name.
    pub host: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.host)
    }
}

/// Who declares a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Registry {
    /// A Kubernetes Service.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

/// How a client finds addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Resolution {
    /// The control plane sends endpoints.
    Endpoints,
    /// The client's own destination address is used.
    Passthrough,
    /// The proxy asks DNS; all answers are endpoints.
    Dns,
    /// The proxy asks DNS; the first answer is the endpoint.
    DnsRoundRobin,
}

/// Which endpoints are asked first (DR-19).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Distribution {
    /// Nothing is said: the mesh's own order.
    #[default]
    Any,
    /// Those of the client's zone, then of its region, then all.
    SameZone,
    /// Those of the client's node, then as with [`Self::SameZone`].
    SameNode,
}

impl Distribution {
    /// What a Service or a ServiceEntry says: its field before its annotation; a text of later times means nothing.
    pub(super) fn of(field: Option<&str>, object: &Object) -> Self {
        let annotation = object.meta.annotations.get(proto::wire::ANNOTATION_TRAFFIC_DISTRIBUTION).map(String::as_str);
        match field.or(annotation) {
            Some("PreferSameZone" | "PreferClose") => Self::SameZone,
            Some("PreferSameNode") => Self::SameNode,
            _ => Self::Any,
        }
    }

    /// The labels that an endpoint shares with its client, the first ones first.
    pub fn order(self) -> &'static [&'static str] {
        const ORDER: [&str; 5] = [LABEL_NETWORK, LABEL_REGION, LABEL_ZONE, LABEL_SUB_ZONE, LABEL_NODE];
        match self {
            Self::Any => &[],
            Self::SameZone => &ORDER[..3],
            Self::SameNode => &ORDER,
        }
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// The port at the endpoints, where the declaration says so by number.
    pub target: Option<u16>,
    /// The name of that port, where the declaration gives a name.
    pub target_name: Option<String>,
    /// What it speaks.
    pub protocol: Protocol,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Service {
    /// Host and namespace.
    pub key: ServiceKey,
    /// Its short name.
    pub name: String,
    /// Its ports, UDP left out (PR-4).
    pub ports: Vec<Port>,
    /// Virtual addresses.
    pub addresses: Vec<String>,
    /// Virtual addresses that pilot has chosen, as the object has none: for proxies that answer DNS (SE-13).
    pub allocated: Vec<std::net::IpAddr>,
    /// How addresses are found.
    pub resolution: Resolution,
    /// Who declares it.
    pub registry: Registry,
    /// Outside of the mesh: no mesh mTLS (SE-4).
    pub external: bool,
    /// A headless Kubernetes service.
    pub headless: bool,
    /// Which endpoints are asked first.
    pub distribution: Distribution,
    /// Whether clients are led to endpoints of their own node alone (`internalTrafficPolicy: Local`).
    pub node_local: bool,
    /// Who may see it: the texts of the exportTo rule.
    pub export_to: Vec<String>,
    /// Selector of its workloads.
    pub selector: BTreeMap<String, String>,
    /// Names expected in the server's certificate (ServiceEntry).
    pub subject_alt_names: Vec<String>,
    /// ExternalName services that lead here (PI-18).
    pub aliases: Vec<ServiceKey>,
    /// The object that declares it.
    pub declared_by: Key,
    /// Younger ServiceEntries of the same host that add ports to it (PI-86).
    pub added_by: Vec<Key>,
}

impl Service {
    /// Takes in the ports that a younger ServiceEntry adds, where both say the same of everything else; its endpoints then
    /// count beside the older one's, on ports that both have as well.
    pub fn absorb(&mut self, younger: Self) {
        let same = self.registry == Registry::External
            && younger.registry == Registry::External
            && self.resolution == younger.resolution
            && self.external == younger.external
            && self.selector == younger.selector
            && self.export_to == younger.export_to;
        if !same {
            return;
        }
        for port in younger.ports {
            if self.port(port.number).is_none() {
                self.ports.push(port);
            }
        }
        self.added_by.push(younger.declared_by);
    }

    /// The objects that declare it.
    pub fn declared(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.declared_by).chain(&self.added_by)
    }

    /// The port of a number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// `name.namespace.svc.domain`.
pub fn kubernetes_host(name: &str, namespace: &str, domain: &str) -> Arc<str> {
    format!("{name}.{namespace}.svc.{domain}").into()
}

/// The service of a Kubernetes Service; none for ExternalName, which is an alias.
pub fn from_kubernetes(object: &Object, spec: &ServiceSpec, settings: &Settings) -> Option<Service> {
    if spec.service_type.as_deref() == Some("ExternalName") {
        return None;
    }
    let namespace = &object.key.namespace;
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let mut addresses: Vec<String> = spec.cluster_ip.iter().chain(&spec.cluster_ips).cloned().collect();
    addresses.retain(|address| address != "None" && !address.is_empty());
    addresses.dedup();
    let ports = spec.ports.iter().map(|port| {
        let name = port.name.clone().unwrap_or_default();
        let transport = port.protocol.as_deref().unwrap_or("TCP");
        let protocol = Protocol::of_port(port.port, &name, transport, port.app_protocol.as_deref());
        let (target, target_name) = match &port.target_port {
            Some(proto::istio::core::IntOrString::Number(number)) => (Some(*number), None),
            Some(proto::istio::core::IntOrString::Name(name)) => (None, Some(name.clone())),
            None => (Some(port.port), None),
        };
        Port { name, number: port.port, target, target_name, protocol }
    });
    let exported = object.meta.annotations.get(proto::wire::ANNOTATION_EXPORT_TO);
    Some(Service {
        key: ServiceKey {
            host: kubernetes_host(&object.key.name, namespace, &settings.domain),
            namespace: namespace.clone(),
        },
        name: object.key.name.to_string(),
        ports: ports.filter(|port| port.protocol != Protocol::Udp).collect(),
        addresses,
        allocated: Vec::new(),
        resolution: if headless { Resolution::Passthrough } else { Resolution::Endpoints },
        registry: Registry::Kubernetes,
        external: false,
        headless,
        distribution: Distribution::of(spec.traffic_distribution.as_deref(), object),
        node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        export_to: exported
            .map(|list| list.split(',').map(|part| part.trim().to_owned()).collect())
            .unwrap_or_default(),
        selector: spec.selector.clone(),
        subject_alt_names: Vec::new(),
        aliases: Vec::new(),
        declared_by: object.key.clone(),
        added_by: Vec::new(),
    })
}

/// Gives every service the ExternalName services that lead to it, chains followed, circles left out (PI-18).
pub fn add_aliases(services: &mut [Service], store: &Store, settings: &Settings) {
    let mut targets: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    let mut aliases = Vec::new();
    for object in store.of_kind(Kind::Service) {
        let Spec::Service(spec) = &object.spec else { continue };
        let Some(target) =
            spec.external_name.as_deref().filter(|_| spec.service_type.as_deref() == Some("ExternalName"))
        else {
            continue;
        };
        let host = kubernetes_host(&object.key.name, &object.key.namespace, &settings.domain);
        targets.insert(host.clone(), target.into());
        aliases.push(ServiceKey { host, namespace: object.key.namespace.clone() });
    }
    for alias in aliases {
        let mut at = &alias.host;
        for _ in 0..=targets.len() {
            match targets.get(at) {
                Some(next) => at = next,
                None => break,
            }
        }
        let target = at.clone();
        for service in services.iter_mut().filter(|service| service.key.host == target) {
            service.aliases.push(alias.clone());
        }
    }
}
