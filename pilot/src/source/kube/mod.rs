//! A Kubernetes API server: every kind of the table listed and watched, CustomResourceDefinitions that appear later from then
//! on (PI-8), and the mesh's own settings from a ConfigMap (PI-7).
//!
//! What this part knows: lists, watches, what an API server that is away means (nothing: all that is held stays). What it
//! must never know: what an object means. Objects come in by the same door as those of a directory, [`memory::object`].

pub mod crd;
mod held;
pub mod metrics;
mod stream;

use super::kinds::{self, Row};
use super::mesh_file::Parse;
use super::object::{Key, Kind, Spec};
use super::yaml::Node;
use super::{Event, memory};
use futures_util::{FutureExt as _, StreamExt as _};
use held::Held;
use kube::Client;
use kube::api::DynamicObject;
use kube::runtime::watcher;
use metrics::Metrics;
use proto::istio::meta::{ObjectMeta, OwnerReference};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use stream::Changes;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamMap;

/// Changes that are reported together when they come together.
const BATCH: usize = 1024;
/// Key of the mesh's settings in their ConfigMap.
const MESH: &str = "mesh";

/// What is watched, and where.
#[derive(Clone)]
pub struct Cluster {
    /// The way to the API server.
    pub client: Client,
    /// Namespaces whose objects are watched; none: all.
    pub namespaces: Vec<String>,
    /// Namespaces whose Secrets are read; none: all that are watched.
    pub secrets: Vec<String>,
    /// Namespace of the control plane.
    pub namespace: String,
    /// Name of the ConfigMap in it with the mesh's settings; none: they come from elsewhere.
    pub settings: Option<String>,
    /// Where it is said which kinds the cluster defines, and the version of each that is watched.
    pub defined: watch::Sender<Defined>,
}

/// The mesh's kinds that a cluster defines, with the version that is watched.
pub type Defined = BTreeMap<Kind, String>;

/// One list with its watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Watch {
    /// Objects of a kind, in one namespace or in all.
    Objects(Kind, Option<Arc<str>>),
    /// CustomResourceDefinitions.
    Definitions,
    /// The ConfigMap with the mesh's settings.
    Settings,
}

impl Watch {
    fn text(&self) -> String {
        match self {
            Self::Objects(kind, _) => format!("{kind:?}"),
            Self::Definitions => "CustomResourceDefinition".to_owned(),
            Self::Settings => "ConfigMap".to_owned(),
        }
    }
}

/// Reports a cluster for ever: what is there, then `Synced`, then every change.
///
/// # Errors
/// Never: an API server that is away is waited for.
pub async fn run(
    cluster: Cluster,
    parse: Parse,
    metrics: Metrics,
    events: mpsc::Sender<Vec<Event>>,
) -> anyhow::Result<()> {
    let mut source = Source::new(cluster, parse, metrics);
    while let Some((watch, change)) = source.streams.next().await {
        let mut batch = source.take(&watch, change);
        while batch.len() < BATCH {
            let Some(Some((watch, change))) = source.streams.next().now_or_never() else { break };
            batch.extend(source.take(&watch, change));
        }
        batch.extend(source.held.problems());
        if !source.synced && source.is_synced() {
            source.synced = true;
            batch.push(Event::Synced);
        }
        if !batch.is_empty() && events.send(batch).await.is_err() {
            break;
        }
    }
    Ok(())
}

struct Source {
    cluster: Cluster,
    parse: Parse,
    metrics: Metrics,
    streams: StreamMap<Watch, Changes>,
    held: Held,
    /// Definitions in force: the version that is watched.
    definitions: Defined,
    /// What a list of definitions that is being read has named so far.
    listed: Option<BTreeSet<Kind>>,
    /// The text of the settings in force.
    settings: String,
    /// Watches that fail now.
    failing: BTreeSet<Watch>,
    synced: bool,
}

impl Source {
    fn new(cluster: Cluster, parse: Parse, metrics: Metrics) -> Self {
        let mut source = Self {
            cluster,
            parse,
            metrics,
            streams: StreamMap::new(),
            held: Held::default(),
            definitions: BTreeMap::new(),
            listed: None,
            settings: String::new(),
            failing: BTreeSet::new(),
            synced: false,
        };
        if let Some(name) = &source.cluster.settings {
            let settings = stream::settings(&source.cluster.client, &source.cluster.namespace, name);
            source.streams.insert(Watch::Settings, settings);
        }
        source.streams.insert(Watch::Definitions, stream::definitions(&source.cluster.client));
        for row in kinds::TABLE.iter().filter(|row| !row.is_custom()) {
            source.watch(row, "v1");
        }
        source
    }

