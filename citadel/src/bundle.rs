//! Hands out the roots, for those who must trust them before they can ask citadel anything: in a file, or in a ConfigMap of
//! the control plane's namespace, from which pilot brings them to all others (spec CA-14).

use crate::ca::keystore::write_atomically;
use crate::ca::root::Authority;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The roots in it.
pub const KEY: &str = "root-cert.pem";
/// Whose fields are those that citadel writes.
pub const FIELD_MANAGER: &str = "ferromesh-citadel";
/// Time between two tries to write it.
const RETRY: Duration = Duration::from_secs(1);

/// Writes the roots to `path`.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, authority: &Authority) -> std::io::Result<()> {
    write_atomically(path, authority.roots().to_pem().as_bytes(), 0o644)
}

/// Writes the roots again whenever they change. Ends when the authority is gone.
pub async fn follow(path: &Path, mut authority: watch::Receiver<Arc<Authority>>) {
    while authority.changed().await.is_ok() {
        let current = Arc::clone(&authority.borrow_and_update());
        if let Err(error) = write(path, &current) {
            tracing::error!(%error, path = %path.display(), "cannot write the roots");
        }
    }
}

/// Keeps a ConfigMap, of this namespace and name, what it must be: written when the roots change, and when somebody else has edited or deleted it.
/// Ends when the authority is gone.
pub async fn publish(client: Client, (namespace, name): (&str, &str), mut authority: watch::Receiver<Arc<Authority>>) {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api.clone(), config).default_backoff().boxed();
    // What stands there; not known before the first list.
    let (mut found, mut listed): (Option<String>, bool) = (None, false);
    loop {
        let roots = authority.borrow_and_update().roots().to_pem();
        let wrong = listed && found.as_deref() != Some(roots.as_str());
        if wrong {
            match put(&api, name, &roots).await {
                Ok(()) => found = Some(roots),
                Err(error) => tracing::warn!(namespace, "cannot write the ConfigMap {name}: {error}"),
            }
        }
        tokio::select! {
            changed = authority.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if wrong => {}
            event = events.next() => match event {
                None => return,
                Some(Ok(Event::Init)) => found = None,
                Some(Ok(Event::Apply(map) | Event::InitApply(map))) => found = map.data.and_then(|mut data| data.remove(KEY)),
                Some(Ok(Event::Delete(_))) => found = None,
                Some(Ok(Event::InitDone)) => listed = true,
                Some(Err(error)) => tracing::debug!("ConfigMap {name}: {error}"),
            }
        }
    }
}

async fn put(api: &Api<ConfigMap>, name: &str, roots: &str) -> kube::Result<()> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"istio.io/config": "true"}},
        "data": {KEY: roots},
    });
    api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(map)).await.map(drop)
}
