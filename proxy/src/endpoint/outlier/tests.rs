use super::*;
use crate::endpoint::Address;
use crate::endpoint::config::outlier;
use prost::Message;
use serde_json::{Value, json};

fn hosts(n: u16) -> HostSet {
    HostSet::flat((1..=n).map(|port| Endpoint::at(Address::Ip(([127, 0, 0, 1], port).into()))).collect())
}

fn written(fields: Value) -> Outlier {
    let bytes = proto::json::from_value("envoy.config.cluster.v3.OutlierDetection", &fields).unwrap();
    outlier(&Message::decode(bytes.as_slice()).unwrap()).unwrap()
}

fn of(set: &HostSet, i: usize) -> &Endpoint {
    &set.priorities[0].all[i]
}

/// Notes a verdict so often; whether it ejected.
fn notes(outlier: &Outlier, set: &HostSet, i: usize, verdict: Verdict, times: usize) -> bool {
    (0..times).fold(false, |ejected, _| outlier.note(of(set, i), set, verdict, 0) || ejected)
}

fn ejected_until(set: &HostSet, i: usize) -> u64 {
    of(set, i).shared.ejected_until.load(Ordering::Acquire)
}

// spec: LB-13, DR-31
#[test]
fn five_failures_in_a_row_eject_and_a_good_answer_starts_anew() {
    let (set, outlier) = (hosts(20), written(json!({})));
    assert!(!notes(&outlier, &set, 0, Verdict::ServerError, 4));
    assert!(!notes(&outlier, &set, 0, Verdict::Good, 1));
    assert!(!notes(&outlier, &set, 0, Verdict::ServerError, 4));
    assert!(notes(&outlier, &set, 0, Verdict::GatewayError, 1));
    assert_eq!(ejected_until(&set, 0), 30_000);
    for _ in 0..5 {
        outlier.note(of(&set, 0), &set, Verdict::GatewayError, 40_000);
    }
    assert_eq!(ejected_until(&set, 0), 100_000, "the second ejection is twice as long");
}

// spec: LB-13
#[test]
fn the_share_of_ejected_endpoints_is_capped_but_one_of_several_may_always_go() {
    let eject = |set: &HostSet, outlier: &Outlier, i| notes(outlier, set, i, Verdict::GatewayError, 5);
    let percent = |percent: u32| written(json!({"max_ejection_percent": percent}));
    let (three, ten_percent) = (hosts(3), written(json!({})));
    assert!(eject(&three, &ten_percent, 0));
    assert!(!eject(&three, &ten_percent, 1));
    assert!(!eject(&hosts(1), &ten_percent, 0), "the last endpoint stays");
    assert!(eject(&hosts(1), &written(json!({"always_eject_one_host": true})), 0), "unless it may go");
    assert!(!eject(&three, &percent(0), 2));
    let twenty = hosts(20);
    assert!(eject(&twenty, &ten_percent, 0) && eject(&twenty, &ten_percent, 1) && !eject(&twenty, &ten_percent, 2));
}

