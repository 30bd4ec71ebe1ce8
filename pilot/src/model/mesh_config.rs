//! The mesh's own settings with their defaults (spec 1.14, PI-78).

use proto::istio::destination_rule::{H2UpgradePolicy, LocalityLbSetting, TcpKeepalive};
use proto::istio::mesh_config as written;
use proto::istio::mesh_config::{AccessLogEncoding, NormalizationType};
use proto::istio::sidecar::OutboundMode;
use proto::istio::virtual_service::HttpRetry;
use std::time::Duration;

/// The settings of the mesh.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the names are MeshConfig's own")]
pub struct MeshConfig {
    pub proxy_listen_port: u16,
    pub proxy_inbound_listen_port: u16,
    pub connect_timeout: Duration,
    pub protocol_detection_timeout: Duration,
    pub outbound_mode: OutboundMode,
    pub enable_auto_mtls: bool,
    pub enable_tracing: bool,
    pub access_log_file: String,
    pub access_log_format: String,
    pub access_log_encoding: AccessLogEncoding,
    pub trust_domain: String,
    pub trust_domain_aliases: Vec<String>,
    pub root_namespace: String,
    pub service_export_to: Vec<String>,
    pub virtual_service_export_to: Vec<String>,
    pub destination_rule_export_to: Vec<String>,
    pub metrics_providers: Vec<String>,
    pub http_retry: Option<HttpRetry>,
    pub dns_refresh_rate: Duration,
    pub locality: LocalityLbSetting,
    pub h2_upgrade: bool,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub path_normalization: NormalizationType,
    /// Domain of Kubernetes services; a flag, not a field.
    pub domain: String,
    /// Name of the cluster; a flag, not a field.
    pub cluster: String,
    /// Whether to send Istio's values where ours differ (see `translate::defaults`); a flag, not a field.
    pub istio_defaults: bool,
}

impl MeshConfig {
    /// The settings as meant, from what is written and from the flags.
    pub fn new(written: written::MeshConfig, domain: &str, cluster: &str) -> Self {
        let all = |list: Vec<String>| if list.is_empty() { vec!["*".to_owned()] } else { list };
        let mode = written.outbound_traffic_policy.and_then(|policy| policy.mode);
        Self {
            proxy_listen_port: written.proxy_listen_port.unwrap_or(proto::wire::PORT_OUTBOUND),
            proxy_inbound_listen_port: written.proxy_inbound_listen_port.unwrap_or(proto::wire::PORT_INBOUND),
            connect_timeout: written.connect_timeout.map_or(Duration::from_secs(10), |d| d.0),
            protocol_detection_timeout: written.protocol_detection_timeout.map_or(Duration::ZERO, |d| d.0),
            outbound_mode: mode.unwrap_or(OutboundMode::AllowAny),
            enable_auto_mtls: written.enable_auto_mtls.unwrap_or(true),
            enable_tracing: written.enable_tracing.unwrap_or(true),
            access_log_file: written.access_log_file.unwrap_or_default(),
            access_log_format: written.access_log_format.unwrap_or_default(),
            access_log_encoding: written.access_log_encoding.unwrap_or_default(),
            trust_domain: written.trust_domain.unwrap_or_else(|| "cluster.local".to_owned()),
            trust_domain_aliases: written.trust_domain_aliases,
            root_namespace: written.root_namespace.unwrap_or_else(|| "istio-system".to_owned()),
            service_export_to: all(written.default_service_export_to),
            virtual_service_export_to: all(written.default_virtual_service_export_to),
            destination_rule_export_to: all(written.default_destination_rule_export_to),
            metrics_providers: written.default_providers.metrics,
            http_retry: written.default_http_retry_policy,
            dns_refresh_rate: written.dns_refresh_rate.map_or(Duration::from_secs(60), |d| d.0),
            locality: written.locality_lb_setting.unwrap_or_default(),
            h2_upgrade: written.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade),
            tcp_keepalive: written.tcp_keepalive,
            path_normalization: written.path_normalization.map(|p| p.normalization).unwrap_or_default(),
            domain: domain.to_owned(),
            cluster: cluster.to_owned(),
            istio_defaults: false,
        }
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self::new(written::MeshConfig::default(), "cluster.local", "Kubernetes")
    }
}
