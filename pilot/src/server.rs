//! Wires the parts; no logic of its own. Making a [`Server`] does no I/O, [`Server::start`] does.

use crate::admission::{self, Bundle, NativeSidecars, Origin, Webhooks};
use crate::ads::access::Access;
use crate::ads::authenticate::Authenticator;
use crate::ads::debug;
use crate::ads::gate::{Gate, Guard};
use crate::ads::relay::Relay;
use crate::ads::service::Ads;
use crate::ads::tls::Files;
use crate::args::Discovery;
use crate::delivery::debounce::Delays;
use crate::delivery::metrics::Metrics;
use crate::delivery::{Hub, HubHandle};
use crate::inject::{Config, MeshSettings, Settings, Values};
use crate::model::{MeshConfig, mesh_config};
use crate::source::key_sets::{self, Fetcher};
use crate::source::{Event, file, kube, mesh_file};
use crate::status::leader::{self, Leadership};
use crate::status::writer::Writer;
use crate::trust;
use crate::trust::enrol::{self, Enrol};
use crate::trust::roots::{self, Distribution};
use ::kube::api::Api;
use anyhow::Context as _;
use credentials::accept::accept_tls;
use credentials::kubernetes::{self, ReviewedTokens};
use credentials::tokens::Tokens;
use identity::jwks::KeySet;
use identity::jwt::{Expiry, TokenRules};
use identity::review::ReviewRules;
use identity::spiffe::{SpiffeId, TrustDomain};
use proto::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::transport::Server as Grpc;
use tonic::transport::server::{Router, TcpIncoming};
use vitals::admin::{self, Admin};
use vitals::prometheus::Registry;

