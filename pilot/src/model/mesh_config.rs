//! The mesh's own settings with their defaults (spec 1.14, PI-78).

use super::proxy_config::ProxyConfig;
use proto::istio::destination_rule::{H2UpgradePolicy, LocalityLbSetting, TcpKeepalive};
use proto::istio::mesh_config as written;
use proto::istio::mesh_config::{AccessLogEncoding, NormalizationType};
use proto::istio::meta::LabelSelector;
use proto::istio::provider::ExtensionProvider;
use proto::istio::sidecar::OutboundMode;
use proto::istio::virtual_service::HttpRetry;
use std::time::Duration;

/// Share of requests that are traced where nothing is said (TR-2): 1 %.
const SAMPLING: u32 = 100;

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
    pub log_providers: Vec<String>,
    pub trace_provider: Option<String>,
    pub providers: Vec<ExtensionProvider>,
    /// Host and port of the service that decides and counts for all proxies (`mixerCheckServer`).
    pub policy_server: Option<(String, u16)>,
    /// Host and port of the service that all proxies tell of failed requests (`mixerReportServer`).
    pub report_server: Option<(String, u16)>,
    /// Every inbound request is checked with it (`disablePolicyChecks: false`).
    pub checks: bool,
    pub policy_check_fail_open: bool,
    /// Namespaces whose objects count; none: all.
    pub discovery_selectors: Vec<LabelSelector>,
    pub mesh_id: String,
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
    /// Whether hosts of ServiceEntries without addresses get some (SE-13); a flag, not a field.
    pub ip_autoallocate: bool,
    /// Proxies answer DNS, where nothing else is said of them (`defaultConfig.proxyMetadata.ISTIO_META_DNS_CAPTURE`).
    pub captures_dns: bool,
    /// What proxies do that say nothing else (`defaultConfig`).
    pub proxy: ProxyConfig,
    /// Share of requests that are traced where nothing is said, in hundredths of a percent; a flag, not a field.
    pub sampling: u32,
}

