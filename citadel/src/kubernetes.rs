//! The way to a Kubernetes API server.

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use std::time::Duration;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// Whose fields are those that citadel writes.
pub const FIELD_MANAGER: &str = "ferromesh-citadel";

/// A client by a kubeconfig, else as the pod's own service account. Nothing is asked of the server yet.
///
/// # Errors
/// When the kubeconfig cannot be read, or none is given and this is no pod.
pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
            let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
            config.with_context(|| format!("--kubeconfig {}", path.display()))?
        }
        None => Config::incluster().context(
            "this is no pod of a cluster: name the API server with --kubeconfig FILE, or give the CA a directory with --root-dir",
        )?,
    };
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).context("client of the API server")
}
