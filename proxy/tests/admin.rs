//! The admin interface and the agent's ports over real sockets, with the real converter as the child.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use clap::Parser;
use prost::Message;
use proxy::bootstrap::{AdminAddress, Bootstrap, Converter, Environment, Flags};
use proxy::cluster::ClusterConfig;
use proxy::endpoint::{Address, Endpoint, Health, HostSet};
use proxy::env::ProcessClock;
use proxy::server::admin::{
    Admin, AdminParts, Command, Lifecycle, MainStats, Published, Stage, StatsReader, TapDoor, own_stats,
};
use proxy::server::application::Application;
use proxy::server::logging::Logging;
use proxy::server::probe::Probes;
use proxy::telemetry::names::ClusterMetric;
use proxy::telemetry::tap::{MAX_TAPS, Tap};
use proxy::telemetry::{Cells, Registry};
use proxy::xds::{Cause, Feed, FeedOptions, Kind, Rejection, Resource};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

/// An admin interface over a small configuration.
struct Bench {
    address: AdminAddress,
    parts: Arc<AdminParts>,
    stage: watch::Sender<Stage>,
    commands: mpsc::Receiver<Command>,
    taps: mpsc::Receiver<Tap>,
    cluster_cells: Cells<ClusterMetric>,
    endpoint: Arc<Endpoint>,
    published: watch::Sender<Arc<Published>>,
}

fn bootstrap(flags: Flags) -> Bootstrap {
    let json = json!({
        "node": {"id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local", "cluster": "a.default",
            "metadata": {"LABELS": {"app": "a"}}},
        "layered_runtime": {"layers": [{"name": "s", "static_layer": {"a.b": 5}}]},
        "static_resources": {
            "clusters": [{"name": "fixed", "type": "STATIC", "load_assignment": {"cluster_name": "fixed"}}],
            "listeners": [{"name": "in", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 9}},
                "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "route_config": {"name": "inline", "virtual_hosts": [{"name": "v", "domains": ["*"]}]}}}]}]}],
            "secrets": [{"name": "own", "tls_certificate": {"certificate_chain": {"inline_string": certificate()},
                "private_key": {"inline_string": "top secret"}}}]}
    });
    let bytes = proto::json::from_value("envoy.config.bootstrap.v3.Bootstrap", &json).unwrap();
    let written = proto::envoy::bootstrap::Bootstrap::decode(bytes.as_slice()).unwrap();
    Bootstrap::check(written, flags, Environment::default()).unwrap()
}

