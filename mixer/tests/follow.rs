//! mixer follows pilot: workloads, objects, states of proxies; and goes on without it.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

mod support;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mixer::pilot::Pilot;
use mixer::workload::Follower;
use proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use proto::envoy::ratelimit::RateLimitRequest;
use proto::envoy::ratelimit::rate_limit_response::Code;
use proto::envoy::ratelimit::rate_limit_service_client::RateLimitServiceClient;
use proto::otlp::metrics_service::metrics_service_client::MetricsServiceClient;
use serde_json::{Value, json};
use std::time::Duration;
use support::{Call, counter, labels, report, start, until};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A pilot that says what the test wants, by pilot's rules of waiting.
#[derive(Clone)]
struct Told {
    /// Number and content of the table of workloads.
    table: watch::Sender<(u64, Value)>,
    /// Requests that waited.
    waiting: watch::Sender<usize>,
    /// Tables given.
    given: watch::Sender<usize>,
}

async fn workloads(State(told): State<Told>, headers: HeaderMap) -> Response {
    let mut table = told.table.subscribe();
    let tag = |number: u64| format!("\"{number}\"");
    let known = headers.get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
    if known.as_deref() == Some(&tag(table.borrow().0)) {
        assert_eq!(headers["prefer"], "wait=30");
        told.waiting.send_modify(|count| *count += 1);
        let changed = table.wait_for(|(number, _)| Some(&*tag(*number)) != known.as_deref());
        if tokio::time::timeout(Duration::from_secs(30), changed).await.is_err() {
            return StatusCode::NOT_MODIFIED.into_response();
        }
    }
    let (number, value) = table.borrow().clone();
    told.given.send_modify(|count| *count += 1);
    ([(header::ETAG, tag(number))], value.to_string()).into_response()
}

async fn objects() -> String {
    let route =
        |subset: &str, weight: u32| json!({"destination": {"host": "reviews", "subset": subset}, "weight": weight});
    let split = json!({"hosts": ["reviews"], "http": [{"route": [route("one", 70), route("two", 30)]}]});
    let subset = |name: &str, version: &str| json!({"name": name, "labels": {"version": version}});
    let subsets = json!({"host": "reviews", "subsets": [subset("one", "v1"), subset("two", "v2")]});
    json!([
        {"kind": "VirtualService", "namespace": "shop", "name": "split", "file": "shop.yaml", "spec": split},
        {"kind": "DestinationRule", "namespace": "shop", "name": "versions", "file": null, "spec": subsets},
        {"kind": "Pod", "namespace": "shop", "name": "p", "file": null, "spec": null},
    ])
    .to_string()
}

async fn synced() -> String {
    let resources =
        json!({"LDS": {"sent": "2", "acked": "1", "resources": 3, "lastError": "Listener x: field y is <b>wrong</b>"}});
    json!([{"proxy": "productpage-0.shop", "istio_version": "1.0", "resources": resources}]).to_string()
}

async fn limits() -> String {
    let rule = json!({"name": "all", "limit": {"requests": 2, "unit": "HOUR"}, "scope": "SHARED"});
    let wrong = json!({"name": "none", "limit": {"requests": 0, "unit": "HOUR"}, "scope": "SHARED"});
    json!([
        {"namespace": "shop", "name": "wrong", "spec": {"rules": [wrong]}},
        {"namespace": "shop", "name": "api", "spec": {"rules": [rule]}},
    ])
    .to_string()
}

fn pilot(told: Told) -> Router {
    Router::new()
        .route("/debug/workloadz", get(workloads))
        .route("/debug/configz", get(objects))
        .route("/debug/syncz", get(synced))
        .route("/debug/ratelimitz", get(limits))
        .with_state(told)
}

/// A pilot that runs until its runtime is shut down: connections end with it, as with a process.
fn run(told: Told) -> (std::net::SocketAddr, tokio::runtime::Runtime) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(async move { axum::serve(TcpListener::from_std(listener).unwrap(), pilot(told)).await.unwrap() });
    (address, runtime)
}

fn pod(name: &str) -> Value {
    json!([{"name": name, "namespace": "shop", "addresses": ["10.0.0.1"], "labels": {"app": name}, "workload": name}])
}

fn told() -> Told {
    Told { table: watch::channel((1, pod("one"))).0, waiting: watch::channel(0).0, given: watch::channel(0).0 }
}

