//! Several pilots beside each other, names for them, and an upgrade in place.

use crate::install::{install, meshctl};
use e2e::cluster::{Bare, Cluster};

fn good(cluster: &Cluster, arguments: &[&str]) -> String {
    let (content, text) = meshctl(cluster, arguments);
    assert!(content, "meshctl {arguments:?}: {text}");
    text
}

fn names(cluster: &Cluster, kinds: &str) -> Vec<String> {
    let text = cluster.kubectl(&["get", kinds, "-A", "-o", "name"]).unwrap();
    text.lines().map(|line| line.rsplit('/').next().unwrap_or(line).to_owned()).collect()
}

fn field(cluster: &Cluster, object: &[&str], path: &str) -> String {
    cluster.kubectl(&[&["get"], object, &["-o", &format!("jsonpath={path}")]].concat()).unwrap()
}

// spec: CT-9, CT-10, CT-26, IN-30, IN-31, IN-33
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn a_revision_stands_beside_the_default_one_and_a_tag_moves_between_them() {
    let cluster = Cluster::bare("revisions", Bare::Api).unwrap();
    install(&cluster, &["--no-wait"]);
    let before = names(&cluster, "deployments,services,configmaps");
    install(&cluster, &["--no-wait", "--revision", "canary", "--set", "profile=minimal"]);
    let after = names(&cluster, "deployments,services,configmaps");
    assert!(before.iter().all(|name| after.contains(name)), "nothing of the default one went: {before:?} {after:?}");
    for name in ["istiod-canary", "istio-canary", "istio-sidecar-injector-canary"] {
        assert!(after.contains(&name.to_owned()), "{name}: {after:?}");
    }
    let args =
        field(&cluster, &["deployment", "citadel", "-n", "istio-system"], "{.spec.template.spec.containers[0].args}");
    assert!(args.contains("istiod-canary.istio-system.svc"), "one CA knows both: {args}");
    let own = "{.webhooks[*].name}";
    let hooks = field(&cluster, &["mutatingwebhookconfiguration", "istio-sidecar-injector-canary"], own);
    assert_eq!(hooks, "rev.namespace.sidecar-injector.istio.io rev.object.sidecar-injector.istio.io");
    let again = install(&cluster, &["--no-wait"]);
    assert_eq!(again.matches("(unchanged").count(), 5, "neither disturbs the other: {again}");

    let (content, unknown) = meshctl(&cluster, &["tag", "set", "prod", "--revision", "cannary"]);
    assert!(!content && unknown.contains("there are: canary, default"), "{unknown}");
    good(&cluster, &["tag", "set", "prod", "--revision", "default"]);
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/rev: prod}}\n").unwrap();
    let (content, held) = meshctl(&cluster, &["tag", "set", "prod", "--revision", "canary"]);
    assert!(!content && held.contains("--overwrite moves it"), "{held}");
    good(&cluster, &["tag", "set", "prod", "--revision", "canary", "--overwrite"]);
    let service = field(
        &cluster,
        &["mutatingwebhookconfiguration", "istio-revision-tag-prod-istio-system"],
        "{.webhooks[0].clientConfig.service.name} {.webhooks[0].namespaceSelector.matchExpressions[0].values[0]}",
    );
    assert_eq!(service, "istiod-canary prod");
    let listed = good(&cluster, &["tag", "list"]);
    assert!(listed.contains("prod    canary      shop"), "{listed}");
    let (content, used) = meshctl(&cluster, &["tag", "remove", "prod"]);
    assert!(!content && used.contains("the namespaces shop have this tag"), "{used}");
    let again = install(&cluster, &["--no-wait", "--revision", "canary", "--set", "profile=minimal"]);
    assert!(!again.contains("deleted"), "a tag comes and goes by its own command: {again}");
    good(&cluster, &["tag", "remove", "prod", "-y"]);

    // With the tag default the older label asks for the new revision, and one webhook alone answers it.
    good(&cluster, &["tag", "set", "default", "--revision", "canary"]);
    let all = names(&cluster, "mutatingwebhookconfigurations");
    assert!(!all.contains(&"istio-sidecar-injector".to_owned()), "{all:?}");
    good(&cluster, &["tag", "remove", "default", "-y"]);

    let (content, gone) = meshctl(&cluster, &["uninstall", "-y", "--revision", "canary"]);
    assert!(content && gone.contains("deleted Deployment istio-system/istiod-canary"), "{gone}");
    let left = names(&cluster, "deployments,services,configmaps");
    assert!(left.contains(&"istiod".to_owned()) && !left.iter().any(|name| name.contains("canary")), "{left:?}");
    assert!(names(&cluster, "serviceaccounts").contains(&"istiod".to_owned()), "what both share stays");
}

// spec: CT-11, IN-32
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn an_upgrade_keeps_what_was_asked_for_and_goes_no_way_back() {
    let cluster = Cluster::bare("upgrade", Bare::Api).unwrap();
    let (content, nothing) = meshctl(&cluster, &["upgrade", "-y"]);
    assert!(!content && nothing.contains("meshctl install brings one"), "{nothing}");
    install(&cluster, &["--no-wait", "--set", "values.pilot.env.KEPT=yes", "--set", "components.mixer.enabled=false"]);
    let deployment = ["deployment", "istiod", "-n", "istio-system"];
    let label = "operator.istio.io/version=0.0.1";
    cluster.kubectl(&["label", "--overwrite", "deployment", "istiod", "-n", "istio-system", label]).unwrap();
    let text = good(&cluster, &["upgrade", "-y", "--no-wait", "--set", "values.pilot.env.MORE=too"]);
    assert!(text.contains("default: 0.0.1 → "), "{text}");
    let env = field(&cluster, &deployment, "{.spec.template.spec.containers[0].env}");
    assert!(env.contains("KEPT") && env.contains("MORE"), "{env}");
    assert!(!names(&cluster, "deployments").contains(&"mixer".to_owned()), "what was not wanted is still not");
    cluster
        .kubectl(&[
            "label",
            "--overwrite",
            "deployment",
            "istiod",
            "-n",
            "istio-system",
            "operator.istio.io/version=99.0.0",
        ])
        .unwrap();
    let (content, newer) = meshctl(&cluster, &["upgrade", "-y", "--no-wait"]);
    assert!(!content && newer.contains("99.0.0 is installed, which is newer"), "{newer}");
    good(&cluster, &["upgrade", "-y", "--no-wait", "--force"]);
}