fn certificate() -> String {
    let names = [rcgen::SanType::URI("spiffe://cluster.local/ns/default/sa/a".try_into().unwrap())];
    let mut params = rcgen::CertificateParams::new(vec!["a.default".to_owned()]).unwrap();
    params.subject_alt_names.extend(names);
    params.serial_number = Some(rcgen::SerialNumber::from(vec![0x0a, 0xff]));
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn flags(arguments: &[&str]) -> Flags {
    Cli::try_parse_from(std::iter::once("proxy").chain(arguments.iter().copied())).unwrap().flags
}

/// A feed that holds the static resources, one dynamic cluster with endpoints, and one refused cluster.
async fn store(bootstrap: &Bootstrap) -> watch::Receiver<proxy::xds::Store> {
    let options = FeedOptions {
        node: bootstrap.node.clone(),
        converter: Converter::new("/nonexistent".into()),
        tls: None,
        also: Vec::new(),
        own_secret_services: BTreeSet::new(),
    };
    let mut feed = Feed::new(bootstrap.clone(), options).unwrap();
    let store = feed.store();
    let batch = feed.next().await;
    assert_eq!(batch.cause, Cause::Bootstrap);
    feed.settle(batch, Vec::new());
    let handle = feed.handle();
    for (kind, type_name, json) in [
        (Kind::Cluster, "envoy.config.cluster.v3.Cluster", json!({"name": "outbound|80||b"})),
        (Kind::Cluster, "envoy.config.cluster.v3.Cluster", json!({"name": "bad"})),
        (Kind::Endpoint, "envoy.config.endpoint.v3.ClusterLoadAssignment", json!({"cluster_name": "outbound|80||b"})),
        (Kind::Route, "envoy.config.route.v3.RouteConfiguration", json!({"name": "80"})),
    ] {
        let name = json.get("name").or_else(|| json.get("cluster_name")).unwrap().as_str().unwrap();
        let body = proto::json::from_value(type_name, &json).unwrap().into();
        handle.provide(kind, Arc::new(Resource { name: name.into(), version: "v7".into(), body })).await;
        let batch = feed.next().await;
        let refused = Rejection { kind, name: "bad".into(), field: "lb_policy".into(), why: "is wrong".into() };
        feed.settle(batch, if name == "bad" { vec![refused] } else { Vec::new() });
    }
    let info =
        proto::missing::NameInfo { ips: vec!["10.96.0.1".into()], namespace: "default".into(), ..Default::default() };
    let table = proto::missing::NameTable { table: [("b.default.svc.cluster.local".to_owned(), info)].into() };
    let body = table.encode_to_vec().into();
    handle.provide(Kind::NameTable, Arc::new(Resource { name: "".into(), version: "v7".into(), body })).await;
    let batch = feed.next().await;
    feed.settle(batch, Vec::new());
    store
}

async fn bench(address: AdminAddress, arguments: &[&str]) -> Bench {
    let bootstrap = bootstrap(flags(arguments));
    let (stage, stages) = watch::channel(Stage::Live);
    let (sender, commands) = mpsc::channel(8);
    let (tap_to, taps) = mpsc::channel(8);
    let mut endpoint = Endpoint::at(Address::Ip("10.0.0.2:80".parse().unwrap()));
    endpoint.health = Health::Degraded;
    endpoint.weight = 3;
    endpoint.shared.active.store(2, Ordering::Relaxed);
    let cluster = Arc::new(ClusterConfig::plain("outbound|80||b"));
    let hosts = Arc::new(HostSet::flat(vec![endpoint, Endpoint::at(Address::Ip("10.0.0.3:80".parse().unwrap()))]));
    let endpoint = hosts.iter().next().unwrap().clone();
    let everything = Published { clusters: vec![(cluster, hosts)], listeners: Vec::new() };
    let (published, seen) = watch::channel(Arc::new(everything));
    let registry = Registry::new();
    let cluster_cells = registry.registrar(10).named::<ClusterMetric>("outbound|80||b");
    let (stats, asked) = StatsReader::channel();
    let main_stats = MainStats::new(&registry);
    tokio::spawn(own_stats(registry, asked));
    let parts = Arc::new(AdminParts {
        store: Box::pin(store(&bootstrap)).await,
        logging: Logging::detached(&bootstrap.flags).unwrap(),
        bootstrap: Arc::new(bootstrap),
        converter: Converter::new(env!("CARGO_BIN_EXE_proxy").into()),
        published: seen,
        lifecycle: Lifecycle::starting_at(Instant::now(), stages.clone()),
        stage: stages,
        stats,
        main_stats,
        clock: ProcessClock::start(),
        commands: sender,
        taps: TapDoor::new(tap_to),
    });
    let admin = Admin::bind(&address, parts.clone()).unwrap();
    let address = admin.address().unwrap();
    tokio::spawn(admin.serve());
    Bench { address, parts, stage, commands, taps, cluster_cells, endpoint, published }
}

async fn tcp_bench() -> Bench {
    Box::pin(bench(AdminAddress::Tcp("127.0.0.1:0".parse().unwrap()), &[])).await
}

/// Status and body of a request over HTTP/1.0, so that the body ends with the connection.
async fn ask(address: &AdminAddress, method: &str, path: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.0\r\nhost: admin\r\n\r\n");
    let mut answer = Vec::new();
    let exchange = async {
        match address {
            AdminAddress::Tcp(address) => {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                stream.read_to_end(&mut answer).await.unwrap();
            }
            AdminAddress::Unix(path, _) => {
                let mut stream = UnixStream::connect(path).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                stream.read_to_end(&mut answer).await.unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), exchange).await.expect("an answer within 30 s");
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

impl Bench {
    async fn get(&self, path: &str) -> (u16, String) {
        ask(&self.address, "GET", path).await
    }

    async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

// spec: AD-1, AD-12
// bar: S2
#[tokio::test]
async fn config_dump_is_strict_json_of_envoys_messages_without_secrets() {
    let bench = tcp_bench().await;
    let dump = bench.json("/config_dump?include_eds").await;
    let types: Vec<&str> = dump["configs"].as_array().unwrap().iter().map(|c| c["@type"].as_str().unwrap()).collect();
    let expected = ["Bootstrap", "Clusters", "Endpoints", "Listeners", "ScopedRoutes", "Routes", "Secrets", "Ecds"];
    assert_eq!(types, expected.map(|name| format!("type.googleapis.com/envoy.admin.v3.{name}ConfigDump")));
    proto::json::from_value("envoy.admin.v3.ConfigDump", &dump).unwrap();
    assert!(!dump.to_string().contains("top secret"));
    let clusters = &dump["configs"][1];
    assert_eq!(clusters["static_clusters"][0]["cluster"]["name"], "fixed");
    let dynamic = &clusters["dynamic_active_clusters"][0];
    assert_eq!((&dynamic["cluster"]["name"], &dynamic["version_info"]), (&json!("outbound|80||b"), &json!("v7")));
    let refused = &clusters["dynamic_warming_clusters"][0]["error_state"];
    assert_eq!(refused["details"], "bad: lb_policy: is wrong");
    assert_eq!(dump["configs"][5]["static_route_configs"][0]["route_config"]["name"], "inline");
    assert_eq!(dump["configs"][0]["bootstrap"]["node"]["cluster"], "a.default");
    let without = bench.json("/config_dump").await;
    assert_eq!(without["configs"].as_array().unwrap().len(), 7);
    let only = bench.json("/config_dump?resource=dynamic_active_clusters&name_regex=outbound").await;
    assert_eq!(only["configs"][0]["@type"], "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster");
    assert_eq!(only["configs"].as_array().unwrap().len(), 1);
    let none = bench.json("/config_dump?resource=dynamic_active_clusters&name_regex=none").await;
    assert_eq!(none, json!({}));
    assert_eq!(bench.get("/config_dump?resource=nothing").await.0, 404);
    let masked = bench.json("/config_dump?resource=dynamic_active_clusters&mask=cluster.name").await;
    assert_eq!(masked["configs"][0]["cluster"]["name"], "outbound|80||b");
    assert_eq!(masked["configs"][0].as_object().unwrap().len(), 2, "beside its type: {masked}");
    assert_eq!(bench.get("/config_dump?mask=nothing").await.0, 400);
    assert_eq!(bench.get("/config_dump?other=a").await, (400, "not supported yet: other\n".to_owned()));
}

// spec: AD-2, AD-5
#[tokio::test]
async fn clusters_show_endpoints_with_health_and_load() {
    let bench = tcp_bench().await;
    let (_, text) = bench.get("/clusters").await;
    for line in [
        "outbound|80||b::added_via_api::true",
        "outbound|80||b::default_priority::max_connections::1024",
        "outbound|80||b::10.0.0.2:80::rq_active::2",
        "outbound|80||b::10.0.0.2:80::health_flags::/degraded_eds_health",
        "outbound|80||b::10.0.0.2:80::weight::3",
        "outbound|80||b::10.0.0.3:80::health_flags::healthy",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    bench.endpoint.shared.ejected_until.store(u64::MAX, Ordering::Relaxed);
    let json = bench.json("/clusters?format=json").await;
    proto::json::from_value("envoy.admin.v3.Clusters", &json).unwrap();
    let host = &json["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"], json!({"address": "10.0.0.2", "port_value": 80}));
    assert_eq!(host["health_status"], json!({"eds_health_status": "DEGRADED", "failed_outlier_check": true}));
    let listeners = bench.json("/listeners?format=json").await;
    proto::json::from_value("envoy.admin.v3.Listeners", &listeners).unwrap();
    assert_eq!(bench.get("/listeners").await, (200, String::new()));
    bench.published.send_replace(Arc::default());
    assert_eq!(bench.json("/clusters?format=json").await["cluster_statuses"], json!([]));
}

// spec: AD-3, AD-8, HL-2
#[tokio::test]
async fn server_info_and_readiness_follow_the_stage() {
    let bench = tcp_bench().await;
    assert_eq!(bench.get("/ready").await, (200, "LIVE\n".to_owned()));
    for (stage, name) in [
        (Stage::PreInitializing, "PRE_INITIALIZING"),
        (Stage::Initializing, "INITIALIZING"),
        (Stage::Draining, "DRAINING"),
    ] {
        bench.stage.send_replace(stage);
        assert_eq!(bench.get("/ready").await, (503, format!("{name}\n")));
        let info = bench.json("/server_info").await;
        assert_eq!(info["state"], name);
        assert_eq!(info["node"]["metadata"]["LABELS"]["app"], "a");
        assert_eq!(info["version"].as_str().unwrap().split('/').count(), 5, "{}", info["version"]);
    }
    assert_eq!(bench.json("/runtime").await["entries"]["a.b"]["final_value"], "5");
    let memory = bench.json("/memory").await;
    assert!(memory["allocated"].as_str().unwrap().parse::<u64>().unwrap() > 1_000_000);
}

// spec: AD-4, ST-6
#[tokio::test]
async fn stats_are_shown_as_text_json_and_for_prometheus() {
    let bench = tcp_bench().await;
    bench.cluster_cells.add(ClusterMetric::UpstreamRqTotal, 5);
    let (_, text) = bench.get("/stats?usedonly&filter=upstream_rq_total").await;
    assert_eq!(text, "cluster.outbound|80||b.upstream_rq_total: 5\n");
    let (_, state) = bench.get("/stats?filter=^server.state$").await;
    assert_eq!(state, "server.state: 0\n");
    let (_, prometheus) = bench.get("/stats/prometheus?usedonly").await;
    assert!(
        prometheus.contains("envoy_cluster_upstream_rq_total{envoy_cluster_name=\"outbound|80||b\"} 5\n"),
        "{prometheus}"
    );
    assert!(prometheus.contains("envoy_cluster_manager_cds_update_rejected{} 1\n"), "{prometheus}");
    assert_eq!(bench.get("/stats?format=prometheus&usedonly").await.1.lines().count(), prometheus.lines().count());
    let (_, state) = bench.get("/stats?usedonly&filter=membership|upstream_rq_active|ejections").await;
    let expected = "cluster.outbound|80||b.membership_degraded: 1\ncluster.outbound|80||b.membership_healthy: 1\n\
        cluster.outbound|80||b.membership_total: 2\ncluster.outbound|80||b.upstream_rq_active: 2\n";
    assert_eq!(state, expected);
    let json = bench.json("/stats?format=json&type=Counters&usedonly&filter=upstream").await;
    assert_eq!(json["stats"][0], json!({"name": "cluster.outbound|80||b.upstream_rq_total", "value": 5}));
    bench.cluster_cells.record(ClusterMetric::UpstreamRqTime, 7);
    bench.cluster_cells.record(ClusterMetric::UpstreamRqTime, 30);
    for (buckets, shown) in [("cumulative", ["B10(nan,1)", "B50(nan,2)"]), ("disjoint", ["B10(nan,1)", "B50(nan,1)"])] {
        let (_, text) = bench.get(&format!("/stats?filter=upstream_rq_time&histogram_buckets={buckets}")).await;
        assert!(shown.iter().all(|bucket| text.split(' ').any(|found| found.trim() == *bucket)), "{text}");
    }
    assert_eq!(bench.get("/stats?histogram_buckets=detailed").await.0, 400);
    assert_eq!(bench.get("/stats?filter=(").await.0, 400);
    assert_eq!(bench.get("/stats?type=Nothing").await.0, 400);
    let (_, days) = bench.get("/stats?filter=days_until").await;
    assert!(
        days.trim_start_matches("server.days_until_first_cert_expiring: ").trim().parse::<u64>().unwrap() > 20_000,
        "{days}"
    );
}

// spec: ST-4
#[tokio::test]
async fn the_process_is_shown() {
    let bench = Box::pin(bench(AdminAddress::Tcp("127.0.0.1:0".parse().unwrap()), &["--restart-epoch", "3"])).await;
    let text = loop {
        let (_, text) = bench.get("/stats?filter=^server").await;
        if !text.contains("initialization_time_ms: No recorded values") {
            break text;
        }
        tokio::task::yield_now().await;
    };
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("server.{name}: ")));
    for (name, wanted) in [("state", "0"), ("live", "1"), ("hot_restart_epoch", "3"), ("total_connections", "0")] {
        assert_eq!(value(name), Some(wanted), "{name}: {text}");
    }
    for name in ["uptime", "concurrency", "memory_allocated", "memory_heap_size", "days_until_first_cert_expiring"] {
        assert!(value(name).unwrap().parse::<u64>().is_ok(), "{name}: {text}");
    }
    assert!(value("initialization_time_ms").unwrap().starts_with("P0(nan,0)"), "{text}");
    let again = bench.get("/stats/prometheus?filter=initialization_time_ms_?").await.1;
    assert!(again.contains("envoy_server_initialization_time_ms_count{} 1\n"), "recorded once: {again}");
}

// spec: AD-6, AD-9, AD-11
// bar: S8
#[tokio::test]
async fn what_changes_something_needs_post() {
    let mut bench = tcp_bench().await;
    let address = bench.address.clone();
    for path in
        ["/quitquitquit", "/drain_listeners", "/healthcheck/fail", "/healthcheck/ok", "/logging", "/reopen_logs"]
    {
        let (status, body) = ask(&address, "GET", path).await;
        assert_eq!((status, body.as_str()), (405, "Method GET not allowed, POST required."), "{path}");
        let (status, _) =
            ask(&address, "POST", &format!("{path} HTTP/1.0\r\norigin: http://evil.test\r\nx-rest: ")).await;
        assert_eq!(status, 403, "{path} from a page");
    }
    assert!(bench.commands.try_recv().is_err());
    let cases = [
        ("/quitquitquit", Command::Quit),
        ("/drain_listeners", Command::Drain { inbound_only: false, graceful: false, skip_exit: false }),
        (
            "/drain_listeners?graceful&inboundonly&skip_exit",
            Command::Drain { inbound_only: true, graceful: true, skip_exit: true },
        ),
        ("/healthcheck/fail", Command::FailHealthChecks),
        ("/healthcheck/ok", Command::PassHealthChecks),
        ("/reopen_logs", Command::ReopenLogs),
    ];
    for (path, command) in cases {
        assert_eq!(ask(&address, "POST", path).await, (200, "OK\n".to_owned()));
        assert_eq!(bench.commands.recv().await, Some(command));
    }
    let refused = (400, "skip_exit requires graceful\n".to_owned());
    assert_eq!(ask(&address, "POST", "/drain_listeners?skip_exit").await, refused);
    assert!(bench.commands.try_recv().is_err());
    let (_, levels) = ask(&address, "POST", "/logging?paths=http:trace,pool:debug").await;
    assert!(levels.contains("  http: trace\n") && levels.contains("  pool: debug\n"), "{levels}");
    let (_, levels) = ask(&address, "POST", "/logging?level=error").await;
    assert!(levels.lines().skip(1).all(|line| line.ends_with(": error")), "{levels}");
    assert_eq!(ask(&address, "POST", "/logging?level=loud").await.0, 400);
    let (status, help) = bench.get("/nothing").await;
    assert!(status == 404 && help.contains("/config_dump"), "{help}");
    assert_eq!(bench.get("/help").await.0, 200);
}

// spec: AD-7
#[tokio::test]
async fn certificates_are_listed_with_names_and_expiry() {
    let bench = tcp_bench().await;
    let certs = bench.json("/certs").await;
    proto::json::from_value("envoy.admin.v3.Certificates", &certs).unwrap();
    let leaf = &certs["certificates"][0]["cert_chain"][0];
    assert_eq!(
        leaf["subject_alt_names"],
        json!([{"dns": "a.default"}, {"uri": "spiffe://cluster.local/ns/default/sa/a"}])
    );
    assert_eq!((&leaf["expiration_time"], &leaf["serial_number"]), (&json!("2099-01-01T00:00:00Z"), &json!("0aff")));
}

#[tokio::test]
async fn a_unix_socket_serves_its_owner_only_and_a_stale_one_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address_file = directory.path().join("address");
    let arguments = ["--admin-address-path", address_file.to_str().unwrap()];
    let bench = Box::pin(bench(AdminAddress::Unix(path.clone(), 0o600), &arguments)).await;
    assert_eq!(bench.get("/ready").await.0, 200);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(address_file).unwrap(), path.display().to_string());
    let taken = Admin::bind(&AdminAddress::Unix(path, 0o600), bench.parts.clone()).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

/// An application that answers every request with this.
async fn application(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(request.get(..count).unwrap_or_default()).to_lowercase();
            let is_probe = peer.ip().to_string() == "127.0.0.6"
                && (request.contains("x-probe: yes") || request.contains("/metrics"));
            let answer = if is_probe { answer } else { "HTTP/1.1 418 no\r\ncontent-length: 0\r\n\r\n" };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    port
}

// spec: HL-1, HL-2, HL-6, PT-5, OB-4
#[tokio::test]
async fn the_ports_of_the_agent_answer_probes_and_merge_metrics() {
    let mut bench = tcp_bench().await;
    let port = application("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\napp_x 1").await;
    let probes = json!({
        "/app-health/app/readyz": {"httpGet": {"path": "healthz", "port": port, "httpHeaders": [{"name": "X-Probe", "value": "yes"}]}, "timeoutSeconds": 5},
        "/app-health/app/livez": {"httpGet": {"path": "/healthz", "port": port}},
        "/app-health/app/startupz": {"tcpSocket": {"port": port}},
        "/app-health/closed/livez": {"tcpSocket": {"port": 1}},
    });
    let annotations = json!({"scrape": "true", "path": "/metrics", "port": port.to_string()});
    let environment = Environment::from([
        ("ISTIO_KUBE_APP_PROBERS", probes.to_string().as_str()),
        ("ISTIO_PROMETHEUS_ANNOTATIONS", annotations.to_string().as_str()),
    ]);
    let application = Application::of(&environment).unwrap();
    let flags = flags(&["--status-port", "0", "--ready-port", "0", "--metrics-port", "0"]);
    let agent = Probes::bind(&flags, application, bench.parts.clone()).unwrap();
    let local = |address: &AdminAddress| match address {
        AdminAddress::Tcp(address) => AdminAddress::Tcp(([127, 0, 0, 1], address.port()).into()),
        other => other.clone(),
    };
    let addresses: Vec<AdminAddress> = agent.addresses().unwrap().iter().map(local).collect();
    let [status, ready, metrics] = addresses.as_slice() else { panic!("{addresses:?}") };
    tokio::spawn(agent.serve());
    assert_eq!(ask(status, "GET", "/app-health/app/readyz").await, (200, "app_x 1".to_owned()));
    assert_eq!(ask(status, "GET", "/app-health/app/livez").await.0, 418, "the application's own status");
    assert_eq!(ask(status, "GET", "/app-health/app/startupz").await.0, 200);
    assert_eq!(ask(status, "GET", "/app-health/closed/livez").await.0, 500);
    let (_, names) = ask(status, "GET", "/debug/ndsz").await;
    let names: Value = serde_json::from_str(&names).unwrap();
    assert_eq!(names["table"]["b.default.svc.cluster.local"]["ips"], json!(["10.96.0.1"]));
    assert_eq!(ask(ready, "GET", "/debug/ndsz").await.0, 404);
    assert_eq!(ask(status, "GET", "/app-health/other/livez").await.0, 404);
    assert_eq!(ask(ready, "GET", "/healthz/ready").await.0, 200);
    bench.stage.send_replace(Stage::Initializing);
    assert_eq!(ask(ready, "GET", "/healthz/ready").await.0, 503);
    assert_eq!(ask(ready, "GET", "/stats/prometheus").await.0, 404);
    let (_, own) = ask(metrics, "GET", "/stats/prometheus").await;
    assert!(own.contains("envoy_server_state{} 3\n") && !own.contains("app_x"), "{own}");
    let (_, merged) = ask(status, "GET", "/stats/prometheus").await;
    assert!(merged.contains("envoy_server_state{} 3\n") && merged.ends_with("\napp_x 1\n"), "{merged}");
    let (code, instead) = ask(status, "GET", "/debug/pprof/heap").await;
    assert!(code == 404 && instead.contains("/memory"), "what Go's profiles tell is elsewhere: {instead}");
    assert_eq!(ask(status, "GET", "/quitquitquit").await.0, 405);
    assert_eq!(ask(status, "POST", "/quitquitquit").await, (200, "OK\n".to_owned()));
    assert_eq!(bench.commands.recv().await, Some(Command::Quit));
}

// spec: CT-43
#[tokio::test]
async fn a_tap_has_its_time_there_are_only_so_many_and_what_is_wrong_is_said() {
    let mut bench = tcp_bench().await;
    let (status, why) = ask(&bench.address, "GET", "/tap?colour=red").await;
    assert_eq!((status, why.starts_with("colour=red: not known: one of direction")), (400, true), "{why}");
    let AdminAddress::Tcp(address) = bench.address.clone() else { panic!("a TCP address") };
    let mut open = Vec::new();
    for _ in 0..MAX_TAPS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /tap?seconds=60 HTTP/1.1\r\nhost: admin\r\n\r\n").await.unwrap();
        let tap = bench.taps.recv().await.unwrap();
        open.push((stream, tap));
    }
    let (status, why) = ask(&bench.address, "GET", "/tap").await;
    assert_eq!((status, why.as_str()), (503, "4 taps are open already: end one first\n"));
    let (stream, tap) = open.pop().unwrap();
    drop(stream);
    tap.reader_gone().await;
    let start = Instant::now();
    let answer = loop {
        let answer = ask(&bench.address, "GET", "/tap?seconds=1").await;
        if answer.0 == 200 || start.elapsed() > Duration::from_secs(10) {
            break answer;
        }
    };
    assert_eq!(answer, (200, String::new()), "its place is free, and its time was over");
}
