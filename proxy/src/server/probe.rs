//! Ports of Istio's agent: readiness (15021), own metrics (15090), and merged metrics with rewritten probes (15020).
//!
//! Knows which port has which paths (spec PT-5 to PT-7, HL-2, HL-6). Must never know how the application is asked.

use super::admin::{AdminParts, Command, PROMETHEUS_TEXT, Stage};
use super::answer::{Answer, Peer, Socket, compressed, json, text};
use super::application::Application;
use crate::bootstrap::{AdminAddress, Flags};
use crate::xds::Kind;
use hyper::body::Incoming;
use hyper::{Method, Request};
use prost::Message;
use proto::missing::NameTable;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What is said in place of Go's profiles.
const PROFILES: &str = "no profiles of a Go program: /memory of the admin port (15000) tells what is allocated, \
    /stats/prometheus here what it costs, perf what it does\n";

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
        (Role::Metrics, "/stats/prometheus") => metrics(parts, None, request).await,
        (Role::Status, "/stats/prometheus" | "/metrics") => metrics(parts, Some(application), request).await,
        (Role::Status, "/debug/ndsz") if !is_local => text(403, "only requests from this machine\n"),
        (Role::Status, "/debug/ndsz") => name_table(parts),
        (Role::Status, "/quitquitquit" | "/drain") if !is_local => text(403, "only requests from this machine\n"),
        (Role::Status, "/quitquitquit" | "/drain") if request.method() != Method::POST => {
            text(405, format!("Method {} not allowed, POST required.\n", request.method()))
        }
        (Role::Status, "/quitquitquit") => send(parts, Command::Quit).await,
        (Role::Status, "/drain") => {
            send(parts, Command::Drain { inbound_only: true, graceful: true, skip_exit: true }).await
        }
        (Role::Status, path) if path.starts_with("/debug/pprof") => text(404, PROFILES),
        (Role::Status, _) => match application.probe(path, request.headers()).await {
            Some(answer) => answer,
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

/// Own metrics and, where asked, the application's; one that does not answer costs only its own.
async fn metrics(parts: &AdminParts, application: Option<&Application>, request: &Request<Incoming>) -> Answer {
    let Some(mut metrics) = parts.prometheus().await else { return text(503, "the process is ending\n") };
    if let Some(application) = application {
        application.add_metrics(&mut metrics).await;
    }
    compressed(PROMETHEUS_TEXT, metrics, request)
}

/// The names that pilot serves, as Istio's agent shows them.
fn name_table(parts: &AdminParts) -> Answer {
    let store = parts.store.borrow();
    let held = store.of(Kind::NameTable).next();
    let table = held.and_then(|held| NameTable::decode(held.resource.body.as_ref()).ok()).unwrap_or_default();
    let of = |info: &proto::missing::NameInfo| {
        serde_json::json!({
            "ips": info.ips, "registry": info.registry, "shortname": info.shortname, "namespace": info.namespace
        })
    };
    let table: serde_json::Map<_, _> = table.table.iter().map(|(name, info)| (name.clone(), of(info))).collect();
    json(&serde_json::json!({"table": table}))
}
