//! Namespaces with their revision and those of their pods, and webhooks with what they inject.

use super::hook::{Hook, Labels, NAMESPACE, REVISION};
use crate::output::Table;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Namespaces whose pods are never injected.
const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
/// Where injection leaves what it did.
const STATUS: &str = "sidecar.istio.io/status";
/// Whether a pod wants a sidecar.
const INJECT: &str = "sidecar.istio.io/inject";
/// What is shown for pods without a sidecar.
const NOBODY: &str = "<non-Istio>";

/// What the API server says.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Webhook configurations that inject.
    pub hooks: Vec<Hook>,
    /// Labels by namespace.
    pub namespaces: BTreeMap<String, Labels>,
    /// Namespace, labels and annotations of each pod.
    pub pods: Vec<(String, Labels, Labels)>,
    /// Image of the sidecar by revision.
    pub images: BTreeMap<String, String>,
    /// Namespace of the control plane.
    pub control_plane: String,
}

/// Pods of one revision in a namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    pods: usize,
    disabled: usize,
    restart: usize,
}

impl Facts {
    /// The namespaces that matter, in order.
    fn spaces(&self) -> impl Iterator<Item = (&String, &Labels)> {
        let own = |name: &str| !SYSTEM.contains(&name) && name != self.control_plane;
        self.namespaces.iter().filter(move |(name, _)| own(name))
    }

    /// The revision that injects into a namespace: that of the webhook that chooses it, `MISSING/…` where it asks for one
    /// that is not there, nothing where it asks for none.
    fn revision(&self, labels: &Labels) -> String {
        if let Some(hook) = self.hooks.iter().find(|hook| hook.chooses(labels)) {
            return hook.revision.clone();
        }
        match (labels.get(REVISION), labels.get(NAMESPACE).map(String::as_str)) {
            (Some(revision), None) => format!("MISSING/{revision}"),
            (_, Some("enabled")) => format!("MISSING/{NAMESPACE}"),
            _ => String::new(),
        }
    }

    fn counts(&self, namespace: &str, wanted: &str) -> BTreeMap<String, Count> {
        let mut counts: BTreeMap<String, Count> = BTreeMap::new();
        for (_, labels, annotations) in self.pods.iter().filter(|(space, ..)| space == namespace) {
            let revision = revision_of(labels, annotations);
            let count = counts.entry(revision.clone().unwrap_or_else(|| NOBODY.to_owned())).or_default();
            count.pods += 1;
            let asked = labels.get(INJECT).or_else(|| annotations.get(INJECT));
            if asked.is_some_and(|value| value.eq_ignore_ascii_case("false")) {
                count.disabled += 1;
            } else if revision.unwrap_or_default() != wanted {
                count.restart += 1;
            }
        }
        if counts.is_empty() && !wanted.is_empty() {
            counts.insert(wanted.to_owned(), Count::default());
        }
        counts
    }

    /// NAMESPACE, ISTIO-REVISION, POD-REVISIONS; and the same for programs.
    pub fn by_namespace(&self) -> (Table, Vec<Value>) {
        let mut table = Table::new(&["NAMESPACE", "ISTIO-REVISION", "POD-REVISIONS"]);
        let mut values = Vec::new();
        for (name, labels) in self.spaces() {
            let wanted = self.revision(labels);
            for (revision, count) in self.counts(name, &wanted) {
                table.row([name.clone(), wanted.clone(), shown(&revision, count)]);
                values.push(json!({
                    "namespace": name, "revision": wanted, "podRevision": revision, "pods": count.pods,
                    "injectionDisabled": count.disabled, "needsRestart": count.restart,
                }));
            }
        }
        (table, values)
    }

