//! `meshctl install` and `uninstall` against a real API server.

use crate::identity::{self, Citadel};
use crate::{images, support};
use e2e::cluster::{Bare, Cluster, PATIENCE};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a cluster can hold of ours.
const KINDS: &str = "namespaces,customresourcedefinitions,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,secrets,configmaps,services,deployments,horizontalpodautoscalers,poddisruptionbudgets,mutatingwebhookconfigurations,validatingwebhookconfigurations,leases";

/// Runs meshctl against a cluster; what it printed, and whether it was content.
pub(crate) fn meshctl(cluster: &Cluster, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(e2e::program("meshctl").unwrap());
    command.args(arguments).arg("--kubeconfig").arg(cluster.kubeconfig()).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.success(), text)
}

pub(crate) fn install(cluster: &Cluster, more: &[&str]) -> String {
    // Nothing is pulled: images are on the node or nowhere.
    let base = ["install", "-y", "--set", "values.global.imagePullPolicy=Never"];
    let (content, text) = meshctl(cluster, &[&base, more].concat());
    assert!(content, "{text}");
    text
}

/// All objects of the cluster: kind, namespace and name; and their versions.
fn objects(cluster: &Cluster) -> BTreeSet<(String, String)> {
    let columns = "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name,V:.metadata.resourceVersion";
    let text = cluster.kubectl(&["get", KINDS, "-A", "--no-headers", "-o", columns]).unwrap();
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (version, name) = words.split_last().unwrap();
        (name.join(" "), (*version).to_owned())
    };
    // What Kubernetes itself writes, all the time or when it comes to it.
    let own = |name: &str| name.starts_with("Lease kube-") || name.ends_with(" kube-root-ca.crt");
    { text.lines() }.map(entry).filter(|(name, _)| !own(name)).collect()
}

fn names(cluster: &Cluster) -> BTreeSet<String> {
    objects(cluster).into_iter().map(|(name, _)| name).collect()
}

