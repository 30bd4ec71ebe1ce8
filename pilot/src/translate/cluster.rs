//! Clusters: of services, of the ports that a workload serves, and those that every proxy has (spec 1.4, NM, OD).

use super::endpoint;
use super::inputs::{ClusterInput, FixedCluster, InboundClusterInput};
use super::message::{ads, duration, list, nested, text, uint};
use super::names;
use super::node::{Flavor, Role};
use super::policy::{self, Policy};
use super::telemetry;
use super::tls::{self, Target};
use crate::model::MeshConfig;
use crate::registry::{Protocol, Resolution, Service};
use proto::any;
use proto::envoy::cluster::circuit_breakers::{Thresholds, thresholds};
use proto::envoy::cluster::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
use proto::envoy::cluster::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbConfig, LbPolicy,
    LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig, TransportSocketMatch,
};
use proto::envoy::cluster::{CircuitBreakers, Cluster, Filter, OutlierDetection, UpstreamConnectionOptions};
use proto::envoy::core::{
    self, BindConfig, Http1ProtocolOptions, Http2ProtocolOptions, Metadata, RuntimeDouble, TcpKeepalive,
    TypedExtensionConfig, UpstreamHttpProtocolOptions,
};
use proto::envoy::types::Percent;
use proto::envoy::upstream_http::HttpProtocolOptions;
use proto::envoy::upstream_http::http_protocol_options::explicit_http_config::ProtocolConfig;
use proto::envoy::upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use proto::envoy::wkt::{Struct, UInt64Value, Value, value};
use proto::istio::destination_rule::{
    ClientTlsMode, ConnectionPoolSettings, H2UpgradePolicy, LoadBalancerSettings, SimpleLb,
    TcpKeepalive as WrittenKeepalive,
};
use std::time::Duration;

/// The key of HTTP options in a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Cleanup of original-destination hosts that never comes: the longest duration of a Go program, in whole seconds.
const NEVER: Duration = Duration::from_secs(9_223_372_035);

fn breakers(pool: Option<&ConnectionPoolSettings>) -> Thresholds {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    let limit = |own: Option<u32>| uint(own.filter(|value| *value > 0).unwrap_or(u32::MAX));
    Thresholds {
        max_connections: limit(tcp.and_then(|tcp| tcp.max_connections)),
        max_pending_requests: limit(http.and_then(|http| http.http1_max_pending_requests)),
        max_requests: limit(http.and_then(|http| http.http2_max_requests)),
        max_retries: limit(http.and_then(|http| http.max_retries)),
        ..Thresholds::default()
    }
}

fn with_name(name: String) -> Cluster {
    Cluster { alt_stat_name: format!("{name};"), name, ..Cluster::default() }
}

fn discovery(kind: DiscoveryType) -> Option<ClusterDiscoveryType> {
    Some(ClusterDiscoveryType::Type(kind.into()))
}

