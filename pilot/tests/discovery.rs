//! pilot in process over loopback: files in, xDS out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use prost::Message as _;
use proto::envoy::RpcStatus;
use proto::envoy::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::envoy::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};
use proto::envoy::route::RouteConfiguration;
use proto::type_url;
use std::time::{Duration, Instant};
use support::{Client, channel, eventually, node, page, pilot};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {clusterIP: 10.96.0.1, selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: ratings}
spec: {clusterIP: 10.96.0.2, selector: {app: ratings}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: reviews}
status: {podIP: 10.0.0.1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
";

fn slice(addresses: &[&str]) -> String {
    let endpoints: String = addresses.iter().map(|address| format!("- addresses: [{address}]\n")).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: reviews-1, labels: {{kubernetes.io/service-name: reviews}}}}\naddressType: IPv4\nports: [{{name: http, port: 9080}}]\nendpoints:\n{endpoints}"
    )
}

fn rule(timeout: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  hosts: [reviews]\n  http:\n  - timeout: {timeout}\n    route: [{{destination: {{host: reviews}}}}]\n"
    )
}

const SIDECAR: &str = "sidecar~10.0.0.9~client-1.default~default.svc.cluster.local";
const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

fn timeout_of(bytes: &[u8]) -> i64 {
    let routes = RouteConfiguration::decode(bytes).unwrap();
    let host = routes.virtual_hosts.iter().find(|host| host.name.starts_with("reviews")).unwrap();
    let Some(proto::envoy::route::route::Action::Route(action)) = &host.routes[0].action else { panic!("no route") };
    action.timeout.as_ref().unwrap().seconds
}

// spec: PI-9, PI-26, XD-2, XM-1
#[tokio::test]
async fn a_saved_file_reaches_a_subscribed_proxy_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    std::fs::write(dir.path().join("rule.yaml"), rule("3s")).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    client.subscribe(type_url::CLUSTER, &["*"]);
    let clusters = client.next().await;
    assert!(clusters.resources.iter().any(|resource| resource.name == REVIEWS));
    client.subscribe(type_url::ROUTE, &["9080"]);
    let routes = client.next().await;
    assert_eq!(timeout_of(&routes.resources[0].resource.as_ref().unwrap().value), 3);

    std::fs::write(dir.path().join("rule.yaml"), rule("7s")).unwrap();
    let saved = Instant::now();
    let routes = client.next().await;
    assert_eq!(timeout_of(&routes.resources[0].resource.as_ref().unwrap().value), 7);
    assert!(saved.elapsed() < Duration::from_secs(1), "{:?}", saved.elapsed());
    assert_eq!(routes.resources.len(), 1, "one resource for one change");
    running.stop(Duration::from_millis(100)).await;
}

// spec: PI-9
#[tokio::test]
async fn a_broken_file_is_reported_by_file_line_and_field_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    std::fs::write(dir.path().join("rule.yaml"), rule("3s")).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let http = running.http.unwrap();
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    client.subscribe(type_url::ROUTE, &["9080"]);
    client.next().await;
    let classes = [
        (rule("3s").replace("hosts: [reviews]", "hosts: [reviews"), "syntax", ""),
        (rule("{a: 1}"), "wrongType", "spec.http[0].timeout"),
        (rule("3s").replace("timeout", "timout"), "unknownField", "spec.http[0].timout"),
        (rule("3s").replace("{destination", "{weight: -1, destination"), "semantic", "spec.http[0].route[0].weight"),
        (
            rule("3s").replace("host: reviews}", "host: nobody}"),
            "danglingReference",
            "spec.http[0].route[0].destination.host",
        ),
    ];
    for (text, class, field) in classes {
        std::fs::write(dir.path().join("rule.yaml"), &text).unwrap();
        let body = eventually(http, "/debug/status", |body| body.contains(&format!("\"class\":\"{class}\""))).await;
        let status: serde_json::Value = serde_json::from_str(&body).unwrap();
        let problem = status["problems"].as_array().unwrap().iter().find(|p| p["class"] == class).unwrap();
        assert_eq!((problem["file"].as_str(), problem["field"].as_str()), (Some("rule.yaml"), Some(field)), "{body}");
        assert!(problem["line"].as_u64().unwrap() >= 4, "{body}");
    }
    assert!(client.silent(Duration::from_millis(50)).await, "the last good version stays");
    std::fs::write(dir.path().join("rule.yaml"), rule("9s")).unwrap();
    assert_eq!(timeout_of(&client.next().await.resources[0].resource.as_ref().unwrap().value), 9);
    eventually(http, "/debug/status", |body| body.contains("\"problems\":[]")).await;
}

