//! A cluster of one node with Istio's control plane and our proxy, by Istio's own charts.

use crate::images;
use e2e::cluster::{Cluster, PATIENCE};
use e2e::helm::Helm;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Instant;

/// What Istio's charts are told: our image where Istio's proxy would stand, small requests, all that proxies can report.
const VALUES: &str = "
profile: demo
image: localhost/istiod:1
autoscaleEnabled: false
resources: {requests: {cpu: 50m, memory: 128Mi}}
global:
  hub: ferromesh
  tag: 0.1.0
  imagePullPolicy: IfNotPresent
  proxy: {image: proxy, resources: {requests: {cpu: 10m, memory: 24Mi}, limits: {cpu: 2000m, memory: 256Mi}}}
  proxy_init: {image: proxy}
meshConfig:
  accessLogFile: /dev/stdout
  enableTracing: true
  # Istio waits for ever; ours waits so long by itself (D7).
  protocolDetectionTimeout: 0.1s
  # What ours does by default (D12).
  defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'true'}}
  extensionProviders:
  - {name: spans, opentelemetry: {service: collector.istio-system.svc.cluster.local, port: 4317}}
  - {name: zipkin, zipkin: {service: collector.istio-system.svc.cluster.local, port: 9411}}
  - {name: logs, envoyOtelAls: {service: collector.istio-system.svc.cluster.local, port: 4317}}
";

/// The gateway's chart: its pod is made by istiod's injector from the template for gateways.
const GATEWAY: &str = "service.type=NodePort,autoscaling.enabled=false,resources.requests.cpu=10m,resources.requests.memory=24Mi,imagePullPolicy=IfNotPresent";

/// Where spans and entries of logs would go; nobody need listen there.
const COLLECTOR: &str = "
apiVersion: v1
kind: Service
metadata: {name: collector, namespace: istio-system}
spec: {ports: [{name: grpc, port: 4317}, {name: http, port: 9411}]}
";

static MESH: LazyLock<Mesh> = LazyLock::new(Mesh::start);

/// A cluster with istiod. It ends with this process.
pub(crate) struct Mesh {
    pub(crate) cluster: Cluster,
    node: String,
}

impl Mesh {
    /// The one mesh; who asks first starts it.
    pub(crate) fn get() -> &'static Self {
        &MESH
    }

    #[expect(clippy::disallowed_methods, reason = "who writes tests says so to all of them at once")]
    fn start() -> Self {
        let begun = Instant::now();
        let istiod = made();
        println!("istiod: image there after {:.1} s", begun.elapsed().as_secs_f64());
        // Who writes tests keeps a cluster: `e2e/kube/cluster.sh up NAME`.
        let cluster = match std::env::var("E2E_CLUSTER") {
            Ok(name) => Cluster::existing(&name).unwrap(),
            Err(_) => Cluster::start("istiod", 1).unwrap(),
        };
        let begun = Instant::now();
        let directory = tempfile::tempdir().unwrap();
        images::load(&cluster, directory.path(), &["proxy", "bookshop", "tools"]);
        cluster.load(&istiod.join("istiod.tar")).unwrap();
        println!("istiod: images made and loaded in {:.1} s", begun.elapsed().as_secs_f64());
        let node =
            cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}"]).unwrap();
        let mesh = Self { cluster, node };
        mesh.install(&istiod, directory.path());
        mesh
    }

    fn install(&self, istiod: &std::path::Path, directory: &std::path::Path) {
        let begun = Instant::now();
        let helm = Helm { cluster: &self.cluster, directory };
        let charts = istiod.join("charts");
        let values = directory.join("values.yaml");
        std::fs::write(&values, VALUES).unwrap();
        let install = |name: &str, chart: &str, flags: &[&str]| {
            let chart = charts.join(chart);
            let fixed = ["upgrade", "--install", name, chart.to_str().unwrap(), "-n", "istio-system"];
            helm.run(&[&fixed[..], &["--create-namespace", "--wait", "--timeout", "3m"], flags].concat()).unwrap();
        };
        install("istio-base", "base", &[]);
        install("istiod", "istio-control/istio-discovery", &["-f", values.to_str().unwrap()]);
        let ready = begun.elapsed();
        install("istio-ingressgateway", "gateway", &["--set", GATEWAY]);
        self.cluster.apply(COLLECTOR).unwrap();
        let (istiod, both) = (ready.as_secs_f64(), begun.elapsed().as_secs_f64());
        println!("istiod: ready {istiod:.1} s after helm began, with a gateway of ours {both:.1} s");
    }

    /// The port of the node that leads to a port of the ingress gateway.
    pub(crate) fn gateway(&self, port: u16) -> SocketAddr {
        let of = format!("jsonpath={{.spec.ports[?(@.port=={port})].nodePort}}");
        let number = self.cluster.kubectl(&["get", "service", "istio-ingressgateway", "-n", "istio-system", "-o", &of]);
        SocketAddr::new(self.node.parse().unwrap(), number.unwrap().parse().unwrap())
    }

    /// A page of istiod's port for operators. It answers its own pod, which is where a forwarded port comes from.
    pub(crate) fn page(&self, path: &str) -> String {
        let forward = Forward::new(&self.cluster);
        let begun = Instant::now();
        loop {
            match forward.get(path) {
                Ok(text) => return text,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{path}: {error}"),
            }
        }
    }
}

/// Image and charts of istiod, made where they are not in the cache.
fn made() -> PathBuf {
    let output = Command::new(e2e::root().join("e2e/kube/istiod.sh")).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "istiod cannot be built");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// A port of this machine that leads to istiod's; it ends with this value.
struct Forward {
    child: Child,
    address: SocketAddr,
}

impl Forward {
    fn new(cluster: &Cluster) -> Self {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let ports = format!("{}:15014", address.port());
        let mut kubectl = cluster.command();
        kubectl.args(["port-forward", "-n", "istio-system", "deployment/istiod", &ports]);
        let child = kubectl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, address }
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.address)?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let good = head.split(' ').nth(1) == Some("200");
        good.then(|| body.to_owned()).ok_or_else(|| std::io::Error::other(text))
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}