/// Metadata `istio` of a cluster (XI-8).
struct IstioMetadata(Vec<(&'static str, Value)>);

impl IstioMetadata {
    fn new(services: &[&Service]) -> Self {
        let entry = |service: &&Service| {
            nested([
                ("host", text(&*service.key.host)),
                ("name", text(&service.name)),
                ("namespace", text(&*service.key.namespace)),
            ])
        };
        Self(vec![("services", list(services.iter().map(entry).collect()))])
    }

    fn set(&mut self, key: &'static str, value: Value) {
        self.0.push((key, value));
    }

    fn finish(self) -> Option<Metadata> {
        super::message::istio_metadata(super::message::structure(self.0))
    }
}

/// The cluster of a service, a port and maybe a subset of it.
pub fn outbound(input: &ClusterInput) -> Cluster {
    let service = &*input.service;
    let subset = input.subset.and_then(|index| input.rule.as_ref()?.subsets.get(index));
    let subset_name = subset.map_or("", |subset| subset.name.as_str());
    let name = names::outbound(input.port, subset_name, &service.key.host);
    let policy = policy::effective(input.rule.as_deref(), input.subset, input.port);
    let protocol = service.port(input.port).map_or(Protocol::Tcp, |port| port.protocol);
    let mut metadata = IstioMetadata::new(&[service]);
    if let Some(rule) = &input.rule {
        metadata.set("config", text(names::config_path(&rule.key)));
    }
    if !subset_name.is_empty() {
        metadata.set("subset", text(subset_name));
    }
    if service.external {
        metadata.set("external", Value { kind: Some(value::Kind::BoolValue(true)) });
    }
    let mut cluster = with_name(name.clone());
    cluster.common_lb_config =
        Some(CommonLbConfig { healthy_panic_threshold: Some(Percent::default()), ..CommonLbConfig::default() });
    if input.flavor == Flavor::Istio {
        cluster.filters = vec![Filter {
            name: "istio.metadata_exchange".to_owned(),
            typed_config: Some(telemetry::tcp_metadata_exchange()),
            ..Filter::default()
        }];
    }
    resolve(&mut cluster, input, &policy, &name);
    balance(&mut cluster, &policy);
    let mut http = http_options(protocol, &policy, input);
    pool(&mut cluster, &mut http, policy.pool.as_ref(), &input.mesh);
    retry_budget(&mut cluster, &policy);
    outliers(&mut cluster, &policy);
    if policy.weighs_localities(&input.mesh) && input.role_uses_locality() {
        let common = cluster.common_lb_config.get_or_insert_default();
        common.locality_config_specifier =
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}));
    }
    if secure(&mut cluster, &mut http, input, &policy, subset_name) {
        metadata.set("alpn_override", text("false"));
    }
    set_http(&mut cluster, http);
    cluster.metadata = metadata.finish();
    cluster
}

impl ClusterInput {
    /// Locality weights mean nothing where the client's own destination is used.
    fn role_uses_locality(&self) -> bool {
        self.service.resolution != Resolution::Passthrough || self.role == Role::Router
    }

    /// Whether the destination is the client's own: headless services of sidecars, resolution NONE, PASSTHROUGH.
    fn passthrough(&self, policy: &Policy) -> bool {
        let asked = policy.load_balancer.as_ref().and_then(|balancer| balancer.simple) == Some(SimpleLb::Passthrough);
        let headless = self.service.headless && self.role == Role::Router;
        asked || (self.service.resolution == Resolution::Passthrough && !headless)
    }
}

fn resolve(cluster: &mut Cluster, input: &ClusterInput, policy: &Policy, name: &str) {
    let service = &*input.service;
    if input.passthrough(policy) {
        cluster.cluster_discovery_type = discovery(DiscoveryType::OriginalDst);
        cluster.lb_policy = LbPolicy::ClusterProvided.into();
        return;
    }
    let kind = match service.resolution {
        Resolution::Dns => DiscoveryType::StrictDns,
        Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
        Resolution::Endpoints | Resolution::Passthrough => DiscoveryType::Eds,
    };
    cluster.cluster_discovery_type = discovery(kind);
    if kind == DiscoveryType::Eds {
        cluster.eds_cluster_config = Some(EdsClusterConfig { eds_config: ads(), service_name: name.to_owned() });
        return;
    }
    cluster.load_assignment = input.endpoints.as_ref().map(|set| endpoint::of_dns(input, set, name));
    dns(cluster, &input.mesh);
    let cares = proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig {
        udp_max_queries: uint(100),
        ..Default::default()
    };
    cluster.typed_dns_resolver_config = Some(TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(any::pack(&cares)),
    });
}