/// A kubeconfig with the rights of a service account of the control plane.
fn kubeconfig_of(cluster: &Cluster, directory: &Path, account: &str) -> PathBuf {
    let token = identity::token(cluster, "istio-system", account, &[]);
    let admin = cluster.kubectl(&["config", "view", "--raw", "-o", "json"]).unwrap();
    let mut config: Value = serde_json::from_str(&admin).unwrap();
    config["users"][0]["user"] = json!({"token": token});
    let path = directory.join(format!("{account}.json"));
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

// spec: CT-9, CT-10, CT-12, IN-7, IN-8
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn what_is_installed_twice_is_unchanged_and_what_is_purged_leaves_nothing() {
    let cluster = Cluster::bare("install", Bare::Node).unwrap();
    cluster.eventually(&["get", "serviceaccount", "default", "-n", "kube-node-lease"], |_| true).unwrap();
    let before = names(&cluster);
    let (content, refused) = meshctl(&cluster, &["install", "-y", "--set", "components.pilot.k8s.resorces.x=1"]);
    assert!(!content && refused.contains("did you mean resources?"), "{refused}");
    let (content, asked) = meshctl(&cluster, &["install"]);
    assert!(!content && asked.contains("nothing is done"), "{asked}");
    assert_eq!(names(&cluster), before);

    let began = Instant::now();
    let first = install(&cluster, &["--no-wait"]);
    println!("{first}applied in {:.1} s", began.elapsed().as_secs_f64());
    let again = install(&cluster, &["--no-wait"]);
    for component in ["Base", "Citadel", "Pilot", "Mixer", "Gateways"] {
        assert!(first.contains(&format!("✔ {component} installed (")), "{first}");
        assert!(again.contains(&format!("✔ {component} installed (unchanged")), "{again}");
    }

    // By hand deleted: it is missed, and comes back. No longer wanted: it goes.
    cluster.kubectl(&["delete", "service", "istiod", "-n", "istio-system"]).unwrap();
    let (content, verified) = meshctl(&cluster, &["verify-install"]);
    assert!(!content && verified.contains("✘ Service istio-system/istiod: it is not there"), "{verified}");
    let changed = install(&cluster, &["--no-wait", "--set", "components.mixer.enabled=false"]);
    // The Service, and the ConfigMaps that say what was asked for and where mixer is.
    assert!(changed.contains("✔ Pilot installed (3 of "), "{changed}");
    assert!(changed.contains("Deployment istio-system/mixer is wanted no longer: deleted"), "{changed}");
    assert!(
        !names(&cluster).contains("Service istio-system mixer")
            && names(&cluster).contains("Service istio-system istiod")
    );

    the_rights_are_enough(&cluster).await;

    let (content, dry) = meshctl(&cluster, &["uninstall", "--dry-run"]);
    assert!(content && dry.contains("would delete Deployment istio-system/istiod"), "{dry}");
    let (content, text) = meshctl(&cluster, &["uninstall", "-y"]);
    assert!(content, "{text}");
    let kept = names(&cluster);
    assert!(kept.contains("Namespace <none> istio-system") && kept.iter().any(|name| name.contains("virtualservices")));
    assert!(!kept.contains("Deployment istio-system istiod"), "{kept:?}");
    install(&cluster, &["--no-wait"]);
    let (content, text) = meshctl(&cluster, &["uninstall", "-y", "--purge"]);
    assert!(content, "{text}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left: Vec<String> = names(&cluster).difference(&before).cloned().collect();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "left: {left:?}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// citadel and pilot do all that they do with the rights that they are given, and pilot is refused nothing.
async fn the_rights_are_enough(cluster: &Cluster) {
    let directory = tempfile::tempdir().unwrap();
    let rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: default}\nspec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}\n";
    cluster.apply(rule).unwrap();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: istiod-1, namespace: istio-system}\nspec: {serviceAccountName: istiod, containers: [{name: a, image: a, imagePullPolicy: Never}]}\n";
    cluster.apply(pod).unwrap();
    let citadel = Citadel::start_as(&kubeconfig_of(cluster, directory.path(), "citadel"), &[]).await;
    let roots = identity::roots_in(cluster, "istio-system", |text| identity::count(text) == 1);
    let token = identity::bound(cluster, "istio-system", "istiod", "istio-ca");
    let own = kubeconfig_of(cluster, directory.path(), "istiod");
    let pilot = identity::pilot_as(&own, &token, &citadel, directory.path()).await;
    identity::ready_page(&pilot).await;
    identity::roots_in(cluster, "default", |text| text == roots);
    let condition = "jsonpath={.status.conditions[?(@.type==\"Accepted\")].status}";
    cluster.eventually(&["get", "virtualservice", "v", "-o", condition], |text| text == "True").unwrap();
    let (_, metrics) = support::page(pilot.monitoring.unwrap(), "/metrics").await;
    let refused: Vec<&str> = metrics.lines().filter(|line| line.starts_with("pilot_k8s_watch_errors_total{")).collect();
    assert!(refused.is_empty(), "{refused:?}");
    for (account, verb, what, namespace) in [
        ("istiod", "update", "secrets", "istio-system"),
        ("istiod", "list", "secrets", "default"),
        ("istiod", "update", "configmaps", "default"),
        ("citadel", "get", "secrets/other", "istio-system"),
        ("citadel", "get", "secrets/cacerts", "default"),
        ("citadel", "get", "pods", "istio-system"),
        ("mixer", "get", "pods", "istio-system"),
    ] {
        let whom = format!("--as=system:serviceaccount:istio-system:{account}");
        let answer = cluster.kubectl(&["auth", "can-i", verb, what, "-n", namespace, &whom]);
        assert!(
            answer.is_err() || answer.as_ref().unwrap().trim() == "no",
            "{account} may {verb} {what} in {namespace}"
        );
    }
}

