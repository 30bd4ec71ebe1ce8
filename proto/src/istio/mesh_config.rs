//! MeshConfig (spec 1.14, PI-78). As istiod does, unknown fields of this one file are passed over by its reader
//! with a warning each, for a mesh configuration is shared with other components.

use super::destination_rule::{H2UpgradePolicy, LocalityLbSetting, TcpKeepalive};
use super::meta::LabelSelector;
use super::provider::ExtensionProvider;
use super::sidecar::OutboundTrafficPolicy;
use super::virtual_service::HttpRetry;
use super::{Duration, Later};

istio_struct! {
    /// The mesh's own settings.
    MeshConfig {
        proxy_listen_port: Option<u16>,
        proxy_inbound_listen_port: Option<u16>,
        connect_timeout: Option<Duration>,
        protocol_detection_timeout: Option<Duration>,
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
        enable_auto_mtls: Option<bool>,
        enable_tracing: Option<bool>,
        access_log_file: Option<String>,
        access_log_format: Option<String>,
        access_log_encoding: Option<AccessLogEncoding>,
        trust_domain: Option<String>,
        trust_domain_aliases: Vec<String>,
        root_namespace: Option<String>,
        default_service_export_to: Vec<String>,
        default_virtual_service_export_to: Vec<String>,
        default_destination_rule_export_to: Vec<String>,
        default_providers: DefaultProviders,
        default_config: Option<serde_json::Value>,
        default_http_retry_policy: Option<HttpRetry>,
        dns_refresh_rate: Option<Duration>,
        locality_lb_setting: Option<LocalityLbSetting>,
        h2_upgrade_policy: Option<H2UpgradePolicy>,
        tcp_keepalive: Option<TcpKeepalive>,
        path_normalization: Option<PathNormalization>,
        ingress_class: Option<String>,
        enable_prometheus_merge: Option<bool>,
        discovery_selectors: Vec<LabelSelector>,
        extension_providers: Vec<ExtensionProvider>,
        disable_policy_checks: Option<bool>,
        policy_check_fail_open: Option<bool>,
        mixer_check_server: Option<String>,
        mixer_report_server: Option<String>,
        mesh_networks: Option<Later>,
        mesh_id: Option<String>,
    }
}

istio_struct! {
    /// What every proxy does without a Telemetry object.
    #[derive(Eq)]
    DefaultProviders {
        metrics: Vec<String>,
        tracing: Vec<String>,
        access_logging: Vec<String>,
    }
}

istio_struct! {
    /// How paths are made plain before anything looks at them.
    #[derive(Eq)]
    PathNormalization { normalization: NormalizationType }
}

istio_enum! {
    /// The degrees of normalization.
    NormalizationType { Default, None, Base, MergeSlashes, DecodeAndMergeSlashes }
}

istio_enum! {
    /// Form of the access log.
    AccessLogEncoding { Text, Json }
}