/// How often DNS is asked (SE-12).
#[expect(deprecated, reason = "istiod sends these fields, and so every proxy of the mesh reads them")]
fn dns(cluster: &mut Cluster, mesh: &MeshConfig) {
    cluster.dns_lookup_family = DnsLookupFamily::V4Only.into();
    cluster.dns_refresh_rate = duration(mesh.dns_refresh_rate);
    cluster.dns_jitter = duration(Duration::from_millis(100));
    cluster.respect_dns_ttl = true;
}

/// Choice of an endpoint (DR-9, DR-11, DR-13).
fn balance(cluster: &mut Cluster, policy: &Policy) {
    if cluster.lb_policy == i32::from(LbPolicy::ClusterProvided) {
        return;
    }
    let Some(settings) = &policy.load_balancer else {
        cluster.lb_policy = LbPolicy::LeastRequest.into();
        return;
    };
    if let Some(hash) = &settings.consistent_hash {
        if let Some(maglev) = &hash.maglev {
            cluster.lb_policy = LbPolicy::Maglev.into();
            let size = maglev.table_size.map(|value| UInt64Value { value });
            cluster.lb_config = size.map(|size| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(size) }));
        } else {
            cluster.lb_policy = LbPolicy::RingHash.into();
            // Istio's default holds only where no algorithm is named.
            let size = match &hash.ring_hash {
                Some(ring) => ring.minimum_ring_size,
                None => Some(hash.minimum_ring_size.unwrap_or(1024)),
            };
            cluster.lb_config = size.map(|value| {
                LbConfig::RingHashLbConfig(RingHashLbConfig {
                    minimum_ring_size: Some(UInt64Value { value }),
                    ..RingHashLbConfig::default()
                })
            });
        }
        return;
    }
    let slow_start_config = slow_start(settings);
    let (kind, config) = match settings.simple.unwrap_or_default() {
        SimpleLb::RoundRobin => (
            LbPolicy::RoundRobin,
            slow_start_config
                .map(|config| LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(config) })),
        ),
        SimpleLb::Random => (LbPolicy::Random, None),
        SimpleLb::Passthrough => (LbPolicy::ClusterProvided, None),
        SimpleLb::Unspecified | SimpleLb::LeastRequest | SimpleLb::LeastConn => (
            LbPolicy::LeastRequest,
            slow_start_config.map(|config| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(config),
                    ..LeastRequestLbConfig::default()
                })
            }),
        ),
    };
    cluster.lb_policy = kind.into();
    cluster.lb_config = config;
}

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    let Some(warmup) = &settings.warmup else {
        let window = settings.warmup_duration_secs?;
        return Some(SlowStartConfig { slow_start_window: duration(window.0), ..SlowStartConfig::default() });
    };
    Some(SlowStartConfig {
        slow_start_window: warmup.duration.and_then(|window| duration(window.0)),
        aggression: Some(RuntimeDouble {
            default_value: warmup.aggression.unwrap_or(1.0),
            // A key must be there; this one, which istiod sends too, is never set.
            runtime_key: "(".to_owned(),
        }),
        min_weight_percent: Some(Percent { value: warmup.minimum_percent.unwrap_or(10.0) }),
    })
}

fn http1() -> Option<Http1ProtocolOptions> {
    Some(Http1ProtocolOptions::default())
}

fn http2() -> Http2ProtocolOptions {
    Http2ProtocolOptions::default()
}

fn use_downstream() -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: http1(),
        http2_protocol_options: Some(http2()),
        http3_protocol_options: None,
    })
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}

