//! Which fields of an IstioOperator and which values there are (IN-3 to IN-6): those that our components have. Istio's others
//! are refused by name, for to ignore them would change what the user asked for.

use super::profile::PLATFORMS;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Any content.
const OPEN: &str = "*";
/// Istio's variable of a validated cryptographic module.
pub(super) const COMPLIANCE_POLICY: &str = "COMPLIANCE_POLICY";

/// Fields by name: null is a scalar, `"*"` anything, a list has the form of its one element.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "profile": null, "hub": null, "tag": null, "namespace": null, "revision": null,
        "meshConfig": OPEN,
        "components": {
            "base": {"enabled": null},
            "cni": {"enabled": null, "k8s": pods(&json!({}))},
            "pilot": {"enabled": null, "k8s": pods(&with(&scaled(), &json!({"replicaCount": null})))},
            "citadel": {"enabled": null, "k8s": pods(&json!({"replicaCount": null}))},
            "mixer": {"enabled": null, "k8s": pods(&json!({"replicaCount": null}))},
            "ingressGateways": [gateway()],
            "egressGateways": [gateway()],
        },
        "values": values(),
    })
});

/// Fields, and more of them.
fn with(fields: &Value, more: &Value) -> Value {
    let all = [fields, more].into_iter().filter_map(Value::as_object).flatten();
    Value::Object(all.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// What users change in the pods of every component, and more.
fn pods(more: &Value) -> Value {
    let all = json!({
        "resources": OPEN, "env": OPEN, "nodeSelector": OPEN, "tolerations": OPEN, "affinity": OPEN, "podAnnotations": OPEN,
        "priorityClassName": null, "imagePullPolicy": null, "strategy": OPEN,
    });
    with(&all, more)
}

fn scaled() -> Value {
    json!({"hpaSpec": {"minReplicas": null, "maxReplicas": null}})
}

fn gateway() -> Value {
    let service = json!({
        "replicaCount": null, "serviceAnnotations": OPEN,
        "service": {
            "type": null, "ports": OPEN, "loadBalancerIP": null, "externalTrafficPolicy": null, "annotations": OPEN,
            "loadBalancerSourceRanges": OPEN,
        },
    });
    json!({
        "name": null, "enabled": null, "namespace": null, "label": OPEN, "routes": {"enabled": null},
        "k8s": pods(&with(&scaled(), &service)),
    })
}

fn values() -> Value {
    json!({
        "profile": null, "revision": null, "meshConfig": OPEN,
        "global": {
            "hub": null, "tag": null, "variant": null, "imagePullPolicy": null, "imagePullSecrets": OPEN,
            "istioNamespace": null, "platform": null, "meshID": null, "network": null, "caAddress": null,
            "multiCluster": {"clusterName": null}, "logging": {"level": null}, "logAsJson": null,
            "priorityClassName": null, "defaultPodDisruptionBudget": {"enabled": null}, "networkPolicy": {"enabled": null},
            "mountMtlsCerts": null, "sds": {"token": {"aud": null}}, "trustBundleName": null,
            "configValidation": null, "proxy": proxy(), "proxy_init": {"image": null, "forceApplyIptables": null},
        },
        "pilot": {
            "autoscaleEnabled": null, "autoscaleMin": null, "autoscaleMax": null, "replicaCount": null,
            "cpu": {"targetAverageUtilization": null}, "resources": OPEN, "env": OPEN, "nodeSelector": OPEN,
            "tolerations": OPEN, "affinity": OPEN, "topologySpreadConstraints": OPEN, "podAnnotations": OPEN,
            "podLabels": OPEN, "deploymentLabels": OPEN, "traceSampling": null, "image": null,
            "cni": {"enabled": null, "provider": null}, "jwksResolverExtraRootCA": null,
        },
        "sidecarInjectorWebhook": {
            "neverInjectSelector": OPEN, "alwaysInjectSelector": OPEN, "injectedAnnotations": OPEN,
            "enableNamespacesByDefault": null, "reinvocationPolicy": null, "rewriteAppHTTPProbe": null,
            "templates": OPEN, "defaultTemplates": OPEN,
        },
        "gateways": {"securityContext": OPEN},
        "cni": {
            "image": null, "cniBinDir": null, "cniConfDir": null, "cniConfFileName": null, "chained": null,
            "excludeNamespaces": OPEN, "privileged": null, "resources": OPEN, "seLinuxOptions": {"type": null},
            "provider": null, "repair": {"enabled": null, "repairPods": null},
        },
    })
}

fn proxy() -> Value {
    json!({
        "image": null, "clusterDomain": null, "logLevel": null, "componentLogLevel": null, "resources": OPEN,
        "includeIPRanges": null, "excludeIPRanges": null, "includeInboundPorts": null, "excludeInboundPorts": null,
        "includeOutboundPorts": null, "excludeOutboundPorts": null, "statusPort": null,
        "readinessInitialDelaySeconds": null, "readinessPeriodSeconds": null, "readinessFailureThreshold": null,
        "startupProbe": {"enabled": null, "failureThreshold": null}, "autoInject": null, "privileged": null,
        "lifecycle": OPEN, "holdApplicationUntilProxyStarts": null, "outlierLogPath": null, "seccompProfile": OPEN,
    })
}

/// The fields of `values.global`.
pub(super) fn globals() -> Value {
    SCHEMA["values"]["global"].clone()
}

/// The first field or value of a specification that there is not, with the way out; none where all is known.
pub fn unknown(spec: &Value) -> Option<String> {
    look(spec, &SCHEMA, "").or_else(|| platform(spec)).or_else(|| compliance(spec))
}

/// A platform that is not known would get what it cannot run.
fn platform(spec: &Value) -> Option<String> {
    let given = match &spec["values"]["global"]["platform"] {
        Value::Null => return None,
        Value::String(name) => name.clone(),
        other => other.to_string(),
    };
    let known = PLATFORMS.map(str::to_owned);
    (!given.is_empty() && !known.contains(&given)).then(|| {
        let (near, all) = (hint(&given, known.iter()), known.join(", "));
        format!(
            "values.global.platform: there is no {given:?}{near}; there are {all}, and without it any other cluster"
        )
    })
}

/// Istio's variable chooses a validated module and its algorithms (PI-61). To take it without one would let users believe that
/// they have it.
fn compliance(spec: &Value) -> Option<String> {
    let k8s = &spec["components"]["pilot"]["k8s"]["env"];
    let listed =
        k8s.as_array().into_iter().flatten().filter(|one| one["name"] == COMPLIANCE_POLICY).map(|one| &one["value"]);
    let metadata = format!("/defaultConfig/proxyMetadata/{COMPLIANCE_POLICY}");
    let places = [
        ("values.pilot.env", Some(&spec["values"]["pilot"]["env"][COMPLIANCE_POLICY])),
        ("components.pilot.k8s.env", listed.into_iter().next()),
        ("meshConfig.defaultConfig.proxyMetadata", spec["meshConfig"].pointer(&metadata)),
        ("values.meshConfig.defaultConfig.proxyMetadata", spec["values"]["meshConfig"].pointer(&metadata)),
    ];
    let is_set = |value: &&Value| !value.is_null() && **value != "";
    let (place, _) = places.into_iter().find(|(_, value)| value.as_ref().is_some_and(is_set))?;
    Some(format!(
        "{place}.{COMPLIANCE_POLICY}: no program of this mesh is built with a validated cryptographic module: leave it out"
    ))
}

fn look(given: &Value, known: &Value, path: &str) -> Option<String> {
    match (given, known) {
        (_, Value::String(_)) | (Value::Null, _) => None,
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match known.get(name) {
                Some(known) => look(value, known, &path),
                // Nothing is asked for, or what another version took is taken away.
                None if value.is_null() => None,
                None => Some(format!("{path}: there is no such field{}", hint(name, known.keys()))),
            }
        }),
        (Value::Array(given), Value::Array(known)) => {
            let mut elements = given.iter().enumerate();
            elements.find_map(|(index, value)| look(value, known.first()?, &format!("{path}[{index}]")))
        }
        (Value::Object(_) | Value::Array(_), Value::Null) => {
            Some(format!("{path}: one value is needed, not a structure"))
        }
        (_, Value::Object(_)) => Some(format!("{path}: a mapping is needed")),
        (_, Value::Array(_)) => Some(format!("{path}: a list is needed")),
        _ => None,
    }
}

