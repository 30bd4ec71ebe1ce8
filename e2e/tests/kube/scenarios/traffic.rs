//! The bookshop by kubectl: shares of versions, faults, mirrors, and the way in.

use super::load::Load;
use super::space::{Space, page};
use std::time::{Duration, Instant};

const SUBSETS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
---
";

const REVIEWS: &str = "http://reviews:9080/reviews/0";

fn reviews(http: &str) -> String {
    format!(
        "{SUBSETS}apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec: {{hosts: [reviews], http: {http}}}\n"
    )
}

fn to(subset: &str) -> String {
    format!("{{destination: {{host: reviews, subset: {subset}}}}}")
}

/// Shares are kept, and an edit is in force within a second or two.
#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn versions_get_the_shares_that_they_are_given() {
    let space = Space::with_bookshop("splits");
    let share = |weights: [u32; 3]| {
        let one = |(index, weight): (usize, &u32)| {
            format!("{{weight: {weight}, destination: {{host: reviews, subset: v{}}}}}", index + 1)
        };
        let routes: Vec<String> = weights.iter().enumerate().map(one).collect();
        reviews(&format!("[{{route: [{}]}}]", routes.join(", ")))
    };
    let texts = ["\"version\":\"v1\"", "\"version\":\"v2\"", "\"version\":\"v3\""];
    space.apply(&share([0, 0, 100]));
    let live = space.until(REVIEWS, &[], |_, text| text.contains("\"version\":\"v3\""));
    assert_eq!(space.shares(REVIEWS, 50, texts), [0, 0, 50]);
    space.apply(&share([70, 20, 10]));
    space.until(REVIEWS, &[], |_, text| text.contains("\"version\":\"v1\""));
    let found = space.shares(REVIEWS, 400, texts);
    // Five deviations of the binomial around 280, 80 and 40.
    let near = |count: usize, middle: usize, spread: usize| count.abs_diff(middle) <= spread;
    assert!(near(found[0], 280, 46) && near(found[1], 80, 40) && near(found[2], 40, 30), "{found:?}");
    assert_eq!(found.iter().sum::<usize>(), 400);
    space.figure(&format!(
        "of 400 calls with weights 70, 20, 10: {found:?}; an edit was seen {} ms after kubectl",
        live.as_millis()
    ));
}

/// One user is delayed, another gets an error, all others nothing of it.
#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn faults_hit_those_whom_they_are_meant_for() {
    let space = Space::with_bookshop("faults");
    let user = |name: &str, fault: &str| {
        format!("{{match: [{{headers: {{end-user: {{exact: {name}}}}}}}], fault: {fault}, route: [{}]}}", to("v1"))
    };
    let delay = user("slow", "{delay: {percentage: {value: 100}, fixedDelay: 2s}}");
    let abort = user("broken", "{abort: {percentage: {value: 100}, httpStatus: 418}}");
    space.apply(&reviews(&format!("[{delay}, {abort}, {{route: [{}]}}]", to("v1"))));
    space.until(REVIEWS, &["end-user: broken"], |status, _| status == 418);
    let begun = Instant::now();
    assert_eq!(space.get(REVIEWS, &["end-user: slow"]).0, 200);
    let slow = begun.elapsed();
    let begun = Instant::now();
    assert_eq!(space.get(REVIEWS, &["end-user: other"]).0, 200);
    let quick = begun.elapsed();
    assert!(slow > Duration::from_secs(2) && quick < Duration::from_secs(2), "{slow:?} {quick:?}");
    space.figure(&format!(
        "418 for one, {:.1} s for another, {:.1} s for others",
        slow.as_secs_f64(),
        quick.as_secs_f64()
    ));
}

/// Every call arrives at the mirror once, and nothing of the mirror at the caller.
#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn a_mirror_sees_every_call_and_answers_none() {
    let space = Space::with_bookshop("mirror");
    let mirror = "mirror: {host: reviews, subset: v3}, mirrorPercentage: {value: 100}";
    space.apply(&reviews(&format!("[{{route: [{}], {mirror}}}]", to("v1"))));
    let address = ["get", "pods", "-l", "app=reviews,version=v3", "-o", "jsonpath={.items[0].status.podIP}"];
    let address = space.kubectl(&address).unwrap();
    let count = || {
        let (_, text) = space.get(&format!("http://{address}:9080/__count"), &[]);
        let counts: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        counts["requests"].as_u64().unwrap_or(0)
    };
    space.until(REVIEWS, &[], |_, _| count() > 0);
    let before = count();
    let answered = space.shares(REVIEWS, 100, ["\"version\":\"v1\"", "\"version\":\"v3\""]);
    assert_eq!(answered, [100, 0]);
    let begun = Instant::now();
    while count() < before + 100 && begun.elapsed() < e2e::cluster::PATIENCE {}
    assert_eq!(count() - before, 100);
    space.figure("100 calls answered by v1, 100 seen by v3");
}

/// From outside the cluster through the gateway to ratings; a small load shows it to be whole.
#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn the_gateway_shows_the_page_with_its_stars() {
    let space = Space::with_bookshop("entrance");
    space.apply(&reviews(&format!("[{{route: [{}]}}]", to("v3"))));
    space.apply(
        "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: entrance}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [entrance.example]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: entrance}
spec:
  hosts: [entrance.example]
  gateways: [entrance]
  http: [{route: [{destination: {host: productpage, port: {number: 9080}}}]}]
",
    );
    let address = space.mesh.gateway(80);
    let begun = Instant::now();
    let page = loop {
        match page(address, "entrance.example", "/productpage") {
            Ok(page) if page.contains("★★★★★") => break page,
            other => assert!(begun.elapsed() < e2e::cluster::PATIENCE, "{other:?}"),
        }
    };
    let came = begun.elapsed();
    assert!(page.contains("reviews v3"), "{page}");
    let load = Load::start(&space, "page", 20, "", "http://productpage:9080/productpage");
    space.shell("sleep 5");
    let outcome = load.end();
    outcome.all_good(80);
    space.figure(&format!("the page came after {} ms; within the mesh {outcome}", came.as_millis()));
}
