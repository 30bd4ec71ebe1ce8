//! By which the API server finds injection and validation. pilot fills in the roots, and makes validation obligatory once
//! it answers (PI-48, PI-54).

use super::pilot::NAME;
use super::{MANAGED, OWNER, RECONCILE, REVISION, Spec};
use serde_json::{Value, json};

/// Label of a pod: whether it wants a sidecar.
const INJECT: &str = "sidecar.istio.io/inject";
/// Label of a namespace: whether its pods get one.
const NAMESPACE: &str = "istio-injection";
/// Longest time that the API server waits.
const TIMEOUT_S: u32 = 10;
/// The namespace that stands in no name of injection.
const USUAL: &str = "istio-system";

/// Names of the configurations of injection and of validation. They are in no namespace, and so hold that of the control
/// plane, the former as Istio's only where it is not the usual one.
pub(super) fn names(spec: &Spec) -> [String; 2] {
    let (injector, namespace) = (spec.of_revision("istio-sidecar-injector"), spec.namespace());
    let injector = if namespace == USUAL { injector } else { format!("{injector}-{namespace}") };
    [injector, format!("{}-{namespace}", spec.of_revision("istio-validator"))]
}

pub(super) fn objects(spec: &Spec) -> Vec<Value> {
    let mut objects = vec![injection(spec)];
    if spec.is_on("values.global.configValidation") {
        objects.push(validation(spec));
    }
    objects
}

/// Whom a webhook calls, and for what.
struct Hooks {
    /// Name of pilot's Service.
    service: String,
    /// Namespace of the control plane.
    namespace: String,
    /// The value of `istio.io/rev` that chooses it: a revision or a tag.
    chosen_by: String,
    /// Whether `istio-injection=enabled` chooses it as well.
    is_default: bool,
}

impl Hooks {
    fn client(&self, path: &str) -> Value {
        json!({"service": {"name": self.service, "namespace": self.namespace, "path": path, "port": 443}})
    }
}

fn is(key: &str, operator: &str, values: &[&str]) -> Value {
    if values.is_empty() {
        return json!({"key": key, "operator": operator});
    }
    json!({"key": key, "operator": operator, "values": values})
}

fn all_of(expressions: &[Value]) -> Value {
    json!({"matchExpressions": expressions})
}

/// The webhooks of a tag: another name for a revision (IN-31). With the tag `default` they answer what asks for no revision.
pub fn of_tag(tag: &str, revision: &str, namespace: &str) -> Vec<Value> {
    let service = if revision == "default" { NAME.to_owned() } else { format!("{NAME}-{revision}") };
    let is_default = tag == "default";
    let hooks = Hooks { service, namespace: namespace.to_owned(), chosen_by: tag.to_owned(), is_default };
    let labels = json!({
        "app": "sidecar-injector", "istio.io/tag": tag, REVISION: revision, MANAGED: RECONCILE,
        OWNER: namespace,
    });
    let named = |kind: &str, name: String, webhooks: Vec<Value>| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name, "labels": labels}, "webhooks": webhooks});
    let mut objects =
        vec![named("MutatingWebhookConfiguration", format!("istio-revision-tag-{tag}-{namespace}"), hooks.injection())];
    if is_default {
        let name = format!("istio-default-validator-{namespace}");
        objects.push(named("ValidatingWebhookConfiguration", name, hooks.validation()));
    }
    objects
}

fn injection(spec: &Spec) -> Value {
    let mut hooks = Hooks::of(spec).injection();
    if spec.is_on("values.sidecarInjectorWebhook.enableNamespacesByDefault") && spec.revision().is_empty() {
        hooks.push(Hooks::of(spec).everywhere());
    }
    let policy = spec.text("values.sidecarInjectorWebhook.reinvocationPolicy");
    for hook in hooks.iter_mut().filter(|_| !policy.is_empty()) {
        hook["reinvocationPolicy"] = json!(policy);
    }
    let [name, _] = names(spec);
    configuration(spec, "MutatingWebhookConfiguration", &name, hooks)
}

fn validation(spec: &Spec) -> Value {
    let [_, name] = names(spec);
    configuration(spec, "ValidatingWebhookConfiguration", &name, Hooks::of(spec).validation())
}

impl Hooks {
    fn of(spec: &Spec) -> Self {
        let (service, is_default) = (spec.of_revision(NAME), spec.revision().is_empty());
        Self { service, namespace: spec.namespace(), chosen_by: spec.revision_label(), is_default }
    }

