//! `ClusterLoadAssignment` → endpoints.

use super::{Address, Endpoint, EndpointShared, Health, HostSet, InARow, Locality, Outlier, Priority, Share};
use crate::refusal::{Refusal, Within};
use foldhash::HashMap;
use proto::duration::from_proto;
use proto::envoy::cluster::OutlierDetection;
use proto::envoy::core::{self, address};
use proto::envoy::endpoint::{
    ClusterLoadAssignment, Endpoint as Written, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use proto::envoy::wkt::{UInt32Value, value::Kind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Shared state of endpoints that an earlier version of the assignment had, by address.
pub type Known = HashMap<Address, Arc<EndpointShared>>;

/// Endpoints with host names instead of addresses, to be resolved (STRICT_DNS, LOGICAL_DNS).
#[derive(Debug)]
pub struct Named {
    /// Host name.
    pub host: Box<str>,
    /// Port.
    pub port: u16,
    /// Priority of the endpoint.
    pub priority: usize,
    /// What its addresses are like.
    pub like: Endpoint,
}

/// Parses an assignment. Endpoints that `known` holds keep their shared state.
///
/// # Errors
/// The field that is wrong.
pub fn parse(assignment: &ClusterLoadAssignment, known: &Known) -> Result<(HostSet, Vec<Named>), Refusal> {
    let mut priorities: Vec<Priority> = Vec::new();
    let mut named = Vec::new();
    for (i, group) in assignment.endpoints.iter().enumerate() {
        let at = usize::try_from(group.priority).unwrap_or(usize::MAX);
        if at > 128 {
            return Err(Refusal::new(format!("endpoints[{i}].priority"), "at most 128"));
        }
        while priorities.len() <= at {
            priorities.push(Priority::default());
        }
        let locality = Arc::new(locality(group.locality.as_ref()));
        if let (Some(weight), Some(priority)) = (&group.load_balancing_weight, priorities.get_mut(at)) {
            priority.locality_weights.push((Arc::clone(&locality), weight.value));
        }
        group_into(group, &locality, (known, at), &mut priorities, &mut named).within(&format!("endpoints[{i}]"))?;
    }
    let policy = assignment.policy.as_ref().and_then(|policy| policy.overprovisioning_factor.as_ref());
    let overprovisioning_percent = policy.map_or(140, |factor| factor.value);
    Ok((HostSet { priorities, overprovisioning_percent }, named))
}

/// Parses an assignment whose endpoints must have addresses: of clusters that resolve no names.
///
/// # Errors
/// The field that is wrong; an endpoint with a host name.
pub fn parse_addresses(assignment: &ClusterLoadAssignment, known: &Known) -> Result<HostSet, Refusal> {
    let (hosts, named) = parse(assignment, known)?;
    match named.first() {
        None => Ok(hosts),
        Some(Named { host, .. }) => {
            let why =
                format!("malformed IP address: {host}; a cluster of type STRICT_DNS or LOGICAL_DNS resolves names");
            Err(Refusal::new("endpoints", why))
        }
    }
}

fn group_into(
    group: &LocalityLbEndpoints,
    locality: &Arc<Locality>,
    (known, at): (&Known, usize),
    priorities: &mut [Priority],
    named: &mut Vec<Named>,
) -> Result<(), Refusal> {
    for (j, lb) in group.lb_endpoints.iter().enumerate() {
        let field = format!("lb_endpoints[{j}]");
        let Some(lb_endpoint::HostIdentifier::Endpoint(written)) = &lb.host_identifier else {
            return Err(Refusal::new(format!("{field}.endpoint"), "an endpoint needs an address"));
        };
        match address_of(written.address.as_ref()).within(&format!("{field}.endpoint.address"))? {
            Where::Address(address) => {
                let endpoint = endpoint(lb, written, locality).resolved(address, known);
                if let Some(priority) = priorities.get_mut(at) {
                    priority.all.push(Arc::new(endpoint));
                }
            }
            Where::Name(host, port) => {
                let like = endpoint(lb, written, locality);
                named.push(Named { host: host.into(), port, priority: at, like });
            }
        }
    }
    Ok(())
}

/// All of an endpoint but its address.
fn endpoint(lb: &LbEndpoint, written: &Written, locality: &Arc<Locality>) -> Endpoint {
    let health = match core::HealthStatus::try_from(lb.health_status) {
        Ok(core::HealthStatus::Unhealthy | core::HealthStatus::Timeout) => Health::Unhealthy,
        Ok(core::HealthStatus::Draining) => Health::Draining,
        Ok(core::HealthStatus::Degraded) => Health::Degraded,
        _ => Health::Healthy,
    };
    let text = |space: &str, key: &str| {
        let fields = &lb.metadata.as_ref()?.filter_metadata.get(space)?.fields;
        match fields.get(key)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text.as_str().into()),
            _ => None,
        }
    };
    Endpoint {
        hostname: (!written.hostname.is_empty()).then(|| written.hostname.as_str().into()),
        weight: lb.load_balancing_weight.as_ref().map_or(1, |weight| weight.value.max(1)),
        health,
        locality: Arc::clone(locality),
        socket_match: socket_match(lb),
        workload: text("istio", "workload"),
        ..Endpoint::at(Address::Ip(SocketAddr::from(([0, 0, 0, 0], 0))))
    }
}

