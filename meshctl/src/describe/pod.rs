//! A pod: its ports, the services in front of it, rules, policies, and what should be looked at.

use super::{RULER, containers, has_proxy, policy, rule};
use crate::analyze::View;
use pilot::registry::Service;
use pilot::registry::entry::selects;
use pilot::source::yaml::{Node, Value};
use pilot::source::{Kind, Object, Spec};

/// User of the proxy: who shares it passes by the proxy.
const PROXY_USER: i64 = proto::wire::PROXY_UID as i64;

/// The pod of that name and namespace.
pub fn find<'a>(view: &View<'a>, namespace: &str, name: &str) -> Option<&'a Object> {
    view.kind(Kind::Pod).find(|pod| &*pod.key.namespace == namespace && &*pod.key.name == name)
}

/// Everything about a pod; `ignore_unmeshed` does not complain about a pod without a proxy.
pub fn lines(view: &View<'_>, pod: &Object, ignore_unmeshed: bool) -> Vec<String> {
    let labels = &pod.meta.labels;
    let mut lines = vec![format!("Pod: {}.{}", pod.key.name, pod.key.namespace)];
    let revision = labels.get("istio.io/rev").map_or("default", String::as_str);
    lines.push(format!("   Pod Revision: {revision}"));
    lines.push(format!("   Pod Ports: {}", ports(pod)));
    lines.extend(warnings(pod, ignore_unmeshed).into_iter().map(|warning| format!("WARNING: {warning}")));
    lines.push(RULER.to_owned());
    let services = services(view, pod);
    if services.is_empty() {
        lines.push("No Service selects it: requests reach it by its address alone".to_owned());
    }
    for service in services {
        lines.extend(super::service::head(service));
        lines.extend(rule::destinations(view, service, Some(labels)));
        lines.extend(rule::routes(view, service, Some(labels)));
        lines.push(RULER.to_owned());
    }
    lines.extend(policy::lines(view, pod));
    lines
}

/// The services that select a pod.
fn services<'a>(view: &View<'a>, pod: &Object) -> Vec<&'a Service> {
    let all = view.offline.mesh.services.iter().map(|service| &**service);
    all.filter(|service| {
        *service.key.namespace == *pod.key.namespace
            && !service.selector.is_empty()
            && selects(&service.selector, &pod.meta.labels)
    })
    .collect()
}

/// `9080 (productpage), 15090 (istio-proxy)`.
fn ports(pod: &Object) -> String {
    let of = |container: &Node| {
        let name = container.field("name").and_then(Node::text).unwrap_or_default().to_owned();
        let ports = match container.field("ports").map(|ports| &ports.value) {
            Some(Value::List(ports)) => ports.as_slice(),
            _ => &[],
        };
        let number = |port: &Node| match port.field("containerPort").map(|number| &number.value) {
            Some(Value::Int(number)) => Some(format!("{number} ({name})")),
            _ => None,
        };
        ports.iter().filter_map(number).collect::<Vec<_>>()
    };
    let all: Vec<String> = containers(pod).flat_map(of).collect();
    if all.is_empty() { "none declared".to_owned() } else { all.join(", ") }
}

fn warnings(pod: &Object, ignore_unmeshed: bool) -> Vec<String> {
    let mut found = Vec::new();
    let Spec::Pod(_, status) = &pod.spec else { return found };
    if let Some(phase) = status.phase.as_deref().filter(|phase| *phase != "Running") {
        found.push(format!("the pod is not running: {phase}"));
    }
    if !ready(pod) {
        found.push("the pod is not ready: it gets no requests through its services".to_owned());
    }
    if !has_proxy(pod) {
        if !ignore_unmeshed {
            found.push(
                "the pod has no proxy: label its namespace istio-injection=enabled and restart it; meshctl check tells why it \
                 has none where the label is there"
                    .to_owned(),
            );
        }
        return found;
    }
    let own = containers(pod).filter(|one| one.field("name").and_then(Node::text) != Some("istio-proxy"));
    for container in own {
        let user = container.field("securityContext").and_then(|context| context.field("runAsUser"));
        let name = container.field("name").and_then(Node::text).unwrap_or_default();
        if user.is_some_and(|user| user.value == Value::Int(PROXY_USER)) && !name.starts_with("istio-") {
            found.push(format!("{name} runs as user {PROXY_USER}, the proxy's: its requests pass by the proxy"));
        }
    }
    let lacks = |label: &str, other: &str| !pod.meta.labels.contains_key(label) && !pod.meta.labels.contains_key(other);
    for (label, other) in
        [("app", "service.istio.io/canonical-name"), ("version", "service.istio.io/canonical-revision")]
    {
        if lacks(label, other) {
            found.push(format!("no label {label}: metrics cannot tell what it is"));
        }
    }
    found
}

fn ready(pod: &Object) -> bool {
    let status = pod.origin.as_ref().and_then(|origin| origin.document.field("status"));
    let Some(Value::List(conditions)) = status.and_then(|status| status.field("conditions")).map(|list| &list.value)
    else {
        return true; // out of a file: nobody says
    };
    let text = |node: &Node, name: &str| node.field(name).and_then(Node::text).unwrap_or_default().to_owned();
    conditions.iter().any(|one| text(one, "type") == "Ready" && text(one, "status") == "True")
}
