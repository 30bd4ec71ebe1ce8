//! `Cluster` → what is fixed about it, and how its endpoints are found.

mod pace;

pub use pace::Pace;

use super::settings::{ClusterConfig, Discovery, Protocol, TransportMatch};
use crate::balancer::Policy;
use crate::endpoint::config::outlier;
use crate::endpoint::{Limits, Thresholds};
use crate::net::bind_mark;
use crate::refusal::{Refusal, Within, has_no_effect};
use crate::tls::{self, ClientContext};
use proto::any;
use proto::duration::from_proto;
use proto::envoy::cluster::{
    CircuitBreakers, Cluster, LoadBalancingPolicy, cluster, cluster::ClusterDiscoveryType, cluster::DiscoveryType,
    cluster::DnsLookupFamily, cluster::LbPolicy,
};
use proto::envoy::core::{self, TransportSocket};
use proto::envoy::endpoint::ClusterLoadAssignment;
use proto::envoy::load_balancing_policies::least_request::v3::LeastRequest;
use proto::envoy::upstream_http::{HttpProtocolOptions, http_protocol_options as http};
use proto::envoy::wkt::value::Kind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Where a cluster's endpoints come from.
#[derive(Debug, Clone)]
pub enum Members {
    /// In the cluster itself.
    Static(ClusterLoadAssignment),
    /// EDS under this name.
    Eds(Arc<str>),
    /// Host names to resolve.
    Dns {
        /// The names.
        assignment: ClusterLoadAssignment,
        /// STRICT_DNS uses all answers, LOGICAL_DNS the first.
        all_answers: bool,
        /// Which addresses of a name are used.
        family: DnsLookupFamily,
        /// Times between look-ups.
        pace: Pace,
    },
    /// The dialled address.
    OriginalDst,
}

/// A parsed cluster.
#[derive(Debug)]
pub struct Parsed {
    /// What is fixed.
    pub config: ClusterConfig,
    /// Where its endpoints come from.
    pub members: Members,
    /// TLS contexts and their settings, for the secrets.
    pub tls: Vec<(Arc<ClientContext>, tls::Spec)>,
}

/// Idle bound that is assumed of a local HTTP/1 application (D3).
const LOCAL_APP_IDLE: Duration = Duration::from_secs(3);

/// Parses a cluster.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(written: &Cluster) -> Result<Parsed, Refusal> {
    refuse(written)?;
    let http = http_options(written).within("typed_extension_protocol_options")?;
    let (members, discovery) = members(written)?;
    let auto = upstream_options(written, http.as_ref())?;
    let (transports, mut tls) = transports(written)?;
    tls.iter_mut().for_each(|(_, spec)| spec.check_server_name = auto.check_server_name);
    let (policy, panic_percent) = balancing(written)?;
    let common = http.as_ref().and_then(|h| h.common_http_protocol_options.as_ref());
    let idle = common.and_then(|c| c.idle_timeout.as_ref());
    let idle_timeout = idle.map_or(Duration::from_secs(3600), from_proto);
    let protocol = protocol(written, http.as_ref())?;
    let local = written.name.starts_with("inbound|") || written.name == proto::wire::CLUSTER_INBOUND_PASSTHROUGH;
    let config = ClusterConfig {
        name: written.name.as_str().into(),
        discovery,
        policy,
        panic_percent,
        connect_timeout: written.connect_timeout.as_ref().map_or(Duration::from_secs(5), from_proto),
        // Zero switches the idle timeout off.
        idle_timeout: if idle_timeout.is_zero() { Duration::from_secs(86_400 * 365) } else { idle_timeout },
        assumed_idle: if local { LOCAL_APP_IDLE } else { Duration::from_secs(86_400 * 365) },
        max_requests_per_connection: common.and_then(|c| c.max_requests_per_connection.as_ref()).map_or(0, |n| n.value),
        limits: limits(written.circuit_breakers.as_ref()),
        protocol,
        transports,
        source: source(written)?,
        mark: bind_mark(written.upstream_bind_config.as_ref()).within("upstream_bind_config")?,
        keepalive: keepalive(written),
        service: service(written),
        external: istio_flag(written, "external") || istio_flag(written, "disable_mx"),
        outlier: written.outlier_detection.as_ref().map(outlier).transpose()?,
        auto_sni: auto.sni,
    };
    Ok(Parsed { config, members, tls })
}

