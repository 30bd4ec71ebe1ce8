//! Volumes of the proxy and where they are mounted (spec PI-62).

use super::pod::Pod;
use super::proxy::Facts;
use proto::wire::ROOTS_CONFIG_MAP;
use serde_json::{Value, json};

const BOOTSTRAP_OVERRIDE: &str = "sidecar.istio.io/bootstrapOverride";
/// Life of the token with which the proxy proves itself to the CA.
const TOKEN_LIFE_S: u32 = 43200;

impl Facts<'_> {
    /// Mounts of the proxy's container.
    pub(super) fn volume_mounts(&self, with_crl: bool) -> Vec<Value> {
        let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
        let mut mounts = vec![
            mount("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
            mount("credential-socket", "/var/run/secrets/credential-uds"),
            mount("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
        ];
        if self.roots_come_from_pilot() {
            mounts.push(mount("istiod-ca-cert", "/var/run/secrets/istio"));
            if with_crl {
                mounts.push(mount("istio-ca-crl", "/var/run/secrets/istio/crl"));
            }
        }
        mounts.push(mount("istio-data", "/var/lib/istio/data"));
        if self.pod.annotation(BOOTSTRAP_OVERRIDE).is_some() {
            mounts.push(mount("custom-bootstrap-volume", "/etc/istio/custom-bootstrap"));
        }
        mounts.push(mount("istio-envoy", "/etc/istio/proxy"));
        mounts.push(mount("istio-token", "/var/run/secrets/tokens"));
        if self.values.is_on("global.mountMtlsCerts") {
            mounts.push(json!({"name": "istio-certs", "mountPath": "/etc/certs/", "readOnly": true}));
        }
        mounts.push(mount("istio-podinfo", "/etc/istio/pod"));
        mounts.extend(named(self.pod, "sidecar.istio.io/userVolumeMount"));
        mounts
    }

    /// Volumes of the pod. Those without a source are an `emptyDir` for Kubernetes, and a template of the user's may
    /// give them another source.
    pub(super) fn volumes(&self, with_crl: bool) -> Vec<Value> {
        let values = self.values;
        let mut volumes = vec![
            json!({"name": "workload-socket"}),
            json!({"name": "credential-socket"}),
            json!({"name": "workload-certs"}),
        ];
        if let Some(name) = self.pod.annotation(BOOTSTRAP_OVERRIDE) {
            volumes.push(json!({"name": "custom-bootstrap-volume", "configMap": {"name": name}}));
        }
        let field = |path: &str| json!({"path": path, "fieldRef": {"fieldPath": format!("metadata.{path}")}});
        let token = json!({
            "path": "istio-token", "expirationSeconds": TOKEN_LIFE_S, "audience": values.at("global.sds.token.aud"),
        });
        volumes.extend([
            json!({"name": "istio-envoy", "emptyDir": {"medium": "Memory"}}),
            json!({"name": "istio-data", "emptyDir": {}}),
            json!({"name": "istio-podinfo", "downwardAPI": {"items": [field("labels"), field("annotations")]}}),
            json!({"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": token}]}}),
        ]);
        if self.roots_come_from_pilot() {
            let roots = values.filled("global.trustBundleName").unwrap_or_else(|| ROOTS_CONFIG_MAP.to_owned());
            volumes.push(json!({"name": "istiod-ca-cert", "configMap": {"name": roots}}));
        }
        if with_crl {
            let name = values.at("pilot.crlConfigMapName");
            volumes.push(json!({"name": "istio-ca-crl", "configMap": {"name": name, "optional": true}}));
        }
        if values.is_on("global.mountMtlsCerts") {
            let account = self.pod.spec("serviceAccountName").as_str().filter(|name| !name.is_empty());
            let secret = format!("istio.{}", account.unwrap_or("default"));
            volumes.push(json!({"name": "istio-certs", "secret": {"optional": true, "secretName": secret}}));
        }
        volumes.extend(named(self.pod, "sidecar.istio.io/userVolume"));
        volumes
    }

    /// Secrets with which images are pulled; `None` where the values have none.
    pub(super) fn image_pull_secrets(&self) -> Option<Vec<Value>> {
        let names = self.values.at("global.imagePullSecrets").as_array()?;
        (!names.is_empty()).then(|| names.iter().map(|name| json!({"name": name})).collect())
    }

    fn roots_come_from_pilot(&self) -> bool {
        self.values.text("global.pilotCertProvider") == "istiod"
    }
}

/// The items of an annotation that is a JSON object: name → the rest of the item.
fn named(pod: &Pod, annotation: &str) -> Vec<Value> {
    let parsed = pod.annotation(annotation).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let items = parsed.as_ref().and_then(Value::as_object).into_iter().flatten();
    items
        .filter_map(|(name, rest)| {
            let mut item = json!({"name": name});
            item.as_object_mut()?.extend(rest.as_object()?.clone());
            Some(item)
        })
        .collect()
}
