//! Settings of injection as they are now: the ConfigMap `istio-sidecar-injector`, the mesh's own settings, and whether
//! the cluster knows native sidecars (PI-7, PI-63).

use crate::inject::{Config, InjectError, MeshSettings, Settings, Values};
use anyhow::Context as _;
use futures_util::stream::{BoxStream, StreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, ListParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config as Watch, watcher};
use kube::{Client, ResourceExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The first version of kubelets, 1.MINOR, whose init containers may keep running.
const NATIVE_SINCE_MINOR: u32 = 33;

/// Whether proxies become native sidecars where their pod does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum NativeSidecars {
    /// Where every kubelet knows them.
    Auto,
    /// Always.
    True,
    /// Never.
    False,
}

/// Where settings come from.
pub struct Origin {
    /// The way to the API server.
    pub client: Client,
    /// Namespace of the ConfigMaps.
    pub namespace: String,
    /// Revision; empty is the default one.
    pub revision: String,
    /// The mesh's own settings as text, where they come from a file.
    pub mesh: Option<String>,
    /// Native sidecars.
    pub native: NativeSidecars,
}

/// What is known.
#[derive(Default)]
struct Found {
    config: Option<String>,
    values: Option<String>,
    mesh: Option<String>,
    /// Whether the kubelet of a node knows native sidecars.
    nodes: BTreeMap<String, bool>,
    /// Lists that are complete: injector, mesh, nodes.
    complete: [bool; 3],
}

enum Change {
    Injector(watcher::Result<watcher::Event<ConfigMap>>),
    Mesh(watcher::Result<watcher::Event<ConfigMap>>),
    /// The name of a node, and whether its kubelet knows native sidecars.
    Nodes(watcher::Result<watcher::Event<(String, bool)>>),
}

/// Publishes settings for ever: the first once all has been read, then each that can be used. Of those that cannot, the log
/// says why, and the ones before stay.
///
/// # Errors
/// Never: an API server that is away is waited for.
pub async fn follow(origin: Origin, settings: watch::Sender<Option<Arc<Settings>>>) -> anyhow::Result<()> {
    let mut found = Found { mesh: origin.mesh.clone(), ..Found::default() };
    found.complete = [false, origin.mesh.is_some(), false];
    let mut changes = changes(&origin);
    while let Some(change) = changes.next().await {
        if !found.take(change) || found.complete.contains(&false) {
            continue;
        }
        match found.settings(&origin) {
            Ok(new) => {
                tracing::info!(native_sidecars = new.native_sidecars, "settings of injection are in force");
                settings.send_replace(Some(Arc::new(new)));
            }
            Err(error) => tracing::warn!("the settings of injection before stay: {error}"),
        }
    }
    Ok(())
}

/// The settings of the moment, asked for once. Nodes are not asked: `Auto` is as if all of them knew native sidecars.
///
/// # Errors
/// What the API server says, a ConfigMap that is missing, settings that cannot be used.
pub async fn read(origin: &Origin) -> anyhow::Result<Settings> {
    let maps: Api<ConfigMap> = Api::namespaced(origin.client.clone(), &origin.namespace);
    let data = async |name: &str| -> anyhow::Result<BTreeMap<String, String>> {
        let name = origin.of_revision(name);
        let map = maps.get_opt(&name).await.with_context(|| format!("ConfigMap {}/{name}", origin.namespace))?;
        let map = map.with_context(|| format!("there is no ConfigMap {}/{name}", origin.namespace))?;
        Ok(map.data.unwrap_or_default())
    };
    let mut injector = data("istio-sidecar-injector").await?;
    let mut found = Found {
        config: injector.remove("config"),
        values: injector.remove("values"),
        mesh: origin.mesh.clone(),
        ..Found::default()
    };
    if origin.mesh.is_none() {
        found.mesh = data("istio").await?.remove("mesh");
    }
    Ok(found.settings(origin)?)
}

/// Whether every kubelet of the cluster knows native sidecars, asked for once.
///
/// # Errors
/// What the API server says.
pub async fn every_node_knows_native(client: &Client) -> kube::Result<bool> {
    let nodes: Api<Node> = Api::all(client.clone());
    Ok(nodes.list(&ListParams::default()).await?.items.iter().all(knows_native))
}

impl Origin {
    /// The name of a ConfigMap of the revision.
    fn of_revision(&self, name: &str) -> String {
        if self.revision.is_empty() { name.to_owned() } else { format!("{name}-{}", self.revision) }
    }
}

fn changes(origin: &Origin) -> BoxStream<'static, Change> {
    let maps: Api<ConfigMap> = Api::namespaced(origin.client.clone(), &origin.namespace);
    let map = |name: &str| {
        let one = Watch::default().fields(&format!("metadata.name={}", origin.of_revision(name)));
        watcher(maps.clone(), one).default_backoff()
    };
    let mut streams = vec![map("istio-sidecar-injector").map(Change::Injector).boxed()];
    if origin.mesh.is_none() {
        streams.push(map("istio").map(Change::Mesh).boxed());
    }
    let nodes = watcher(Api::all(origin.client.clone()), Watch::default()).default_backoff();
    streams.push(nodes.map(|event| Change::Nodes(event.map(of_node))).boxed());
    futures_util::stream::select_all(streams).boxed()
}