    fn watches_of(&self, row: &Row) -> Vec<Watch> {
        let namespaces = match row.kind {
            Kind::Secret if !self.cluster.secrets.is_empty() => &self.cluster.secrets,
            _ => &self.cluster.namespaces,
        };
        if !row.namespaced || namespaces.is_empty() {
            return vec![Watch::Objects(row.kind, None)];
        }
        let of = |namespace: &String| Watch::Objects(row.kind, Some(namespace.as_str().into()));
        namespaces.iter().map(of).collect()
    }

    fn watch(&mut self, row: &Row, version: &str) {
        for watch in self.watches_of(row) {
            let namespace = if let Watch::Objects(_, namespace) = &watch { namespace.as_deref() } else { None };
            let changes = stream::objects(&self.cluster.client, row, version, namespace);
            self.streams.insert(watch, changes);
        }
    }

    /// Whether everything that existed at the start has been listed.
    fn is_synced(&self) -> bool {
        self.streams.keys().all(|watch| self.held.is_complete(watch))
    }

    fn take(&mut self, watch: &Watch, change: watcher::Result<watcher::Event<DynamicObject>>) -> Vec<Event> {
        let change = match change {
            Ok(change) => change,
            Err(error) => {
                self.fails(watch, &error);
                return Vec::new();
            }
        };
        if self.failing.remove(watch) && self.failing.is_empty() {
            tracing::info!("the API server answers again");
        }
        if matches!(change, watcher::Event::Init) {
            self.metrics.lists.with_label_values(&[&watch.text()]).inc();
        }
        match watch {
            Watch::Objects(kind, _) => self.take_object(watch, *kind, change),
            Watch::Definitions => self.take_definition(change),
            Watch::Settings => self.take_settings(change),
        }
    }

    /// Says once that a watch fails, however often it is tried again.
    fn fails(&mut self, watch: &Watch, error: &watcher::Error) {
        self.metrics.errors.with_label_values(&[&watch.text()]).inc();
        if matches!(watch, Watch::Objects(Kind::Secret, _)) && stream::is_forbidden(error) {
            // Whoever may not read them goes without, and with all the rest.
            if !self.held.is_complete(watch) {
                tracing::warn!("may not list Secrets: no gateway gets certificates from them");
            }
            self.held.waive(watch);
            return;
        }
        let first = self.failing.is_empty();
        if !self.failing.insert(watch.clone()) {
            return;
        }
        let error = stream::chain(error);
        if first {
            tracing::warn!(watch = %watch.text(), "the API server does not answer, all that is known stays in force: {error}");
        } else {
            tracing::debug!(watch = %watch.text(), "does not answer: {error}");
        }
    }

