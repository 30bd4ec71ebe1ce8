//! Type URLs of xDS resources: the one table (spec XD-1, PI-27).

/// What every type URL begins with.
pub const PREFIX: &str = "type.googleapis.com/";
/// CDS.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// EDS.
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// LDS.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// RDS.
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// VHDS.
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
/// SDS.
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// ECDS.
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// Istio's DNS name table.
pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
/// Istio's proxy configuration (trust roots).
pub const PROXY_CONFIG: &str = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig";
/// Health reported by a VM's proxy.
pub const HEALTH_INFORMATION: &str = "type.googleapis.com/istio.v1.HealthInformation";
/// Debug questions over xDS.
pub const DEBUG: &str = "istio.io/debug";

/// Type URL and the short name that people use for it.
pub const TABLE: &[(&str, &str)] = &[
    (CLUSTER, "CDS"),
    (ENDPOINT, "EDS"),
    (LISTENER, "LDS"),
    (ROUTE, "RDS"),
    (VIRTUAL_HOST, "VHDS"),
    (SECRET, "SDS"),
    (EXTENSION_CONFIG, "ECDS"),
    (NAME_TABLE, "NDS"),
    (PROXY_CONFIG, "PCDS"),
    (HEALTH_INFORMATION, "HDS"),
];

/// The short name of a type URL (`CDS`), or the URL itself where it has none.
pub fn short_name(type_url: &str) -> &str {
    TABLE.iter().find(|(url, _)| *url == type_url).map_or(type_url, |(_, short)| short)
}