// spec: PI-4, PI-31
#[tokio::test]
async fn pilot_is_ready_once_all_objects_are_taken_in_and_then_everything_is_sent() {
    use pilot::ads::debug;
    use pilot::ads::gate::Gate;
    use pilot::delivery::{Hub, debounce::Delays, metrics::Metrics};
    let registry = prometheus::Registry::new();
    let (events, received) = tokio::sync::mpsc::channel(8);
    let (hub, handle) =
        Hub::new(pilot::model::MeshConfig::default(), Delays::default(), Metrics::new(&registry).unwrap(), received);
    let (listener, address) = vitals::admin::bind("127.0.0.1:0").await.unwrap();
    let tasks = [
        tokio::spawn(hub.run()),
        tokio::spawn(async move {
            debug::serve(listener, debug::router(handle.clone(), Gate::Open), handle.ready()).await.unwrap();
        }),
    ];
    let objects = pilot::source::memory::parse(SERVICES, None).objects;
    events.send(objects.into_iter().map(pilot::source::Event::Upsert).collect()).await.unwrap();
    assert_eq!(page(address, "/ready").await.0, 503);
    events.send(vec![pilot::source::Event::Synced]).await.unwrap();
    eventually(address, "/ready", |body| body.starts_with("ready")).await;
    tasks.into_iter().for_each(|task| task.abort());
}

// spec: PI-37, PI-90
#[tokio::test]
async fn what_a_scope_does_not_depend_on_does_not_reach_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    let scope = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default}\nspec: {egress: [{hosts: ['./*']}]}\n";
    std::fs::write(dir.path().join("sidecar.yaml"), scope).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    client.subscribe(type_url::CLUSTER, &["*"]);
    client.next().await;
    client.subscribe(type_url::LISTENER, &["*"]);
    client.next().await;
    client.subscribe(type_url::NAME_TABLE, &[]);
    client.next().await;
    let far = "apiVersion: v1\nkind: Service\nmetadata: {name: far, namespace: other}\nspec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}]}\n";
    std::fs::write(dir.path().join("far.yaml"), far).unwrap();
    eventually(running.http.unwrap(), "/debug/registryz", |body| body.contains("far.other")).await;
    assert!(client.silent(Duration::from_millis(50)).await);
    std::fs::write(dir.path().join("far.yaml"), far.replace("namespace: other", "namespace: default")).unwrap();
    assert_eq!(client.next().await.type_url, type_url::CLUSTER);
}

// spec: PI-35
#[tokio::test]
async fn an_endpoint_change_is_endpoints_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    std::fs::write(dir.path().join("slice.yaml"), slice(&["10.0.0.1"])).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    client.subscribe(type_url::CLUSTER, &[]);
    client.next().await;
    client.subscribe(type_url::ENDPOINT, &[REVIEWS]);
    client.next().await;
    let before: serde_json::Value =
        serde_json::from_str(&page(running.http.unwrap(), "/debug/status").await.1).unwrap();
    std::fs::write(dir.path().join("slice.yaml"), slice(&["10.0.0.1", "10.0.0.2"])).unwrap();
    let response = client.next().await;
    assert_eq!((response.type_url.as_str(), response.resources.len()), (type_url::ENDPOINT, 1));
    let after: serde_json::Value = serde_json::from_str(&page(running.http.unwrap(), "/debug/status").await.1).unwrap();
    let made = |status: &serde_json::Value| status["made_resources"].as_u64().unwrap();
    assert_eq!(made(&after) - made(&before), 1, "one resource was made anew");
}

