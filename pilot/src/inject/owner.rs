//! Who made a pod: the name of its workload (variables `ISTIO_META_WORKLOAD_NAME`, `ISTIO_META_OWNER`).

use super::pod::Pod;
use serde_json::Value;

/// The workload of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// `apiVersion` of its kind; empty where nobody knows.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace; empty where nobody knows.
    pub namespace: String,
}

impl Owner {
    /// The name of the whole as Istio writes it, where it is known.
    pub(super) fn uri(&self) -> Option<String> {
        let Self { api_version, kind, name, namespace } = self;
        if api_version.is_empty() || name.is_empty() {
            return None;
        }
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        Some(format!("kubernetes://apis/{api_version}/namespaces/{namespace}/{}s/{name}", kind.to_lowercase()))
    }
}

/// The workload of a pod by its controller. The controllers of Deployments, Rollouts, DeploymentConfigs and CronJobs
/// are themselves made by another object, whose name is found in theirs.
pub fn owner_of_pod(pod: &Pod, namespace: &str) -> Owner {
    let itself = Owner {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.meta("name").to_owned(),
        namespace: namespace.to_owned(),
    };
    let references = pod.value()["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let controller = { references }.find(|reference| reference["controller"] == true);
    let Some(controller) = controller.filter(|_| !pod.meta("generateName").is_empty()) else { return itself };
    let text = |name: &str| controller[name].as_str().unwrap_or_default();
    let of = |api_version: &str, kind: &str, name: &str| Owner {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
    };
    let (api_version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
    let before_hash = |label: &str| {
        let hash = pod.label(label).filter(|hash| !hash.is_empty())?;
        name.strip_suffix(hash)?.strip_suffix('-')
    };
    match kind {
        "ReplicaSet" => match (before_hash("pod-template-hash"), before_hash("rollouts-pod-template-hash")) {
            (Some(name), _) => of(api_version, "Deployment", name),
            (None, Some(name)) => of("v1alpha1", "Rollout", name),
            (None, None) => of(api_version, kind, name),
        },
        "ReplicationController" => match pod.label("deploymentconfig").filter(|name| !name.is_empty()) {
            Some(name) => of(api_version, "DeploymentConfig", name),
            None => of(api_version, kind, name),
        },
        "Job" => match before_time(name) {
            Some(name) => of("batch/v1", "CronJob", name),
            None => of(api_version, kind, name),
        },
        _ => of(api_version, kind, name),
    }
}

/// `NAME-TIME` of a CronJob's job: 8 to 10 digits.
fn before_time(name: &str) -> Option<&str> {
    let (name, time) = name.rsplit_once('-')?;
    ((8..=10).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// The name of a container's image after its tag or digest, where it has them.
pub(super) fn tag_and_digest(image: &str) -> (Option<&str>, Option<&str>) {
    let (named, digest) = image.split_once('@').map_or((image, None), |(named, digest)| (named, Some(digest)));
    let last = named.rsplit('/').next().unwrap_or(named);
    (last.split_once(':').map(|(_, tag)| tag), digest)
}

/// Attributes of the workload after OpenTelemetry's conventions for Kubernetes; `None` where there are none.
pub(super) fn otel_attributes(pod: &Pod, namespace: &str, containers: &[Value]) -> Option<String> {
    let annotation = |name: &str| {
        let found = pod.annotation(&format!("resource.opentelemetry.io/service.{name}"));
        found.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let mut attributes = Vec::new();
    let known_namespace = Some(namespace).filter(|name| !name.is_empty()).map(str::to_owned);
    if let Some(value) = annotation("namespace").or(known_namespace) {
        attributes.push(format!("service.namespace={value}"));
    }
    let of_image = || match containers {
        [only] => match tag_and_digest(only["image"].as_str().unwrap_or_default()) {
            (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
            (tag, digest) => digest.or(tag).map(str::to_owned),
        },
        _ => None,
    };
    let label = pod.label("app.kubernetes.io/version").filter(|value| !value.is_empty()).map(str::to_owned);
    if let Some(value) = annotation("version").or(label).or_else(of_image) {
        attributes.push(format!("service.version={value}"));
    }
    let instance = || containers.first().map(|first| format!("{namespace}.$(POD_NAME).{}", super::pod::name(first)));
    if let Some(value) = annotation("instance.id").or_else(instance) {
        attributes.push(format!("service.instance.id={value}"));
    }
    (!attributes.is_empty()).then(|| attributes.join(","))
}
