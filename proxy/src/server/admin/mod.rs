//! The admin interface: Envoy's paths, on a TCP address or a Unix socket (spec AD).
//!
//! Knows snapshots of what the main thread holds, and where to send commands. Must never hold up the main thread: dumps
//! are written by a child, metrics are collected by their owner.

mod clusters;
mod config_dump;
mod info;
mod stats;
mod tap;

pub use info::{Lifecycle, Stage};
pub(super) use stats::PROMETHEUS_TEXT;
pub use stats::{MainStats, StatsReader, own_stats};
pub use tap::TapDoor;

use super::answer::{Answer, Socket, parameters, text};
use super::logging::Logging;
use crate::bootstrap::{AdminAddress, Bootstrap, Converter, LogLevel};
use crate::cluster::ClusterConfig;
use crate::endpoint::HostSet;
use crate::env::ProcessClock;
use crate::listener::ListenerConfig;
use crate::telemetry::Selection;
use crate::xds::Store;
use hyper::body::Incoming;
use hyper::{Method, Request};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What is published to the workers.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Clusters and their endpoints.
    pub clusters: Vec<(Arc<ClusterConfig>, Arc<HostSet>)>,
    /// Listeners and the addresses that they are bound to.
    pub listeners: Vec<(Arc<ListenerConfig>, Arc<[SocketAddr]>)>,
}

/// What the admin interface asks of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// End.
    Quit,
    /// Drain listeners.
    Drain {
        /// Only inbound ones.
        inbound_only: bool,
        /// Little by little.
        graceful: bool,
        /// Do not stop listening at the end.
        skip_exit: bool,
    },
    /// Fail health checks from now on.
    FailHealthChecks,
    /// Pass health checks again.
    PassHealthChecks,
    /// Open access logs anew.
    ReopenLogs,
}

/// What the admin interface looks at.
#[derive(Debug)]
pub struct AdminParts {
    /// What the process was started with.
    pub bootstrap: Arc<Bootstrap>,
    /// Converts dumps to JSON.
    pub converter: Converter,
    /// What was accepted.
    pub store: watch::Receiver<Store>,
    /// What is published.
    pub published: watch::Receiver<Arc<Published>>,
    /// In which stage the process is.
    pub stage: watch::Receiver<Stage>,
    /// Start, and what depends on it.
    pub lifecycle: Lifecycle,
    /// Metrics.
    pub stats: StatsReader,
    /// Metrics of the main thread.
    pub main_stats: MainStats,
    /// Log levels.
    pub logging: Logging,
    /// The clock that ejections are measured by.
    pub clock: Arc<ProcessClock>,
    /// Where commands go.
    pub commands: mpsc::Sender<Command>,
    /// Where those come in who look at requests.
    pub taps: TapDoor,
}

impl AdminParts {
    /// All metrics in Prometheus' format; `None` where the process is ending.
    pub(super) async fn prometheus(&self) -> Option<String> {
        Some(stats::snapshot(self).await?.prometheus(&Selection::default()))
    }
}

/// A bound admin interface.
#[derive(Debug)]
pub struct Admin {
    socket: Socket,
    parts: Arc<AdminParts>,
}

impl Admin {
    /// Listens, and writes the address to `--admin-address-path`.
    ///
    /// # Errors
    /// When the address or the file cannot be used.
    pub fn bind(address: &AdminAddress, parts: Arc<AdminParts>) -> io::Result<Self> {
        let socket = Socket::bind(address)?;
        if let Some(path) = &parts.bootstrap.flags.admin_address_path {
            let text = match socket.address()? {
                AdminAddress::Tcp(address) => address.to_string(),
                AdminAddress::Unix(path, _) => path.display().to_string(),
            };
            std::fs::write(path, text)?;
        }
        Ok(Self { socket, parts })
    }

    /// The address as it was bound.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<AdminAddress> {
        self.socket.address()
    }

    /// Serves for as long as it is polled.
    pub async fn serve(self) {
        let parts = self.parts;
        self.socket
            .serve(move |request| {
                let parts = parts.clone();
                async move { respond(&parts, &request).await }
            })
            .await;
    }
}

