//! From one revision to the next under load: workloads by a tag, a gateway by a second Deployment behind its Service, and the
//! old revision taken away.

use super::load::Load;
use super::mesh::{CURRENT, PREVIOUS};
use super::space::Space;
use e2e::cluster::PATIENCE;
use std::time::Instant;

/// Where the gateways are; namespaces without labels leave the choice to the pod.
const DOOR: &str = "revisions-door";
/// A gateway of a revision; all of them stand behind one Service.
const GATEWAY: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: door-REVISION}
spec:
  selector: {matchLabels: {app: door-REVISION}}
  template:
    metadata:
      labels: {app: door-REVISION, istio: revisions-door, sidecar.istio.io/inject: 'true', istio.io/rev: REVISION}
      annotations: {inject.istio.io/templates: gateway}
    spec:
      containers: [{name: istio-proxy, image: auto, imagePullPolicy: IfNotPresent}]
";
const WAY_IN: &str = "
apiVersion: v1
kind: Service
metadata: {name: door}
spec: {selector: {istio: revisions-door}, ports: [{name: http, port: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door}
spec: {selector: {istio: revisions-door}, servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: door}
spec: {hosts: ['*'], gateways: [door], http: [{route: [{destination: {host: productpage.revisions.svc.cluster.local, port: {number: 9080}}}]}]}
";

/// Waits until all pods of a namespace are of one revision.
fn all_are_of(space: &Space, revision: &str) {
    let of = "jsonpath={.items[*].metadata.annotations.istio\\.io/rev}";
    let begun = Instant::now();
    loop {
        let revisions = space.kubectl(&["get", "pods", "-o", of]).unwrap();
        if revisions.split(' ').all(|one| one == revision) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{}: {revisions}, not {revision}", space.name);
    }
}

// spec: IN-33, IN-34
#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn no_call_fails_from_one_revision_to_the_next_and_when_the_old_one_goes() {
    let client = Space::with_client("revisions-client");
    let mesh = client.mesh;
    let of = |revision: &'static str| ["--set", "profile=minimal", "--revision", revision];
    mesh.install_with(PREVIOUS, &of("blue"));
    mesh.meshctl(CURRENT, &["tag", "set", "prod", "--revision", "blue"]);
    let shop = Space::labelled("revisions", "istio.io/rev: prod");
    shop.apply_bookshop();
    let door = Space::labelled(DOOR, "");
    door.apply(&format!("{WAY_IN}---{}", GATEWAY.replace("REVISION", "blue")));
    door.rolled_out();
    all_are_of(&shop, "blue");
    all_are_of(&door, "blue");

    let by_door = format!("http://door.{DOOR}:8080/api/v1/products/0");
    client.until(&by_door, &[], |status, _| status == 200);
    let inside = "http://productpage.revisions:9080/api/v1/products/0/reviews";
    client.until(inside, &[], |status, _| status == 200);
    let loads = [("inside", 100, inside), ("door", 50, by_door.as_str())]
        .map(|(id, rate, url)| Load::start(&client, id, rate, "", url));
    let begun = Instant::now();
    mesh.install_with(CURRENT, &of("green"));
    mesh.meshctl(CURRENT, &["tag", "set", "prod", "--revision", "green", "--overwrite"]);
    all_are_of(&shop, "blue");
    shop.kubectl(&["rollout", "restart", "deployments"]).unwrap();
    shop.rolled_out();
    all_are_of(&shop, "green");
    let pods = shop.kubectl(&["get", "pods", "-o", "yaml"]).unwrap();
    let pilot = r#"discoveryAddress":"istiod-green.istio-system.svc:15012"#;
    assert!(pods.contains(pilot), "proxies ask the pilot of their own revision");
    door.apply(&GATEWAY.replace("REVISION", "green"));
    door.rolled_out();
    door.kubectl(&["delete", "deployment", "door-blue"]).unwrap();
    all_are_of(&door, "green");
    let gone = mesh.meshctl(CURRENT, &["uninstall", "-y", "--revision", "blue"]);
    assert!(gone.contains("deleted Deployment istio-system/istiod-blue"), "{gone}");
    // What is left brings up pods as before.
    shop.kubectl(&["rollout", "restart", "deployment/productpage-v1", "deployment/details-v1"]).unwrap();
    door.kubectl(&["rollout", "restart", "deployment/door-green"]).unwrap();
    shop.rolled_out();
    door.rolled_out();
    let took = begun.elapsed();
    let [inside, by_door] = loads.map(Load::end);
    println!("inside: {inside}; by the gateway: {by_door}");
    // A machine that is busy calls less often than it is asked to.
    inside.all_good(took.as_secs() * 20);
    by_door.all_good(took.as_secs() * 10);
    shop.figure(&format!(
        "{} of {} calls inside and {} of {} by the gateway failed in {:.0} s",
        inside.failed,
        inside.calls,
        by_door.failed,
        by_door.calls,
        took.as_secs_f64()
    ));
    mesh.meshctl(CURRENT, &["tag", "remove", "prod", "-y"]);
    mesh.meshctl(CURRENT, &["uninstall", "-y", "--revision", "green"]);
    // The one authority forgets their names.
    mesh.install(CURRENT);
}