// spec: XD-3, XD-12, XI-9, PI-42, PI-43b
#[tokio::test]
async fn refusals_are_shown_with_proxy_type_and_resource() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    let object = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: default}, \
                  spec: {host: reviews, subsets: [{name: one, labels: {version: v1}}]}}";
    std::fs::write(dir.path().join("rule.yaml"), object).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let http = running.http.unwrap();
    let mut client =
        Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[("ISTIO_VERSION", "1.30")])).await;
    client.subscribe(type_url::CLUSTER, &["*"]);
    let response = client.receive().await.unwrap();
    client.send(DeltaDiscoveryRequest {
        type_url: type_url::CLUSTER.to_owned(),
        response_nonce: response.nonce.clone(),
        error_detail: Some(RpcStatus { code: 13, message: format!("{REVIEWS}: no"), ..RpcStatus::default() }),
        ..DeltaDiscoveryRequest::default()
    });
    let nacks = eventually(http, "/debug/nacks", |body| body.contains("13")).await;
    let nacks: serde_json::Value = serde_json::from_str(&nacks).unwrap();
    assert_eq!(
        (&nacks[0]["proxy"], &nacks[0]["type"], &nacks[0]["resources"][0]),
        (&"client-1.default".into(), &"CDS".into(), &REVIEWS.into())
    );
    let syncz: serde_json::Value = serde_json::from_str(&page(http, "/debug/syncz").await.1).unwrap();
    assert_eq!(
        (&syncz[0]["proxy"], &syncz[0]["cluster_sent"], &syncz[0]["cluster_acked"]),
        (&"client-1.default".into(), &response.nonce.into(), &"".into())
    );
    let dump = page(http, "/debug/config_dump?proxyID=client-1.default&types=cds").await.1;
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    let names: Vec<_> =
        dump["CDS"].as_array().unwrap().iter().map(|r| r["resource"]["name"].as_str().unwrap()).collect();
    assert!(names.contains(&REVIEWS) && dump.get("LDS").is_none());
    assert_eq!(page(http, "/ready").await.0, 200);
    assert_eq!(page(http, "/version").await, (200, concat!(env!("CARGO_PKG_VERSION"), "\n").to_owned()));
    for path in ["registryz", "endpointz", "configz", "instancesz", "connections", "mesh", "list"] {
        assert_eq!(page(http, &format!("/debug/{path}")).await.0, 200, "{path}");
    }
    let objects: serde_json::Value = serde_json::from_str(&page(http, "/debug/configz").await.1).unwrap();
    let rule = objects.as_array().unwrap().iter().find(|object| object["kind"] == "DestinationRule").unwrap();
    assert_eq!((&rule["file"], &rule["spec"]["subsets"][0]["labels"]["version"]), (&"rule.yaml".into(), &"v1".into()));
    let metrics = page(running.monitoring.unwrap(), "/metrics").await.1;
    assert!(metrics.contains("pilot_total_xds_rejects{type=\"cds\"} 1"), "{metrics}");
    assert!(metrics.contains("pilot_xds 1"), "{metrics}");
    drop(client);
    eventually(http, "/debug/connections", |body| body.contains("\"totalClients\":0")).await;
}

// spec: PI-7
#[tokio::test]
async fn new_settings_of_the_mesh_are_live_and_broken_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    let settings = tempfile::tempdir().unwrap();
    let file = settings.path().join("mesh");
    std::fs::write(&file, "connectTimeout: 1s\n").unwrap();
    let running = pilot(dir.path(), &["--mesh-config", file.to_str().unwrap()]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    client.subscribe(type_url::CLUSTER, &[REVIEWS]);
    let timeout = |response: proto::envoy::discovery::DeltaDiscoveryResponse| {
        let bytes = &response.resources[0].resource.as_ref().unwrap().value;
        proto::envoy::cluster::Cluster::decode(bytes.as_slice()).unwrap().connect_timeout.unwrap().seconds
    };
    assert_eq!(timeout(client.next().await), 1);
    std::fs::write(&file, "connectTimeout: [\n").unwrap();
    assert!(client.silent(Duration::from_millis(100)).await);
    std::fs::write(&file, "connectTimeout: 2s\n").unwrap();
    assert_eq!(timeout(client.next().await), 2);
}

