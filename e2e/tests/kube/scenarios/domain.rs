//! A mesh that moves from one trust domain to another, without a policy being changed (Istio's task "Trust Domain Migration";
//! CA-7).

use super::load::Load;
use super::mesh::CURRENT;
use super::space::Space;
use std::time::Instant;

/// The domain that the mesh moves to.
const NEW: &str = "new.example";
/// Mutual TLS alone, and a server that its client alone may ask: by an identity of the old domain.
const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ratings}
spec:
  selector: {matchLabels: {app: ratings}}
  rules: [{from: [{source: {principals: [old.example/ns/domain/sa/client]}}]}]
";

/// Installs with a trust domain and an alias of it.
fn install(space: &Space, own: &str, alias: &str) {
    let sets = [format!("meshConfig.trustDomain={own}"), format!("meshConfig.trustDomainAliases={{{alias}}}")];
    space.mesh.install_with(CURRENT, &["--set", "profile=demo", "--set", &sets[0], "--set", &sets[1]]);
}

/// Restarts a workload.
fn restart(space: &Space, name: &str) {
    space.kubectl(&["rollout", "restart", &format!("deployment/{name}")]).unwrap();
    space.rolled_out();
}

/// The identity of a workload, by its certificate.
fn identity(space: &Space, app: &str) -> String {
    let pod = format!("{}.{}", space.mesh.pod(&space.name, &format!("app={app}")), space.name);
    let shown = space.mesh.meshctl(CURRENT, &["identity", &pod, "-o", "json"]);
    let found = shown.split("spiffe://").nth(1).and_then(|rest| rest.split('"').next());
    found.unwrap_or_else(|| panic!("no identity in {shown}")).to_owned()
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn a_mesh_moves_to_another_trust_domain_under_load() {
    let space = Space::with_bookshop("domain");
    install(&space, "old.example", "cluster.local");
    for name in ["ratings-v1", "client"] {
        restart(&space, name);
    }
    space.apply(POLICIES);
    let url = "http://ratings:9080/ratings/0";
    space.until(url, &[], |status, _| status == 200);
    assert_eq!(identity(&space, "client"), "old.example/ns/domain/sa/client");
    let load = Load::start(&space, "ratings", 100, "", url);
    let begun = Instant::now();
    install(&space, NEW, "old.example");
    // A server of the new domain and a client of the old one.
    restart(&space, "ratings-v1");
    assert_eq!(identity(&space, "ratings"), format!("{NEW}/ns/domain/sa/bookshop-ratings"));
    assert_eq!(identity(&space, "client"), "old.example/ns/domain/sa/client");
    let outcome = load.end();
    outcome.all_good(begun.elapsed().as_secs() * 60);
    restart(&space, "client");
    assert_eq!(identity(&space, "client"), format!("{NEW}/ns/domain/sa/client"), "and both of the new one");
    assert_eq!(space.get(url, &[]).0, 200);
    assert_eq!(space.shares("http://reviews:9080/reviews/0", 9, ["\"stars\""]), [0], "nobody else may ask");
    let took = begun.elapsed().as_secs_f64();
    space.mesh.install(CURRENT);
    space.figure(&format!("from one trust domain to another in {took:.0} s, the policy as it was: {outcome}"));
}