    fn take_object(&mut self, watch: &Watch, kind: Kind, change: watcher::Event<DynamicObject>) -> Vec<Event> {
        let Some(row) = kinds::row(kind) else { return Vec::new() };
        match change {
            watcher::Event::Init => self.held.restart(watch),
            watcher::Event::InitDone => return self.held.complete(watch),
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                self.metrics.count(row, "update");
                let (meta, document) = taken_apart(object);
                let (key, object) = match memory::object(row, meta, &document) {
                    // Without certificates it is not held at all.
                    Ok(object) if matches!(&object.spec, Spec::Secret(secret) if secret.is_empty()) => {
                        return self.held.gone(watch, &object.key).into_iter().collect();
                    }
                    Ok(object) => (object.key.clone(), Ok(Arc::new(object))),
                    Err(broken) => {
                        let (key, fault) = *broken;
                        let problem = memory::problem(&fault, Some(&key), None);
                        (key, Err(problem))
                    }
                };
                return self.held.object(watch, key, object).into_iter().collect();
            }
            watcher::Event::Delete(object) => {
                self.metrics.count(row, "delete");
                let namespace =
                    if row.namespaced { object.metadata.namespace.unwrap_or_default() } else { String::new() };
                let name = object.metadata.name.unwrap_or_default();
                let key = Key { kind, namespace: namespace.into(), name: name.into() };
                return self.held.gone(watch, &key).into_iter().collect();
            }
        }
        Vec::new()
    }

    fn take_definition(&mut self, change: watcher::Event<DynamicObject>) -> Vec<Event> {
        match change {
            watcher::Event::Init => {
                self.held.restart(&Watch::Definitions);
                self.listed = Some(BTreeSet::new());
                Vec::new()
            }
            watcher::Event::Apply(definition) | watcher::Event::InitApply(definition) => {
                let Some((row, version)) = crd::serves(&definition) else { return Vec::new() };
                if let Some(listed) = &mut self.listed {
                    listed.insert(row.kind);
                }
                match version {
                    Some(version) => self.define(row, version),
                    None => self.undefine(row.kind),
                }
            }
            watcher::Event::InitDone => {
                self.held.complete(&Watch::Definitions);
                let listed = self.listed.take().unwrap_or_default();
                let gone: Vec<Kind> = self.definitions.keys().filter(|kind| !listed.contains(kind)).copied().collect();
                gone.into_iter().flat_map(|kind| self.undefine(kind)).collect()
            }
            watcher::Event::Delete(definition) => {
                crd::serves(&definition).map_or_else(Vec::new, |(row, _)| self.undefine(row.kind))
            }
        }
    }

    fn define(&mut self, row: &Row, version: String) -> Vec<Event> {
        if self.definitions.get(&row.kind) != Some(&version) {
            tracing::info!(kind = row.name, version, "watched");
            self.watch(row, &version);
            self.definitions.insert(row.kind, version);
            self.cluster.defined.send_replace(self.definitions.clone());
        }
        Vec::new()
    }

    /// An API server that no longer knows the kind has deleted its objects.
    fn undefine(&mut self, kind: Kind) -> Vec<Event> {
        if self.definitions.remove(&kind).is_none() {
            return Vec::new();
        }
        self.cluster.defined.send_replace(self.definitions.clone());
        tracing::info!(?kind, "no longer defined by the cluster");
        let of_kind = |watch: &&Watch| matches!(watch, Watch::Objects(of, _) if *of == kind);
        let watches: Vec<Watch> = self.streams.keys().filter(of_kind).cloned().collect();
        let mut events = Vec::new();
        for watch in watches {
            self.streams.remove(&watch);
            self.failing.remove(&watch);
            events.extend(self.held.end(&watch));
        }
        events
    }

    /// Settings that are broken, or gone, leave those before in force.
    fn take_settings(&mut self, change: watcher::Event<DynamicObject>) -> Vec<Event> {
        let namespace = &self.cluster.namespace;
        let name = self.cluster.settings.as_deref().unwrap_or_default();
        match change {
            watcher::Event::Init => self.held.restart(&Watch::Settings),
            watcher::Event::InitDone => drop(self.held.complete(&Watch::Settings)),
            watcher::Event::Delete(_) => {
                tracing::warn!(%namespace, %name, "the ConfigMap with the mesh's settings is gone: those it had stay");
            }
            watcher::Event::Apply(map) | watcher::Event::InitApply(map) => {
                let text = map.data["data"][MESH].as_str().unwrap_or_default();
                if text == self.settings {
                    return Vec::new();
                }
                text.clone_into(&mut self.settings);
                match (self.parse)(text) {
                    Ok(mut config) => {
                        config.root_namespace.get_or_insert_with(|| namespace.clone());
                        tracing::info!(%namespace, %name, "the mesh has new settings");
                        return vec![Event::Mesh(Arc::new(config))];
                    }
                    Err(error) => {
                        tracing::warn!(%namespace, %name, key = MESH, "the settings before stay: {error:#}");
                    }
                }
            }
        }
        Vec::new()
    }
}

/// Metadata and the rest of an object; of the metadata only what the mesh uses, and nothing that changes without meaning.
fn taken_apart(object: DynamicObject) -> (ObjectMeta, Node) {
    let meta = object.metadata;
    let taken = ObjectMeta {
        name: meta.name.unwrap_or_default(),
        namespace: meta.namespace.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        annotations: without_noise(meta.annotations.unwrap_or_default()),
        creation_timestamp: meta.creation_timestamp.map(|time| time.0.to_string()),
        deletion_timestamp: meta.deletion_timestamp.map(|time| time.0.to_string()),
        generation: meta.generation,
        resource_version: None,
        owner_references: meta.owner_references.into_iter().flatten().map(owner).collect(),
    };
    (taken, Node::from_json(object.data))
}

fn owner(reference: k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference) -> OwnerReference {
    OwnerReference { kind: reference.kind, name: reference.name, controller: reference.controller.unwrap_or_default() }
}

/// Annotations without the copy of the whole object that `kubectl apply` keeps, and without leases.
fn without_noise(mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations.retain(|name, _| !name.starts_with("endpoints.kubernetes.io/"));
    annotations
}
