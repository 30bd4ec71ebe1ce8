//! What proxies decide by an answer that they may use again, and what they count by themselves, stands on mixer's page and in
//! its figures as what mixer was asked.

use crate::mesh::{Mixer, Place, get, grpc_service, proxy};
use crate::programs::rows;
use crate::services::RULES;
use e2e::proxies::Flavour;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const LIMITS: &str = "
---
apiVersion: policy.ferromesh.io/v1alpha1
kind: RateLimit
metadata: {name: api, namespace: shop}
spec:
  rules:
  - {name: each, limit: {requests: 5, unit: HOUR}}
  - {name: all, scope: SHARED, limit: {requests: 40, unit: HOUR}}
";

/// Waits until the page's rows of these names are these.
fn until(mixer: &Mixer, expected: &BTreeMap<String, Vec<u64>>) {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let mut shown = rows(mixer);
        shown.retain(|name, _| expected.contains_key(name));
        if shown == *expected {
            return;
        }
        assert!(Instant::now() < deadline, "{shown:?}\nand not\n{expected:?}");
        std::thread::yield_now();
    }
}

// spec: MX-30, MX-97
#[test]
fn decisions_by_a_lease_count_by_rule_and_handler() {
    let mixer = Mixer::start(RULES, "domain: a\n", None);
    let ask = |flavour| {
        let filter = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "grpc_service": grpc_service(), "transport_api_version": "V3",
        });
        let (proxy, address) =
            proxy(Place::here(flavour), &mixer, ("envoy.filters.http.ext_authz", filter), &Value::Null);
        for n in 0..60 {
            let (user, path) = (["eve", "ann"][n % 2], ["/a?b=c", "/x"][usize::from(n % 3 == 0)]);
            get(address, path, &format!("x-user: {user}\r\n"));
        }
        proxy
    };
    let calls = || mixer.metric("mixer_runtime_dispatch_duration_seconds_count");
    let _envoy = ask(Flavour::Envoy);
    let asked = rows(&mixer);
    assert_eq!((calls(), &asked["istio-system/no-eve"]), (60, &vec![20, 20, 0]), "{asked:?}");
    assert_eq!((&asked["istio-system/headers"], &asked["deny.istio-system"]), (&vec![60, 0, 0], &vec![20, 20]));
    let _ours = ask(Flavour::Ferromesh);
    assert!(calls() < 90, "{}", calls());
    until(
        &mixer,
        &asked.into_iter().map(|(name, row)| (name, row.iter().map(|number| 2 * number).collect())).collect(),
    );
}

// spec: MX-115
#[test]
fn limits_of_each_proxy_and_of_all_show_their_hits_and_refusals() {
    let mixer = Mixer::start(&format!("{RULES}{LIMITS}"), "domain: a\n", None);
    let share = json!({"default_value": {"numerator": 100}});
    let local = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "shop/api.each", "filter_enabled": share, "filter_enforced": share,
        "token_bucket": {"max_tokens": 5, "tokens_per_fill": 5, "fill_interval": "3600s"},
    });
    let shared = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        "domain": "shop/api", "failure_mode_deny": true, "timeout": "10s",
        "rate_limit_service": {"transport_api_version": "V3", "grpc_service": grpc_service()},
    });
    let rule = json!({"actions": [{"generic_key": {"descriptor_key": "rule", "descriptor_value": "all"}}]});
    let refused = |flavour, (name, filter): (&str, &Value), route: &Value, requests: usize| {
        let (proxy, address) = proxy(Place::here(flavour), &mixer, (name, filter.clone()), route);
        let statuses: Vec<_> = (0..requests).map(|_| get(address, "/", "").status).collect();
        (proxy, statuses.iter().filter(|status| **status == 429).count() as u64)
    };
    let row = |name: &str, hits: u64, over: u64| BTreeMap::from([(name.to_owned(), vec![hits, over])]);
    let local = ("envoy.filters.http.local_ratelimit", &local);
    let (_envoy, over) = refused(Flavour::Envoy, local, &Value::Null, 12);
    assert_eq!(over, 7);
    until(&mixer, &row("shop/api.each", 12, 7));
    let (_ours, over) = refused(Flavour::Ferromesh, local, &Value::Null, 12);
    assert_eq!(over, 7);
    until(&mixer, &row("shop/api.each", 24, 14));
    let within = "ferromesh_limit_within_total{limit=\"shop/api.each\"}";
    // Shortly after its start mixer gives no totals of others: they would look like a reset.
    let deadline = Instant::now() + Duration::from_secs(15);
    while mixer.metric(within) != 10 {
        assert!(Instant::now() < deadline, "{}", mixer.metric(within));
        std::thread::yield_now();
    }

    let shared = ("envoy.filters.http.ratelimit", &shared);
    let (_envoy, over) = refused(Flavour::Envoy, shared, &rule, 30);
    assert_eq!(over, 0);
    until(&mixer, &row("shop/api.all", 30, 0));
    let (_ours, over) = refused(Flavour::Ferromesh, shared, &rule, 30);
    assert!(over >= 20, "{over}");
    until(&mixer, &row("shop/api.all", 60, over));
    let figure =
        |name: &str| mixer.metric(&format!("ratelimit_service_rate_limit_{name}{{domain=\"shop/api\",key=\"all\"}}"));
    assert_eq!((figure("total_hits"), figure("over_limit"), figure("within_limit")), (60, over, 60 - over));
    let told = mixer.metric("ferromesh_limit_over_total{limit=\"shop/api.all\"}");
    assert!(told > 0, "refusals were answered by a lease");
}
