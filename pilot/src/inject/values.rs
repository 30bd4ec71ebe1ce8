//! The values of the installation that templates see: key `values` of the ConfigMap `istio-sidecar-injector`, over
//! our defaults (PI-57). Names are those of Istio's chart `istiod`.

use super::InjectError;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Values of the installation.
#[derive(Debug, Clone, PartialEq)]
pub struct Values(Value);

/// What is not written. Istio's chart, but for the image.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    let mut values = json!({
        "pilot": {"cni": {"enabled": false, "provider": "default"}, "crlConfigMapName": "istio-ca-crl"},
        "sidecarInjectorWebhook": {"rewriteAppHTTPProbe": true},
        "revision": "",
    });
    values["global"] = json!({
        "hub": "ferromesh",
        "tag": env!("CARGO_PKG_VERSION"),
        "variant": "",
        "imagePullPolicy": "",
        "imagePullSecrets": [],
        "istioNamespace": "istio-system",
        "caAddress": "",
        "pilotCertProvider": "istiod",
        "trustBundleName": "istio-ca-root-cert",
        "logAsJson": false,
        "logging": {"level": "default:info"},
        "meshID": "",
        "network": "",
        "multiCluster": {"clusterName": ""},
        "mountMtlsCerts": false,
        "nativeNftables": false,
        "sds": {"token": {"aud": proto::wire::TOKEN_AUDIENCE}},
        "sts": {"servicePort": 0},
        "proxy_init": {"image": "proxy", "forceApplyIptables": false},
    });
    values["global"]["proxy"] = json!({
        "image": "proxy",
        "clusterDomain": "cluster.local",
        "componentLogLevel": "misc:error",
        "logLevel": "warning",
        "includeInboundPorts": "*",
        "excludeInboundPorts": "",
        "includeIPRanges": "*",
        "excludeIPRanges": "",
        "includeOutboundPorts": "",
        "excludeOutboundPorts": "",
        "outlierLogPath": "",
        "privileged": false,
        "readinessInitialDelaySeconds": 0,
        "readinessPeriodSeconds": 15,
        "readinessFailureThreshold": 4,
        "startupProbe": {"enabled": true, "failureThreshold": 600},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
        "statusPort": proto::wire::PORT_STATUS,
    });
    values
});

impl Values {
    /// Values over our defaults; null takes a default away, as in Helm.
    pub fn new(given: &Value) -> Self {
        let mut values = DEFAULTS.clone();
        over(&mut values, given);
        Self(values)
    }

    /// Reads values as JSON or YAML.
    ///
    /// # Errors
    /// [`InjectError::Config`] where they are no mapping.
    pub fn parse(text: &str) -> Result<Self, InjectError> {
        let given: Value = serde_saphyr::from_str(text).map_err(|error| {
            InjectError::config("values", error.to_string().lines().next().unwrap_or("they cannot be read"))
        })?;
        if given.is_object() || given.is_null() {
            Ok(Self::new(&given))
        } else {
            Err(InjectError::config("values", "a mapping is needed"))
        }
    }

    /// All of them, for templates as text.
    pub fn all(&self) -> &Value {
        &self.0
    }

    /// The value at a path such as `global.proxy.image`; null where there is none.
    pub fn at(&self, path: &str) -> &Value {
        path.split('.').fold(&self.0, |value, name| &value[name])
    }

    /// The value as text, as Go prints it; empty where there is none.
    pub fn text(&self, path: &str) -> String {
        printed(self.at(path))
    }

    /// The value as text, `None` where it is empty.
    pub fn filled(&self, path: &str) -> Option<String> {
        Some(self.text(path)).filter(|text| !text.is_empty())
    }

    /// Whether the value is true.
    pub fn is_on(&self, path: &str) -> bool {
        self.at(path).as_bool() == Some(true)
    }
}

impl Default for Values {
    fn default() -> Self {
        Self::new(&Value::Null)
    }
}

/// A scalar as Go prints it; empty for anything else.
pub(super) fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(on) => on.to_string(),
        _ => String::new(),
    }
}

fn over(values: &mut Value, given: &Value) {
    let (Value::Object(values), Value::Object(given)) = (values, given) else { return };
    for (name, new) in given {
        match values.get_mut(name) {
            Some(old @ Value::Object(_)) if new.is_object() => over(old, new),
            Some(_) if new.is_null() => drop(values.shift_remove(name)),
            _ => drop(values.insert(name.clone(), new.clone())),
        }
    }
}
