//! Rolling restarts under load (pains.md 2, robustness F30), of workloads and of the gateway.

use super::door::status;
use super::load::Load;
use super::space::Space;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often everything is restarted.
const ROUNDS: u32 = 10;

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn no_call_fails_while_every_deployment_is_restarted() {
    let space = Space::with_bookshop("restart");
    // 300 requests a second, so that every call between two services is seen by its status.
    let loads = [
        ("reviews", "http://productpage:9080/api/v1/products/0/reviews"),
        ("details", "http://productpage:9080/api/v1/products/0"),
        ("ratings", "http://ratings:9080/ratings/0"),
    ]
    .map(|(id, url)| Load::start(&space, id, 100, "", url));
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let shops = "app in (productpage, details, reviews, ratings)";
        space.kubectl(&["rollout", "restart", "deployments", "-l", shops]).unwrap();
        space.rolled_out();
    }
    let took = begun.elapsed();
    let outcomes = loads.map(Load::end);
    outcomes.iter().for_each(|outcome| println!("{outcome}"));
    for outcome in &outcomes {
        outcome.all_good(took.as_secs() * 60);
    }
    let (failed, calls) = outcomes.iter().fold((0, 0), |sum, one| (sum.0 + one.failed, sum.1 + one.calls));
    let seconds = took.as_secs_f64() / f64::from(ROUNDS);
    space.figure(&format!(
        "{failed} of {calls} calls failed at {:.0} per second, in {ROUNDS} restarts of 6 deployments, {seconds:.1} s each",
        calls as f64 / took.as_secs_f64()
    ));
}

/// How often the gateway is restarted.
const GATEWAYS: u32 = 4;

// spec: HL-5
#[test]
#[ignore = "needs a cluster: make e2e-kube"]
#[expect(
    clippy::disallowed_methods,
    reason = "callers come all the time, and one gateway has gone when the next is restarted"
)]
fn a_gateway_that_is_restarted_refuses_nobody() {
    let space = Space::with_bookshop("door");
    space.apply(
        "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [door.example]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: door}
spec: {hosts: [door.example], gateways: [door], http: [{route: [{destination: {host: ratings, port: {number: 9080}}}]}]}
",
    );
    let gateway = space.mesh.gateway(80);
    let begun = Instant::now();
    while status(gateway, "door.example") != 200 {
        assert!(begun.elapsed() < e2e::cluster::PATIENCE, "no answer");
    }
    let over = AtomicBool::new(false);
    // Each call has a connection of its own, as those of many people have.
    let calls = || {
        let mut all = Vec::new();
        while !over.load(Ordering::Relaxed) {
            all.push(status(gateway, "door.example"));
            std::thread::sleep(Duration::from_millis(5));
        }
        all
    };
    let (all, slowest) = std::thread::scope(|scope| {
        let calls = scope.spawn(calls);
        let mut slowest = Duration::ZERO;
        for _ in 0..GATEWAYS {
            let begun = Instant::now();
            let of = ["deployment/istio-ingressgateway", "-n", "istio-system"];
            space.mesh.cluster.kubectl(&[&["rollout", "restart"], &of[..]].concat()).unwrap();
            space.mesh.cluster.kubectl(&[&["rollout", "status", "--timeout=60s"], &of[..]].concat()).unwrap();
            slowest = slowest.max(begun.elapsed());
            std::thread::sleep(Duration::from_secs(7));
        }
        over.store(true, Ordering::Relaxed);
        (calls.join().unwrap(), slowest)
    });
    let failed: Vec<u16> = all.iter().copied().filter(|status| *status != 200).collect();
    assert!(failed.is_empty(), "{} of {} calls failed: {failed:?}", failed.len(), all.len());
    // Readiness is looked at every 15 s; nobody waits for the second look.
    assert!(slowest < Duration::from_secs(10), "a rollout took {slowest:?}");
    space.figure(&format!(
        "0 of {} connections failed in {GATEWAYS} restarts of the gateway, {:.1} s at most each",
        all.len(),
        slowest.as_secs_f64()
    ));
}
