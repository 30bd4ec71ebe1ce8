//! The roots in every namespace, for its pods to mount: one pilot of several copies them from the control plane's own (CA-14).

use super::KEY;
use crate::delivery::{Command, HubHandle};
use crate::status::leader::Leadership;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, PartialObjectMeta, Patch, PatchParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use proto::istio::meta::LabelSelector;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;

/// Name of the Lease, as Istio has it (PI-44).
pub const LEASE: &str = "istio-namespace-controller-election";
/// Whose fields they are.
pub const MANAGER: &str = "ferromesh-pilot";
/// Time from a change to the writing: what comes together is written together.
const QUIET: Duration = Duration::from_millis(50);
/// How often it is looked at without a change: whether this pilot leads, which namespaces count.
const LOOK: Duration = Duration::from_secs(1);
/// Kubernetes' own, which have no workloads of a mesh (as Istio has it).
const IGNORED: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Copies the roots.
pub struct Distribution {
    /// The way to the API server.
    pub client: Client,
    /// Namespace of the control plane: there citadel writes.
    pub namespace: String,
    /// Name of the ConfigMap.
    pub name: String,
    /// The way to the hub, which knows the discovery selectors.
    pub hub: HubHandle,
    /// Whether this pilot writes.
    pub leadership: Leadership,
    /// The roots.
    pub roots: watch::Receiver<Option<String>>,
}

impl Distribution {
    /// Writes for ever.
    ///
    /// # Errors
    /// Never: what cannot be written is tried again.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let (spaces, writer) = reflector::store();
        let every: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
        let events = watcher(every, watcher::Config::default()).default_backoff();
        let mut namespaces = reflector::reflector(writer, events).boxed();
        let (maps, writer) = reflector::store();
        let copies: Api<ConfigMap> = Api::all(self.client.clone());
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut copied = reflector::reflector(writer, watcher(copies, config).default_backoff()).boxed();
        let mut ready = self.hub.ready();
        if ready.wait_for(|ready| *ready).await.is_err() {
            return Ok(());
        }
        let mut pause = LOOK;
        loop {
            tokio::select! {
                _ = namespaces.next() => pause = QUIET,
                _ = copied.next() => pause = QUIET,
                changed = self.roots.changed() => {
                    changed?;
                    pause = QUIET;
                }
                () = tokio::time::sleep(pause) => {
                    pause = LOOK;
                    self.reconcile(&spaces, &maps).await;
                }
            }
        }
    }

    async fn reconcile(&mut self, spaces: &Store<PartialObjectMeta<Namespace>>, maps: &Store<ConfigMap>) {
        let Some(roots) = self.roots.borrow_and_update().clone() else { return };
        if !self.leadership.holds() {
            return;
        }
        let held: BTreeMap<String, Option<String>> = maps.state().iter().map(|map| copy(map)).collect();
        let stale = |space: &&String| held.get(*space).and_then(Option::as_ref) != Some(&roots);
        let wanting: Vec<PartialObjectMeta<Namespace>> = spaces.state().iter().map(|space| (**space).clone()).collect();
        let names: Vec<String> = wanting.iter().map(kube::ResourceExt::name_any).collect();
        if !names.iter().any(|name| stale(&name)) {
            return;
        }
        let Some(world) = self.hub.ask(Command::World).await else { return };
        let selectors = &world.mesh.config.discovery_selectors;
        for space in wanting.iter().filter(|space| self.counts(space, selectors)) {
            let name = space.name_any();
            if !stale(&&name) {
                continue;
            }
            if let Err(error) = self.write(&name, &roots).await {
                tracing::warn!(namespace = name, "cannot write the ConfigMap {}: {error}", self.name);
            }
        }
    }

    /// Whether a namespace gets the roots.
    fn counts(&self, space: &PartialObjectMeta<Namespace>, selectors: &[LabelSelector]) -> bool {
        let name = space.name_any();
        let own = name == self.namespace || IGNORED.contains(&name.as_str());
        let ends = space.metadata.deletion_timestamp.is_some();
        !own && !ends && (selectors.is_empty() || selectors.iter().any(|one| one.matches(space.labels())))
    }

    async fn write(&self, namespace: &str, roots: &str) -> kube::Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": self.name, "labels": {"istio.io/config": "true"}},
            "data": {KEY: roots},
        });
        api.patch(&self.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(map)).await.map(drop)
    }
}

/// Namespace and roots of a copy.
fn copy(map: &ConfigMap) -> (String, Option<String>) {
    let roots = map.data.as_ref().and_then(|data| data.get(KEY)).cloned();
    (map.namespace().unwrap_or_default(), roots)
}
