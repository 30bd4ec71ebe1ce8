//! grpcio's own xDS client and server under pilot, state of the world, without a proxy.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

use e2e::client::exchange;
use e2e::grpc_peer::GrpcPeer;
use e2e::proxies::free_address;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a change may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);
const TARGET: &str = "xds:///echo.default.svc.cluster.local:7070";

/// pilot over a directory. Dropping it ends it.
struct Pilot {
    child: Child,
    directory: tempfile::TempDir,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Pilot {
    fn start(files: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let (grpc, http) = (free_address().unwrap(), free_address().unwrap());
        let mut command = Command::new(e2e::program("pilot").unwrap());
        command.arg("discovery").arg("--config-dir").arg(directory.path());
        command.args(["--grpc-addr", &grpc.to_string(), "--http-addr", &http.to_string()]);
        command.args(["--secure-grpc-addr", "", "--monitoring-addr", ""]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pilot = Self { child, directory, grpc, http };
        until("pilot is ready", || pilot.ask("/ready").filter(|body| body.starts_with("ready")));
        pilot
    }

    fn ask(&self, path: &str) -> Option<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: pilot\r\nconnection: close\r\n\r\n");
        exchange(self.http, &request).ok().map(|answer| answer.body)
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.ask(path).unwrap()).unwrap()
    }

    fn save(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// The bootstrap of a gRPC node with this id.
    fn bootstrap(&self, id: &str) -> PathBuf {
        let pki = |name: &str| e2e::root().join("pilot/tests/support/pki").join(name);
        let path = self.directory.path().join(format!("{}.bootstrap", id.replace('~', "_")));
        let text = json!({
            "xds_servers": [{
                "server_uri": self.grpc.to_string(), "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"],
            }],
            "node": {"id": id, "metadata": {"GENERATOR": "grpc", "NAMESPACE": "default"}},
            "certificate_providers": {"default": {"plugin_name": "file_watcher", "config": {
                "certificate_file": pki("client.pem"), "private_key_file": pki("client.key"),
                "ca_certificate_file": pki("roots.pem"), "refresh_interval": "600s",
            }}},
            "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
        });
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    /// No client has refused anything, and each has acknowledged all it was sent.
    fn nothing_refused(&self, types: &[&str]) {
        assert_eq!(self.json("/debug/nacks"), json!([]));
        until("everything is acknowledged", || {
            let clients = self.json("/debug/syncz");
            let all = clients.as_array().filter(|clients| !clients.is_empty())?;
            let done = |client: &Value, kind: &str| {
                let one = &client["resources"][kind];
                one["sent"] != "" && one["sent"] == one["acked"] && one["lastError"].is_null()
            };
            all.iter().any(|client| types.iter().all(|kind| done(client, kind))).then_some(())
        });
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        drop(self.child.kill()); // has ended already
        drop(self.child.wait());
    }
}

fn until<T>(what: &str, mut level: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = level() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

fn entry(endpoints: &[(&str, u16)]) -> String {
    let line = |(version, port): &(&str, u16)| {
        format!(
            "  - {{address: 127.0.0.1, ports: {{grpc: {port}}}, labels: {{version: {version}}}, serviceAccount: client}}\n"
        )
    };
    let endpoints: String = endpoints.iter().map(line).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: echo}}\nspec:\n  hosts: [echo.default.svc.cluster.local]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports: [{{number: 7070, name: grpc, protocol: GRPC}}]\n  endpoints:\n{endpoints}"
    )
}

fn split(v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: echo}}\nspec: {{host: echo.default.svc.cluster.local, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: echo}}\nspec:\n  hosts: [echo.default.svc.cluster.local]\n  http:\n  - route:\n    - {{destination: {{host: echo.default.svc.cluster.local, subset: v1}}, weight: {v1}}}\n    - {{destination: {{host: echo.default.svc.cluster.local, subset: v2}}, weight: {v2}}}\n"
    )
}

fn answers(client: &mut GrpcPeer, count: u32) -> Value {
    let got = client.call(&json!({"target": TARGET, "count": count})).unwrap();
    assert_eq!(got["errors"], json!({}), "{got}");
    got["answers"].clone()
}

fn share(answers: &Value, name: &str) -> u64 {
    answers[name].as_u64().unwrap_or(0)
}

