//! Deployments, and what scales and protects them.

use super::{Spec, own};
use serde_json::{Map, Value, json};

/// Life of the token with which a component proves itself to citadel, in seconds, as Istio has it.
const TOKEN_SECONDS: u32 = 43_200;

/// A program of the control plane.
pub(super) struct Program<'a> {
    /// Name of Deployment and container.
    pub name: &'a str,
    /// Value of the label `app`.
    pub app: &'a str,
    /// Name of its image.
    pub image: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its ports: name and number.
    pub ports: &'a [(&'a str, u16)],
    /// Where it says that it is ready: path and port.
    pub ready: (&'a str, u16),
    /// Where users change it: a path of the specification, as `components.pilot.k8s`.
    pub k8s: &'a str,
}

impl Program<'_> {
    /// Lets connections in to its ports.
    pub(super) fn network_policy(&self, spec: &Spec, selector: &Value) -> Option<Value> {
        let ports: Vec<u16> = self.ports.iter().map(|(_, port)| *port).collect();
        network_policy(spec, self.name, &spec.namespace(), selector, &ports)
    }

    /// The Deployment; the pod has its service account by the name of `account`.
    pub(super) fn deployment(&self, spec: &Spec, account: &str) -> Value {
        let k8s = spec.at(self.k8s);
        let mut container = json!({
            "name": self.name, "image": self.image, "args": self.args,
            "ports": self.ports.iter().map(|(name, port)| json!({"name": name, "containerPort": port, "protocol": "TCP"})).collect::<Vec<_>>(),
            "env": [by_field("POD_NAME", "metadata.name"), by_field("POD_NAMESPACE", "metadata.namespace")],
            "readinessProbe": {"httpGet": {"path": self.ready.0, "port": self.ready.1}, "periodSeconds": 2, "timeoutSeconds": 5},
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
        });
        let pull = spec.text("values.global.imagePullPolicy");
        if !pull.is_empty() {
            container["imagePullPolicy"] = json!(pull);
        }
        let mut pod = json!({"serviceAccountName": account, "securityContext": pod_security(spec)});
        let class = spec.text("values.global.priorityClassName");
        if !class.is_empty() {
            pod["priorityClassName"] = json!(class);
        }
        changed(&mut container, &mut pod, k8s);
        pod["containers"] = json!([container]);
        let mut deployment = own(spec, "apps/v1", "Deployment", self.name);
        deployment["metadata"]["labels"] = json!({"app": self.app});
        deployment["spec"] = json!({
            "selector": {"matchLabels": {"app": self.app}},
            "template": {
                "metadata": {
                    "labels": {"app": self.app, "sidecar.istio.io/inject": "false"},
                    "annotations": merged(&json!({"sidecar.istio.io/inject": "false"}), &k8s["podAnnotations"]),
                },
                "spec": pod,
            },
        });
        if !k8s["strategy"].is_null() {
            deployment["spec"]["strategy"] = k8s["strategy"].clone();
        }
        deployment
    }
}

/// Puts a volume into the first container of a Deployment.
pub(super) fn mount(deployment: &mut Value, name: &str, path: &str, volume: &Value) {
    let pod = &mut deployment["spec"]["template"]["spec"];
    let mut whole = volume.clone();
    whole["name"] = json!(name);
    push(&mut pod["volumes"], whole);
    let read_only = volume["emptyDir"].is_null();
    push(&mut pod["containers"][0]["volumeMounts"], json!({"name": name, "mountPath": path, "readOnly": read_only}));
}

fn push(list: &mut Value, one: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(one),
        None => *list = json!([one]),
    }
}

/// The volume with the token for citadel.
pub(super) fn token(spec: &Spec) -> Value {
    let token = json!({"audience": spec.audience(), "expirationSeconds": TOKEN_SECONDS, "path": "istio-token"});
    json!({"projected": {"sources": [{"serviceAccountToken": token}]}})
}

/// Scales a Deployment by CPU.
pub(super) fn autoscaler(spec: &Spec, name: &str, [least, most, percent]: [u64; 3]) -> Value {
    let mut scaler = own(spec, "autoscaling/v2", "HorizontalPodAutoscaler", name);
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    scaler["spec"] = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": least, "maxReplicas": most,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    });
    scaler
}

/// Keeps one pod through a drain of nodes.
pub(super) fn budget(spec: &Spec, name: &str, app: &str) -> Option<Value> {
    if !spec.is_on("values.global.defaultPodDisruptionBudget.enabled") {
        return None;
    }
    let mut budget = own(spec, "policy/v1", "PodDisruptionBudget", name);
    budget["spec"] = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": app}}});
    Some(budget)
}

/// Lets connections in to the ports of pods, for a namespace that lets in nothing else; what they connect to is not narrowed, as
/// nobody knows beforehand where API servers, key sets and services are. None where it is not wanted (Istio's value).
pub(super) fn network_policy(
    spec: &Spec,
    name: &str,
    namespace: &str,
    selector: &Value,
    ports: &[u16],
) -> Option<Value> {
    if !spec.is_on("values.global.networkPolicy.enabled") {
        return None;
    }
    let ports: Vec<Value> = ports.iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
    Some(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": {}},
        "spec": {
            "podSelector": {"matchLabels": selector}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": ports}], "egress": [{}],
        },
    }))
}

/// What users change in every workload.
pub(super) fn changed(container: &mut Value, pod: &mut Value, k8s: &Value) {
    for field in ["nodeSelector", "tolerations", "affinity", "priorityClassName"] {
        if !k8s[field].is_null() {
            pod[field] = k8s[field].clone();
        }
    }
    for field in ["resources", "imagePullPolicy"] {
        if !k8s[field].is_null() {
            container[field] = k8s[field].clone();
        }
    }
    let own = container["env"].as_array().cloned().unwrap_or_default();
    let more = k8s["env"].as_array().cloned().unwrap_or_default();
    let kept = own.into_iter().filter(|one| !more.iter().any(|other| other["name"] == one["name"]));
    let all: Vec<Value> = kept.chain(more.iter().cloned()).collect();
    if !all.is_empty() {
        container["env"] = json!(all);
    }
}

/// Two mappings, the second over the first.
pub(super) fn merged(below: &Value, above: &Value) -> Value {
    let maps = [below, above].into_iter().filter_map(Value::as_object).flatten();
    Value::Object(maps.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

/// OpenShift gives a user to each namespace, and refuses another.
fn pod_security(spec: &Spec) -> Value {
    let mut security = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    if spec.text("values.global.platform") != "openshift" {
        for field in ["runAsUser", "runAsGroup", "fsGroup"] {
            security[field] = json!(1337);
        }
    }
    security
}

fn by_field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
}