/// Refuses what would change where requests go, or how, if it were not looked at. What only tunes Envoy's own machinery
/// or its statistics has no effect and is let through.
#[expect(deprecated, reason = "old fields are refused by their names, too")]
fn refuse(written: &Cluster) -> Result<(), Refusal> {
    let common = written.common_lb_config.clone().unwrap_or_default();
    let refused = [
        ("transport_socket_matcher", written.transport_socket_matcher.is_some()),
        ("health_checks", !written.health_checks.is_empty()),
        ("lb_subset_config", written.lb_subset_config.is_some()),
        ("upstream_config", written.upstream_config.is_some()),
        ("connection_pool_per_downstream_connection", written.connection_pool_per_downstream_connection),
        ("dns_resolvers", !written.dns_resolvers.is_empty()),
        ("dns_resolution_config", written.dns_resolution_config.is_some()),
        ("use_tcp_for_dns_lookups", written.use_tcp_for_dns_lookups),
        ("common_lb_config.override_host_status", common.override_host_status.is_some()),
        ("common_lb_config.consistent_hashing_lb_config", common.consistent_hashing_lb_config.is_some()),
    ];
    match refused.iter().find(|(_, written)| *written) {
        Some((field, _)) => Err(Refusal::unsupported(*field)),
        None => unknown_extensions(written),
    }
}

/// Refuses network filters and DNS resolvers, but for those that are known to have no effect here (XT-15).
fn unknown_extensions(written: &Cluster) -> Result<(), Refusal> {
    let filters = written.filters.iter().map(|filter| ("filters", &filter.name, filter.typed_config.as_ref()));
    let resolver = written.typed_dns_resolver_config.iter();
    let resolver = resolver.map(|one| ("typed_dns_resolver_config", &one.name, one.typed_config.as_ref()));
    for (field, name, typed) in filters.chain(resolver) {
        let type_name = typed.map(any::type_of).unwrap_or_default();
        if !has_no_effect(&type_name) {
            let why = format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
            return Err(Refusal::new(field, why));
        }
    }
    Ok(())
}

fn http_options(written: &Cluster) -> Result<Option<HttpProtocolOptions>, Refusal> {
    const NAME: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    match written.typed_extension_protocol_options.get(NAME) {
        None => Ok(None),
        Some(any) => any::unpack(any).map(Some).map_err(|error| Refusal::new(NAME, error.to_string())),
    }
}

/// What TLS sessions take from requests (DR-35).
struct Auto {
    sni: bool,
    check_server_name: bool,
}

fn upstream_options(written: &Cluster, http: Option<&HttpProtocolOptions>) -> Result<Auto, Refusal> {
    #[expect(deprecated, reason = "Envoy still reads the old field")]
    let old = written.upstream_http_protocol_options.as_ref();
    let Some(options) = http.and_then(|http| http.upstream_http_protocol_options.as_ref()).or(old) else {
        return Ok(Auto { sni: false, check_server_name: false });
    };
    if !options.override_auto_sni_header.is_empty() {
        return Err(Refusal::unsupported("upstream_http_protocol_options.override_auto_sni_header"));
    }
    if options.auto_san_validation && !options.auto_sni {
        return Err(Refusal::unsupported("upstream_http_protocol_options.auto_san_validation without auto_sni"));
    }
    Ok(Auto { sni: options.auto_sni, check_server_name: options.auto_san_validation })
}

fn members(written: &Cluster) -> Result<(Members, Discovery), Refusal> {
    let kind = match &written.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind).unwrap_or(DiscoveryType::Static),
        Some(ClusterDiscoveryType::ClusterType(_)) => return Err(Refusal::unsupported("cluster_type")),
        None => DiscoveryType::Static,
    };
    let assignment = || written.load_assignment.clone().unwrap_or_default();
    let family = DnsLookupFamily::try_from(written.dns_lookup_family)
        .map_err(|_| Refusal::new("dns_lookup_family", "one of AUTO, V4_ONLY, V6_ONLY, V4_PREFERRED, ALL"))?;
    let pace = Pace::parse(written)?;
    let dns = |all_answers| Members::Dns { assignment: assignment(), all_answers, family, pace };
    Ok(match kind {
        DiscoveryType::Static => (Members::Static(assignment()), Discovery::Given),
        DiscoveryType::StrictDns => (dns(true), Discovery::Given),
        DiscoveryType::LogicalDns => (dns(false), Discovery::Given),
        DiscoveryType::Eds => {
            let service = written.eds_cluster_config.as_ref().map(|eds| eds.service_name.as_str()).unwrap_or_default();
            let name = if service.is_empty() { written.name.as_str() } else { service };
            (Members::Eds(name.into()), Discovery::Given)
        }
        DiscoveryType::OriginalDst => (Members::OriginalDst, Discovery::OriginalDst),
    })
}

