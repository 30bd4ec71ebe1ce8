//! Ports of which nobody says what they speak, and two databases outside that share a port (pains.md 5 and 6).

use super::space::Space;

/// Greets who connects, on a port without a name; speaks HTTP on another one without a name.
const GREETER: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: greeter}
spec:
  selector: {matchLabels: {app: greeter}}
  template:
    metadata: {labels: {app: greeter}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: tcp
        image: ferromesh/tools:0.1.0
        command: [nc, -ll, -p, '7001', -e, sh, -c, 'echo 220 welcome; cat']
      - name: http
        image: ferromesh/tools:0.1.0
        command: [meshctl, server, -http-port, '7002', -grpc-port, disabled, -tcp-port, disabled, -udp-port, disabled, -redirect-port, disabled]
        readinessProbe: {tcpSocket: {port: 7002}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: greeter}
spec:
  selector: {app: greeter}
  ports: [{name: one, port: 7001}, {name: two, port: 7002}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: greeter}
spec:
  hosts: [greeter]
  http: [{headers: {response: {set: {x-routed: by-rule}}}, route: [{destination: {host: greeter, port: {number: 7002}}}]}]
";

/// How long a greeting may take.
const GREETING_MS: u64 = 150;

/// Connects, says nothing, and prints the milliseconds until the greeting.
const LISTEN: &str = "read a b </proc/uptime; (sleep 3) | timeout 3 nc GREETER 7001 | { read line; read c d </proc/uptime; echo $line $a $c; }";

/// Milliseconds until the greeting came; none where none came.
fn greeted(said: &str) -> Option<u64> {
    let (_, times) = said.split_once("220 welcome ")?;
    let mut times = times.split_whitespace().map(|time| time.parse::<f64>().unwrap());
    let (from, to) = (times.next()?, times.next()?);
    Some(((to - from) * 1e3) as u64)
}

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn a_server_that_speaks_first_is_heard_and_http_beside_it_is_routed() {
    let space = Space::with_client("ports");
    space.apply(GREETER);
    space.rolled_out();
    space.start_stranger();
    let listen = LISTEN.replace("GREETER", &space.address("greeter"));
    let meshed = || greeted(&space.shell(&listen));
    let plain = || {
        let line = ["exec", "stranger", "--", "sh", "-c", &listen];
        greeted(&space.kubectl(&line).unwrap_or_default())
    };
    let url = "http://greeter:7002/";
    let routed = || space.shell(&format!("meshctl curl -curl-stdout-headers {url}"));
    space.until(url, &[], |_, _| routed().contains("x-routed: by-rule"));
    let mut slowest = 0;
    for _ in 0..3 {
        for (who, took) in [("meshed", meshed()), ("plain", plain())] {
            let took = took.unwrap_or_else(|| panic!("no greeting for the {who} client"));
            assert!(took <= GREETING_MS, "{who}: {took} ms");
            slowest = slowest.max(took);
        }
    }
    space.apply("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n");
    let begun = std::time::Instant::now();
    while plain().is_some() {
        assert!(begun.elapsed() < e2e::cluster::PATIENCE, "the plain client is still greeted");
    }
    for _ in 0..3 {
        let took = meshed().expect("no greeting under mutual TLS alone");
        assert!(took <= GREETING_MS, "{took} ms under mutual TLS alone");
        slowest = slowest.max(took);
    }
    assert!(routed().contains("x-routed: by-rule"));
    space.figure(&format!("the slowest greeting took {slowest} ms"));
}

/// A database outside the mesh.
const DATABASES: &str = "
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {sidecar.istio.io/inject: 'false'}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: db, image: 'ferromesh/tools:0.1.0', command: [nc, -ll, -p, '5432', -e, echo, this is NAME]}
---
";

#[test]
#[ignore = "needs a cluster: make e2e-kube"]
fn two_databases_on_one_port_are_told_apart_by_their_names() {
    let space = Space::with_client("databases");
    space.apply(&["red", "blue"].map(|name| DATABASES.replace("NAME", name)).concat());
    space.kubectl(&["wait", "--for=condition=Ready", "pod/red", "pod/blue", "--timeout=60s"]).unwrap();
    // They have no addresses of their own: pilot chooses some, and the sidecar answers DNS with them, as every one does that
    // nobody told otherwise.
    let entry = |name: &str| {
        let address = space.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.podIP}"]).unwrap();
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec: {{hosts: [{name}.example], location: MESH_EXTERNAL, resolution: STATIC, ports: [{{number: 5432, name: tcp, protocol: TCP}}], endpoints: [{{address: {address}}}]}}\n---\n"
        )
    };
    space.apply(&entry("red"));
    // The other one stands in another namespace, as another team writes it.
    let other = Space::new("databases-too");
    other.apply(&entry("blue"));
    // The shell of the tests resolves no names by itself.
    let address = |name: &str| format!("$(nslookup {name}.example | sed -n '/^Name/,$s/^Address: *//p' | head -n 1)");
    let ask = |name: &str| space.shell(&format!("timeout 3 nc {} 5432 </dev/null", address(name)));
    let begun = std::time::Instant::now();
    while !["red", "blue"].iter().all(|name| ask(name).contains(&format!("this is {name}"))) {
        assert!(begun.elapsed() < e2e::cluster::PATIENCE, "no answer: {} {}", ask("red"), ask("blue"));
    }
    let live = begun.elapsed();
    for _ in 0..5 {
        for name in ["red", "blue"] {
            let said = ask(name);
            assert!(said.contains(&format!("this is {name}")), "{name}: {said}");
        }
    }
    // The leader has written them down, where Istio's controller looks for them.
    let recorded = |space: &Space, name: &str| {
        let path = "jsonpath={.status.addresses[*].value}";
        space.kubectl(&["get", "serviceentry", name, "-o", path]).unwrap()
    };
    let asks = &space;
    for (space, name) in [(&space, "red"), (&other, "blue")] {
        let told = asks.shell(&format!("echo {}", address(name)));
        let kept = recorded(space, name);
        assert!(kept.split(' ').any(|address| address == told.trim()), "{name}: {told} is not of {kept}");
    }
    let live = live.as_millis();
    space.figure(&format!("{live} ms after kubectl 10 of 10 connections reached the database that they named"));
}
