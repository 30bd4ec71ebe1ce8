use super::inject;
use super::review::{Answer, Review};
use super::validate;
use crate::inject::{Config, MeshSettings, Settings, Values};
use crate::model::MeshConfig;
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn settings() -> Settings {
    let (config, values, mesh) = (Config::built_in(), Values::default(), MeshSettings::default());
    Settings { config, values, mesh, revision: String::new(), native_sidecars: true }
}

fn review(kind: (&str, &str, &str), operation: &str, object: &Value) -> Review {
    let (group, version, kind) = kind;
    serde_json::from_value(json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u1", "kind": {"group": group, "version": version, "kind": kind}, "namespace": "ns",
            "resource": {"group": group, "version": version, "resource": "x"}, "operation": operation, "object": object,
            "oldObject": null, "dryRun": false, "userInfo": {"username": "somebody"},
        },
    }))
    .unwrap()
}

fn injected(pod: &Value, path: &str) -> (Review, Answer) {
    let review = review(("", "v1", "Pod"), "CREATE", pod);
    let answer = inject::answer(review.request.as_ref().unwrap(), &settings(), &BTreeMap::new(), path);
    (review, answer)
}

// spec: PC-2, PI-32
#[test]
fn a_pod_that_no_proxy_would_serve_is_refused() {
    let pod = |mode: &str| {
        json!({"metadata": {"name": "a", "annotations": {"sidecar.istio.io/interceptionMode": mode}},
            "spec": {"containers": [{"name": "app", "image": "a"}]}})
    };
    let (_, answer) = injected(&pod("TPROXY"), "/inject");
    let Answer::Refused(why) = answer else { panic!("{answer:?}") };
    assert!(why.contains("sidecar.istio.io/interceptionMode") && why.contains("use REDIRECT"), "{why}");
    assert!(matches!(injected(&pod("REDIRECT"), "/inject").1, Answer::Patched(_)));
}

// spec: PI-54, PI-57, PI-58
#[test]
fn a_pod_is_answered_with_a_patch() {
    let pod = json!({
        "metadata": {"generateName": "shop-7b-", "labels": {"pod-template-hash": "7b"}, "managedFields": [{"manager": "m"}],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-7b", "controller": true}]},
        "spec": {"containers": [{"name": "app", "image": "a"}]},
    });
    let (review, answer) = injected(&pod, "/inject/cluster/c1/net/n1");
    let wire = review.answered(&answer);
    assert_eq!((&wire["kind"], &wire["apiVersion"]), (&json!("AdmissionReview"), &json!("admission.k8s.io/v1")));
    let response = &wire["response"];
    assert_eq!(
        (&response["uid"], &response["allowed"], &response["patchType"]),
        (&json!("u1"), &json!(true), &json!("JSONPatch"))
    );
    let patch = base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    let proxy = &patched["spec"]["initContainers"][1];
    assert_eq!(proxy["name"], "istio-proxy");
    let env =
        |name: &str| proxy["env"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()["value"].clone();
    assert_eq!((env("ISTIO_META_CLUSTER_ID"), env("ISTIO_META_NETWORK")), (json!("c1"), json!("n1")));
    assert_eq!(env("ISTIO_META_OWNER"), "kubernetes://apis/apps/v1/namespaces/ns/deployments/shop");
    assert_eq!(patched["metadata"]["managedFields"], pod["metadata"]["managedFields"], "what is not ours stays");
}

// spec: PI-56
#[test]
fn a_pod_without_a_proxy_is_allowed_as_it_is_and_a_broken_one_is_refused_in_words() {
    let host = json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": true, "containers": []}});
    let (review, answer) = injected(&host, "/inject");
    assert_eq!(answer, Answer::Allowed);
    assert_eq!(review.answered(&answer)["response"], json!({"uid": "u1", "allowed": true}));
    let broken = json!({
        "metadata": {"name": "p", "annotations": {"inject.istio.io/templates": "nosuch"}},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    });
    let (review, answer) = injected(&broken, "/inject");
    let response = &review.answered(&answer)["response"];
    let why =
        "no sidecar: annotation inject.istio.io/templates: there is no template \"nosuch\"; there are gateway, sidecar";
    assert_eq!((&response["allowed"], &response["status"]["message"]), (&json!(false), &json!(why)));
}

fn validated(kind: &str, operation: &str, spec: &Value) -> Answer {
    validated_in("v1", kind, operation, spec)
}

fn validated_in(version: &str, kind: &str, operation: &str, spec: &Value) -> Answer {
    let object = json!({
        "apiVersion": format!("networking.istio.io/{version}"), "kind": kind,
        "metadata": {"name": "o", "namespace": "ns", "managedFields": [{"manager": "m"}], "uid": "x"}, "spec": spec,
        "status": {"conditions": [{"type": "Accepted"}]},
    });
    let review = review(("networking.istio.io", version, kind), operation, &object);
    validate::answer(review.request.as_ref().unwrap(), &MeshConfig::default())
}

// spec: PI-48, PI-49
#[test]
fn an_object_is_refused_with_its_fields() {
    let good = json!({"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}]}]});
    assert_eq!(validated("VirtualService", "CREATE", &good), Answer::Allowed);
    let refused = |answer: Answer| match answer {
        Answer::Refused(why) => why,
        other => panic!("{other:?}"),
    };
    let unknown = json!({"hosts": ["a"], "http": [{"retires": {}}]});
    assert!(refused(validated("VirtualService", "UPDATE", &unknown)).starts_with("spec.http[0].retires: "));
    let regex = json!({"hosts": ["a"], "http": [{
        "match": [{"uri": {"regex": "("}}], "route": [{"destination": {"host": "a"}}],
    }]});
    let why = refused(validated("VirtualService", "CREATE", &regex));
    assert!(why.starts_with("spec.http[0].match[0].uri.regex: "), "{why}");
    let empty = json!({"selector": {"probe": "never"}, "servers": []});
    let why = refused(validated("Gateway", "CREATE", &empty));
    assert!(why.contains("spec.servers"), "what the probe of the webhook sends is refused: {why}");
    assert!(refused(validated_in("v1alpha3", "EnvoyFilter", "CREATE", &json!({}))).contains("EnvoyFilter"));
    assert_eq!(validated("VirtualService", "DELETE", &unknown), Answer::Allowed);
}

// spec: AZ-17, PI-48
#[test]
fn what_is_valid_and_will_surprise_is_stored_with_a_warning() {
    let name = "n".repeat(400);
    let rules = json!([
        {"route": [{"destination": {"host": "a"}}]},
        {"name": name, "match": [{"uri": {"exact": "/a"}}], "route": [{"destination": {"host": "a"}}]},
    ]);
    let object = json!({"metadata": {"name": "o"}, "spec": {"hosts": ["a"], "http": rules}});
    let review = review(("networking.istio.io", "v1", "VirtualService"), "CREATE", &object);
    let answer = validate::answer(review.request.as_ref().unwrap(), &MeshConfig::default());
    let response = &review.answered(&answer)["response"];
    assert_eq!(response["allowed"], true);
    let warnings = response["warnings"].as_array().unwrap();
    let text = warnings[0].as_str().unwrap();
    assert!(text.starts_with("VirtualService rule \"nnn") && text.ends_with('…'), "{text}");
    assert_eq!((warnings.len(), text.chars().count()), (1, 256), "Kubernetes shows no more");
    let many = Answer::Warned((0..100).map(|i| i.to_string()).collect());
    assert_eq!(review.answered(&many)["response"]["warnings"].as_array().unwrap().len(), 16);
}
