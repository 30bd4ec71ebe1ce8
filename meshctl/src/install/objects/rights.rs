//! Roles and what they are bound to. Verbs are always written out (robustness S6).

use super::Spec;
use serde_json::{Value, json};

/// To look at.
pub(super) const READ: [&str; 3] = ["get", "list", "watch"];

/// One rule: group, resources, verbs.
pub(super) fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// The same for objects of these names alone.
pub(super) fn rule_for(group: &str, resources: &[&str], names: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "resourceNames": names, "verbs": verbs})
}

/// Rights in the whole cluster, bound to a service account of the control plane. Their names hold its namespace.
pub(super) fn in_cluster(spec: &Spec, account: &str, rules: &[Value]) -> [Value; 2] {
    let name = format!("{account}-{}", spec.namespace());
    let metadata = json!({"name": name, "labels": {}});
    [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": spec.namespace()}],
        }),
    ]
}

/// Rights in the namespace of the control plane.
pub(super) fn in_namespace(spec: &Spec, account: &str, rules: &[Value]) -> [Value; 2] {
    let metadata = json!({"name": account, "namespace": spec.namespace(), "labels": {}});
    [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": spec.namespace()}],
        }),
    ]
}
