//! Addresses for hosts of ServiceEntries that have none, so that names tell their connections apart (SE-13, D12).
//!
//! A host's address follows from its name, so that pilots which know nothing of each other choose the same, after a restart
//! too. Two hosts with one number are told apart by age, and what an object's status records stays: the leader writes it
//! there, where Istio's controller looks for it (`status.addresses`).

use super::service::{Registry, Service};
use crate::source::{HostAddress, Key, Object, Spec, Store};
use proto::istio::service_entry::{Resolution, ServiceEntry};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Label of a ServiceEntry; `false`: its hosts get no addresses.
const LABEL: &str = "networking.istio.io/enable-autoallocate-ip";
/// Numbers of hosts: all of 240.240.0.0/16 but its first and its last address.
const NUMBERS: u16 = u16::MAX - 1;

/// Whether hosts of the entry that are no wildcards get addresses. Without a resolution the proxy could not know where a
/// connection was meant to go.
pub fn gives(object: &Object, spec: &ServiceEntry) -> bool {
    let asked = object.meta.labels.get(LABEL).is_none_or(|value| !value.eq_ignore_ascii_case("false"));
    asked && spec.addresses.is_empty() && spec.resolution != Resolution::None
}

/// Gives addresses to the hosts of ServiceEntries that have none; the older of two services chooses first.
pub fn allocate(services: &mut [Service], store: &Store) {
    let mut taken = Taken::default();
    let mut waiting = Vec::new();
    for (at, service) in services.iter_mut().enumerate() {
        let Some(object) = asking(service, store) else { continue };
        let recorded = recorded(object, &service.key.host);
        if !recorded.is_empty() && recorded.iter().all(|address| taken.is_free(*address, &service.key.host)) {
            taken.take(&service.key.host, &recorded);
            service.allocated = recorded;
        } else {
            waiting.push(at);
        }
    }
    for at in waiting {
        if let Some(service) = services.get_mut(at) {
            service.allocated = taken.choose(&service.key.host);
        }
    }
}

/// The addresses that were chosen for the hosts that an object declares, as its status is to record them.
pub fn chosen<'a>(services: impl Iterator<Item = &'a Service>, object: &Key) -> Vec<HostAddress> {
    let own = services.filter(|service| service.declared_by == *object);
    let of_host = |service: &'a Service| {
        let each = service.allocated.iter();
        each.map(|address| HostAddress { host: service.key.host.to_string(), value: address.to_string() })
    };
    own.flat_map(of_host).collect()
}

/// The object of a service that is to get addresses.
fn asking<'a>(service: &Service, store: &'a Store) -> Option<&'a Object> {
    let object = store.get(&service.declared_by)?;
    let Spec::ServiceEntry(spec) = &object.spec else { return None };
    let wanted = service.registry == Registry::External && !service.key.host.starts_with('*') && gives(object, spec);
    wanted.then_some(object)
}

/// The addresses that an object's status has for a host; others than of our networks do not count.
fn recorded(object: &Object, host: &str) -> Vec<IpAddr> {
    let own = |one: &&HostAddress| one.host.eq_ignore_ascii_case(host);
    let parsed = object.recorded.iter().filter(own).filter_map(|one| one.value.parse().ok());
    parsed.filter(|address| is_ours(*address)).collect()
}

/// Whether an address is of 240.240.0.0/16 or 2001:2::/48.
fn is_ours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets(), [240, 240, ..]),
        IpAddr::V6(address) => matches!(address.segments(), [0x2001, 2, 0, ..]),
    }
}

/// The addresses of a number.
fn addresses(number: u16) -> Vec<IpAddr> {
    let [high, low] = number.to_be_bytes();
    vec![Ipv4Addr::new(240, 240, high, low).into(), Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, number).into()]
}

/// Who has which address.
#[derive(Default)]
struct Taken {
    hosts: HashMap<IpAddr, Arc<str>>,
    chosen: HashMap<Arc<str>, Vec<IpAddr>>,
}

impl Taken {
    fn is_free(&self, address: IpAddr, host: &Arc<str>) -> bool {
        self.hosts.get(&address).is_none_or(|holder| holder == host)
    }

    fn take(&mut self, host: &Arc<str>, addresses: &[IpAddr]) {
        self.hosts.extend(addresses.iter().map(|address| (*address, host.clone())));
        self.chosen.entry(host.clone()).or_insert_with(|| addresses.to_vec());
    }

    /// The addresses of a host: those that another entry of the same host has, else those of its number, else of the next
    /// that is free; none where no number is.
    fn choose(&mut self, host: &Arc<str>) -> Vec<IpAddr> {
        if let Some(same) = self.chosen.get(host) {
            return same.clone();
        }
        let first = number(host);
        for step in 0..NUMBERS {
            let number = u16::try_from((u32::from(first) + u32::from(step)) % u32::from(NUMBERS)).unwrap_or(0) + 1;
            let addresses = addresses(number);
            if addresses.iter().all(|address| self.is_free(*address, host)) {
                self.take(host, &addresses);
                return addresses;
            }
        }
        Vec::new()
    }
}

