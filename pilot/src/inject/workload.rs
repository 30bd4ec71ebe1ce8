//! Injection into the objects that users write: `meshctl kube-inject` (spec CT, PI-57).

use super::InjectError;
use super::cluster::ClusterPath;
use super::decision::{Decision, required};
use super::owner::{Owner, owner_of_pod};
use super::pod::Pod;
use super::run::{Input, Settings, run};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Kinds with a template of pods, and where it stands.
const TEMPLATES: [(&str, &str); 8] = [
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("ReplicationController", "/spec/template"),
    ("DeploymentConfig", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];
/// How deep lists may stand within lists.
const MAX_DEPTH: usize = 8;

/// Annotations of namespaces, by the namespace's name.
pub type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It has a sidecar now.
    Injected,
    /// It is a workload that gets none.
    Skipped {
        /// Kind and name.
        object: String,
        /// Why.
        decision: Decision,
    },
    /// It is no workload.
    NoWorkload,
    /// What became of the items of a list.
    List(Vec<Self>),
}

/// Injects a workload, or the workloads of a list, in place; anything else stays as it is.
///
/// # Errors
/// [`InjectError`] where a pod cannot be injected; the object may be half changed then.
pub fn into_object(object: &mut Value, settings: &Settings, namespaces: &Namespaces) -> Result<Outcome, InjectError> {
    into_object_at(object, (settings, namespaces), MAX_DEPTH)
}

/// Where the pods of an object's workloads go; empty for workloads that name no namespace.
///
/// # Errors
/// [`InjectError`] where lists stand too deep in lists.
pub fn namespaces(object: &mut Value) -> Result<BTreeSet<String>, InjectError> {
    let mut found = BTreeSet::new();
    each_template(object, &mut |whole, template| {
        found.insert(namespace(template, whole).to_owned());
        Ok(())
    })?;
    Ok(found)
}

/// Calls `visit` with every workload in an object, which may be a list of them, and with its template of pods.
///
/// # Errors
/// What `visit` says; lists that stand too deep in lists.
pub(super) fn each_template(
    object: &mut Value,
    visit: &mut dyn FnMut(&Value, &mut Value) -> Result<(), InjectError>,
) -> Result<(), InjectError> {
    each_template_at(object, visit, MAX_DEPTH)
}

fn each_template_at(
    object: &mut Value,
    visit: &mut dyn FnMut(&Value, &mut Value) -> Result<(), InjectError>,
    depth: usize,
) -> Result<(), InjectError> {
    if object["kind"] == "List" {
        let deeper = depth.checked_sub(1).ok_or_else(too_deep)?;
        let mut items = object["items"].as_array_mut().into_iter().flatten();
        return items.try_for_each(|item| each_template_at(item, visit, deeper));
    }
    let Some(place) = place(object) else { return Ok(()) };
    let whole = object.clone();
    match object.pointer_mut(place).filter(|template| template.is_object()) {
        Some(template) => visit(&whole, template),
        None => Ok(()),
    }
}

fn too_deep() -> InjectError {
    InjectError::pod("items", "lists stand too deep in lists")
}

/// Where the template of a workload's pods stands; none where it is no workload.
fn place(object: &Value) -> Option<&'static str> {
    match object["kind"].as_str()? {
        "Pod" => Some(""),
        kind => TEMPLATES.iter().find(|(known, _)| *known == kind).map(|(_, place)| *place),
    }
}

fn into_object_at(object: &mut Value, given: (&Settings, &Namespaces), depth: usize) -> Result<Outcome, InjectError> {
    let (settings, namespaces) = given;
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if kind == "List" {
        let deeper = depth.checked_sub(1).ok_or_else(too_deep)?;
        let items = object["items"].as_array_mut().into_iter().flatten();
        return items.map(|item| into_object_at(item, given, deeper)).collect::<Result<_, _>>().map(Outcome::List);
    }
    let Some(place) = place(object) else { return Ok(Outcome::NoWorkload) };
    let owner = if kind == "Pod" { None } else { Some(owner(object)) };
    let shown = shown(object);
    let namespace = namespace(object.pointer(place).unwrap_or(&Value::Null), object).to_owned();
    let template = object.pointer_mut(place).filter(|template| template.is_object());
    let template =
        template.ok_or_else(|| InjectError::pod(place.replace('/', "."), format!("{shown} has no template")))?;
    let pod = Pod::new(template.clone())?;
    let decision = required(&pod, &namespace, &settings.config);
    if !decision.injects() {
        return Ok(Outcome::Skipped { object: shown, decision });
    }
    let owner = owner.unwrap_or_else(|| owner_of_pod(&pod, &namespace));
    let (none, cluster) = (BTreeMap::new(), ClusterPath::default());
    let namespace_annotations = namespaces.get(&namespace).unwrap_or(&none);
    let input = Input { pod: &pod, owner: &owner, namespace_annotations, settings, cluster: &cluster };
    *template = run(&input)?.into_value();
    Ok(Outcome::Injected)
}

/// The namespace that a template names, or else its workload.
fn namespace<'a>(template: &'a Value, workload: &'a Value) -> &'a str {
    let mut named = [template, workload].into_iter().filter_map(|one| one["metadata"]["namespace"].as_str());
    named.find(|name| !name.is_empty()).unwrap_or_default()
}

fn owner(object: &Value) -> Owner {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Owner {
        api_version: text(&object["apiVersion"]),
        kind: text(&object["kind"]),
        name: text(&object["metadata"]["name"]),
        namespace: text(&object["metadata"]["namespace"]),
    }
}

/// Kind and name, for messages.
pub(super) fn shown(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or("without a name");
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}
