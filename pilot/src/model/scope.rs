//! What one workload sees: chosen Sidecar, services and rules per egress listener (SC-1, SC-2, PI-86, PI-89).

use super::export;
use super::mesh::Mesh;
use super::shared::Shared;
use super::sidecar::{Import, Sidecar};
use super::virtual_service::{MESH, VirtualService};
use crate::registry::entry::selects;
use crate::registry::{Protocol, Registry, Service, ServiceKey};
use foldhash::fast::RandomState;
use proto::istio::sidecar::{CaptureMode, OutboundMode};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// What a workload sees through one egress listener.
#[derive(Debug, Clone)]
pub struct Egress {
    /// A port of its own; none: the catch-all.
    pub port: Option<(u16, Protocol)>,
    /// Address to listen on; empty: the default.
    pub bind: String,
    /// How traffic reaches it; the default is the proxy's own mode.
    pub capture: CaptureMode,
    /// Services, oldest first.
    pub services: Vec<Shared<Service>>,
    /// Rules bound to `mesh`, in the order in which they apply.
    pub virtual_services: Vec<Shared<VirtualService>>,
}

/// What one workload sees.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The Sidecar that was chosen.
    pub sidecar: Option<Shared<Sidecar>>,
    /// Its egress listeners.
    pub egress: Vec<Egress>,
    /// Services that only destinations of rules lead to.
    pub extra: Vec<Shared<Service>>,
    /// What becomes of traffic to unknown hosts.
    pub outbound_mode: OutboundMode,
    /// Every service once.
    services: Vec<Shared<Service>>,
    /// Where the first service of a host stands in `services`.
    by_host: HashMap<Arc<str>, usize, RandomState>,
}

impl Scope {
    fn new(
        sidecar: Option<Shared<Sidecar>>,
        egress: Vec<Egress>,
        extra: Vec<Shared<Service>>,
        outbound_mode: OutboundMode,
    ) -> Self {
        let mut scope =
            Self { sidecar, egress, extra, outbound_mode, services: Vec::new(), by_host: HashMap::default() };
        let mut seen: HashSet<&ServiceKey, RandomState> = HashSet::default();
        let all = scope.egress.iter().flat_map(|egress| &egress.services).chain(&scope.extra);
        scope.services = all.filter(|service| seen.insert(&service.key)).cloned().collect();
        for (at, service) in scope.services.iter().enumerate() {
            scope.by_host.entry(service.key.host.clone()).or_insert(at);
        }
        scope
    }

    /// Every service once.
    pub fn services(&self) -> std::slice::Iter<'_, Shared<Service>> {
        self.services.iter()
    }

    /// The service of a host.
    pub fn service(&self, host: &str) -> Option<&Shared<Service>> {
        self.by_host.get(host).and_then(|at| self.services.get(*at))
    }

    /// Whether another one differs in the rules for requests and connections alone.
    pub fn sees_the_same_as(&self, other: &Self) -> bool {
        let same = |(a, b): (&Egress, &Egress)| {
            a.port == b.port && a.bind == b.bind && a.capture == b.capture && a.services == b.services
        };
        self.sidecar == other.sidecar
            && self.outbound_mode == other.outbound_mode
            && self.extra == other.extra
            && self.egress.len() == other.egress.len()
            && self.egress.iter().zip(&other.egress).all(same)
    }
}

/// The Sidecar of a workload: the oldest whose selector matches, the namespace's default, the root namespace's
/// default; gateways have none (PI-89).
pub fn choose<'a>(mesh: &'a Mesh, namespace: &str, labels: &BTreeMap<String, String>) -> Option<&'a Shared<Sidecar>> {
    let own = || mesh.sidecars.iter().filter(|sidecar| &*sidecar.key.namespace == namespace);
    own()
        .find(|sidecar| !sidecar.selector.is_empty() && selects(&sidecar.selector, labels))
        .or_else(|| own().find(|sidecar| sidecar.selector.is_empty()))
        .or_else(|| {
            mesh.sidecars
                .iter()
                .find(|sidecar| *sidecar.key.namespace == mesh.config.root_namespace && sidecar.selector.is_empty())
        })
}

/// The services that a namespace sees, oldest first.
fn visible_services(mesh: &Mesh, namespace: &str) -> Vec<Shared<Service>> {
    let default = &mesh.config.service_export_to;
    let visible =
        |service: &&Shared<Service>| export::visible(&service.export_to, default, &service.key.namespace, namespace);
    mesh.services.iter().filter(visible).cloned().collect()
}

/// One service per host: the namespace's own first, then Kubernetes before ServiceEntry, then the oldest (PI-86).
fn one_per_host(services: impl Iterator<Item = Shared<Service>>, namespace: &str) -> Vec<Shared<Service>> {
    let mut by_host: HashMap<Arc<str>, usize, RandomState> = HashMap::default();
    let mut out: Vec<Shared<Service>> = Vec::new();
    let rank = |service: &Service| (&*service.key.namespace != namespace, service.registry != Registry::Kubernetes);
    for service in services {
        match by_host.get(&service.key.host) {
            None => {
                by_host.insert(service.key.host.clone(), out.len());
                out.push(service);
            }
            Some(&at) if rank(&service) < rank(&out[at]) => out[at] = service,
            Some(_better) => {}
        }
    }
    out
}