// spec: XD-4
#[tokio::test]
async fn a_first_request_without_a_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = pilot(dir.path(), &[]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node("", &[])).await;
    client.subscribe(type_url::CLUSTER, &["*"]);
    let status = client.receive().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::InvalidArgument, "missing node information"));
}

// spec: PI-3, PI-26
#[tokio::test]
async fn a_stream_has_an_age_so_that_a_new_pilot_gets_its_share() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    let running = pilot(dir.path(), &["--keepaliveMaxServerConnectionAge", "300ms"]).await;
    let channel = channel(running.grpc.unwrap()).await;
    let mut client = Client::connect(channel, node(SIDECAR, &[])).await;
    client.subscribe(type_url::CLUSTER, &["*"]);
    assert_eq!(client.next().await.type_url, type_url::CLUSTER);
    client.ended().await;
}

// spec: PI-26
#[tokio::test]
async fn a_stream_on_which_nothing_is_asked_has_an_age_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let running = pilot(dir.path(), &["--keepaliveMaxServerConnectionAge", "300ms"]).await;
    Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await.ended().await;
}

// spec: PI-3, PI-26
#[tokio::test]
async fn without_an_age_a_stream_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let running = pilot(dir.path(), &["--keepaliveMaxServerConnectionAge", "0"]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    client.subscribe(type_url::CLUSTER, &["*"]);
    assert_eq!(client.next().await.type_url, type_url::CLUSTER);
    assert!(client.silent(Duration::from_millis(300)).await, "and does not end");
}

// spec: XD-2, PI-26
#[tokio::test]
async fn state_of_the_world_is_served_too() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let mut client = AggregatedDiscoveryServiceClient::new(channel(running.grpc.unwrap()).await);
    let first = DiscoveryRequest {
        node: Some(node(SIDECAR, &[])),
        type_url: type_url::CLUSTER.to_owned(),
        ..DiscoveryRequest::default()
    };
    let requests = tokio_stream::iter([first]);
    let mut responses = client.stream_aggregated_resources(requests).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    let names: Vec<String> = response
        .resources
        .iter()
        .map(|any| proto::envoy::cluster::Cluster::decode(any.value.as_slice()).unwrap().name)
        .collect();
    assert!(names.contains(&REVIEWS.to_owned()));
    assert!(!response.version_info.is_empty() && !response.nonce.is_empty());
}

// spec: DN-1
#[tokio::test]
async fn the_name_table_holds_the_services() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    client.subscribe(type_url::NAME_TABLE, &[]);
    let response = client.next().await;
    let table =
        proto::missing::NameTable::decode(response.resources[0].resource.as_ref().unwrap().value.as_slice()).unwrap();
    let info = &table.table["reviews.default.svc.cluster.local"];
    assert_eq!(
        (info.ips.as_slice(), info.registry.as_str(), info.shortname.as_str()),
        (&["10.96.0.1".to_owned()][..], "Kubernetes", "reviews")
    );
}

/// The next HTTP/2 frame: type, flags, payload.
async fn frame(stream: &mut tokio::net::TcpStream) -> (u8, u8, Vec<u8>) {
    use tokio::io::AsyncReadExt as _;
    let reading = async {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        (head[3], head[4], payload)
    };
    tokio::time::timeout(support::PATIENCE, reading).await.expect("a frame")
}

// spec: XI-3
#[tokio::test]
async fn connections_are_watched_and_bounded() {
    use tokio::io::AsyncWriteExt as _;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    let directory = tempfile::tempdir().unwrap();
    let running = pilot(directory.path(), &["--keepalive-interval", "200ms", "--keepalive-timeout", "300ms"]).await;
    let mut stream = tokio::net::TcpStream::connect(running.grpc.unwrap()).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let settings = loop {
        let (kind, flags, payload) = frame(&mut stream).await;
        if (kind, flags) == (SETTINGS, 0) {
            break payload;
        }
    };
    let streams = settings.chunks(6).find(|one| one.starts_with(&[0, 3])).expect("a limit of streams");
    assert_eq!(u32::from_be_bytes(streams[2..].try_into().unwrap()), 100_000);
    while frame(&mut stream).await.0 != PING {}
    // the ping stays unanswered: the connection is given up
    let mut rest = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
    drop(tokio::time::timeout(support::PATIENCE, ended).await.expect("it is closed"));

    let mut client =
        Client::connect(channel(running.grpc.unwrap()).await, node("sidecar~10.0.0.9~big.default~x", &[])).await;
    client.subscribe(type_url::CLUSTER, &["x".repeat(5 << 20).as_str()]);
    let refused = client.receive().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "more than 4 MiB: {refused}");
}

