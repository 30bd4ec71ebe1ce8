//! What the mesh does with a pod or a service: which objects apply to it, and which do not match (CT-15).
//!
//! - [`pod`]: of a pod
//! - [`service`]: of a service
//! - [`rule`]: what DestinationRules and VirtualServices say of a service and of a pod behind it
//! - [`policy`]: what PeerAuthentications and AuthorizationPolicies say of a workload
//!
//! Pure functions from objects to lines; pilot's own library says what applies.

pub mod pod;
pub mod policy;
pub mod rule;
pub mod service;

use pilot::source::Object;
use pilot::source::object::Key;
use pilot::source::yaml::{Node, Value};

/// Line between the parts.
const RULER: &str = "--------------------";

/// `name.namespace`.
fn named(key: &Key) -> String {
    format!("{}.{}", key.name, key.namespace)
}

/// A word of an object as it is written.
fn written<T: serde::Serialize>(word: &T) -> String {
    serde_json::to_value(word).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Containers of a pod, those that run before and beside the others too.
fn containers(pod: &Object) -> impl Iterator<Item = &Node> {
    let spec = pod.origin.as_ref().and_then(|origin| origin.document.field("spec"));
    let lists = ["initContainers", "containers"].into_iter().filter_map(move |list| spec?.field(list));
    lists.flat_map(|list| match &list.value {
        Value::List(items) => items.as_slice(),
        _ => &[],
    })
}

/// Whether a proxy stands beside the pod's own containers.
fn has_proxy(pod: &Object) -> bool {
    containers(pod).any(|one| one.field("name").and_then(Node::text) == Some("istio-proxy"))
}

#[cfg(test)]
mod tests;
