//! A real pod: labelled for injection, with our image, ready under mutual TLS alone; and objects that validation refuses.

use crate::support;
use e2e::cluster::{Bare, Cluster};
use meshctl::demo::netns::Namespace;
use meshctl::demo::process::{Launch, Process};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ISTIOD: &str = "spiffe://cluster.local/ns/istio-system/sa/istiod";

/// pilot and citadel as processes on the node's own network. Dropping it ends them.
struct ControlPlane {
    cluster: Cluster,
    node: Namespace,
    /// Address of the node.
    address: String,
    directory: tempfile::TempDir,
    processes: Vec<Process>,
}

impl ControlPlane {
    fn start() -> Self {
        let cluster = Cluster::bare("injection", Bare::Node).unwrap();
        let node = Namespace::named(format!("kube-{}", cluster.name));
        let state = cluster.kubeconfig().ancestors().nth(2).unwrap();
        let address = std::fs::read_to_string(state.join("ip")).unwrap().trim().to_owned();
        let directory = tempfile::tempdir().unwrap();
        let mut plane = Self { cluster, node, address, directory, processes: Vec::new() };
        support::apply_definitions(&plane.cluster);
        plane.cluster.apply(&plane.objects().to_string()).unwrap();
        let citadel = plane.citadel();
        plane.processes.push(citadel.start().unwrap());
        let pilot = plane.pilot();
        plane.processes.push(pilot.start().unwrap());
        plane
    }

    fn launch(&self, program: &str, args: &[&str]) -> Launch {
        Launch {
            name: program.to_owned(),
            namespace: self.node.clone(),
            uid: None,
            program: e2e::program(program).unwrap(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: Vec::new(),
            log: self.directory.path().join(format!("{program}.log")),
        }
    }

    fn citadel(&self) -> Launch {
        let names = format!("{ISTIOD}=istiod.istio-system.svc,localhost");
        let kubeconfig = self.cluster.kubeconfig().display().to_string();
        let own = ["serve", "--monitoring-addr", "", "--kubeconfig", &kubeconfig, "--relay", ISTIOD];
        self.launch("citadel", &[&own[..], &["--host-names", &names]].concat())
    }

    fn pilot(&self) -> Launch {
        let bound = ["--audience=istio-ca", "--bound-object-kind=Pod", "--bound-object-name=istiod-1"];
        let token = [&["create", "token", "istiod", "-n", "istio-system"], &bound[..]].concat();
        let token = self.cluster.kubectl(&token).unwrap();
        let file = self.directory.path().join("token");
        std::fs::write(&file, token.trim()).unwrap();
        let kubeconfig = self.cluster.kubeconfig().display().to_string();
        let (file, tls) = (file.display().to_string(), self.directory.path().join("tls").display().to_string());
        let source = ["discovery", "--kubeconfig", &kubeconfig, "--ca-addr", "localhost:8060"];
        self.launch("pilot", &[&source[..], &["--token-file", &file, "--tls-dir", &tls]].concat())
    }

    /// What an installation applies.
    fn objects(&self) -> Value {
        let meta = |name: &str| json!({"name": name, "namespace": "istio-system"});
        let map = |name: &str, data: &Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(name), "data": data});
        let ports =
            json!([{"name": "https-dns", "port": 15012}, {"name": "https-webhook", "port": 443, "targetPort": 15017}]);
        let endpoints = json!([{"name": "https-dns", "port": 15012}, {"name": "https-webhook", "port": 15017}]);
        let mut slice = meta("istiod-1");
        slice["labels"] = json!({"kubernetes.io/service-name": "istiod"});
        let items = [
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}}),
            json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("istiod")}),
            // Whom the token is bound to; no node takes it.
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta("istiod-1"), "spec": {
                "serviceAccountName": "istiod", "nodeSelector": {"no": "node"}, "containers": [{"name": "a", "image": "a"}]}}),
            map("istio", &json!({"mesh": "accessLogFile: /dev/stdout\n"})),
            map("istio-sidecar-injector", &values("warning")),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("istiod"), "spec": {"ports": ports}}),
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": slice, "addressType": "IPv4",
                "ports": endpoints, "endpoints": [{"addresses": [self.address]}]}),
            json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": meta("default"),
                "spec": {"mtls": {"mode": "STRICT"}}}),
            webhook(
                "Mutating",
                "istio-sidecar-injector",
                &json!({
                    "name": "namespace.sidecar-injector.istio.io", "failurePolicy": "Fail",
                    "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}},
                    "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
                }),
                "/inject",
            ),
            webhook(
                "Validating",
                "istio-validator-istio-system",
                &json!({
                    "name": "rev.validation.istio.io", "failurePolicy": "Ignore",
                    "rules": [{"operations": ["CREATE", "UPDATE"], "apiVersions": ["*"], "resources": ["*"],
                        "apiGroups": ["security.istio.io", "networking.istio.io", "telemetry.istio.io"]}],
                }),
                "/validate",
            ),
        ];
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }

    /// Runs a program on the node's network; what it printed.
    fn on_node(&self, program: &str, args: &[&str]) -> String {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.node.name(), program]).args(args).stdin(Stdio::null());
        String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
    }

    fn logs(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        let events = self.cluster.kubectl(&["get", "events,pods", "-A"]).unwrap_or_default();
        format!("{}\n{}\n{events}", read("citadel.log"), read("pilot.log"))
    }
}

