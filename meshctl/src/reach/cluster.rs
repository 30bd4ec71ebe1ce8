//! The way to a cluster: its API server, its pods, and ports of these by way of it.

use super::Stream;
use super::target::{Pod, Wanted};
use anyhow::Context as _;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config, ResourceExt as _};
use proto::istio::meta::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

/// How long the API server may take to open a way to a pod.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);
/// Namespace of names without one, where the kubeconfig says none.
const NAMESPACE: &str = "default";

/// Which cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Where {
    /// The kubeconfig; without it $KUBECONFIG or ~/.kube/config.
    #[arg(long, short = 'c', value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of it; without it the current one.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

impl Where {
    /// Whether a cluster is named.
    pub fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// A client of the API server; nothing is asked of it yet.
    ///
    /// # Errors
    /// Where the kubeconfig cannot be read, or has no such context.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let file = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?,
            None => Kubeconfig::read().context("the kubeconfig; another is named with --kubeconfig FILE")?,
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(file, &options).await.context("kubeconfig")?;
        Client::try_from(config).context("client of the API server")
    }
}

/// The way to a cluster.
#[derive(Clone)]
pub struct Cluster {
    /// The client of its API server.
    pub client: Client,
    /// Namespace of the control plane.
    pub control_plane: String,
}

impl Cluster {
    /// Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// As [`Where::client`].
    pub async fn connect(at: &Where, control_plane: &str) -> anyhow::Result<Self> {
        Ok(Self { client: at.client().await?, control_plane: control_plane.to_owned() })
    }

    /// Namespace of names without one.
    pub fn namespace(&self) -> &str {
        Some(self.client.default_namespace()).filter(|name| !name.is_empty()).unwrap_or(NAMESPACE)
    }

    /// Running pods of a component of the control plane, the ready ones first.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn component(&self, app: &str) -> anyhow::Result<Vec<Pod>> {
        self.labelled(&self.control_plane, &format!("app={app}")).await
    }

    /// Running pods of a namespace with these labels, the ready ones first.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn labelled(&self, namespace: &str, labels: &str) -> anyhow::Result<Vec<Pod>> {
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), namespace);
        let list = api.list(&ListParams::default().labels(labels)).await.map_err(said);
        let list = list.with_context(|| format!("pods with {labels} in {namespace}"))?;
        let mut running: Vec<&core::Pod> = list.items.iter().filter(|pod| is_running(pod)).collect();
        running.sort_by_key(|pod| (!is_ready(pod), pod.name_any()));
        Ok(running.into_iter().map(|pod| read(pod, &[])).collect())
    }

    /// The pods that are meant by a name: `NAME` or `KIND/NAME`, in `NAME.NAMESPACE`, in `namespace`, or in that of the
    /// kubeconfig.
    ///
    /// # Errors
    /// Where there is none; what the API server says.
    pub async fn pods(&self, wanted: &Wanted, namespace: Option<&str>) -> anyhow::Result<Vec<Pod>> {
        let namespace = wanted.namespace().or(namespace).unwrap_or_else(|| self.namespace());
        let pods = self.of_namespace(namespace).await?;
        let found = wanted.of(&pods).with_context(|| format!("namespace {namespace}"))?;
        Ok(found.into_iter().cloned().collect())
    }

    /// The running pods of a namespace with the services that select them.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn of_namespace(&self, namespace: &str) -> anyhow::Result<Vec<Pod>> {
        let pods: Api<core::Pod> = Api::namespaced(self.client.clone(), namespace);
        let services: Api<core::Service> = Api::namespaced(self.client.clone(), namespace);
        let everything = ListParams::default();
        let pods = pods.list(&everything).await.map_err(said).with_context(|| format!("pods in {namespace}"))?;
        let services = services.list(&everything).await.map_err(said);
        let services = services.with_context(|| format!("services in {namespace}"))?;
        Ok(pods.items.iter().filter(|pod| is_running(pod)).map(|pod| read(pod, &services.items)).collect())
    }

    /// A stream to a port of a pod, as `kubectl port-forward` opens it: on the pod's own loopback.
    ///
    /// # Errors
    /// What the API server says, with the pod.
    pub async fn forward(&self, pod: &Pod, port: u16) -> anyhow::Result<Stream> {
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let opened = tokio::time::timeout(FORWARD_TIMEOUT, async { api.portforward(&pod.name, &[port]).await });
        let mut forward = opened
            .await
            .context("no answer within 10 s")
            .and_then(|opened| opened.map_err(said))
            .with_context(|| format!("port {port} of {} by way of the API server", pod.id()))?;
        let stream = forward.take_stream(port).with_context(|| format!("port {port} of {}", pod.id()))?;
        Ok(Box::new(stream))
    }
}

