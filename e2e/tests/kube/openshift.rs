//! The installer on OpenShift, as far as an API server can be it: with the definitions that OpenShift, Multus and the operators
//! of OpenShift Service Mesh bring, and the objects by which they are known.

use crate::install::{install, meshctl};
use e2e::cluster::{Bare, Cluster};
use e2e::go_module;
use serde_json::{Value, json};

/// OpenShift's own kinds.
const OPENSHIFT: &str = "github.com/openshift/api@v0.0.0-20260501191448-a49973eaef53";
/// Of its module: Routes and ClusterVersion.
const OPENSHIFT_FILES: [&str; 2] = [
    "route/v1/zz_generated.crd-manifests/routes.crd.yaml",
    "config/v1/zz_generated.crd-manifests/0000_00_cluster-version-operator_01_clusterversions-Default.crd.yaml",
];
/// Gateway API, of which OpenShift's Ingress Operator keeps the definitions.
const GATEWAY_API: &str = "sigs.k8s.io/gateway-api@v1.2.1";
/// Where its definitions are.
const GATEWAY_FILES: &str = "config/crd/standard";
/// Which namespaces are this mesh's.
const SELECTORS: &str = "meshConfig.discoverySelectors[0].matchLabels.mesh=ferromesh";

/// A definition as an operator brings it, by names, scope and versions; its objects are open.
fn definition(group: &str, kind: &str, scope: &str, versions: &[&str]) -> Value {
    let singular = kind.to_lowercase();
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let of = |(index, name): (usize, &&str)| {
        json!({
            "name": name, "served": true, "storage": index == 0,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": open, "status": open}}},
        })
    };
    let plural = if kind == "NetworkAttachmentDefinition" {
        "network-attachment-definitions".to_owned()
    } else {
        format!("{singular}s")
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": scope,
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": if kind.starts_with("Net") { "network-attachment-definition" } else { &singular }},
            "versions": versions.iter().enumerate().map(of).collect::<Vec<_>>(),
        },
    })
}

/// Applies definitions, and waits until they are served.
fn define(cluster: &Cluster, texts: &[String], group: &str) {
    cluster.apply(&texts.join("\n---\n")).unwrap();
    cluster.eventually(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"], |_| true).unwrap();
    cluster.eventually(&["get", "--raw", "/apis"], |groups| groups.contains(group)).unwrap();
}

/// An API server that says that it is OpenShift 4.19.
fn openshift() -> Cluster {
    let cluster = Cluster::bare("openshift", Bare::Api).unwrap();
    let module = go_module::directory(OPENSHIFT).unwrap();
    let mut texts = OPENSHIFT_FILES.map(|file| std::fs::read_to_string(module.join(file)).unwrap()).to_vec();
    let files = std::fs::read_dir(go_module::directory(GATEWAY_API).unwrap().join(GATEWAY_FILES)).unwrap();
    let files = files.map(|file| file.unwrap().path()).filter(|path| !path.ends_with("kustomization.yaml"));
    texts.extend(files.map(|path| std::fs::read_to_string(path).unwrap()));
    texts.push(definition("k8s.cni.cncf.io", "NetworkAttachmentDefinition", "Namespaced", &["v1"]).to_string());
    define(&cluster, &texts, "route.openshift.io");
    let version = "apiVersion: config.openshift.io/v1\nkind: ClusterVersion\nmetadata: {name: version}\nspec: {clusterID: 5a8b7f7e-6f5d-4c8e-9d6a-3f1f6a1e0c11, channel: stable-4.19}\n";
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: openshift-default}\nspec: {controllerName: openshift.io/gateway-controller/v1}\n";
    cluster.apply(&format!("{version}---\n{class}")).unwrap();
    let release = json!({"version": "4.19.3", "image": "release"});
    let history = json!([{"state": "Completed", "version": "4.19.3", "image": "release", "verified": true, "startedTime": "2026-11-01T00:00:00Z", "completionTime": "2026-11-01T01:00:00Z"}]);
    let status = json!({"status": {"desired": release, "history": history, "observedGeneration": 1, "versionHash": "x", "availableUpdates": []}});
    let patch =
        ["patch", "clusterversion", "version", "--subresource=status", "--type=merge", "-p", &status.to_string()];
    cluster.kubectl(&patch).unwrap();
    cluster
}

