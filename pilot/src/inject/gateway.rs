//! The template `gateway`: a pod that is nothing but a proxy, written with `image: auto` (spec PI-57, IN-34).

use super::proxy::Facts;
use serde_json::{Value, json};

/// What is merged into a pod so that its `istio-proxy` is a gateway.
pub(super) fn overlay(facts: &Facts<'_>) -> Value {
    let mut container = facts.container("router");
    container["securityContext"] = json!({"runAsUser": facts.ids.user, "runAsGroup": facts.ids.group});
    container["readinessProbe"] = facts.readiness_probe(false);
    container["volumeMounts"] = json!(facts.volume_mounts(false));
    let given = facts.values.at("gateways.securityContext");
    let security = if given.as_object().is_some_and(|given| !given.is_empty()) {
        given.clone()
    } else {
        // Ports 80 and 443 without a capability.
        json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]})
    };
    let (labels, annotations) = facts.metadata();
    let mut spec = json!({
        "securityContext": security,
        "containers": [container],
        "volumes": facts.volumes(false),
    });
    if let Some(secrets) = facts.image_pull_secrets() {
        spec["imagePullSecrets"] = json!(secrets);
    }
    json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec})
}