/// Whether the reason is that nothing says which cluster: there is no kubeconfig, and this runs in no pod.
pub(crate) fn is_without_kubeconfig(error: &anyhow::Error) -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_none()
        && match error.downcast_ref() {
            Some(KubeconfigError::FindPath) => true,
            Some(KubeconfigError::ReadConfig(error, path)) => {
                let usual = std::env::home_dir().map(|home| home.join(".kube/config"));
                error.kind() == ErrorKind::NotFound && usual.as_ref() == Some(path)
            }
            _ => false,
        }
}

/// What the API server said, without the rest of its answer.
pub(crate) fn said(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => other.into(),
    }
}

fn is_running(pod: &core::Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        && pod.metadata.deletion_timestamp.is_none()
}

fn is_ready(pod: &core::Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    { conditions }.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A pod as commands name it.
fn read(pod: &core::Pod, services: &[core::Service]) -> Pod {
    let owners = pod.metadata.owner_references.iter().flatten();
    let owner = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| OwnerReference {
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        controller: owner.controller == Some(true),
    };
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let meta = ObjectMeta {
        name: pod.name_any(),
        namespace: pod.namespace().unwrap_or_default(),
        labels,
        owner_references: owners.map(owner).collect(),
        ..ObjectMeta::default()
    };
    let serving = services.iter().filter(|service| selects(service, &meta.labels));
    let services = serving.map(|service| format!("{}.{}.svc", service.name_any(), meta.namespace)).collect();
    let workload = pilot::registry::owner::workload_name(&meta).to_owned();
    Pod { name: meta.name, namespace: meta.namespace, workload, services }
}

fn selects(service: &core::Service, labels: &BTreeMap<String, String>) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_has_the_name_of_its_deployment_and_its_services() {
        let pod = json!({"metadata": {"name": "web-5d4f-x", "namespace": "shop", "labels": {"app": "web", "pod-template-hash": "5d4f"},
            "ownerReferences": [{"apiVersion": "apps/v1", "uid": "1", "kind": "ReplicaSet", "name": "web-5d4f", "controller": true}]}});
        let pod: core::Pod = serde_json::from_value(pod).unwrap();
        let service = |name: &str, selector: serde_json::Value| {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"selector": selector}})).unwrap()
        };
        let services =
            [service("web", json!({"app": "web"})), service("other", json!({"app": "x"})), service("none", json!({}))];
        let pod = read(&pod, &services);
        assert_eq!((pod.workload.as_str(), pod.services), ("web", vec!["web.shop.svc".to_owned()]));
    }

    #[test]
    fn only_a_kubeconfig_that_is_not_there_is_none() {
        let is_none = |error: KubeconfigError| is_without_kubeconfig(&anyhow::Error::new(error).context("kubeconfig"));
        let unreadable = |path: PathBuf, kind: ErrorKind| is_none(KubeconfigError::ReadConfig(kind.into(), path));
        let usual = std::env::home_dir().unwrap().join(".kube/config");
        assert!(unreadable(usual.clone(), ErrorKind::NotFound));
        assert!(!unreadable(usual, ErrorKind::PermissionDenied));
        assert!(!unreadable("/named/by/KUBECONFIG".into(), ErrorKind::NotFound));
        assert!(!is_none(KubeconfigError::CurrentContextNotSet));
    }
}
