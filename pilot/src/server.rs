//! Wires the parts; no logic of its own. Making a [`Server`] does no I/O, [`Server::start`] does.

use crate::ads::authenticate::{Authenticator, Proof};
use crate::ads::debug;
use crate::ads::relay::Relay;
use crate::ads::service::Ads;
use crate::ads::tls::{self, Files};
use crate::args::Discovery;
use crate::delivery::debounce::Delays;
use crate::delivery::metrics::Metrics;
use crate::delivery::{Hub, HubHandle};
use crate::model::{MeshConfig, mesh_config};
use crate::source::{Event, file, kube, mesh_file};
use crate::status::leader::{self, Leadership};
use crate::status::writer::Writer;
use ::kube::api::Api;
use anyhow::Context as _;
use identity::jwks::KeySet;
use identity::jwt::{Expiry, TokenRules};
use identity::spiffe::TrustDomain;
use proto::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::transport::Server as Grpc;
use tonic::transport::server::{Router, TcpIncoming};
use vitals::admin::{self, Admin};
use vitals::prometheus::Registry;

/// Batches of events that may wait for the hub.
const EVENTS: usize = 256;
/// Streams per connection (XI-3).
const MAX_STREAMS: u32 = 100_000;

/// pilot, made and not yet started.
pub struct Server {
    args: Discovery,
    level: Option<vitals::log::Level>,
}

/// pilot, running.
pub struct Running {
    /// Where xDS is served in the clear.
    pub grpc: Option<SocketAddr>,
    /// Where xDS is served over TLS.
    pub secure_grpc: Option<SocketAddr>,
    /// Where readiness and debug pages are.
    pub http: Option<SocketAddr>,
    /// Where metrics are.
    pub monitoring: Option<SocketAddr>,
    /// The way to the hub.
    pub hub: HubHandle,
    stop: watch::Sender<bool>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Running {
    /// Waits until a part fails.
    ///
    /// # Errors
    /// What made it fail.
    pub async fn failed(&mut self) -> anyhow::Result<()> {
        match self.tasks.join_next().await {
            Some(ended) => ended.context("a part of pilot panicked")?,
            None => Ok(()),
        }
    }

    /// Stops: new streams are refused at once, open ones end within `grace`.
    pub async fn stop(mut self, grace: std::time::Duration) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::info!("streams were still open after {grace:?}");
        }
    }
}

impl Server {
    /// pilot with these flags; the log's level can be changed where it is given.
    pub fn new(args: Discovery, level: Option<vitals::log::Level>) -> Self {
        Self { args, level }
    }

