//! Objects that are broken, and objects in the wrong order (pains.md 8 and 9).

use super::door::status;
use super::load::Load;
use super::space::Space;
use e2e::cluster::PATIENCE;
use std::time::{Duration, Instant};

const HEALTHY: usize = 100;

fn rule(name: &str, spec: &str) -> String {
    format!("apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
#[expect(clippy::disallowed_methods, reason = "a test waits for other processes")]
fn a_hundred_routes_go_on_beside_three_that_are_broken() {
    let space = Space::with_bookshop("broken");
    let host = |number: usize| format!("r{number}.broken.example");
    let route = "route: [{destination: {host: ratings, port: {number: 9080}}}]";
    let spec = |host: &str| format!("{{hosts: [{host}], gateways: [wide], http: [{{{route}}}]}}");
    space.apply("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: wide}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.broken.example']}]}\n");
    space.apply(&(0..HEALTHY).map(|number| rule(&format!("r{number}"), &spec(&host(number)))).collect::<String>());
    let gateway = space.mesh.gateway(80);
    let all_good = || (0..HEALTHY).filter(|number| status(gateway, &host(*number)) == 200).count();
    let begun = Instant::now();
    while all_good() < HEALTHY {
        assert!(begun.elapsed() < PATIENCE, "{} of {HEALTHY} answer", all_good());
    }
    // Past the webhook, as from a time before it was there.
    let webhook = ["delete", "validatingwebhookconfiguration", "istio-validator-istio-system"];
    space.mesh.cluster.kubectl(&webhook).unwrap();
    let regex = format!(
        "{{hosts: [regex.broken.example], gateways: [wide], http: [{{match: [{{uri: {{regex: '('}}}}], {route}}}]}}"
    );
    let missing = format!("{{hosts: [gone.broken.example], gateways: [nowhere], http: [{{{route}}}]}}");
    // Sidecars have one rule for a host: the older one.
    let own = format!("{{hosts: [details], http: [{{{}}}]}}", route.replace("ratings", "details"));
    space.apply(&rule("once", &own));
    let broken = rule("twice", &own) + &rule("regex", &regex) + &rule("missing", &missing);
    space.apply(&broken);
    let begun = Instant::now();
    let said = |name: &str| {
        let conditions = "jsonpath={.status.conditions}";
        space.kubectl(&["get", "virtualservice", name, "-o", conditions]).unwrap()
    };
    for (name, field) in [("twice", "spec.hosts"), ("regex", "spec.http[0].match[0].uri"), ("missing", "spec.gateways")]
    {
        while !said(name).contains(field) {
            assert!(begun.elapsed() < PATIENCE, "{name}: {}", said(name));
        }
    }
    let told = begun.elapsed();
    assert!(told < Duration::from_secs(5), "conditions after {told:?}");
    assert_eq!(all_good(), HEALTHY);
    // A gateway that starts now knows them as well.
    let restart = ["rollout", "restart", "deployment/istio-ingressgateway", "-n", "istio-system"];
    space.mesh.cluster.kubectl(&restart).unwrap();
    let wait = ["rollout", "status", "deployment/istio-ingressgateway", "-n", "istio-system", "--timeout=60s"];
    space.mesh.cluster.kubectl(&wait).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(all_good(), HEALTHY, "by a gateway that started beside the broken ones");
    space.kubectl(&["delete", "virtualservice", "once", "twice", "regex", "missing"]).unwrap();
    space.mesh.install(super::mesh::CURRENT);
    space.figure(&format!("{HEALTHY} of {HEALTHY} routes answer; three conditions after {:.1} s", told.as_secs_f64()));
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
#[expect(clippy::disallowed_methods, reason = "time passes between two commands of a user")]
fn the_wrong_order_of_commands_fails_no_call() {
    let space = Space::with_bookshop("order");
    let pause = || std::thread::sleep(Duration::from_secs(3));
    let subsets = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews}\nspec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}]}\n";
    let to_subset =
        rule("reviews", "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}");
    let url = "http://reviews:9080/reviews/0";
    let load = Load::start(&space, "reviews", 200, "", url);
    pause();
    for _ in 0..3 {
        space.apply(&to_subset);
        pause();
        space.apply(subsets);
        space.until(url, &[], |_, text| text.contains("\"version\":\"v2\""));
        let only = space.shares(url, 20, ["\"version\":\"v2\""]);
        assert_eq!(only, [20], "the rule is in force");
        space.kubectl(&["delete", "destinationrule", "reviews"]).unwrap();
        pause();
        space.kubectl(&["delete", "virtualservice", "reviews"]).unwrap();
        pause();
    }
    let outcome = load.end();
    outcome.all_good(3000);
    space.figure(&format!("three times there and back: {outcome}"));
}
