//! What PeerAuthentications and AuthorizationPolicies say of a workload.

use super::{named, written};
use crate::analyze::View;
use pilot::model::authn::Mode;
use pilot::registry::entry::selects;
use pilot::source::{Kind, Object, Spec};

/// Lines about a workload's mutual TLS and about who may ask it.
pub fn lines(view: &View<'_>, pod: &Object) -> Vec<String> {
    let (mesh, namespace, labels) = (&view.offline.mesh, &*pod.key.namespace, &pod.meta.labels);
    let effective = mesh.authn.effective(namespace, labels);
    let mut lines =
        vec!["Effective PeerAuthentication:".to_owned(), format!("   Workload mTLS mode: {}", word(effective.mode))];
    lines.extend(effective.ports.iter().map(|(port, mode)| format!("   Port {port} mTLS mode: {}", word(*mode))));
    let root = &*mesh.config.root_namespace;
    let applied = view.kind(Kind::PeerAuthentication).filter(|object| {
        let Spec::PeerAuthentication(spec) = &object.spec else { return false };
        let near = &*object.key.namespace == namespace || &*object.key.namespace == root;
        near && spec.selector.as_ref().is_none_or(|selector| selects(&selector.match_labels, labels))
    });
    let applied: Vec<String> = applied.map(|object| named(&object.key)).collect();
    if !applied.is_empty() {
        lines.push("Applied PeerAuthentication:".to_owned());
        lines.push(format!("   {}", applied.join(", ")));
    }
    let policies = mesh.authz.iter().filter(|policy| policy.applies(namespace, labels, root));
    let policies: Vec<String> = policies
        .map(|policy| {
            let dry = if policy.dry_run { ", dry run: counted alone" } else { "" };
            format!("   {} {} ({} rules{dry})", written(&policy.action), named(&policy.key), policy.rules.len())
        })
        .collect();
    if policies.is_empty() {
        lines.push("AuthorizationPolicy: none applies, everybody may ask".to_owned());
    } else {
        lines.push("AuthorizationPolicy:".to_owned());
        lines.extend(policies);
    }
    lines
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Disable => "DISABLE",
        Mode::Permissive => "PERMISSIVE",
        Mode::Strict => "STRICT",
    }
}