type Transports = (Vec<TransportMatch>, Vec<(Arc<ClientContext>, tls::Spec)>);

fn transports(written: &Cluster) -> Result<Transports, Refusal> {
    let (mut matches, mut contexts) = (Vec::new(), Vec::new());
    let mut add = |name: &str, wants: Box<[(Box<str>, Box<str>)]>, socket: Option<&TransportSocket>| {
        let context = match tls::config::upstream(socket)? {
            None => None,
            Some(spec) => {
                let context = Arc::new(ClientContext {
                    name: written.name.as_str().into(),
                    sni: spec.sni.clone(),
                    config: arc_swap::ArcSwapOption::empty(),
                });
                contexts.push((Arc::clone(&context), spec));
                Some(context)
            }
        };
        matches.push(TransportMatch { name: name.into(), wants, tls: context });
        Ok::<_, Refusal>(())
    };
    for (i, socket) in written.transport_socket_matches.iter().enumerate() {
        let wants = wants(socket);
        add(&socket.name, wants, socket.transport_socket.as_ref()).within(&format!("transport_socket_matches[{i}]"))?;
    }
    add("", Box::default(), written.transport_socket.as_ref()).within("transport_socket")?;
    Ok((matches, contexts))
}

fn wants(socket: &cluster::TransportSocketMatch) -> Box<[(Box<str>, Box<str>)]> {
    let fields = socket.r#match.iter().flat_map(|m| &m.fields);
    let text = fields.filter_map(|(key, value)| match value.kind.as_ref()? {
        Kind::StringValue(text) => Some((key.as_str().into(), text.as_str().into())),
        _ => None,
    });
    text.collect()
}

fn balancing(written: &Cluster) -> Result<(Policy, u32), Refusal> {
    let policy = match LbPolicy::try_from(written.lb_policy) {
        _ if written.load_balancing_policy.is_some() => extension(written.load_balancing_policy.as_ref())?,
        Ok(LbPolicy::RoundRobin) => Policy::RoundRobin,
        Ok(LbPolicy::Random) => Policy::Random,
        Ok(LbPolicy::LeastRequest) => {
            let choices = match &written.lb_config {
                Some(cluster::LbConfig::LeastRequestLbConfig(c)) => c.choice_count.as_ref().map_or(2, |n| n.value),
                _ => 2,
            };
            Policy::LeastRequest { choices }
        }
        Ok(LbPolicy::ClusterProvided) => Policy::OriginalDst,
        Ok(LbPolicy::RingHash | LbPolicy::Maglev) => return Err(Refusal::unsupported("lb_policy: RING_HASH, MAGLEV")),
        _ => return Err(Refusal::unsupported("lb_policy")),
    };
    let common = written.common_lb_config.as_ref();
    let panic = common.and_then(|c| c.healthy_panic_threshold.as_ref()).map_or(50.0, |p| p.value);
    Ok((policy, panic.clamp(0.0, 100.0).round() as u32))
}

/// The first policy of `load_balancing_policy` that there is, as in Envoy (XT-10).
fn extension(written: Option<&LoadBalancingPolicy>) -> Result<Policy, Refusal> {
    let configs = written.into_iter().flat_map(|list| &list.policies).filter_map(|p| p.typed_extension_config.as_ref());
    let mut names = Vec::new();
    for typed in configs.filter_map(|extension| extension.typed_config.as_ref()) {
        let name = any::type_name(&typed.type_url);
        match name.strip_prefix("envoy.extensions.load_balancing_policies.") {
            Some("round_robin.v3.RoundRobin") => return Ok(Policy::RoundRobin),
            Some("random.v3.Random") => return Ok(Policy::Random),
            Some("cluster_provided.v3.ClusterProvided") => return Ok(Policy::OriginalDst),
            Some("least_request.v3.LeastRequest") => {
                let written: LeastRequest = any::decode(typed)
                    .map_err(|error| Refusal::new("load_balancing_policy.typed_config", error.to_string()))?;
                return Ok(Policy::LeastRequest { choices: written.choice_count.map_or(2, |n| n.value) });
            }
            _ => names.push(name),
        }
    }
    let why = format!("didn't find a registered load balancer factory with names from [{}]", names.join(", "));
    Err(Refusal::new("load_balancing_policy", why))
}

