//! The names of the mesh as one pod sees them: short forms, search domains, wildcards (spec DN-1, DN-2).

use foldhash::{HashMap, HashMapExt};
use proto::missing::{NameInfo, NameTable};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Registry of names that have short forms.
const KUBERNETES: &str = "Kubernetes";

/// From where names are looked at: short forms differ by namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Viewpoint {
    /// Namespace of the pod.
    pub namespace: String,
    /// Domain of services, such as `svc.cluster.local`.
    pub service_domain: String,
    /// Search list of the pod's resolv.conf.
    pub search: Vec<String>,
}

/// Names in lower case without the trailing dot → addresses. Immutable; a new table makes a new one.
#[derive(Debug, Default)]
pub struct Names {
    hosts: HashMap<Box<str>, Arc<Addresses>>,
    /// First entry of the search list: a resolver tries `<name>.<search>` before `<name>`.
    search: Option<Box<str>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Addresses {
    v4: Vec<Ipv4Addr>,
    v6: Vec<Ipv6Addr>,
}

/// What the table says about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The name that has the addresses, where the question had a search domain appended.
    pub canonical: Option<&'a str>,
    /// IPv4 addresses.
    pub v4: &'a [Ipv4Addr],
    /// IPv6 addresses.
    pub v6: &'a [Ipv6Addr],
}

impl Names {
    /// Reads a table. Addresses that do not parse are left out, and so are names without any.
    pub fn new(table: &NameTable, view: &Viewpoint) -> Self {
        let search = view.search.first().map(|s| s.trim_matches('.').to_ascii_lowercase().into_boxed_str());
        let mut names = Self { hosts: HashMap::with_capacity(table.table.len()), search };
        for (host, info) in &table.table {
            let addresses = Addresses::read(info);
            if addresses == Addresses::default() {
                continue;
            }
            let addresses = Arc::new(addresses);
            for name in forms(host, info, view) {
                names.hosts.insert(name.into_boxed_str(), Arc::clone(&addresses));
            }
        }
        names
    }

    /// How many names are known, short forms included.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether no name is known.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Looks up a name in lower case without the trailing dot. Exact names win, then the search domain is taken off,
    /// then wildcards are tried, the longest first.
    pub fn lookup<'a>(&'a self, name: &'a str) -> Option<Answer<'a>> {
        let answer = |found: &'a Arc<Addresses>, canonical| Answer { canonical, v4: &found.v4, v6: &found.v6 };
        if let Some(found) = self.hosts.get(name) {
            return Some(answer(found, None));
        }
        let shorter = self.search.as_deref().and_then(|s| name.strip_suffix(s)?.strip_suffix('.'));
        if let Some(shorter) = shorter {
            if let Some(found) = self.hosts.get(shorter) {
                return Some(answer(found, Some(shorter)));
            }
            if let Some(found) = self.wildcard(shorter) {
                return Some(answer(found, Some(shorter)));
            }
        }
        Some(answer(self.wildcard(name)?, None))
    }

    fn wildcard(&self, name: &str) -> Option<&Arc<Addresses>> {
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(found) = self.hosts.get(format!("*.{parent}").as_str()) {
                return Some(found);
            }
            rest = parent;
        }
        None
    }
}

impl Addresses {
    fn read(info: &NameInfo) -> Self {
        let mut addresses = Self::default();
        for address in info.ips.iter().filter_map(|text| text.parse().ok()) {
            match address {
                IpAddr::V4(v4) => addresses.v4.push(v4),
                IpAddr::V6(v6) => addresses.v6.push(v6),
            }
        }
        addresses
    }
}

