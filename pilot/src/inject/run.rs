//! One pod, from its templates to its patch.

use super::cluster::{CLUSTER, ClusterPath, NETWORK};
use super::config::{Config, GATEWAY, SIDECAR};
use super::merge::merge;
use super::mesh::MeshSettings;
use super::openshift::{Ids, forget_assigned_user};
use super::owner::Owner;
use super::pod::{CONTAINERS, INIT_CONTAINERS, Pod, name};
use super::proxy::{Facts, INTERCEPTION_MODE, holds_application, native};
use super::values::Values;
use super::{InjectError, STATUS, annotations, gateway, order, overrides, probes, prometheus, sidecar};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Label of a pod: its network.
const NETWORK_LABEL: &str = "topology.istio.io/network";

/// What is the same for all pods of an installation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The injection configuration.
    pub config: Config,
    /// The values of the installation.
    pub values: Values,
    /// The mesh's own settings.
    pub mesh: MeshSettings,
    /// The revision that injects; empty is the default one.
    pub revision: String,
    /// Whether the cluster knows init containers that keep running (Kubernetes 1.33 and later).
    pub native_sidecars: bool,
}

/// Everything that decides what a pod becomes; the same input gives the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The pod as it is written.
    pub pod: &'a Pod,
    /// The workload that it belongs to.
    pub owner: &'a Owner,
    /// Annotations of its namespace.
    pub namespace_annotations: &'a BTreeMap<String, String>,
    /// What is the same for all pods.
    pub settings: &'a Settings,
    /// What the path of the webhook says.
    pub cluster: &'a ClusterPath,
}

/// The pod with its proxy.
///
/// # Errors
/// [`InjectError`] with the annotation or the template that cannot be used.
pub fn run(input: &Input<'_>) -> Result<Pod, InjectError> {
    annotations::check(input.pod)?;
    let mut original = input.pod.clone();
    if input.namespace_annotations.keys().any(|name| name.starts_with("openshift.io/")) {
        forget_assigned_user(&mut original);
    }
    let proxy = input.settings.mesh.proxy_for(&original)?;
    let stripped = overrides::strip(&original, &input.settings.mesh)?;
    let ids = Ids::of_namespace(|name| input.namespace_annotations.get(name).map(String::as_str));
    let facts = Facts {
        pod: &stripped,
        owner: input.owner,
        values: &input.settings.values,
        mesh: &input.settings.mesh,
        proxy: &proxy,
        revision: &input.settings.revision,
        cluster_has_native: input.settings.native_sidecars,
        ids,
    };
    let (mut merged, mut template) = (original.clone(), json!({}));
    let names = input.settings.config.names_for(original.annotation("inject.istio.io/templates"));
    if names.iter().any(|name| name == SIDECAR) && facts.is_tproxy() {
        // pilot sends no listener that takes connections transparently.
        let why = "not served yet, the pod would get no traffic: use REDIRECT";
        return Err(InjectError::annotation(INTERCEPTION_MODE, "TPROXY", why));
    }
    for name in names {
        let overlay = overlay(&name, input, &facts)?;
        merge(&mut template, &overlay);
        let added = Pod::new(template.clone())?;
        if native(&original, input.settings.native_sidecars) {
            overrides::move_native(&mut merged, &added);
        }
        let mut whole = merged.into_value();
        merge(&mut whole, &overlay);
        merged = Pod::new(whole)?;
    }
    let template = Pod::new(template)?;
    overrides::reapply(&mut merged, &original, &template, &proxy)?;
    finish(&mut merged, &template, input, holds_application(&proxy, &input.settings.values))?;
    Ok(merged)
}

fn overlay(name: &str, input: &Input<'_>, facts: &Facts<'_>) -> Result<Value, InjectError> {
    if let Some(template) = input.settings.config.templates.get(name) {
        return template.overlay(facts).map_err(|why| InjectError::template(name, why));
    }
    match name {
        SIDECAR => Ok(sidecar::overlay(facts)),
        GATEWAY => Ok(gateway::overlay(facts)),
        _ => Err(InjectError::UnknownTemplate { name: name.into(), known: input.settings.config.known().into() }),
    }
}

/// What cannot be said by a template, which sees only the pod as it was.
fn finish(pod: &mut Pod, template: &Pod, input: &Input<'_>, proxy_first: bool) -> Result<(), InjectError> {
    let variables = cluster_variables(pod, input);
    set_variables(pod, &variables);
    prometheus::merge(pod, &input.settings.mesh)?;
    probes::rewrite(pod, &input.settings.mesh, &input.settings.values);
    if let Some(network) = variables.get(NETWORK) {
        pod.set_label(NETWORK_LABEL, network.clone());
    }
    pod.set_annotation(STATUS, status(template, &input.settings.revision));
    for (name, value) in &input.settings.config.injected_annotations {
        pod.set_annotation(name, value.clone());
    }
    order::order(pod, proxy_first);
    Ok(())
}

/// Cluster and network: the values, over them the path, over that the pod's own label.
fn cluster_variables(pod: &Pod, input: &Input<'_>) -> BTreeMap<String, String> {
    let mut variables = input.cluster.variables().clone();
    let cluster = input.cluster.cluster().map(str::to_owned);
    let network = pod.label(NETWORK_LABEL).or_else(|| input.cluster.network()).map(str::to_owned);
    let known = [
        (CLUSTER, cluster.or_else(|| input.settings.values.filled("global.multiCluster.clusterName"))),
        (NETWORK, network.or_else(|| input.settings.values.filled("global.network"))),
    ];
    variables.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    variables
}

/// Replaces variables of the proxy.
fn set_variables(pod: &mut Pod, variables: &BTreeMap<String, String>) {
    let Some(proxy) = pod.proxy_mut().filter(|_| !variables.is_empty()) else { return };
    let env = proxy["env"].as_array().into_iter().flatten();
    let kept = env.filter(|variable| !variables.contains_key(name(variable))).cloned();
    let set = variables.iter().map(|(name, value)| json!({"name": name, "value": value}));
    proxy["env"] = kept.chain(set).collect();
}

/// What was added, so that a second injection knows.
fn status(template: &Pod, revision: &str) -> String {
    let names = |list: &str| match template.list(list) {
        [] => Value::Null,
        items => items.iter().map(|item| json!(name(item))).collect(),
    };
    let revision = if revision.is_empty() { "default" } else { revision };
    json!({
        "initContainers": names(INIT_CONTAINERS),
        "containers": names(CONTAINERS),
        "volumes": names("volumes"),
        "imagePullSecrets": names("imagePullSecrets"),
        "revision": revision,
    })
    .to_string()
}

/// The change from one pod to the other, as a JSON patch (RFC 6902).
pub fn patch(before: &Value, after: &Pod) -> json_patch::Patch {
    json_patch::diff(before, after.value())
}
