//! From the images of this checkout to those of the commit before under load, and back.

use super::load::Load;
use super::mesh::{CURRENT, PREVIOUS};
use super::space::Space;
use std::time::Instant;

/// Images of the control plane and of sidecars, without repetitions.
fn images(space: &Space) -> Vec<String> {
    let of = |namespace: &str| {
        let all = "jsonpath={range .items[*]}{.spec.containers[*].image} {.spec.initContainers[*].image} {end}";
        space.mesh.cluster.kubectl(&["get", "pods", "-n", namespace, "-o", all]).unwrap()
    };
    let both = of("istio-system") + " " + &of(&space.name);
    let ours = both.split_whitespace().filter(|image| !image.contains("bookshop") && !image.contains("tools"));
    let mut tags: Vec<String> = ours.filter_map(|image| Some(image.rsplit_once(':')?.1.to_owned())).collect();
    tags.sort();
    tags.dedup();
    tags
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn no_call_fails_in_an_upgrade_and_on_the_way_back() {
    let space = Space::with_bookshop("upgrade");
    let client = Load::start(&space, "reviews", 100, "", "http://productpage:9080/api/v1/products/0/reviews");
    let begun = Instant::now();
    for tag in [PREVIOUS, CURRENT] {
        space.mesh.install(tag);
        // Sidecars follow when their pods do; the gateways with the installation.
        let shops = "app in (productpage, details, reviews, ratings)";
        space.kubectl(&["rollout", "restart", "deployments", "-l", shops]).unwrap();
        for gateway in ["istio-ingressgateway", "istio-egressgateway"] {
            let deployment = format!("deployment/{gateway}");
            space.mesh.cluster.kubectl(&["rollout", "restart", &deployment, "-n", "istio-system"]).unwrap();
        }
        space.rolled_out();
        space
            .mesh
            .cluster
            .kubectl(&["rollout", "status", "deployments", "-n", "istio-system", "--timeout=90s"])
            .unwrap();
        // The client stays as it is: its proxy is of the version before.
        let begun = Instant::now();
        let client_has = CURRENT.to_owned();
        let mut expected = vec![client_has, tag.to_owned()];
        expected.sort();
        expected.dedup();
        while images(&space) != expected {
            assert!(begun.elapsed() < e2e::cluster::PATIENCE, "{:?}", images(&space));
        }
    }
    let took = begun.elapsed();
    let outcome = client.end();
    outcome.all_good(took.as_secs() * 60);
    space.figure(&format!("there and back in {:.0} s: {outcome}", took.as_secs_f64()));
}