/// Settings of injection.
fn values(log_level: &str) -> Value {
    let proxy = json!({"logLevel": log_level, "resources": {"requests": {"cpu": "10m", "memory": "40Mi"}}});
    json!({"config": "policy: enabled\n", "values": json!({"global": {"imagePullPolicy": "Never", "proxy": proxy}}).to_string()})
}

fn webhook(kind: &str, name: &str, own: &Value, path: &str) -> Value {
    let mut webhook = own.clone();
    webhook["clientConfig"] =
        json!({"service": {"name": "istiod", "namespace": "istio-system", "path": path, "port": 443}});
    webhook["sideEffects"] = json!("None");
    webhook["admissionReviewVersions"] = json!(["v1"]);
    let labels = json!({"istio.io/rev": "default", "app": "sidecar-injector"});
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": {"name": name, "labels": labels}, "webhooks": [webhook],
    })
}

/// The shop: a server with a probe, and its Service.
fn shop(istiod: &str) -> Value {
    let labels = json!({"app": "shop"});
    let server = json!({
        "name": "shop", "image": "localhost/tapp:1", "imagePullPolicy": "Never", "args": ["serve", ":8080"],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
    });
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod(istiod, &server)}}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]})
}

/// A pod that finds istiod, as this cluster has no DNS.
fn pod(istiod: &str, container: &Value) -> Value {
    json!({"containers": [container], "terminationGracePeriodSeconds": 5,
        "hostAliases": [{"ip": istiod, "hostnames": ["istiod.istio-system.svc"]}]})
}

/// A job that asks the shop once.
fn asker(istiod: &str, url: &str) -> Value {
    let container =
        json!({"name": "asker", "image": "localhost/tapp:1", "imagePullPolicy": "Never", "args": ["get", url]});
    let mut spec = pod(istiod, &container);
    spec["restartPolicy"] = json!("Never");
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "asker", "namespace": "shop"},
        "spec": {"template": {"spec": spec}}})
}

/// Our proxy's image and that of the application, on the node.
fn load_images(plane: &ControlPlane) {
    let directory = plane.directory.path().join("images");
    let programs = e2e::program("proxy").unwrap();
    let scripts = e2e::root().join("e2e/kube");
    let mut images = Command::new(scripts.join("images.sh"));
    images.arg(programs.parent().unwrap()).arg(&directory).arg("proxy").env("IMAGE_MAX_MB", "0");
    assert!(images.status().unwrap().success());
    plane.cluster.load(&directory.join("proxy.tar")).unwrap();
    support::load_application(&plane.cluster, &directory);
}

/// What is answered to a request in the clear.
fn plain(node: &Namespace, address: &str) -> std::io::Result<String> {
    let address = address.parse().map_err(std::io::Error::other)?;
    let connect = || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5));
    let mut stream = node.inside(connect)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

fn field(cluster: &Cluster, object: &[&str], path: &str) -> String {
    let output = format!("jsonpath={path}");
    cluster.kubectl(&[&["get"], object, &["-o", &output]].concat()).unwrap()
}

