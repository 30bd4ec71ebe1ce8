//! What is installed, and of which mesh it is. Pure.

use super::cluster::Name;
use std::collections::BTreeSet;

/// An object that was installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// What it is.
    pub name: Name,
    /// Namespace of the control plane that it belongs to; none where it was installed before the label was there.
    pub owner: Option<String>,
}

impl Installed {
    /// Whether it belongs to the control plane in a namespace. Before the label was there, all that was in no namespace but
    /// definitions and webhooks were rights, with names of service accounts and that namespace.
    pub fn belongs(&self, namespace: &str) -> bool {
        let Name { kind, namespace: own, name } = &self.name;
        let is_right = || ["istiod", "citadel", "istio-cni"].iter().any(|own| *name == format!("{own}-{namespace}"));
        match (&self.owner, kind.as_str()) {
            (Some(owner), _) => owner == namespace,
            // Everybody's.
            (None, "CustomResourceDefinition") => true,
            (None, "Namespace") => name == namespace,
            (None, _) => own == namespace || (own.is_empty() && is_right()),
        }
    }
}

/// Namespaces of the control planes that objects belong to, by the objects that do something.
pub fn meshes(installed: &[Installed]) -> BTreeSet<&str> {
    let works = ["Deployment", "DaemonSet", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];
    let working = installed.iter().filter(|one| works.contains(&one.name.kind.as_str()));
    let namespaces = working.map(|one| one.owner.as_deref().unwrap_or(&one.name.namespace));
    namespaces.filter(|namespace| !namespace.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(kind: &str, namespace: &str, name: &str, owner: Option<&str>) -> Installed {
        let [kind, namespace, name] = [kind, namespace, name].map(str::to_owned);
        Installed { name: Name { kind, namespace, name }, owner: owner.map(str::to_owned) }
    }

    // spec: CT-10, CT-49
    #[test]
    fn an_object_without_a_label_belongs_to_the_mesh_of_its_namespace_or_name() {
        for (kind, namespace, name, owner, of) in [
            ("Deployment", "ingress", "door", Some("mesh"), "mesh"),
            ("Deployment", "mesh", "istiod", None, "mesh"),
            ("Namespace", "", "mesh", None, "mesh"),
            ("ClusterRole", "", "istiod-mesh", None, "mesh"),
            ("ClusterRoleBinding", "", "istio-cni-istio-system", None, "istio-system"),
            ("ClusterRole", "", "istiod-my-mesh", None, "my-mesh"),
        ] {
            let one = installed(kind, namespace, name, owner);
            let mut others = ["istio-system", "mesh", "my-mesh"].into_iter().filter(|other| *other != of);
            assert!(one.belongs(of), "{one:?}");
            assert!(!others.any(|other| one.belongs(other)), "{one:?}");
        }
        let definition = installed("CustomResourceDefinition", "", "gateways.networking.istio.io", None);
        assert!(definition.belongs("mesh") && definition.belongs("my-mesh"));
    }

    // spec: CT-10
    #[test]
    fn a_mesh_is_known_by_what_does_something() {
        let all = [
            installed("Namespace", "", "gone", Some("gone")),
            installed("ServiceAccount", "old", "citadel", None),
            installed("Deployment", "ingress", "door", Some("without-citadel")),
            installed("Deployment", "earlier", "istiod", None),
            installed("MutatingWebhookConfiguration", "", "istio-sidecar-injector", None),
            installed("MutatingWebhookConfiguration", "", "istio-revision-tag-a-tagged", Some("tagged")),
        ];
        assert_eq!(meshes(&all).into_iter().collect::<Vec<_>>(), ["earlier", "tagged", "without-citadel"]);
    }
}