/// Gateway API's definitions with their versions: who changes one changes this.
fn gateway_api(cluster: &Cluster) -> String {
    let columns = "custom-columns=N:.metadata.name,V:.metadata.resourceVersion,U:.metadata.uid";
    let all = cluster.kubectl(&["get", "crd", "--no-headers", "-o", columns]).unwrap();
    let own: Vec<&str> = all.lines().filter(|line| line.contains("gateway.networking.k8s.io")).collect();
    assert_eq!(own.len(), 5, "{all}");
    own.join("\n")
}

fn refused(cluster: &Cluster, arguments: &[&str], why: &[&str]) {
    let (content, text) = meshctl(cluster, arguments);
    assert!(!content, "meshctl {arguments:?}: {text}");
    for part in why {
        assert!(text.contains(part), "meshctl {arguments:?} lacks {part:?}: {text}");
    }
}

// spec: IN-24
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn openshift_is_known_its_routes_are_made_and_its_gateway_api_is_left_alone() {
    let cluster = openshift();
    let before = gateway_api(&cluster);
    let known = [
        "√ OpenShift 4.19.3: install with --set profile=openshift",
        "√ Gateway API is left to OpenShift's Ingress Operator (GatewayClass openshift-default)",
    ];
    let (_, text) = meshctl(&cluster, &["check", "--pre"]);
    assert!(known.iter().all(|line| text.contains(line)), "{text}");
    let why = ["this is OpenShift 4.19.3", "--set profile=openshift"];
    refused(&cluster, &["install", "-y", "--no-wait"], &why);
    refused(&cluster, &["verify-install"], &why);
    let spaces = cluster.kubectl(&["get", "namespaces", "-o", "name"]).unwrap();
    assert!(!spaces.contains("istio-system"), "nothing was begun: {spaces}");

    install(&cluster, &["--no-wait", "--set", "profile=openshift"]);
    let route = |name: &str, path: &str| {
        let path = format!("jsonpath={path}");
        cluster.kubectl(&["get", "route", name, "-n", "istio-system", "-o", &path]).unwrap()
    };
    let way = "{.spec.to.kind} {.spec.to.name} {.spec.port.targetPort} {.spec.tls.termination}";
    assert_eq!(route("istio-ingressgateway", way), "Service istio-ingressgateway http2 ");
    assert_eq!(route("istio-ingressgateway-https", way), "Service istio-ingressgateway https passthrough");
    let again = install(&cluster, &["--no-wait", "--set", "profile=openshift"]);
    assert_eq!(again.matches("(unchanged").count(), 6, "{again}");
    let verified = meshctl(&cluster, &["verify-install", "--set", "profile=openshift"]).1;
    assert!(verified.contains("✔ Route istio-system/istio-ingressgateway-https"), "{verified}");
    let less = install(
        &cluster,
        &["--no-wait", "--set", "profile=openshift", "--set", "components.ingressGateways[0].routes.enabled=false"],
    );
    assert!(less.contains("Route istio-system/istio-ingressgateway-https is wanted no longer: deleted"), "{less}");
    let (content, text) = meshctl(&cluster, &["uninstall", "-y", "--purge"]);
    assert!(content, "{text}");
    assert_eq!(gateway_api(&cluster), before, "neither changed nor deleted");
    // An API server takes its time where its machine is busy.
    let all = cluster.kubectl(&["get", "crd", "-o", "name"]).unwrap();
    for going in all.lines().filter(|name| name.contains("istio.io")) {
        cluster.kubectl(&["wait", "--for=delete", going, "--timeout=300s"]).unwrap();
    }

    other_meshes_are_refused(&cluster);
    assert_eq!(gateway_api(&cluster), before, "neither changed nor deleted");
}

