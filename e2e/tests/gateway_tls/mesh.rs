//! A pilot in this process, a gateway that it tells, and upstreams.

use crate::pki::{Leaf, Pki};
use clap::Parser as _;
use e2e::app::Echo;
use e2e::client::read_head;
use e2e::proxies::{Flavour, Proxy, free_address};
use pilot::args::{Cli, Command};
use pilot::server::{Running, Server};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time between two looks: the processor is for the load.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The form of the protocol that the gateway speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Delta,
    StateOfTheWorld,
}

pub(crate) struct Mesh {
    pub(crate) pki: Arc<Pki>,
    /// Where the gateway listens.
    pub(crate) address: SocketAddr,
    /// The certificates that it begins with, by host.
    first: BTreeMap<&'static str, String>,
    directory: tempfile::TempDir,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
    _gateway: Proxy,
}

impl Mesh {
    pub(crate) fn start(pki: &Arc<Pki>, flavour: Flavour, form: Form) -> Self {
        let (pki, directory) = (Arc::clone(pki), tempfile::tempdir().unwrap());
        let hosts = ["a.example", "b.example", "c.example"];
        let sites = hosts.map(|host| pki.site(host));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_address().unwrap().port()));
        std::fs::create_dir(directory.path().join("objects")).unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        file("objects/gateway.yaml", &objects(address.port(), Echo::start("echo").unwrap().address, passed(&sites[2])));
        file("objects/a.yaml", &secret("a", &sites[0], None));
        file("objects/b.yaml", &secret("b", &sites[1], Some(&pki.client_roots)));
        let own = pki.mesh.issue("", &["istiod.example", "spiffe://cluster.local/ns/istio-system/sa/istiod"]);
        let proxy = pki.mesh.issue("", &["spiffe://cluster.local/ns/istio-system/sa/gw"]);
        let flags = [
            ("--tls-cert-file", file("istiod.pem", &own.chain)),
            ("--tls-key-file", file("istiod.key", &own.key)),
            ("--ca-cert-file", file("roots.pem", &pki.mesh.pem)),
            ("--config-dir", directory.path().join("objects").display().to_string()),
            ("--secure-grpc-addr", "127.0.0.1:0".to_owned()),
            ("--http-addr", "127.0.0.1:0".to_owned()),
            ("--monitoring-addr", String::new()),
        ];
        let line = ["pilot".to_owned(), "discovery".to_owned()].into_iter();
        let line = line.chain(flags.into_iter().map(|(flag, value)| format!("{flag}={value}")));
        let Command::Discovery(args) = Cli::parse_from(line).command else { panic!("discovery") };
        let running = runtime.block_on(async {
            let running = Box::pin(Server::new(*args, None).start()).await.unwrap();
            running.hub.ready().wait_for(|ready| *ready).await.unwrap();
            running
        });
        let files = [file("gw.pem", &proxy.chain), file("gw.key", &proxy.key), file("gw-roots.pem", &pki.mesh.pem)];
        let bootstrap = bootstrap(running.secure_grpc.unwrap(), form, &files);
        let gateway = Proxy::start(flavour, |_| bootstrap).unwrap();
        let first = hosts.into_iter().zip(sites.map(|leaf| leaf.fingerprint)).collect();
        Self { pki, address, first, directory, running: Some(running), runtime, _gateway: gateway }
    }

    /// The certificate that a host begins with.
    pub(crate) fn first(&self, host: &str) -> &str {
        &self.first[host]
    }

    fn object(&self, name: &str) -> PathBuf {
        self.directory.path().join("objects").join(name)
    }

    /// Writes a Secret, at once as `kubectl apply` would.
    pub(crate) fn write_secret(&self, name: &str, leaf: &Leaf, authorities: Option<&str>) {
        let fresh = self.directory.path().join("fresh");
        std::fs::write(&fresh, secret(name, leaf, authorities)).unwrap();
        std::fs::rename(fresh, self.object(&format!("{name}.yaml"))).unwrap();
    }

    pub(crate) fn remove_secret(&self, name: &str) {
        std::fs::remove_file(self.object(&format!("{name}.yaml"))).unwrap();
    }

    /// Waits until there is something.
    pub(crate) fn until<T>(&self, mut level: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = level() {
                return found;
            }
            assert!(Instant::now() < deadline, "it does not come: {:?}", self.status()["problems"]);
            std::thread::park_timeout(LOOK_AGAIN);
        }
    }

    fn status(&self) -> Value {
        let request = "GET /debug/status HTTP/1.1\r\nhost: pilot\r\nconnection: close\r\n\r\n";
        let running = self.running.as_ref().unwrap();
        let answer = e2e::client::exchange(running.http.unwrap(), request).unwrap();
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Waits until pilot says that something is wrong with a field.
    pub(crate) fn lacks(&self, field: &str, message: &str) {
        self.until(|| {
            let status = self.status();
            let says =
                |problem: &Value, key: &str, part: &str| problem[key].as_str().is_some_and(|text| text.contains(part));
            let problems = status["problems"].as_array()?;
            problems
                .iter()
                .any(|problem| says(problem, "field", field) && says(problem, "message", message))
                .then_some(())
        });
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop(Duration::from_millis(100)));
        }
    }
}

