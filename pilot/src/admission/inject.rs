//! A pod that is created: whether it gets a proxy, and the change that gives it one (PI-54 to PI-58).

use super::review::{Answer, Request};
use crate::inject::{ClusterPath, InjectError, Input, Pod, Settings, owner_of_pod, patch, required, run};
use std::collections::BTreeMap;

/// The answer for a pod. `namespace_annotations` are those of its namespace, `path` that of the webhook.
pub(super) fn answer(
    request: &Request,
    settings: &Settings,
    namespace_annotations: &BTreeMap<String, String>,
    path: &str,
) -> Answer {
    match injected(request, settings, namespace_annotations, path) {
        Ok(answer) => answer,
        Err(error) => Answer::Refused(format!("no sidecar: {error}")),
    }
}

fn injected(
    request: &Request,
    settings: &Settings,
    namespace_annotations: &BTreeMap<String, String>,
    path: &str,
) -> Result<Answer, InjectError> {
    let pod = Pod::new(request.object.clone())?;
    let decision = required(&pod, &request.namespace, &settings.config);
    tracing::debug!(namespace = request.namespace, pod = pod.shown_name(), "{decision}");
    if !decision.injects() {
        return Ok(Answer::Allowed);
    }
    let owner = owner_of_pod(&pod, &request.namespace);
    let cluster = ClusterPath::parse(path);
    let input = Input { pod: &pod, owner: &owner, namespace_annotations, settings, cluster: &cluster };
    Ok(Answer::Patched(patch(&request.object, &run(&input)?)))
}
