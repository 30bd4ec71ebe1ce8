//! A pilot in process that watches a cluster, what it tells a proxy, and the bookshop as objects of a cluster.

use clap::Parser;
use e2e::cluster::{Cluster, PATIENCE};
use meshctl::demo::plan::{DataPlane, Plan, Proxy, Workload};
use pilot::args::{Cli, Command};
use pilot::delivery;
use pilot::server::{Running, Server};
use pilot::translate::cache::ResourceType;
use pilot::translate::{Node, Snapshot};
use proto::envoy::wkt::Struct;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// A pilot that watches a cluster; it may not be ready yet.
pub(crate) async fn pilot_of(cluster: &Cluster, more: &[&str]) -> Running {
    let kubeconfig = cluster.kubeconfig().to_str().unwrap().to_owned();
    pilot(&[&["--kubeconfig", &kubeconfig], more].concat()).await
}

/// A pilot that reads a directory.
pub(crate) async fn pilot_of_directory(directory: &Path, more: &[&str]) -> Running {
    let directory = directory.to_str().unwrap().to_owned();
    pilot(&[&["--config-dir", &directory], more].concat()).await
}

async fn pilot(source: &[&str]) -> Running {
    let closed = ["--secure-grpc-addr", "", "--grpc-addr", ""];
    let pages = ["--http-addr", "127.0.0.1:0", "--monitoring-addr", "127.0.0.1:0"];
    pilot_with(&[&closed, &pages, source].concat()).await
}

/// A pilot with these flags and no others.
pub(crate) async fn pilot_with(flags: &[&str]) -> Running {
    let line = ["pilot", "discovery"].iter().chain(flags);
    let Command::Discovery(args) = Cli::try_parse_from(line).unwrap().command else { panic!("discovery") };
    Box::pin(Server::new(*args, None).start()).await.unwrap()
}

/// Waits until pilot is ready.
pub(crate) async fn ready(pilot: &Running) {
    let mut ready = pilot.hub.ready();
    tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await.expect("pilot is never ready").unwrap();
}

/// Connects a node; its snapshots.
pub(crate) async fn connect(pilot: &Running, node: Node) -> delivery::hub::Connection {
    pilot.hub.ask(|answer| delivery::Command::Connect(Box::new(node), answer)).await.unwrap()
}

/// Waits until a snapshot says what is waited for.
pub(crate) async fn until(
    connection: &mut delivery::hub::Connection,
    says: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let wait = connection.snapshots.wait_for(|snapshot| says(snapshot));
    tokio::time::timeout(PATIENCE, wait).await.expect("no snapshot ever said it").unwrap().clone()
}

/// A page of pilot: status and text.
pub(crate) async fn page(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What is wrong, by pilot.
pub(crate) async fn status(pilot: &Running) -> delivery::hub::Status {
    pilot.hub.ask(delivery::Command::Status).await.unwrap()
}

/// All resources: type, name, bytes.
pub(crate) fn resources(snapshot: &Snapshot) -> Vec<(String, String, Vec<u8>)> {
    let of = |kind: ResourceType| {
        let one = move |resource: &Arc<pilot::translate::cache::Encoded>| {
            (format!("{kind:?}"), resource.name.to_string(), resource.bytes.to_vec())
        };
        snapshot.of(kind).iter().map(one).collect::<Vec<_>>()
    };
    ResourceType::ALL.into_iter().flat_map(of).collect()
}

/// Names of the clusters.
pub(crate) fn clusters(snapshot: &Snapshot) -> Vec<String> {
    snapshot.of(ResourceType::Cluster).iter().map(|resource| resource.name.to_string()).collect()
}

/// The node of a workload, as its proxy presents itself.
pub(crate) fn node(workload: &Workload) -> Node {
    let role = if workload.proxy == Proxy::Gateway { "router" } else { "sidecar" };
    let (namespace, pod) = (workload.kube_namespace, workload.pod_name());
    let id = format!("{role}~{}~{pod}.{namespace}~{namespace}.svc.cluster.local", workload.v4);
    let metadata = json!({"LABELS": workload.labels(), "NAMESPACE": namespace, "SERVICE_ACCOUNT": workload.account});
    let wire = proto::envoy::core::Node { id, metadata: Some(structure(&metadata)), ..Default::default() };
    Node::parse(&wire).unwrap()
}

/// JSON of texts and maps as the wire has it.
pub(crate) fn structure(json: &Value) -> Struct {
    use proto::envoy::wkt::Value as Wire;
    use proto::envoy::wkt::value::Kind;
    let field = |(key, value): (&String, &Value)| {
        let kind = match value {
            Value::Object(_) => Kind::StructValue(structure(value)),
            other => Kind::StringValue(other.as_str().unwrap().to_owned()),
        };
        (key.clone(), Wire { kind: Some(kind) })
    };
    Struct { fields: json.as_object().unwrap().iter().map(field).collect() }
}

/// The demo's plan.
pub(crate) fn plan() -> Plan {
    Plan::new("kube", DataPlane::Ferromesh)
}

/// A YAML file of the demo.
pub(crate) fn demo_yaml(name: &str) -> String {
    std::fs::read_to_string(e2e::root().join("meshctl/src/demo/yaml").join(name)).unwrap()
}

/// The definitions of the mesh's kinds, established.
pub(crate) fn apply_definitions(cluster: &Cluster) {
    cluster.apply(&pilot::source::kube::crd::manifests().to_string()).unwrap();
    // kubectl fails at once where the API server has not said anything yet about one of them.
    let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=20s"];
    cluster.eventually(&wait, |_| true).unwrap();
}

/// Applies objects, and after them the status of the pods, which is a resource of its own.
pub(crate) fn apply_with_status(cluster: &Cluster, objects: &Value) {
    let items = objects["items"].as_array().unwrap();
    let is = |kind: &'static str| move |item: &&Value| item["kind"] == kind;
    let namespaces: Vec<&Value> = items.iter().filter(is("Namespace")).collect();
    let rest: Vec<&Value> = items.iter().filter(|item| item["kind"] != "Namespace").collect();
    for list in [namespaces, rest] {
        cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": list}).to_string()).unwrap();
    }
    for pod in items.iter().filter(is("Pod")) {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap().to_owned();
        let patch = json!({"status": pod["status"]}).to_string();
        let (name, namespace) = (text("name"), text("namespace"));
        let target = ["patch", "pod", &name, "-n", &namespace, "--subresource=status", "--type=merge", "-p", &patch];
        cluster.kubectl(&target).unwrap();
    }
}

/// The image of an application that answers, `localhost/tapp:1`, on the nodes.
pub(crate) fn load_application(cluster: &Cluster, directory: &Path) {
    let scripts = e2e::root().join("e2e/kube");
    let programs = std::process::Command::new(scripts.join("build.sh")).output().unwrap();
    let programs = std::path::PathBuf::from(String::from_utf8(programs.stdout).unwrap().trim());
    let (archive, tapp) = (directory.join("tapp.tar"), format!("{}:/tapp:755", programs.join("tapp").display()));
    let mut image = std::process::Command::new("python3");
    image.arg(scripts.join("mkimage.py")).arg(&archive);
    image.args(["localhost/tapp:1", "--entrypoint", "[\"/tapp\"]", &tapp]);
    assert!(image.status().unwrap().success());
    cluster.load(&archive).unwrap();
}
