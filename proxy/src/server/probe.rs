//! Ports of Istio's agent: readiness (15021), own metrics (15090), and merged metrics with rewritten probes (15020).
//!
//! Probes of the kubelet cannot speak mutual TLS, so injection rewrites them to this process, which asks the application
//! over the loopback device, from an address that redirection leaves alone (spec HL-1, HL-2, HL-6).

use super::admin::{AdminParts, Command, PROMETHEUS_TEXT, Stage};
use super::answer::{Answer, Peer, Socket, text, with_type};
use crate::bootstrap::{AdminAddress, Environment, Flags};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

/// Probes by the path that injection gave them.
const PROBES_VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";
/// Where the application's own metrics are.
const METRICS_VARIABLE: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// Bytes of application metrics that are taken over.
const METRICS_MAX_BYTES: usize = 16 << 20;
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);

/// One probe of the application, as Kubernetes writes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpTarget>,
    grpc: Option<serde_json::Value>,
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    path: Option<String>,
    port: u16,
    host: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Debug, Clone, Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Debug, Clone, Deserialize)]
struct TcpTarget {
    port: u16,
    host: Option<String>,
}

/// Where an application shows its metrics, as its pod's annotations say; all of it is text there.
#[derive(Debug, Clone, Deserialize)]
struct ScrapeTarget {
    scrape: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: String,
}

/// What the application is asked, from the environment.
#[derive(Debug, Clone, Default)]
pub struct Application {
    probes: BTreeMap<String, Probe>,
    metrics: Option<(u16, String)>,
}

impl Application {
    /// Reads the variables that injection sets.
    ///
    /// # Errors
    /// The variable that cannot be read.
    pub fn of(environment: &Environment) -> Result<Self, String> {
        let probes = match environment.get(PROBES_VARIABLE) {
            Some(json) => serde_json::from_str(json).map_err(|error| format!("{PROBES_VARIABLE}: {error}"))?,
            None => BTreeMap::new(),
        };
        let target: Option<ScrapeTarget> = match environment.get(METRICS_VARIABLE) {
            Some(json) => Some(serde_json::from_str(json).map_err(|error| format!("{METRICS_VARIABLE}: {error}"))?),
            None => None,
        };
        let metrics = match target.filter(|target| target.scrape == "true") {
            Some(target) => {
                let port = if target.port.is_empty() { "80" } else { &target.port };
                let port = port.parse().map_err(|_| format!("{METRICS_VARIABLE}: {port:?} is no port"))?;
                Some((port, if target.path.is_empty() { "/metrics".to_owned() } else { target.path }))
            }
            None => None,
        };
        Ok(Self { probes, metrics })
    }
}

/// The ports of the agent.
#[derive(Debug)]
pub struct Probes {
    sockets: Vec<(Role, Socket)>,
    application: Application,
    parts: Arc<AdminParts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Status,
    Ready,
    Metrics,
}

impl Probes {
    /// Listens on the ports that the flags give, on all addresses.
    ///
    /// # Errors
    /// A port that cannot be used.
    pub fn bind(flags: &Flags, application: Application, parts: Arc<AdminParts>) -> io::Result<Self> {
        let wanted =
            [(Role::Status, flags.status_port), (Role::Ready, flags.ready_port), (Role::Metrics, flags.metrics_port)];
        let mut sockets = Vec::new();
        for (role, port) in wanted.into_iter().filter_map(|(role, port)| Some((role, port?))) {
            let socket =
                any_address(port).map_err(|error| io::Error::new(error.kind(), format!("port {port}: {error}")))?;
            sockets.push((role, socket));
        }
        Ok(Self { sockets, application, parts })
    }

    /// The addresses in the order status, ready, metrics, for those that were asked for.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn addresses(&self) -> io::Result<Vec<AdminAddress>> {
        self.sockets.iter().map(|(_, socket)| socket.address()).collect()
    }

    /// Serves for as long as it is polled.
    pub async fn serve(self) {
        let application = Arc::new(self.application);
        let services = self.sockets.into_iter().map(|(role, socket)| {
            let (parts, application) = (self.parts.clone(), application.clone());
            socket.serve(move |request| {
                let (parts, application) = (parts.clone(), application.clone());
                async move { respond(role, &parts, &application, &request).await }
            })
        });
        futures_util::future::join_all(services).await;
    }
}

/// All IPv6 addresses and with them all IPv4 ones, or the latter alone where there is no IPv6.
fn any_address(port: u16) -> io::Result<Socket> {
    Socket::bind(&AdminAddress::Tcp((Ipv6Addr::UNSPECIFIED, port).into()))
        .or_else(|_| Socket::bind(&AdminAddress::Tcp((Ipv4Addr::UNSPECIFIED, port).into())))
}

