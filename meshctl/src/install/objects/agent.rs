//! The node agent: on every node, with the rights to enter the networks of pods, and to look at pods (IN-10 to IN-15).

use super::rights::{READ, in_cluster, in_namespace, rule, rule_for};
use super::workload::{changed, merged, network_policy};
use super::{Spec, account, own};
use crate::install::profile;
use serde_json::{Value, json};

/// Name of the DaemonSet, Istio's.
const NODE: &str = "istio-cni-node";
/// Name of its account.
const ACCOUNT: &str = "istio-cni";
/// The agent's port: open once it is ready.
const PORT: u16 = 8000;

pub(super) fn objects(spec: &Spec) -> Vec<Value> {
    let mut objects = vec![account(spec, ACCOUNT)];
    objects.extend(in_cluster(spec, ACCOUNT, &cluster_rules(spec)));
    objects.extend(in_namespace(spec, ACCOUNT, &[rule_for("apps", &["daemonsets"], &[NODE], &["get"])]));
    objects.extend(network(spec));
    objects.push(daemon_set(spec));
    objects.extend(network_policy(spec, NODE, &spec.namespace(), &json!({"k8s-app": NODE}), &[PORT]));
    objects
}

/// To look at pods; and on OpenShift to be what no other constraint lets a pod be.
fn cluster_rules(spec: &Spec) -> Vec<Value> {
    let mut rules = vec![rule("", &["pods"], &READ[..2])];
    if spec.text("values.global.platform") == "openshift" {
        rules.push(rule_for("security.openshift.io", &["securitycontextconstraints"], &["privileged"], &["use"]));
    }
    rules
}

/// Where Multus sets up pods, it runs the plugin for those that ask for this network (IN-23).
fn network(spec: &Spec) -> Option<Value> {
    (spec.text("values.pilot.cni.provider") == "multus").then(|| {
        let metadata = json!({"name": "istio-cni", "namespace": "default", "labels": {}});
        json!({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": metadata})
    })
}

fn daemon_set(spec: &Spec) -> Value {
    let cni = spec.at("values.cni");
    let k8s = spec.at("components.cni.k8s");
    let mut set = own(spec, "apps/v1", "DaemonSet", NODE);
    set["metadata"]["labels"] = json!({"k8s-app": NODE});
    let labels = json!({"k8s-app": NODE, "app": NODE, "sidecar.istio.io/inject": "false"});
    let tolerate = json!([{"effect": "NoSchedule", "operator": "Exists"}, {"effect": "NoExecute", "operator": "Exists"}, {"key": "CriticalAddonsOnly", "operator": "Exists"}]);
    let mut pod = json!({
        "serviceAccountName": ACCOUNT, "priorityClassName": "system-node-critical", "terminationGracePeriodSeconds": 10,
        "tolerations": tolerate,
        "volumes": [
            host("bin", &directory(spec, "cniBinDir"), "Directory"),
            host("conf", &directory(spec, "cniConfDir"), "DirectoryOrCreate"),
            host("run", "/var/run/istio-cni", "DirectoryOrCreate"),
            host("networks", "/var/run/netns", "DirectoryOrCreate"),
        ],
    });
    let mut container = container(spec, cni);
    changed(&mut container, &mut pod, k8s);
    pod["nodeSelector"] = merged(&json!({"kubernetes.io/os": "linux"}), &k8s["nodeSelector"]);
    pod["containers"] = json!([container]);
    let one_by_one = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}});
    set["spec"] = json!({
        "selector": {"matchLabels": {"k8s-app": NODE}},
        "updateStrategy": if k8s["strategy"].is_null() { one_by_one } else { k8s["strategy"].clone() },
        "template": {
            "metadata": {
                "labels": labels,
                "annotations": merged(&json!({"sidecar.istio.io/inject": "false"}), &k8s["podAnnotations"]),
            },
            "spec": pod,
        },
    });
    set
}

/// A directory of the node: as users wrote it, else as the platform has it, else as the profile does.
fn directory(spec: &Spec, name: &str) -> String {
    let written = spec.written()["values"]["cni"][name].is_string();
    let platform = profile::directory(&spec.text("values.global.platform"), name).filter(|_| !written);
    platform.map_or_else(|| text(spec.at("values.cni"), name), str::to_owned)
}

fn text(cni: &Value, name: &str) -> String {
    cni[name].as_str().unwrap_or_default().to_owned()
}