/// The protocol towards the service: as declared, upgraded, or as the client speaks (DR-29, DR-30).
fn http_options(protocol: Protocol, policy: &Policy, input: &ClusterInput) -> HttpProtocolOptions {
    let http = policy.pool.as_ref().and_then(|pool| pool.http.as_ref());
    let mut options = HttpProtocolOptions::default();
    let max_streams = http.and_then(|http| http.max_concurrent_streams).and_then(uint);
    let h2 = || Http2ProtocolOptions { max_concurrent_streams: max_streams, ..http2() };
    // Who asks for the upgrade of one destination knows what it speaks; the mesh's setting is for declared HTTP.
    let upgrade = match http.and_then(|http| http.h2_upgrade_policy) {
        Some(H2UpgradePolicy::Upgrade) => true,
        Some(H2UpgradePolicy::DoNotUpgrade) => false,
        Some(H2UpgradePolicy::Default) | None => input.mesh.h2_upgrade && protocol.is_http(),
    };
    let sniffed = protocol == Protocol::Sniff && input.role == Role::Sidecar;
    options.upstream_protocol_options = if http.and_then(|http| http.use_client_protocol) == Some(true) {
        Some(use_downstream())
    } else if protocol.is_http2() || upgrade {
        Some(explicit(ProtocolConfig::Http2ProtocolOptions(h2())))
    } else if sniffed {
        Some(use_downstream())
    } else {
        None
    };
    options
}

/// Limits and timeouts of connections (DR-21 to DR-28, DR-33).
fn pool(
    cluster: &mut Cluster,
    http: &mut HttpProtocolOptions,
    pool: Option<&ConnectionPoolSettings>,
    mesh: &MeshConfig,
) {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let settings = pool.and_then(|pool| pool.http.as_ref());
    cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![breakers(pool)], ..CircuitBreakers::default() });
    cluster.connect_timeout = duration(tcp.and_then(|tcp| tcp.connect_timeout).map_or(mesh.connect_timeout, |d| d.0));
    if let Some(own) = tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref()).or(mesh.tcp_keepalive.as_ref()) {
        cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(keepalive(own)),
            ..UpstreamConnectionOptions::default()
        });
    }
    let idle = settings.and_then(|http| http.idle_timeout).or_else(|| tcp.and_then(|tcp| tcp.idle_timeout));
    let lifetime = tcp.and_then(|tcp| tcp.max_connection_duration);
    let requests = settings.and_then(|http| http.max_requests_per_connection).filter(|max| *max > 0);
    let streams = settings.and_then(|http| http.max_concurrent_streams).filter(|max| *max > 0);
    if idle.is_some() || lifetime.is_some() || requests.is_some() || streams.is_some() {
        http.common_http_protocol_options = Some(core::HttpProtocolOptions {
            idle_timeout: idle.and_then(|d| duration(d.0)),
            max_connection_duration: lifetime.and_then(|d| duration(d.0)),
            max_requests_per_connection: requests.and_then(uint),
            ..core::HttpProtocolOptions::default()
        });
    }
}

/// A budget of retries, which Envoy prefers to their limit (DR-33).
fn retry_budget(cluster: &mut Cluster, policy: &Policy) {
    let Some(own) = &policy.retry_budget else { return };
    for limits in cluster.circuit_breakers.iter_mut().flat_map(|breakers| &mut breakers.thresholds) {
        limits.retry_budget = Some(thresholds::RetryBudget {
            budget_percent: Some(Percent { value: own.percent.as_ref().map_or(20.0, |percent| percent.value) }),
            min_retry_concurrency: uint(own.min_retry_concurrency.unwrap_or(3)),
            ..thresholds::RetryBudget::default()
        });
    }
}

fn keepalive(own: &WrittenKeepalive) -> TcpKeepalive {
    let seconds =
        |d: Option<proto::istio::Duration>| d.and_then(|d| uint(u32::try_from(d.0.as_secs()).unwrap_or(u32::MAX)));
    TcpKeepalive {
        keepalive_probes: own.probes.and_then(uint),
        keepalive_time: seconds(own.time),
        keepalive_interval: seconds(own.interval),
    }
}