fn secret(name: &str, leaf: &Leaf, authorities: Option<&str>) -> String {
    let field = |(name, text): (&str, &str)| {
        let lines: String = text.lines().map(|line| format!("    {line}\n")).collect();
        format!("  {name}: |\n{lines}")
    };
    let fields = [("tls.crt", leaf.chain.as_str()), ("tls.key", leaf.key.as_str())].into_iter();
    let fields: String = fields.chain(authorities.map(|pem| ("ca.crt", pem))).map(field).collect();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: istio-system}}\ntype: kubernetes.io/tls\nstringData:\n{fields}"
    )
}

/// An upstream of its own certificate, for what passes through.
fn passed(leaf: &Leaf) -> SocketAddr {
    let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(session, stream));
            if let Ok(Some(_)) = read_head(&mut stream) {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                drop(stream.get_mut().write_all(answer)); // the client went away: nobody to tell
            }
        }
    });
    address
}

fn objects(port: u16, echo: SocketAddr, passed: SocketAddr) -> String {
    let server = |name: &str, protocol: &str, tls: &str| {
        format!(
            "  - {{port: {{number: {port}, name: {name}, protocol: {protocol}}}, hosts: [{name}.example], tls: {{{tls}}}}}\n"
        )
    };
    let servers = [
        server("a", "HTTPS", "mode: SIMPLE, credentialName: a"),
        server("b", "HTTPS", "mode: MUTUAL, credentialName: b"),
        server("c", "TLS", "mode: PASSTHROUGH"),
        server("d", "HTTPS", "mode: SIMPLE, credentialName: d"),
    ]
    .concat();
    let entry = |name: &str, protocol: &str, to: SocketAddr| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: istio-system}}\nspec:\n  hosts: [{name}.upstream]\n  addresses: [240.0.0.{}]\n  ports: [{{number: 80, name: p, protocol: {protocol}}}]\n  resolution: STATIC\n  location: MESH_EXTERNAL\n  endpoints: [{{address: 127.0.0.1, ports: {{p: {}}}}}]\n",
            1 + to.port() % 250,
            to.port()
        )
    };
    let gateway = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: istio-system}}\nspec:\n  selector: {{istio: ingressgateway}}\n  servers:\n{servers}"
    );
    let rule = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: istio-system}}\nspec:\n  hosts: [a.example, b.example, c.example, d.example]\n  gateways: [g]\n  http: [{{route: [{{destination: {{host: echo.upstream}}}}]}}]\n  tls: [{{match: [{{port: {port}, sniHosts: [c.example]}}], route: [{{destination: {{host: passed.upstream}}}}]}}]\n"
    );
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: gw-1, namespace: istio-system, labels: {istio: ingressgateway}}\nspec: {serviceAccountName: gw}\nstatus: {podIP: 127.0.0.1}\n";
    [gateway, rule, pod.to_owned(), entry("echo", "HTTP", echo), entry("passed", "TLS", passed)].join("---\n")
}

/// A gateway that speaks to pilot over TLS with a certificate of the mesh; the same for both proxies.
fn bootstrap(pilot: SocketAddr, form: Form, [chain, key, roots]: &[String; 3]) -> Value {
    let api_type = if form == Form::Delta { "DELTA_GRPC" } else { "GRPC" };
    let file = |path: &String| json!({"filename": Path::new(path)});
    let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "istiod.example",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [{"certificate_chain": file(chain), "private_key": file(key)}],
            "validation_context": {"trusted_ca": file(roots)},
        },
    }});
    let http2 = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }});
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": pilot.port()}});
    json!({
        "node": {
            "id": "router~127.0.0.1~gw-1.istio-system~istio-system.svc.cluster.local", "cluster": "gw",
            "metadata": {"NAMESPACE": "istio-system", "SERVICE_ACCOUNT": "gw", "LABELS": {"istio": "ingressgateway"}},
        },
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type, "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": [{
            "name": "xds-grpc", "type": "STATIC", "connect_timeout": "5s", "transport_socket": socket,
            "typed_extension_protocol_options": http2,
            "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
        }]},
    })
}
