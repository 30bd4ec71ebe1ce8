//! The node agent: pods at the level `restricted`, with users as OpenShift gives them, are redirected and resolve names of the
//! mesh; and an agent that comes late repairs.

use crate::install::{install, meshctl};
use crate::{images, policies, support};
use e2e::cluster::Cluster;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Users and groups that OpenShift gives to a namespace.
const RANGE: &str = "1000650000/10000";
/// One of them, as an application may have it, with the group of root as OpenShift's images expect.
const USER: u32 = 1_000_651_234;
/// The last of them, which is the proxy's.
const PROXY_USER: &str = "1000659999";

/// A container that the level `restricted` lets pass.
fn container(name: &str, args: &[&str]) -> Value {
    json!({
        "name": name, "image": "localhost/tapp:1", "imagePullPolicy": "Never", "args": args,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": 0, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

/// A namespace at the level `restricted` under STRICT, and a shop in it.
fn shop() -> Value {
    let labels = json!({"app": "shop"});
    let mut server = container("shop", &["serve", ":8080"]);
    server["readinessProbe"] = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1});
    let space = json!({"istio-injection": "enabled", "pod-security.kubernetes.io/enforce": "restricted"});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tight", "labels": space, "annotations": {
            "openshift.io/sa.scc.uid-range": RANGE, "openshift.io/sa.scc.supplemental-groups": RANGE}}},
        {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default", "namespace": "tight"},
            "spec": {"mtls": {"mode": "STRICT"}}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": "tight"}, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 2, "containers": [server]}}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": "tight"},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}},
    ]})
}

fn asker(name: &str, url: &str) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "tight"}, "spec": {"backoffLimit": 0,
        "template": {"spec": {"restartPolicy": "Never", "containers": [container("asker", &["get", url])]}}}})
}

/// What a Job in the namespace is told.
fn asked(cluster: &Cluster, name: &str, url: &str) -> String {
    cluster.apply(&asker(name, url).to_string()).unwrap();
    let job = format!("job/{name}");
    let ended = "jsonpath={.status.conditions[*].type}";
    cluster.eventually(&["get", &job, "-n", "tight", "-o", ended], |text| !text.is_empty()).unwrap();
    cluster.kubectl(&["logs", &job, "-n", "tight", "-c", "asker"]).unwrap()
}

fn pod_field(cluster: &Cluster, app: &str, path: &str) -> String {
    cluster
        .kubectl(&["get", "pod", "-n", "tight", "-l", &format!("app={app}"), "-o", &format!("jsonpath={path}")])
        .unwrap()
}

// spec: IN-10, IN-11, IN-12, IN-13, IN-15, IN-22, IN-27
/// robustness S6, S7: no rights in the pods, none to change pods in the agent.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn restricted_pods_are_redirected_and_a_late_agent_repairs() {
    let cluster = Cluster::start("agent", 1).unwrap();
    let directory = tempfile::tempdir().unwrap();
    images::load(&cluster, directory.path(), &["proxy", "pilot", "citadel", "mixer"]);
    support::load_application(&cluster, directory.path());
    let text = install(
        &cluster,
        &[
            "--readiness-timeout",
            "3m",
            "--set",
            "components.cni.enabled=true",
            "--set",
            "values.global.platform=openshift",
            "--set",
            "values.global.networkPolicy.enabled=true",
        ],
    );
    assert!(text.contains("✔ CNI installed"), "{text}");

    cluster.apply(&shop().to_string()).unwrap();
    let rolled = cluster.kubectl(&["rollout", "status", "deployment/shop", "-n", "tight", "--timeout=90s"]);
    assert!(rolled.is_ok(), "{rolled:?}\n{}", told(&cluster));
    assert_eq!(pod_field(&cluster, "shop", "{.items[0].spec.initContainers[*].name}"), "istio-validation istio-proxy");
    let rights = pod_field(&cluster, "shop", "{.items[0].spec..capabilities}");
    assert!(!rights.contains("add"), "{rights}");
    let said = asked(&cluster, "inside", "http://shop.tight/");
    assert!(said.starts_with("hello from shop-"), "{said}\n{}", told(&cluster));
    // The pod's own address: only what is redirected can be refused by its proxy.
    let address = pod_field(&cluster, "shop", "{.items[0].status.podIP}");
    let plain = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger", "namespace": "default"}, "spec": {
        "restartPolicy": "Never", "containers": [container("stranger", &["get", &format!("http://{address}:8080/")])]}});
    cluster.apply(&plain.to_string()).unwrap();
    let phase = ["get", "pod", "stranger", "-o", "jsonpath={.status.phase}"];
    cluster.eventually(&phase, |phase| phase == "Failed" || phase == "Succeeded").unwrap();
    let refused = cluster.kubectl(&["logs", "stranger"]).unwrap();
    assert!(!refused.contains("hello"), "STRICT holds for what comes from outside: {refused}");

    has_users_of_the_namespace(&cluster);
    resolves_names_of_the_mesh(&cluster);
    policies::fit(&cluster);
    comes_late(&cluster).await;
    let (content, checked) = meshctl(&cluster, &["check"]);
    assert!(content && checked.contains("√ the node agent runs on every node"), "{checked}");

    // Uninstalled, the node sets up pods as before.
    let (content, text) = meshctl(&cluster, &["uninstall", "-y"]);
    assert!(content, "{text}");
    cluster.eventually(&["get", "pods", "-n", "istio-system", "-o", "name"], str::is_empty).unwrap();
    let after = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "after", "namespace": "default"}, "spec": {
        "containers": [container("after", &["serve", ":8080"])]}});
    cluster.apply(&after.to_string()).unwrap();
    cluster.eventually(&["get", "pod", "after", "-o", "jsonpath={.status.phase}"], |phase| phase == "Running").unwrap();
}

