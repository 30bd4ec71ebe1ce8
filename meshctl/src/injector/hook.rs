//! A webhook configuration of an injector, and its verdict about a pod.

use proto::istio::meta::{LabelOperator, LabelRequirement, LabelSelector};
use serde_json::Value;
use std::collections::BTreeMap;

/// How the names of webhooks end that inject sidecars.
const INJECTOR: &str = "sidecar-injector.istio.io";
/// Label with the revision.
pub const REVISION: &str = "istio.io/rev";
/// Label of a namespace: whether its pods get sidecars.
pub const NAMESPACE: &str = "istio-injection";

/// Labels.
pub type Labels = BTreeMap<String, String>;

/// A MutatingWebhookConfiguration that injects sidecars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// The revision that answers.
    pub revision: String,
    webhooks: Vec<Webhook>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Webhook {
    name: String,
    namespaces: LabelSelector,
    pods: LabelSelector,
}

/// Whether a hook injects, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether.
    pub injected: bool,
    /// Why, in istioctl's words.
    pub reason: String,
}

impl Hook {
    /// Reads a MutatingWebhookConfiguration; none where it injects no sidecars.
    pub fn read(object: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let selector = |value: &Value| serde_json::from_value::<LabelSelector>(value.clone()).unwrap_or_default();
        let webhooks = object["webhooks"].as_array().into_iter().flatten();
        let webhooks: Vec<Webhook> = webhooks
            .filter(|one| text(&one["name"]).ends_with(INJECTOR))
            .map(|one| Webhook {
                name: text(&one["name"]),
                namespaces: selector(&one["namespaceSelector"]),
                pods: selector(&one["objectSelector"]),
            })
            .collect();
        let metadata = &object["metadata"];
        let revision = text(&metadata["labels"][REVISION]);
        let revision = if revision.is_empty() { "default".to_owned() } else { revision };
        (!webhooks.is_empty()).then(|| Self { name: text(&metadata["name"]), revision, webhooks })
    }

    /// Whether pods of a namespace get sidecars from it without asking for one themselves.
    pub fn chooses(&self, namespace: &Labels) -> bool {
        let of_namespaces = |one: &&Webhook| {
            one.name.strip_suffix(INJECTOR).is_some_and(|kind| kind.ends_with("namespace.") || kind == "auto.")
        };
        self.webhooks.iter().filter(of_namespaces).any(|one| one.namespaces.matches(namespace))
    }

    /// Whether a pod with these labels in a namespace with those gets a sidecar from it.
    pub fn verdict(&self, namespace: &Labels, pod: &Labels) -> Verdict {
        let refused = |reason| Verdict { injected: false, reason };
        for one in &self.webhooks {
            match (one.namespaces.matches(namespace), one.pods.matches(pod)) {
                (true, true) => return Verdict { injected: true, reason: matching(one, namespace, pod) },
                (true, false) => {
                    if let Some(label) = prevented(&one.pods, pod) {
                        return refused(format!("Pod has {label} label, preventing injection"));
                    }
                }
                (false, true) => {
                    if let Some(value) = namespace.get(NAMESPACE).filter(|value| *value != "enabled") {
                        return refused(format!("Namespace has {NAMESPACE}={value} label, preventing injection"));
                    }
                }
                (false, false) => {}
            }
        }
        let wanted = |of: fn(&Webhook) -> &LabelSelector| {
            let mut labels: Vec<String> = self.webhooks.iter().flat_map(|one| asked(of(one))).collect();
            labels.dedup();
            labels.join(", ")
        };
        refused(format!(
            "No matching namespace labels ({}) or pod labels ({})",
            wanted(|one| &one.namespaces),
            wanted(|one| &one.pods)
        ))
    }
}

