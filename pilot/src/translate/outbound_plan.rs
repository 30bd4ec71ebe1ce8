//! Which outbound listeners a sidecar has.

use super::class::Class;
use super::family::Families;
use crate::model::scope::Egress;
use crate::model::{Mesh, Shared};
use crate::registry::{Protocol, Registry, Service};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A listener to be made: address, port, and the services behind it.
pub type Planned = (String, u16, Vec<Shared<Service>>);

/// Which outbound listeners there are: HTTP ports are shared, TCP ports are per address, what is found out is per
/// service (PR-6, PR-7).
#[derive(Default)]
pub struct OutboundPlan {
    /// Listeners for HTTP.
    pub http: Vec<Planned>,
    /// Listeners for TCP and TLS.
    pub tcp: Vec<Planned>,
    /// Listeners for services whose protocol is found out.
    pub sniffed: Vec<(String, u16, Shared<Service>)>,
}

impl OutboundPlan {
    /// The listeners of an egress of a scope.
    pub fn of(egress: &Egress, class: &Class, mesh: &Mesh) -> Self {
        let mut plan = Self::default();
        let mut shared: BTreeMap<u16, Vec<Shared<Service>>> = BTreeMap::new();
        let mut has_http: HashSet<u16> = HashSet::new();
        let mut tcp: BTreeMap<(String, u16), Vec<Shared<Service>>> = BTreeMap::new();
        let mut sniffed: HashMap<(String, u16), Shared<Service>> = HashMap::new();
        let own = own_address(egress, class);
        let bind = own.unwrap_or_else(|| class.families.wildcard());
        for service in &egress.services {
            let ports = service.ports.iter().filter(|port| egress.port.is_none_or(|(number, _)| port.number == number));
            for port in ports {
                let protocol = egress.port.map_or(port.protocol, |(_, protocol)| protocol);
                if protocol.is_http() || protocol == Protocol::Sniff {
                    shared.entry(port.number).or_default().push(service.clone());
                }
                if protocol.is_http() {
                    has_http.insert(port.number);
                    continue;
                }
                let at_services = || addresses(service, port.number, class, mesh, bind);
                for address in own.map_or_else(at_services, |address| vec![address.to_owned()]) {
                    let key = (address, port.number);
                    if protocol == Protocol::Sniff {
                        if !tcp.contains_key(&key) {
                            sniffed.entry(key).or_insert_with(|| service.clone());
                        }
                    } else if !sniffed.contains_key(&key) {
                        tcp.entry(key).or_default().push(service.clone());
                    }
                }
            }
        }
        // One wildcard listener per port: where HTTP has it, TCP without an address of its own gives way.
        tcp.retain(|(address, port), _| address != bind || !has_http.contains(port));
        sniffed.retain(|(address, port), _| address != bind || !has_http.contains(port));
        plan.http = shared
            .into_iter()
            .filter(|(port, _)| has_http.contains(port))
            .map(|(port, services)| (bind.to_owned(), port, services))
            .collect();
        plan.tcp = tcp.into_iter().map(|((address, port), services)| (address, port, services)).collect();
        plan.sniffed = sniffed.into_iter().map(|((address, port), service)| (address, port, service)).collect();
        plan
    }
}

/// The one address on which an egress listener has all its ports, where there is one: what it says, or the loopback where
/// nothing is captured (SC-3).
fn own_address<'a>(egress: &'a Egress, class: &Class) -> Option<&'a str> {
    let loopback = if class.families == Families::V6 { "::1" } else { "127.0.0.1" };
    match egress.bind.as_str() {
        "" => class.binds(egress).then_some(loopback),
        bind => Some(bind),
    }
}

/// The addresses on which a TCP port listens: the service's own, or those that were chosen for it; of a headless service its endpoints, the proxy's own
/// address left out; else all (PR-6, SE-2).
fn addresses(service: &Service, port: u16, class: &Class, mesh: &Mesh, bind: &str) -> Vec<String> {
    if service.headless {
        let endpoints = mesh.endpoints.get(&service.key).into_iter().flat_map(|set| &set.endpoints);
        let own = |address: &String| class.address.as_ref() == Some(address);
        let mut out: Vec<String> = endpoints
            .filter(|endpoint| endpoint.service_port == port)
            .map(|endpoint| endpoint.address.clone())
            .filter(|address| !own(address))
            .collect();
        out.sort();
        out.dedup();
        return out;
    }
    let allocated: Vec<String> = class.allocated(service).map(|address| address.to_string()).collect();
    if !allocated.is_empty() {
        return allocated;
    }
    let plain: Vec<String> =
        service.addresses.iter().filter(|address| address.parse::<std::net::IpAddr>().is_ok()).cloned().collect();
    if plain.is_empty() && (service.registry == Registry::External || service.addresses.is_empty()) {
        return vec![bind.to_owned()];
    }
    // Networks are told apart by the chains of the listener that all share.
    let networks = service.addresses.iter().any(|address| address.contains('/'));
    plain.into_iter().chain(networks.then(|| bind.to_owned())).collect()
}
