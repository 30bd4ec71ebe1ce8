//! Wires the parts; no logic of its own. Making a [`Server`] does no I/O, [`Server::start`] does.

use crate::args::ServeArgs;
use crate::export::file::Writer;
use crate::export::otlp::Exporter;
use crate::page::{self, Pages};
use crate::pilot::Pilot;
use crate::report::hub::Hub;
use crate::report::names::Meters;
use crate::serve::access_log::AccessLog;
use crate::serve::door::{self, Client, Doors, Doorway};
use crate::serve::otlp::Otlp;
use crate::serve::policy::Policy;
use crate::serve::{metrics, otlp_http, zipkin};
use crate::workload::{Follower, Table};
use anyhow::Context as _;
use axum::Router;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;
use vitals::admin::Admin;
use vitals::log::Level;
use vitals::prometheus::Registry;

/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 1024;
/// How long streams may go on after the signal to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Where an address is taken or a file is broken.
pub async fn run(args: ServeArgs, level: Option<Level>) -> anyhow::Result<()> {
    let mut running = Server::new(args, level).start().await?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        failed = running.failed() => return failed,
    }
    tracing::info!("stopping");
    running.stop(GRACE).await;
    Ok(())
}

/// mixer, made and not yet started.
pub struct Server {
    args: ServeArgs,
    level: Option<Level>,
}

/// mixer, running.
pub struct Running {
    /// Where the gRPC services are.
    pub grpc: Option<SocketAddr>,
    /// Where the page is.
    pub http: Option<SocketAddr>,
    /// Where its own metrics are.
    pub monitoring: Option<SocketAddr>,
    /// Where the series of the adapter prometheus are.
    pub adapter_metrics: Option<SocketAddr>,
    /// Where external authorization over HTTP is.
    pub ext_authz_http: Option<SocketAddr>,
    /// Where rate limits over gRPC are, besides `grpc`.
    pub ratelimit_grpc: Option<SocketAddr>,
    /// Where rate limits over HTTP are.
    pub ratelimit_http: Option<SocketAddr>,
    /// Where OTLP over gRPC is.
    pub otlp_grpc: Option<SocketAddr>,
    /// Where OTLP over HTTP is.
    pub otlp_http: Option<SocketAddr>,
    /// Where Zipkin's collector is.
    pub zipkin: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Running {
    fn new(stop: watch::Sender<bool>) -> Self {
        Self {
            grpc: None,
            http: None,
            monitoring: None,
            adapter_metrics: None,
            ext_authz_http: None,
            ratelimit_grpc: None,
            ratelimit_http: None,
            otlp_grpc: None,
            otlp_http: None,
            zipkin: None,
            stop,
            tasks: JoinSet::new(),
        }
    }

    /// Waits until a part fails.
    ///
    /// # Errors
    /// What made it fail.
    pub async fn failed(&mut self) -> anyhow::Result<()> {
        match self.tasks.join_next().await {
            Some(ended) => ended.context("a part of mixer panicked")?,
            None => Ok(()),
        }
    }

    /// Stops: new streams are refused at once, open ones end within `grace`.
    pub async fn stop(mut self, grace: Duration) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::info!("streams were still open after {grace:?}");
        }
    }
}

impl Server {
    /// mixer with these flags; the log's level can be changed where it is given.
    pub fn new(args: ServeArgs, level: Option<Level>) -> Self {
        Self { args, level }
    }

    /// Binds, and starts all parts.
    ///
    /// # Errors
    /// When an address is taken, or a file is missing or broken.
    pub async fn start(self) -> anyhow::Result<Running> {
        let args = self.args;
        let metrics = Registry::new();
        let (stop, stopped) = watch::channel(false);
        let mut running = Running::new(stop);
        let doors = Doors::new(&args.identity)?;
        let parts = Box::pin(Parts::new(&args, &doors, &metrics, &mut running.tasks)).await?;
        let service = |address| door::open(address, doors.services());
        let page = |address| door::open(address, doors.pages());
        let (tasks, limits) = (&mut running.tasks, &args.policy);
        running.grpc = serve_grpc(service(&args.grpc_addr).await?, parts.grpc(), tasks, &stopped);
        let at = service(&limits.ratelimit_grpc_addr).await?;
        running.ratelimit_grpc = serve_grpc(at, parts.policy.ratelimit_grpc(), tasks, &stopped);
        let at = service(&limits.ratelimit_http_addr).await?;
        running.ratelimit_http = serve_http(at, parts.policy.ratelimit_http(), tasks, &stopped);
        let at = page(&limits.adapter_metrics_addr).await?;
        running.adapter_metrics = serve_http(at, parts.policy.adapter_metrics(), tasks, &stopped);
        let ext_authz = parts.policy.ext_authz_http(&limits.ext_authz_http_prefix);
        running.ext_authz_http = serve_http(service(&limits.ext_authz_http_addr).await?, ext_authz, tasks, &stopped);
        running.otlp_grpc = serve_grpc(service(&args.otlp_grpc_addr).await?, parts.otlp_grpc(), tasks, &stopped);
        let at = service(&args.otlp_http_addr).await?;
        running.otlp_http = serve_http(at, otlp_http::router(parts.otlp.clone()), tasks, &stopped);
        let at = service(&args.zipkin_addr).await?;
        running.zipkin = serve_http(at, zipkin::router(parts.otlp.clone()), tasks, &stopped);
        let pages = parts.pages.router(page::is_local(&args.http_addr));
        running.http = serve_http(page(&args.http_addr).await?, pages, tasks, &stopped);
        let version = concat!("mixer ", env!("CARGO_PKG_VERSION"), "\n");
        let admin = Admin { metrics: metrics.clone(), ready: doors.ready(), level: self.level, version };
        let monitoring = metrics::router(parts.hub, metrics).fallback_service(admin.router());
        running.monitoring = serve_http(page(&args.monitoring_addr).await?, monitoring, tasks, &stopped);
        tracing::info!(grpc = ?running.grpc, http = ?running.http, monitoring = ?running.monitoring, "mixer serves");
        Ok(running)
    }
}

