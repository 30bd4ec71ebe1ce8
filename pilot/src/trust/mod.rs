//! The trust of the mesh on Kubernetes: pilot's own certificate, and the roots in every namespace.
//!
//! It knows where citadel publishes its roots, and asks citadel as any workload does. It must never know the CA's key, nor
//! decide who a caller is.

pub mod enrol;
pub mod roots;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::watch;

/// The roots in it.
pub const KEY: &str = "root-cert.pem";

/// Follows the roots that citadel publishes in a ConfigMap, its namespace and name; one that is gone changes nothing.
///
/// # Errors
/// Never: an API server that is away is waited for.
pub async fn follow(
    client: Client,
    (namespace, name): (String, String),
    roots: watch::Sender<Option<String>>,
) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client, &namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        let map = match event {
            Ok(Event::Apply(map) | Event::InitApply(map)) => map,
            Ok(_) => continue,
            Err(error) => {
                tracing::debug!("ConfigMap {name}: {error}");
                continue;
            }
        };
        let Some(found) = roots_of(&map) else {
            tracing::warn!(namespace, "{KEY} of the ConfigMap {name} holds no certificates: the roots before stay");
            continue;
        };
        roots.send_if_modified(|held| {
            let differ = held.as_deref() != Some(found);
            if differ {
                *held = Some(found.to_owned());
            }
            differ
        });
    }
    Ok(())
}

/// The roots in a ConfigMap, if they are some.
fn roots_of(map: &ConfigMap) -> Option<&str> {
    let text = map.data.as_ref()?.get(KEY)?;
    identity::bundle::TrustBundle::from_pem(text.as_bytes()).ok().map(|_| text.as_str())
}