/// Paths, whether they change something (then POST is needed, AD-11), and what they do.
const PATHS: [(&str, bool, &str); 21] = [
    ("/certs", false, "certificates"),
    ("/clusters", false, "clusters and endpoints (format=json)"),
    ("/config_dump", false, "configuration (resource=, mask=, name_regex=, include_eds)"),
    ("/drain_listeners", true, "drain listeners (graceful, inboundonly, skip_exit)"),
    ("/healthcheck/fail", true, "fail health checks"),
    ("/healthcheck/ok", true, "pass health checks"),
    ("/help", false, "this list"),
    ("/hot_restart_version", false, "version of the hand-over between processes"),
    ("/listeners", false, "listeners and their addresses (format=json)"),
    ("/logging", true, "log levels (level=, paths=, LOGGER=LEVEL)"),
    ("/memory", false, "memory of the process"),
    ("/quitquitquit", true, "end the process"),
    ("/ready", false, "whether the process is live"),
    ("/reopen_logs", true, "open access logs anew"),
    ("/server_info", false, "version, state, flags"),
    ("/stats", false, "metrics (filter=, usedonly, type=, format=, histogram_buckets=)"),
    ("/stats/prometheus", false, "metrics for Prometheus (filter=, usedonly)"),
    ("/tap", false, "requests as they pass, as lines of JSON (method=, path_prefix=, status=, seconds=, and more)"),
    ("/", false, "this list"),
    ("/init_dump", false, "what the start waits for"),
    ("/runtime", false, "runtime values"),
];

/// Whether a browser sends it for a page: no page is served here whose forms could be meant (robustness S8).
fn comes_from_a_page<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    headers.contains_key("origin") || headers.contains_key("referer") || headers.contains_key("sec-fetch-site")
}

async fn respond(parts: &AdminParts, request: &Request<Incoming>) -> Answer {
    let path = request.uri().path();
    let ask = parameters(request.uri().query());
    let Some((_, mutates, _)) = PATHS.iter().find(|(known, _, _)| *known == path) else {
        return text(404, format!("invalid path. admin commands are:\n{}", help()));
    };
    if *mutates && request.method() != Method::POST {
        return text(405, format!("Method {} not allowed, POST required.", request.method()));
    }
    if *mutates && comes_from_a_page(request) {
        return text(403, "a page of a browser must not change anything here".to_owned());
    }
    match path {
        "/certs" => clusters::certs(parts),
        "/clusters" => clusters::clusters(parts, &ask),
        "/listeners" => clusters::listeners(parts, &ask),
        "/config_dump" => Box::pin(config_dump::respond(parts, &ask)).await,
        "/stats" => stats::stats(parts, &ask).await,
        "/stats/prometheus" => stats::prometheus(parts, &ask).await,
        "/tap" => parts.taps.respond(&ask).await,
        "/server_info" => info::server_info(parts),
        "/ready" => info::ready(parts),
        "/memory" => info::memory(),
        "/init_dump" => info::init_dump(parts),
        "/runtime" => info::runtime(parts),
        "/hot_restart_version" => text(200, "disabled"),
        "/logging" => logging(parts, &ask),
        "/drain_listeners" => {
            let has = |name: &str| ask.iter().any(|(found, _)| found == name);
            let command = Command::Drain {
                inbound_only: has("inboundonly"),
                graceful: has("graceful"),
                skip_exit: has("skip_exit"),
            };
            if has("skip_exit") && !has("graceful") {
                return text(400, "skip_exit requires graceful\n");
            }
            send(parts, command).await
        }
        "/healthcheck/fail" => send(parts, Command::FailHealthChecks).await,
        "/healthcheck/ok" => send(parts, Command::PassHealthChecks).await,
        "/quitquitquit" => send(parts, Command::Quit).await,
        "/reopen_logs" => send(parts, Command::ReopenLogs).await,
        _ => text(200, format!("admin commands are:\n{}", help())),
    }
}

async fn send(parts: &AdminParts, command: Command) -> Answer {
    match parts.commands.send(command).await {
        Ok(()) => text(200, "OK\n"),
        Err(_) => text(503, "the process is ending\n"),
    }
}

fn logging(parts: &AdminParts, ask: &[(String, String)]) -> Answer {
    let level = |text: &str| text.parse::<LogLevel>();
    let changed: Result<(), String> = ask.iter().try_for_each(|(name, value)| match name.as_str() {
        "level" => parts.logging.set_all(level(value)?),
        "paths" => crate::bootstrap::component_directives(value)?
            .into_iter()
            .try_for_each(|(name, level)| parts.logging.set(&name, level)),
        logger => parts.logging.set(logger, level(value)?),
    });
    match changed {
        Ok(()) => text(200, parts.logging.list()),
        Err(why) => text(400, format!("error: {why}\n")),
    }
}

fn help() -> String {
    let mut sorted = PATHS;
    sorted.sort_by_key(|(path, _, _)| *path);
    let line = |(path, mutates, what): &(&str, bool, &str)| {
        let post = if *mutates { " (POST)" } else { "" };
        format!("  {path}: {what}{post}\n")
    };
    sorted.iter().map(line).collect()
}
