use super::*;
use serde_json::json;

fn spec(sets: &[&str]) -> Spec {
    Spec::new(&[], &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn istio(name: &str, spec: Value) -> Neighbour {
    of_third(&object(
        json!({"apiVersion": "sailoperator.io/v1", "kind": "Istio", "metadata": {"name": name}, "spec": spec}),
    ))
}

fn hints(platform: &Platform, sets: &[&str]) -> Vec<String> {
    platform.conflicts(&spec(sets)).into_iter().map(|found| found.hint).collect()
}

// spec: IN-24
#[test]
fn openshift_wants_its_profile() {
    let platform = Platform { openshift: Some("4.19.3".into()), ..Platform::default() };
    let refused = platform.conflicts(&spec(&[]));
    assert!(refused[0].to_string().starts_with("this is OpenShift 4.19.3"), "{refused:?}");
    assert!(refused[0].hint.contains("--set profile=openshift"));
    for good in [
        &["profile=openshift"][..],
        &["values.global.platform=openshift"],
        &["profile=empty", "components.base.enabled=true"],
    ] {
        assert_eq!(hints(&platform, good), Vec::<String>::new(), "{good:?}");
    }
    assert_eq!(hints(&Platform::default(), &[]), Vec::<String>::new());
}

// spec: IN-24
#[test]
fn a_second_mesh_is_refused_until_both_have_namespaces_of_their_own() {
    let smcp = json!({"apiVersion": "maistra.io/v2", "kind": "ServiceMeshControlPlane", "metadata": {"name": "basic", "namespace": "istio-system"}});
    let second = Platform { neighbours: vec![of_second(&object(smcp))], ..Platform::default() };
    let refused = second.conflicts(&spec(&[]));
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(
        refused[0].what.starts_with(
            "ServiceMeshControlPlane istio-system/basic (OpenShift Service Mesh 2) has its control plane in"
        )
    );
    assert!(
        refused[0].hint.contains("--set namespace=NAME") && refused[1].hint.contains("discoverySelectors"),
        "{refused:?}"
    );
    let apart = ["namespace=ferromesh", "meshConfig.discoverySelectors[0].matchLabels.mesh=ferromesh"];
    assert_eq!(hints(&second, &apart), Vec::<String>::new());

    let third = Platform { neighbours: vec![istio("default", json!({"namespace": "ossm"}))], ..Platform::default() };
    assert_eq!(hints(&third, &[]).len(), 2);
    assert!(hints(&third, &apart)[0].contains("--set revision=NAME"), "both would inject");
    assert_eq!(hints(&third, &[apart[1], "revision=fm"]), Vec::<String>::new());
    assert_eq!(hints(&third, &["profile=empty", "components.base.enabled=true"]), Vec::<String>::new());
    let named = ["values.global.trustBundleName=ferromesh-ca-root-cert", "revision=fm"];
    assert_eq!(hints(&third, &named), Vec::<String>::new(), "roots of two names do not meet");
}

// spec: IN-24
#[test]
fn the_ingress_operators_own_control_plane_is_no_rival() {
    let own = json!({"namespace": "openshift-ingress", "values": {"global": {"trustBundleName": "openshift-gw-ca-root-cert"}}});
    let platform = Platform { neighbours: vec![istio("openshift-gateway", own)], ..Platform::default() };
    assert_eq!(hints(&platform, &[]), Vec::<String>::new());
}

// spec: IN-24
#[test]
fn two_service_meshes_of_openshift_are_warned_of() {
    let warned = |operators: &[Product], classes: &[&str]| {
        let gateway_classes = classes.iter().map(|name| (*name).to_owned()).collect();
        let platform = Platform { operators: operators.to_vec(), gateway_classes, ..Platform::default() };
        platform.warnings().into_iter().map(|found| found.what).collect::<Vec<_>>()
    };
    assert_eq!(warned(&[], &["openshift-default"]), Vec::<String>::new());
    assert!(warned(&[Product::Two], &["openshift-default"])[0].contains("GatewayClass openshift-default"));
    assert!(warned(&[Product::Two, Product::Three], &[])[0].contains("4.19 fails silently"));
    assert_eq!(
        warned(&[Product::Three], &[]),
        ["the operator of OpenShift Service Mesh 3 is here, without a control plane"]
    );
}

// spec: IN-24
#[test]
fn the_version_is_the_one_that_was_reached() {
    let history = json!([{"state": "Partial", "version": "4.20.1"}, {"state": "Completed", "version": "4.19.3"}]);
    let status = json!({"desired": {"version": "4.20.1"}, "history": history});
    let one = |status: Value| version(&object(json!({"metadata": {"name": "version"}, "status": status})));
    assert_eq!(
        (one(status), one(json!({"desired": {"version": "4.20.1"}}))),
        ("4.19.3".to_owned(), "4.20.1".to_owned())
    );
}

// spec: IN-24
#[test]
fn what_an_operator_keeps_is_known() {
    let keeper = |metadata: Value| keeper(&object(json!({"metadata": metadata})));
    let owner = json!([{"apiVersion": "sailoperator.io/v1", "kind": "IstioRevision", "name": "default", "uid": "1"}]);
    assert_eq!(keeper(json!({"name": "a", "ownerReferences": owner})).unwrap(), "IstioRevision default");
    assert_eq!(keeper(json!({"name": "a", "labels": {"olm.managed": "true"}})).unwrap(), "Operator Lifecycle Manager");
    assert_eq!(
        keeper(json!({"name": "a", "labels": {"maistra.io/owner": "ossm"}})).unwrap(),
        "OpenShift Service Mesh 2 of ossm"
    );
    assert_eq!(
        keeper(json!({"name": "a", "labels": {"managed-by": "sail-operator"}})).unwrap(),
        Product::Three.to_string()
    );
    assert_eq!(keeper(json!({"name": "a", "labels": {"app": "istiod"}})), None);
}

// spec: IN-24
#[test]
fn routes_are_for_clusters_that_serve_them() {
    let of = |routes: bool| {
        let platform = Platform { routes, ..Platform::default() };
        ["Route", "Service"].map(|kind| is_foreign(&platform, &json!({"kind": kind})))
    };
    assert_eq!((of(false), of(true)), ([true, false], [false, false]));
}