// spec: LB-13, DR-31
#[test]
fn gateway_failures_and_failures_of_our_own_have_limits_of_their_own() {
    let set = hosts(20);
    let gateway = written(json!({"consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100}));
    assert!(!notes(&gateway, &set, 0, Verdict::GatewayError, 1));
    assert!(!notes(&gateway, &set, 0, Verdict::ServerError, 1), "in a row");
    assert!(notes(&gateway, &set, 0, Verdict::GatewayError, 2));
    assert!(
        !notes(&written(json!({"consecutive_gateway_failure": 2})), &set, 1, Verdict::GatewayError, 4),
        "off by default"
    );

    assert!(notes(&written(json!({})), &set, 2, Verdict::LocalError, 5), "they are 5xx where nothing is said");
    let set = hosts(20);
    let split = written(json!({"split_external_local_origin_errors": true, "consecutive_local_origin_failure": 3}));
    assert!(!notes(&split, &set, 0, Verdict::LocalError, 2));
    assert!(!notes(&split, &set, 0, Verdict::ServerError, 1), "an answer at last");
    assert!(!notes(&split, &set, 0, Verdict::LocalError, 2));
    assert!(notes(&split, &set, 0, Verdict::LocalError, 1));
    let off = written(json!({"enforcing_consecutive_5xx": 0}));
    assert!(!notes(&off, &set, 1, Verdict::ServerError, 50));
}

// spec: LB-13
#[test]
fn a_good_interval_shortens_the_next_ejection() {
    let (set, outlier) = (hosts(20), written(json!({"base_ejection_time": "1s", "max_ejection_time": "3s"})));
    let eject = |at: u64| (0..5).any(|_| outlier.note(of(&set, 0), &set, Verdict::ServerError, at));
    let length = |at: u64| ejected_until(&set, 0) - at;
    outlier.sweep(&set, 1);
    for (at, expected) in [(10, 1000), (2000, 2000), (5000, 3000), (9000, 3000)] {
        assert!(eject(at));
        assert_eq!(length(at), expected, "at {at}");
    }
    // the intervals of 10 s in which it is not ejected: four in all
    for at in [12_000, 23_000, 34_000] {
        outlier.sweep(&set, at);
    }
    assert!(eject(35_000));
    assert_eq!(length(35_000), 2000, "one and one more");
}

/// Answers of all endpoints in one interval, by how many were good of a hundred.
fn interval(set: &HostSet, outlier: &Outlier, good: &[usize]) -> Vec<usize> {
    outlier.sweep(set, 1);
    for (i, good) in good.iter().enumerate() {
        // never so many bad ones in a row
        for n in 0..100 {
            let verdict = if n * good / 100 < (n + 1) * good / 100 { Verdict::Good } else { Verdict::ServerError };
            outlier.note(of(set, i), set, verdict, 100);
        }
    }
    assert!((0..good.len()).all(|i| ejected_until(set, i) == 0), "nothing before the interval is over");
    outlier.sweep(set, 5_000);
    assert!((0..good.len()).all(|i| ejected_until(set, i) == 0), "it takes 10 s");
    outlier.sweep(set, 10_002);
    (0..good.len()).filter(|i| ejected_until(set, *i) > 0).collect()
}

// spec: LB-13
#[test]
fn an_endpoint_far_below_the_others_is_ejected() {
    let only = |mut more: Value| {
        more["enforcing_consecutive_5xx"] = 0.into();
        written(more)
    };
    let (one_bad, nine) = ([99, 99, 99, 99, 99, 99, 99, 99, 60], || hosts(9));
    assert_eq!(interval(&nine(), &only(json!({})), &one_bad), [8], "Envoy's default");
    assert_eq!(interval(&nine(), &only(json!({"enforcing_success_rate": 0})), &one_bad), [0; 0], "Istio's");
    assert_eq!(interval(&nine(), &only(json!({"success_rate_minimum_hosts": 10})), &one_bad), [0; 0]);
    assert_eq!(interval(&nine(), &only(json!({"success_rate_request_volume": 101})), &one_bad), [0; 0]);
    assert_eq!(interval(&nine(), &only(json!({"success_rate_stdev_factor": 5000})), &one_bad), [0; 0]);
    assert_eq!(interval(&nine(), &only(json!({})), &[99; 9]), [0; 0]);
}

// spec: LB-13
#[test]
fn an_endpoint_with_too_many_failures_is_ejected() {
    let only = |mut more: Value| {
        more["enforcing_consecutive_5xx"] = 0.into();
        more["enforcing_success_rate"] = 0.into();
        written(more)
    };
    let rates = [99, 99, 99, 99, 14];
    assert_eq!(interval(&hosts(5), &only(json!({"enforcing_failure_percentage": 100})), &rates), [4]);
    assert_eq!(interval(&hosts(5), &only(json!({})), &rates), [0; 0], "off by default");
    let at = |threshold: u32| json!({"enforcing_failure_percentage": 100, "failure_percentage_threshold": threshold});
    assert_eq!(interval(&hosts(5), &only(at(87)), &rates), [0; 0]);
    let mut six = at(85);
    six["failure_percentage_minimum_hosts"] = 6.into();
    assert_eq!(interval(&hosts(5), &only(six), &rates), [0; 0]);
}
