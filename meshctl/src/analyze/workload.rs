//! Namespaces, pods, and who selects them.

use super::code::Code;
use super::message::Message;
use super::view::{View, list, shown};
use pilot::registry::Registry;
use pilot::source::yaml::{Node, Value};
use pilot::source::{Kind, Object, Spec};

/// Namespaces that are never injected.
const SYSTEM: [&str; 5] = ["istio-system", "kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
/// User of the proxy.
const PROXY_USER: i64 = 1337;

/// Sidecars that select nobody.
pub fn sidecars(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    for object in view.kind(Kind::Sidecar) {
        let Spec::Sidecar(spec) = &object.spec else { continue };
        let Some(selector) = spec.workload_selector.as_ref().filter(|own| !own.match_labels.is_empty()) else {
            continue;
        };
        if view.pods(&selector.match_labels, Some(&object.key.namespace)).is_empty() {
            let text = format!("Referenced selector not found: {:?}", shown(&selector.match_labels));
            found.push(Message::at(Code::ReferencedResourceNotFound, object, "spec.workloadSelector", text));
        }
    }
    found
}

/// Subsets of services with selectors that no pod has.
pub fn subsets(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    for (object, rule) in view.rules() {
        let service = view.service(&view.resolve(&rule.host, &object.key.namespace));
        let Some(service) = service.filter(|own| own.registry == Registry::Kubernetes && !own.selector.is_empty())
        else {
            continue;
        };
        for (i, subset) in rule.subsets.iter().enumerate().filter(|(_, subset)| !view.has_pod(service, &subset.labels))
        {
            let text = format!("The Subset {} defined in the DestinationRule does not select any pods.", subset.name);
            let at = format!("spec.subsets[{i}]");
            found.push(Message::at(Code::DestinationRuleSubsetNotSelectPods, object, &at, text));
        }
    }
    found
}

/// Namespaces that say nothing or two things about injection, and pods that were not injected.
pub fn injection(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    for namespace in view.kind(Kind::Namespace).filter(|object| !SYSTEM.contains(&&*object.key.name)) {
        let (name, labels) = (&namespace.key.name, &namespace.meta.labels);
        let own: Vec<&str> =
            ["istio-injection", "istio.io/rev"].into_iter().filter(|label| labels.contains_key(*label)).collect();
        if own.is_empty() && labels.get("istio.io/dataplane-mode").is_none() {
            let text = format!(
                "The namespace is not enabled for Istio injection. Run 'kubectl label namespace {name} \
                 istio-injection=enabled' to enable it, or 'kubectl label namespace {name} istio-injection=disabled' to \
                 explicitly mark it as not needing injection."
            );
            found.push(Message::at(Code::NamespaceNotInjected, namespace, "metadata.name", text));
        }
        if own.len() > 1 {
            let text = format!(
                "The namespace has more than one type of injection labels {}, which may lead to undefined behavior. Make \
                 sure only one injection label exists.",
                list(own)
            );
            found.push(Message::at(Code::NamespaceMultipleInjectionLabels, namespace, "metadata.labels", text));
            continue;
        }
        let enabled =
            labels.get("istio-injection").map_or_else(|| labels.contains_key("istio.io/rev"), |own| own == "enabled");
        let pods = view.kind(Kind::Pod).filter(|pod| enabled && pod.key.namespace == *name && lacks_proxy(pod));
        found.extend(pods.map(|pod| {
            let text = format!(
                "The pod {} is missing the Istio proxy. This can often be resolved by restarting or redeploying the \
                 workload.",
                pod.key.name
            );
            Message::at(Code::PodMissingProxy, pod, "metadata.name", text)
        }));
    }
    found
}

fn lacks_proxy(pod: &Object) -> bool {
    !has_proxy(pod) && !declines(pod)
}

fn has_proxy(pod: &Object) -> bool {
    document(pod).is_some_and(|document| {
        let lists = ["containers", "initContainers"].into_iter().filter_map(|list| document.field("spec")?.field(list));
        lists.flat_map(items).any(|one| one.field("name").and_then(Node::text) == Some("istio-proxy"))
    })
}

/// Whether a pod is in the mesh: it has a proxy, or would be given one by its label, its annotation or its namespace.
pub fn in_mesh(view: &View<'_>, pod: &Object) -> bool {
    let own = [&pod.meta.labels, &pod.meta.annotations];
    let written = own.iter().find_map(|map| map.get("sidecar.istio.io/inject"));
    let of_namespace = || {
        let labels =
            view.kind(Kind::Namespace).find(|own| own.key.name == pod.key.namespace).map(|own| &own.meta.labels);
        labels.is_some_and(|labels| {
            labels.get("istio-injection").map_or_else(|| labels.contains_key("istio.io/rev"), |own| own == "enabled")
        })
    };
    has_proxy(pod) || written.map_or_else(of_namespace, |value| value == "true")
}

/// Whether a pod asks for no proxy, as those of the control plane do.
fn declines(pod: &Object) -> bool {
    let maps = [&pod.meta.labels, &pod.meta.annotations];
    maps.iter().any(|map| map.get("sidecar.istio.io/inject").is_some_and(|value| value == "false"))
}

/// Pods that run as the proxy's user: their traffic would pass by the proxy.
pub fn users(view: &View<'_>) -> Vec<Message> {
    let mut found = Vec::new();
    for pod in view.kind(Kind::Pod).filter(|pod| !declines(pod)) {
        let Some(spec) = document(pod).and_then(|document| document.field("spec")) else { continue };
        let runs_so = |node: &Node| {
            let user = node.field("securityContext").and_then(|context| context.field("runAsUser"));
            user.is_some_and(|user| user.value == Value::Int(PROXY_USER))
        };
        let mut at = runs_so(spec).then(|| "spec.securityContext.runAsUser".to_owned());
        for (i, container) in spec.field("containers").into_iter().flat_map(items).enumerate() {
            let proxy = container.field("name").and_then(Node::text) == Some("istio-proxy");
            if runs_so(container) && !proxy {
                at = Some(format!("spec.containers[{i}].securityContext.runAsUser"));
            }
        }
        let text = "User ID (UID) 1337 is reserved for the sidecar proxy.";
        found.extend(at.map(|at| Message::at(Code::InvalidApplicationUid, pod, &at, text)));
    }
    found
}

fn document(object: &Object) -> Option<&Node> {
    object.origin.as_ref().map(|origin| &*origin.document)
}

fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        _ => &[],
    }
}
