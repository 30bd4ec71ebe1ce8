//! What all components need: the namespace and the definitions of the mesh's kinds.

use super::Spec;
use serde_json::{Value, json};

pub(super) fn objects(spec: &Spec) -> Vec<Value> {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": spec.namespace(), "labels": {}}});
    let definitions = pilot::source::kube::crd::manifests();
    let items = definitions["items"].as_array().cloned().unwrap_or_default();
    std::iter::once(namespace).chain(items).collect()
}