impl Found {
    /// Takes a change in; whether something differs now.
    fn take(&mut self, change: Change) -> bool {
        let [injector_read, mesh_read, nodes_read] = &mut self.complete;
        match change {
            Change::Injector(event) => {
                let Some(map) = applied(event, injector_read) else { return false };
                let Some(mut map) = map else { return true };
                let data = map.data.get_or_insert_default();
                let (config, values) = (data.remove("config"), data.remove("values"));
                let differs = (&self.config, &self.values) != (&config, &values);
                (self.config, self.values) = (config, values);
                differs
            }
            Change::Mesh(event) => {
                let Some(map) = applied(event, mesh_read) else { return false };
                let Some(map) = map else { return true };
                let mesh = map.data.and_then(|mut data| data.remove("mesh"));
                let differs = self.mesh != mesh;
                self.mesh = mesh;
                differs
            }
            Change::Nodes(Ok(event)) => {
                let before = self.nodes.clone();
                match event {
                    // While a list is read anew, only a part of the nodes is known.
                    watcher::Event::Init => {
                        self.nodes.clear();
                        *nodes_read = false;
                    }
                    watcher::Event::InitDone => {
                        *nodes_read = true;
                        return true;
                    }
                    watcher::Event::Apply((name, knows)) | watcher::Event::InitApply((name, knows)) => {
                        self.nodes.insert(name, knows);
                    }
                    watcher::Event::Delete((name, _)) => {
                        self.nodes.remove(&name);
                    }
                }
                *nodes_read && before != self.nodes
            }
            Change::Nodes(Err(error)) => {
                tracing::debug!("nodes: {error}");
                false
            }
        }
    }

    fn settings(&self, origin: &Origin) -> Result<Settings, InjectError> {
        let native_sidecars = match origin.native {
            NativeSidecars::Auto => self.nodes.values().all(|knows| *knows),
            NativeSidecars::True => true,
            NativeSidecars::False => false,
        };
        Ok(Settings {
            config: self.config.as_deref().map_or_else(|| Ok(Config::built_in()), Config::parse)?,
            values: self.values.as_deref().map_or_else(|| Ok(Values::default()), Values::parse)?,
            mesh: self.mesh.as_deref().map_or_else(|| Ok(MeshSettings::default()), MeshSettings::parse)?,
            revision: origin.revision.clone(),
            native_sidecars,
        })
    }
}

/// The ConfigMap of an event; inner none where a list was completed for the first time. A map that is gone keeps its say.
fn applied(event: watcher::Result<watcher::Event<ConfigMap>>, complete: &mut bool) -> Option<Option<ConfigMap>> {
    match event {
        Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map)) => Some(Some(map)),
        Ok(watcher::Event::InitDone) => {
            let first = !*complete;
            *complete = true;
            first.then_some(None)
        }
        Ok(watcher::Event::Init) => None,
        Ok(watcher::Event::Delete(map)) => {
            tracing::warn!(name = map.name_any(), "the ConfigMap is gone: what it said stays");
            None
        }
        Err(error) => {
            tracing::debug!("settings of injection: {error}");
            None
        }
    }
}

/// Of a node only what counts here.
fn of_node(event: watcher::Event<Node>) -> watcher::Event<(String, bool)> {
    let brief = |node: Node| (node.name_any(), knows_native(&node));
    match event {
        watcher::Event::Apply(node) => watcher::Event::Apply(brief(node)),
        watcher::Event::InitApply(node) => watcher::Event::InitApply(brief(node)),
        watcher::Event::Delete(node) => watcher::Event::Delete(brief(node)),
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitDone => watcher::Event::InitDone,
    }
}

fn knows_native(node: &Node) -> bool {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    let version = info.map(|info| info.kubelet_version.trim_start_matches('v')).unwrap_or_default();
    let mut numbers = version.split('.').map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(1)), Some(Ok(minor))) if minor >= NATIVE_SINCE_MINOR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    fn node(name: &str, version: &str) -> Node {
        let json = serde_json::json!({"metadata": {"name": name}, "status": {"nodeInfo": {
            "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": version, "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
        }}});
        serde_json::from_value(json).unwrap()
    }

    // spec: PI-63
    #[test]
    fn sidecars_are_native_where_every_kubelet_knows_them() {
        assert!(knows_native(&node("a", "v1.34.4")) && knows_native(&node("a", "v1.33.0-eks-1")));
        assert!(!knows_native(&node("a", "v1.32.9")) && !knows_native(&node("a", "")));
        let mut found = Found::default();
        let mut take = |event: watcher::Event<Node>| found.take(Change::Nodes(Ok(of_node(event))));
        assert!(!take(Init) && !take(InitApply(node("a", "v1.34.0"))));
        assert!(take(InitDone), "now they are known");
        assert!(!take(Apply(node("a", "v1.34.0"))), "a heartbeat");
        assert!(take(Apply(node("b", "v1.30.0"))));
        assert!(take(Delete(node("a", ""))));
        assert!(!found.nodes.values().all(|knows| *knows));
        assert!(found.take(Change::Nodes(Ok(Delete(("b".to_owned(), false))))));
        assert!(found.complete[2], "no node is left, and that is known");
    }
}
