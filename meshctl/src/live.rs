//! A mesh out of what a cluster holds now: the objects that pilot watches, as text, and the mesh's own settings.

use crate::offline::Offline;
use crate::reach::Cluster;
use crate::reach::cluster::said;
use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, ObjectList};
use pilot::model::{MeshConfig, mesh_config};
use pilot::source::Kind;
use pilot::source::kinds::{Row, TABLE};
use serde_json::{Value, json};

/// Objects that are asked for at once.
const PAGE: u32 = 500;
/// The ConfigMap with the mesh's settings, and its key.
const SETTINGS: (&str, &str) = ("istio", "mesh");

/// The objects of one kind.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Which kind.
    pub kind: &'static str,
    /// The objects, or why the API server does not show them.
    pub objects: Result<Vec<Value>, String>,
}

/// All objects that pilot watches but Secrets, by kind; a kind that the cluster does not define is left out.
pub async fn objects(cluster: &Cluster) -> Vec<Listed> {
    let mut all = Vec::new();
    for row in TABLE.iter().filter(|row| row.kind != Kind::Secret) {
        match of_kind(cluster, row).await {
            Ok(Some(objects)) => all.push(Listed { kind: row.name, objects: Ok(objects) }),
            Ok(None) => {}
            Err(error) => all.push(Listed { kind: row.name, objects: Err(format!("{error:#}")) }),
        }
    }
    all
}

async fn of_kind(cluster: &Cluster, row: &Row) -> anyhow::Result<Option<Vec<Value>>> {
    let version = row.versions.first().context("no version")?;
    let gvk = GroupVersionKind::gvk(row.group, version, row.name);
    let resource = ApiResource::from_gvk_with_plural(&gvk, &row.plural());
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let (mut objects, mut from) = (Vec::new(), None::<String>);
    loop {
        let mut page = ListParams::default().limit(PAGE);
        page.continue_token = from.take();
        let list: ObjectList<DynamicObject> = match api.list(&page).await {
            Ok(list) => list,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
            Err(error) => return Err(said(error)),
        };
        from = list.metadata.continue_.filter(|token| !token.is_empty());
        for mut object in list.items {
            object.metadata.managed_fields = None;
            let mut value = serde_json::to_value(&object)?;
            value["apiVersion"] = json!(resource.api_version);
            value["kind"] = json!(row.name);
            objects.push(value);
        }
        if from.is_none() {
            return Ok(Some(objects));
        }
    }
}

/// The mesh's own settings; the defaults where the ConfigMap is not there.
///
/// # Errors
/// What the API server says, or what is wrong with them.
pub async fn settings(cluster: &Cluster) -> anyhow::Result<MeshConfig> {
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &cluster.control_plane);
    let (name, key) = SETTINGS;
    let found = api.get_opt(name).await.map_err(said).with_context(|| format!("ConfigMap {name}"))?;
    let text = found.and_then(|map| map.data?.remove(key)).unwrap_or_default();
    let own = MeshConfig::default();
    let written = mesh_config::parse(&text).with_context(|| format!("ConfigMap {}/{name}", cluster.control_plane))?;
    Ok(MeshConfig::new(written, &own.domain, &own.cluster))
}

/// The mesh that the cluster's objects make, and `more` files laid over them; what the API server does not show is noted.
///
/// # Errors
/// What is wrong with the settings.
pub async fn offline(cluster: &Cluster, more: &[(String, String)]) -> anyhow::Result<Offline> {
    let mut texts = Vec::new();
    for listed in objects(cluster).await {
        match listed.objects {
            // A text without a name: what an object says of itself is its place.
            Ok(items) => {
                texts.push((String::new(), json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()))
            }
            Err(why) => crate::output::note(&format!("{} cannot be looked at: {why}", listed.kind)),
        }
    }
    texts.extend_from_slice(more);
    Ok(Offline::of(&texts, settings(cluster).await?))
}
