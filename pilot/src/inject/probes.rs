//! Probes and hooks of the application go to the proxy, which alone can ask it past mutual TLS (spec HL-1, PI-66).

use super::mesh::MeshSettings;
use super::pod::{CONTAINERS, INIT_CONTAINERS, Pod, add_env, name};
use super::proxy::STATUS_PORT;
use super::values::Values;
use super::{PROXY, STATUS, annotations};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Annotation: whether probes are rewritten.
const REWRITE: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
/// Variable by which the proxy knows the real probes.
const VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";
/// Where probes stand in a container, and the path that they get.
const PROBES: [(&str, &str); 3] =
    [("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")];
/// Where hooks stand in `lifecycle`, and the path that they get.
const HOOKS: [(&str, &str); 2] = [("preStop", "prestopz"), ("postStart", "poststartz")];
/// Fields of `httpGet` in Kubernetes' order.
const HTTP_FIELDS: [&str; 5] = ["path", "port", "host", "scheme", "httpHeaders"];

/// Rewrites the probes of a pod that has a proxy.
pub(super) fn rewrite(pod: &mut Pod, mesh: &MeshSettings, values: &Values) {
    let wanted = pod.annotation(REWRITE).and_then(annotations::parse_bool);
    let wanted = wanted.unwrap_or_else(|| values.is_on("sidecarInjectorWebhook.rewriteAppHTTPProbe"));
    let port = match pod.annotation(STATUS_PORT) {
        Some(text) => text.trim().parse().unwrap_or_default(),
        None => mesh.proxy.status_port(),
    };
    if !wanted || pod.proxy().is_none() {
        return;
    }
    tell(pod, mesh.proxy.status_port());
    for list in [CONTAINERS, INIT_CONTAINERS] {
        let containers = pod.list_mut(list).into_iter().flatten();
        containers.filter(|container| name(container) != PROXY).for_each(|container| redirect(container, port));
    }
}

/// Gives the proxy the real probes; those of an earlier injection stay.
fn tell(pod: &mut Pod, status_port: u16) {
    let all = pod.list(INIT_CONTAINERS).iter().chain(pod.list(CONTAINERS));
    let apps = all.filter(|container| name(container) != PROXY);
    let mut probes: BTreeMap<String, Value> = apps.flat_map(|container| of(container, status_port)).collect();
    if probes.is_empty() {
        return;
    }
    let injected_before = pod.annotation(STATUS).is_some();
    let Some(proxy) = pod.proxy_mut() else { return };
    let text = |probes: &BTreeMap<String, Value>| json!(probes).to_string();
    let env = proxy["env"].as_array_mut().into_iter().flatten();
    match { env }.find(|variable| injected_before && name(variable) == VARIABLE) {
        Some(variable) => {
            let earlier = variable["value"].as_str().and_then(|json| serde_json::from_str(json).ok());
            let earlier: BTreeMap<String, Value> = earlier.unwrap_or_default();
            probes.extend(earlier);
            variable["value"] = json!(text(&probes));
        }
        None => add_env(proxy, VARIABLE, &text(&probes)),
    }
}

/// The real probes of a container by the path that they get.
fn of(container: &Value, status_port: u16) -> Vec<(String, Value)> {
    let own = name(container);
    let probes = PROBES.iter().map(|(field, path)| (&container[field], format!("/app-health/{own}/{path}")));
    let hooks =
        HOOKS.iter().map(|(field, path)| (&container["lifecycle"][field], format!("/app-lifecycle/{own}/{path}")));
    let all = probes.chain(hooks);
    all.filter_map(|(probe, path)| Some((path, real(probe, container, status_port)?))).collect()
}

