//! Which fields of an IstioOperator and which values there are (IN-3 to IN-6): those that our components have. Istio's others
//! are refused by name, for to ignore them would change what the user asked for.

use serde_json::{Value, json};
use std::sync::LazyLock;

/// Any content.
const OPEN: &str = "*";

/// Fields by name: null is a scalar, `"*"` anything, a list has the form of its one element.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "profile": null, "hub": null, "tag": null, "namespace": null, "revision": null,
        "meshConfig": OPEN,
        "components": {
            "base": {"enabled": null},
            "cni": {"enabled": null, "k8s": workload()},
            "pilot": {"enabled": null, "k8s": workload()},
            "citadel": {"enabled": null, "k8s": workload()},
            "mixer": {"enabled": null, "k8s": workload()},
            "ingressGateways": [gateway()],
            "egressGateways": [gateway()],
        },
        "values": values(),
    })
});

fn workload() -> Value {
    json!({
        "resources": OPEN, "replicaCount": null, "hpaSpec": {"minReplicas": null, "maxReplicas": null},
        "env": OPEN, "nodeSelector": OPEN, "tolerations": OPEN, "affinity": OPEN, "podAnnotations": OPEN,
        "priorityClassName": null, "imagePullPolicy": null, "strategy": OPEN, "serviceAnnotations": OPEN,
        "service": {
            "type": null, "ports": OPEN, "loadBalancerIP": null, "externalTrafficPolicy": null, "annotations": OPEN,
            "loadBalancerSourceRanges": OPEN,
        },
    })
}

fn gateway() -> Value {
    json!({"name": null, "enabled": null, "namespace": null, "label": OPEN, "routes": {"enabled": null}, "k8s": workload()})
}

fn values() -> Value {
    json!({
        "profile": null, "revision": null, "meshConfig": OPEN,
        "global": {
            "hub": null, "tag": null, "variant": null, "imagePullPolicy": null, "imagePullSecrets": OPEN,
            "istioNamespace": null, "platform": null, "meshID": null, "network": null, "caAddress": null,
            "multiCluster": {"clusterName": null}, "logging": {"level": null}, "logAsJson": null,
            "priorityClassName": null, "defaultPodDisruptionBudget": {"enabled": null}, "networkPolicy": {"enabled": null}, "defaultResources": OPEN,
            "mountMtlsCerts": null, "sts": {"servicePort": null}, "sds": OPEN, "trustBundleName": null,
            "configValidation": null, "proxy": proxy(), "proxy_init": {"image": null, "resources": OPEN, "forceApplyIptables": null},
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

/// The first field of a specification that there is not, with the way out; none where all is known.
pub fn unknown(spec: &Value) -> Option<String> {
    look(spec, &SCHEMA, "")
}

fn look(given: &Value, known: &Value, path: &str) -> Option<String> {
    match (given, known) {
        (_, Value::String(_)) | (Value::Null, _) => None,
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match known.get(name) {
                Some(known) => look(value, known, &path),
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
        assert_eq!(super::unknown(&json!({"meshConfig": {"anything": [1]}, "hub": null, "tag": 3})), None);
    }
}
