//! Certificates from istiod's CA, and new ones in time.

use crate::load::Load;
use crate::space::Space;
use e2e::cluster::PATIENCE;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Certificates that begin two minutes ago, as istiod's do, are half over 20 s after they were issued.
const SHORT: &str = r#"{"spec": {"template": {"metadata": {"annotations": {"proxy.istio.io/config": "{proxyMetadata: {SECRET_TTL: 160s}}"}}}}}"#;

/// Serial number of a workload's certificate.
fn serial(space: &Space, workload: &str) -> String {
    let proxy = format!("deploy/{workload}");
    let ask = ["exec", &proxy, "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "certs"];
    let held: Value = serde_json::from_str(&space.kubectl(&ask).unwrap()).unwrap();
    let chains = held["certificates"].as_array().unwrap().iter().flat_map(|one| one["cert_chain"].as_array().unwrap());
    let own = chains.clone().find(|one| one.to_string().contains("spiffe://cluster.local/ns/renewal/sa/"));
    own.unwrap_or_else(|| panic!("no certificate: {held}"))["serial_number"].as_str().unwrap().to_owned()
}

// spec: CA-1, CA-23, PI-83
#[test]
#[ignore = "needs a cluster: make e2e-istiod"]
#[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
fn certificates_are_renewed_under_load() {
    let space = Space::with_bookshop("renewal");
    space.apply("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n");
    for workload in ["client", "details-v1"] {
        space.kubectl(&["patch", "deployment", workload, "-p", SHORT]).unwrap();
    }
    space.rolled_out();
    let url = "http://details:9080/details/0";
    space.until(url, &[], |status, _| status == 200);
    let load = Load::start(&space, "details", 50, "", url);
    let begun = Instant::now();
    for workload in ["client", "details-v1"] {
        let mut seen = vec![serial(&space, workload)];
        while seen.len() < 3 {
            assert!(begun.elapsed() < PATIENCE * 3, "{workload}: {seen:?}");
            std::thread::sleep(Duration::from_secs(1));
            let now = serial(&space, workload);
            if !seen.contains(&now) {
                seen.push(now);
            }
        }
    }
    let took = begun.elapsed();
    let outcome = load.end();
    outcome.all_good(took.as_secs() * 40);
    space.figure(&format!("client and server renewed twice in {:.0} s: {outcome}", took.as_secs_f64()));
}
