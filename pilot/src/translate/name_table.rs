//! The names that a proxy's DNS answers (DN-1, DN-2).

use super::inputs::{NameTableInput, Named};
use crate::registry::{Endpoint, Health, Registry};
use proto::missing::{NameInfo, NameTable};

/// Virtual addresses of services; of headless ones the ready endpoints, and each endpoint with a name of its own.
pub fn table(input: &NameTableInput) -> NameTable {
    let mut table = NameTable::default();
    for Named { service, allocated, endpoints } in &input.services {
        let host = service.key.host.to_string();
        let mut ips: Vec<String> =
            service.addresses.iter().filter(|address| address.parse::<std::net::IpAddr>().is_ok()).cloned().collect();
        let ready =
            endpoints.iter().flat_map(|set| &set.endpoints).filter(|endpoint| endpoint.health != Health::NotReady);
        let ready: Vec<&Endpoint> = ready.collect();
        ips.extend(allocated.iter().map(ToString::to_string));
        if ips.is_empty() && service.headless {
            ips = ready.iter().map(|endpoint| endpoint.address.clone()).collect();
            ips.sort();
            ips.dedup();
        }
        if ips.is_empty() || host.starts_with('*') && service.registry == Registry::Kubernetes {
            continue;
        }
        let kubernetes = service.registry == Registry::Kubernetes;
        let info = |ips: Vec<String>, shortname: &str| NameInfo {
            ips,
            registry: format!("{:?}", service.registry),
            shortname: if kubernetes { shortname.to_owned() } else { String::new() },
            namespace: if kubernetes { service.key.namespace.to_string() } else { String::new() },
        };
        for endpoint in ready.iter().filter(|endpoint| service.headless && !endpoint.hostname.is_empty()) {
            let short = format!("{}.{}", endpoint.hostname, service.name);
            let entry =
                table.table.entry(format!("{}.{host}", endpoint.hostname)).or_insert_with(|| info(Vec::new(), &short));
            if !entry.ips.contains(&endpoint.address) {
                entry.ips.push(endpoint.address.clone());
            }
        }
        for alias in &service.aliases {
            let short = alias.host.split('.').next().unwrap_or_default();
            let own = NameInfo { namespace: alias.namespace.to_string(), ..info(ips.clone(), short) };
            table.table.insert(alias.host.to_string(), own);
        }
        table.table.insert(host, info(ips, &service.name));
    }
    table
}
