//! Helm charts (IN-2): the objects of an installation with Helm's expressions where users put their values. Nothing is written
//! twice: what a chart installs is what [`super::render`] gives.
//!
//! A text of an object may hold `@@EXPRESSION@@`, which becomes `{{ EXPRESSION }}`. A text that is nothing but
//! `@@=EXPRESSION@@` becomes `{{ EXPRESSION | toJson }}`, of any shape, for JSON is YAML; with `@@!` what the expression gives
//! is JSON already.

mod gateway;
mod schema;

use super::profile::{self, PLATFORMS};
use super::{Component, Rendered, Spec, render};
use anyhow::Context as _;
use proto::wire::{ROOTS_CONFIG_MAP, TOKEN_AUDIENCE};
use serde_json::{Value, json};

/// Stands for the revision while objects are rendered.
const REVISION: &str = "zz-revision-zz";
/// Stands for the name of a gateway.
const GATEWAY: &str = "zz-gateway-zz";
/// Stands for the value of a gateway's label `istio`.
const LABEL: &str = "zz-label-zz";

/// A file of a chart: its path below the directory of charts, and its text.
pub type File = (String, String);

/// All charts.
///
/// # Errors
/// Where an object has no form as YAML.
pub fn charts() -> anyhow::Result<Vec<File>> {
    let mut files = base()?;
    files.extend(istiod()?);
    files.extend(gateway::chart()?);
    files.extend(cni()?);
    Ok(files)
}

/// The objects of the components that are named, with expressions for what all charts have in common.
fn rendered(enabled: &[&str], more: &[&str]) -> anyhow::Result<Vec<Rendered>> {
    let mut sets = vec![
        "profile=empty".to_owned(),
        "hub=@@.Values.global.hub@@".to_owned(),
        "tag=@@.Values.global.tag@@".to_owned(),
        "namespace=@@.Release.Namespace@@".to_owned(),
        "values.global.logging.level=@@.Values.global.logging.level@@".to_owned(),
        "values.global.networkPolicy.enabled=true".to_owned(),
        "values.global.imagePullPolicy=@@.Values.global.imagePullPolicy@@".to_owned(),
    ];
    sets.extend(enabled.iter().map(|name| format!("components.{name}.enabled=true")));
    sets.extend(more.iter().map(|set| (*set).to_owned()));
    render(&Spec::new(&[], &sets)?)
}

fn file(chart: &str, name: &str, text: impl Into<String>) -> File {
    (format!("{chart}/{name}"), text.into())
}

/// `Chart.yaml`, `values.yaml` and the templates that all have.
fn frame(chart: &str, about: &str, values: &Value, helpers: &str) -> anyhow::Result<Vec<File>> {
    let version = env!("CARGO_PKG_VERSION");
    let about = json!({
        "apiVersion": "v2", "name": chart, "description": about, "type": "application", "version": version,
        "appVersion": version, "keywords": ["istio", "service mesh", "ferromesh"],
    });
    Ok(vec![
        file(chart, "Chart.yaml", serde_saphyr::to_string(&about)?),
        file(chart, "values.yaml", serde_saphyr::to_string(values)?),
        file(chart, "values.schema.json", format!("{:#}\n", schema::of(values))),
        file(chart, "templates/_helpers.tpl", helpers),
    ])
}

fn globals() -> Value {
    json!({
        "hub": "ferromesh", "tag": env!("CARGO_PKG_VERSION"), "imagePullPolicy": "IfNotPresent",
        "logging": {"level": "info"}, "networkPolicy": {"enabled": false},
    })
}

/// Documents under a condition, network policies where they are wanted as well.
fn documents(condition: &str, objects: &[Value]) -> anyhow::Result<String> {
    let (policies, rest): (Vec<&Value>, Vec<&Value>) =
        objects.iter().partition(|object| object["kind"] == "NetworkPolicy");
    let mut text = block(condition, &rest)?;
    if !policies.is_empty() {
        text.push_str(&block(&format!("and ({condition}) .Values.global.networkPolicy.enabled"), &policies)?);
    }
    Ok(text)
}