/// Ejection of endpoints (DR-31, DR-32).
fn outliers(cluster: &mut Cluster, policy: &Policy) {
    let Some(own) = &policy.outliers else { return };
    let enforcing = |value: Option<u32>| value.and_then(|value| uint(if value > 0 { 100 } else { 0 }));
    let split = own.split_external_local_origin_errors == Some(true);
    let consecutive = own.consecutive_5xx_errors.or(own.consecutive_errors);
    let local = own.consecutive_local_origin_failures.filter(|_| split);
    cluster.outlier_detection = Some(OutlierDetection {
        consecutive_5xx: consecutive.and_then(uint),
        enforcing_consecutive_5xx: enforcing(consecutive),
        consecutive_gateway_failure: own.consecutive_gateway_errors.and_then(uint),
        enforcing_consecutive_gateway_failure: enforcing(own.consecutive_gateway_errors),
        interval: own.interval.and_then(|d| duration(d.0)),
        base_ejection_time: own.base_ejection_time.and_then(|d| duration(d.0)),
        max_ejection_percent: own.max_ejection_percent.filter(|percent| *percent > 0).and_then(uint),
        enforcing_success_rate: uint(0),
        split_external_local_origin_errors: split,
        consecutive_local_origin_failure: local.and_then(uint),
        enforcing_consecutive_local_origin_failure: enforcing(local),
        enforcing_local_origin_success_rate: if split { uint(0) } else { None },
        ..OutlierDetection::default()
    });
    let percent = f64::from(own.min_health_percent.unwrap_or(0));
    cluster.common_lb_config.get_or_insert_default().healthy_panic_threshold = Some(Percent { value: percent });
}

/// The transport socket; returns whether the ALPN of the mesh must not be used (DR-34, DR-35, MT-1, MT-7).
fn secure(
    cluster: &mut Cluster,
    http: &mut HttpProtocolOptions,
    input: &ClusterInput,
    policy: &Policy,
    subset: &str,
) -> bool {
    let service = &*input.service;
    let protocol = service.port(input.port).map_or(Protocol::Tcp, |port| port.protocol);
    let target = Target { port: input.port, subset, host: &service.key.host, http2: protocol.is_http2() };
    let Some(settings) = &policy.tls else {
        if input.mesh.enable_auto_mtls && !service.external {
            let mesh = tls::mesh_client(&target, &input.identities, None);
            if cluster.lb_policy == i32::from(LbPolicy::ClusterProvided) {
                cluster.transport_socket = Some(mesh);
            } else {
                cluster.transport_socket_matches = matches(mesh);
            }
        }
        return false;
    };
    match settings.mode {
        ClientTlsMode::Disable => false,
        ClientTlsMode::IstioMutual => {
            let own = &settings.subject_alt_names;
            let names = if own.is_empty() { &input.identities } else { own };
            cluster.transport_socket = Some(tls::mesh_client(&target, names, Some(&settings.sni)));
            false
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            cluster.transport_socket = tls::rule_client(settings, &target, &service.subject_alt_names);
            if settings.sni.is_empty() {
                auto_sni(http, settings.subject_alt_names.is_empty() && service.subject_alt_names.is_empty());
            }
            true
        }
    }
}

fn auto_sni(http: &mut HttpProtocolOptions, check_name: bool) {
    http.upstream_http_protocol_options = Some(UpstreamHttpProtocolOptions {
        auto_sni: true,
        auto_san_validation: check_name,
        ..UpstreamHttpProtocolOptions::default()
    });
    http.upstream_protocol_options
        .get_or_insert_with(|| explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())));
}

/// Mesh mTLS for endpoints that accept it, plain for the others (MT-7, NM-11).
fn matches(mesh: core::TransportSocket) -> Vec<TransportSocketMatch> {
    vec![
        TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(super::message::structure([("tlsMode", text("istio"))])),
            transport_socket: Some(mesh),
        },
        TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(Struct::default()),
            transport_socket: Some(tls::raw_buffer()),
        },
    ]
}

