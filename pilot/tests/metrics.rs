//! What pilot tells Prometheus, and the page that lists it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proto::envoy::discovery::DeltaDiscoveryRequest;
use proto::type_url;
use std::path::Path;
use support::{Client, channel, eventually, node, page, pilot, post, tls_flags};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}\n";
/// What Istio's control plane dashboard reads, but for what Kubernetes and Go tell.
const DASHBOARD: [&str; 16] = [
    "istio_build{component=\"pilot\"",
    "pilot_info{",
    "pilot_xds ",
    "pilot_xds_pushes{type=\"cds\"}",
    "pilot_xds_push_time_bucket{type=\"eds\"",
    "pilot_xds_config_size_bytes_bucket{type=\"lds\"",
    "pilot_push_triggers{type=\"endpoint\"}",
    "pilot_proxy_convergence_time_bucket{",
    "pilot_total_xds_rejects{type=\"rds\"}",
    "pilot_total_xds_internal_errors 0",
    "galley_validation_passed ",
    "galley_validation_failed ",
    "sidecar_injection_success_total ",
    "sidecar_injection_failure_total ",
    "process_resident_memory_bytes ",
    "process_cpu_seconds_total ",
];

/// Names and second columns of the page's table.
fn listed(page: &str) -> Vec<(String, String)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.split('`').next()?.to_owned();
        Some((name, cells.next()?.to_owned()))
    };
    page.lines().filter_map(row).collect()
}

// spec: PI-43c, OB-5
#[tokio::test]
async fn istios_dashboard_finds_its_series_and_the_page_lists_them() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), SERVICE).unwrap();
    let flags = tls_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--https-addr", "127.0.0.1:0"]).collect();
    let running = pilot(directory.path(), &flags).await;
    let monitoring = running.monitoring.unwrap();
    let sidecar = "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local";
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(sidecar, &[])).await;
    client.subscribe(type_url::CLUSTER, &["*"]);
    client.next().await;
    let stale = DeltaDiscoveryRequest {
        type_url: type_url::CLUSTER.to_owned(),
        response_nonce: "of before".to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    client.send(stale);
    assert_eq!(post(running.https.unwrap(), "/validate", "{}").await.0, 400);
    let text = eventually(monitoring, "/metrics", |text| text.contains("pilot_xds_expired_nonce 1")).await;
    for series in DASHBOARD {
        assert!(text.lines().any(|line| line.starts_with(series)), "{series}: {text}");
    }
    for line in [
        "pilot_xds 1",
        "pilot_xds_pushes{type=\"cds\"} 1",
        "pilot_xds_push_time_count{type=\"cds\"} 1",
        "pilot_xds_config_size_bytes_count{type=\"cds\"} 1",
        "pilot_xds_send_time_count 1",
        "pilot_push_triggers{type=\"proxy\"} 1",
        "pilot_push_triggers{type=\"service\"} 1",
        "pilot_inbound_updates{type=\"svc\"} 1",
        "pilot_services 1",
        "pilot_eds_no_instances 1",
        "galley_validation_http_error 1",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}: {text}");
    }
    let counted = |name: &str| text.lines().any(|line| line.starts_with(name) && !line.ends_with(" 0"));
    assert!(counted("pilot_debounce_time_count ") && counted("pilot_pushcontext_init_seconds_count "), "{text}");
    assert!(counted("xds_cache_size ") && counted("istiod_uptime_seconds "), "{text}");

    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/metrics.md");
    let document = std::fs::read_to_string(document).unwrap();
    for (name, here) in listed(&document) {
        let there = text.contains(&format!("# TYPE {name} "));
        assert_eq!(there, matches!(here.as_str(), "yes" | "yes, with webhooks"), "{name} is listed as {here:?}");
    }
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(document.contains(&format!("`{name}`")), "{name} is not listed");
    }
    assert_eq!(page(monitoring, "/ready").await.0, 200);
}
