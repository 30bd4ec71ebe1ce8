//! What injection needs of the mesh's own settings, and ProxyConfig (spec PI-57, PI-61).

use super::pod::Pod;
use super::{InjectError, PROXY_CONFIG};
use serde_json::{Map, Value};

/// The settings of the mesh that injection reads.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshSettings {
    /// `trustDomain`.
    pub trust_domain: String,
    /// `proxyListenPort`, as text.
    pub outbound_port: String,
    /// `proxyInboundListenPort`, as text.
    pub inbound_port: String,
    /// `enablePrometheusMerge`.
    pub merge_metrics: bool,
    /// `inboundTrafficPolicy.mode` is `LOCALHOST`.
    pub inbound_localhost: bool,
    /// A tracing provider wants OpenTelemetry's semantic attributes (`serviceAttributeEnrichment`).
    pub otel_attributes: bool,
    /// `defaultConfig`.
    pub proxy: ProxyConfig,
    /// All of it, for templates as text.
    written: Value,
}

impl MeshSettings {
    /// Takes the settings out of a MeshConfig; everything absent has Istio's default.
    ///
    /// # Errors
    /// [`InjectError::Config`] where it is no mapping.
    pub fn new(written: Value) -> Result<Self, InjectError> {
        if !(written.is_object() || written.is_null()) {
            return Err(InjectError::config("mesh configuration", "a mapping is needed"));
        }
        let text = |name: &str, default: &str| {
            Some(super::values::printed(&written[name]))
                .filter(|text| !text.is_empty())
                .unwrap_or_else(|| default.into())
        };
        Ok(Self {
            trust_domain: text("trustDomain", "cluster.local"),
            outbound_port: text("proxyListenPort", "15001"),
            inbound_port: text("proxyInboundListenPort", "15006"),
            merge_metrics: written["enablePrometheusMerge"].as_bool().unwrap_or(true),
            inbound_localhost: written["inboundTrafficPolicy"]["mode"] == "LOCALHOST",
            otel_attributes: wants_otel_attributes(&written),
            proxy: ProxyConfig::default().with(&written["defaultConfig"]),
            written,
        })
    }

    /// Reads a MeshConfig as YAML.
    ///
    /// # Errors
    /// [`InjectError::Config`] where it cannot be read.
    pub fn parse(text: &str) -> Result<Self, InjectError> {
        let written = serde_saphyr::from_str(text).map_err(|error| {
            InjectError::config("mesh configuration", error.to_string().lines().next().unwrap_or("it cannot be read"))
        })?;
        Self::new(written)
    }

    /// All settings with the defaults of those that templates read, for templates as text.
    pub(super) fn all(&self) -> Value {
        let mut all = if self.written.is_object() { self.written.clone() } else { Value::Object(Map::new()) };
        all["trustDomain"] = self.trust_domain.clone().into();
        all["proxyListenPort"] = self.outbound_port.clone().into();
        all["proxyInboundListenPort"] = self.inbound_port.clone().into();
        all
    }

    /// ProxyConfig of one pod: the mesh's, with what its annotation `proxy.istio.io/config` says over it.
    pub(super) fn proxy_for(&self, pod: &Pod) -> Result<ProxyConfig, InjectError> {
        let Some(text) = pod.annotation(PROXY_CONFIG) else { return Ok(self.proxy.clone()) };
        let parsed: Result<Value, _> = serde_saphyr::from_str(text);
        match parsed {
            Ok(value) if value.is_object() || value.is_null() => Ok(self.proxy.with(&value)),
            _ => {
                let why = "write ProxyConfig as YAML, such as: concurrency: 2";
                Err(InjectError::annotation(PROXY_CONFIG, text, why))
            }
        }
    }
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            outbound_port: proto::wire::PORT_OUTBOUND.to_string(),
            inbound_port: proto::wire::PORT_INBOUND.to_string(),
            merge_metrics: true,
            inbound_localhost: false,
            otel_attributes: false,
            proxy: ProxyConfig::default(),
            written: Value::Null,
        }
    }
}

/// Whether a tracing provider of a MeshConfig wants OpenTelemetry's attributes of the workload.
pub(super) fn wants_otel_attributes(mesh: &Value) -> bool {
    let mut providers = mesh["extensionProviders"].as_array().into_iter().flatten();
    providers.any(|p| p["opentelemetry"]["serviceAttributeEnrichment"] == "OTEL_SEMANTIC_CONVENTIONS")
}