async fn respond(role: Role, parts: &AdminParts, application: &Application, request: &Request<Incoming>) -> Answer {
    let path = request.uri().path();
    let is_local = request.extensions().get::<Peer>().is_some_and(|peer| peer.is_local());
    match (role, path) {
        (Role::Status | Role::Ready, "/healthz/ready") => ready(parts),
        (Role::Metrics, "/stats/prometheus") => own_metrics(parts).await,
        (Role::Status, "/stats/prometheus" | "/metrics") => merged_metrics(parts, application).await,
        (Role::Status, "/quitquitquit" | "/drain") if !is_local => text(403, "only requests from this machine\n"),
        (Role::Status, "/quitquitquit" | "/drain") if request.method() != Method::POST => {
            text(405, format!("Method {} not allowed, POST required.\n", request.method()))
        }
        (Role::Status, "/quitquitquit") => send(parts, Command::Quit).await,
        (Role::Status, "/drain") => {
            send(parts, Command::Drain { inbound_only: true, graceful: true, skip_exit: true }).await
        }
        (Role::Status, _) => match application.probes.get(path) {
            Some(probe) => ask_application(probe).await,
            None => text(404, "not found\n"),
        },
        _ => text(404, "not found\n"),
    }
}

fn ready(parts: &AdminParts) -> Answer {
    let stage = *parts.stage.borrow();
    text(if stage == Stage::Live { 200 } else { 503 }, format!("{}\n", stage.name()))
}

async fn send(parts: &AdminParts, command: Command) -> Answer {
    match parts.commands.send(command).await {
        Ok(()) => text(200, "OK\n"),
        Err(_) => text(503, "the process is ending\n"),
    }
}

async fn own_metrics(parts: &AdminParts) -> Answer {
    match parts.prometheus().await {
        Some(metrics) => with_type(200, PROMETHEUS_TEXT, metrics),
        None => text(503, "the process is ending\n"),
    }
}

/// Own metrics and the application's; an application that does not answer costs only its own.
async fn merged_metrics(parts: &AdminParts, application: &Application) -> Answer {
    let Some(mut metrics) = parts.prometheus().await else { return text(503, "the process is ending\n") };
    if let Some((port, path)) = &application.metrics {
        match scrape(*port, path).await {
            Ok(theirs) => metrics.push_str(&theirs),
            Err(why) => tracing::warn!(port, path, why, "metrics of the application are left out"),
        }
    }
    with_type(200, PROMETHEUS_TEXT, metrics)
}

async fn scrape(port: u16, path: &str) -> Result<String, String> {
    let get = HttpGet { path: Some(path.to_owned()), port, host: None, scheme: None, http_headers: Vec::new() };
    let (status, body) = tokio::time::timeout(METRICS_TIMEOUT, get.send())
        .await
        .map_err(|_| format!("no answer within {METRICS_TIMEOUT:?}"))??;
    if status != 200 {
        return Err(format!("status {status}"));
    }
    let mut text = String::from_utf8(body).map_err(|_| "the answer is not UTF-8".to_owned())?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

async fn ask_application(probe: &Probe) -> Answer {
    let limit = Duration::from_secs(probe.timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or(1));
    let asked = async {
        match (&probe.http_get, &probe.tcp_socket, &probe.grpc) {
            (Some(get), _, _) => get.send().await.map(|(status, _)| status),
            (_, Some(target), _) => connect(target.host.as_deref(), target.port).await.map(|_| 200),
            (_, _, Some(_)) => Err("not supported yet: grpc probes".to_owned()),
            _ => Err("a probe needs httpGet or tcpSocket".to_owned()),
        }
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok(status)) => text(status, ""),
        Ok(Err(why)) => text(500, format!("{why}\n")),
        Err(_) => text(500, format!("no answer within {limit:?}\n")),
    }
}

impl HttpGet {
    async fn send(&self) -> Result<(u16, Vec<u8>), String> {
        if self.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
            return Err("not supported yet: https probes".to_owned());
        }
        let stream = connect(self.host.as_deref(), self.port).await?;
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let path = self.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut request = Request::get(path).header("host", format!("localhost:{}", self.port));
        for header in &self.http_headers {
            if header.name.eq_ignore_ascii_case("host") {
                request.headers_mut().map(|headers| headers.remove("host"));
            }
            request = request.header(&header.name, &header.value);
        }
        let request =
            request.header("connection", "close").body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let exchange = async move {
            let answer = client.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), METRICS_MAX_BYTES).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes().to_vec()))
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            done = &mut exchange => done,
            _ = &mut connection => exchange.await,
        }
    }
}

/// Connects to the application on this machine, from the address that redirection leaves alone (PT-13).
async fn connect(host: Option<&str>, port: u16) -> Result<TcpStream, String> {
    let target: IpAddr = match host.filter(|host| !host.is_empty() && *host != "localhost") {
        Some(host) => host.parse().map_err(|_| format!("not supported yet: host {host}"))?,
        None => Ipv4Addr::LOCALHOST.into(),
    };
    let address = SocketAddr::new(target, port);
    let connected = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if target.is_ipv4() {
            socket.bind(SocketAddr::new(Ipv4Addr::new(127, 0, 0, 6).into(), 0))?;
        }
        socket.connect(address).await
    };
    connected.await.map_err(|error: io::Error| format!("{address}: {error}"))
}