/// What the services share.
struct Parts {
    hub: Hub,
    logs: AccessLog,
    otlp: Otlp,
    policy: Policy,
    pages: Pages,
}

impl Parts {
    async fn new(
        args: &ServeArgs,
        doors: &Doors,
        metrics: &Registry,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        let pilot = args.pilot.as_deref().map(|url| Pilot::new(url, doors.held())).transpose()?;
        let workloads = match &pilot {
            None => Follower::fixed(Table::default()),
            Some(pilot) => {
                let (follower, following) = Follower::new(pilot.clone());
                tokio::spawn(following);
                follower
            }
        };
        let policy = Policy::start(&args.policy, (workloads.clone(), pilot.as_ref()), metrics, tasks).await?;
        let (engine, limiter) = (policy.engine.clone(), policy.limiter.clone());
        let (hub, owner) = Hub::new(args.max_series, Meters::new(metrics)?, move |decided| {
            engine.policy().decided(decided);
            limiter.decided(decided);
        });
        tokio::spawn(owner);
        let writer = match &args.access_log {
            None => None,
            Some(path) => {
                let (writer, writing) = Writer::open(path, args.access_log_format, hub.meters().clone()).await?;
                tasks.spawn(writing);
                Some(writer)
            }
        };
        let exporter = match &args.otlp_export {
            None => None,
            Some(url) => {
                let (exporter, exporting) = Exporter::new(url, hub.clone())?;
                tokio::spawn(exporting);
                Some(exporter)
            }
        };
        let both = (policy.engine.clone(), policy.limiter.clone());
        let pages = Pages::new(hub.clone(), workloads.clone(), both, (pilot.as_ref(), args.proxy_program()));
        let logs =
            AccessLog { hub: hub.clone(), workloads, writer, engine: policy.engine.clone(), hasher: Arc::default() };
        Ok(Self { hub, pages, otlp: Otlp::new(logs.clone(), exporter), logs, policy })
    }

    /// The gRPC services, one line each.
    fn grpc(&self) -> Routes {
        let mut routes = Routes::builder();
        routes.add_service(self.logs.clone().service());
        self.otlp.add_to(&mut routes);
        self.policy.add_to(&mut routes);
        routes.routes()
    }

    fn otlp_grpc(&self) -> Routes {
        let mut routes = Routes::builder();
        self.otlp.add_to(&mut routes);
        routes.routes()
    }
}

/// Serves gRPC at a doorway, if there is one.
fn serve_grpc(
    doorway: Option<Doorway>,
    routes: Routes,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    stopped: &watch::Receiver<bool>,
) -> Option<SocketAddr> {
    let doorway = doorway?;
    let (local, stopped) = (doorway.local(), stopped.clone());
    tasks.spawn(async move {
        let served = tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .add_routes(routes)
            .serve_with_incoming_shutdown(doorway.connections(), signal(stopped));
        served.await.context("gRPC services")
    });
    Some(local)
}

/// Serves HTTP at a doorway, if there is one.
fn serve_http(
    doorway: Option<Doorway>,
    router: Router,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    stopped: &watch::Receiver<bool>,
) -> Option<SocketAddr> {
    let doorway = doorway?;
    let (local, stopped) = (doorway.local(), stopped.clone());
    tasks.spawn(async move {
        let serving = axum::serve(doorway, router.into_make_service_with_connect_info::<Client>())
            .with_graceful_shutdown(signal(stopped));
        serving.await.context("HTTP")
    });
    Some(local)
}

/// Ends when mixer is told to stop.
async fn signal(mut stopped: watch::Receiver<bool>) {
    // The sender goes only with mixer itself: then it is time as well.
    let _gone = stopped.wait_for(|stop| *stop).await.is_err();
}
