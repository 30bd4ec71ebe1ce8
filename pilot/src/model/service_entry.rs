//! What makes no sense in a ServiceEntry or a WorkloadEntry.

use super::check::Check;
use crate::source::{Object, Problem};
use proto::istio::service_entry::{Resolution, ServiceEntry, WorkloadEntry};
use std::net::IpAddr;

/// Checks a ServiceEntry.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(object: &Object, spec: &ServiceEntry) -> Result<(), Vec<Problem>> {
    let mut check = Check::new(object);
    check.require(!spec.hosts.is_empty(), "spec.hosts", "at least one host is needed");
    for (i, host) in spec.hosts.iter().enumerate() {
        check.host(host, format!("spec.hosts[{i}]"));
        let allowed = !host.starts_with('*') || spec.resolution == Resolution::None;
        check.require(allowed, format!("spec.hosts[{i}]"), "a wildcard needs resolution NONE");
    }
    let dynamic = spec.resolution == Resolution::DynamicDns;
    check.require(
        !dynamic,
        "spec.resolution",
        format!("{}: spec.resolution DYNAMIC_DNS", proto::istio::NOT_SUPPORTED_YET),
    );
    let both = !spec.endpoints.is_empty() && spec.workload_selector.is_some();
    check.require(!both, "spec.workloadSelector", "only one of endpoints and workloadSelector");
    let one = spec.resolution != Resolution::DnsRoundRobin || spec.endpoints.len() <= 1;
    check.require(one, "spec.endpoints", "DNS_ROUND_ROBIN takes one endpoint: use DNS for several");
    let mut numbers = std::collections::HashSet::new();
    for (i, port) in spec.ports.iter().enumerate() {
        check.port(port.number, format!("spec.ports[{i}].number"));
        check.require(numbers.insert(port.number), format!("spec.ports[{i}].number"), "the port is there twice");
        check.require(!port.name.is_empty(), format!("spec.ports[{i}].name"), "a name is needed");
        let known = port.protocol.is_empty() || crate::registry::Protocol::parse(&port.protocol).is_some();
        check.require(known, format!("spec.ports[{i}].protocol"), format!("unknown protocol {:?}", port.protocol));
    }
    for (i, address) in spec.addresses.iter().enumerate() {
        let good = address.parse::<IpAddr>().is_ok() || address.parse::<ipnet::IpNet>().is_ok();
        check.require(good, format!("spec.addresses[{i}]"), format!("{address:?} is no address and no block"));
    }
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        let ip = endpoint.address.parse::<IpAddr>().is_ok();
        let unix = endpoint.address.starts_with("unix://");
        let at = format!("spec.endpoints[{i}].address");
        check.require(!unix, at.clone(), format!("{}: {at}", proto::istio::NOT_SUPPORTED_YET));
        let fits = ip || unix || spec.resolution != Resolution::Static;
        check.require(fits, at, format!("{:?} is no IP address, which STATIC needs", endpoint.address));
        entry(&mut check, endpoint, &format!("spec.endpoints[{i}]"));
    }
    check.finish(())
}

/// Checks a WorkloadEntry.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check_workload(object: &Object, spec: &WorkloadEntry) -> Result<(), Vec<Problem>> {
    let mut check = Check::new(object);
    check.require(!spec.address.is_empty(), "spec.address", "an address is needed");
    entry(&mut check, spec, "spec");
    check.finish(())
}

fn entry(check: &mut Check<'_>, entry: &WorkloadEntry, at: &str) {
    for (name, number) in &entry.ports {
        check.port(*number, format!("{at}.ports.{name}"));
    }
    let other = !entry.network.is_empty();
    check.require(!other, format!("{at}.network"), format!("{}: {at}.network", proto::istio::NOT_SUPPORTED_YET));
}