impl MeshConfig {
    /// The trust domain of the mesh, then its aliases (CA-7).
    pub fn trust_domains(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.trust_domain).chain(&self.trust_domain_aliases)
    }

    /// The settings as meant, from what is written and from the flags.
    pub fn new(written: written::MeshConfig, domain: &str, cluster: &str) -> Self {
        let all = |list: Vec<String>| if list.is_empty() { vec!["*".to_owned()] } else { list };
        // As citadel names it in certificates (CA-6).
        let domain_name = |text: String| text.replace('@', ".");
        let default_config = written.default_config.clone().unwrap_or_default();
        let mode = written.outbound_traffic_policy.and_then(|policy| policy.mode);
        Self {
            proxy_listen_port: written.proxy_listen_port.unwrap_or(proto::wire::PORT_OUTBOUND),
            proxy_inbound_listen_port: written.proxy_inbound_listen_port.unwrap_or(proto::wire::PORT_INBOUND),
            connect_timeout: written.connect_timeout.map_or(Duration::from_secs(10), |d| d.0),
            protocol_detection_timeout: written.protocol_detection_timeout.map_or(Duration::ZERO, |d| d.0),
            outbound_mode: mode.unwrap_or(OutboundMode::AllowAny),
            enable_auto_mtls: written.enable_auto_mtls.unwrap_or(true),
            enable_tracing: written.enable_tracing.unwrap_or(true),
            // The provider that Istio calls `envoy` is its access log; a file for it turns it on for the whole mesh.
            log_providers: match (&written.access_log_file, written.default_providers.access_logging.as_slice()) {
                (Some(file), []) if !file.is_empty() => vec!["envoy".to_owned()],
                (_, names) => names.to_vec(),
            },
            access_log_file: written
                .access_log_file
                .filter(|f| !f.is_empty())
                .unwrap_or_else(|| "/dev/stdout".to_owned()),
            access_log_format: written.access_log_format.unwrap_or_default(),
            access_log_encoding: written.access_log_encoding.unwrap_or_default(),
            trust_domain: domain_name(written.trust_domain.unwrap_or_else(|| "cluster.local".to_owned())),
            trust_domain_aliases: written.trust_domain_aliases.into_iter().map(domain_name).collect(),
            root_namespace: written.root_namespace.unwrap_or_else(|| "istio-system".to_owned()),
            service_export_to: all(written.default_service_export_to),
            virtual_service_export_to: all(written.default_virtual_service_export_to),
            destination_rule_export_to: all(written.default_destination_rule_export_to),
            metrics_providers: written.default_providers.metrics,
            trace_provider: written.default_providers.tracing.into_iter().next(),
            providers: written.extension_providers,
            policy_server: server(written.mixer_check_server.as_deref()),
            report_server: server(written.mixer_report_server.as_deref()),
            checks: written.disable_policy_checks == Some(false),
            policy_check_fail_open: written.policy_check_fail_open.unwrap_or(false),
            discovery_selectors: written.discovery_selectors,
            mesh_id: written.mesh_id.unwrap_or_default(),
            http_retry: written.default_http_retry_policy,
            dns_refresh_rate: written.dns_refresh_rate.map_or(Duration::from_secs(60), |d| d.0),
            locality: written.locality_lb_setting.unwrap_or_default(),
            h2_upgrade: written.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade),
            tcp_keepalive: written.tcp_keepalive,
            path_normalization: written.path_normalization.map(|p| p.normalization).unwrap_or_default(),
            domain: domain.to_owned(),
            cluster: cluster.to_owned(),
            istio_defaults: false,
            ip_autoallocate: true,
            captures_dns: default_config["proxyMetadata"]["ISTIO_META_DNS_CAPTURE"] == "true",
            proxy: ProxyConfig::parse(&default_config).unwrap_or_default(),
            sampling: SAMPLING,
        }
    }

    /// Host and port of every service that the mesh itself has proxies call: of providers, of policy, of reports. A
    /// provider's host may be `NAMESPACE/HOST`.
    pub fn own_services(&self) -> impl Iterator<Item = (&str, u16)> {
        let servers = [&self.policy_server, &self.report_server].into_iter().flatten();
        let servers = servers.map(|(host, port)| (host.as_str(), *port));
        self.providers.iter().filter_map(|provider| provider.service()).chain(servers)
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self::new(written::MeshConfig::default(), "cluster.local", "Kubernetes")
    }
}

/// Reads the mesh's own settings. A field that nobody here knows is passed over with a warning, for a mesh
/// configuration is shared with other components; everything else that is wrong is an error.
///
/// # Errors
/// What is wrong, with field and line.
pub fn parse(text: &str) -> anyhow::Result<written::MeshConfig> {
    use crate::source::yaml::{Node, Value, decode};
    let mut node = Node::parse(text, 1).map_err(anyhow::Error::new)?;
    loop {
        let fault = match decode::<written::MeshConfig>(&node) {
            Ok(config) => return supported(config),
            Err(fault) if fault.class == crate::source::Class::UnknownField => fault,
            Err(fault) => return Err(anyhow::Error::new(fault)),
        };
        let path = fault.field();
        let name = path.split(['.', '[']).next().unwrap_or_default();
        tracing::warn!(line = fault.line, "passed over in the mesh configuration: {path}: {}", fault.message);
        match &mut node.value {
            Value::Map(entries) if entries.iter().any(|(key, _)| key == name) => entries.retain(|(key, _)| key != name),
            _ => return Err(anyhow::Error::new(fault)),
        }
    }
}

