//! Rolling restarts under load (pains.md 2, robustness F30).

use super::load::Load;
use super::space::Space;
use std::time::Instant;

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
