//! The two arms of pilot, a directory and a cluster, say the same (design 6).

use crate::support::{self, demo_yaml, node};
use e2e::cluster::{Bare, Cluster};
use meshctl::demo::plan::Proxy;
use serde_json::json;

// spec: PI-7, PI-8, PI-14, PI-15, PI-16, PI-19
#[tokio::test]
#[ignore = "needs a cluster: make e2e-kube"]
async fn a_directory_and_a_cluster_give_the_same_resources_byte_for_byte() {
    let cluster = Cluster::bare("arms", Bare::Api).unwrap();
    let plan = support::plan();
    support::apply_definitions(&cluster);
    support::apply_with_status(&cluster, &plan.objects());
    let rules = ["gateway.yaml", "mesh.yaml", "reviews.yaml"].map(demo_yaml).join("---\n");
    cluster.apply(&rules).unwrap();
    let mesh = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": demo_yaml("mesh-config.yaml")},
    });
    cluster.apply(&mesh.to_string()).unwrap();

    // A cluster has a Service of its own beside them.
    let own = cluster.kubectl(&["get", "service,endpointslice", "kubernetes", "-o", "json"]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("objects.json", &plan.objects().to_string());
    write("rules.yaml", &rules);
    write("own.json", &own);
    let settings = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(settings.path(), demo_yaml("mesh-config.yaml")).unwrap();

    let by_cluster = support::pilot_of(&cluster, &[]).await;
    let path = settings.path().to_str().unwrap();
    let by_directory = support::pilot_of_directory(directory.path(), &["--mesh-config", path]).await;
    for pilot in [&by_cluster, &by_directory] {
        support::ready(pilot).await;
        let problems = support::status(pilot).await.problems;
        assert!(problems.is_empty(), "{problems:?}");
    }
    let mut compared = 0;
    for workload in plan.workloads.iter().filter(|workload| workload.proxy != Proxy::None) {
        let of_cluster = support::connect(&by_cluster, node(workload)).await.snapshots.borrow().clone();
        let of_directory = support::connect(&by_directory, node(workload)).await.snapshots.borrow().clone();
        let (left, right) = (support::resources(&of_cluster), support::resources(&of_directory));
        let names = |all: &[(String, String, Vec<u8>)]| {
            all.iter().map(|(kind, name, _)| format!("{kind} {name}")).collect::<Vec<_>>()
        };
        assert_eq!(names(&left), names(&right), "{}", workload.name);
        for (left, right) in left.iter().zip(&right) {
            assert!(left.2 == right.2, "{}: {} {} differs", workload.name, left.0, left.1);
        }
        compared += left.len();
    }
    assert!(compared > 200, "{compared}");
    println!("{compared} resources are the same, byte for byte");
}