fn sorted(resources: &[proto::envoy::discovery::Resource]) -> Vec<&str> {
    let mut names: Vec<&str> = resources.iter().map(|resource| resource.name.as_str()).collect();
    names.sort_unstable();
    names
}

// spec: SC-7, PI-37
#[tokio::test]
async fn a_rule_that_leads_out_of_a_sidecars_scope_brings_the_clusters_that_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let far = "---\napiVersion: v1\nkind: Service\nmetadata: {name: far, namespace: other}\nspec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 9080}]}\n";
    let sidecar = "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default}\nspec: {egress: [{hosts: ['./*']}]}\n";
    std::fs::write(dir.path().join("services.yaml"), format!("{SERVICES}{far}{sidecar}")).unwrap();
    std::fs::write(dir.path().join("rule.yaml"), rule("3s")).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    client.subscribe(type_url::CLUSTER, &["*"]);
    let clusters = client.next().await;
    let outbound = "outbound|9080||far.other.svc.cluster.local";
    assert!(!sorted(&clusters.resources).contains(&outbound), "it is out of scope");
    let there = rule("3s").replace("{host: reviews}", "{host: far.other.svc.cluster.local}");
    std::fs::write(dir.path().join("rule.yaml"), there).unwrap();
    assert_eq!(sorted(&client.next().await.resources), [outbound]);
    std::fs::write(dir.path().join("rule.yaml"), rule("3s")).unwrap();
    assert_eq!(client.next().await.removed_resources, [outbound]);
    running.stop(Duration::from_millis(100)).await;
}

// spec: PI-35, PI-37
#[tokio::test]
async fn a_proxy_whose_workload_joins_a_service_is_told_what_it_serves_then() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    std::fs::write(dir.path().join("slice.yaml"), slice(&["10.0.0.8"])).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    client.subscribe(type_url::CLUSTER, &["*"]);
    let clusters = client.next().await;
    assert!(!sorted(&clusters.resources).contains(&"inbound|9080||"));
    std::fs::write(dir.path().join("slice.yaml"), slice(&["10.0.0.8", "10.0.0.9"])).unwrap();
    assert_eq!(sorted(&client.next().await.resources), ["inbound|9080||"]);
    std::fs::write(dir.path().join("slice.yaml"), slice(&["10.0.0.8"])).unwrap();
    assert_eq!(client.next().await.removed_resources, ["inbound|9080||"]);
    running.stop(Duration::from_millis(100)).await;
}

// spec: PI-37, PI-38
#[tokio::test]
async fn a_rule_for_connections_changes_the_listener_and_no_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let services = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: 10.96.0.3, ports: [{name: tcp, port: 5432}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: other}\nspec: {clusterIP: 10.96.0.4, ports: [{name: tcp, port: 5432}]}\n";
    let to = |host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: db}}\nspec: {{hosts: [db], tcp: [{{route: [{{destination: {{host: {host}, port: {{number: 5432}}}}}}]}}]}}\n"
        )
    };
    std::fs::write(dir.path().join("services.yaml"), services).unwrap();
    std::fs::write(dir.path().join("rule.yaml"), to("db")).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    for url in [type_url::CLUSTER, type_url::LISTENER] {
        client.subscribe(url, &["*"]);
        client.next().await;
    }
    std::fs::write(dir.path().join("rule.yaml"), to("other")).unwrap();
    let next = client.next().await;
    assert_eq!((next.type_url.as_str(), sorted(&next.resources)), (type_url::LISTENER, vec!["10.96.0.3_5432"]));
    let listener = &next.resources[0].resource.as_ref().unwrap().value;
    assert!(String::from_utf8_lossy(listener).contains("outbound|5432||other.default.svc.cluster.local"));
    running.stop(Duration::from_millis(100)).await;
}

