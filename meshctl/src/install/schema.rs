//! Which fields of an IstioOperator and which values there are (IN-3 to IN-6): those that our components have. Istio's others
//! are refused by name, for to ignore them would change what the user asked for.

use super::profile::PLATFORMS;
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
    const NAME: &str = "COMPLIANCE_POLICY";
    let k8s = &spec["components"]["pilot"]["k8s"]["env"];
    let listed = k8s.as_array().into_iter().flatten().filter(|one| one["name"] == NAME).map(|one| &one["value"]);
    let places = [
        ("values.pilot.env", Some(&spec["values"]["pilot"]["env"][NAME])),
        ("components.pilot.k8s.env", listed.into_iter().next()),
        ("meshConfig.defaultConfig.proxyMetadata", Some(&spec["meshConfig"]["defaultConfig"]["proxyMetadata"][NAME])),
    ];
    let is_set = |value: &&Value| !value.is_null() && **value != "";
    let (place, _) = places.into_iter().find(|(_, value)| value.as_ref().is_some_and(is_set))?;
    Some(format!(
        "{place}.{NAME}: no program of this mesh is built with a validated cryptographic module: leave it out"
    ))
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
        assert!(named(json!({"meshConfig": {"defaultConfig": metadata}})).starts_with("meshConfig"));
        assert_eq!(unknown(&json!({"values": {"pilot": {"env": {"COMPLIANCE_POLICY": "", "A": "b"}}}})), None);
    }
}
