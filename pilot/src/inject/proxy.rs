//! The container of the proxy: what sidecars and gateways have in common (spec PI-60, PI-61).

use super::mesh::{MeshSettings, ProxyConfig};
use super::openshift::Ids;
use super::owner::{Owner, otel_attributes};
use super::pod::{CONTAINERS, Pod};
use super::values::{Values, printed};
use super::{PROXY, image};
use proto::wire::{PORT_METRICS, PORT_READY};
use serde_json::{Map, Value, json};

/// Annotation: `REDIRECT`, `TPROXY` or `NONE`.
pub(super) const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";
/// Annotation: the port of merged metrics and probes; 0 is none.
pub(super) const STATUS_PORT: &str = "status.sidecar.istio.io/port";
const NATIVE_SIDECAR: &str = "sidecar.istio.io/nativeSidecar";
const BOOTSTRAP_OVERRIDE: &str = "sidecar.istio.io/bootstrapOverride";
const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
/// Seconds after which a probe of the proxy has failed.
const PROBE_TIMEOUT_S: u32 = 3;
/// Kubernetes' own `terminationGracePeriodSeconds`.
const GRACE_PERIOD_S: u64 = 30;

/// Everything that a template is made from.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// The pod, without what an earlier injection added.
    pub(super) pod: &'a Pod,
    pub(super) owner: &'a Owner,
    pub(super) values: &'a Values,
    pub(super) mesh: &'a MeshSettings,
    pub(super) proxy: &'a ProxyConfig,
    pub(super) revision: &'a str,
    /// Whether the cluster knows init containers that keep running.
    pub(super) cluster_has_native: bool,
    pub(super) ids: Ids,
}

