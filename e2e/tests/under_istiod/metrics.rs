//! Metrics: both sides of a call name the workloads at both ends.

use crate::space::Space;
use e2e::cluster::PATIENCE;
use std::time::Instant;

/// Lines of the metrics that a workload's proxy has.
fn scrape(space: &Space, workload: &str) -> Vec<String> {
    let proxy = format!("deploy/{workload}");
    let ask = ["exec", &proxy, "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "stats/prometheus"];
    space
        .kubectl(&ask)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("istio_requests_total"))
        .map(str::to_owned)
        .collect()
}

// spec: MD-1, MD-2, MD-5
#[test]
#[ignore = "needs a cluster: make e2e-istiod"]
fn both_sides_name_the_workloads_at_both_ends() {
    let space = Space::with_bookshop("labels");
    let begun = Instant::now();
    let expected = [
        ("client", "source", "client", "productpage-v1"),
        ("productpage-v1", "destination", "client", "productpage-v1"),
        ("productpage-v1", "source", "productpage-v1", "details-v1"),
        ("details-v1", "destination", "productpage-v1", "details-v1"),
        ("reviews-v3", "source", "reviews-v3", "ratings-v1"),
        ("ratings-v1", "destination", "reviews-v3", "ratings-v1"),
    ];
    for (proxy, reporter, source, destination) in expected {
        let wanted = [
            format!("reporter=\"{reporter}\""),
            format!("source_workload=\"{source}\""),
            format!("destination_workload=\"{destination}\""),
            "source_workload_namespace=\"labels\"".to_owned(),
            "destination_workload_namespace=\"labels\"".to_owned(),
            "connection_security_policy=\"".to_owned()
                + if reporter == "source" { "unknown\"" } else { "mutual_tls\"" },
            format!("source_principal=\"spiffe://cluster.local/ns/labels/sa/{}\"", account(source)),
            format!("destination_principal=\"spiffe://cluster.local/ns/labels/sa/{}\"", account(destination)),
            "response_code=\"200\"".to_owned(),
        ];
        loop {
            let lines = scrape(&space, proxy);
            if lines.iter().any(|line| wanted.iter().all(|label| line.contains(label))) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{proxy} has no line with {wanted:?}:\n{}", lines.join("\n"));
            space.get("http://productpage:9080/productpage", &[]);
        }
    }
    space.figure(&format!("{} pairs of workloads, each with both identities", expected.len()));
}

/// The service account of a workload.
fn account(workload: &str) -> String {
    let app = workload.rsplit_once("-v").map_or(workload, |(app, _)| app);
    if app == "client" { app.to_owned() } else { format!("bookshop-{app}") }
}