/// FNV-1a of the name: the same in each version of pilot and of Rust, as addresses outlive both.
fn number(host: &str) -> u16 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = host.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    u16::try_from(hash % u64::from(NUMBERS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;
    use crate::source::memory;

    fn entry(name: &str, more: &str) -> String {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: n}}\nspec: \
             {{hosts: [{name}.example], resolution: DNS, ports: [{{number: 1, name: tcp, protocol: TCP}}]}}\n{more}---\n"
        )
    }

    fn given_to(texts: &[String]) -> HashMap<String, Vec<IpAddr>> {
        let mut store = Store::default();
        for object in memory::parse(&texts.concat(), None).objects {
            store.insert(object);
        }
        let (domain, cluster, trust_domains) = ("d".to_owned(), "c".to_owned(), vec!["td".to_owned()]);
        let settings = registry::Settings { domain, cluster, trust_domains, autoallocate: true };
        let services = registry::services(&store, &settings);
        services.into_iter().map(|service| (service.key.host.to_string(), service.allocated)).collect()
    }

    fn status(host: &str, address: &str) -> String {
        format!("status: {{addresses: [{{host: {host}, value: {address}}}]}}\n")
    }

    // spec: SE-13, D12
    #[test]
    fn addresses_are_the_same_in_whatever_order_and_company_hosts_come() {
        let all: Vec<String> = (0..2000).map(|i| entry(&format!("h{i}"), "")).collect();
        let given = given_to(&all);
        let distinct: std::collections::HashSet<&IpAddr> = given.values().flatten().collect();
        assert_eq!(distinct.len(), 4000, "no two hosts share one");
        assert!(given.values().flatten().all(|address| is_ours(*address)));
        let reversed: Vec<String> = all.iter().rev().cloned().collect();
        assert_eq!(given_to(&reversed), given);
        let alone = ["db.example".to_owned(), "other.example".to_owned()].map(|host| addresses(number(&host) + 1));
        let names = [entry("db", ""), entry("other", "")];
        let both = given_to(&names);
        assert_eq!([&both["db.example"], &both["other.example"]], [&alone[0], &alone[1]]);
        let text = |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(&alone[0]), ["240.240.117.42", "2001:2::752a"], "as ever: clients may hold it");
    }

    // spec: SE-13
    #[test]
    fn what_a_status_records_stays_and_gives_way_to_nothing_but_an_older_object() {
        let own = "240.240.9.9".parse::<IpAddr>().unwrap();
        let given = given_to(&[
            entry("a", &status("a.example", "240.240.9.9")),
            entry("b", &status("b.example", "240.240.9.9")),
        ]);
        assert_eq!(given["a.example"], [own]);
        assert_eq!(given["b.example"], addresses(number("b.example") + 1), "the second of two holders chooses anew");
        let foreign = given_to(&[entry("a", &status("a.example", "10.0.0.1"))]);
        assert_eq!(foreign["a.example"], addresses(number("a.example") + 1), "not of our networks");
        let plain = addresses(number("a.example") + 1);
        let pushed = given_to(&[entry("a", ""), entry("b", &status("b.example", &plain[0].to_string()))]);
        assert_eq!(
            (&pushed["b.example"][..], &pushed["a.example"]),
            (&plain[..1], &addresses(number("a.example") + 2))
        );
    }

    // spec: SE-13
    #[test]
    fn who_has_addresses_or_wants_none_or_could_not_use_them_gets_none() {
        let entry = |labels: &str, spec: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e, labels: {{{labels}}}}}\nspec: {{ports: \
                 [{{number: 1, name: tcp, protocol: TCP}}], {spec}}}\n"
            )
        };
        let count = |labels: &str, spec: &str| given_to(&[entry(labels, spec)]).values().map(Vec::len).sum::<usize>();
        assert_eq!(count("", "hosts: [a.example, b.example], resolution: STATIC"), 4);
        assert_eq!(count("", "hosts: [a.example], resolution: DNS, addresses: [192.0.2.1]"), 0);
        assert_eq!(count("", "hosts: [a.example], resolution: NONE"), 0);
        assert_eq!(count("", "hosts: ['*.example'], resolution: NONE"), 0);
        assert_eq!(
            count("networking.istio.io/enable-autoallocate-ip: 'False'", "hosts: [a.example], resolution: DNS"),
            0
        );
        assert_eq!(
            count("networking.istio.io/enable-autoallocate-ip: 'true'", "hosts: [a.example], resolution: DNS"),
            2
        );
    }
}
