//! The chart `gateway`.

use super::{Component, File, GATEWAY, LABEL, Rendered, Spec, change, documents, file, frame, globals, rendered};
use anyhow::Context as _;
use serde_json::{Value, json};

const HELPERS: &str = r#"{{- define "gateway.name" -}}
{{- .Values.name | default .Release.Name -}}
{{- end -}}
{{- define "gateway.replicas" -}}
{{- if .Values.autoscaling.enabled }}null{{ else }}{{ .Values.replicaCount }}{{ end -}}
{{- end -}}
{{- define "gateway.env" -}}
{{- $list := list -}}
{{- range $name, $value := .Values.env }}{{ $list = append $list (dict "name" $name "value" ($value | toString)) }}{{ end -}}
{{- $list | toJson -}}
{{- end -}}
{{- define "gateway.openPorts" -}}
{{- $ports := list -}}
{{- range list 15020 15021 15090 }}{{ $ports = append $ports (dict "port" . "protocol" "TCP") }}{{ end -}}
{{- range .Values.service.ports }}{{ $ports = append $ports (dict "port" (.targetPort | default .port) "protocol" "TCP") }}{{ end -}}
{{- $ports | toJson -}}
{{- end -}}
"#;

/// Its values.
fn values(ports: &Value) -> Value {
    let resources = json!({"requests": {"cpu": "100m", "memory": "128Mi"}});
    json!({
        "name": "", "global": globals(), "revision": "", "replicaCount": 1, "resources": resources,
        "service": {"type": "LoadBalancer", "ports": ports, "annotations": {}, "externalTrafficPolicy": "", "loadBalancerIP": ""},
        "autoscaling": {"enabled": true, "minReplicas": 1, "maxReplicas": 5, "targetCPUUtilizationPercentage": 80},
        "podDisruptionBudget": {"minAvailable": 1}, "routes": {"enabled": false},
        "podAnnotations": {}, "nodeSelector": {}, "tolerations": [], "affinity": {}, "env": {},
    })
}

pub(super) fn chart() -> anyhow::Result<Vec<File>> {
    let own = |field: &str| format!("components.ingressGateways[0].{field}");
    let sets = [
        own("enabled=true"),
        own(&format!("name={GATEWAY}")),
        own(&format!("label.istio={LABEL}")),
        own("k8s.hpaSpec.maxReplicas=5"),
        own("namespace=@@.Release.Namespace@@"),
        own("routes.enabled=true"),
        own("k8s.service.ports[0].name=http2"),
        own("k8s.service.ports[1].name=https"),
    ];
    let parts = rendered(&[], &sets.iter().map(String::as_str).collect::<Vec<_>>())?;
    let named = |part: &Rendered| part.component == Component::Gateways;
    let mut objects: Vec<Value> = parts.into_iter().filter(named).flat_map(|part| part.objects).collect();
    objects.retain(|object| object["metadata"]["name"].as_str().is_some_and(|name| name.contains(GATEWAY)));
    let default = Spec::new(&[], &[])?;
    let ports = default.gateways().first().map(|gateway| gateway["k8s"]["service"]["ports"].clone());
    let values = values(&ports.context("a gateway")?);
    let template = "/spec/template/spec";
    let pod = |field: &str| format!("{template}/{field}");
    let annotations = "@@=merge (dict `inject.istio.io/templates` `gateway`) .Values.podAnnotations@@";
    change(
        &mut objects,
        "Deployment",
        GATEWAY,
        &[
            ("/spec/replicas", "@@!include `gateway.replicas` .@@"),
            ("/spec/template/metadata/annotations", annotations),
            ("/spec/template/metadata/labels/istio.io~1rev", "@@.Values.revision | default `default`@@"),
            (&pod("nodeSelector"), "@@=.Values.nodeSelector@@"),
            (&pod("tolerations"), "@@=.Values.tolerations@@"),
            (&pod("affinity"), "@@=.Values.affinity@@"),
            (&pod("containers/0/resources"), "@@=.Values.resources@@"),
            (&pod("containers/0/env"), "@@!include `gateway.env` .@@"),
        ],
    );
    let service = [
        ("/metadata/annotations", "@@=.Values.service.annotations@@"),
        ("/spec/type", "@@=.Values.service.type@@"),
        ("/spec/ports", "@@=.Values.service.ports@@"),
        ("/spec/externalTrafficPolicy", "@@=.Values.service.externalTrafficPolicy | default nil@@"),
        ("/spec/loadBalancerIP", "@@=.Values.service.loadBalancerIP | default nil@@"),
    ];
    change(&mut objects, "Service", GATEWAY, &service);
    let scaler = [
        ("/spec/minReplicas", "@@=.Values.autoscaling.minReplicas@@"),
        ("/spec/maxReplicas", "@@=.Values.autoscaling.maxReplicas@@"),
        (
            "/spec/metrics/0/resource/target/averageUtilization",
            "@@=.Values.autoscaling.targetCPUUtilizationPercentage@@",
        ),
    ];
    change(&mut objects, "HorizontalPodAutoscaler", GATEWAY, &scaler);
    change(
        &mut objects,
        "PodDisruptionBudget",
        GATEWAY,
        &[("/spec/minAvailable", "@@=.Values.podDisruptionBudget.minAvailable@@")],
    );
    change(&mut objects, "NetworkPolicy", GATEWAY, &[("/spec/ingress/0/ports", "@@!include `gateway.openPorts` .@@")]);
    let text = documents_of(objects)?
        .replace("istio.io~1rev", "istio.io/rev")
        .replace(GATEWAY, "{{ include `gateway.name` . }}")
        .replace(LABEL, "{{ include `gateway.name` . | trimPrefix `istio-` }}");
    let mut files = frame("gateway", "A gateway: a proxy that injection fills in.", &values, HELPERS)?;
    files.push(file("gateway", "templates/gateway.yaml", text));
    Ok(files)
}

/// The objects of a gateway, each kind where it is wanted.
fn documents_of(objects: Vec<Value>) -> anyhow::Result<String> {
    let (routes, objects): (Vec<Value>, Vec<Value>) = objects.into_iter().partition(|object| object["kind"] == "Route");
    let (scalers, rest): (Vec<Value>, Vec<Value>) =
        objects.into_iter().partition(|object| object["kind"] == "HorizontalPodAutoscaler");
    let mut text = documents("true", &rest)?;
    text.push_str(&documents(".Values.autoscaling.enabled", &scalers)?);
    text.push_str(&documents(".Values.routes.enabled", &routes)?);
    Ok(text)
}