/// Batches of events that may wait for the hub.
const EVENTS: usize = 256;
/// What gives pilot a serving certificate.
const CERTIFICATE_FLAGS: &str = "--tls-cert-file, --tls-key-file and --ca-cert-file, or on Kubernetes --ca-addr";
/// Streams per connection (XI-3).
const MAX_STREAMS: u32 = 100_000;
/// How long a connection past its age may take to end what it has begun; istiod's.
const AGE_GRACE: Duration = Duration::from_secs(10);

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
    /// Where webhooks are.
    pub https: Option<SocketAddr>,
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
    pub async fn stop(mut self, grace: Duration) {
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
        vitals::process::register(&registry).context("metrics")?;
        let (events, received) = mpsc::channel(EVENTS);
        let delays = Delays { quiet: args.debounce_after, longest: args.debounce_max };
        let (hub, handle) = Hub::new(config.clone(), delays, metrics.clone(), received);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(until(stopped.clone(), async move {
            hub.run().await;
            Ok(())
        }));
        let (grpc, secure_grpc, http, https, monitoring) = (None, None, None, None, None);
        let mut running = Running { grpc, secure_grpc, http, https, monitoring, hub: handle, stop, tasks };
        let client = match &args.config_dir {
            Some(_) => None,
            None => Some(
                kubernetes::connect(args.kubeconfig.as_deref(), "give a directory of YAML with --config-dir").await?,
            ),
        };
        Box::pin(self.start_source(&mut running, client.clone(), events, &registry)).await?;
        let domain = TrustDomain::from_mesh_config(&config.trust_domain).context("trustDomain")?;
        let mut secured = self.start_trust(&mut running, client.clone(), &domain, &stopped)?;
        Box::pin(self.start_webhooks(&mut running, client.clone(), &mut secured, &registry)).await?;
        // Whoever has the objects says who may have Secrets.
        let access = client.clone().map_or(Access::Namespace, Access::of_cluster);
        let proof = Authenticator::Proof(Arc::new(self.tokens(client, domain)?));
        let pages = debug::router(running.hub.clone(), self.gate(&proof));
        let pilot = Served { proof, access, metrics, pages };
        Box::pin(self.start_grpc(&mut running, &pilot, secured.files, &stopped)).await?;
        Box::pin(self.start_http(&mut running, pilot.pages, (registry, secured.ready), &stopped)).await?;
        tracing::info!(grpc = ?running.grpc, secure_grpc = ?running.secure_grpc, http = ?running.http, https = ?running.https, monitoring = ?running.monitoring, "pilot serves");
        Ok(running)
    }

    /// Objects come from a directory or from a Kubernetes API; the mesh's settings from a file, if one is named.
    async fn start_source(
        &self,
        running: &mut Running,
        client: Option<::kube::Client>,
        events: mpsc::Sender<Vec<Event>>,
        registry: &Registry,
    ) -> anyhow::Result<()> {
        let args = &self.args;
        let stopped = running.stop.subscribe();
        let fetcher = Fetcher::new(args.jwks_extra_roots.as_deref(), args.blocked_of_keys())?;
        let counts = key_sets::metrics::Metrics::new(registry).context("metrics")?;
        let fetching = key_sets::run(running.hub.wanted_keys(), fetcher, args.jwks_refresh, counts, events.clone());
        running.tasks.spawn(until(stopped.clone(), fetching));
        if let Some(path) = args.mesh_config.clone() {
            running.tasks.spawn(until(stopped.clone(), mesh_file::run(path, mesh_config::parse, events.clone())));
        }
        if let Some(directory) = args.config_dir.clone() {
            running.tasks.spawn(until(stopped.clone(), file::run(directory, events.clone())));
        }
        let Some(client) = client else { return Ok(()) };
        let suffix = if args.revision.is_empty() { String::new() } else { format!("-{}", args.revision) };
        let (defined, definitions) = watch::channel(kube::Defined::default());
        let cluster = kube::Cluster {
            client: client.clone(),
            namespaces: args.app_namespace.clone(),
            secrets: args.secret_namespaces.clone(),
            namespace: args.namespace.clone(),
            settings: args.mesh_config.is_none().then(|| format!("istio{suffix}")),
            defined,
        };
        let metrics = kube::metrics::Metrics::new(registry).context("metrics")?;
        running.tasks.spawn(until(stopped.clone(), kube::run(cluster, mesh_config::parse, metrics, events)));
        if args.write_status {
            let leadership = Leadership::default();
            let leases = Api::namespaced(client.clone(), &args.namespace);
            let seek = leader::run(leases, leader::LEASE, args.identity(), leadership.clone());
            running.tasks.spawn(until(stopped.clone(), seek));
            let writer = Writer { client, hub: running.hub.clone(), leadership, defined: definitions };
            running.tasks.spawn(until(stopped, writer.run()));
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
        config.ip_autoallocate = args.ip_autoallocate;
        config.sampling = (args.trace_sampling * 100.0).round() as u32;
        Ok(config)
    }

    fn files(&self) -> Option<Files> {
        Some(Files {
            certificate: self.args.tls_cert_file.clone()?,
            key: self.args.tls_key_file.clone()?,
            roots: self.args.ca_cert_file.clone()?,
        })
    }

    /// pilot's own certificate and the roots in every namespace; without Kubernetes the certificate comes from files.
    fn start_trust(
        &self,
        running: &mut Running,
        client: Option<::kube::Client>,
        domain: &TrustDomain,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<Secured> {
        let (args, given) = (&self.args, self.files());
        let Some(client) = client else { return Ok(Secured { files: given, ready: running.hub.ready() }) };
        let (sender, roots) = watch::channel(None);
        let (namespace, name) = (args.namespace.clone(), args.roots_config_map.clone());
        let published = (namespace.clone(), name.clone());
        running.tasks.spawn(until(stopped.clone(), trust::follow(client.clone(), published, sender)));
        let leadership = Leadership::default();
        let leases = Api::namespaced(client.clone(), &args.namespace);
        let seek = leader::run(leases, roots::LEASE, args.identity(), leadership.clone());
        running.tasks.spawn(until(stopped.clone(), seek));
        let hub = running.hub.clone();
        let distribution = Distribution { client, namespace, name, hub, leadership, roots: roots.clone() };
        running.tasks.spawn(until(stopped.clone(), distribution.run()));
        let Some(address) = args.ca_addr.clone().filter(|address| given.is_none() && !address.starts_with("http://"))
        else {
            return Ok(Secured { files: given, ready: running.hub.ready() });
        };
        let files = enrol::files(&args.tls_dir)?;
        let id = SpiffeId::service_account(domain, &args.namespace, "istiod").context("own identity")?;
        let enrol = Enrol { address, token: args.token_file.clone(), files: files.clone(), id, roots };
        let (certified, is_certified) = watch::channel(false);
        running.tasks.spawn(until(stopped.clone(), enrol.run(certified)));
        let (both, ready) = watch::channel(false);
        running.tasks.spawn(until(stopped.clone(), conjunction(running.hub.ready(), is_certified, both)));
        Ok(Secured { files: Some(files), ready })
    }

    /// Webhooks; pilot is ready only once they have answered a question of its own (F31).
    async fn start_webhooks(
        &self,
        running: &mut Running,
        client: Option<::kube::Client>,
        secured: &mut Secured,
        registry: &Registry,
    ) -> anyhow::Result<()> {
        let (args, stopped) = (&self.args, running.stop.subscribe());
        let Some(address) = args.webhook_addr() else { return Ok(()) };
        let Some(files) = secured.files.clone() else {
            anyhow::ensure!(args.https_addr.is_none(), "--https-addr needs {CERTIFICATE_FLAGS}");
            tracing::warn!("there are no webhooks, so nothing is injected or validated: they need {CERTIFICATE_FLAGS}");
            return Ok(());
        };
        let mesh = args.mesh_config.as_ref().map(std::fs::read_to_string).transpose().context("--mesh-config")?;
        let (publish, settings) = watch::channel(None);
        if let Some(client) = client {
            let (namespace, revision) = (args.namespace.clone(), args.revision.clone());
            let roots = files.roots.clone();
            let bundle =
                Bundle { client: client.clone(), namespace: namespace.clone(), revision: revision.clone(), roots };
            running.tasks.spawn(until(stopped.clone(), bundle.run()));
            let origin = Origin { client, namespace, revision, mesh, native: args.native_sidecars };
            running.tasks.spawn(until(stopped.clone(), admission::follow(origin, publish)));
        } else {
            publish.send_replace(Some(Arc::new(self.settings_without_cluster(mesh.as_deref())?)));
        }
        let (listener, local) = admin::bind(&address).await?;
        running.https = Some(local);
        let metrics = admission::metrics::Metrics::new(registry).context("metrics")?;
        let router = Webhooks { hub: running.hub.clone(), settings, metrics }.router();
        running.tasks.spawn(until(stopped.clone(), admission::serve(listener, files.clone(), router)));
        let (answers, answered) = watch::channel(false);
        running.tasks.spawn(until(stopped.clone(), admission::until_it_answers(local, files, answers)));
        let (both, ready) = watch::channel(false);
        let before = std::mem::replace(&mut secured.ready, ready);
        running.tasks.spawn(until(stopped, conjunction(before, answered, both)));
        Ok(())
    }

    fn settings_without_cluster(&self, mesh: Option<&str>) -> anyhow::Result<Settings> {
        Ok(Settings {
            config: Config::built_in(),
            values: Values::default(),
            mesh: mesh.map_or_else(|| Ok(MeshSettings::default()), MeshSettings::parse)?,
            revision: self.args.revision.clone(),
            native_sidecars: self.args.native_sidecars != NativeSidecars::False,
        })
    }

    fn relay(&self, files: Option<Files>) -> anyhow::Result<Option<IstioCertificateServiceServer<Relay>>> {
        let relay = self.args.ca_addr.as_ref().map(|address| Relay::new(address, files)).transpose()?;
        Ok(relay.map(IstioCertificateServiceServer::new))
    }

    /// Who sees debug pages.
    fn gate(&self, proof: &Authenticator) -> Gate {
        let args = &self.args;
        if !args.debug_endpoint_auth {
            return Gate::Open;
        }
        let own = std::iter::once(&args.namespace);
        let namespaces = own.chain(&args.debug_endpoint_auth_allowed_namespaces).cloned().collect();
        Gate::Guarded(Arc::new(Guard { authenticator: proof.clone(), namespaces }))
    }

    async fn start_grpc(
        &self,
        running: &mut Running,
        served: &Served,
        files: Option<Files>,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let Served { proof, access, metrics, pages } = served;
        let age = self.args.connection_age();
        if !self.args.grpc_addr.is_empty() {
            let (listener, local) = admin::bind(&self.args.grpc_addr).await?;
            let ads = Ads::new(running.hub.clone(), Authenticator::Nobody, access.clone(), metrics.clone(), age);
            let router = self.grpc().add_service(ads).add_optional_service(self.relay(files.clone())?);
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
            let missing = || format!("--secure-grpc-addr needs {CERTIFICATE_FLAGS}; an empty address turns it off");
            let files = files.with_context(missing)?;
            if self.files().is_some() {
                files.clone().serving(&[])()?; // those of citadel come later
            }
            let (listener, local) = admin::bind(&self.args.secure_grpc_addr).await?;
            let ads = Ads::new(running.hub.clone(), proof.clone(), access.clone(), metrics.clone(), age);
            let mut services = Routes::new(ads);
            if let Some(relay) = self.relay(Some(files.clone()))? {
                services = services.add_service(relay);
            }
            // Debug pages too: here nobody reads along, and a certificate proves who asks.
            let routes = Routes::from(services.into_axum_router().merge(pages.clone()));
            let router: Router = self.grpc().add_routes(routes);
            running.secure_grpc = Some(local);
            let stopped = stopped.clone();
            running.tasks.spawn(async move {
                let connections = accept_tls(listener, files.serving(&[b"h2"]));
                let serving = router.serve_with_incoming_shutdown(connections, signal(stopped));
                let done = Box::pin(serving).await;
                done.context("xDS over TLS")
            });
        }
        Ok(())
    }

    fn grpc(&self) -> Grpc {
        let builder = Grpc::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(self.args.keepalive_interval))
            .http2_keepalive_timeout(Some(self.args.keepalive_timeout));
        match self.args.connection_age() {
            // Streams end within a tenth more.
            Some(age) => builder.max_connection_age(age).max_connection_age_grace(age / 10 + AGE_GRACE),
            None => builder,
        }
    }

    /// What checks bearer tokens: a key set where one is given, else the cluster.
    fn tokens(&self, client: Option<::kube::Client>, domain: TrustDomain) -> anyhow::Result<Tokens> {
        let audiences = self.args.token_audience.clone();
        if let Some(path) = &self.args.jwks_file {
            let json = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
            let keys = KeySet::parse(&json).with_context(|| format!("{}", path.display()))?;
            let rules = TokenRules { issuer: None, audiences, expiry: Expiry::Required };
            return Ok(Tokens::Keys { keys: watch::channel(Arc::new(keys)).1, rules, domain });
        }
        let Some(client) = client else { return Ok(Tokens::Nothing) };
        let rules = ReviewRules { audiences, domain, unbound: self.args.unbound_tokens };
        Ok(Tokens::Review(ReviewedTokens::new(client, rules)))
    }

    async fn start_http(
        &self,
        running: &mut Running,
        pages: axum::Router,
        (metrics, ready): (Registry, watch::Receiver<bool>),
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        if !self.args.http_addr.is_empty() {
            let (listener, local) = admin::bind(&self.args.http_addr).await?;
            running.http = Some(local);
            running.tasks.spawn(until(stopped.clone(), debug::serve(listener, pages, ready.clone())));
        }
        if !self.args.monitoring_addr.is_empty() {
            let (listener, local) = admin::bind(&self.args.monitoring_addr).await?;
            running.monitoring = Some(local);
            let admin = Admin {
                metrics,
                ready,
                level: self.level.clone(),
                version: concat!("pilot ", env!("CARGO_PKG_VERSION"), "\n"),
            };
            running.tasks.spawn(until(stopped.clone(), admin::serve(listener, admin.router())));
        }
        Ok(())
    }
}

/// What ports give, and to whom.
struct Served {
    proof: Authenticator,
    access: Access,
    metrics: Metrics,
    pages: axum::Router,
}

/// Where port 15012 has its certificate from, and when pilot is ready.
struct Secured {
    files: Option<Files>,
    ready: watch::Receiver<bool>,
}

/// Says when both are so.
async fn conjunction(
    mut left: watch::Receiver<bool>,
    mut right: watch::Receiver<bool>,
    both: watch::Sender<bool>,
) -> anyhow::Result<()> {
    loop {
        let now = *left.borrow_and_update() && *right.borrow_and_update();
        both.send_if_modified(|held| std::mem::replace(held, now) != now);
        tokio::select! {
            changed = left.changed() => changed?,
            changed = right.changed() => changed?,
        }
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
