//! Parts of the control plane, and that of Kubernetes, are killed in turn under load (robustness F1, F3, F4, F26).

use super::load::Load;
use super::space::Space;
use e2e::cluster::PATIENCE;
use std::time::{Duration, Instant};

/// A program of the control plane: its process, its label.
const PARTS: [(&str, &str); 3] = [("pilot", "app=istiod"), ("citadel", "app=citadel"), ("mixer", "app=mixer")];

/// Waits until the part is whole again; how long that took.
fn whole(space: &Space, killed: Instant, deployment: &str) -> Duration {
    let rolled = ["rollout", "status", deployment, "-n", "istio-system", "--timeout=60s"];
    space.mesh.cluster.kubectl(&rolled).unwrap();
    killed.elapsed()
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
#[expect(clippy::disallowed_methods, reason = "time passes between two faults")]
fn no_call_fails_while_parts_are_killed_in_turn() {
    let space = Space::with_bookshop("outage");
    let cluster = &space.mesh.cluster;
    let url = "http://productpage:9080/api/v1/products/0/reviews";
    let load = Load::start(&space, "reviews", 100, "", url);
    let mut figures = Vec::new();
    for (program, label) in PARTS {
        let pod = space.mesh.pod("istio-system", label);
        let killed = Instant::now();
        space.mesh.kill(program, &pod);
        std::thread::sleep(Duration::from_millis(500));
        let deployment = format!("deployment/{}", label.trim_start_matches("app="));
        let back = whole(&space, killed, &deployment);
        figures.push(format!("{program} {:.1} s", back.as_secs_f64()));
    }
    // Whoever was killed does its work again: an edit arrives, and a new pod has a certificate.
    let fault = "{hosts: [ratings], http: [{fault: {abort: {percentage: {value: 100}, httpStatus: 418}}, route: [{destination: {host: ratings}}]}]}";
    space.apply(&format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: ratings}}\nspec: {fault}\n"
    ));
    space.until("http://ratings:9080/ratings/0", &[], |status, _| status == 418);
    space.kubectl(&["delete", "virtualservice", "ratings"]).unwrap();
    space.kubectl(&["rollout", "restart", "deployment/details-v1"]).unwrap();
    space.rolled_out();

    let node =
        ["get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o", "jsonpath={.items[0].metadata.name}"];
    let node = cluster.kubectl(&node).unwrap();
    let killed = Instant::now();
    space.mesh.kill("kube-apiserver", &node);
    while cluster.kubectl(&["get", "--raw", "/readyz"]).is_err() {
        assert!(killed.elapsed() < 4 * PATIENCE, "the API server stays away");
    }
    figures.push(format!("API server {:.1} s", killed.elapsed().as_secs_f64()));
    let back = Instant::now();
    space.kubectl(&["scale", "deployment/ratings-v1", "--replicas=2"]).unwrap();
    space.rolled_out();
    let pod = space.kubectl(&["get", "pods", "-l", "app=ratings", "-o", "jsonpath={.items[*].status.podIP}"]).unwrap();
    let known = || {
        let ask = ["exec", "deploy/client", "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "clusters"];
        let clusters = space.kubectl(&ask).unwrap();
        pod.split(' ').all(|address| clusters.contains(&format!("{address}:9080")))
    };
    space.get("http://ratings:9080/ratings/0", &[]);
    while !known() {
        assert!(back.elapsed() < PATIENCE, "the second pod is known to no proxy");
    }
    let outcome = load.end();
    outcome.all_good(1000);
    space.figure(&format!("killed and back after {}; {outcome}", figures.join(", ")));
}
