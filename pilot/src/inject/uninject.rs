//! Injection undone in the objects that users write: `meshctl kube-uninject` (spec CT-49).

use super::InjectError;
use super::mesh::MeshSettings;
use super::overrides::strip;
use super::pod::{CONTAINERS, INIT_CONTAINERS, Pod, name};
use super::workload::{each_template, shown};
use super::{INIT, OVERRIDES, PROXY, STATUS, VALIDATION, probes, prometheus};
use proto::wire::{LABEL_CANONICAL_NAME, LABEL_CANONICAL_REVISION, LABEL_TLS_MODE};
use serde_json::Value;

/// Label of a pod: whether it wants a sidecar.
const INJECT: &str = "sidecar.istio.io/inject";
/// Annotations that injection writes, unless the pod has them: the first container of the application.
const FIRST_CONTAINER: [&str; 2] =
    ["kubectl.kubernetes.io/default-logs-container", "kubectl.kubernetes.io/default-container"];

/// Takes the sidecars out of a workload, or of the workloads of a list, in place; which had one. Their pods say from then on that
/// they want none, or the webhook would give them one again.
///
/// What is not as it was: ports of probes are numbers, annotations for the node agent stay, and a container `istio-proxy` that the
/// user had written to change ours is gone.
///
/// # Errors
/// [`InjectError`] where a pod cannot be read; the object may be half changed then.
pub fn out_of_object(object: &mut Value) -> Result<Vec<String>, InjectError> {
    let mut found = Vec::new();
    each_template(object, &mut |object, template| {
        let pod = Pod::new(template.clone())?;
        if pod.annotation(STATUS).is_some() {
            found.push(shown(object));
            *template = out_of_pod(&pod, &object["metadata"]["name"])?.into_value();
        }
        Ok(())
    })?;
    Ok(found)
}

fn out_of_pod(pod: &Pod, owner: &Value) -> Result<Pod, InjectError> {
    let mut plain = strip(pod, &MeshSettings::default())?;
    prometheus::restore(&mut plain, pod);
    probes::restore(&mut plain, pod);
    let status: Value = pod.annotation(STATUS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    for list in ["volumes", "imagePullSecrets"] {
        let added = |item: &&Value| status[list].as_array().into_iter().flatten().any(|own| own == name(item));
        let kept = plain.list(list).iter().filter(|item| !added(item)).cloned().collect();
        plain.set_list(list, kept);
    }
    // What the user wrote about a container of ours means nothing without it.
    for list in [CONTAINERS, INIT_CONTAINERS] {
        let ours = |container: &&Value| [PROXY, INIT, VALIDATION].contains(&name(container));
        let kept = plain.list(list).iter().filter(|container| !ours(container)).cloned().collect();
        plain.set_list(list, kept);
    }
    let first = plain.app_containers().first().map(|name| (*name).to_owned());
    for annotation in FIRST_CONTAINER {
        if plain.annotation(annotation) == first.as_deref() {
            plain.remove_annotation(annotation);
        }
    }
    [STATUS, OVERRIDES, "istio.io/rev"].iter().for_each(|own| plain.remove_annotation(own));
    // A name that the pod was given by its user says something else than what would be made of the others.
    let label = |name: &str| plain.label(name).map(str::to_owned);
    let derived = ["app.kubernetes.io/name", "app"].iter().find_map(|own| label(own));
    let derived = derived.or_else(|| owner.as_str().map(str::to_owned));
    let version = ["app.kubernetes.io/version", "version"].iter().find_map(|own| label(own));
    let version = version.unwrap_or_else(|| "latest".to_owned());
    let is_derived = (label(LABEL_CANONICAL_NAME) == derived, label(LABEL_CANONICAL_REVISION) == Some(version));
    plain.remove_label(LABEL_TLS_MODE);
    if is_derived.0 {
        plain.remove_label(LABEL_CANONICAL_NAME);
    }
    if is_derived.1 {
        plain.remove_label(LABEL_CANONICAL_REVISION);
    }
    plain.remove_annotation(INJECT);
    plain.set_label(INJECT, "false");
    Ok(plain.without_empty_metadata())
}
