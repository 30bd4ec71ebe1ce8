//! What became of an object stands in its status, written by one pilot of several.

use crate::support;
use e2e::cluster::{Bare, Cluster};
use pilot::delivery::hub::Connection;
use pilot::delivery::progress::{Nack, Progress};
use pilot::translate::Node;
use pilot::translate::cache::ResourceType;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const GOOD: &str = "{hosts: [a], http: [{route: [{destination: {host: a}}]}]}";
const WRONG: &str = "{hosts: [a], http: [{route: [{destination: {host: a}, wieght: 3}]}]}";

fn rule(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n---\n"
    )
}

fn service() -> String {
    "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: default}\nspec: {ports: [{name: http, port: 80}]}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n---\n".to_owned()
}

/// `status reason observedGeneration: message` of a condition, once it says what is waited for.
fn condition(cluster: &Cluster, name: &str, condition: &str, says: &str) -> String {
    let path = format!(
        "jsonpath={{range .status.conditions[?(@.type==\"{condition}\")]}}{{.status}} {{.reason}} {{.observedGeneration}}: {{.message}}{{end}}"
    );
    cluster.eventually(&["get", "virtualservice", name, "-o", &path], |text| text.contains(says)).unwrap()
}

/// A proxy that says what it takes.
fn says(connection: &Connection, sent: &str, acked: &str, words: Option<&str>) {
    let nack = words.map(|words| Nack { nonce: sent.to_owned(), code: 13, message: words.to_owned() });
    let progress = Progress { sent: sent.to_owned(), acked: acked.to_owned(), nack, resources: 1 };
    connection.progress.send_modify(|all| drop(all.insert(ResourceType::Route, progress)));
    connection.offered.store(connection.snapshots.borrow().number, Ordering::Relaxed);
}

fn proxy() -> Node {
    let id = "sidecar~10.44.9.9~x.default~default.svc.cluster.local".to_owned();
    Node::parse(&proto::envoy::core::Node { id, ..Default::default() }).unwrap()
}

// spec: PI-45
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn conditions_say_what_is_accepted_and_how_far_the_proxies_are() {
    let cluster = Cluster::bare("status", Bare::Api).unwrap();
    support::apply_definitions(&cluster);
    cluster
        .apply(
            &(service()
                + &rule("good", GOOD)
                + &rule("wrong", WRONG)
                + &rule("lost", &GOOD.replace("host: a", "host: nowhere").replace("[a]", "[b]"))),
        )
        .unwrap();
    let pilot = support::pilot_of(&cluster, &[]).await;
    support::ready(&pilot).await;
    assert_eq!(condition(&cluster, "good", "Accepted", "True"), "True Accepted 1: ");
    assert_eq!(condition(&cluster, "good", "Reconciled", "True"), "True UpToDate 1: 0 proxies up to date");
    let wrong = condition(&cluster, "wrong", "Accepted", "False");
    assert!(
        wrong.starts_with(
            "False UnknownField : spec.http[0].route[0].wieght: unknown field wieght; did you mean weight?"
        ),
        "{wrong}"
    );
    assert!(condition(&cluster, "wrong", "Reconciled", "False").contains("NotInForce"));
    let lost = condition(&cluster, "lost", "Accepted", "True");
    assert!(lost.starts_with("True DanglingReference 1: spec.http[0].route[0].destination"), "{lost}");

    // A version that is refused leaves the one before in force, and says so.
    cluster.apply(&rule("good", WRONG)).unwrap();
    assert!(condition(&cluster, "good", "Accepted", "False").ends_with("the version before stays in force"));
    cluster.apply(&rule("good", GOOD)).unwrap();
    condition(&cluster, "good", "Accepted", "True Accepted 3");

    let mut connection = support::connect(&pilot, proxy()).await;
    says(&connection, "1", "1", None);
    let before = connection.snapshots.borrow().number;
    cluster.apply(&rule("good", &GOOD.replace("route:", "timeout: 3s, route:"))).unwrap();
    support::until(&mut connection, |snapshot| snapshot.number > before).await;
    says(&connection, "2", "1", None);
    assert!(
        condition(&cluster, "good", "Reconciled", "1 pending").starts_with("False Pending 4: 0 proxies up to date")
    );
    says(&connection, "2", "1", Some("route x: no"));
    let rejected = condition(&cluster, "good", "Reconciled", "Rejected");
    assert!(
        rejected.contains("rejected by sidecar~10.44.9.9~x.default~default.svc.cluster.local: route x: no"),
        "{rejected}"
    );
    says(&connection, "2", "2", None);
    assert_eq!(condition(&cluster, "good", "Reconciled", "True"), "True UpToDate 4: 1 proxy up to date");
}

