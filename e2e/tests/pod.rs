//! A pod without Kubernetes: our proxy with exactly what injection gives a container, in a network namespace of its own,
//! before a pilot and a citadel.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::allow_attributes, reason = "a test panics to fail")]

use citadel::ca::keystore::Keystore;
use citadel::ca::sign;
use identity::pem;
use identity::spiffe::{SpiffeId, TrustDomain};
use meshctl::demo::netns::Namespace;
use meshctl::demo::process::{Launch, Process};
use proto::wire::PROXY_UID;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// How long a part may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Address of the pod.
const POD: &str = "10.9.8.7";

/// A network namespace with a control plane and a pod. Dropping it ends all of it.
struct Machine {
    namespace: Namespace,
    directory: tempfile::TempDir,
    processes: Vec<Process>,
}

impl Machine {
    fn new(name: &str) -> Self {
        let namespace = Namespace::named(format!("{name}-{}", std::process::id()));
        namespace.create().unwrap();
        namespace.batch(&format!("link set lo up\naddr add {POD}/32 dev lo\n")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self { namespace, directory, processes: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn launch(&self, program: &str, args: &[&str], env: &[(&str, String)]) -> Launch {
        Launch {
            name: program.to_owned(),
            namespace: self.namespace.clone(),
            uid: (program == "proxy").then_some(PROXY_UID),
            program: e2e::program(program).unwrap(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            log: self.path(&format!("{program}.log")),
        }
    }

    fn start(&mut self, launch: &Launch) -> usize {
        self.processes.push(launch.start().unwrap());
        self.processes.len() - 1
    }

    /// Runs a subcommand of the proxy inside, as a hook of the pod does.
    fn proxy(&self, args: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.namespace.name()]).arg(e2e::program("proxy").unwrap()).args(args);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// The body of an answer.
    fn ask(&self, method: &str, path: &str, port: u16) -> String {
        let output = self.proxy(&["request", method, path, &format!("--debug-port={port}")]);
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn log(&self, program: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{program}.log"))).unwrap_or_default()
    }

    #[expect(clippy::disallowed_methods, reason = "a test waits for another process; nothing tells it when")]
    fn until(&mut self, what: &str, says: impl Fn(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !says(self) {
            let logs: Vec<String> = ["citadel", "pilot", "proxy"].iter().map(|name| self.log(name)).collect();
            assert!(Instant::now() < deadline, "never {what}:\n{}", logs.join("\n----\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// citadel, and pilot with a certificate of the same root.
    fn start_control_plane(&mut self) {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let authority = Keystore::new(&self.path("ca"), domain.clone());
        std::fs::create_dir(self.path("ca")).unwrap();
        let authority = authority.load_or_create(SystemTime::now()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let hosts = ["localhost".to_owned()];
        let life = Duration::from_secs(3600);
        let chain = sign::server_certificate(&authority, &key, &hosts, life, SystemTime::now()).unwrap();
        let chain: String = chain.iter().map(pem::encode_certificate).collect();
        std::fs::write(self.path("pilot.pem"), chain).unwrap();
        std::fs::write(self.path("pilot.key"), key.serialize_pem()).unwrap();
        std::fs::write(self.path("roots.pem"), authority.roots().to_pem()).unwrap();
        let tokens = citadel::token::TokenKey::load_or_create(&self.path("tokens.key")).unwrap();
        std::fs::write(self.path("jwks.json"), tokens.jwks().to_string()).unwrap();
        let id = SpiffeId::service_account(&domain, "shop", "keeper").unwrap();
        let token = tokens.mint(&id, Duration::from_secs(600), SystemTime::now()).unwrap();
        std::fs::write(self.path("token"), token).unwrap();

        let (ca, jwks) = (self.text("ca"), self.text("jwks.json"));
        let args = ["serve", "--root-dir", &ca, "--token-jwks", &jwks, "--monitoring-addr="];
        let citadel = self.launch("citadel", &args, &[]);
        self.start(&citadel);
        std::fs::create_dir(self.path("config")).unwrap();
        std::fs::write(self.path("config/all.json"), objects().to_string()).unwrap();
        let (config, chain, key, roots) =
            (self.text("config"), self.text("pilot.pem"), self.text("pilot.key"), self.text("roots.pem"));
        let args = [
            "discovery",
            "--config-dir",
            &config,
            "--tls-cert-file",
            &chain,
            "--tls-key-file",
            &key,
            "--ca-cert-file",
            &roots,
        ];
        let pilot = self.launch("pilot", &args, &[]);
        self.start(&pilot);
    }

    /// What injection and the kubelet give the container.
    fn container(&self) -> Launch {
        std::fs::create_dir_all(self.path("pod")).unwrap();
        std::fs::write(self.path("pod/labels"), "app=\"shop\"\nsecurity.istio.io/tlsMode=\"istio\"\n").unwrap();
        std::fs::write(self.path("pod/annotations"), "istio.io/rev=\"default\"\n").unwrap();
        std::fs::create_dir_all(self.path("proxy")).unwrap();
        chown(self.path("proxy"), Some(PROXY_UID), Some(PROXY_UID)).unwrap();
        let probes = json!({"/app-health/shop/livez": {"httpGet": {"path": "/alive", "port": 8085, "scheme": "HTTP"}}});
        let env = [
            ("PILOT_CERT_PROVIDER", "istiod".to_owned()),
            ("CA_ADDR", "localhost:8060".to_owned()),
            ("CA_ROOT_CA", self.text("roots.pem")),
            ("CA_TOKEN_FILE", self.text("token")),
            ("POD_NAME", "shop-1".to_owned()),
            ("POD_NAMESPACE", "shop".to_owned()),
            ("INSTANCE_IP", POD.to_owned()),
            ("SERVICE_ACCOUNT", "keeper".to_owned()),
            ("PROXY_CONFIG", "{\"discoveryAddress\":\"localhost:15012\"}\n".to_owned()),
            ("ISTIO_META_CLUSTER_ID", "Kubernetes".to_owned()),
            ("ISTIO_META_INTERCEPTION_MODE", "REDIRECT".to_owned()),
            ("ISTIO_META_WORKLOAD_NAME", "shop".to_owned()),
            ("ISTIO_CPU_LIMIT", "1".to_owned()),
            ("TRUST_DOMAIN", "cluster.local".to_owned()),
            ("TERMINATION_GRACE_PERIOD_SECONDS", "30".to_owned()),
            ("ISTIO_KUBE_APP_PROBERS", probes.to_string()),
        ];
        let (state, info) = (self.text("proxy"), self.text("pod"));
        let args = [
            "proxy",
            "sidecar",
            "--domain",
            "shop.svc.cluster.local",
            "--proxyLogLevel=info",
            "--proxyComponentLogLevel=misc:error",
            "--log_output_level=default:info",
            "--config-dir",
            &state,
            "--pod-info-dir",
            &info,
        ];
        self.launch("proxy", &args, &env)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.processes.clear();
        self.namespace.delete();
    }
}

/// The pod's own service, and mutual TLS alone.
fn objects() -> Value {
    let labels = json!({"app": "shop"});
    let meta = |name: &str| json!({"name": name, "namespace": "shop", "labels": labels});
    let items = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("shop"), "spec": {
            "clusterIP": "10.96.7.7", "selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8085}],
        }}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta("shop-1"),
            "spec": {"serviceAccountName": "keeper", "containers": [{"name": "shop", "ports": [{"containerPort": 8085}]}]},
            "status": {"phase": "Running", "podIP": POD, "podIPs": [{"ip": POD}],
                "conditions": [{"type": "Ready", "status": "True"}]},
        }),
        json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "default", "namespace": "istio-system"}, "spec": {"mtls": {"mode": "STRICT"}}}),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// The application: says 200 to one request a connection, at the pod's own address alone.
fn application(namespace: &Namespace) {
    let listener = namespace.inside(|| std::net::TcpListener::bind((POD, 8085))).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 1024];
            let read = stream.read(&mut head).unwrap_or_default();
            let found = String::from_utf8_lossy(head.get(..read).unwrap_or_default()).starts_with("GET /alive ");
            let status = if found { "200 OK" } else { "404 Not Found" };
            drop(write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        }
    });
}

fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|facts| std::os::unix::fs::MetadataExt::uid(&facts) == 0)
}