/// All names of a host: of a service of Kubernetes also `name`, `name.ns`, `name.ns.svc` and so on, as far as they are
/// unambiguous from here.
fn forms(host: &str, info: &NameInfo, view: &Viewpoint) -> Vec<String> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let domain = view.service_domain.trim_matches('.').to_ascii_lowercase();
    let local = !domain.is_empty() && host.ends_with(&domain);
    if info.registry != KUBERNETES || !local || info.shortname.is_empty() {
        return vec![host];
    }
    let mut name = format!("{}.{}", info.shortname, info.namespace).to_ascii_lowercase();
    let mut forms = vec![host];
    if info.namespace == view.namespace {
        forms.push(info.shortname.to_ascii_lowercase());
    }
    forms.push(name.clone());
    for label in domain.split('.') {
        name.push('.');
        name.push_str(label);
        forms.push(name.clone());
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(registry: &str, name: &str, namespace: &str, ips: &[&str]) -> NameInfo {
        NameInfo {
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            registry: registry.to_owned(),
            shortname: name.to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    fn names() -> Names {
        let table = [
            ("reviews.shop.svc.cluster.local", info(KUBERNETES, "reviews", "shop", &["10.0.0.1", "fd00::1"])),
            ("ratings.other.svc.cluster.local", info(KUBERNETES, "ratings", "other", &["10.0.0.2"])),
            ("reviews-0.reviews.shop.svc.cluster.local", info(KUBERNETES, "reviews-0.reviews", "shop", &["10.0.0.9"])),
            ("api.example.com", info("External", "api", "", &["240.240.0.1", "junk"])),
            ("*.wild.example", info("External", "", "", &["240.240.0.2"])),
            ("*.deep.wild.example", info("External", "", "", &["240.240.0.3"])),
            ("empty.example", info("External", "", "", &["junk"])),
        ];
        let table = NameTable { table: table.into_iter().map(|(host, info)| (host.to_owned(), info)).collect() };
        let view = Viewpoint {
            namespace: "shop".into(),
            service_domain: "svc.cluster.local".into(),
            search: vec!["shop.svc.cluster.local".into(), "svc.cluster.local".into()],
        };
        Names::new(&table, &view)
    }

    // spec: DN-1, DN-2
    #[test]
    fn short_forms_depend_on_the_namespace() {
        let names = names();
        for name in [
            "reviews",
            "reviews.shop",
            "reviews.shop.svc",
            "reviews.shop.svc.cluster",
            "reviews.shop.svc.cluster.local",
        ] {
            let answer = names.lookup(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((answer.v4[0].to_string(), answer.v6[0].to_string()), ("10.0.0.1".into(), "fd00::1".into()));
        }
        assert_eq!(names.lookup("ratings"), None, "another namespace");
        assert!(names.lookup("ratings.other").is_some());
        assert!(names.lookup("reviews-0.reviews").is_some(), "a pod of a headless service");
        assert_eq!(names.lookup("empty.example"), None);
    }

    // spec: DN-2
    #[test]
    fn a_search_domain_is_taken_off_again() {
        let names = names();
        let answer = names.lookup("api.example.com.shop.svc.cluster.local").unwrap();
        assert_eq!((answer.canonical, answer.v4[0].to_string()), (Some("api.example.com"), "240.240.0.1".into()));
        assert_eq!(names.lookup("reviews.shop.svc.cluster.local").unwrap().canonical, None);
        assert_eq!(names.lookup("api.example.com.svc.cluster.local"), None, "only the first of the list is emulated");
    }

    // spec: DN-2
    #[test]
    fn the_longest_wildcard_wins() {
        let names = names();
        assert_eq!(names.lookup("a.wild.example").unwrap().v4[0].to_string(), "240.240.0.2");
        assert_eq!(names.lookup("a.deep.wild.example").unwrap().v4[0].to_string(), "240.240.0.3");
        assert_eq!(names.lookup("wild.example"), None);
        let searched = names.lookup("a.wild.example.shop.svc.cluster.local").unwrap();
        assert_eq!(searched.canonical, Some("a.wild.example"));
    }

    // spec: DN-3
    #[test]
    fn allocated_addresses_keep_tcp_services_apart() {
        let names = names();
        let (api, wild) = (names.lookup("api.example.com").unwrap(), names.lookup("x.wild.example").unwrap());
        assert_ne!(api.v4, wild.v4);
    }
}
