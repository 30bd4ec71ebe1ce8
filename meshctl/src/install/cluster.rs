//! Objects in a cluster: applied by server-side apply, awaited, listed by their label, deleted.

use super::installed::Installed;
use super::objects::{MANAGED, OWNER, RECONCILE, REVISION, VERSION, WRITTEN};
use super::platform::{Platform, keeper};
use crate::reach::Where;
use crate::reach::cluster::said;
use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Whose fields they are.
const MANAGER: &str = "meshctl";
/// Time between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(200);
/// The kinds that are installed: group, version, kind, plural, and whether they are in a namespace. In the order of
/// deletion.
const KINDS: [(&str, &str, &str, &str, bool); 18] = [
    ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false),
    ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", false),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition", "network-attachment-definitions", true),
    ("apps", "v1", "DaemonSet", "daemonsets", true),
    ("apps", "v1", "Deployment", "deployments", true),
    ("route.openshift.io", "v1", "Route", "routes", true),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true),
    ("", "v1", "Service", "services", true),
    ("", "v1", "ConfigMap", "configmaps", true),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", true),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false),
    ("", "v1", "ServiceAccount", "serviceaccounts", true),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false),
    ("", "v1", "Namespace", "namespaces", false),
];
/// Label of what a tag is made of.
pub const TAG: &str = "istio.io/tag";
/// Kinds that hold what users made: they go only when everything is to go.
const KEPT: [&str; 2] = ["CustomResourceDefinition", "Namespace"];

/// The way to a cluster.
pub struct Cluster {
    client: Client,
}

/// An object's kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Kind.
    pub kind: String,
    /// Namespace; empty where it is in none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Name {
    /// That of an object.
    pub fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        Self { kind: text(&object["kind"]), namespace: text(&metadata["namespace"]), name: text(&metadata["name"]) }
    }

    /// As much of the object as kubectl needs to find it; none of a kind that is installed nowhere.
    pub fn reference(&self) -> Option<Value> {
        let (group, version, ..) = KINDS.iter().find(|row| row.2 == self.kind)?;
        let api = if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") };
        let mut object = json!({"apiVersion": api, "kind": self.kind, "metadata": {"name": self.name}});
        if !self.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(self.namespace);
        }
        Some(object)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind, self.namespace, self.name)
    }
}

impl Cluster {
    /// Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// Where the kubeconfig cannot be read, or has no such context.
    pub async fn connect(at: &Where) -> anyhow::Result<Self> {
        Ok(Self { client: at.client().await? })
    }

    fn api(&self, name: &Name) -> anyhow::Result<Api<DynamicObject>> {
        let row = KINDS
            .iter()
            .find(|row| row.2 == name.kind)
            .with_context(|| format!("{} is installed nowhere", name.kind))?;
        let (resource, namespaced) = resource(row);
        Ok(if namespaced {
            Api::namespaced_with(self.client.clone(), &name.namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        })
    }

    /// What this cluster is.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn platform(&self) -> anyhow::Result<Platform> {
        Platform::look(&self.client).await
    }

    /// Objects that somebody else keeps, and who.
    ///
    /// # Errors
    /// What the API server says, with the object.
    pub async fn kept_by_others(&self, objects: &[&Value]) -> anyhow::Result<Vec<(Name, String)>> {
        let mut kept = Vec::new();
        for object in objects {
            let name = Name::of(object);
            let found = self.get(&name).await?;
            kept.extend(found.and_then(|found| keeper(&found)).map(|keeper| (name, keeper)));
        }
        Ok(kept)
    }

    /// Objects in no namespace that another mesh has by the same name, and the namespace of its control plane.
    ///
    /// # Errors
    /// What the API server says, with the object.
    pub async fn of_other_meshes(&self, objects: &[&Value]) -> anyhow::Result<Vec<(Name, String)>> {
        let mut taken = Vec::new();
        for object in objects.iter().filter(|object| is_named_by_mesh(object)) {
            let name = Name::of(object);
            let found = self.get(&name).await?;
            taken.extend(found.and_then(|found| other_mesh(object, &found)).map(|other| (name, other)));
        }
        Ok(taken)
    }

