//! Gateways: a pod that is nothing but a proxy, which injection fills in (IN-5).

use super::Spec;
use super::rights::{READ, rule};
use super::workload::{changed, merged, network_policy};
use proto::wire::{PORT_METRICS, PORT_READY, PORT_STATUS};
use serde_json::{Value, json};

pub(super) fn objects(spec: &Spec, gateway: &Value) -> Vec<Value> {
    let name = gateway["name"].as_str().unwrap_or("istio-ingressgateway");
    let namespace = gateway["namespace"].as_str().map_or_else(|| spec.namespace(), str::to_owned);
    let given = merged(&json!({"app": name}), &gateway["label"]);
    let k8s = &gateway["k8s"];
    let own = |version: &str, kind: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace, "labels": given}});
    let mut service = own("v1", "Service");
    service["metadata"]["annotations"] = merged(&k8s["serviceAnnotations"], &k8s["service"]["annotations"]);
    service["spec"] = json!({"type": "LoadBalancer", "selector": given});
    for field in ["type", "ports", "loadBalancerIP", "externalTrafficPolicy", "loadBalancerSourceRanges"] {
        if !k8s["service"][field].is_null() {
            service["spec"][field] = k8s["service"][field].clone();
        }
    }
    let mut scaler = own("autoscaling/v2", "HorizontalPodAutoscaler");
    let (least, most) = (k8s["hpaSpec"]["minReplicas"].as_u64(), k8s["hpaSpec"]["maxReplicas"].as_u64());
    let scaled = k8s["replicaCount"].is_null() && most.is_some();
    scaler["spec"] = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": least.unwrap_or(1), "maxReplicas": most.unwrap_or(5),
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
    });
    let mut budget = own("policy/v1", "PodDisruptionBudget");
    budget["spec"] = json!({"minAvailable": 1, "selector": {"matchLabels": given}});
    let routes = if gateway["routes"]["enabled"] == true {
        routes(&own("route.openshift.io/v1", "Route"), &service)
    } else {
        Vec::new()
    };
    let policy = network_policy(spec, name, &namespace, &given, &open_ports(&service));
    let rights =
        rights(own("rbac.authorization.k8s.io/v1", "Role"), own("rbac.authorization.k8s.io/v1", "RoleBinding"));
    let [role, binding] = rights;
    let mut objects = vec![
        own("v1", "ServiceAccount"),
        role,
        binding,
        service,
        deployment(spec, own("apps/v1", "Deployment"), k8s, &given),
    ];
    objects.extend(routes);
    objects.extend(policy);
    if scaled {
        objects.push(scaler);
    }
    if spec.is_on("values.global.defaultPodDisruptionBudget.enabled") {
        objects.push(budget);
    }
    objects
}

/// Where a gateway is asked: the ports of its Service, and those of every proxy that are for others.
fn open_ports(service: &Value) -> Vec<u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let of_pod = |port: &Value| u16::try_from(port["targetPort"].as_u64().or_else(|| port["port"].as_u64())?).ok();
    let mut open: Vec<u16> = ports.filter_map(of_pod).chain([PORT_READY, PORT_STATUS, PORT_METRICS]).collect();
    open.sort_unstable();
    open.dedup();
    open
}

/// The ways in by OpenShift's router, as `oc expose` makes them: its port `http2`, and `https` passed through, so that TLS ends at
/// the gateway (IN-24). OpenShift chooses the hosts; who wants others adds Routes of their own.
fn routes(route: &Value, service: &Value) -> Vec<Value> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let of_port = |port: &Value| {
        let mut route = route.clone();
        let name = route["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        route["spec"] = json!({"to": {"kind": "Service", "name": name, "weight": 100}, "port": {"targetPort": port["name"]}, "wildcardPolicy": "None"});
        match port["name"].as_str()? {
            "http2" => {}
            "https" => {
                route["metadata"]["name"] = json!(format!("{name}-https"));
                route["spec"]["tls"] = json!({"termination": "passthrough"});
            }
            _ => return None,
        }
        Some(route)
    };
    ports.filter_map(of_port).collect()
}

/// A gateway gets the certificates of its namespace from pilot if it may list Secrets there itself (CA-27).
fn rights(mut role: Value, mut binding: Value) -> [Value; 2] {
    let account = binding["metadata"]["name"].clone();
    role["rules"] = json!([rule("", &["secrets"], &READ)]);
    let name = format!("{}-sds", account.as_str().unwrap_or_default());
    for object in [&mut role, &mut binding] {
        object["metadata"]["name"] = json!(name);
    }
    binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    let namespace = &binding["metadata"]["namespace"];
    binding["subjects"] = json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace}]);
    [role, binding]
}

fn deployment(spec: &Spec, mut deployment: Value, k8s: &Value, given: &Value) -> Value {
    let pull = spec.text("values.global.imagePullPolicy");
    // The image is not known yet, and so an API server would write Always.
    let pull = if pull.is_empty() { "IfNotPresent".to_owned() } else { pull };
    let mut container = json!({
        "name": "istio-proxy", "image": "auto", "imagePullPolicy": pull,
        "securityContext": {
            "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false, "privileged": false,
            "readOnlyRootFilesystem": true, "runAsNonRoot": true,
        },
        // Readiness is looked at every 15 s: who is not ready at the first look would wait for the second.
        "startupProbe": {
            "httpGet": {"path": "/healthz/ready", "port": PORT_READY}, "periodSeconds": 1, "timeoutSeconds": 3,
            "failureThreshold": 600,
        },
    });
    let mut pod = json!({"serviceAccountName": deployment["metadata"]["name"]});
    changed(&mut container, &mut pod, k8s);
    pod["containers"] = json!([container]);
    let annotations = json!({"inject.istio.io/templates": "gateway"});
    let mut asks = json!({"sidecar.istio.io/inject": "true"});
    if !spec.revision().is_empty() {
        asks["istio.io/rev"] = json!(spec.revision());
    }
    deployment["spec"] = json!({
        "selector": {"matchLabels": given},
        "template": {
            "metadata": {
                "labels": merged(given, &asks),
                "annotations": merged(&annotations, &k8s["podAnnotations"]),
            },
            "spec": pod,
        },
    });
    if !k8s["replicaCount"].is_null() {
        deployment["spec"]["replicas"] = k8s["replicaCount"].clone();
    }
    if !k8s["strategy"].is_null() {
        deployment["spec"]["strategy"] = k8s["strategy"].clone();
    }
    deployment
}