    fn hook(&self, name: &str, spaces: &[Value], pods: &[Value]) -> Value {
        json!({
            "name": format!("{name}.sidecar-injector.istio.io"), "clientConfig": self.client("/inject"),
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "reinvocationPolicy": "Never", "timeoutSeconds": TIMEOUT_S,
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "scope": "*"}],
            "namespaceSelector": all_of(spaces), "objectSelector": all_of(pods),
        })
    }

    /// Istio's four: chosen by the revision or by `istio-injection`, of the namespace or of the pod. A revision that is not
    /// the default one has the first two.
    fn injection(&self) -> Vec<Value> {
        let not_refused = is(INJECT, "NotIn", &["false"]);
        let (no_label, no_revision) = (is(NAMESPACE, "DoesNotExist", &[]), is(REVISION, "DoesNotExist", &[]));
        let own = is(REVISION, "In", &[&self.chosen_by]);
        let mut hooks = vec![
            self.hook("rev.namespace", &[own.clone(), no_label.clone()], std::slice::from_ref(&not_refused)),
            self.hook("rev.object", &[no_revision.clone(), no_label.clone()], &[not_refused.clone(), own]),
        ];
        if self.is_default {
            let enabled = is(NAMESPACE, "In", &["enabled"]);
            hooks.push(self.hook("namespace", &[enabled], &[not_refused]));
            let asked = [is(INJECT, "In", &["true"]), no_revision.clone()];
            hooks.push(self.hook("object", &[no_label, no_revision], &asked));
        }
        hooks
    }

    /// All namespaces that say nothing.
    fn everywhere(&self) -> Value {
        let system = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
        let no_revision = is(REVISION, "DoesNotExist", &[]);
        let named = is("kubernetes.io/metadata.name", "NotIn", &system);
        let spaces = [is(NAMESPACE, "DoesNotExist", &[]), no_revision.clone(), named];
        self.hook("auto", &spaces, &[is(INJECT, "DoesNotExist", &[]), no_revision])
    }

    fn validation(&self) -> Vec<Value> {
        let groups = [
            "networking.istio.io",
            "security.istio.io",
            "telemetry.istio.io",
            "extensions.istio.io",
            "policy.ferromesh.io",
        ];
        let rules = json!([{"operations": ["CREATE", "UPDATE"], "apiGroups": groups, "apiVersions": ["*"], "resources": ["*"], "scope": "*"}]);
        let hook = |name: &str, objects: &[Value]| {
            json!({
                "name": format!("{name}validation.istio.io"), "clientConfig": self.client("/validate"),
                "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
                "timeoutSeconds": TIMEOUT_S, "rules": rules, "objectSelector": all_of(objects),
            })
        };
        let mut hooks = vec![hook("rev.", &[is(REVISION, "In", &[&self.chosen_by])])];
        if self.is_default {
            hooks.push(hook("", &[is(REVISION, "DoesNotExist", &[])]));
        }
        hooks
    }
}

fn configuration(spec: &Spec, kind: &str, name: &str, hooks: Vec<Value>) -> Value {
    let labels = json!({"app": "istiod", OWNER: spec.namespace()});
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name, "labels": labels}, "webhooks": hooks})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::render;

    // spec: PI-54
    #[test]
    fn meshes_of_two_namespaces_have_webhooks_of_their_own() {
        let hooks = |sets: &[&str]| {
            let spec = Spec::new(&[], &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>()).unwrap();
            let objects = render(&spec).unwrap().into_iter().flat_map(|part| part.objects);
            let hooks = objects.filter(|object| object["webhooks"].is_array());
            let fact = |hook: Value| {
                let labels = &hook["metadata"]["labels"];
                format!("{} {} {}", hook["metadata"]["name"], labels[REVISION], labels[OWNER]).replace('"', "")
            };
            hooks.map(fact).collect::<Vec<_>>()
        };
        for (sets, injector, validator) in [
            (
                &[][..],
                "istio-sidecar-injector default istio-system",
                "istio-validator-istio-system default istio-system",
            ),
            (&["namespace=mesh"], "istio-sidecar-injector-mesh default mesh", "istio-validator-mesh default mesh"),
            (
                &["revision=fm"],
                "istio-sidecar-injector-fm fm istio-system",
                "istio-validator-fm-istio-system fm istio-system",
            ),
            (
                &["revision=fm", "namespace=mesh"],
                "istio-sidecar-injector-fm-mesh fm mesh",
                "istio-validator-fm-mesh fm mesh",
            ),
        ] {
            assert_eq!(hooks(sets), [injector, validator], "{sets:?}");
        }
    }
}
