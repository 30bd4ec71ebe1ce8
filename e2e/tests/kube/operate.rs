//! The commands for operators, by way of the API server alone: nothing of the mesh is reachable from here otherwise.

use crate::images;
use crate::install::{install, meshctl};
use crate::support;
use e2e::cluster::{Cluster, PATIENCE};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What nobody may find in a report.
const PASSWORD: &str = "hunter2-hunter2";
/// A shop in two versions of which one runs, with rules, and a pod that asks it twice a second.
const SHOP: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Secret
metadata: {name: database, namespace: shop}
stringData: {password: PASSWORD}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: shop, labels: {app: shop}}
spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop, version: v1}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: shop
        image: localhost/tapp:1
        imagePullPolicy: Never
        args: [serve, ":8080"]
        env: [{name: DATABASE, value: PASSWORD}]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop, namespace: shop}
spec: {host: shop, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: [shop]
  http:
  - {match: [{uri: {prefix: /nobody}}], route: [{destination: {host: shop, subset: v2}}]}
  - {route: [{destination: {host: shop, subset: v1}}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
"#;
/// Calls the shop twenty times a second, and five times what nobody serves; under a Sidecar that leaves mixer out.
const CALLER: &str = r#"
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: caller, namespace: shop}
spec: {workloadSelector: {labels: {app: caller}}, egress: [{hosts: [./*]}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller, namespace: shop}
spec:
  selector: {matchLabels: {app: caller}}
  template:
    metadata: {labels: {app: caller, version: v1}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: good
        image: ferromesh/tools:VERSION
        imagePullPolicy: Never
        command: [meshctl, load, -qps, "20", -c, "2", -t, 10m, "http://shop.shop/"]
      - name: bad
        image: ferromesh/tools:VERSION
        imagePullPolicy: Never
        command: [meshctl, load, -allow-initial-errors, -qps, "5", -c, "1", -t, 10m, "http://shop.shop/nobody"]
"#;

fn asker() -> String {
    let container = json!({"name": "asker", "image": "localhost/tapp:1", "imagePullPolicy": "Never",
        "args": ["get", "http://shop.shop/"]});
    let template = json!({"metadata": {"labels": {"app": "asker"}}, "spec": {"restartPolicy": "Never", "containers": [container]}});
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "asker", "namespace": "shop"}, "spec": {"template": template}})
        .to_string()
}

/// Runs meshctl, which must be content.
fn good(cluster: &Cluster, arguments: &[&str]) -> String {
    let (content, text) = meshctl(cluster, arguments);
    println!("$ meshctl {}\n{text}", arguments.join(" "));
    assert!(content, "meshctl {arguments:?}: {text}");
    text
}

fn says(cluster: &Cluster, arguments: &[&str], expected: &[&str]) {
    let text = good(cluster, arguments);
    for part in expected {
        assert!(text.contains(part), "meshctl {arguments:?} lacks {part:?}: {text}");
    }
}

/// What meshctl prints as JSON, asked again until it says what is waited for.
#[expect(clippy::disallowed_methods, reason = "a test waits for another process; nothing tells it when")]
fn until(cluster: &Cluster, arguments: &[&str], says: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (content, text) = meshctl(cluster, arguments);
        let printed = text.find(['[', '{']).and_then(|at| serde_json::from_str(text.get(at..)?).ok());
        if let Some(value) = printed.filter(|value| content && says(value)) {
            println!("$ meshctl {}\n{text}", arguments.join(" "));
            return value;
        }
        assert!(Instant::now() < deadline, "meshctl {arguments:?} printed at last: {text}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

// spec: CT-2, CT-3, CT-5, CT-7, CT-8, CT-15, CT-16, CT-17, CT-18, CT-33, CT-22, CT-23, CT-40, CT-41, CT-42, CT-43, CT-44, CT-60, MX-99, MX-107
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e-kube"]
async fn every_command_reaches_the_mesh_through_the_api_server() {
    let cluster = Cluster::start("operate", 1).unwrap();
    let directory = tempfile::tempdir().unwrap();
    images::load(&cluster, directory.path(), &["proxy", "pilot", "citadel", "mixer", "tools"]);
    support::load_application(&cluster, directory.path());
    says(
        &cluster,
        &["check", "--pre"],
        &["√ Kubernetes is 1.29 or later", "√ you may create what an installation needs"],
    );
    says(&cluster, &["x", "precheck"], &["√ Kubernetes is 1.29 or later", "Status check results are"]);
    let (content, empty) = meshctl(&cluster, &["check"]);
    assert!(!content && empty.contains("there is no namespace istio-system"), "{empty}");
    let (content, nobody) = meshctl(&cluster, &["proxy-status"]);
    assert!(!content && nobody.contains("no pod of pilot runs in the namespace istio-system"), "{nobody}");

    install(&cluster, &["--readiness-timeout", "3m"]);
    cluster.apply(&SHOP.replace("PASSWORD", PASSWORD)).unwrap();
    cluster.kubectl(&["rollout", "status", "deployment/shop", "-n", "shop", "--timeout=90s"]).unwrap();
    let pod =
        cluster.kubectl(&["get", "pod", "-n", "shop", "-l", "app=shop", "-o", "jsonpath={.items[0].metadata.name}"]);
    let full = format!("{}.shop", pod.unwrap());

    says(
        &cluster,
        &["check", "--wait", "30s"],
        &[
            "√ istiod is ready",
            "√ an invalid object is refused",
            "√ clocks of nodes agree with this machine's",
            "√ every pod of the mesh has a connected proxy",
            "√ the roots vouch for every proxy's certificate",
        ],
    );
    says(&cluster, &["check", "deploy/shop", "-n", "shop"], &["√ every proxy has a certificate that is valid now"]);
    says(&cluster, &["proxy-status"], &[&full, "istiod-", "istio-ingressgateway-"]);
    assert!(!good(&cluster, &["proxy-status", "-n", "shop"]).contains("ingressgateway"));
    says(&cluster, &["version"], &["data plane"]);
    says(&cluster, &["proxy-config", "cluster", &full], &["shop.shop.svc.cluster.local"]);
    says(&cluster, &["proxy-config", "route", "deploy/shop", "-n", "shop", "--name", "80"], &["shop.shop"]);
    says(&cluster, &["proxy-config", "secret", "deploy/shop.shop"], &["ACTIVE"]);
    let explain = ["explain", "GET", "http://shop.shop/", "--from", &full];
    says(&cluster, &explain, &["VirtualService/shop/shop", "over mTLS"]);
    let described = ["Service: shop.shop", "Matching subsets: v1", "(Non-matching subsets v2)", "mTLS mode: STRICT"];
    says(&cluster, &["describe", "pod", "deploy/shop", "-n", "shop"], &described);
    says(&cluster, &["x", "describe", "service", "shop.shop"], &["Pods: 1, 1 of them with a proxy"]);
    guards(&cluster, &full);
    levels(&cluster);
    analyzes(&cluster);
    taps(&cluster);
    figures(&cluster);
    shows_the_page(&cluster);
    reports(&cluster, directory.path());
}

/// Who is let in by policies, and who gets a sidecar from whom.
fn guards(cluster: &Cluster, pod: &str) {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no-puts, namespace: shop}\nspec: {action: DENY, rules: [{to: [{operation: {methods: [PUT], ports: ['8080']}}]}]}\n";
    cluster.apply(policy).unwrap();
    let enforced = |rows: &Value| {
        rows.as_array().into_iter().flatten().any(|row| row["name"] == "no-puts" && row["action"] == "DENY")
    };
    until(cluster, &["x", "authz", "check", "deploy/shop", "-n", "shop", "-o", "json"], enforced);
    cluster.kubectl(&["delete", "authorizationpolicy", "no-puts", "-n", "shop"]).unwrap();
    let lists = ["NAMESPACE", "shop", "default: ", "istio-sidecar-injector", "/proxy:"];
    says(cluster, &["x", "injector", "list"], &lists);
    let why = ["istio-sidecar-injector", "✔", "Namespace label istio-injection=enabled matches"];
    says(cluster, &["x", "check-inject", pod], &why);
    let why = ["✘", "Pod has sidecar.istio.io/inject=false label, preventing injection"];
    says(cluster, &["x", "check-inject", "-n", "shop", "-l", "sidecar.istio.io/inject=false"], &why);
    // What a person asks the proxy in a pod, by the name and verbs of Istio's tasks.
    let agent = |verb: &[&str]| {
        let line = [&["exec", "deploy/shop", "-n", "shop", "-c", "istio-proxy", "--", "pilot-agent"], verb].concat();
        cluster.kubectl(&line).unwrap()
    };
    // Istio's tasks ask without the slash.
    let stats = agent(&["request", "GET", "stats"]);
    assert!(stats.lines().any(|line| line.starts_with("cluster.") && line.contains(": ")), "{stats}");
    assert!(agent(&["request", "GET", "/clusters"]).contains("shop.shop.svc.cluster.local"));
    assert!(agent(&["version"]).contains(env!("CARGO_PKG_VERSION")));
    agent(&["wait", "--timeoutSeconds", "5"]);
}

fn levels(cluster: &Cluster) {
    says(cluster, &["log", "deploy/shop", "-n", "shop", "--level", "http:debug"], &["http: debug", "router: warning"]);
    says(cluster, &["log", "deploy/shop", "-n", "shop", "--reset"], &["http: warning"]);
    says(cluster, &["log", "--pilot", "--level", "debug"], &["istiod-", "level: debug"]);
    says(cluster, &["log", "--pilot", "--reset"], &["level: info"]);
    says(cluster, &["log", "--citadel", "--level", "debug"], &["citadel-", "level: debug"]);
    says(cluster, &["log", "--citadel", "--reset"], &["level: info"]);
    says(cluster, &["log", "--mixer"], &["mixer-", "level: info"]);
    let (content, unknown) = meshctl(cluster, &["log", "deploy/shop", "-n", "shop", "--level", "loud"]);
    assert!(!content && unknown.contains("loud"), "{unknown}");
}

fn analyzes(cluster: &Cluster) {
    let (_, all) = meshctl(cluster, &["analyze", "-A"]);
    println!("{all}");
    // The subset without pods.
    assert!(all.contains("[IST0173] (DestinationRule shop.shop)") && !all.contains("IST0144"), "{all}");
    let rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: lost, namespace: shop}\nspec: {hosts: [lost], http: [{route: [{destination: {host: nowhere}}]}]}\n";
    cluster.apply(rule).unwrap();
    let (content, lost) = meshctl(cluster, &["analyze", "-n", "shop"]);
    assert!(!content && lost.contains("[IST0101] (VirtualService lost.shop)"), "{lost}");
    let (_, elsewhere) = meshctl(cluster, &["analyze", "-n", "kube-system"]);
    assert!(!elsewhere.contains("lost"), "{elsewhere}");
    cluster.kubectl(&["delete", "virtualservice", "lost", "-n", "shop"]).unwrap();
}

fn taps(cluster: &Cluster) {
    let mut tap = Command::new(e2e::program("meshctl").unwrap());
    tap.args(["tap", "deploy/shop", "-n", "shop", "--seconds", "20", "--kubeconfig"]).arg(cluster.kubeconfig());
    let mut tap = tap.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tap.stdout.take().unwrap()).lines();
    cluster.apply(&asker()).unwrap();
    let line = lines.next().unwrap().unwrap();
    println!("{line}");
    assert!(line.contains("in  mtls asker → shop") && line.contains("GET shop.shop/  200"), "{line}");
    tap.kill().unwrap();
    tap.wait().unwrap();
}

/// Pods report to mixer by themselves: rates, who calls whom over mutual TLS, and why a request failed.
fn figures(cluster: &Cluster) {
    cluster.apply(&CALLER.replace("VERSION", env!("CARGO_PKG_VERSION"))).unwrap();
    // A machine that does other things as well sends fewer than it should.
    let within = |value: &Value, least: f64, most: f64| value.as_f64().is_some_and(|v| v > least && v < most);
    let named = |list: &Value, name: &str| -> Value {
        let all = list.as_array().into_iter().flatten();
        all.into_iter().find(|one| one["name"] == name && one["namespace"] == "shop").cloned().unwrap_or_default()
    };
    until(cluster, &["stat", "deploy", "-n", "shop", "-t", "5s", "-o", "json"], |rows| {
        let shop = named(rows, "shop");
        within(&shop["rps"], 2., 25.) && shop["success"] == 1.0 && shop["mtls"] == 1.0 && shop["meshed"]["proxies"] == 1
    });
    until(cluster, &["stat", "svc", "-n", "shop", "-t", "5s", "-o", "json"], |rows| {
        let shop = named(rows, "shop");
        within(&shop["rps"], 2., 31.) && within(&shop["success"], 0.3, 0.98)
    });
    until(cluster, &["edges", "caller.shop", "-o", "json"], |edges| {
        edges.as_array().into_iter().flatten().any(|edge| {
            edge["src"] == "caller"
                && edge["dst"] == "shop"
                && edge["srcNamespace"] == "shop"
                && edge["secured"] == true
                && edge["clientId"] == "spiffe://cluster.local/ns/shop/sa/default"
        })
    });
    says(cluster, &["top", "--once"], &["caller", "shop"]);
    says(cluster, &["check", "-o", "short"], &[]);
}

fn shows_the_page(cluster: &Cluster) {
    let mut page = Command::new(e2e::program("meshctl").unwrap());
    page.args(["dashboard", "--browser=false", "--kubeconfig"]).arg(cluster.kubeconfig());
    let mut page = page.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let line = BufReader::new(page.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let get = |path: &str| {
        let mut browser = std::net::TcpStream::connect(&address).unwrap();
        write!(browser, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        browser.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("<html"), "{path}: {text}");
        text
    };
    let graph = get("/");
    let call =
        graph.lines().find(|line| line.contains("data-from=\"caller") && line.contains("data-rate")).unwrap_or(&graph);
    assert!(call.contains("data-to=\"shop"), "{call}");
    assert!(graph.contains("mutual TLS"), "{graph}");
    let failures = get("/failures");
    println!("{failures}");
    assert!(failures.contains("503 UH") && failures.contains("GET shop.shop/nobody"), "{failures}");
    page.kill().unwrap();
    page.wait().unwrap();
}

// robustness S2: nothing secret leaves the cluster.
fn reports(cluster: &Cluster, directory: &std::path::Path) {
    let archive = directory.join("report.tar.gz");
    good(cluster, &["bug-report", "--output-file", archive.to_str().unwrap()]);
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(directory).status().unwrap();
    assert!(unpacked.success());
    let root = directory.join("bug-report");
    let files = Command::new("find").arg(&root).args(["-type", "f"]).output().unwrap();
    let files = String::from_utf8(files.stdout).unwrap();
    for part in [
        "objects/VirtualService.json",
        "analyze.txt",
        "/syncz.json",
        "config_dump.json",
        "istio-proxy.log",
        "control-plane/istiod-",
    ] {
        assert!(files.contains(part), "{part} is missing: {files}");
    }
    let grep = |what: &str| Command::new("grep").args(["-rl", what]).arg(&root).output().unwrap().stdout;
    for secret in [PASSWORD, "PRIVATE KEY", "LS0tLS1CRUdJTiBQUklW", "LS0tLS1CRUdJTiBFQyBQUklW"] {
        assert!(grep(secret).is_empty(), "{secret} is in {}", String::from_utf8_lossy(&grep(secret)));
    }
    assert!(!grep("shop.shop.svc.cluster.local").is_empty());
}
