//! The template `sidecar` (spec PI-57 to PI-66).

use super::proxy::{Facts, map};
use super::values::printed;
use proto::wire::{LABEL_CANONICAL_NAME, LABEL_TLS_MODE, PROXY_UID};
use serde_json::{Value, json};

/// Longest value of a label.
const MAX_LABEL: usize = 63;

/// What is merged into a pod so that it has a sidecar.
pub(super) fn overlay(facts: &Facts<'_>) -> Value {
    let mut container = facts.container("sidecar");
    let native = facts.native();
    container["securityContext"] = security(facts);
    container["resources"] = facts.resources();
    container["volumeMounts"] = json!(facts.volume_mounts(true));
    if facts.status_port() != "0" {
        container["readinessProbe"] = facts.readiness_probe(true);
        if let Some(probe) = facts.startup_probe() {
            container["startupProbe"] = probe;
        }
    }
    if native {
        container["restartPolicy"] = json!("Always");
    }
    if container.get("lifecycle").is_none() {
        if native {
            container["lifecycle"] = json!({"preStop": {"exec": {"command": drain_command(facts)}}});
        } else if facts.holds_application() {
            container["lifecycle"] = json!({"postStart": {"exec": {"command": ["pilot-agent", "wait"]}}});
        }
    }
    let mut init: Vec<Value> = facts.redirect_container().into_iter().collect();
    let mut spec = json!({"volumes": facts.volumes(true)});
    if native {
        init.push(container);
    } else {
        spec["containers"] = json!([container]);
    }
    spec["initContainers"] = json!(init);
    if let Some(secrets) = facts.image_pull_secrets() {
        spec["imagePullSecrets"] = json!(secrets);
    }
    json!({"metadata": metadata(facts), "spec": spec})
}

/// Runs when the pod's end begins; the signal comes only once the application has ended.
fn drain_command(facts: &Facts<'_>) -> Value {
    json!(["pilot-agent", "request", format!("--debug-port={}", facts.status_port()), "POST", "drain"])
}

fn metadata(facts: &Facts<'_>) -> Value {
    let (mut labels, mut annotations) = facts.metadata();
    let mode = facts.pod.label(LABEL_TLS_MODE).filter(|mode| !mode.is_empty()).unwrap_or("istio");
    labels.insert(LABEL_TLS_MODE.to_owned(), json!(mode));
    if let Some(name) = labels.get_mut(LABEL_CANONICAL_NAME) {
        let short: String = printed(name).chars().take(MAX_LABEL).collect();
        *name = json!(short.trim_matches(['-', '_', '.']));
    }
    annotations.extend(facts.node_agent_annotations().into_iter().map(|(name, value)| (name, json!(value))));
    json!({"labels": labels, "annotations": annotations})
}

/// No privilege but what the way of redirection or a low port needs (S7).
fn security(facts: &Facts<'_>) -> Value {
    let privileged = facts.values.is_on("global.proxy.privileged");
    let binds_low =
        facts.annotation_or("sidecar.istio.io/capNetBindService", "global.proxy.capNetBindService") == "true";
    let added: Vec<&str> = [(facts.is_tproxy(), "NET_ADMIN"), (binds_low, "NET_BIND_SERVICE")]
        .into_iter()
        .filter_map(|(needed, name)| needed.then_some(name))
        .collect();
    let as_root = !added.is_empty();
    let mut capabilities = map([("drop", json!(["ALL"]))]);
    if as_root {
        capabilities.insert("add".to_owned(), json!(added));
    }
    let (user, group) = if as_root { (0, PROXY_UID) } else { (facts.ids.user, facts.ids.group) };
    let mut context = json!({
        "allowPrivilegeEscalation": privileged,
        "capabilities": capabilities,
        "privileged": privileged,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": !as_root,
        "runAsUser": user,
        "runAsGroup": group,
    });
    facts.add_seccomp(&mut context);
    context
}
