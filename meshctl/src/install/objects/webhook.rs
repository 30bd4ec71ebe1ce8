//! By which the API server finds injection and validation. pilot fills in the roots, and makes validation obligatory once
//! it answers (PI-48, PI-54).

use super::Spec;
use super::pilot::NAME;
use serde_json::{Value, json};

/// Longest time that the API server waits.
const TIMEOUT_S: u32 = 10;

pub(super) fn objects(spec: &Spec) -> Vec<Value> {
    let mut objects = vec![injection(spec)];
    if spec.is_on("values.global.configValidation") {
        objects.push(validation(spec));
    }
    objects
}

fn client(spec: &Spec, path: &str) -> Value {
    json!({"service": {"name": NAME, "namespace": spec.namespace(), "path": path, "port": 443}})
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

/// Istio's four: chosen by the revision or by `istio-injection`, of the namespace or of the pod.
fn injection(spec: &Spec) -> Value {
    let (inject, revision, namespace) = ("sidecar.istio.io/inject", "istio.io/rev", "istio-injection");
    let hook = |name: &str, spaces: &[Value], pods: &[Value]| {
        json!({
            "name": format!("{name}.sidecar-injector.istio.io"), "clientConfig": client(spec, "/inject"),
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "reinvocationPolicy": "Never", "timeoutSeconds": TIMEOUT_S,
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "scope": "*"}],
            "namespaceSelector": all_of(spaces), "objectSelector": all_of(pods),
        })
    };
    let not_refused = is(inject, "NotIn", &["false"]);
    let no_label = is(namespace, "DoesNotExist", &[]);
    let no_revision = is(revision, "DoesNotExist", &[]);
    let mut hooks = vec![
        hook(
            "rev.namespace",
            &[is(revision, "In", &["default"]), no_label.clone()],
            std::slice::from_ref(&not_refused),
        ),
        hook(
            "rev.object",
            &[no_revision.clone(), no_label.clone()],
            &[not_refused.clone(), is(revision, "In", &["default"])],
        ),
        hook("namespace", &[is(namespace, "In", &["enabled"])], std::slice::from_ref(&not_refused)),
        hook("object", &[no_label.clone(), no_revision.clone()], &[is(inject, "In", &["true"]), no_revision.clone()]),
    ];
    if spec.is_on("values.sidecarInjectorWebhook.enableNamespacesByDefault") {
        let system = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
        let spaces = [no_label, no_revision.clone(), is("kubernetes.io/metadata.name", "NotIn", &system)];
        hooks.push(hook("auto", &spaces, &[is(inject, "DoesNotExist", &[]), no_revision]));
    }
    let policy = spec.text("values.sidecarInjectorWebhook.reinvocationPolicy");
    for hook in hooks.iter_mut().filter(|_| !policy.is_empty()) {
        hook["reinvocationPolicy"] = json!(policy);
    }
    configuration(spec, "MutatingWebhookConfiguration", "istio-sidecar-injector", hooks)
}

fn validation(spec: &Spec) -> Value {
    let groups = [
        "networking.istio.io",
        "security.istio.io",
        "telemetry.istio.io",
        "extensions.istio.io",
        "policy.ferromesh.io",
    ];
    let rules = json!([{"operations": ["CREATE", "UPDATE"], "apiGroups": groups, "apiVersions": ["*"], "resources": ["*"], "scope": "*"}]);
    let revision = [is("istio.io/rev", "In", &["default"])];
    let hook = |name: &str, objects: &[Value]| {
        json!({
            "name": format!("{name}validation.istio.io"), "clientConfig": client(spec, "/validate"),
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Ignore",
            "timeoutSeconds": TIMEOUT_S, "rules": rules, "objectSelector": all_of(objects),
        })
    };
    let none = [is("istio.io/rev", "DoesNotExist", &[])];
    let hooks = vec![hook("rev.", &revision), hook("", &none)];
    configuration(spec, "ValidatingWebhookConfiguration", &format!("istio-validator-{}", spec.namespace()), hooks)
}

fn configuration(spec: &Spec, kind: &str, name: &str, hooks: Vec<Value>) -> Value {
    let labels = json!({"app": "istiod", "install.operator.istio.io/namespace": spec.namespace()});
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name, "labels": labels}, "webhooks": hooks})
}