/// The name that was probably meant.
pub(super) fn hint<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let near = known.map(|known| (distance(&name.to_lowercase(), &known.to_lowercase()), known)).min();
    match near {
        Some((far, known)) if far <= 1 + name.len() / 4 => format!("; did you mean {known}?"),
        _ => String::new(),
    }
}

/// Edit distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut corner = std::mem::replace(&mut row, vec![left]).into_iter();
        let mut diagonal = corner.next().unwrap_or_default();
        for (y, above) in b.chars().zip(corner) {
            left = (diagonal + usize::from(x != y)).min(left + 1).min(above + 1);
            diagonal = above;
            row.push(left);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::kube_inject;
    use crate::install::{Spec, render};
    use pilot::inject::{Namespaces, into_object};

    // spec: IN-3, IN-4, IN-6
    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let unknown = |spec: Value| unknown(&spec).unwrap();
        assert_eq!(
            unknown(json!({"values": {"global": {"hubb": "x"}}})),
            "values.global.hubb: there is no such field; did you mean hub?"
        );
        assert_eq!(unknown(json!({"components": {"ztunnel": {}}})), "components.ztunnel: there is no such field");
        assert_eq!(
            unknown(json!({"components": {"ingressGateways": [{"name": "a"}, {"nam": "a"}]}})),
            "components.ingressGateways[1].nam: there is no such field; did you mean name?"
        );
        assert_eq!(unknown(json!({"profile": ["demo"]})), "profile: one value is needed, not a structure");
        assert_eq!(unknown(json!({"values": {"pilot": 1}})), "values.pilot: a mapping is needed");
        assert_eq!(
            unknown(json!({"values": {"global": {"sds": {"token": {"aud": "a"}, "enabled": true}}}})),
            "values.global.sds.enabled: there is no such field"
        );
        assert_eq!(
            super::unknown(&json!({"meshConfig": {"anything": [1]}, "hub": null, "tag": 3, "gone": null})),
            None
        );
    }

    /// Paths of all fields that are no structures.
    fn leaves(known: &Value, path: &str, found: &mut Vec<String>) {
        match known {
            Value::Object(fields) => {
                let dot = if path.is_empty() { "" } else { "." };
                fields.iter().for_each(|(name, known)| leaves(known, &format!("{path}{dot}{name}"), found));
            }
            Value::Array(elements) => leaves(&elements[0], &format!("{path}[0]"), found),
            _ => found.push(path.to_owned()),
        }
    }

    /// What becomes of a specification: objects without the note of what was written, and pods that are injected by it.
    fn result(base: &str, set: Option<(&str, &Value)>) -> Option<Value> {
        let mut written: Value = serde_saphyr::from_str(base).unwrap();
        if let Some((path, value)) = set {
            let pointer = format!("/{}", path.replace("[0]", ".0").replace('.', "/"));
            let mut at = &mut written;
            for name in pointer.split('/').skip(1) {
                at = match name {
                    "0" => &mut at[0],
                    name => &mut at[name],
                };
            }
            *at = value.clone();
        }
        let spec = Spec::new(&[written.to_string()], &[]).ok()?;
        let parts = render(&spec).ok()?;
        let mut objects: Vec<Value> = parts.into_iter().flat_map(|part| part.objects).collect();
        objects
            .retain(|object| object["metadata"]["name"].as_str().is_none_or(|name| !name.starts_with("istio-install")));
        for object in &mut objects {
            // What of it reaches a pod is seen there.
            object["data"].as_object_mut().map(|data| data.remove("values"));
        }
        objects.extend(injected(&written.to_string()));
        Some(objects.into())
    }

    /// Pods with a sidecar and as a gateway, its container native and not; none where that is not to be had.
    fn injected(written: &str) -> Vec<Value> {
        let pods = ["sidecar", "gateway"].map(|template| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "namespace": "n", "labels": {"app": "a"}, "annotations": {"inject.istio.io/templates": template}},
                "spec": {"containers": [{"name": "a", "image": "a", "readinessProbe": {"httpGet": {"port": 1}}}]},
            })
        });
        let Ok(mut settings) = kube_inject::of_installation(&[written.to_owned()]) else { return Vec::new() };
        let by = |native: bool| {
            settings.native_sidecars = native;
            let all = pods.clone().into_iter();
            all.filter_map(|mut pod| into_object(&mut pod, &settings, &Namespaces::new()).is_ok().then_some(pod))
                .collect::<Vec<Value>>()
        };
        [true, false].map(by).concat()
    }

    // spec: IN-3, IN-4, IN-5, IN-6
    #[test]
    fn every_field_changes_what_is_installed_or_injected() {
        let bases = [
            "{profile: openshift, components: {base: {enabled: false}, ingressGateways: [{name: a, enabled: true, k8s: {service: {ports: [{name: http2, port: 80}]}}}], egressGateways: [{name: b, enabled: true, k8s: {service: {ports: [{name: http2, port: 80}]}}}]}}",
            "{components: {base: {enabled: false}, cni: {enabled: false}, ingressGateways: [{name: a, enabled: true, k8s: {hpaSpec: {maxReplicas: 3}}}], egressGateways: [{name: b, enabled: true, k8s: {hpaSpec: {maxReplicas: 3}}}]}, values: {profile: default, pilot: {autoscaleEnabled: false}}}",
        ];
        let values = [
            json!("minimal"),
            json!("probe"),
            json!("k3s"),
            json!("multus"),
            json!(7),
            json!(0.5),
            json!(true),
            json!(false),
            json!({"probe": "probe"}),
            json!(["probe"]),
            json!([{"name": "PROBE", "value": "probe"}]),
            json!([{"matchLabels": {"app": "a"}}]),
            json!({"type": "RuntimeDefault"}),
            json!("10.0.0.0/8"),
            json!("1,2"),
            json!("disabled"),
            json!({"accessLogFile": "/probe"}),
        ];
        let before = bases.map(|base| result(base, None).unwrap());
        let mut all = Vec::new();
        leaves(&SCHEMA, "", &mut all);
        assert!(all.len() > 100, "{}", all.len());
        let counts = |path: &str| {
            bases.iter().zip(&before).any(|(base, before)| {
                values.iter().any(|value| result(base, Some((path, value))).is_some_and(|after| after != *before))
            })
        };
        // Of the definitions there is nothing to see here.
        let idle: Vec<&String> =
            all.iter().filter(|path| *path != "components.base.enabled" && !counts(path)).collect();
        assert!(idle.is_empty(), "accepted without effect: {idle:?}");
    }

    // spec: IN-1
    #[test]
    fn a_platform_that_is_not_known_is_refused_by_name() {
        let of = |platform: Value| unknown(&json!({"values": {"global": {"platform": platform}}}));
        for known in PLATFORMS.iter().chain(&[""]) {
            assert_eq!(of(json!(known)), None, "{known}");
        }
        assert_eq!(of(Value::Null), None);
        assert_eq!(
            of(json!("openshit")).unwrap(),
            "values.global.platform: there is no \"openshit\"; did you mean openshift?; there are openshift, gke, k3d, k3s, \
             microk8s, minikube, and without it any other cluster"
        );
        assert!(of(json!("azure")).is_some() && of(json!(3)).is_some());
    }

    // spec: PI-61
    #[test]
    fn a_policy_of_compliance_that_nobody_keeps_is_refused() {
        let named = |spec: Value| unknown(&spec).unwrap();
        let fips = "fips-140-2";
        assert!(
            named(json!({"values": {"pilot": {"env": {"COMPLIANCE_POLICY": fips}}}}))
                .starts_with("values.pilot.env.COMPLIANCE_POLICY: no program")
        );
        let listed = json!([{"name": "A", "value": "b"}, {"name": "COMPLIANCE_POLICY", "value": fips}]);
        assert!(
            named(json!({"components": {"pilot": {"k8s": {"env": listed}}}})).starts_with("components.pilot.k8s.env")
        );
        let metadata = json!({"proxyMetadata": {"COMPLIANCE_POLICY": fips}});
        let mesh = json!({"meshConfig": {"defaultConfig": metadata}});
        assert!(named(mesh.clone()).starts_with("meshConfig"));
        assert!(named(json!({"values": mesh})).starts_with("values.meshConfig"));
        assert_eq!(unknown(&json!({"values": {"pilot": {"env": {"COMPLIANCE_POLICY": "", "A": "b"}}}})), None);
    }
}