// spec: XI-8, PI-42
#[tokio::test]
async fn a_refusal_names_the_objects_that_the_refused_resources_come_from() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("services.yaml"), SERVICES).unwrap();
    std::fs::write(dir.path().join("rule.yaml"), rule("3s")).unwrap();
    let policy = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: policy}\nspec: {host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}}\n";
    std::fs::write(dir.path().join("policy.yaml"), policy).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let mut client = Client::connect(channel(running.grpc.unwrap()).await, node(SIDECAR, &[])).await;
    for (url, name, refused) in [(type_url::CLUSTER, "*", REVIEWS), (type_url::ROUTE, "9080", "9080")] {
        client.subscribe(url, &[name]);
        let response = client.receive().await.unwrap();
        client.send(DeltaDiscoveryRequest {
            type_url: url.to_owned(),
            response_nonce: response.nonce,
            error_detail: Some(RpcStatus { code: 13, message: format!("{refused}: no"), ..RpcStatus::default() }),
            ..DeltaDiscoveryRequest::default()
        });
    }
    let nacks = eventually(running.http.unwrap(), "/debug/nacks", |body| body.contains("RDS")).await;
    let nacks: serde_json::Value = serde_json::from_str(&nacks).unwrap();
    let path = |kind: &str| format!("/apis/networking.istio.io/v1/namespaces/default/{kind}");
    assert_eq!(nacks[0]["objects"], serde_json::json!([path("destination-rule/policy")]));
    assert_eq!(nacks[0]["services"], serde_json::json!(["reviews.default.svc.cluster.local"]));
    assert_eq!(nacks[1]["objects"], serde_json::json!([path("virtual-service/reviews")]));
    running.stop(Duration::from_millis(100)).await;
}

// spec: MX-106
#[tokio::test]
async fn a_workload_has_its_owners_name_and_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: web-5d4f-x, namespace: shop, labels: {pod-template-hash: 5d4f}, \
               ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-5d4f, uid: u, controller: true}]}, \
               spec: {serviceAccountName: front}, status: {podIP: 10.0.0.1}}";
    std::fs::write(dir.path().join("pod.yaml"), pod).unwrap();
    let settings = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(settings.path(), "trustDomain: example.org\n").unwrap();
    let running = pilot(dir.path(), &["--mesh-config", settings.path().to_str().unwrap()]).await;
    let table = eventually(running.http.unwrap(), "/debug/workloadz", |body| body.contains("web-5d4f-x")).await;
    let table: serde_json::Value = serde_json::from_str(&table).unwrap();
    assert_eq!(
        (&table[0]["workload"], &table[0]["identity"]),
        (&"web".into(), &"spiffe://example.org/ns/shop/sa/front".into())
    );
}

#[tokio::test]
async fn rate_limits_in_force_are_shown_to_who_counts_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let limit = |requests: u32| {
        format!(
            "{{apiVersion: policy.ferromesh.io/v1alpha1, kind: RateLimit, metadata: {{name: api, namespace: shop}}, \
             spec: {{rules: [{{name: all, limit: {{requests: {requests}, unit: HOUR}}}}]}}}}"
        )
    };
    std::fs::write(dir.path().join("limit.yaml"), limit(7)).unwrap();
    let running = pilot(dir.path(), &[]).await;
    let http = running.http.unwrap();
    let shown = |body: &str| -> serde_json::Value { serde_json::from_str(body).unwrap() };
    let first = shown(&page(http, "/debug/ratelimitz").await.1);
    assert_eq!((&first[0]["namespace"], &first[0]["name"]), (&"shop".into(), &"api".into()));
    assert_eq!(first[0]["spec"]["rules"][0]["limit"]["requests"], 7);
    std::fs::write(dir.path().join("limit.yaml"), limit(0)).unwrap();
    eventually(http, "/debug/status", |body| body.contains("limit.yaml")).await;
    assert_eq!(
        shown(&page(http, "/debug/ratelimitz").await.1),
        first,
        "what is refused leaves the last good one in force"
    );
    std::fs::write(dir.path().join("limit.yaml"), limit(8)).unwrap();
    eventually(http, "/debug/ratelimitz", |body| body.contains("\"requests\":8")).await;
}