/// The proxy has the last user of the range; the application any other. What the proxy is connected to is what the guide tells to let
/// out where a namespace lets out nothing else.
fn has_users_of_the_namespace(cluster: &Cluster) {
    let proxy = "{.items[0].spec.initContainers[?(@.name==\"istio-proxy\")].securityContext.runAsUser}";
    assert_eq!(pod_field(cluster, "shop", proxy), PROXY_USER);
    let (content, ready) = meshctl(cluster, &["proxy-status", "-n", "tight"]);
    assert!(content && ready.contains("shop-"), "{ready}");
    let pod = pod_field(cluster, "shop", "{.items[0].metadata.name}");
    let peers = policies::connected(&pod, &[8080, 15006, 15020, 15021, 15090]);
    println!("the proxy of {pod} is connected to {peers:?}");
    assert!(peers.contains(&15012) && peers.iter().all(|port| [15012, 9091].contains(port)), "{peers:?}");
}

/// A host outside that no DNS server knows: the proxy answers, for its namespace's pods are redirected for DNS as well.
fn resolves_names_of_the_mesh(cluster: &Cluster) {
    let outside = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "outside", "namespace": "default"}, "spec": {
        "containers": [container("outside", &["serve", ":8080"])]}});
    cluster.apply(&outside.to_string()).unwrap();
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/outside", "--timeout=60s"]).unwrap();
    let address = cluster.kubectl(&["get", "pod", "outside", "-o", "jsonpath={.status.podIP}"]).unwrap();
    let entry = json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "outside", "namespace": "tight"}, "spec": {
        "hosts": ["outside.example"], "location": "MESH_EXTERNAL", "resolution": "STATIC",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}], "endpoints": [{"address": address}]}});
    cluster.apply(&entry.to_string()).unwrap();
    let said = asked(cluster, "names", "http://outside.example/");
    assert!(said.starts_with("hello from outside"), "{said}\n{}", told(cluster));
}

/// A pod is set up while no agent runs: it holds itself back, and is repaired in place.
async fn comes_late(cluster: &Cluster) {
    let place = |node: &str| {
        let patch = json!({"spec": {"template": {"spec": {"nodeSelector": {"agent": node}}}}}).to_string();
        cluster
            .kubectl(&["patch", "daemonset", "istio-cni-node", "-n", "istio-system", "--type=merge", "-p", &patch])
            .unwrap();
    };
    place("away");
    let agents = ["get", "pods", "-n", "istio-system", "-l", "k8s-app=istio-cni-node", "-o", "name"];
    cluster.eventually(&agents, str::is_empty).unwrap();
    cluster.apply(&asker("late", "http://shop.tight/").to_string()).unwrap();
    let proof = "jsonpath={.items[0].status.initContainerStatuses[0].state.running.startedAt}";
    let pod = ["get", "pod", "-n", "tight", "-l", "job-name=late"];
    cluster.eventually(&[&pod[..], &["-o", proof]].concat(), |text| !text.is_empty()).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let still = cluster.kubectl(&[&pod[..], &["-o", "jsonpath={.items[0].status.phase}"]].concat()).unwrap();
    assert_eq!(still, "Pending", "it does not start without its rules");
    let uid = ["-o", "jsonpath={.items[*].metadata.uid}"];
    let before = cluster.kubectl(&[&pod[..], &uid].concat()).unwrap();

    let all = json!({"spec": {"template": {"spec": {"nodeSelector": {"agent": null}}}}}).to_string();
    cluster
        .kubectl(&["patch", "daemonset", "istio-cni-node", "-n", "istio-system", "--type=merge", "-p", &all])
        .unwrap();
    let begun = Instant::now();
    let ended = ["get", "job/late", "-n", "tight", "-o", "jsonpath={.status.conditions[*].type}"];
    let ended = cluster.eventually(&ended, |text| text.contains("Complete"));
    assert!(ended.is_ok(), "{ended:?}\n{}", told(cluster));
    println!(
        "the pod from before the agent has done its work {:.1} s after the agent was wanted",
        begun.elapsed().as_secs_f64()
    );
    assert_eq!(cluster.kubectl(&[&pod[..], &uid].concat()).unwrap(), before, "repaired in place, no pod was deleted");
    let log = cluster.kubectl(&["logs", "-n", "istio-system", "daemonset/istio-cni-node"]).unwrap();
    assert!(log.contains("repaired"), "{log}");
}

fn told(cluster: &Cluster) -> String {
    let log =
        cluster.kubectl(&["logs", "-n", "istio-system", "daemonset/istio-cni-node", "--tail=50"]).unwrap_or_default();
    let pods = cluster.kubectl(&["describe", "pods", "-n", "tight"]).unwrap_or_default();
    format!("{log}\n{pods}")
}