// spec: SE-13
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn the_addresses_of_hosts_are_recorded_and_outlive_pilot() {
    let cluster = Cluster::bare("addresses", Bare::Api).unwrap();
    support::apply_definitions(&cluster);
    let entry = |name: &str, status: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: default}}\nspec: {{hosts: [{name}.example], resolution: DNS, ports: [{{number: 5432, name: tcp, protocol: TCP}}]}}\n{status}---\n"
        )
    };
    cluster.apply(&(service() + &entry("red", "") + &entry("blue", ""))).unwrap();
    // Istio's controller was here before, and chose otherwise.
    let before = r#"{"status":{"addresses":[{"host":"blue.example","value":"240.240.7.7"},{"host":"blue.example","value":"2001:2::77"}]}}"#;
    let patch = ["patch", "serviceentry", "blue", "--subresource=status", "--type=merge", "-p", before];
    cluster.kubectl(&patch).unwrap();
    let pilot = support::pilot_of(&cluster, &[]).await;
    support::ready(&pilot).await;
    let path = "jsonpath={range .status.addresses[*]}{.host}={.value} {end}";
    let recorded = |name: &str, says: &str| {
        cluster.eventually(&["get", "serviceentry", name, "-o", path], |text| text.contains(says)).unwrap()
    };
    let red = recorded("red", "red.example=240.240.");
    assert!(red.contains("red.example=2001:2::"), "{red}");
    assert_eq!(recorded("blue", "7.7").trim(), "blue.example=240.240.7.7 blue.example=2001:2::77");
    pilot.stop(Duration::ZERO).await;
    let pilot = support::pilot_of(&cluster, &[]).await;
    support::ready(&pilot).await;
    let id = "sidecar~10.44.9.9~x.default~default.svc.cluster.local".to_owned();
    let node = proto::envoy::core::Node { id, metadata: Some(captures_dns()), ..Default::default() };
    let mut connection = support::connect(&pilot, Node::parse(&node).unwrap()).await;
    let address = red.split("=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    support::until(&mut connection, |snapshot| {
        let listeners = snapshot.of(ResourceType::Listener);
        listeners.get(&format!("{address}_5432")).is_some() && listeners.get("240.240.7.7_5432").is_some()
    })
    .await;
    pilot.stop(Duration::ZERO).await;
}

fn captures_dns() -> proto::envoy::wkt::Struct {
    let text = proto::envoy::wkt::Value { kind: Some(proto::envoy::wkt::value::Kind::StringValue("true".to_owned())) };
    proto::envoy::wkt::Struct { fields: [("DNS_CAPTURE".to_owned(), text)].into() }
}

// spec: PI-44
/// robustness F27: the writer dies, another takes over; who loses the lease ceases to write.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn one_pilot_writes_and_another_takes_over() {
    let cluster = Cluster::bare("leader", Bare::Api).unwrap();
    support::apply_definitions(&cluster);
    cluster.apply(&(service() + &rule("v", GOOD))).unwrap();
    let first = support::pilot_of(&cluster, &["--pod-name", "first"]).await;
    let holder = ["get", "lease", "istio-status-leader", "-n", "istio-system", "-o", "jsonpath={.spec.holderIdentity}"];
    cluster.eventually(&holder, |name| name == "first").unwrap();
    let second = support::pilot_of(&cluster, &["--pod-name", "second"]).await;
    support::ready(&first).await;
    support::ready(&second).await;
    condition(&cluster, "v", "Accepted", "True");
    condition(&cluster, "v", "Reconciled", "True");
    let version = ["get", "virtualservice", "v", "-o", "jsonpath={.metadata.resourceVersion}"];
    let written = cluster.kubectl(&version).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.kubectl(&version).unwrap(), written, "nobody writes what stands there already");

    // Killed, it gives nothing back.
    let died = Instant::now();
    drop(first);
    cluster.apply(&rule("v", WRONG)).unwrap();
    condition(&cluster, "v", "Accepted", "False");
    let took = died.elapsed();
    println!("the second pilot wrote {:.1} s after the first had died", took.as_secs_f64());
    assert_eq!(cluster.kubectl(&holder).unwrap(), "second");
    assert!(took < Duration::from_secs(15), "{took:?}");

    // Somebody else has the lease: the status stays as it is, though the object is mended.
    let stolen = "{\"spec\":{\"holderIdentity\":\"another\"}}";
    cluster
        .kubectl(&["patch", "lease", "istio-status-leader", "-n", "istio-system", "--type=merge", "-p", stolen])
        .unwrap();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    cluster.apply(&rule("v", GOOD)).unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let still = condition(&cluster, "v", "Accepted", "");
    assert!(still.starts_with("False"), "written without the lease: {still}");
    // The other never renews, and is dead after its time.
    condition(&cluster, "v", "Accepted", "True");
    assert_eq!(cluster.kubectl(&holder).unwrap(), "second");
}