    /// Applies an object; whether that changed something.
    ///
    /// # Errors
    /// What the API server says, with the object.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<bool> {
        let name = Name::of(object);
        let api = self.api(&name)?;
        let found = api.get_opt(&name.name).await.map_err(said).with_context(|| name.to_string())?;
        let object = with_live_policy(object, found.as_ref());
        let params = PatchParams::apply(MANAGER).force();
        let applied = api
            .patch(&name.name, &params, &Patch::Apply(&object))
            .await
            .map_err(said)
            .with_context(|| name.to_string())?;
        Ok(found.is_none_or(|found| content(&found) != content(&applied)))
    }

    /// The object as it stands in the cluster; none where it is not there.
    ///
    /// # Errors
    /// What the API server says, with the object.
    pub async fn get(&self, name: &Name) -> anyhow::Result<Option<DynamicObject>> {
        self.api(name)?.get_opt(&name.name).await.map_err(said).with_context(|| name.to_string())
    }

    /// Everything that was installed, in the order of deletion; with a revision what is its own. Tags are nobody's: they come and
    /// go by their own command.
    ///
    /// # Errors
    /// What the API server says, with the kind.
    pub async fn installed(&self, revision: Option<&str>) -> anyhow::Result<Vec<Installed>> {
        let mut found = Vec::new();
        for row in &KINDS {
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(row).0);
            let own = match revision {
                Some(revision) => format!("{MANAGED}={RECONCILE},{REVISION}={revision},!{TAG}"),
                None => format!("{MANAGED}={RECONCILE}"),
            };
            let params = ListParams::default().labels(&own);
            let list = match api.list_metadata(&params).await {
                Ok(list) => list,
                // A kind that this cluster does not define.
                Err(kube::Error::Api(status)) if status.code == 404 => continue,
                Err(error) => return Err(said(error)).with_context(|| row.2.to_owned()),
            };
            found.extend(list.items.iter().map(|one| Installed {
                name: Name {
                    kind: row.2.to_owned(),
                    namespace: one.namespace().unwrap_or_default(),
                    name: one.name_any(),
                },
                owner: one.labels().get(OWNER).cloned(),
            }));
        }
        Ok(found)
    }

    /// What was installed with a revision in the mesh of a namespace and is wanted no longer.
    ///
    /// # Errors
    /// As [`Cluster::installed`].
    pub async fn superfluous(&self, wanted: &[Name], revision: &str, namespace: &str) -> anyhow::Result<Vec<Name>> {
        let installed = self.installed(Some(revision)).await?.into_iter().filter(|one| one.belongs(namespace));
        Ok(installed.map(|one| one.name).filter(|name| !is_kept(name) && !wanted.contains(name)).collect())
    }

    /// Objects of a kind that have a label, or all where it is empty, with their labels.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn labelled(&self, kind: &str, label: &str) -> anyhow::Result<Vec<(Name, BTreeMap<String, String>)>> {
        let row = KINDS.iter().find(|row| row.2 == kind).with_context(|| format!("{kind} is installed nowhere"))?;
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(row).0);
        let list = api.list_metadata(&ListParams::default().labels(label)).await.map_err(said);
        let one = |one: PartialObjectMeta<DynamicObject>| {
            let namespace = one.namespace().unwrap_or_default();
            (Name { kind: kind.to_owned(), namespace, name: one.name_any() }, one.labels().clone())
        };
        Ok(list.with_context(|| kind.to_owned())?.items.into_iter().map(one).collect())
    }

    /// The pilots that are installed: revision and version.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn pilots(&self, namespace: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let row = ("apps", "v1", "Deployment", "deployments", true);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource(&row).0);
        let own = ListParams::default().labels(&format!("{MANAGED}={RECONCILE},app=istiod"));
        let list = api.list_metadata(&own).await.map_err(said).context("Deployments")?;
        let label =
            |one: &PartialObjectMeta<DynamicObject>, name: &str| one.labels().get(name).cloned().unwrap_or_default();
        Ok(list.items.iter().map(|one| (label(one, REVISION), label(one, VERSION))).collect())
    }

    /// What was asked for when a revision was installed; none where it is not known.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn written(&self, namespace: &str, revision: &str) -> anyhow::Result<Option<String>> {
        let suffix = if revision == "default" { String::new() } else { format!("-{revision}") };
        let name =
            Name { kind: "ConfigMap".to_owned(), namespace: namespace.to_owned(), name: format!("{WRITTEN}{suffix}") };
        let found = self.get(&name).await?;
        Ok(found.and_then(|map| map.data["data"]["spec"].as_str().map(str::to_owned)))
    }

    /// Deletes an object; one that is gone already is as good.
    ///
    /// # Errors
    /// What the API server says, with the object.
    pub async fn delete(&self, name: &Name) -> anyhow::Result<()> {
        match self.api(name)?.delete(&name.name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(said(error)).with_context(|| name.to_string()),
        }
    }

    /// The roots that the citadel of a namespace has written.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn own_roots(&self, namespace: &str) -> anyhow::Result<Vec<Name>> {
        roots(Api::namespaced(self.client.clone(), namespace), &[CITADEL]).await
    }

    /// Deletes what the components made themselves: copies of their `own` roots in all namespaces, and in the control plane's
    /// the CA's Secret and leases.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn delete_made(&self, namespace: &str, own: &[Name]) -> anyhow::Result<usize> {
        let all = roots(Api::all(self.client.clone()), &[CITADEL, PILOT]).await?;
        let mut count = 0;
        for one in all.iter().filter(|one| own.iter().any(|own| own.name == one.name)) {
            self.delete(one).await?;
            count += 1;
        }
        let leases = [pilot::status::leader::LEASE, pilot::trust::roots::LEASE];
        let secret = ("", "v1", "Secret", "secrets", true);
        let lease = ("coordination.k8s.io", "v1", "Lease", "leases", true);
        let own = std::iter::once((secret, citadel::ca::secret::OWN)).chain(leases.map(|name| (lease, name)));
        for (row, name) in own {
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource(&row).0);
            match api.delete(name, &DeleteParams::default()).await {
                Ok(_) => count += 1,
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(said(error)).with_context(|| name.to_owned()),
            }
        }
        Ok(count)
    }

    /// Pods with a sidecar or gateway, of all revisions or of one, by namespace and name.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn proxies(&self, revision: Option<&str>) -> anyhow::Result<Vec<String>> {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(&("", "v1", "Pod", "pods", true)).0);
        let list = api.list_metadata(&ListParams::default()).await.map_err(said).context("pods")?;
        let injected = list.items.iter().filter(|pod| {
            let own = pod.annotations().get(REVISION).map_or("default", String::as_str);
            pod.annotations().contains_key("sidecar.istio.io/status") && revision.is_none_or(|revision| revision == own)
        });
        Ok(injected.map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())).collect())
    }

    /// Waits until objects do what they are for: definitions are served, Deployments have all their pods.
    ///
    /// # Errors
    /// When it takes longer than until `deadline`, with what holds it up.
    pub async fn ready(&self, objects: &[Value], deadline: Instant) -> anyhow::Result<()> {
        for object in objects {
            let name = Name::of(object);
            if !["Deployment", "DaemonSet", "CustomResourceDefinition"].contains(&name.kind.as_str()) {
                continue;
            }
            loop {
                let held_up = match self.get(&name).await {
                    Ok(Some(found)) => held_up(&name, &found.data, found.metadata.generation),
                    Ok(None) => Some("it is not there".to_owned()),
                    Err(error) => Some(format!("{error:#}")),
                };
                let Some(why) = held_up else { break };
                if Instant::now() > deadline {
                    let pods = self.pods_of(object).await.unwrap_or_default();
                    bail!(
                        "{name} does not become ready: {why}{pods}; kubectl describe tells more, and meshctl install goes on where it stopped"
                    );
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// What its pods wait for.
    async fn pods_of(&self, deployment: &Value) -> Option<String> {
        let labels = deployment["spec"]["selector"]["matchLabels"].as_object()?;
        let selector: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
        let namespace = deployment["metadata"]["namespace"].as_str()?;
        let pods = resource(&("", "v1", "Pod", "pods", true)).0;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &pods);
        let list = api.list(&ListParams::default().labels(&selector.join(","))).await.ok()?;
        let waits = list.items.iter().flat_map(|pod| {
            let name = pod.name_any();
            let statuses = pod.data["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
            let scheduled = pod.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let waiting = statuses.into_iter().map(|status| status["state"]["waiting"].clone());
            let unscheduled =
                scheduled.into_iter().filter(|one| one["type"] == "PodScheduled" && one["status"] == "False");
            let text = move |why: Value| {
                why["reason"]
                    .as_str()
                    .map(|reason| format!("; pod {name}: {reason} {}", why["message"].as_str().unwrap_or_default()))
            };
            waiting.chain(unscheduled).filter_map(text).collect::<Vec<_>>()
        });
        Some(waits.collect())
    }
}

/// Who writes the roots of a mesh in the namespace of its control plane.
pub const CITADEL: &str = citadel::bundle::FIELD_MANAGER;
/// Who writes them in all others.
const PILOT: &str = pilot::trust::roots::MANAGER;

/// ConfigMaps with roots that some of these write, as their fields say: those of another mesh may have the same name.
///
/// # Errors
/// What the API server says.
pub async fn roots(maps: Api<ConfigMap>, writers: &[&str]) -> anyhow::Result<Vec<Name>> {
    let list = maps.list_metadata(&ListParams::default().labels("istio.io/config=true")).await;
    let list = list.map_err(said).context("ConfigMaps with the roots")?;
    let is_ours = |one: &&PartialObjectMeta<ConfigMap>| {
        one.managed_fields()
            .iter()
            .filter_map(|fields| fields.manager.as_deref())
            .any(|manager| writers.contains(&manager))
    };
    let name = |one: &PartialObjectMeta<ConfigMap>| Name {
        kind: "ConfigMap".to_owned(),
        namespace: one.namespace().unwrap_or_default(),
        name: one.name_any(),
    };
    Ok(list.items.iter().filter(is_ours).map(name).collect())
}

/// Whether an object is one of those that hold what users made.
pub fn is_kept(name: &Name) -> bool {
    KEPT.contains(&name.kind.as_str())
}

/// Reads the files of `-f`; `-` is standard input.
///
/// # Errors
/// Where one cannot be read.
pub fn read_files(paths: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let read = |path: &PathBuf| {
        let text = if path == Path::new("-") {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(path)
        };
        text.with_context(|| format!("-f {}", path.display()))
    };
    paths.iter().map(read).collect()
}

fn resource(row: &(&str, &str, &str, &str, bool)) -> (ApiResource, bool) {
    let (group, version, kind, plural, namespaced) = *row;
    (ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural), namespaced)
}

/// Whether an object is a mesh's own and in no namespace, so that its name alone keeps it apart from those of others.
fn is_named_by_mesh(object: &Value) -> bool {
    object["metadata"]["namespace"].is_null() && object["metadata"]["labels"][OWNER].is_string()
}

/// The namespace of the control plane that an object in the cluster belongs to, where that is another one.
fn other_mesh(object: &Value, found: &DynamicObject) -> Option<String> {
    found.labels().get(OWNER).filter(|owner| object["metadata"]["labels"][OWNER] != ***owner).cloned()
}

/// What an object says; whose fields they are changes as well when nothing does.
fn content(object: &DynamicObject) -> (&Value, &BTreeMap<String, String>, &BTreeMap<String, String>) {
    (&object.data, object.labels(), object.annotations())
}

/// A validation that pilot has made obligatory stays so: its policy is taken from the cluster.
fn with_live_policy(object: &Value, found: Option<&DynamicObject>) -> Value {
    let mut object = object.clone();
    let live = found.map(|found| &found.data["webhooks"]).and_then(Value::as_array);
    let (Some(live), Some(own)) = (live, object.get_mut("webhooks").and_then(Value::as_array_mut)) else {
        return object;
    };
    for hook in own {
        if let Some(there) = live.iter().find(|there| there["name"] == hook["name"]) {
            hook["failurePolicy"] = there["failurePolicy"].clone();
        }
    }
    object
}

/// What an object still waits for; none where it is ready.
fn held_up(name: &Name, data: &Value, generation: Option<i64>) -> Option<String> {
    let status = &data["status"];
    if name.kind == "CustomResourceDefinition" {
        let conditions = status["conditions"].as_array();
        let is = |one: &Value| one["type"] == "Established" && one["status"] == "True";
        return (!conditions.into_iter().flatten().any(is)).then(|| "the API server does not serve it yet".to_owned());
    }
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    if name.kind == "DaemonSet" {
        let (wanted, updated, available) =
            (number("desiredNumberScheduled"), number("updatedNumberScheduled"), number("numberAvailable"));
        if number("observedGeneration") < generation.unwrap_or(0) {
            return Some("no controller has seen it yet".to_owned());
        }
        let done = updated >= wanted && available >= wanted;
        return (!done).then(|| format!("{} of {wanted} nodes are ready", available.min(updated)));
    }
    let wanted = data["spec"]["replicas"].as_i64().unwrap_or(1);
    if number("observedGeneration") < generation.unwrap_or(0) {
        return Some("no controller has seen it yet".to_owned());
    }
    let (updated, available) = (number("updatedReplicas"), number("availableReplicas"));
    let done = updated >= wanted && available >= wanted && number("replicas") <= updated;
    (!done).then(|| format!("{} of {wanted} pods are ready", available.min(updated)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::{Spec, render};

    fn deployment() -> Name {
        Name { kind: "Deployment".to_owned(), namespace: "a".to_owned(), name: "b".to_owned() }
    }

    // spec: IN-30, PI-54
    #[test]
    fn a_name_that_another_mesh_has_is_seen() {
        let of = |set: &str| -> Vec<Value> {
            let parts = render(&Spec::new(&[], &[set.to_owned()]).unwrap()).unwrap();
            parts.into_iter().flat_map(|part| part.objects).filter(is_named_by_mesh).collect()
        };
        let (ours, theirs) = (of("revision=canary"), of("namespace=canary"));
        let other = |object: &Value| {
            let found = theirs.iter().find(|found| Name::of(found) == Name::of(object))?;
            Some((Name::of(object).to_string(), other_mesh(object, &serde_json::from_value(found.clone()).unwrap())?))
        };
        let expected = "MutatingWebhookConfiguration istio-sidecar-injector-canary";
        assert_eq!(ours.iter().filter_map(other).collect::<Vec<_>>(), [(expected.to_owned(), "canary".to_owned())]);
        let live = serde_json::from_value(ours[0].clone()).unwrap();
        assert_eq!(other_mesh(&ours[0], &live), None, "its own");
        let unlabelled = DynamicObject::new("x", &resource(&KINDS[0]).0);
        assert_eq!(other_mesh(&ours[0], &unlabelled), None, "nobody's");
    }

    // spec: CT-9
    #[test]
    fn a_deployment_is_ready_when_all_its_new_pods_are() {
        let status =
            |status: Value| held_up(&deployment(), &json!({"spec": {"replicas": 2}, "status": status}), Some(3));
        assert_eq!(status(json!({})).unwrap(), "no controller has seen it yet");
        let seen = |replicas: u32, updated: u32, available: u32| {
            status(
                json!({"observedGeneration": 3, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available}),
            )
        };
        assert_eq!(seen(3, 1, 2).unwrap(), "1 of 2 pods are ready");
        assert!(seen(3, 2, 2).is_some(), "an old pod is still there");
        assert_eq!(seen(2, 2, 2), None);
    }

    // spec: PI-48
    #[test]
    fn a_validation_that_is_obligatory_stays_so() {
        let ours =
            json!({"webhooks": [{"name": "a", "failurePolicy": "Ignore"}, {"name": "b", "failurePolicy": "Ignore"}]});
        let mut found = DynamicObject::new("x", &resource(&KINDS[1]).0);
        found.data = json!({"webhooks": [{"name": "a", "failurePolicy": "Fail"}]});
        let applied = with_live_policy(&ours, Some(&found));
        assert_eq!(
            (&applied["webhooks"][0]["failurePolicy"], &applied["webhooks"][1]["failurePolicy"]),
            (&json!("Fail"), &json!("Ignore"))
        );
        assert_eq!(with_live_policy(&ours, None), ours);
    }
}