/// What meshctl writes on its standard output, which others read.
fn printed(cluster: &Cluster, arguments: &[&str]) -> String {
    let mut command = Command::new(e2e::program("meshctl").unwrap());
    command.args(arguments).stdin(Stdio::null());
    if arguments[0] != "manifest" {
        command.arg("--kubeconfig").arg(cluster.kubeconfig());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "meshctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Without files, what `kube-inject` gives is what the cluster's mesh is set to.
fn injected_by_its_settings(cluster: &Cluster) {
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\nspec: {containers: [{name: a, image: a}]}\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pod).unwrap();
    let inject = ["kube-inject", "-f", file.path().to_str().unwrap()];
    let before = printed(cluster, &inject);
    assert!(before.contains("ISTIO_META_DNS_CAPTURE") && before.contains("imagePullPolicy: Never"), "{before}");
    let map = ["configmap", "istio-sidecar-injector", "-n", "istio-system"];
    let values = cluster.kubectl(&[&["get"], &map[..], &["-o", "jsonpath={.data.values}"]].concat()).unwrap();
    let changed = values.replace("\"imagePullPolicy\": \"Never\"", "\"imagePullPolicy\": \"Always\"");
    assert_ne!(changed, values);
    let set = |values: &str| {
        let patch = json!({"data": {"values": values}}).to_string();
        cluster.kubectl(&[&["patch"], &map[..], &["--type=merge", "-p", &patch]].concat()).unwrap();
    };
    set(&changed);
    assert_eq!(printed(cluster, &inject), before.replace("imagePullPolicy: Never", "imagePullPolicy: Always"));
    set(&values);
    let nowhere = meshctl(cluster, &[&inject[..], &["-i", "elsewhere"]].concat()).1;
    assert!(
        nowhere.contains("there is no ConfigMap elsewhere/istio-sidecar-injector")
            && nowhere.contains("--operatorFileName"),
        "{nowhere}"
    );
}

// spec: CT-11, CT-12, CT-13, CT-49
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn everything_can_be_read_as_yaml_and_applied_and_deleted_by_others() {
    let cluster = Cluster::bare("gitops", Bare::Api).unwrap();
    let set = ["--set", "values.global.imagePullPolicy=Never"];
    let definitions = printed(&cluster, &[&["manifest", "generate", "--component", "base"], &set[..]].concat());
    assert_eq!(
        definitions.matches("kind: ").count(),
        definitions.matches("kind: CustomResourceDefinition").count() * 2 + 1
    );
    cluster.apply(&definitions).unwrap();
    cluster.eventually(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"], |_| true).unwrap();
    let all = printed(&cluster, &[&["manifest", "generate"], &set[..]].concat());
    assert!(all.starts_with(definitions.trim_end_matches("---\n")), "base is its first part");
    assert_eq!(printed(&cluster, &[&["install", "--dry-run", "-o", "yaml"], &set[..]].concat()), all);
    cluster.apply(&all).unwrap();
    let again = install(&cluster, &["--no-wait"]);
    assert_eq!(again.matches("(unchanged").count(), 5, "kubectl has applied what meshctl would: {again}");
    assert_eq!(printed(&cluster, &["upgrade", "--dry-run", "-o", "yaml"]), all, "what was asked for holds on");
    assert_eq!(printed(&cluster, &["prune"]), "");
    injected_by_its_settings(&cluster);

    let without = ["--set", "components.mixer.enabled=false"];
    let (content, text) = meshctl(&cluster, &[&["upgrade", "--dry-run"], &without[..]].concat());
    assert!(content && text.contains("would delete Deployment istio-system/mixer"), "{text}");
    cluster.apply(&printed(&cluster, &[&["manifest", "generate"], &set[..], &without].concat())).unwrap();
    let gone = printed(&cluster, &["prune"]);
    for kind in ["Deployment", "Service", "ServiceAccount"] {
        assert!(gone.contains(&format!("kind: {kind}\nmetadata:\n  name: mixer\n  namespace: istio-system")), "{gone}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &gone).unwrap();
    cluster.kubectl(&["delete", "-f", file.path().to_str().unwrap()]).unwrap();
    assert!(!names(&cluster).iter().any(|name| name.contains("mixer")));
    assert_eq!(printed(&cluster, &["prune"]), "");
}

// spec: CT-9, CT-10, IN-4, PI-54
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn two_meshes_of_one_cluster_leave_each_other_alone() {
    let cluster = Cluster::bare("two", Bare::Api).unwrap();
    install(&cluster, &["--no-wait"]);
    let of = |namespace: &str| -> Vec<String> {
        let all = names(&cluster);
        all.into_iter().filter(|name| name.contains(namespace)).collect()
    };
    let first = of("istio-system");
    let second = ["--no-wait", "--set", "namespace=second", "--set", "values.global.trustBundleName=second-roots"];
    install(&cluster, &second);
    assert_eq!(of("istio-system"), first, "the second deletes nothing of the first");
    assert_eq!(install(&cluster, &["--no-wait"]).matches("(unchanged").count(), 5);
    assert!(!of("second").is_empty(), "nor the first of the second");
    for mesh in ["istio-system", "second"] {
        let (content, text) = meshctl(&cluster, &["tag", "set", "prod", "--revision", "default", "-i", mesh]);
        assert!(content, "{text}");
    }
    let (content, text) = meshctl(&cluster, &["tag", "remove", "prod", "-y", "-i", "second"]);
    assert!(content, "{text}");
    let tags = |mesh: &str| meshctl(&cluster, &["tag", "list", "-i", mesh]).1;
    assert!(tags("istio-system").contains("prod") && !tags("second").contains("prod"), "a tag is its mesh's own");
    assert!(meshctl(&cluster, &["tag", "remove", "prod", "-y"]).0);
    let revision = ["install", "-y", "--no-wait", "--revision", "2-0", "--set", "namespace=second"];
    let (content, odds) = meshctl(&cluster, &revision);
    assert!(!content && odds.contains("values.global.trustBundleName is"), "it would hold for all revisions: {odds}");
    let taken = ["install", "-y", "--no-wait", "--revision", "second"];
    let (content, taken) = meshctl(&cluster, &taken);
    assert!(!content && taken.contains("belongs to the mesh in the namespace second"), "{taken}");
    for more in [&[][..], &["-r", "default"], &["--purge"]] {
        let (_, which) = meshctl(&cluster, &[&["uninstall", "-y"], more].concat());
        assert!(which.contains("there are meshes in istio-system, second: say which one with -i"), "{which}");
    }
    let (content, text) = meshctl(&cluster, &["uninstall", "-y", "-i", "second"]);
    assert!(content && text.contains("deleted Deployment second/istiod"), "{text}");
    assert_eq!(of("istio-system"), first);
    assert!(!names(&cluster).iter().any(|name| name.starts_with("Deployment second ")));
    let (content, text) = meshctl(&cluster, &["uninstall", "-y", "--purge", "-i", "second"]);
    assert!(content && text.contains("the definitions stay: the mesh in istio-system needs them"), "{text}");
    assert_eq!(of("istio-system"), first);
    let is_definition = |name: &String| name.starts_with("CustomResourceDefinition ");
    assert!(names(&cluster).iter().any(is_definition), "the first needs them");
}

/// Resident memory of our programs in pods of this machine: name and MB.
fn memory() -> Vec<(String, f64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let name = read("comm").trim().to_owned();
        let ours = ["pilot", "citadel", "mixer", "proxy"].contains(&name.as_str());
        if ours && read("cgroup").contains("kubepods") {
            let resident = read("status").lines().find_map(|line| line.strip_prefix("VmRSS:").map(str::to_owned));
            let kilobytes = resident.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
            found.push((name, kilobytes.unwrap_or(0.0) / 1000.0));
        }
    }
    found
}

// spec: CT-9, CT-49, IN-1, IN-4, PI-61
/// From nothing to a mesh that is ready, with our own images, on a cluster with DNS. It is in a namespace of its own: its
/// gateway is ready only where it finds its pilot there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn an_empty_cluster_becomes_a_mesh_that_is_ready() {
    let cluster = Cluster::start("ready", 1).unwrap();
    let directory = tempfile::tempdir().unwrap();
    images::load(&cluster, directory.path(), &["proxy", "pilot", "citadel", "mixer"]);
    let began = Instant::now();
    let own = ["--set", "namespace=mesh"];
    let text = install(&cluster, &[&own[..], &["--readiness-timeout", "3m"]].concat());
    println!("{text}");
    assert!(began.elapsed().as_secs() < 60, "an installation takes less than a minute");
    let (content, verified) = meshctl(&cluster, &[&["verify-install"], &own[..]].concat());
    assert!(content, "{verified}");
    for (name, megabytes) in memory() {
        println!("{name}: {megabytes:.0} MB");
    }
    let policy = "jsonpath={.webhooks[*].failurePolicy}";
    let validator = ["get", "validatingwebhookconfiguration", "istio-validator-mesh", "-o", policy];
    cluster.eventually(&validator, |text| text == "Fail Fail").unwrap();
    let again = install(&cluster, &own);
    assert!(again.matches("(unchanged").count() == 5, "what pilot filled in stays: {again}");
}
