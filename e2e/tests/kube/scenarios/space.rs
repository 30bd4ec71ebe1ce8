//! The namespace of one scenario: what is applied there, and a client with a sidecar that asks.

use super::mesh::Mesh;
use e2e::cluster::PATIENCE;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A pod without a sidecar.
const STRANGER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {sidecar.istio.io/inject: 'false'}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: stranger, image: 'ferromesh/tools:0.1.0', command: [sleep, infinity]}
";

const CLIENT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: client}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      serviceAccountName: client
      terminationGracePeriodSeconds: 2
      containers:
      - name: client
        image: ferromesh/tools:0.1.0
        imagePullPolicy: IfNotPresent
        command: [sleep, infinity]
        volumeMounts: [{name: tmp, mountPath: /tmp}]
      volumes: [{name: tmp, emptyDir: {}}]
";

/// A server of HTTP on one port and of plain TCP, which returns what it gets, on another.
const SERVER: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  replicas: COUNT
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: server
        image: ferromesh/tools:0.1.0
        command: [meshctl, server]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{name: http, port: 8080}, {name: tcp-echo, port: 8078}]
";

/// A fresh namespace whose pods get sidecars. Dropping it deletes it.
pub(crate) struct Space {
    pub(crate) mesh: &'static Mesh,
    pub(crate) name: String,
    begun: Instant,
}

impl Space {
    /// Starts the pod `stranger`, which has no sidecar, and waits until it is ready.
    pub(crate) fn start_stranger(&self) {
        self.apply(STRANGER);
        self.kubectl(&["wait", "--for=condition=Ready", "pod/stranger", "--timeout=60s"]).unwrap();
    }

    /// Starts the Deployment and Service `server` with so many pods, and waits until they are ready.
    pub(crate) fn start_server(&self, replicas: usize) {
        self.apply(&SERVER.replace("COUNT", &replicas.to_string()));
        self.rolled_out();
    }

    /// An empty one.
    pub(crate) fn new(name: &str) -> Self {
        Self::labelled(name, "istio-injection: enabled")
    }

    /// An empty one with other labels, by which pods get sidecars or none.
    pub(crate) fn labelled(name: &str, labels: &str) -> Self {
        let mesh = Mesh::get();
        let labels = format!("labels: {{{labels}}}");
        mesh.cluster
            .apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, {labels}}}\n"))
            .unwrap();
        Self { mesh, name: name.to_owned(), begun: Instant::now() }
    }

    /// One with the client.
    pub(crate) fn with_client(name: &str) -> Self {
        let space = Self::new(name);
        space.apply(CLIENT);
        space.rolled_out();
        space
    }

    /// One with the bookshop and the client.
    pub(crate) fn with_bookshop(name: &str) -> Self {
        let space = Self::new(name);
        space.apply_bookshop();
        space
    }

    /// Applies the bookshop and the client, and waits until they are ready.
    pub(crate) fn apply_bookshop(&self) {
        let shop = std::fs::read_to_string(e2e::root().join("e2e/kube/bookshop.yaml")).unwrap();
        self.apply(&format!("{shop}---{CLIENT}"));
        self.rolled_out();
    }

    /// Applies objects into it.
    pub(crate) fn apply(&self, objects: &str) {
        self.mesh.cluster.apply_in(&self.name, objects).unwrap();
    }

    /// kubectl in it.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.mesh.cluster.kubectl(&[&["-n", &self.name], arguments].concat())
    }

    /// Waits until all Deployments are as they should be.
    pub(crate) fn rolled_out(&self) {
        let all = self.kubectl(&["rollout", "status", "deployments", "--timeout=120s"]);
        assert!(all.is_ok(), "{all:?}\n{}", self.kubectl(&["get", "pods,events"]).unwrap_or_default());
    }

    /// Runs a shell's line in the client; what it printed, also where it failed.
    pub(crate) fn shell(&self, line: &str) -> String {
        let line = format!("{{ {line}; }} 2>&1 || true");
        self.kubectl(&["exec", "deploy/client", "-c", "client", "--", "sh", "-c", &line]).unwrap()
    }

    /// Status and answer of a GET by the client; status 0 where there is no answer.
    pub(crate) fn get(&self, url: &str, headers: &[&str]) -> (u16, String) {
        let headers: String = headers.iter().map(|header| format!("-H '{header}' ")).collect();
        answer(&self.shell(&format!("meshctl curl -curl-stdout-headers {headers} {url}")))
    }

    /// Asks until the answer is the right one; how long that took, in all.
    #[expect(clippy::disallowed_methods, reason = "nothing tells when a rule has reached a proxy")]
    pub(crate) fn until(&self, url: &str, headers: &[&str], right: impl Fn(u16, &str) -> bool) -> Duration {
        let begun = Instant::now();
        loop {
            let (status, text) = self.get(url, headers);
            if right(status, &text) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "{url} answers {status}: {text}\n{}", self.not_good());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How many of so many answers hold each of the texts.
    pub(crate) fn shares<const N: usize>(&self, url: &str, calls: u32, texts: [&str; N]) -> [usize; N] {
        let line = format!("for i in $(seq {calls}); do meshctl curl -loglevel error {url}; echo; done");
        let all = self.shell(&line);
        texts.map(|text| all.matches(text).count())
    }

    /// Address of a Service: the shell of the tests resolves no names.
    pub(crate) fn address(&self, service: &str) -> String {
        self.kubectl(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"]).unwrap()
    }

    /// The last lines of the client's access log that are no 200.
    pub(crate) fn not_good(&self) -> String {
        let log = self.kubectl(&["logs", "deploy/client", "-c", "istio-proxy", "--tail=20000"]).unwrap_or_default();
        let bad: Vec<&str> = log.lines().filter(|line| !line.contains("\" 200 ")).collect();
        bad[bad.len().saturating_sub(12)..].join("\n")
    }

    /// What the scenario is remembered by.
    pub(crate) fn figure(&self, figure: &str) {
        println!("scenario {}: {figure} ({:.0} s)", self.name, self.begun.elapsed().as_secs_f64());
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let gone = ["delete", "namespace", &self.name, "--wait=false"];
        if let Err(error) = self.mesh.cluster.kubectl(&gone) {
            println!("{error}");
        }
    }
}

/// The gateway's whole answer to a GET from outside of the cluster, over a connection of its own.
pub(crate) fn page(gateway: SocketAddr, host: &str, path: &str) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect_timeout(&gateway, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

/// An answer with its head, as `meshctl curl` writes it.
pub(crate) fn answer(text: &str) -> (u16, String) {
    let status = text.split_once("HTTP/1.1 ").and_then(|(_, rest)| rest.get(..3)?.parse().ok());
    let body = text.split_once("\r\n\r\n").map_or(text, |(_, body)| body);
    (status.unwrap_or(0), body.to_owned())
}