// spec: MX-106
#[tokio::test]
async fn the_table_changes_when_pilots_does_and_stays_when_pilot_is_gone() {
    let told = told();
    let (address, serving) = run(told.clone());
    let (mut follower, following) = Follower::new(Pilot::new(&format!("http://{address}"), None).unwrap());
    let following = tokio::spawn(following);
    let name = |follower: &Follower| {
        follower.table().by_address("10.0.0.1".parse().unwrap()).map(|workload| workload.name.clone())
    };
    follower.changed().await;
    assert_eq!(name(&follower).as_deref(), Some("one"));
    told.waiting.subscribe().wait_for(|count| *count > 0).await.unwrap();
    told.table.send_replace((2, pod("two")));
    follower.changed().await;
    assert_eq!(name(&follower).as_deref(), Some("two"), "a change is heard of at once, without asking again and again");

    // A table that cannot be read does not replace a good one; nor does pilot's absence.
    told.table.send_replace((3, json!("no list")));
    told.given.subscribe().wait_for(|count| *count > 3).await.unwrap();
    assert_eq!(name(&follower).as_deref(), Some("two"));
    told.table.send_replace((4, pod("four")));
    while name(&follower).as_deref() != Some("four") {
        follower.changed().await;
    }
    serving.shutdown_background();
    assert_eq!(name(&follower).as_deref(), Some("four"));
    while follower.complaint().is_none_or(|text| !text.contains("pilot has not answered for")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    following.abort();
}

#[tokio::test]
async fn pages_show_objects_weights_and_states_and_say_when_pilot_is_gone() {
    let (address, serving) = run(told());
    let mixer = start(&[&format!("--pilot=http://{address}")]).await;
    let page = mixer.http.unwrap();
    let mut client = MetricsServiceClient::connect(format!("http://{}", mixer.grpc.unwrap())).await.unwrap();
    let feeding = tokio::spawn(async move {
        for second in 0_u64.. {
            let call = |version| Call {
                reporter: "source",
                source: ("productpage", "v1"),
                destination: ("reviews", version),
                code: "200",
            };
            let of = |version, rate| counter("istio_requests_total", labels(call(version)), rate * second);
            let metrics = vec![of("v1", 60), of("v2", 40)];
            client.export(report("sidecar~10.0.0.1~productpage-0.shop~x", metrics)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    until(page, "/", |text| text.contains("60 % (70 %)") && text.contains("40 % (30 %)")).await;
    let service = until(page, "/service/shop/reviews", |text| text.contains("VirtualService/shop/split")).await;
    assert!(service.contains("DestinationRule/shop/versions") && service.contains("shop.yaml"));
    let proxies = until(page, "/proxies", |text| text.contains("data-state=\"refused\"")).await;
    assert!(proxies.contains("productpage-0.shop") && proxies.contains("Listener x: field y is &#60;b&#62;wrong"));
    assert!(proxies.contains("0 s ago"), "it reports as well");

    serving.shutdown_background();
    let gone = until(page, "/proxies", |text| text.contains("pilot has not answered for")).await;
    assert!(gone.contains("productpage-0.shop"), "what it said last is still there");
    let graph = until(page, "/", |text| text.contains("pilot has not answered for")).await;
    assert!(graph.contains("60 % (70 %)"), "{graph}");
    feeding.abort();
}

// spec: MX-97
#[tokio::test]
async fn shared_limits_of_the_mesh_come_from_pilot_and_stay_when_it_is_gone() {
    let (address, serving) = run(told());
    let mixer = start(&[&format!("--pilot=http://{address}")]).await;
    let mut client = RateLimitServiceClient::connect(format!("http://{}", mixer.grpc.unwrap())).await.unwrap();
    let mut ask = async || {
        let entries = vec![Entry { key: "rule".to_owned(), value: "all".to_owned() }];
        let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
        let asked = RateLimitRequest { domain: "shop/api".to_owned(), descriptors, hits_addend: 0 };
        client.should_rate_limit(asked).await.unwrap().into_inner()
    };
    let limited = async {
        loop {
            let answer = ask().await;
            if answer.statuses[0].current_limit.is_some() {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let first = tokio::time::timeout(Duration::from_secs(10), limited).await.unwrap();
    assert_eq!((first.overall_code(), first.statuses[0].limit_remaining), (Code::Ok, 1));
    serving.shutdown_background();
    let codes = [ask().await.overall_code(), ask().await.overall_code()];
    assert_eq!(codes, [Code::Ok, Code::OverLimit]);
}