// spec: NI-1, NI-3, PI-60, PI-61, HL-1, HL-2, HL-3, HL-5, HL-6, PT-14
#[test]
fn what_injection_gives_makes_a_proxy_with_an_identity() {
    if !is_root() {
        return;
    }
    let mut machine = Machine::new("pod");
    machine.start_control_plane();
    application(&machine.namespace);
    let container = machine.container();
    let begun = Instant::now();
    let proxy = machine.start(&container);
    let waited = machine.proxy(&["wait", "--timeoutSeconds=30", "--periodMillis=20"]);
    assert!(waited.status.success(), "{}\n{}", String::from_utf8_lossy(&waited.stderr), machine.log("proxy"));
    let ready = begun.elapsed();

    let certificates: Value = serde_json::from_str(&machine.ask("GET", "/certs", 15000)).unwrap();
    assert!(certificates.to_string().contains("spiffe://cluster.local/ns/shop/sa/keeper"), "{certificates}");
    let dump = machine.ask("GET", "/config_dump", 15000);
    for wanted in
        ["virtualInbound", "require_client_certificate", "sidecar~10.9.8.7~shop-1.shop~shop.svc.cluster.local"]
    {
        assert!(dump.contains(wanted), "{wanted}");
    }
    assert!(dump.contains("\"security.istio.io/tlsMode\": \"istio\""), "labels of the downward API");
    assert_eq!(machine.ask("GET", "/app-health/shop/livez", 15020), "");
    assert!(!machine.proxy(&["request", "GET", "app-health/other/livez", "--debug-port=15020"]).status.success());
    assert!(machine.ask("GET", "/stats/prometheus", 15090).contains("envoy_server_live"));

    // The end of the pod: the signal, then its own end long before the kubelet's.
    let pid = machine
        .namespace
        .processes()
        .into_iter()
        .find(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "proxy"));
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid.unwrap()).unwrap()).unwrap();
    let begun = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    machine.until("the end after SIGTERM", |machine| machine.processes[proxy].ended().is_some());
    let ended = begun.elapsed();
    assert!(machine.processes[proxy].ended().unwrap().success(), "{}", machine.log("proxy"));
    println!("ready after {ready:?}, ended {ended:?} after SIGTERM");

    // The container again, while its control plane is away: the certificate outlives it. A job ends it by itself.
    machine.processes.iter_mut().for_each(Process::kill);
    let proxy = machine.start(&container);
    machine.until("a certificate", |machine| {
        let answer = machine.proxy(&["request", "GET", "certs"]);
        String::from_utf8_lossy(&answer.stdout).contains("/sa/keeper")
    });
    assert_eq!(machine.ask("POST", "quitquitquit", 15020), "OK\n");
    machine.until("the end after quitquitquit", |machine| machine.processes[proxy].ended().is_some());
}