    /// NAMESPACES, INJECTOR-HOOK, ISTIO-REVISION, SIDECAR-IMAGE; and the same for programs.
    pub fn by_hook(&self) -> (Table, Vec<Value>) {
        let mut table = Table::new(&["NAMESPACES", "INJECTOR-HOOK", "ISTIO-REVISION", "SIDECAR-IMAGE"]);
        let mut values = Vec::new();
        for hook in &self.hooks {
            let image = self.images.get(&hook.revision).cloned().unwrap_or_default();
            let chosen: Vec<&String> =
                self.spaces().filter(|(_, labels)| hook.chooses(labels)).map(|(name, _)| name).collect();
            let row = |space: &str| [space.to_owned(), hook.name.clone(), hook.revision.clone(), image.clone()];
            if chosen.is_empty() {
                table.row(row("DOES NOT AUTOINJECT"));
            }
            chosen.iter().for_each(|space| table.row(row(space)));
            values.push(json!({"hook": hook.name, "revision": hook.revision, "image": image, "namespaces": chosen}));
        }
        (table, values)
    }
}

/// The revision of a pod's sidecar; none where it has none.
fn revision_of(labels: &Labels, annotations: &Labels) -> Option<String> {
    let status: Value = serde_json::from_str(annotations.get(STATUS)?).ok()?;
    let named = status["revision"].as_str().map(str::to_owned);
    Some(named.or_else(|| labels.get(REVISION).cloned()).unwrap_or_else(|| "default".to_owned()))
}

fn shown(revision: &str, count: Count) -> String {
    if count.pods == 0 {
        return "<no pods>".to_owned();
    }
    let disabled =
        if count.disabled > 0 { format!(" (injection disabled: {})", count.disabled) } else { String::new() };
    let restart = if count.restart > 0 { format!(" NEEDS RESTART: {}", count.restart) } else { String::new() };
    format!("{revision}: {}{disabled}{restart}", count.pods)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::objects::webhook;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    // spec: CT-17
    #[test]
    fn namespaces_and_webhooks_say_which_revision_is_where() {
        let hooks =
            ["default", "prod"].map(|tag| Hook::read(&webhook::of_tag(tag, "canary", "istio-system")[0]).unwrap());
        let spaces: [(&str, &[(&str, &str)]); 7] = [
            ("bare", &[]),
            ("empty", &[(NAMESPACE, "enabled")]),
            ("istio-system", &[]),
            ("kube-system", &[(NAMESPACE, "enabled")]),
            ("lost", &[(REVISION, "old")]),
            ("off", &[(NAMESPACE, "disabled")]),
            ("shop", &[(REVISION, "prod")]),
        ];
        let with = |revision: &str| labels(&[(STATUS, &format!("{{\"revision\":\"{revision}\"}}"))]);
        let facts = Facts {
            hooks: hooks.to_vec(),
            namespaces: spaces.iter().map(|(name, own)| ((*name).to_owned(), labels(own))).collect(),
            pods: vec![
                ("shop".into(), labels(&[]), with("canary")),
                ("shop".into(), labels(&[]), with("default")),
                ("shop".into(), labels(&[(INJECT, "false")]), labels(&[])),
                ("shop".into(), labels(&[]), labels(&[])),
                ("bare".into(), labels(&[]), labels(&[])),
            ],
            images: [("canary".to_owned(), "hub/proxy:1".to_owned())].into(),
            control_plane: "istio-system".into(),
        };
        let words = |table: &Table| -> Vec<String> {
            let cells =
                |line: String| line.split("   ").map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>().join("|");
            table.lines().into_iter().map(cells).collect()
        };
        let (table, values) = facts.by_namespace();
        assert_eq!(
            words(&table),
            [
                "NAMESPACE|ISTIO-REVISION|POD-REVISIONS",
                "bare|<non-Istio>: 1",
                "empty|canary|<no pods>",
                "lost|MISSING/old|<no pods>",
                "shop|canary|<non-Istio>: 2 (injection disabled: 1) NEEDS RESTART: 1",
                "shop|canary|canary: 1",
                "shop|canary|default: 1 NEEDS RESTART: 1",
            ]
        );
        assert_eq!((values.len(), &values[3]["needsRestart"]), (6, &json!(1)));
        let (table, values) = facts.by_hook();
        assert_eq!(
            words(&table),
            [
                "NAMESPACES|INJECTOR-HOOK|ISTIO-REVISION|SIDECAR-IMAGE",
                "empty|istio-revision-tag-default-istio-system|canary|hub/proxy:1",
                "shop|istio-revision-tag-prod-istio-system|canary|hub/proxy:1",
            ]
        );
        assert_eq!(values[1]["namespaces"], json!(["shop"]));
    }
}