/// A probe as the proxy is told of it; `None` where there is none that it could ask, or it is ours already.
fn real(probe: &Value, container: &Value, status_port: u16) -> Option<Value> {
    let mut told = Map::new();
    if let Some(get) = probe["httpGet"].as_object() {
        let port = number(probe["httpGet"].get("port")?, container).filter(|port| *port != u64::from(status_port))?;
        let fields = HTTP_FIELDS.iter().filter_map(|field| Some((*field, get.get(*field)?)));
        let told_fields = fields.map(|(field, value)| match field {
            "port" => (field.to_owned(), json!(port)),
            _ => (field.to_owned(), value.clone()),
        });
        told.insert("httpGet".to_owned(), Value::Object(told_fields.collect()));
    } else if let Some(socket) = probe["tcpSocket"].as_object() {
        let port = number(socket.get("port")?, container).filter(|port| *port != u64::from(status_port))?;
        let mut target = json!({"port": port});
        if let Some(host) = socket.get("host") {
            target["host"] = host.clone();
        }
        told.insert("tcpSocket".to_owned(), target);
    } else if let Some(grpc) = probe["grpc"].as_object() {
        told.insert("grpc".to_owned(), Value::Object(grpc.clone()));
    } else {
        return None;
    }
    if let Some(seconds) = probe["timeoutSeconds"].as_u64().filter(|seconds| *seconds > 0) {
        told.insert("timeoutSeconds".to_owned(), json!(seconds));
    }
    Some(Value::Object(told))
}

/// A port by number, or by the name that the container gives it.
fn number(port: &Value, container: &Value) -> Option<u64> {
    let Some(wanted) = port.as_str() else { return port.as_u64() };
    let mut ports = container["ports"].as_array()?.iter();
    ports.find(|known| known["name"] == wanted)?["containerPort"].as_u64()
}

/// Lets the kubelet ask the proxy instead.
fn redirect(container: &mut Value, port: u16) {
    let own = name(container).to_owned();
    for (field, path) in PROBES {
        if let Some(probe) = container.get_mut(field) {
            point(probe, &format!("/app-health/{own}/{path}"), port, &["httpGet", "tcpSocket", "grpc"]);
        }
    }
    let Some(lifecycle) = container.get_mut("lifecycle") else { return };
    for (field, path) in HOOKS {
        if let Some(hook) = lifecycle.get_mut(field) {
            point(hook, &format!("/app-lifecycle/{own}/{path}"), port, &["httpGet", "tcpSocket"]);
        }
    }
}

fn point(probe: &mut Value, path: &str, port: u16, kinds: &[&str]) {
    let Some(fields) = probe.as_object_mut() else { return };
    let Some(kind) = kinds.iter().find(|kind| fields.get(**kind).is_some_and(Value::is_object)) else { return };
    // The kubelet speaks HTTP to the proxy, which speaks what the probe says to the application.
    let mut get = fields.shift_remove(*kind).filter(|_| *kind == "httpGet").unwrap_or_else(|| json!({}));
    get["path"] = json!(path);
    get["port"] = json!(port);
    if get["scheme"] == "HTTPS" {
        get["scheme"] = json!("HTTP");
    }
    if get["scheme"].is_null() {
        get.as_object_mut().map(|get| get.shift_remove("scheme"));
    }
    fields.insert("httpGet".to_owned(), get);
}

/// Gives the containers of a pod the probes and hooks back that the proxy of the injected one was told.
pub(super) fn restore(pod: &mut Pod, injected: &Pod) {
    let Some(told) = injected.told(VARIABLE) else { return };
    for list in [CONTAINERS, INIT_CONTAINERS] {
        for container in pod.list_mut(list).into_iter().flatten() {
            let own = name(container).to_owned();
            for (field, path) in PROBES {
                give_back(container.get_mut(field), &told[format!("/app-health/{own}/{path}")]);
            }
            let Some(lifecycle) = container.get_mut("lifecycle") else { continue };
            for (field, path) in HOOKS {
                give_back(lifecycle.get_mut(field), &told[format!("/app-lifecycle/{own}/{path}")]);
            }
        }
    }
}

fn give_back(probe: Option<&mut Value>, told: &Value) {
    let Some(fields) = probe.and_then(Value::as_object_mut) else { return };
    for kind in ["httpGet", "tcpSocket", "grpc"] {
        if told[kind].is_object() {
            fields.shift_remove("httpGet");
            fields.insert(kind.to_owned(), told[kind].clone());
        }
    }
}
