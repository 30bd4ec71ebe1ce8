//! The values that nobody wrote: Istio's, but for what our components need less of, by profile (IN-1).

use proto::wire::VARIABLE_METRICS;
use serde_json::{Value, json};

/// The profiles.
pub const NAMES: [&str; 6] = ["default", "demo", "minimal", "empty", "openshift", "preview"];

/// The platforms that `values.global.platform` may name.
pub const PLATFORMS: [&str; 6] = ["openshift", "gke", "k3d", "k3s", "microk8s", "minikube"];

/// Where a platform has a directory of the node agent that is elsewhere by default (Istio's `platform-*.yaml`; for GKE its
/// chart of the agent): `cniBinDir` or `cniConfDir`. OpenShift's are in its profile.
pub fn directory(platform: &str, name: &str) -> Option<&'static str> {
    match (platform, name) {
        ("gke", "cniBinDir") => Some("/home/kubernetes/bin"),
        ("k3d", "cniBinDir") => Some("/bin"),
        ("k3s", "cniBinDir") => Some("/var/lib/rancher/k3s/data/cni"),
        ("k3d" | "k3s", "cniConfDir") => Some("/var/lib/rancher/k3s/agent/etc/cni/net.d"),
        ("microk8s", "cniBinDir") => Some("/var/snap/microk8s/current/opt/cni/bin"),
        ("microk8s", "cniConfDir") => Some("/var/snap/microk8s/current/args/cni-network"),
        _ => None,
    }
}

/// The specification of a profile; none where there is no such profile.
pub fn of(name: &str) -> Option<Value> {
    let mut spec = everything();
    match name {
        "default" => {}
        "demo" => {
            spec["components"]["egressGateways"][0]["enabled"] = json!(true);
            spec["meshConfig"]["accessLogFile"] = json!("/dev/stdout");
            spec["values"]["pilot"]["autoscaleEnabled"] = json!(false);
            spec["values"]["pilot"]["traceSampling"] = json!(100);
            let small = json!({"requests": {"cpu": "10m", "memory": "40Mi"}});
            spec["values"]["global"]["proxy"]["resources"] = small.clone();
            for gateways in ["ingressGateways", "egressGateways"] {
                spec["components"][gateways][0]["k8s"]["resources"] = small.clone();
                spec["components"][gateways][0]["k8s"]["replicaCount"] = json!(1);
            }
        }
        "minimal" => {
            spec["components"]["ingressGateways"][0]["enabled"] = json!(false);
            spec["components"]["mixer"]["enabled"] = json!(false);
        }
        "empty" => {
            for component in ["base", "cni", "pilot", "citadel", "mixer"] {
                spec["components"][component]["enabled"] = json!(false);
            }
            spec["components"]["ingressGateways"][0]["enabled"] = json!(false);
        }
        "openshift" => {
            spec["values"]["global"]["platform"] = json!("openshift");
            // Multus runs plugins by network and not in a chain, and keeps its configuration elsewhere (IN-23).
            spec["components"]["cni"]["enabled"] = json!(true);
            spec["values"]["pilot"]["cni"]["provider"] = json!("multus");
            let cni = &mut spec["values"]["cni"];
            cni["cniBinDir"] = json!("/var/lib/cni/bin");
            cni["cniConfDir"] = json!("/etc/cni/multus/net.d");
            cni["cniConfFileName"] = json!("istio-cni.conf");
            cni["chained"] = json!(false);
            cni["seLinuxOptions"] = json!({"type": "spc_t"});
            spec["components"]["ingressGateways"][0]["routes"] = json!({"enabled": true});
        }
        // Istio's previews are DNS in the proxy, which everybody has here.
        "preview" => {}
        _ => return None,
    }
    Some(spec)
}

fn everything() -> Value {
    json!({
        "meshConfig": mesh(),
        "components": {
            "base": {"enabled": true},
            "cni": {"enabled": false},
            "pilot": {"enabled": true},
            "citadel": {"enabled": true},
            "mixer": {"enabled": true},
            "ingressGateways": [gateway("istio-ingressgateway", "ingressgateway", true, "LoadBalancer")],
            "egressGateways": [gateway("istio-egressgateway", "egressgateway", false, "ClusterIP")],
        },
        "values": {
            "global": {
                "hub": "ferromesh", "tag": env!("CARGO_PKG_VERSION"), "istioNamespace": "istio-system",
                "configValidation": true, "defaultPodDisruptionBudget": {"enabled": true},
                "logging": {"level": "info"}, "proxy": {},
            },
            "cni": {
                "cniBinDir": "/opt/cni/bin", "cniConfDir": "/etc/cni/net.d", "cniConfFileName": "", "chained": true,
                "excludeNamespaces": ["kube-system"],
            },
            "pilot": {
                "autoscaleEnabled": true, "autoscaleMin": 1, "autoscaleMax": 5, "traceSampling": 1,
                "cpu": {"targetAverageUtilization": 80},
                // Istio asks for 500m and 2 GiB.
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            },
        },
    })
}

/// Every profile has proxies answer their workloads' DNS: hosts of ServiceEntries get addresses by which connections to them
/// are told apart (D12). Istio's default is off.
fn mesh() -> Value {
    json!({
        "trustDomain": "cluster.local", "defaultProviders": {"metrics": ["prometheus"]},
        "defaultConfig": {"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}},
    })
}

/// Has all proxies tell mixer of what they count and of what failed, and lets it count for them; under what is written,
/// and only where mixer is wanted.
pub fn report_to_mixer(spec: &mut Value) {
    let (host, port) = ("mixer.istio-system.svc.cluster.local", 9091);
    let mesh = &mut spec["meshConfig"];
    mesh["mixerCheckServer"] = json!(format!("{host}:{port}"));
    mesh["mixerReportServer"] = mesh["mixerCheckServer"].clone();
    mesh["extensionProviders"] = json!([{"name": "mixer-traces", "opentelemetry": {"service": host, "port": port}}]);
    mesh["defaultConfig"]["proxyMetadata"][VARIABLE_METRICS] = json!(format!("http://{host}:{port}"));
}

fn gateway(name: &str, label: &str, enabled: bool, service: &str) -> Value {
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": port, "protocol": "TCP"});
    let mut ports = vec![port("http2", 80), port("https", 443)];
    if enabled {
        ports.insert(0, port("status-port", 15021));
    }
    json!({
        "name": name, "enabled": enabled, "label": {"app": name, "istio": label},
        "k8s": {
            "service": {"type": service, "ports": ports},
            "hpaSpec": {"minReplicas": 1, "maxReplicas": 5},
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        },
    })
}