// spec: PI-7, PI-48, PI-49, PI-54, PI-55, PI-57, PI-59, PI-60, PI-62, PI-63, PI-66, HL-1, HL-2, HL-4, D1, F31
#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn a_labelled_deployment_becomes_ready_with_an_identity() {
    let plane = ControlPlane::start();
    let cluster = &plane.cluster;
    load_images(&plane);
    let validator = ["validatingwebhookconfiguration", "istio-validator-istio-system"];
    let policy = ["get", validator[0], validator[1], "-o", "jsonpath={.webhooks[0].failurePolicy}"];
    let obligatory = cluster.eventually(&policy, |policy| policy == "Fail");
    assert!(obligatory.is_ok(), "{}", plane.logs());
    let broken = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "v", "namespace": "shop"}, "spec": {"hosts": ["shop"], "http": [{"retires": {}}]}});
    let why = format!("{:#}", cluster.apply(&broken.to_string()).unwrap_err());
    assert!(why.contains("denied the request: spec.http[0].retires: "), "{why}");

    let istiod = field(cluster, &["service", "istiod", "-n", "istio-system"], "{.spec.clusterIP}");
    let begun = Instant::now();
    cluster.apply(&shop(&istiod).to_string()).unwrap();
    let rolled = cluster.kubectl(&["rollout", "status", "deployment/shop", "-n", "shop", "--timeout=60s"]);
    assert!(rolled.is_ok(), "{rolled:?}\n{}", plane.logs());
    println!("the first pod with a sidecar is ready after {:.1} s", begun.elapsed().as_secs_f64());

    let pods = ["pod", "-n", "shop", "-l", "app=shop"];
    let native = field(cluster, &pods, "{.items[0].spec.initContainers[*].name}");
    assert_eq!(native, "istio-init istio-proxy", "every kubelet knows native sidecars");
    let address = format!("{}:8080", field(cluster, &pods, "{.items[0].status.podIP}"));
    let answer = plain(&plane.node, &address);
    assert!(!answer.as_ref().is_ok_and(|text| text.contains("hello")), "mutual TLS alone: {answer:?}");
    let shown = plane.on_node("openssl", &["s_client", "-connect", &address, "-alpn", "istio", "-showcerts"]);
    let leaf = plane.directory.path().join("leaf.pem");
    std::fs::write(&leaf, shown).unwrap();
    let leaf = leaf.display().to_string();
    let names = plane.on_node("openssl", &["x509", "-in", &leaf, "-noout", "-ext", "subjectAltName"]);
    assert!(names.contains("URI:spiffe://cluster.local/ns/shop/sa/default"), "{names}");

    // A job with a sidecar of its own reaches it, and ends.
    let service = field(cluster, &["service", "shop", "-n", "shop"], "{.spec.clusterIP}");
    cluster.apply(&asker(&istiod, &format!("http://{service}/")).to_string()).unwrap();
    let wait = ["wait", "--for=condition=complete", "job/asker", "-n", "shop", "--timeout=60s"];
    let done = cluster.kubectl(&wait);
    assert!(done.is_ok(), "{done:?}\n{}", plane.logs());
    let said = cluster.kubectl(&["logs", "job/asker", "-n", "shop", "-c", "asker"]).unwrap();
    assert!(said.starts_with("hello from shop-"), "{said}");

    settings_are_hot(&plane);

    // A kubelet that has just started waits with its first probe; this one no longer does.
    let begun = Instant::now();
    cluster.kubectl(&["scale", "deployment/shop", "-n", "shop", "--replicas=2"]).unwrap();
    cluster.kubectl(&["rollout", "status", "deployment/shop", "-n", "shop", "--timeout=60s"]).unwrap();
    println!("the second after {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    cluster.kubectl(&["delete", "pods", "-n", "shop", "-l", "app=shop", "--wait"]).unwrap();
    println!("both are gone after {:.1} s, of 5 s that they may take", begun.elapsed().as_secs_f64());
}

/// The ConfigMap changes, and the next pod is injected by it.
fn settings_are_hot(plane: &ControlPlane) {
    let patch = json!({"data": values("debug")}).to_string();
    let map = ["patch", "configmap", "istio-sidecar-injector", "-n", "istio-system", "--type=merge", "-p", &patch];
    plane.cluster.kubectl(&map).unwrap();
    let file = plane.directory.path().join("pod.json");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "next", "namespace": "shop"},
        "spec": {"containers": [{"name": "a", "image": "a"}]}});
    std::fs::write(&file, pod.to_string()).unwrap();
    let file: &Path = &file;
    let ask = ["create", "--dry-run=server", "-o", "json", "-f", file.to_str().unwrap()];
    plane.cluster.eventually(&ask, |json| json.contains("--proxyLogLevel=debug")).unwrap();
}