fn protocol(written: &Cluster, http: Option<&HttpProtocolOptions>) -> Result<Protocol, Refusal> {
    use http::UpstreamProtocolOptions as Options;
    use http::explicit_http_config::ProtocolConfig;
    let options = http.and_then(|h| h.upstream_protocol_options.as_ref());
    Ok(match options {
        Some(Options::ExplicitHttpConfig(explicit)) => match &explicit.protocol_config {
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => Protocol::H2,
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                return Err(Refusal::unsupported("http3_protocol_options"));
            }
            _ => Protocol::H1,
        },
        Some(Options::UseDownstreamProtocolConfig(_)) => Protocol::Downstream,
        Some(Options::AutoConfig(_)) => Protocol::Auto,
        None => deprecated_protocol(written),
    })
}

#[expect(deprecated, reason = "Envoy still reads the old field, and so do old bootstraps")]
fn deprecated_protocol(written: &Cluster) -> Protocol {
    if written.http2_protocol_options.is_some() { Protocol::H2 } else { Protocol::H1 }
}

fn limits(written: Option<&CircuitBreakers>) -> [Arc<Limits>; 2] {
    let of = |priority: core::RoutingPriority| {
        let found = written.into_iter().flat_map(|b| &b.thresholds).find(|t| t.priority == i32::from(priority));
        let default = Thresholds::default();
        let value = |n: &Option<proto::envoy::wkt::UInt32Value>, default| n.as_ref().map_or(default, |n| n.value);
        Limits::new(found.map_or(default, |t| Thresholds {
            connections: value(&t.max_connections, default.connections),
            pending: value(&t.max_pending_requests, default.pending),
            requests: value(&t.max_requests, default.requests),
            retries: value(&t.max_retries, default.retries),
        }))
    };
    [of(core::RoutingPriority::Default), of(core::RoutingPriority::High)]
}

fn source(written: &Cluster) -> Result<Box<[IpAddr]>, Refusal> {
    let Some(bind) = &written.upstream_bind_config else { return Ok(Box::default()) };
    let extra = bind.extra_source_addresses.iter().filter_map(|extra| extra.address.as_ref());
    bind.source_address
        .iter()
        .chain(extra)
        .map(|socket| {
            let parsed = socket.address.parse();
            parsed.map_err(|_| Refusal::new("upstream_bind_config.source_address", "an IP address is needed"))
        })
        .collect()
}

fn keepalive(written: &Cluster) -> Option<(Duration, Duration, u32)> {
    let keepalive = written.upstream_connection_options.as_ref()?.tcp_keepalive.as_ref()?;
    let seconds = |n: &Option<proto::envoy::wkt::UInt32Value>, default| {
        Duration::from_secs(n.as_ref().map_or(default, |n| u64::from(n.value)))
    };
    let probes = keepalive.keepalive_probes.as_ref().map_or(9, |n| n.value);
    Some((seconds(&keepalive.keepalive_time, 7200), seconds(&keepalive.keepalive_interval, 75), probes))
}

/// Host, name and namespace of the first service in the `istio` metadata (XI-8).
fn service(written: &Cluster) -> Option<Arc<[Box<str>; 3]>> {
    let istio = written.metadata.as_ref()?.filter_metadata.get("istio")?;
    let Kind::ListValue(services) = istio.fields.get("services")?.kind.as_ref()? else { return None };
    let Kind::StructValue(first) = services.values.first()?.kind.as_ref()? else { return None };
    let text = |key: &str| match first.fields.get(key).and_then(|v| v.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.as_str().into(),
        _ => "".into(),
    };
    Some(Arc::new([text("host"), text("name"), text("namespace")]))
}

fn istio_flag(written: &Cluster, name: &str) -> bool {
    let istio = written.metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get("istio"));
    matches!(istio.and_then(|fields| fields.fields.get(name)?.kind.as_ref()), Some(Kind::BoolValue(true)))
}

#[cfg(test)]
mod tests;