fn socket_match(lb: &LbEndpoint) -> Box<[(Box<str>, Box<str>)]> {
    let fields = lb.metadata.as_ref().and_then(|m| m.filter_metadata.get("envoy.transport_socket_match"));
    let pairs = fields.into_iter().flat_map(|fields| &fields.fields);
    let mut pairs: Vec<(Box<str>, Box<str>)> = pairs
        .filter_map(|(key, value)| match value.kind.as_ref()? {
            Kind::StringValue(text) => Some((key.as_str().into(), text.as_str().into())),
            _ => None,
        })
        .collect();
    pairs.sort();
    pairs.into()
}

fn locality(written: Option<&core::Locality>) -> Locality {
    written.map_or_else(Locality::default, |l| Locality {
        region: l.region.as_str().into(),
        zone: l.zone.as_str().into(),
        sub_zone: l.sub_zone.as_str().into(),
    })
}

/// Where an address points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// Dialled as it is.
    Address(Address),
    /// To be resolved first.
    Name(String, u16),
}

/// Reads an address.
///
/// # Errors
/// The field that is wrong; kinds of address that the proxy does not know.
pub fn address_of(written: Option<&core::Address>) -> Result<Where, Refusal> {
    match written.and_then(|address| address.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => {
            let port = match &socket.port_specifier {
                Some(core::socket_address::PortSpecifier::PortValue(port)) => {
                    u16::try_from(*port).map_err(|_| Refusal::new("socket_address.port_value", "at most 65535"))?
                }
                _ => return Err(Refusal::new("socket_address.port_value", "a port is needed")),
            };
            Ok(match socket.address.parse::<IpAddr>() {
                Ok(ip) => Where::Address(Address::Ip(SocketAddr::new(ip, port))),
                Err(_) => Where::Name(socket.address.clone(), port),
            })
        }
        Some(address::Address::Pipe(pipe)) => Ok(Where::Address(Address::Unix(pipe.path.as_str().into()))),
        Some(address::Address::EnvoyInternalAddress(_)) => Err(Refusal::unsupported("envoy_internal_address")),
        None => Err(Refusal::new("socket_address", "an address is needed")),
    }
}