impl Facts<'_> {
    /// An annotation, or else the value at a path.
    pub(super) fn annotation_or(&self, annotation: &str, path: &str) -> String {
        self.pod.annotation(annotation).map_or_else(|| self.values.text(path), str::to_owned)
    }

    /// How traffic is taken.
    pub(super) fn interception_mode(&self) -> &str {
        self.pod.annotation(INTERCEPTION_MODE).unwrap_or_else(|| self.proxy.interception_mode())
    }

    /// Whether traffic is taken by transparent proxying.
    pub(super) fn is_tproxy(&self) -> bool {
        self.interception_mode() == "TPROXY"
    }

    /// The port of merged metrics and probes; `0` is none.
    pub(super) fn status_port(&self) -> String {
        self.annotation_or(STATUS_PORT, "global.proxy.statusPort")
    }

    /// Whether the proxy becomes an init container that keeps running (D1, PI-63).
    pub(super) fn native(&self) -> bool {
        native(self.pod, self.cluster_has_native)
    }

    /// Whether the application waits until the proxy is ready, where that is not the pod's own order (D1, PI-64).
    /// Only an explicit no turns it off; as in Istio, a yes in either place wins.
    pub(super) fn holds_application(&self) -> bool {
        holds_application(self.proxy, self.values)
    }

    /// Whether the node agent (CNI) redirects traffic.
    pub(super) fn by_node_agent(&self) -> bool {
        self.values.is_on("pilot.cni.enabled")
    }

    /// `metadata` that sidecars and gateways have in common.
    pub(super) fn metadata(&self) -> (Map<String, Value>, Map<String, Value>) {
        let label = |names: &[&str]| {
            names.iter().find_map(|name| self.pod.label(name).filter(|value| !value.is_empty())).map(str::to_owned)
        };
        let name = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let name = name.unwrap_or_else(|| self.owner.name.clone());
        let revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        let labels = [
            ("service.istio.io/canonical-name", json!(name)),
            ("service.istio.io/canonical-revision", json!(revision.as_deref().unwrap_or("latest"))),
        ];
        let own = if self.revision.is_empty() { "default" } else { self.revision };
        let mut annotations = vec![("istio.io/rev", json!(own))];
        if let Some(first) = self.pod.app_containers().first() {
            for name in ["kubectl.kubernetes.io/default-logs-container", "kubectl.kubernetes.io/default-container"] {
                if self.pod.annotation(name).is_none() {
                    annotations.push((name, json!(first)));
                }
            }
        }
        (map(labels), map(annotations))
    }

    /// The container: `role` is `sidecar` or `router`.
    pub(super) fn container(&self, role: &str) -> Value {
        let mut container = json!({
            "name": PROXY,
            "image": image::proxy(self.pod, self.values, self.proxy.image_type()),
            "ports": [{"containerPort": PORT_METRICS, "protocol": "TCP", "name": "http-envoy-prom"}],
            "args": self.args(role),
            "env": self.env(role),
        });
        if let Some(policy) = self.values.filled("global.imagePullPolicy") {
            container["imagePullPolicy"] = json!(policy);
        }
        let lifecycle = self.values.at("global.proxy.lifecycle");
        if !lifecycle.is_null() {
            container["lifecycle"] = lifecycle.clone();
        }
        container
    }

    fn args(&self, role: &str) -> Vec<String> {
        let log =
            |flag: &str, annotation: &str, path: &str| format!("--{flag}={}", self.annotation_or(annotation, path));
        let mut args = vec![
            "proxy".to_owned(),
            role.to_owned(),
            "--domain".to_owned(),
            format!("$(POD_NAMESPACE).svc.{}", self.values.text("global.proxy.clusterDomain")),
            log("proxyLogLevel", "sidecar.istio.io/logLevel", "global.proxy.logLevel"),
            log("proxyComponentLogLevel", "sidecar.istio.io/componentLogLevel", "global.proxy.componentLogLevel"),
            log("log_output_level", "sidecar.istio.io/agentLogLevel", "global.logging.level"),
        ];
        if let Some(port) = self.values.filled("global.sts.servicePort").filter(|port| port != "0") {
            args.push(format!("--stsPort={port}"));
        }
        if self.values.is_on("global.logAsJson") {
            args.push("--log_as_json".to_owned());
        }
        if let Some(path) = self.values.filled("global.proxy.outlierLogPath").filter(|_| role == "sidecar") {
            args.push(format!("--outlierLogPath={path}"));
        }
        args
    }

    fn env(&self, role: &str) -> Vec<Value> {
        let (values, is_sidecar) = (self.values, role == "sidecar");
        let mut env = Vec::new();
        if is_sidecar && self.mesh.inbound_localhost {
            env.push(variable("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "true"));
        }
        env.push(variable("PILOT_CERT_PROVIDER", values.text("global.pilotCertProvider")));
        env.push(variable("CA_ADDR", values.filled("global.caAddress").unwrap_or_else(|| self.pilot_address())));
        env.push(from_field("POD_NAME", "metadata.name"));
        env.push(from_field("POD_NAMESPACE", "metadata.namespace"));
        env.push(from_field("INSTANCE_IP", "status.podIP"));
        env.push(from_field("SERVICE_ACCOUNT", "spec.serviceAccountName"));
        env.push(from_field("HOST_IP", "status.hostIP"));
        env.push(from_resource("ISTIO_CPU_LIMIT", "limits.cpu"));
        env.push(variable("PROXY_CONFIG", format!("{}\n", self.proxy.told())));
        env.push(variable("ISTIO_META_POD_PORTS", self.pod_ports()));
        env.push(variable("ISTIO_META_APP_CONTAINERS", self.pod.app_containers().join(",")));
        env.push(from_resource("GOMEMLIMIT", "limits.memory"));
        env.push(from_resource("GOMAXPROCS", "limits.cpu"));
        let cluster = values.filled("global.multiCluster.clusterName").unwrap_or_else(|| "Kubernetes".to_owned());
        env.push(variable("ISTIO_META_CLUSTER_ID", cluster));
        env.push(from_field("ISTIO_META_NODE_NAME", "spec.nodeName"));
        let mode = if is_sidecar { self.interception_mode() } else { self.proxy.interception_mode() };
        env.push(variable("ISTIO_META_INTERCEPTION_MODE", mode));
        self.identity_env(is_sidecar, &mut env);
        env.push(variable("TERMINATION_GRACE_PERIOD_SECONDS", self.grace_period_s().to_string()));
        if is_sidecar && self.mesh.otel_attributes {
            let containers = self.pod.list(CONTAINERS);
            let attributes = otel_attributes(self.pod, &self.owner.namespace, containers);
            env.extend(attributes.map(|attributes| variable("OTEL_RESOURCE_ATTRIBUTES", attributes)));
        }
        env.extend(self.proxy.metadata().into_iter().map(|(name, value)| variable(name, value)));
        env
    }

    /// Who the workload is, where that is known.
    fn identity_env(&self, is_sidecar: bool, env: &mut Vec<Value>) {
        let values = self.values;
        if let Some(network) = values.filled("global.network") {
            env.push(variable("ISTIO_META_NETWORK", network));
        }
        let label = self.pod.label(WORKLOAD_NAME).filter(|name| is_sidecar && !name.is_empty());
        let workload = label.unwrap_or(&self.owner.name);
        if !workload.is_empty() {
            env.push(variable("ISTIO_META_WORKLOAD_NAME", workload));
        }
        env.extend(self.owner.uri().map(|uri| variable("ISTIO_META_OWNER", uri)));
        if self.pod.annotation(BOOTSTRAP_OVERRIDE).is_some() {
            env.push(variable("ISTIO_BOOTSTRAP_OVERRIDE", "/etc/istio/custom-bootstrap/custom_bootstrap.json"));
        }
        let domain = Some(self.mesh.trust_domain.clone()).filter(|domain| !domain.is_empty());
        let domain = domain.or_else(|| values.filled("global.trustDomain"));
        if let Some(mesh) = values.filled("global.meshID").or_else(|| domain.clone()) {
            env.push(variable("ISTIO_META_MESH_ID", mesh));
        }
        env.extend(domain.map(|domain| variable("TRUST_DOMAIN", domain)));
    }

    fn pilot_address(&self) -> String {
        let revision = self.values.filled("revision").map(|revision| format!("-{revision}")).unwrap_or_default();
        format!("istiod{revision}.{}.svc:15012", self.values.text("global.istioNamespace"))
    }

    /// The one clock of a pod's end, which the proxy's own stages follow (D2).
    fn grace_period_s(&self) -> u64 {
        self.pod.spec("terminationGracePeriodSeconds").as_u64().unwrap_or(GRACE_PERIOD_S)
    }

    /// The ports of all containers, one JSON object a line, as Istio's template writes them.
    fn pod_ports(&self) -> String {
        let ports = self.pod.list(CONTAINERS).iter().flat_map(|container| container["ports"].as_array());
        let lines: Vec<String> = ports.flatten().map(|port| format!("    {}", port_json(port))).collect();
        if lines.is_empty() { "[\n]".to_owned() } else { format!("[\n{}\n]", lines.join("\n    ,")) }
    }

    pub(super) fn readiness_probe(&self, annotated: bool) -> Value {
        let setting = |annotation: &str, path: &str| {
            let from = if annotated { self.pod.annotation(annotation) } else { None };
            from.map_or_else(|| self.values.text(path), str::to_owned).parse::<u32>().unwrap_or_default()
        };
        json!({
            "httpGet": {"path": "/healthz/ready", "port": PORT_READY},
            "initialDelaySeconds": setting(
                "readiness.status.sidecar.istio.io/initialDelaySeconds", "global.proxy.readinessInitialDelaySeconds"),
            "periodSeconds":
                setting("readiness.status.sidecar.istio.io/periodSeconds", "global.proxy.readinessPeriodSeconds"),
            "timeoutSeconds": PROBE_TIMEOUT_S,
            "failureThreshold": setting(
                "readiness.status.sidecar.istio.io/failureThreshold", "global.proxy.readinessFailureThreshold"),
        })
    }

    pub(super) fn startup_probe(&self) -> Option<Value> {
        self.values.is_on("global.proxy.startupProbe.enabled").then(|| {
            json!({
                "httpGet": {"path": "/healthz/ready", "port": PORT_READY},
                "initialDelaySeconds": 0,
                "periodSeconds": 1,
                "timeoutSeconds": PROBE_TIMEOUT_S,
                "failureThreshold": self.values.at("global.proxy.startupProbe.failureThreshold"),
            })
        })
    }

    /// Resources of the proxy: the annotations where there is one of them, else the values (AN-2).
    pub(super) fn resources(&self) -> Value {
        let of = |cpu: &str, memory: &str| {
            let annotation = |name: &str| self.pod.annotation(&format!("sidecar.istio.io/{name}")).map(|v| json!(v));
            map([("cpu", annotation(cpu)), ("memory", annotation(memory))]
                .into_iter()
                .filter_map(|(n, v)| Some((n, v?))))
        };
        let (requests, limits) = (of("proxyCPU", "proxyMemory"), of("proxyCPULimit", "proxyMemoryLimit"));
        if requests.is_empty() && limits.is_empty() {
            return without_nulls(self.values.at("global.proxy.resources")).unwrap_or_else(|| json!({}));
        }
        let parts = [("requests", requests), ("limits", limits)];
        let parts = parts.into_iter().filter(|(_, part)| !part.is_empty());
        Value::Object(map(parts.map(|(name, part)| (name, Value::Object(part)))))
    }
}

/// Whether a pod's proxy becomes an init container that keeps running; the annotation wins over the cluster.
pub(super) fn native(pod: &Pod, cluster_has_native: bool) -> bool {
    match pod.annotation(NATIVE_SIDECAR) {
        Some("") | None => cluster_has_native,
        Some(written) => written != "false",
    }
}

/// See [`Facts::holds_application`].
pub(super) fn holds_application(proxy: &ProxyConfig, values: &Values) -> bool {
    let written = [proxy.hold_application(), values.at("global.proxy.holdApplicationUntilProxyStarts").as_bool()];
    written.contains(&Some(true)) || !written.contains(&Some(false))
}

/// A map out of pairs.
pub(super) fn map<'a>(pairs: impl IntoIterator<Item = (&'a str, Value)>) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn variable(name: &str, value: impl Into<String>) -> Value {
    json!({"name": name, "value": value.into()})
}

fn from_field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

fn from_resource(name: &str, resource: &str) -> Value {
    json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": "1"}}})
}

/// A port in the order of Kubernetes' own fields.
fn port_json(port: &Value) -> String {
    let order = ["name", "hostPort", "containerPort", "protocol", "hostIP"];
    let known = order.iter().filter_map(|name| Some((*name, port.get(*name)?.clone())));
    Value::Object(map(known.filter(|(_, value)| !printed(value).is_empty()))).to_string()
}

/// A value without nulls, and without what is empty for their sake; `None` where nothing is left.
fn without_nulls(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(fields) => {
            let kept: Map<_, _> = fields.iter().filter_map(|(n, v)| Some((n.clone(), without_nulls(v)?))).collect();
            (!kept.is_empty() || fields.is_empty()).then_some(Value::Object(kept))
        }
        other => Some(other.clone()),
    }
}
