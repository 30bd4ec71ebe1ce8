//! Messages that `envoy-types` lacks, as small prost structs with the source of their field numbers.

use crate::envoy::wkt::Struct;

/// `udpa.type.v1.TypedStruct`: type_url = 1, value = 2 (cncf/xds: udpa/type/v1/typed_struct.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypedStruct {
    /// Type URL of the message that `value` stands for.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The message as a JSON-like struct.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}

impl prost::Name for TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "udpa.type.v1";
}

/// `istio.networking.nds.v1.NameTable`: table = 1 (istio/istio: pkg/dns/proto/nds.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct NameTable {
    /// Host name to what is known of it.
    #[prost(btree_map = "string, message", tag = "1")]
    pub table: std::collections::BTreeMap<String, NameInfo>,
}

impl prost::Name for NameTable {
    const NAME: &'static str = "NameTable";
    const PACKAGE: &'static str = "istio.networking.nds.v1";
}

/// `istio.networking.nds.v1.NameTable.NameInfo`: ips = 1, registry = 2, shortname = 3, namespace = 4.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NameInfo {
    /// Addresses that answer for the name.
    #[prost(string, repeated, tag = "1")]
    pub ips: Vec<String>,
    /// Who declared it: `Kubernetes` or `External`.
    #[prost(string, tag = "2")]
    pub registry: String,
    /// Name of the Kubernetes service.
    #[prost(string, tag = "3")]
    pub shortname: String,
    /// Namespace of the Kubernetes service.
    #[prost(string, tag = "4")]
    pub namespace: String,
}

/// `stats.PluginConfig`, configuration of the filter `istio.stats` (istio/api: envoy/extensions/stats/config.proto).
#[derive(Clone, PartialEq, prost::Message)]
pub struct PluginConfig {
    /// Do not take the host header for the name of an unknown destination.
    #[prost(bool, tag = "6")]
    pub disable_host_header_fallback: bool,
    /// Time between two reports of one TCP connection.
    #[prost(message, optional, tag = "7")]
    pub tcp_reporting_duration: Option<crate::envoy::wkt::Duration>,
    /// Changes of metrics.
    #[prost(message, repeated, tag = "8")]
    pub metrics: Vec<MetricConfig>,
    /// Who reports: 0 by direction of the listener, 1 `SERVER_GATEWAY`.
    #[prost(int32, tag = "10")]
    pub reporter: i32,
}

impl prost::Name for PluginConfig {
    const NAME: &'static str = "PluginConfig";
    const PACKAGE: &'static str = "stats";
}

/// `stats.MetricConfig`: dimensions = 1, name = 2, tags_to_remove = 3, match = 4, drop = 5.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricConfig {
    /// Labels with the expressions of their values.
    #[prost(btree_map = "string, string", tag = "1")]
    pub dimensions: std::collections::BTreeMap<String, String>,
    /// The metric; empty for all.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Labels to leave out.
    #[prost(string, repeated, tag = "3")]
    pub tags_to_remove: Vec<String>,
    /// Expression that says when this holds.
    #[prost(string, tag = "4")]
    pub r#match: String,
    /// Leave the metric out.
    #[prost(bool, tag = "5")]
    pub drop: bool,
}

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`: alpn_override = 1 (istio/api: envoy/config/filter/http/alpn).
#[derive(Clone, PartialEq, prost::Message)]
pub struct AlpnFilterConfig {
    /// What is offered, by protocol of the request.
    #[prost(message, repeated, tag = "1")]
    pub alpn_override: Vec<AlpnOverride>,
}

impl prost::Name for AlpnFilterConfig {
    const NAME: &'static str = "FilterConfig";
    const PACKAGE: &'static str = "istio.envoy.config.filter.http.alpn.v2alpha1";
}

/// One line of [`AlpnFilterConfig`]: upstream_protocol = 1 (0 HTTP10, 1 HTTP11, 2 HTTP2), alpn_override = 2.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AlpnOverride {
    /// Protocol towards the server.
    #[prost(int32, tag = "1")]
    pub upstream_protocol: i32,
    /// What is offered then.
    #[prost(string, repeated, tag = "2")]
    pub alpn_override: Vec<String>,
}