// spec: PI-28, PI-30, XD-6
#[test]
fn a_grpc_client_follows_services_weights_and_endpoints() {
    let (_one, first) = GrpcPeer::serve("v1").unwrap();
    let (_two, second) = GrpcPeer::serve("v2").unwrap();
    let (_three, third) = GrpcPeer::serve("v2b").unwrap();
    let pilot = Pilot::start(&[("echo.yaml", entry(&[("v1", first), ("v2", second)]))]);
    let bootstrap = pilot.bootstrap("sidecar~127.0.0.1~client-1.default~default.svc.cluster.local");
    let mut client = GrpcPeer::client(&bootstrap).unwrap();
    // Round robin once both are connected.
    until("both serve alike", || {
        let both = answers(&mut client, 100);
        (share(&both, "v1").abs_diff(share(&both, "v2")) <= 2).then_some(())
    });

    pilot.save("split.yaml", &split(90, 10));
    until("the split holds", || {
        let got = answers(&mut client, 200);
        // Five standard deviations around 20.
        (share(&got, "v1") + share(&got, "v2") == 200 && (1..=41).contains(&share(&got, "v2"))).then_some(())
    });
    pilot.save("split.yaml", &split(0, 100));
    until("all of it moves", || (share(&answers(&mut client, 50), "v2") == 50).then_some(()));

    pilot.save("echo.yaml", &entry(&[("v1", first), ("v2", third)]));
    until("the endpoint moves", || (share(&answers(&mut client, 50), "v2b") == 50).then_some(()));
    pilot.nothing_refused(&["LDS", "RDS", "CDS", "EDS"]);
    let unknown =
        json!({"target": "xds:///nowhere.default.svc.cluster.local:1", "count": 1, "timeout": 1, "wait": false});
    let got = client.call(&unknown).unwrap();
    assert_eq!(got["answers"], json!({}), "{got}");
}

// spec: PI-28, AZ-2
#[test]
fn a_grpc_server_serves_by_its_listener_and_obeys_policies() {
    let at = free_address().unwrap();
    let listed = entry(&[("v1", at.port())]);
    let pilot = Pilot::start(&[("echo.yaml", listed)]);
    let own = "sidecar~127.0.0.1~server-1.default~default.svc.cluster.local";
    let _server = GrpcPeer::serve_by_xds("v1", &at.to_string(), &pilot.bootstrap(own)).unwrap();
    let client_id = "sidecar~127.0.0.2~client-1.default~default.svc.cluster.local";
    let mut client = GrpcPeer::client(&pilot.bootstrap(client_id)).unwrap();
    assert_eq!(share(&answers(&mut client, 10), "v1"), 10);
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny}\nspec: {action: DENY, rules: [{to: [{operation: {paths: [/test.Echo/Say]}}]}]}\n";
    pilot.save("deny.yaml", deny);
    until("the policy denies", || {
        let got = client.call(&json!({"target": TARGET, "count": 1})).unwrap();
        got["errors"].to_string().contains("PERMISSION_DENIED").then_some(())
    });
    pilot.nothing_refused(&["LDS"]);
}

// spec: PI-28, PA-4, MT-6
#[test]
fn a_grpc_client_and_a_server_speak_mesh_mtls_where_rules_ask_for_it() {
    let at = free_address().unwrap();
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: strict}\nspec: {mtls: {mode: STRICT}}\n";
    let mutual = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: echo}\nspec: {host: echo.default.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}\n";
    let stranger =
        mutual.replace("ISTIO_MUTUAL", "ISTIO_MUTUAL, subjectAltNames: ['spiffe://cluster.local/ns/x/sa/y']");
    let listed = entry(&[("v1", at.port())]);
    let pilot = Pilot::start(&[("echo.yaml", listed), ("strict.yaml", strict.to_owned())]);
    let own = pilot.bootstrap("sidecar~127.0.0.1~server-1.default~default.svc.cluster.local");
    let _server = GrpcPeer::serve_by_xds("v1", &at.to_string(), &own).unwrap();
    let bootstrap = pilot.bootstrap("sidecar~127.0.0.2~client-1.default~default.svc.cluster.local");
    let mut client = GrpcPeer::client(&bootstrap).unwrap();
    let mut once = || {
        let got = client.call(&json!({"target": TARGET, "count": 1, "timeout": 2, "wait": false})).unwrap();
        (share(&got["answers"], "v1") == 1, got)
    };
    // The first call waits until everything has come; without TLS the server hangs up.
    let (answered, got) = once();
    assert!(!answered, "the server takes TLS alone: {got}");
    pilot.save("mutual.yaml", mutual);
    until("both speak TLS", || once().0.then_some(()));
    pilot.save("mutual.yaml", &stranger);
    until("another identity is not accepted", || (!once().0).then_some(()));
    pilot.save("mutual.yaml", mutual);
    until("the right one is again", || once().0.then_some(()));
    pilot.nothing_refused(&["CDS"]);
}