    /// Binds, and starts all parts.
    ///
    /// # Errors
    /// When an address is taken, or a file is missing or broken.
    pub async fn start(self) -> anyhow::Result<Running> {
        let args = &self.args;
        let config = self.mesh_config()?;
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).context("metrics")?;
        let (events, received) = mpsc::channel(EVENTS);
        let delays = Delays { quiet: args.debounce_after, longest: args.debounce_max };
        let (hub, handle) = Hub::new(config.clone(), delays, metrics.clone(), received);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(until(stopped.clone(), async move {
            hub.run().await;
            Ok(())
        }));
        let mut running =
            Running { grpc: None, secure_grpc: None, http: None, monitoring: None, hub: handle, stop, tasks };
        Box::pin(self.start_source(&mut running, events, &registry, &stopped)).await?;
        self.start_grpc(&mut running, &metrics, &config, &stopped).await?;
        self.start_http(&mut running, registry, &stopped).await?;
        tracing::info!(grpc = ?running.grpc, secure_grpc = ?running.secure_grpc, http = ?running.http, monitoring = ?running.monitoring, "pilot serves");
        Ok(running)
    }

    /// Objects come from a directory or from a Kubernetes API; the mesh's settings from a file, if one is named.
    async fn start_source(
        &self,
        running: &mut Running,
        events: mpsc::Sender<Vec<Event>>,
        registry: &Registry,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let args = &self.args;
        if let Some(path) = args.mesh_config.clone() {
            running.tasks.spawn(until(stopped.clone(), mesh_file::run(path, mesh_config::parse, events.clone())));
        }
        if let Some(directory) = args.config_dir.clone() {
            running.tasks.spawn(until(stopped.clone(), file::run(directory, events)));
            return Ok(());
        }
        let suffix = if args.revision.is_empty() { String::new() } else { format!("-{}", args.revision) };
        let client = kube::connect(args.kubeconfig.as_deref()).await?;
        let (defined, definitions) = watch::channel(kube::Defined::default());
        let cluster = kube::Cluster {
            client: client.clone(),
            namespaces: args.app_namespace.clone(),
            namespace: args.namespace.clone(),
            settings: args.mesh_config.is_none().then(|| format!("istio{suffix}")),
            defined,
        };
        let metrics = kube::metrics::Metrics::new(registry).context("metrics")?;
        running.tasks.spawn(until(stopped.clone(), kube::run(cluster, mesh_config::parse, metrics, events)));
        if args.write_status {
            let leadership = Leadership::default();
            let leases = Api::namespaced(client.clone(), &args.namespace);
            let seek = leader::run(leases, args.identity(), leadership.clone());
            running.tasks.spawn(until(stopped.clone(), seek));
            let writer = Writer { client, hub: running.hub.clone(), leadership, defined: definitions };
            running.tasks.spawn(until(stopped.clone(), writer.run()));
        }
        Ok(())
    }

    fn mesh_config(&self) -> anyhow::Result<MeshConfig> {
        let args = &self.args;
        let mut written = match &args.mesh_config {
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                mesh_config::parse(&text).with_context(|| format!("{}", path.display()))?
            }
            None => proto::istio::mesh_config::MeshConfig::default(),
        };
        written.root_namespace.get_or_insert_with(|| args.namespace.clone());
        let mut config = MeshConfig::new(written, &args.domain, &args.cluster_id);
        config.istio_defaults = args.istio_defaults;
        Ok(config)
    }

    fn files(&self) -> Option<Files> {
        Some(Files {
            certificate: self.args.tls_cert_file.clone()?,
            key: self.args.tls_key_file.clone()?,
            roots: self.args.ca_cert_file.clone()?,
        })
    }

    fn relay(&self) -> anyhow::Result<Option<IstioCertificateServiceServer<Relay>>> {
        let relay = self.args.ca_addr.as_ref().map(|address| Relay::new(address, self.files())).transpose()?;
        Ok(relay.map(IstioCertificateServiceServer::new))
    }

    async fn start_grpc(
        &self,
        running: &mut Running,
        metrics: &Metrics,
        config: &MeshConfig,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        if !self.args.grpc_addr.is_empty() {
            let (listener, local) = admin::bind(&self.args.grpc_addr).await?;
            let ads = Ads::new(running.hub.clone(), Authenticator::Nobody, metrics.clone());
            let router = self.grpc().add_service(ads).add_optional_service(self.relay()?);
            running.grpc = Some(local);
            let stopped = stopped.clone();
            running.tasks.spawn(async move {
                let done = router
                    .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), signal(stopped))
                    .await;
                done.context("xDS in the clear")
            });
        }
        if !self.args.secure_grpc_addr.is_empty() {
            let files = self.files().context(
                "--secure-grpc-addr needs --tls-cert-file, --tls-key-file and --ca-cert-file; an empty address turns it off",
            )?;
            files.server()?;
            let (listener, local) = admin::bind(&self.args.secure_grpc_addr).await?;
            let ads = Ads::new(running.hub.clone(), self.proof(config)?, metrics.clone());
            let router: Router = self.grpc().add_service(ads).add_optional_service(self.relay()?);
            running.secure_grpc = Some(local);
            let stopped = stopped.clone();
            running.tasks.spawn(async move {
                let serving = router.serve_with_incoming_shutdown(tls::accept(listener, files), signal(stopped));
                let done = Box::pin(serving).await;
                done.context("xDS over TLS")
            });
        }
        Ok(())
    }

    fn grpc(&self) -> Grpc {
        Grpc::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(self.args.keepalive_interval))
            .http2_keepalive_timeout(Some(self.args.keepalive_timeout))
    }

    fn proof(&self, config: &MeshConfig) -> anyhow::Result<Authenticator> {
        let keys = match &self.args.jwks_file {
            Some(path) => {
                let json = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
                Some(KeySet::parse(&json).with_context(|| format!("{}", path.display()))?)
            }
            None => None,
        };
        let rules =
            TokenRules { issuer: None, audiences: vec![self.args.token_audience.clone()], expiry: Expiry::Required };
        let domain = TrustDomain::from_mesh_config(&config.trust_domain).context("trustDomain")?;
        Ok(Authenticator::Proof(Arc::new(Proof { keys, rules, domain })))
    }

    async fn start_http(
        &self,
        running: &mut Running,
        metrics: Registry,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        if !self.args.http_addr.is_empty() {
            let (listener, local) = admin::bind(&self.args.http_addr).await?;
            running.http = Some(local);
            running.tasks.spawn(until(stopped.clone(), admin::serve(listener, debug::router(running.hub.clone()))));
        }
        if !self.args.monitoring_addr.is_empty() {
            let (listener, local) = admin::bind(&self.args.monitoring_addr).await?;
            running.monitoring = Some(local);
            let admin = Admin {
                metrics,
                ready: running.hub.ready(),
                level: self.level.clone(),
                version: concat!("pilot ", env!("CARGO_PKG_VERSION"), "\n"),
            };
            running.tasks.spawn(until(stopped.clone(), admin::serve(listener, admin.router())));
        }
        Ok(())
    }
}

async fn signal(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    stopped.wait_for(|stop| *stop).await.map(drop).unwrap_or_default();
}

async fn until(stopped: watch::Receiver<bool>, part: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        done = part => done,
        () = signal(stopped) => Ok(()),
    }
}
