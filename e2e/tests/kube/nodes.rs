//! Clusters by kind, with real pods on two nodes.

use crate::support;
use e2e::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn a_cluster_of_two_nodes_does_what_a_mesh_needs_and_pilot_sees_its_pods() {
    let cluster = Cluster::start("nodes", 2).unwrap();
    let pilot = support::pilot_of(&cluster, &[]).await;
    support::ready(&pilot).await;
    let lines = cluster.check().unwrap();
    println!("{lines}");
    // What the checks have made runs on: a Service with two pods.
    let pods =
        cluster.kubectl(&["get", "pods", "-n", "check", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}"]);
    let pods: Vec<String> = pods.unwrap().split(' ').map(str::to_owned).collect();
    assert_eq!(pods.len(), 2, "{pods:?}");
    let world = pilot.hub.ask(pilot::delivery::Command::World).await.unwrap();
    for address in &pods {
        let workload = pilot::registry::pod::at(&world.mesh.workloads, address, "check", "web");
        let workload = workload.expect("pilot knows the pod");
        assert_eq!(workload.service_account.as_str(), "default");
        assert!(!world.mesh.instances[address].is_empty(), "and which Service it serves");
    }
}