/// OpenShift Service Mesh 2 and 3, and what OLM keeps.
fn other_meshes_are_refused(cluster: &Cluster) {
    let ours = ["install", "-y", "--no-wait", "--set", "profile=openshift", "--set", "namespace=ferromesh"];
    let with = |more: &[&'static str]| [&ours[..], more].concat();
    define(
        cluster,
        &[definition("maistra.io", "ServiceMeshControlPlane", "Namespaced", &["v2", "v1"]).to_string()],
        "maistra.io",
    );
    let (_, text) = meshctl(cluster, &["check", "--pre"]);
    assert!(text.contains("the GatewayClass openshift-default has OpenShift's Ingress Operator install"), "{text}");
    let smcp = "apiVersion: maistra.io/v2\nkind: ServiceMeshControlPlane\nmetadata: {name: basic, namespace: ferromesh}\nspec: {version: v2.6}\n";
    cluster.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: ferromesh}}\n---\n{smcp}")).unwrap();
    let second = "ServiceMeshControlPlane ferromesh/basic (OpenShift Service Mesh 2)";
    let there =
        format!("{second} has its control plane in the namespace ferromesh; what to do: give this mesh another one");
    refused(cluster, &ours, &[&there, &format!("{second} writes istio-ca-root-cert"), "meshConfig.discoverySelectors"]);
    cluster.kubectl(&["delete", "servicemeshcontrolplane", "basic", "-n", "ferromesh"]).unwrap();

    // The real one takes the namespace istio-system where none is named.
    define(cluster, &[definition("sailoperator.io", "Istio", "Cluster", &["v1"]).to_string()], "sailoperator.io");
    cluster.apply("apiVersion: sailoperator.io/v1\nkind: Istio\nmetadata: {name: default}\nspec: {namespace: ossm, version: v1.26.0}\n").unwrap();
    let third = "Istio default (OpenShift Service Mesh 3)";
    refused(
        cluster,
        &with(&["--set", SELECTORS]),
        &[&format!("{third} answers the label istio-injection=enabled"), "--set revision=NAME"],
    );
    let (_, text) = meshctl(cluster, &["check", "--pre"]);
    assert!(text.contains("‼ no other mesh shares its namespaces") && text.contains(third), "{text}");

    // What its operator made under a name of ours is not taken over, and what OLM brought stays as it is.
    let owner = json!([{"apiVersion": "sailoperator.io/v1", "kind": "IstioRevision", "name": "fm", "uid": "7d1e1d52-0000-4000-8000-000000000000"}]);
    let hook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "istio-sidecar-injector-fm-ferromesh", "ownerReferences": owner}, "webhooks": []});
    let mut definitions = pilot::source::kube::crd::manifests()["items"].as_array().cloned().unwrap();
    definitions.retain(|one| one["metadata"]["name"] == "virtualservices.networking.istio.io");
    definitions[0]["metadata"]["labels"] = json!({"olm.managed": "true"});
    cluster.apply(&format!("{hook}\n---\n{}", definitions[0])).unwrap();
    let apart = with(&["--set", SELECTORS, "--set", "revision=fm"]);
    refused(
        cluster,
        &apart,
        &["MutatingWebhookConfiguration istio-sidecar-injector-fm-ferromesh belongs to IstioRevision fm"],
    );
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", "istio-sidecar-injector-fm-ferromesh"]).unwrap();
    let (content, text) = meshctl(cluster, &apart);
    assert!(
        content
            && text
                .contains("virtualservices.networking.istio.io is kept by Operator Lifecycle Manager: left as it is"),
        "{text}"
    );
    let labels = cluster
        .kubectl(&["get", "crd", "virtualservices.networking.istio.io", "-o", "jsonpath={.metadata.labels}"])
        .unwrap();
    assert_eq!(labels, "{\"olm.managed\":\"true\"}");
    let (content, text) = meshctl(cluster, &["uninstall", "-y", "--purge"]);
    assert!(content && cluster.kubectl(&["get", "crd", "virtualservices.networking.istio.io"]).is_ok(), "{text}");
}