/// Reads `OutlierDetection` (LB-13).
///
/// # Errors
/// What is not supported yet.
pub fn outlier(written: &OutlierDetection) -> Result<Outlier, Refusal> {
    if !written.monitors.is_empty() {
        return Err(Refusal::unsupported("outlier_detection.monitors"));
    }
    if written.detect_degraded_hosts.as_ref().is_some_and(|b| b.value) {
        return Err(Refusal::unsupported("outlier_detection.detect_degraded_hosts"));
    }
    let number = |n: &Option<UInt32Value>, default| n.as_ref().map_or(default, |n| n.value);
    let time = |d: &Option<proto::envoy::wkt::Duration>, default| {
        d.as_ref().map_or_else(|| Duration::from_secs(default), from_proto)
    };
    let in_a_row = |count: &Option<UInt32Value>, enforcing: &Option<UInt32Value>, default| InARow {
        count: number(count, 5),
        enforcing_percent: number(enforcing, default),
    };
    let base_ejection = time(&written.base_ejection_time, 30);
    Ok(Outlier {
        consecutive_5xx: in_a_row(&written.consecutive_5xx, &written.enforcing_consecutive_5xx, 100),
        consecutive_gateway: in_a_row(
            &written.consecutive_gateway_failure,
            &written.enforcing_consecutive_gateway_failure,
            0,
        ),
        consecutive_local: in_a_row(
            &written.consecutive_local_origin_failure,
            &written.enforcing_consecutive_local_origin_failure,
            100,
        ),
        split_local: written.split_external_local_origin_errors,
        success_rate: Share {
            enforcing_percent: number(&written.enforcing_success_rate, 100),
            minimum_hosts: number(&written.success_rate_minimum_hosts, 5),
            request_volume: number(&written.success_rate_request_volume, 100),
            threshold: number(&written.success_rate_stdev_factor, 1900),
        },
        failure_percentage: Share {
            enforcing_percent: number(&written.enforcing_failure_percentage, 0),
            minimum_hosts: number(&written.failure_percentage_minimum_hosts, 5),
            request_volume: number(&written.failure_percentage_request_volume, 50),
            threshold: number(&written.failure_percentage_threshold, 85),
        },
        interval: time(&written.interval, 10),
        base_ejection,
        max_ejection: time(&written.max_ejection_time, 300).max(base_ejection),
        jitter: time(&written.max_ejection_time_jitter, 0),
        max_ejection_percent: number(&written.max_ejection_percent, 10),
        always_one: written.always_eject_one_host.as_ref().is_some_and(|b| b.value),
        next_sweep_ms: Arc::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::envoy::wkt::{Struct, Value};

    fn socket(address: &str, port: u32) -> core::Address {
        let port_specifier = Some(core::socket_address::PortSpecifier::PortValue(port));
        let socket = core::SocketAddress { address: address.into(), port_specifier, ..Default::default() };
        core::Address { address: Some(address::Address::SocketAddress(socket)) }
    }

    fn lb(address: &str, status: core::HealthStatus) -> LbEndpoint {
        let written = Written { address: Some(socket(address, 80)), ..Default::default() };
        LbEndpoint {
            host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(written)),
            health_status: status.into(),
            load_balancing_weight: Some(UInt32Value { value: 3 }),
            ..Default::default()
        }
    }

    // spec: LB-15, XI-7, MT-7, MD-5
    #[test]
    fn reads_health_weight_priority_and_metadata() {
        let mut first = lb("10.0.0.1", core::HealthStatus::Healthy);
        let text = |s: &str| Value { kind: Some(Kind::StringValue(s.into())) };
        let fields = |k: &str, v: &str| Struct { fields: [(k.to_owned(), text(v))].into() };
        let spaces = [
            ("envoy.transport_socket_match".to_owned(), fields("tlsMode", "istio")),
            ("istio".to_owned(), fields("workload", "w;ns;c;v1;k")),
        ];
        first.metadata = Some(core::Metadata { filter_metadata: spaces.into(), ..Default::default() });
        let group = |priority, endpoints: Vec<LbEndpoint>| LocalityLbEndpoints {
            lb_endpoints: endpoints,
            priority,
            ..Default::default()
        };
        let assignment = ClusterLoadAssignment {
            endpoints: vec![
                group(0, vec![first, lb("10.0.0.2", core::HealthStatus::Draining)]),
                group(
                    1,
                    vec![lb("10.0.0.3", core::HealthStatus::Unhealthy), lb("a.example", core::HealthStatus::Healthy)],
                ),
            ],
            ..Default::default()
        };
        let (hosts, named) = parse(&assignment, &Known::default()).expect("valid");
        let all: Vec<_> = hosts.iter().map(|e| (e.address.to_string(), e.health, e.weight)).collect();
        assert_eq!(all[0], ("10.0.0.1:80".into(), Health::Healthy, 3));
        assert_eq!((all[1].1, all[2].1), (Health::Draining, Health::Unhealthy));
        assert_eq!(hosts.priorities.len(), 2);
        let [name] = named.as_slice() else { panic!("{named:?}") };
        assert_eq!((&*name.host, name.port, name.priority, name.like.weight), ("a.example", 80, 1, 3));
        let first = &hosts.priorities[0].all[0];
        assert_eq!(&*first.socket_match, [("tlsMode".into(), "istio".into())]);
        assert_eq!(first.workload.as_deref(), Some("w;ns;c;v1;k"));
    }

    #[test]
    fn an_endpoint_keeps_its_shared_state_and_errors_name_the_field() {
        let shared = Arc::new(EndpointShared::default());
        let known = Known::from_iter([(Address::Ip(([10, 0, 0, 1], 80).into()), Arc::clone(&shared))]);
        let group = |endpoints| LocalityLbEndpoints { lb_endpoints: endpoints, ..Default::default() };
        let of = |endpoints| ClusterLoadAssignment { endpoints: vec![group(endpoints)], ..Default::default() };
        let (hosts, _) = parse(&of(vec![lb("10.0.0.1", core::HealthStatus::Unknown)]), &known).expect("valid");
        assert!(Arc::ptr_eq(&hosts.priorities[0].all[0].shared, &shared));
        let named = of(vec![lb("reviews", core::HealthStatus::Unknown)]);
        let refused = parse_addresses(&named, &known).expect_err("a name");
        assert!(refused.to_string().contains("malformed IP address: reviews"), "{refused}");
        let refused = parse(&of(vec![LbEndpoint::default()]), &known).expect_err("no address");
        assert_eq!(refused.field, "endpoints[0].lb_endpoints[0].endpoint");
    }
}