fn set_http(cluster: &mut Cluster, mut http: HttpProtocolOptions) {
    if http == HttpProtocolOptions::default() {
        return;
    }
    http.upstream_protocol_options
        .get_or_insert_with(|| explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())));
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), any::pack(&http));
}

fn from_passthrough_address() -> Option<BindConfig> {
    Some(BindConfig {
        source_address: Some(super::message::socket_address(proto::wire::INBOUND_PASSTHROUGH_SOURCE, 0)),
        ..BindConfig::default()
    })
}

/// The cluster of a port that the workload serves: its own address, or what a Sidecar says (OD-5, SC-4, DR-38).
pub fn inbound(input: &InboundClusterInput) -> Cluster {
    let mut cluster = with_name(names::inbound(input.port));
    let services: Vec<&Service> = input.services.iter().map(|service| &**service).collect();
    let mut metadata = IstioMetadata::new(&services);
    if let Some(rule) = &input.rule {
        metadata.set("config", text(names::config_path(&rule.key)));
    }
    let policy = policy::effective(input.rule.as_deref(), None, input.service_port);
    let mut http = HttpProtocolOptions::default();
    let protocol = services.first().and_then(|service| service.port(input.service_port)).map(|port| port.protocol);
    http.upstream_protocol_options = match protocol {
        Some(protocol) if protocol.is_http2() => {
            Some(explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())))
        }
        Some(Protocol::Sniff) => Some(use_downstream()),
        _ => None,
    };
    pool(&mut cluster, &mut http, policy.pool.as_ref(), &input.mesh);
    set_http(&mut cluster, http);
    cluster.common_lb_config = Some(CommonLbConfig::default());
    cluster.metadata = metadata.finish();
    match &input.endpoint {
        Some((address, port)) if !address.is_empty() => {
            cluster.cluster_discovery_type = discovery(DiscoveryType::Static);
            cluster.load_assignment = Some(endpoint::single(&cluster.name, address, *port));
        }
        _ => {
            cluster.cluster_discovery_type = discovery(DiscoveryType::OriginalDst);
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.cleanup_interval = duration(NEVER);
            cluster.upstream_bind_config = from_passthrough_address();
        }
    }
    cluster
}

/// The clusters that every proxy has (OD-2 to OD-4).
pub fn fixed(which: FixedCluster, flavor: Flavor, mesh: &MeshConfig) -> Cluster {
    let name = match which {
        FixedCluster::BlackHole => proto::wire::CLUSTER_BLACK_HOLE,
        FixedCluster::Passthrough => proto::wire::CLUSTER_PASSTHROUGH,
        FixedCluster::InboundPassthrough => proto::wire::CLUSTER_INBOUND_PASSTHROUGH,
    };
    let mut cluster = with_name(name.to_owned());
    cluster.connect_timeout = duration(mesh.connect_timeout);
    if which == FixedCluster::BlackHole {
        cluster.cluster_discovery_type = discovery(DiscoveryType::Static);
        return cluster;
    }
    // The name in statistics is one for both, as istiod has it.
    cluster.alt_stat_name = format!("{};", proto::wire::CLUSTER_PASSTHROUGH);
    cluster.cluster_discovery_type = discovery(DiscoveryType::OriginalDst);
    cluster.lb_policy = LbPolicy::ClusterProvided.into();
    cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![breakers(None)], ..CircuitBreakers::default() });
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: duration(Duration::from_secs(300)),
            ..core::HttpProtocolOptions::default()
        }),
        upstream_protocol_options: Some(use_downstream()),
        ..HttpProtocolOptions::default()
    };
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), any::pack(&options));
    if which == FixedCluster::InboundPassthrough {
        cluster.upstream_bind_config = from_passthrough_address();
    } else if flavor == Flavor::Istio {
        cluster.filters = vec![Filter {
            name: "istio.metadata_exchange".to_owned(),
            typed_config: Some(telemetry::tcp_metadata_exchange()),
            ..Filter::default()
        }];
    }
    cluster
}