/// The rules bound to a gateway (or to `mesh`) that a namespace sees: private ones, then those exported to it, then
/// public ones, each oldest first (VSM-3).
pub fn visible_rules(mesh: &Mesh, namespace: &str, gateway: &str) -> Vec<Shared<VirtualService>> {
    let default = &mesh.config.virtual_service_export_to;
    let class = |rule: &VirtualService| {
        let list = if rule.export_to.is_empty() { default } else { &rule.export_to };
        if list.iter().any(|entry| entry == "*") { 2 } else { usize::from(!export::private(&rule.export_to, default)) }
    };
    let mut rules: Vec<Shared<VirtualService>> = mesh
        .virtual_services
        .iter()
        .filter(|rule| rule.is_bound_to(gateway) && !rule.hosts.is_empty())
        .filter(|rule| export::visible(&rule.export_to, default, &rule.key.namespace, namespace))
        .cloned()
        .collect();
    rules.sort_by_key(|rule| class(rule));
    rules
}

/// What a sidecar with the chosen `sidecar` in `namespace` sees.
pub fn build(mesh: &Mesh, namespace: &str, sidecar: Option<&Shared<Sidecar>>) -> Scope {
    let visible = visible_services(mesh, namespace);
    let services = one_per_host(visible.iter().cloned(), namespace);
    let rules = visible_rules(mesh, namespace, MESH);
    let outbound_mode = sidecar.and_then(|sidecar| sidecar.outbound_mode).unwrap_or(mesh.config.outbound_mode);
    let egress = match sidecar.filter(|sidecar| !sidecar.egress.is_empty()) {
        // Without a Sidecar nothing is bound, whatever the mode of the proxy.
        None => vec![Egress {
            port: None,
            bind: String::new(),
            capture: CaptureMode::Iptables,
            services: services.clone(),
            virtual_services: rules,
        }],
        Some(sidecar) => sidecar.egress.iter().map(|written| import(written, namespace, &visible, &rules)).collect(),
    };
    let extra = if sidecar.is_some() { destinations(mesh, &egress, &services) } else { Vec::new() };
    Scope::new(sidecar.cloned(), egress, extra, outbound_mode)
}

/// What an egress listener of a client in a namespace imports. Of two services with one host the better of those that are
/// imported counts: one that is not does not hide the other.
fn import(
    written: &super::sidecar::Egress,
    client: &str,
    services: &[Shared<Service>],
    rules: &[Shared<VirtualService>],
) -> Egress {
    let admits = |namespace: &str, host: &str| {
        written.hosts.iter().any(|import: &Import| import.admits(client, namespace, host))
    };
    let on_port = |service: &Service| written.port.is_none_or(|(number, _)| service.port(number).is_some());
    let service = |service: &Shared<Service>| {
        if !on_port(service) {
            return None;
        }
        let mut aliases = service.aliases.clone();
        aliases.retain(|alias| admits(&alias.namespace, &alias.host));
        if admits(&service.key.namespace, &service.key.host) {
            if aliases.len() == service.aliases.len() {
                return Some(service.clone());
            }
            return Some(Shared::new(Service { aliases, ..(**service).clone() }));
        }
        None
    };
    Egress {
        port: written.port,
        bind: written.bind.clone(),
        capture: written.capture,
        services: one_per_host(services.iter().filter_map(service), client),
        virtual_services: rules
            .iter()
            .filter(|rule| rule.hosts.iter().any(|host| admits(&rule.key.namespace, host)))
            .cloned()
            .collect(),
    }
}

/// Services that rules of the scope lead to and that the scope does not hold (SC-7); and those that the mesh itself has
/// proxies call, whatever a Sidecar lets the application see.
fn destinations(mesh: &Mesh, egress: &[Egress], services: &[Shared<Service>]) -> Vec<Shared<Service>> {
    let held: HashSet<&str> =
        egress.iter().flat_map(|egress| &egress.services).map(|service| &*service.key.host).collect();
    let own = mesh.config.own_services().map(|(host, _)| host.rsplit('/').next().unwrap_or(host));
    let mut wanted: HashSet<&str> = own.filter(|host| !held.contains(host)).collect();
    for rule in egress.iter().flat_map(|egress| &egress.virtual_services) {
        wanted.extend(
            rule.destinations().map(|destination| destination.host.as_str()).filter(|host| !held.contains(host)),
        );
    }
    services.iter().filter(|service| wanted.contains(&*service.key.host)).cloned().collect()
}

/// What a gateway sees: every visible service, no Sidecar (SC-1).
pub fn of_gateway(mesh: &Mesh, namespace: &str) -> Scope {
    let egress = Egress {
        port: None,
        bind: String::new(),
        capture: CaptureMode::Default,
        services: one_per_host(visible_services(mesh, namespace).into_iter(), namespace),
        virtual_services: Vec::new(),
    };
    Scope::new(None, vec![egress], Vec::new(), OutboundMode::AllowAny)
}
