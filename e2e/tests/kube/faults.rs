//! What goes wrong with a cluster, and what a proxy notices of it.

use crate::support::{self, clusters};
use e2e::cluster::{Bare, Cluster, PATIENCE};
use pilot::delivery::hub::Connection;
use pilot::translate::Node;
use std::time::{Duration, Instant};

fn service(name: &str, namespace: &str, byte: u8) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{clusterIP: 10.96.3.{byte}, ports: [{{name: http, port: 80}}]}}\n---\n"
    )
}

fn rule(name: &str, namespace: &str, body: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {body}\n---\n"
    )
}

fn destination(name: &str, namespace: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{host: {name}, subsets: [{{name: v1, labels: {{version: v1}}}}]}}\n---\n"
    )
}

/// A proxy in a namespace; it is told of all Services.
fn proxy() -> Node {
    let id = "sidecar~10.44.9.9~x.default~default.svc.cluster.local".to_owned();
    Node::parse(&proto::envoy::core::Node { id, ..Default::default() }).unwrap()
}

fn has(connection: &Connection, text: &str) -> bool {
    clusters(&connection.snapshots.borrow()).iter().any(|name| name.contains(text))
}

fn namespace(name: &str, label: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{mesh: '{label}'}}}}\n---\n")
}

// spec: PI-8
/// robustness F26: the API server is killed and comes back, and meanwhile the world has changed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn an_api_server_that_goes_and_comes_back_deletes_nothing() {
    let cluster = Cluster::bare("away", Bare::Api).unwrap();
    support::apply_definitions(&cluster);
    let many: String = (1..=40).map(|byte| service(&format!("s{byte}"), "default", byte)).collect();
    cluster.apply(&many).unwrap();
    cluster.apply(&destination("s1", "default")).unwrap();
    let pilot = support::pilot_of(&cluster, &[]).await;
    support::ready(&pilot).await;
    let mut connection = support::connect(&pilot, proxy()).await;
    let before = clusters(&connection.snapshots.borrow());
    assert!(has(&connection, "|v1|s1.") && has(&connection, "||s40."), "{before:?}");

    // Every snapshot from here on must hold what was never deleted.
    let mut watched = connection.snapshots.clone();
    let kept: Vec<String> = before.iter().filter(|name| !name.contains("s40.")).cloned().collect();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let watching = tokio::spawn(async move {
        let mut stopped = stopped;
        let mut seen = 0;
        loop {
            tokio::select! {
                changed = watched.changed() => changed.unwrap(),
                _ = &mut stopped => return seen,
            }
            let now = clusters(&watched.borrow_and_update());
            let lost: Vec<&String> = kept.iter().filter(|name| !now.contains(name)).collect();
            assert!(lost.is_empty(), "a snapshot lacks {lost:?}");
            seen += 1;
        }
    });
    for round in 0..3 {
        cluster.kill("kube-apiserver").unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(*pilot.hub.ready().borrow(), "away is no reason not to be ready");
        assert!(has(&connection, "||s1."), "pilot goes on serving");
        cluster.revive("kube-apiserver").unwrap();
        let back = Instant::now();
        cluster.apply(&service(&format!("new{round}"), "default", 100 + round)).unwrap();
        if round == 1 {
            cluster.kubectl(&["delete", "service", "s40"]).unwrap();
        }
        support::until(&mut connection, |snapshot| {
            let names = clusters(snapshot);
            let gone = round != 1 || !names.iter().any(|name| name.contains("||s40."));
            gone && names.iter().any(|name| name.contains(&format!("||new{round}.")))
        })
        .await;
        println!("round {round}: converged {:.1} s after the API server was back", back.elapsed().as_secs_f64());
        assert!(back.elapsed() < Duration::from_secs(5));
    }
    // What was written while a watch was down is not in the new server's memory: `410 Gone`, and a list anew.
    let (_, metrics) = support::page(pilot.monitoring.unwrap(), "/metrics").await;
    let lists = metrics.lines().find_map(|line| line.strip_prefix("pilot_k8s_lists_total{type=\"Pod\"} "));
    assert!(lists.unwrap().parse::<u32>().unwrap() > 1, "{metrics}");
    stop.send(()).unwrap();
    let seen = watching.await.unwrap();
    println!("{seen} snapshots, none lacked what was never deleted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn a_broken_object_is_named_and_the_good_ones_beside_it_go_on() {
    let cluster = Cluster::bare("broken", Bare::Api).unwrap();
    support::apply_definitions(&cluster);
    let good = "{hosts: [a], http: [{route: [{destination: {host: a}}]}]}";
    cluster.apply(&(service("a", "default", 1) + &rule("v", "default", good))).unwrap();
    let pilot = support::pilot_of(&cluster, &[]).await;
    support::ready(&pilot).await;
    let mut connection = support::connect(&pilot, proxy()).await;
    let wrong = "{hosts: [a], http: [{route: [{destination: {host: a}, wieght: 3}]}]}";
    let more = rule("v", "default", wrong) + &service("b", "default", 2) + &rule("nonsense", "default", "{http: 5}");
    cluster.apply(&more).unwrap();
    support::until(&mut connection, |snapshot| clusters(snapshot).iter().any(|name| name.contains("||b."))).await;
    let deadline = Instant::now() + PATIENCE;
    let problems = loop {
        let problems: Vec<String> = support::status(&pilot).await.problems.iter().map(ToString::to_string).collect();
        if problems.len() == 2 {
            break problems;
        }
        assert!(Instant::now() < deadline, "{problems:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(problems[0], "VirtualService default/nonsense: spec.http: expected a sequence, found integer `5`");
    assert!(
        problems[1].starts_with("VirtualService default/v: spec.http[0].route[0].wieght: unknown field"),
        "{problems:?}"
    );
    let world = pilot.hub.ask(pilot::delivery::Command::World).await.unwrap();
    assert_eq!(world.mesh.virtual_services.len(), 1, "the last good version stays");
    cluster.apply(&rule("v", "default", good)).unwrap();
    cluster.kubectl(&["delete", "virtualservice", "nonsense"]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !support::status(&pilot).await.problems.is_empty() {
        assert!(Instant::now() < deadline, "mended, and still reported");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// spec: PI-8
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn a_definition_that_comes_later_is_watched_from_then_on() {
    let cluster = Cluster::bare("later", Bare::Api).unwrap();
    cluster.apply(&service("a", "default", 1)).unwrap();
    let pilot = support::pilot_of(&cluster, &[]).await;
    support::ready(&pilot).await;
    let mut connection = support::connect(&pilot, proxy()).await;
    assert!(has(&connection, "||a.") && !has(&connection, "|v1|a."));
    support::apply_definitions(&cluster);
    cluster.apply(&destination("a", "default")).unwrap();
    support::until(&mut connection, |snapshot| clusters(snapshot).iter().any(|name| name.contains("|v1|a."))).await;
    cluster.kubectl(&["delete", "crd", "destinationrules.networking.istio.io"]).unwrap();
    support::until(&mut connection, |snapshot| !clusters(snapshot).iter().any(|name| name.contains("|v1|a."))).await;
    support::apply_definitions(&cluster);
    cluster.apply(&destination("a", "default")).unwrap();
    support::until(&mut connection, |snapshot| clusters(snapshot).iter().any(|name| name.contains("|v1|a."))).await;
}

// spec: PI-7, PI-24, GEN-8
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn a_namespace_that_begins_to_match_a_selector_is_seen_from_then_on() {
    let cluster = Cluster::bare("select", Bare::Api).unwrap();
    let settings = |mesh: &str| {
        let mesh = serde_json::Value::from(mesh).to_string();
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata: {{mesh: {mesh}}}\n"
        )
    };
    let spaces = [("istio-system", "on"), ("one", "on"), ("two", "off")].map(|(name, label)| namespace(name, label));
    cluster.apply(&spaces.join("")).unwrap();
    let selector = "discoverySelectors: [{matchLabels: {mesh: 'on'}}]\n";
    cluster.apply(&(settings(selector) + "---\n" + &service("a", "one", 1) + &service("b", "two", 2))).unwrap();
    let pilot = support::pilot_of(&cluster, &[]).await;
    support::ready(&pilot).await;
    let mut connection = support::connect(&pilot, proxy()).await;
    assert!(
        has(&connection, "||a.one.") && !has(&connection, "||b.two."),
        "{:?}",
        clusters(&connection.snapshots.borrow())
    );
    cluster.apply(&namespace("two", "on")).unwrap();
    support::until(&mut connection, |snapshot| clusters(snapshot).iter().any(|name| name.contains("||b.two."))).await;
    cluster.apply(&namespace("one", "off")).unwrap();
    support::until(&mut connection, |snapshot| !clusters(snapshot).iter().any(|name| name.contains("||a.one."))).await;
    // The settings are hot; broken ones change nothing.
    cluster.apply(&settings("connectTimeout: soon\n")).unwrap();
    cluster.apply(&settings("connectTimeout: 3s\n")).unwrap();
    support::until(&mut connection, |snapshot| clusters(snapshot).iter().any(|name| name.contains("||a.one."))).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn namespaces_that_are_named_alone_are_watched() {
    let cluster = Cluster::bare("named", Bare::Api).unwrap();
    cluster.apply(&(namespace("one", "") + &namespace("two", "") + &namespace("three", ""))).unwrap();
    cluster.apply(&(service("a", "one", 1) + &service("b", "two", 2) + &service("c", "three", 3))).unwrap();
    let pilot = support::pilot_of(&cluster, &["--app-namespace", "one,three"]).await;
    support::ready(&pilot).await;
    let connection = support::connect(&pilot, proxy()).await;
    assert!(has(&connection, "||a.one.") && has(&connection, "||c.three.") && !has(&connection, "||b.two."));
}