/// Host and port of `HOST:PORT`.
fn server(written: Option<&str>) -> Option<(String, u16)> {
    let (host, port) = written?.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

/// Refuses providers that do not exist.
fn supported(config: written::MeshConfig) -> anyhow::Result<written::MeshConfig> {
    let providers = &config.default_providers;
    let lists = [
        ("metrics", &providers.metrics, "prometheus"),
        ("accessLogging", &providers.access_logging, "envoy"),
        ("tracing", &providers.tracing, ""),
    ];
    for (field, names, built_in) in lists {
        let known = |name: &String| name == built_in || config.extension_providers.iter().any(|p| p.name == *name);
        if let Some(name) = names.iter().find(|name| !known(name)) {
            anyhow::bail!(
                "defaultProviders.{field}: {name:?} is no provider: extensionProviders has none of this name"
            );
        }
    }
    for (index, provider) in config.extension_providers.iter().enumerate() {
        let forms = provider.forms();
        if forms != 1 || provider.name.is_empty() {
            anyhow::bail!("extensionProviders[{index}]: a name and exactly one kind of provider are needed");
        }
    }
    ProxyConfig::parse(config.default_config.as_ref().unwrap_or(&serde_json::Value::Null))
        .map_err(anyhow::Error::msg)?;
    if config.disable_policy_checks == Some(false) && server(config.mixer_check_server.as_deref()).is_none() {
        anyhow::bail!("mixerCheckServer: HOST:PORT is needed where disablePolicyChecks is false");
    }
    let reports = config.mixer_report_server.as_deref().filter(|written| !written.is_empty());
    if reports.is_some() && server(reports).is_none() {
        anyhow::bail!("mixerReportServer: HOST:PORT is needed; leave it out, and no proxy tells of failed requests");
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: PI-78, CA-6
    #[test]
    fn defaults_are_istios_and_unknown_fields_are_passed_over() {
        let config = MeshConfig::default();
        assert_eq!((config.proxy_listen_port, config.proxy_inbound_listen_port), (15001, 15006));
        assert_eq!(
            (config.connect_timeout, config.dns_refresh_rate),
            (Duration::from_secs(10), Duration::from_secs(60))
        );
        assert_eq!((config.outbound_mode, config.enable_auto_mtls), (OutboundMode::AllowAny, true));
        assert_eq!((config.trust_domain.as_str(), config.root_namespace.as_str()), ("cluster.local", "istio-system"));
        let written =
            parse("connectTimeout: 3s\nsomethingElse: {a: 1}\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n").unwrap();
        let config = MeshConfig::new(written, "d", "c");
        assert_eq!(
            (config.connect_timeout, config.outbound_mode),
            (Duration::from_secs(3), OutboundMode::RegistryOnly)
        );
        let written = parse("trustDomain: a@b\ntrustDomainAliases: [c@d]\n").unwrap();
        let domains: Vec<String> = MeshConfig::new(written, "d", "c").trust_domains().cloned().collect();
        assert_eq!(domains, ["a.b", "c.d"]);
        let refused = parse("defaultProviders: {tracing: [zipkin]}\n").unwrap_err();
        assert!(refused.to_string().contains("defaultProviders.tracing: \"zipkin\" is no provider"), "{refused}");
        let known = "extensionProviders: [{name: zipkin, zipkin: {service: z.ns, port: 9411}}]\ndefaultProviders: {tracing: [zipkin]}\n";
        assert_eq!(MeshConfig::new(parse(known).unwrap(), "d", "c").trace_provider.as_deref(), Some("zipkin"));
        let two =
            parse("extensionProviders: [{name: z, prometheus: {}, zipkin: {service: z, port: 1}}]\n").unwrap_err();
        assert!(two.to_string().contains("extensionProviders[0]"), "{two}");
        let logging = MeshConfig::new(parse("defaultProviders: {accessLogging: [envoy]}\n").unwrap(), "d", "c");
        assert_eq!(
            (logging.access_log_file.as_str(), logging.log_providers),
            ("/dev/stdout", vec!["envoy".to_owned()])
        );
        assert!(MeshConfig::default().log_providers.is_empty());
        let error = format!("{:#}", parse("a: 1\nconnectTimeout: soon\n").unwrap_err());
        assert!(error.contains("line 2") && error.contains("connectTimeout"), "{error}");
    }
}