fn host(name: &str, path: &str, kind: &str) -> Value {
    json!({"name": name, "hostPath": {"path": path, "type": kind}})
}

fn container(spec: &Spec, cni: &Value) -> Value {
    let excluded: Vec<&str> =
        cni["excludeNamespaces"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let flag = |name: &str| cni[name].as_bool().unwrap_or(true);
    let repair = &cni["repair"];
    let repairs = repair["enabled"] != false && repair["repairPods"] != false;
    let level = spec.text("values.global.logging.level");
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let mut networks = mount("networks", "/var/run/netns");
    // Networks of pods that come later must be seen here, too.
    networks["mountPropagation"] = json!("HostToContainer");
    let mut security = json!({
        "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false, "privileged": cni["privileged"] == true,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "DAC_OVERRIDE"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if let Some(kind) = cni["seLinuxOptions"]["type"].as_str() {
        security["seLinuxOptions"] = json!({"type": kind});
    }
    let image = text(cni, "image");
    let mut container = json!({
        "name": "install-cni", "image": spec.image(if image.is_empty() { "proxy" } else { &image }),
        "args": [
            "agent", format!("--log={level}"), format!("--chained={}", flag("chained")),
            format!("--conf-file={}", text(cni, "cniConfFileName")), format!("--exclude-namespaces={}", excluded.join(",")),
            format!("--repair={repairs}"),
        ],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}},
            {"name": "DAEMON_SET", "value": format!("{}/{NODE}", spec.namespace())},
        ],
        "ports": [{"name": "readiness", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": security,
        "volumeMounts": [mount("bin", "/host/opt/cni/bin"), mount("conf", "/host/etc/cni/net.d"), mount("run", "/var/run/istio-cni"), networks],
        "resources": if cni["resources"].is_null() { json!({"requests": {"cpu": "10m", "memory": "16Mi"}}) } else { cni["resources"].clone() },
    });
    let pull = spec.text("values.global.imagePullPolicy");
    if !pull.is_empty() {
        container["imagePullPolicy"] = json!(pull);
    }
    container
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(sets: &[&str]) -> Vec<Value> {
        objects(&Spec::new(&[], &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>()).unwrap())
    }

    fn of<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
        objects.iter().find(|object| object["kind"] == kind).unwrap()
    }

    // spec: IN-15, IN-23
    #[test]
    fn on_openshift_alone_it_may_use_the_privileged_constraint() {
        let constraint = json!({
            "apiGroups": ["security.openshift.io"], "resources": ["securitycontextconstraints"],
            "resourceNames": ["privileged"], "verbs": ["use"],
        });
        for sets in [&["profile=openshift"][..], &["values.global.platform=openshift"]] {
            let rules = of(&agent(sets), "ClusterRole")["rules"].clone();
            assert!(rules.as_array().unwrap().contains(&constraint), "{sets:?}: {rules}");
        }
        for sets in [&[][..], &["values.global.platform=gke"]] {
            assert!(!of(&agent(sets), "ClusterRole").to_string().contains("openshift"), "{sets:?}");
        }
    }

    // spec: IN-1, IN-23
    #[test]
    fn its_directories_are_those_of_the_platform_unless_somebody_says_otherwise() {
        let directories = |sets: &[&str]| {
            let volumes = of(&agent(sets), "DaemonSet")["spec"]["template"]["spec"]["volumes"].clone();
            [0, 1].map(|nth| volumes[nth]["hostPath"]["path"].as_str().unwrap().to_owned())
        };
        let net_d = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
        for (platform, expected) in [
            ("", ["/opt/cni/bin", "/etc/cni/net.d"]),
            ("minikube", ["/opt/cni/bin", "/etc/cni/net.d"]),
            ("gke", ["/home/kubernetes/bin", "/etc/cni/net.d"]),
            ("k3d", ["/bin", net_d]),
            ("k3s", ["/var/lib/rancher/k3s/data/cni", net_d]),
            ("microk8s", ["/var/snap/microk8s/current/opt/cni/bin", "/var/snap/microk8s/current/args/cni-network"]),
        ] {
            assert_eq!(directories(&[&format!("values.global.platform={platform}")]), expected, "{platform}");
        }
        let own = ["values.global.platform=k3s", "values.cni.cniBinDir=/opt/cni/bin"];
        assert_eq!(directories(&own), ["/opt/cni/bin", net_d]);
        assert_eq!(directories(&["profile=openshift"]), ["/var/lib/cni/bin", "/etc/cni/multus/net.d"]);
    }
}