/// The labels by which a webhook was chosen.
fn matching(webhook: &Webhook, namespace: &Labels, pod: &Labels) -> String {
    let chosen = |selector: &LabelSelector, labels: &Labels| {
        let named = |one: &&LabelRequirement| matches!(one.operator, LabelOperator::In | LabelOperator::NotIn);
        let mut keys =
            selector.match_expressions.iter().filter(named).map(|one| &one.key).chain(selector.match_labels.keys());
        keys.find_map(|key| labels.get(key).map(|value| format!("{key}={value}")))
    };
    match (chosen(&webhook.namespaces, namespace), chosen(&webhook.pods, pod)) {
        (Some(space), Some(pod)) => format!("Namespace label {space} matches, and pod label {pod} matches"),
        (Some(space), None) => format!("Namespace label {space} matches"),
        (None, Some(pod)) => format!("Pod label {pod} matches"),
        (None, None) => "All namespaces that say nothing are injected".to_owned(),
    }
}

/// The label that a selector excludes.
fn prevented(selector: &LabelSelector, labels: &Labels) -> Option<String> {
    let excluded = |one: &&LabelRequirement| match one.operator {
        LabelOperator::DoesNotExist => labels.contains_key(&one.key),
        LabelOperator::NotIn => labels.get(&one.key).is_some_and(|value| one.values.contains(value)),
        LabelOperator::In | LabelOperator::Exists => false,
    };
    let one = selector.match_expressions.iter().find(excluded)?;
    Some(format!("{}={}", one.key, labels.get(&one.key)?))
}

/// The labels that a selector asks for.
fn asked(selector: &LabelSelector) -> Vec<String> {
    let one_of = selector.match_expressions.iter().filter(|one| one.operator == LabelOperator::In);
    let exact = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
    one_of.flat_map(|one| one.values.iter().map(|value| format!("{}={value}", one.key))).chain(exact).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::objects::webhook;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// The webhooks that an installation makes for a tag.
    fn hook(tag: &str) -> Hook {
        Hook::read(&webhook::of_tag(tag, "canary", "istio-system")[0]).unwrap()
    }

    // spec: CT-17
    #[test]
    fn the_reason_names_the_label_that_decided() {
        let default = hook("default");
        assert_eq!(
            (default.name.as_str(), default.revision.as_str()),
            ("istio-revision-tag-default-istio-system", "canary")
        );
        let says = |space: &[(&str, &str)], pod: &[(&str, &str)]| {
            let Verdict { injected, reason } = default.verdict(&labels(space), &labels(pod));
            format!("{injected} {reason}")
        };
        assert_eq!(says(&[(NAMESPACE, "enabled")], &[]), "true Namespace label istio-injection=enabled matches");
        let both =
            "true Namespace label istio-injection=enabled matches, and pod label sidecar.istio.io/inject=true matches";
        assert_eq!(says(&[(NAMESPACE, "enabled")], &[("sidecar.istio.io/inject", "true")]), both);
        assert_eq!(
            says(&[], &[("sidecar.istio.io/inject", "true")]),
            "true Pod label sidecar.istio.io/inject=true matches"
        );
        let refused = "false Pod has sidecar.istio.io/inject=false label, preventing injection";
        assert_eq!(says(&[(NAMESPACE, "enabled")], &[("sidecar.istio.io/inject", "false")]), refused);
        assert_eq!(
            says(&[(NAMESPACE, "disabled")], &[("app", "a")]),
            "false Namespace has istio-injection=disabled label, preventing injection"
        );
        let nothing = "false No matching namespace labels (istio.io/rev=default, istio-injection=enabled) or pod labels \
                       (istio.io/rev=default, sidecar.istio.io/inject=true)";
        assert_eq!(says(&[], &[]), nothing);
    }

    // spec: CT-17
    #[test]
    fn a_tag_answers_to_its_own_name_alone() {
        let tag = hook("prod");
        assert!(
            tag.verdict(&labels(&[(REVISION, "prod")]), &labels(&[])).injected
                && tag.chooses(&labels(&[(REVISION, "prod")]))
        );
        assert!(!tag.verdict(&labels(&[(REVISION, "canary")]), &labels(&[])).injected);
        assert!(!tag.chooses(&labels(&[(NAMESPACE, "enabled")])));
        assert!(!hook("default").chooses(&labels(&[])), "a pod may still ask by itself");
        assert_eq!(Hook::read(&json!({"metadata": {"name": "x"}, "webhooks": [{"name": "other.example.org"}]})), None);
    }
}