/// ProxyConfig as its JSON: most of it passes through to the proxy (variable `PROXY_CONFIG`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProxyConfig(Map<String, Value>);

/// Fields with Istio's defaults, which need not be told.
const DEFAULTS: [(&str, &str); 8] = [
    ("configPath", "./etc/istio/proxy"),
    ("binaryPath", "/usr/local/bin/envoy"),
    ("serviceCluster", "istio-proxy"),
    ("drainDuration", "45s"),
    ("terminationDrainDuration", "5s"),
    ("discoveryAddress", "istiod.istio-system.svc:15012"),
    ("controlPlaneAuthPolicy", "MUTUAL_TLS"),
    ("interceptionMode", "REDIRECT"),
];

/// Fields of which a pod may say a part, and the mesh the rest.
const MERGED: [&str; 3] = ["proxyMetadata", "proxyHeaders", "gatewayTopology"];

impl ProxyConfig {
    /// This with another one over it; `proxyMetadata`, `proxyHeaders` and `gatewayTopology` are merged.
    #[must_use]
    fn with(&self, over: &Value) -> Self {
        let mut merged = self.0.clone();
        for (name, value) in over.as_object().into_iter().flatten() {
            match (merged.get_mut(name).and_then(Value::as_object_mut), value.as_object()) {
                (Some(old), Some(new)) if MERGED.contains(&name.as_str()) => {
                    old.extend(new.iter().map(|(name, value)| (name.clone(), value.clone())));
                }
                _ if value.is_null() => {}
                _ => drop(merged.insert(name.clone(), value.clone())),
            }
        }
        Self(merged)
    }

    /// `interceptionMode`.
    pub(super) fn interception_mode(&self) -> &str {
        self.0.get("interceptionMode").and_then(Value::as_str).unwrap_or("REDIRECT")
    }

    /// `holdApplicationUntilProxyStarts`, where it is written.
    pub(super) fn hold_application(&self) -> Option<bool> {
        self.0.get("holdApplicationUntilProxyStarts")?.as_bool()
    }

    /// `statusPort`.
    pub(super) fn status_port(&self) -> u16 {
        let port = self.0.get("statusPort").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        port.unwrap_or(proto::wire::PORT_STATUS)
    }

    /// `image.imageType`.
    pub(super) fn image_type(&self) -> &str {
        self.0.get("image").and_then(|image| image["imageType"].as_str()).unwrap_or_default()
    }

    /// `proxyMetadata`: variables of the proxy, by name.
    pub(super) fn metadata(&self) -> Vec<(&str, String)> {
        let fields = self.0.get("proxyMetadata").and_then(Value::as_object).into_iter().flatten();
        let mut fields: Vec<_> = fields.map(|(name, value)| (name.as_str(), super::values::printed(value))).collect();
        fields.sort();
        fields
    }

    /// All of it, for templates as text.
    pub(super) fn all(&self) -> Value {
        let mut all = self.0.clone();
        all.entry("interceptionMode").or_insert_with(|| "REDIRECT".into());
        all.entry("statusPort").or_insert_with(|| proto::wire::PORT_STATUS.into());
        Value::Object(all)
    }

    /// The ProxyConfig of a template's data.
    pub(super) fn of(value: &Value) -> Self {
        Self::default().with(value)
    }

    /// The JSON for the variable `PROXY_CONFIG`: without what is Istio's default anyway.
    pub(super) fn told(&self) -> String {
        let is_default = |name: &str, value: &Value| {
            let number = |wanted: u64| value.as_u64() == Some(wanted);
            DEFAULTS.iter().any(|(known, default)| *known == name && value == default)
                || match name {
                    "proxyAdminPort" => number(15000),
                    "statNameLength" => number(189),
                    "statusPort" => number(u64::from(proto::wire::PORT_STATUS)),
                    "proxyMetadata" => value.as_object().is_some_and(Map::is_empty),
                    _ => false,
                }
        };
        let kept: Map<String, Value> =
            self.0.iter().filter(|(n, v)| !is_default(n, v)).map(|(n, v)| (n.clone(), v.clone())).collect();
        Value::Object(kept).to_string()
    }
}
