//! The port of the webhooks: HTTPS, questions of an API server, and readiness.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use std::time::Duration;
use support::{eventually, page, pilot, pki, post, tls_flags};

fn flags() -> Vec<String> {
    let address = ["--https-addr", "127.0.0.1:0"].map(str::to_owned);
    tls_flags().into_iter().chain(address).collect()
}

async fn running(directory: &std::path::Path, flags: &[String]) -> pilot::server::Running {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    pilot(directory, &flags).await
}

fn question(kind: (&str, &str, &str), object: &Value) -> String {
    let (group, version, kind) = kind;
    let kind = json!({"group": group, "version": version, "kind": kind});
    let request = json!({"uid": "u", "kind": kind, "namespace": "shop", "operation": "CREATE", "object": object});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string()
}

// spec: AZ-17, PI-48, PI-49, PI-54, PI-57, IN-22
// bar: S1
#[tokio::test]
async fn questions_are_answered_over_https() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  annotations:\n    \
                     openshift.io/sa.scc.uid-range: 1000700000/10000\n    \
                     openshift.io/sa.scc.supplemental-groups: 1000700000/10000\n";
    std::fs::write(dir.path().join("namespace.yaml"), namespace).unwrap();
    let pilot = running(dir.path(), &flags()).await;
    let (address, pages) = (pilot.https.unwrap(), pilot.monitoring.unwrap());

    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let (status, answer) = post(address, "/inject/net/n1", &question(("", "v1", "Pod"), &pod)).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["response"]["allowed"]), (200, &json!(true)));
    use base64::Engine as _;
    let patch = answer["response"]["patch"].as_str().unwrap();
    let patch = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(patch).unwrap()).unwrap();
    assert!(patch.contains("\"ISTIO_META_NETWORK\",\"value\":\"n1\""), "{patch}");
    assert!(patch.contains("\"runAsUser\":1000709999"), "the namespace is known: {patch}");

    let gateway = json!({"metadata": {"name": "g"}, "spec": {"selector": {"a": "b"}, "servers": []}});
    let asked = question(("networking.istio.io", "v1", "Gateway"), &gateway);
    let (_, answer) = post(address, "/validate?timeout=10s", &asked).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["response"]["allowed"], false);
    let why = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(why.starts_with("spec.servers: "), "{why}");

    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "action": "DENY", "rules": [{"to": [{"operation": {"methods": ["POST"]}}]}],
    }});
    let asked = question(("security.istio.io", "v1", "AuthorizationPolicy"), &policy);
    let (_, answer) = post(address, "/validate?timeout=10s", &asked).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let warning = "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only \
                   HTTP attributes in a DENY rule; it is recommended to explicitly specify the port";
    assert_eq!((&answer["response"]["allowed"], &answer["response"]["warnings"]), (&json!(true), &json!([warning])));

    assert_eq!(post(address, "/inject", "{}").await.0, 400);
    assert_eq!(post(address, "/inject", "[").await.0, 400);
    let large = format!("\"{}\"", "x".repeat(3 << 20));
    assert_eq!(post(address, "/validate", &large).await.0, 413);
    let metrics = page(pages, "/metrics").await.1;
    for line in ["sidecar_injection_success_total 1", "galley_validation_failed 1", "galley_validation_passed 1"] {
        assert!(metrics.contains(line), "{line}");
    }
    pilot.stop(Duration::from_millis(50)).await;
}

// spec: F31
#[tokio::test]
async fn pilot_is_ready_once_its_webhooks_answer_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    // The roots do not vouch for the certificate, and so nobody could ask.
    let files = tempfile::tempdir().unwrap();
    let roots = files.path().join("roots.pem");
    std::fs::copy(pki("other-roots.pem"), &roots).unwrap();
    let mut flags = flags();
    let own = pki("roots.pem").display().to_string();
    *flags.iter_mut().find(|flag| **flag == own).unwrap() = roots.display().to_string();
    let directory = dir.path().to_str().unwrap().to_owned();
    let line = ["pilot", "discovery", "--config-dir", &directory, "--http-addr", "127.0.0.1:0"];
    let rest = ["--monitoring-addr", "127.0.0.1:0"];
    let line: Vec<String> = line.iter().chain(&rest).map(|text| (*text).to_owned()).chain(flags).collect();
    let parsed = <pilot::args::Cli as clap::Parser>::try_parse_from(line).unwrap().command;
    let pilot::args::Command::Discovery(args) = parsed else { panic!("discovery") };
    let pilot = Box::pin(pilot::server::Server::new(*args, None).start()).await.unwrap();
    let (pages, monitoring) = (pilot.http.unwrap(), pilot.monitoring.unwrap());
    eventually(pages, "/debug/status", |text| text.contains("\"synced\":true")).await;
    assert_eq!((page(pages, "/ready").await.0, page(monitoring, "/ready").await.0), (503, 503));
    std::fs::copy(pki("roots.pem"), &roots).unwrap();
    eventually(pages, "/ready", |text| text == "ready\n").await;
    assert_eq!(page(monitoring, "/ready").await.0, 200);
    pilot.stop(Duration::from_millis(50)).await;
}