fn block(condition: &str, objects: &[&Value]) -> anyhow::Result<String> {
    let mut text = format!("{{{{- if {condition} }}}}\n");
    for object in objects {
        text.push_str("---\n");
        text.push_str(&expressions(&serde_saphyr::to_string(&as_charts_have_it(object)).context("YAML")?));
        text.push('\n');
    }
    text.push_str("{{- end }}\n");
    Ok(text)
}

/// An object without what says that meshctl keeps it: Helm does.
fn as_charts_have_it(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
        labels.retain(|name, _| !name.starts_with("operator.istio.io/"));
    }
    object
}

/// Marks become expressions.
fn expressions(yaml: &str) -> String {
    let mut out = String::with_capacity(yaml.len());
    let mut rest = yaml;
    while let Some((before, after)) = rest.split_once("@@") {
        let Some((inner, behind)) = after.split_once("@@") else { break };
        let whole = inner.strip_prefix('=').map(|inner| format!("{{{{ {inner} | toJson }}}}"));
        let whole = whole.or_else(|| inner.strip_prefix('!').map(|inner| format!("{{{{ {inner} }}}}")));
        match whole {
            // The quotation marks around a text that is replaced go with it.
            Some(whole) => {
                out.push_str(before.strip_suffix(['"', '\'']).unwrap_or(before));
                out.push_str(&whole);
                rest = behind.strip_prefix(['"', '\'']).unwrap_or(behind);
            }
            None => {
                out.push_str(before);
                out.push_str(&format!("{{{{ {inner} }}}}"));
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Puts a text into an object, where the pointer leads.
fn put(object: &mut Value, pointer: &str, text: &str) {
    let mut at = object;
    for name in pointer.split('/').skip(1) {
        at = match name.parse::<usize>() {
            Ok(index) if at.is_array() => &mut at[index],
            _ => &mut at[name],
        };
    }
    *at = json!(text);
}

/// Changes the object of a kind whose name begins so.
fn change(objects: &mut [Value], kind: &str, name: &str, changes: &[(&str, &str)]) {
    let is = |object: &&mut Value| {
        object["kind"] == kind && object["metadata"]["name"].as_str().is_some_and(|own| own.starts_with(name))
    };
    for object in objects.iter_mut().filter(is) {
        changes.iter().for_each(|(pointer, text)| put(object, pointer, text));
    }
}

fn base() -> anyhow::Result<Vec<File>> {
    let parts = rendered(&["base"], &[])?;
    let mut objects: Vec<Value> = parts.into_iter().flat_map(|part| part.objects).collect();
    objects.retain(|object| object["kind"] == "CustomResourceDefinition");
    for object in &mut objects {
        // What users made goes with a definition.
        object["metadata"]["annotations"]["helm.sh/resource-policy"] = json!("keep");
    }
    let mut files = frame("base", "The definitions of the mesh's kinds.", &json!({}), "")?;
    let mut text = String::new();
    for object in &objects {
        // Texts of definitions are no templates.
        let yaml = serde_saphyr::to_string(&as_charts_have_it(object))?.replace("{{", "{{ `{{` }}");
        text.push_str(&format!("---\n{yaml}\n"));
    }
    files.push(file("base", "templates/crds.yaml", text));
    Ok(files)
}

/// Values of the chart `istiod`: those of Istio's that our pilot has, at their places.
fn istiod_values() -> anyhow::Result<Value> {
    let spec = Spec::new(&[], &[])?;
    let pilot = spec.at("values.pilot");
    // It follows release and revision.
    let mut mesh = spec.at("meshConfig").clone();
    mesh["defaultConfig"].as_object_mut().map(|config| config.remove("discoveryAddress"));
    let mut global = globals();
    global["proxy"] = json!({});
    global["trustBundleName"] = json!(ROOTS_CONFIG_MAP);
    global["sds"] = json!({"token": {"aud": TOKEN_AUDIENCE}});
    global["multiCluster"] = json!({"clusterName": ""});
    Ok(json!({
        "global": global,
        "revision": "",
        "revisions": [],
        "autoscaleEnabled": pilot["autoscaleEnabled"], "autoscaleMin": pilot["autoscaleMin"],
        "autoscaleMax": pilot["autoscaleMax"], "replicaCount": 1, "cpu": pilot["cpu"], "resources": pilot["resources"],
        "env": {}, "nodeSelector": {}, "tolerations": [], "affinity": {}, "topologySpreadConstraints": [],
        "podAnnotations": {}, "cni": {"enabled": false, "provider": "default"},
        "sidecarInjectorWebhook": {"rewriteAppHTTPProbe": true},
        "meshConfig": mesh, "traceSampling": pilot["traceSampling"], "jwksResolverExtraRootCA": "",
        "citadel": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}},
        "mixer": {"enabled": true, "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}},
    }))
}

const ISTIOD_HELPERS: &str = r#"{{- define "istiod.injection" -}}
{{- $global := merge (dict "istioNamespace" .Release.Namespace) .Values.global -}}
{{- dict "global" $global "pilot" (dict "cni" .Values.cni) "sidecarInjectorWebhook" .Values.sidecarInjectorWebhook "gateways" dict "revision" .Values.revision | toPrettyJson | toJson -}}
{{- end -}}
{{- define "istiod.mesh" -}}
{{- $mesh := .Values.meshConfig -}}
{{- if not .Values.mixer.enabled -}}
{{- $mesh = omit (deepCopy $mesh) "mixerCheckServer" "mixerReportServer" -}}
{{- with ($mesh.defaultConfig | default dict).proxyMetadata -}}{{- $_ := unset . "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" -}}{{- end -}}
{{- end -}}
{{- $pilot := ternary "istiod" (printf "istiod-%s" .Values.revision) (empty .Values.revision) -}}
{{- $config := merge (deepCopy ($mesh.defaultConfig | default dict)) (dict "discoveryAddress" (printf "%s.%s.svc:15012" $pilot .Release.Namespace)) -}}
{{- $mesh = merge (dict "defaultConfig" $config) (deepCopy $mesh) -}}
{{- $mesh | toYaml | replace ".istio-system.svc." (printf ".%s.svc." .Release.Namespace) | toJson -}}
{{- end -}}
{{- define "istiod.env" -}}
{{- $list := list (dict "name" "POD_NAME" "valueFrom" (dict "fieldRef" (dict "apiVersion" "v1" "fieldPath" "metadata.name"))) (dict "name" "POD_NAMESPACE" "valueFrom" (dict "fieldRef" (dict "apiVersion" "v1" "fieldPath" "metadata.namespace"))) -}}
{{- range $name, $value := .Values.env -}}
{{- $list = append $list (dict "name" $name "value" ($value | toString)) -}}
{{- end -}}
{{- with (.Values.global.multiCluster | default dict).clusterName -}}
{{- $list = append $list (dict "name" "CLUSTER_ID" "value" .) -}}
{{- end -}}
{{- if .Values.jwksResolverExtraRootCA -}}
{{- $list = append $list (dict "name" "JWKS_EXTRA_ROOTS" "value" "/cacerts/extra.pem") -}}
{{- end -}}
{{- $list | toJson -}}
{{- end -}}
{{- define "istiod.replicas" -}}
{{- if .Values.autoscaleEnabled }}null{{ else }}{{ .Values.replicaCount }}{{ end -}}
{{- end -}}
{{- define "istiod.hosts" -}}
{{- $names := list "istiod" -}}
{{- range .Values.revisions }}{{ $names = append $names (printf "istiod-%s" .) }}{{ end -}}
{{- $hosts := list -}}
{{- range $names }}{{ $hosts = concat $hosts (list (printf "%s.%s.svc" . $.Release.Namespace) (printf "%s.%s" . $.Release.Namespace) (printf "%s.%s.svc.cluster.local" . $.Release.Namespace)) }}{{ end -}}
{{- join "," $hosts -}}
{{- end -}}
"#;

/// Where values of the chart go in pilot's objects.
fn istiod_objects(more: &[&str]) -> anyhow::Result<Vec<Value>> {
    let own = [
        "values.pilot.cni.enabled=false",
        &format!("values.global.trustBundleName=@@.Values.global.trustBundleName | default `{ROOTS_CONFIG_MAP}`@@"),
        &format!("values.global.sds.token.aud=@@.Values.global.sds.token.aud | default `{TOKEN_AUDIENCE}`@@"),
        "values.pilot.traceSampling=@@.Values.traceSampling@@",
        "values.pilot.jwksResolverExtraRootCA=@@=.Values.jwksResolverExtraRootCA@@",
    ];
    let sets = [&own, more].concat();
    let parts = rendered(&["pilot", "citadel", "mixer"], &sets)?;
    let mut objects: Vec<Value> = parts.into_iter().flat_map(|part| part.objects).collect();
    objects.retain(|object| object["metadata"]["name"].as_str().is_none_or(|name| !name.starts_with("istio-install")));
    let template = "/spec/template/spec";
    let own = |field: &str| format!("{template}/{field}");
    let container = |field: &str| format!("{template}/containers/0/{field}");
    change(
        &mut objects,
        "Deployment",
        "istiod",
        &[
            ("/spec/replicas", "@@!include `istiod.replicas` .@@"),
            (&own("nodeSelector"), "@@=.Values.nodeSelector@@"),
            (&own("tolerations"), "@@=.Values.tolerations@@"),
            (&own("affinity"), "@@=.Values.affinity@@"),
            (&own("topologySpreadConstraints"), "@@=.Values.topologySpreadConstraints@@"),
            (&container("resources"), "@@=.Values.resources@@"),
            (&container("env"), "@@!include `istiod.env` .@@"),
            (
                "/spec/template/metadata/annotations",
                "@@=merge (dict `sidecar.istio.io/inject` `false` `ferromesh.io/trust-domain` .Values.meshConfig.trustDomain) .Values.podAnnotations@@",
            ),
        ],
    );
    change(&mut objects, "Deployment", "citadel", &[(&container("resources"), "@@=.Values.citadel.resources@@")]);
    change(&mut objects, "Deployment", "mixer", &[(&container("resources"), "@@=.Values.mixer.resources@@")]);
    let scaler = [
        ("/spec/minReplicas", "@@=.Values.autoscaleMin@@"),
        ("/spec/maxReplicas", "@@=.Values.autoscaleMax@@"),
        ("/spec/metrics/0/resource/target/averageUtilization", "@@=.Values.cpu.targetAverageUtilization@@"),
    ];
    change(&mut objects, "HorizontalPodAutoscaler", "istiod", &scaler);
    change(
        &mut objects,
        "ConfigMap",
        "istio-sidecar-injector",
        &[("/data/values", "@@!include `istiod.injection` .@@")],
    );
    for object in
        objects.iter_mut().filter(|object| object["kind"] == "ConfigMap" && object["data"]["mesh"].is_string())
    {
        put(object, "/data/mesh", "@@!include `istiod.mesh` .@@");
    }
    name_injection(&mut objects);
    mount_issuer_roots(&mut objects);
    tell_of_values(&mut objects);
    Ok(objects)
}

/// The namespace stands in the name of injection where it is not the usual one.
fn name_injection(objects: &mut [Value]) {
    for object in objects.iter_mut().filter(|object| object["kind"] == "MutatingWebhookConfiguration") {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let other = "@@ternary `` (printf `-%s` .Release.Namespace) (eq .Release.Namespace `istio-system`)@@";
        object["metadata"]["name"] = json!(name.replace("-@@.Release.Namespace@@", other));
    }
}

/// Roots of token issuers are named by a variable where there are some, and their ConfigMap is mounted if it is there.
fn mount_issuer_roots(objects: &mut [Value]) {
    for pod in objects.iter_mut().filter_map(|object| object.pointer_mut("/spec/template/spec")) {
        let volumes = pod["volumes"].as_array_mut().into_iter().flatten();
        for volume in volumes.filter(|volume| volume["name"] == "extracacerts") {
            volume["configMap"]["optional"] = json!(true);
        }
        if let Some(args) = pod["containers"][0]["args"].as_array_mut() {
            args.retain(|argument| !argument.as_str().is_some_and(|text| text.starts_with("--jwks-extra-roots=")));
        }
    }
}

/// Arguments that follow values of the chart.
fn tell_of_values(objects: &mut [Value]) {
    for argument in arguments(objects) {
        let text = argument.as_str().unwrap_or_default().to_owned();
        if let Some((names, _)) = text.strip_prefix("--host-names=").and_then(|names| names.split_once('=')) {
            *argument = json!(format!("--host-names={names}=@@include `istiod.hosts` .@@"));
        }
        if text.starts_with("--trust-domain=") {
            *argument = json!("--trust-domain=@@.Values.meshConfig.trustDomain@@");
        }
        if text.starts_with("--trust-domain-aliases=") {
            *argument = json!("--trust-domain-aliases=@@join `,` .Values.meshConfig.trustDomainAliases@@");
        }
        let text = argument.as_str().unwrap_or_default();
        let own = "=spiffe://@@.Values.meshConfig.trustDomain | replace `@` `.`@@/";
        *argument = json!(text.replace("=spiffe://cluster.local/", own));
    }
}

/// Arguments of all containers.
fn arguments(objects: &mut [Value]) -> impl Iterator<Item = &mut Value> {
    let pods = objects.iter_mut().filter_map(|object| object.pointer_mut("/spec/template/spec/containers/0/args"));
    pods.filter_map(Value::as_array_mut).flatten()
}

fn istiod() -> anyhow::Result<Vec<File>> {
    let mut files =
        frame("istiod", "Discovery, certificates, policy and telemetry.", &istiod_values()?, ISTIOD_HELPERS)?;
    let is_scaler = |object: &Value| object["kind"] == "HorizontalPodAutoscaler";
    let of_mixer = |object: &Value| object["metadata"]["name"] == "mixer";
    let is_issuer_roots = |object: &Value| object["kind"] == "ConfigMap" && !object["data"]["extra.pem"].is_null();
    for (name, condition, sets) in [
        ("default", "not .Values.revision", Vec::new()),
        ("revision", ".Values.revision", vec![format!("revision={REVISION}")]),
    ] {
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let mut objects = istiod_objects(&sets)?;
        if name == "revision" {
            // What is the default one's already belongs to its release.
            objects.retain(|object| object["metadata"]["name"].as_str().is_some_and(|own| own.contains(REVISION)));
        }
        let (scalers, rest): (Vec<Value>, Vec<Value>) = objects.into_iter().partition(is_scaler);
        let (mixer, rest): (Vec<Value>, Vec<Value>) = rest.into_iter().partition(of_mixer);
        let (issuer_roots, rest): (Vec<Value>, Vec<Value>) = rest.into_iter().partition(is_issuer_roots);
        let mut text = documents(condition, &rest)?;
        text.push_str(&documents(&format!("and ({condition}) .Values.autoscaleEnabled"), &scalers)?);
        text.push_str(&documents(&format!("and ({condition}) .Values.jwksResolverExtraRootCA"), &issuer_roots)?);
        if !mixer.is_empty() {
            text.push_str(&documents(&format!("and ({condition}) .Values.mixer.enabled"), &mixer)?);
        }
        files.push(file("istiod", &format!("templates/{name}.yaml"), text.replace(REVISION, "{{ .Values.revision }}")));
    }
    Ok(files)
}

/// A directory of the node: as users write it, else as the platform has it, else as most have it.
fn directory(name: &str, most: &str) -> String {
    let of = |platform: &str| Some(format!("`{platform}` `{}`", profile::directory(platform, name)?));
    let known: Vec<String> = PLATFORMS.into_iter().filter_map(of).collect();
    let of_platform = format!("get (dict {}) (.Values.global.platform | default ``)", known.join(" "));
    format!("@@=.Values.{name} | default ({of_platform}) | default `{most}`@@")
}

fn cni() -> anyhow::Result<Vec<File>> {
    let parts = rendered(&["cni"], &[])?;
    let mut objects: Vec<Value> = parts.into_iter().flat_map(|part| part.objects).collect();
    let spec = Spec::new(&[], &[])?;
    let mut values = spec.at("values.cni").clone();
    let directories =
        ["cniBinDir", "cniConfDir"].map(|name| directory(name, values[name].take().as_str().unwrap_or_default()));
    for name in ["cniBinDir", "cniConfDir"] {
        values[name] = json!("");
    }
    values["global"] = globals();
    values["repair"] = json!({"enabled": true, "repairPods": true});
    values["resources"] = json!({"requests": {"cpu": "10m", "memory": "16Mi"}});
    let container = "/spec/template/spec/containers/0";
    let volume = |index: usize| format!("/spec/template/spec/volumes/{index}/hostPath/path");
    let changes = [
        (format!("{container}/resources"), "@@=.Values.resources@@"),
        (volume(0), directories[0].as_str()),
        (volume(1), directories[1].as_str()),
    ];
    let changes: Vec<(&str, &str)> = changes.iter().map(|(pointer, text)| (pointer.as_str(), *text)).collect();
    change(&mut objects, "DaemonSet", "istio-cni-node", &changes);
    for argument in arguments(&mut objects) {
        let name = argument.as_str().and_then(|text| text.split_once('=')).map(|(name, _)| name.to_owned());
        let expression = match name.as_deref() {
            Some("--chained") => ".Values.chained",
            Some("--conf-file") => ".Values.cniConfFileName",
            Some("--exclude-namespaces") => "join `,` .Values.excludeNamespaces",
            Some("--repair") => "and .Values.repair.enabled .Values.repair.repairPods",
            _ => continue,
        };
        *argument = json!(format!("{}=@@{expression}@@", name.unwrap_or_default()));
    }
    let mut files = frame("cni", "The node agent.", &values, "")?;
    files.push(file("cni", "templates/agent.yaml", documents("true", &objects)?));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: IN-2
    #[test]
    fn charts_hold_what_an_installation_has_and_no_mark_is_left() {
        let files = charts().unwrap();
        for chart in ["base", "istiod", "gateway", "cni"] {
            assert!(files.iter().any(|(path, _)| *path == format!("{chart}/Chart.yaml")), "{chart}");
        }
        for (path, text) in &files {
            assert!(!text.contains("@@") && !text.contains("zz-"), "{path}: {text}");
            assert!(!text.contains("operator.istio.io/managed"), "{path}: Helm keeps it, not meshctl");
        }
        let text = |path: &str| &files.iter().find(|(own, _)| own == path).unwrap().1;
        let default = text("istiod/templates/default.yaml");
        for part in
            ["name: citadel", "name: mixer", "{{ .Values.resources | toJson }}", "{{ include `istiod.injection` . }}"]
        {
            assert!(default.contains(part), "{part}: {default}");
        }
        let canary = text("istiod/templates/revision.yaml");
        assert!(canary.contains("istiod-{{ .Values.revision }}") && !canary.contains("name: citadel\n"), "{canary}");
        assert!(text("gateway/templates/gateway.yaml").contains("{{ include `gateway.name` . }}"));
        assert!(text("gateway/templates/gateway.yaml").contains("kind: HorizontalPodAutoscaler"));
        assert!(text("gateway/values.yaml").contains("15021"));
        assert!(text("istiod/values.yaml").contains("autoscaleMax: 5"));
    }

    // spec: IN-2, IN-4, IN-23
    #[test]
    fn what_is_left_empty_is_as_meshctl_has_it() {
        let files = charts().unwrap();
        let text = |path: &str| &files.iter().find(|(own, _)| own == path).unwrap().1;
        let agent = text("cni/templates/agent.yaml");
        for (name, known, most) in [
            ("cniBinDir", "`k3s` `/var/lib/rancher/k3s/data/cni`", "/opt/cni/bin"),
            ("cniConfDir", "`k3s` `/var/lib/rancher/k3s/agent/etc/cni/net.d`", "/etc/cni/net.d"),
        ] {
            let line = agent.lines().find(|line| line.contains(&format!(".Values.{name}"))).unwrap();
            assert!(line.contains(known) && line.contains("(.Values.global.platform | default ``)"), "{line}");
            assert!(line.ends_with(&format!("| default `{most}` | toJson }}}}")), "{line}");
            assert!(text("cni/values.yaml").contains(&format!("{name}: \"\"")));
        }
        // Long texts are folded.
        let default = text("istiod/templates/default.yaml").split_whitespace().collect::<Vec<_>>().join(" ");
        for (field, most) in [("trustBundleName", "istio-ca-root-cert"), ("sds.token.aud", "istio-ca")] {
            let with = format!(".Values.global.{field} | default `{most}`");
            assert!(default.contains(&with), "{field}");
            assert_eq!(default.matches(&with).count(), default.matches(&format!(".Values.global.{field}")).count());
        }
    }

    #[test]
    fn marks_become_expressions() {
        assert_eq!(
            expressions("a: \"@@=.Values.x@@\"\nb: 'p@@.y@@q'\n"),
            "a: {{ .Values.x | toJson }}\nb: 'p{{ .y }}q'\n"
        );
        assert_eq!(expressions("a: '@@!include `x` .@@'"), "a: {{ include `x` . }}");
    }
}
