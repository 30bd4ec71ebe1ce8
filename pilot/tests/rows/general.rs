//! Spec 1.0, 2.2: rules that apply to every kind.

use crate::told::{BASE, REVIEWS, World, object, object_in, problems};

// spec: GEN-1
#[test]
fn all_versions_of_a_group_mean_the_same() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let rule = object("DestinationRule", "r", "host: reviews\ntrafficPolicy: {loadBalancer: {simple: RANDOM}}")
            .replace("networking.istio.io/v1", &format!("networking.istio.io/{version}"));
        assert_eq!(World::new(&rule).client().cluster(REVIEWS)["lb_policy"], "RANDOM", "{version}");
    }
}

// spec: GEN-4, PI-87
#[test]
fn services_are_exported_by_annotation_and_by_the_meshs_default() {
    let service = |annotation: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: hidden, namespace: other{annotation}}}\nspec: {{clusterIP: 10.96.5.5, ports: [{{name: http, port: 80}}]}}\n"
        )
    };
    let sees = |world: World| world.client().has_cluster("outbound|80||hidden.other.svc.cluster.local");
    assert!(sees(World::new(&service(""))));
    assert!(!sees(World::new(&service(", annotations: {networking.istio.io/exportTo: '.'}"))));
    assert!(sees(World::new(&service(", annotations: {networking.istio.io/exportTo: '., default'}"))));
    assert!(!sees(World::with_mesh("defaultServiceExportTo: ['.']\n", &service(""))));
}

// spec: GEN-5
#[test]
fn the_root_namespace_holds_defaults_for_all() {
    let rule = |ns: &str| {
        object_in(ns, "DestinationRule", "r", "host: '*.local'\ntrafficPolicy: {loadBalancer: {simple: RANDOM}}")
    };
    assert_eq!(World::new(&rule("istio-system")).client().cluster(REVIEWS)["lb_policy"], "RANDOM");
    assert_eq!(
        World::with_mesh("rootNamespace: root\n", &rule("root")).client().cluster(REVIEWS)["lb_policy"],
        "RANDOM"
    );
    assert_eq!(
        World::with_mesh("rootNamespace: root\n", &rule("istio-system")).client().cluster(REVIEWS)["lb_policy"],
        "LEAST_REQUEST"
    );
}

// spec: GEN-10
#[test]
fn kinds_and_fields_that_come_later_are_refused_and_never_ignored() {
    for (kind, group) in
        [("EnvoyFilter", "networking.istio.io/v1alpha3"), ("WasmPlugin", "extensions.istio.io/v1alpha1")]
    {
        let found = problems(&format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x}}\n"));
        assert_eq!(found[0].message, format!("not supported yet: kind {kind}"));
    }
    let found = problems(&object(
        "VirtualService",
        "v",
        "hosts: [a]\nhttp: [{fault: {abort: {http2Error: x}}, route: [{destination: {host: a}}]}]",
    ));
    assert_eq!(found[0].message, "not supported yet: spec.http[0].fault.abort.http2Error");
}

/// Where our defaults differ from Istio's: this list, and docs/src/reference/deviations.md, are complete.
#[test]
fn our_defaults_differ_from_istios_in_these_fields_alone() {
    use pilot::model::MeshConfig;
    let world = |istio_defaults: bool| World::of(MeshConfig { istio_defaults, ..MeshConfig::default() }, BASE);
    let (istio, ours) = (world(true).server(), world(false).server());
    let mut differing = Vec::new();
    for kind in pilot::translate::cache::ResourceType::ALL {
        for name in istio.snapshot.of(kind).differences(ours.snapshot.of(kind)) {
            let (mut theirs, own) = (istio.listener(&name), ours.listener(&name));
            assert_eq!(
                (&theirs["listener_filters_timeout"], &own["listener_filters_timeout"]),
                (&"0s".into(), &"0.100s".into())
            );
            theirs["listener_filters_timeout"] = own["listener_filters_timeout"].clone();
            assert_eq!(theirs, own, "nothing else differs");
            differing.push(name.to_string());
        }
    }
    assert!(
        differing.contains(&"virtualInbound".to_owned()) && differing.contains(&"10.96.0.4_8000".to_owned()),
        "{differing:?}"
    );
    assert!(!differing.contains(&"10.96.0.3_3306".to_owned()), "nothing is found out there");
    assert!(!differing.contains(&"0.0.0.0_9080".to_owned()), "where HTTP is declared the client speaks first");
    assert_eq!(ours.listener("0.0.0.0_9080")["listener_filters_timeout"], "0s");
}

