//! References that lead nowhere: hosts without a service, subsets without a rule.
//!
//! A rule that dangles is applied as it is (the cluster is missing, requests get 503 with flag NC: VS-16), unless an
//! earlier version of the same object did not dangle: then that one stays until the reference exists.

use super::gateway::{Gateway, Server};
use super::mesh::Mesh;
use super::virtual_service::{MESH, VirtualService};
use crate::source::{Class, Key, Object, Problem, Store};
use proto::istio::virtual_service::Destination;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

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

/// What of the objects in force has no effect: of VirtualServices gateways that are not there, and hosts of sidecars for whose
/// requests an older rule has routes (VSM-1; for connections all rules count); rules that the older one's namespace keeps to
/// itself are not looked at. Of Gateways servers whose port an older one has for other traffic (GW-17).
pub fn without_effect(store: &Store, mesh: &Mesh) -> BTreeMap<Key, Vec<Problem>> {
    let gateways: HashSet<String> =
        mesh.gateways.iter().map(|gateway| format!("{}/{}", gateway.key.namespace, gateway.key.name)).collect();
    let mut owners: HashMap<&str, &VirtualService> = HashMap::new();
    let mut found = left_out(store, mesh);
    for rule in mesh.virtual_services.iter() {
        let Some(object) = store.get(&rule.key) else { continue };
        let mut problems = Vec::new();
        for (i, bound) in rule.gateways.iter().enumerate() {
            if bound != MESH && !gateways.contains(bound) {
                let message = format!("there is no Gateway {bound}");
                problems.push(object.problem(Class::DanglingReference, format!("spec.gateways[{i}]"), message));
            }
        }
        for (i, host) in rule.hosts.iter().enumerate().filter(|_| rule.routes_requests_of_sidecars()) {
            let owner = *owners.entry(host).or_insert(rule);
            let (mine, its) = (&rule.key.namespace, &owner.key.namespace);
            let default = &mesh.config.virtual_service_export_to;
            if owner.key != rule.key && super::export::visible(&owner.export_to, default, its, mine) {
                let Key { namespace, name, .. } = &owner.key;
                let message = format!(
                    "VirtualService {namespace}/{name} is older and has the host {host} as well: sidecars use that one alone; merge the two"
                );
                problems.push(object.problem(Class::Conflict, format!("spec.hosts[{i}]"), message));
            }
        }
        if !problems.is_empty() {
            found.insert(rule.key.clone(), problems);
        }
    }
    found
}

/// Which workloads serve a Gateway, looked for once for each selector, where it is asked.
struct Served<'a> {
    mesh: &'a Mesh,
    by: HashMap<&'a BTreeMap<String, String>, HashSet<usize>>,
}

impl<'a> Served<'a> {
    /// Whether a workload serves both.
    fn together(&mut self, one: &'a Gateway, other: &'a Gateway) -> bool {
        for gateway in [one, other] {
            self.by.entry(&gateway.selector).or_insert_with(|| {
                let all = self.mesh.workloads.values().enumerate();
                all.filter(|(_, workload)| gateway.selects(&workload.labels)).map(|(at, _)| at).collect()
            });
        }
        one.key == other.key || !self.by[&one.selector].is_disjoint(&self.by[&other.selector])
    }
}

/// The servers of Gateways that are left out where a proxy serves an older one as well (GW-17).
fn left_out(store: &Store, mesh: &Mesh) -> BTreeMap<Key, Vec<Problem>> {
    let mut ports: HashMap<_, Vec<(&Gateway, &Server)>> = HashMap::new();
    let mut found: BTreeMap<Key, Vec<Problem>> = BTreeMap::new();
    let mut served = Served { mesh, by: HashMap::new() };
    for gateway in mesh.gateways.iter() {
        let Some(object) = store.get(&gateway.key) else { continue };
        for (i, server) in gateway.servers.iter().enumerate() {
            let older = ports.entry((server.bind.as_deref(), server.port)).or_default();
            let other =
                older.iter().find(|(its, own)| own.traffic() != server.traffic() && served.together(its, gateway));
            let Some((its, own)) = other else {
                older.push((gateway, server));
                continue;
            };
            let message = format!(
                "port {} is for {} already by Gateway {}: this server for {} is left out; give it another port or bind",
                server.port,
                own.traffic(),
                its.full_name(),
                server.traffic()
            );
            let problem = object.problem(Class::Conflict, format!("spec.servers[{i}].port"), message);
            found.entry(gateway.key.clone()).or_default().push(problem);
        }
    }
    found
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