// spec: PI-19
#[test]
fn labels_are_the_pods_and_not_the_proxys() {
    let rule = object("Sidecar", "s", "workloadSelector: {labels: {app: client}}\negress: [{hosts: ['~/*']}]");
    assert!(!World::new(&rule).client().has_cluster(REVIEWS), "the pod at the proxy's address has the label");
    let entry = object("WorkloadEntry", "w", "address: 10.0.0.9\nlabels: {app: other}");
    assert!(!World::new(&format!("{rule}{entry}")).client().has_cluster(REVIEWS), "a pod comes before an entry");
}

// spec: PI-86
#[test]
fn of_one_host_in_two_namespaces_the_own_one_is_used() {
    let entry = |ns: &str, port: u16| {
        object_in(
            ns,
            "ServiceEntry",
            "e",
            &format!("hosts: [a.com]\nresolution: DNS\nports: [{{number: {port}, name: http, protocol: HTTP}}]"),
        )
    };
    let told = World::new(&(entry("aaa", 81) + &entry("default", 82))).client();
    assert!(told.has_cluster("outbound|82||a.com") && !told.has_cluster("outbound|81||a.com"));
    let squat = |ns: &str, created: &str, port: u16| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: far-{ns}, namespace: {ns}, creationTimestamp: '{created}'}}\nspec: {{hosts: [far.other.svc.cluster.local], resolution: DNS, ports: [{{number: {port}, name: http, protocol: HTTP}}]}}\n"
        )
    };
    let has = |told: &crate::told::Told, port: u16| {
        told.has_cluster(&format!("outbound|{port}||far.other.svc.cluster.local"))
    };
    let told = World::new(&squat("default", "2030-01-01T00:00:00Z", 83)).client();
    assert!(has(&told, 83) && !has(&told, 8080), "the own namespace's before Kubernetes");
    let told = World::new(&squat("aaa", "1999-01-01T00:00:00Z", 84)).client();
    assert!(has(&told, 8080) && !has(&told, 84), "Kubernetes before a ServiceEntry of elsewhere");
    let told = World::new(
        &(squat("aaa", "2030-01-01T00:00:00Z", 85) + &squat("zzz", "1999-01-01T00:00:00Z", 86))
            .replace("far.other.svc.cluster.local", "x.com"),
    )
    .client();
    let two = "---\napiVersion: v1\nkind: Service\nmetadata: {name: two, namespace: other, creationTimestamp: '2020-01-01T00:00:00Z'}\nspec: {clusterIP: 10.96.8.2, ports: [{name: http, port: 88}]}\n";
    let older = squat("aaa", "1999-01-01T00:00:00Z", 87).replace("far.other", "two.other");
    let with_older = World::new(&format!("{older}{two}")).client();
    assert!(with_older.has_cluster("outbound|88||two.other.svc.cluster.local"), "however old the entry is");
    assert!(!with_older.has_cluster("outbound|87||two.other.svc.cluster.local"));
    assert!(told.has_cluster("outbound|86||x.com") && !told.has_cluster("outbound|85||x.com"), "then the oldest");
}

// spec: PI-37, PI-38
#[test]
fn gateways_have_all_clusters_and_no_inbound_ones() {
    let told = World::new("").gateway();
    assert!(
        told.has_cluster(REVIEWS) && !told.has_cluster("inbound|8080||") && !told.has_cluster("PassthroughCluster")
    );
}
