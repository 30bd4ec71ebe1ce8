//! The certificate service and the process around it: flags, TLS, start and stop (spec CA-1, CA-17).
//!
//! It knows the wire. It must never decide who a caller is or what may be signed.

pub mod count;
pub mod csr;
pub mod limit;
pub mod tls;

use crate::authenticate::Authenticators;
use crate::authenticate::mtls::ClientCertificates;
use crate::bundle;
use crate::ca::keystore::Keystore;
use crate::ca::policy::{DEFAULT_TTL, MAX_TTL, Policy};
use crate::ca::root::Authority;
use crate::ca::rotate::{self, Store};
use crate::ca::secret::SecretStore;
use crate::watch_files;
use anyhow::Context;
use credentials::accept::accept_tls;
use credentials::kubernetes::{self, ReviewedTokens};
use credentials::tokens::Tokens;
use identity::jwks::KeySet;
use identity::jwt::{Expiry, TokenRules};
use identity::review::ReviewRules;
use identity::spiffe::{SpiffeId, TrustDomain};
use proto::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::watch;
use vitals::log::Level;
use vitals::prometheus::Registry;

/// `citadel serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Address of the certificate service.
    #[arg(long, default_value = "127.0.0.1:8060")]
    pub listen: SocketAddr,
    /// Directory with ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem; a root is made where it holds none.
    /// Without it the CA lives in a Secret, and a Kubernetes API server checks tokens.
    #[arg(long, conflicts_with = "kubeconfig")]
    pub root_dir: Option<PathBuf>,
    /// The way to the Kubernetes API; without it that of the pod.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the control plane: home of the Secret and of the ConfigMap with the roots.
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    pub namespace: String,
    /// ConfigMap with the roots.
    #[arg(long, default_value = proto::wire::ROOTS_CONFIG_MAP)]
    pub roots_config_map: String,
    /// Also take tokens of Kubernetes that are bound to no pod, as those of virtual machines are.
    #[arg(long)]
    pub unbound_tokens: bool,
    /// Key set that bearer tokens are checked against; without it nothing proves but client certificates, and on Kubernetes
    /// what the API server accepts.
    #[arg(long)]
    pub token_jwks: Option<PathBuf>,
    /// Issuer that tokens must have; any where it is not given.
    #[arg(long)]
    pub token_issuer: Option<String>,
    /// Audiences of which a token must have one.
    #[arg(long, default_value = proto::wire::TOKEN_AUDIENCE)]
    pub token_audience: Vec<String>,
    /// Trust domain of the mesh.
    #[arg(long, default_value = "cluster.local")]
    pub trust_domain: String,
    /// Host names and addresses in citadel's own certificate.
    #[arg(long, default_values_t = default_hosts())]
    pub host: Vec<String>,
    /// SPIFFE ids that may relay requests of callers whom they authenticated themselves (pilot).
    #[arg(long)]
    pub relay: Vec<String>,
    /// ID=HOST,…: a server of the control plane, and host names that its certificates bear beside its SPIFFE id.
    #[arg(long, value_parser = hosts_of)]
    pub host_names: Vec<(SpiffeId, Vec<String>)>,
    /// Also keep the roots in this file.
    #[arg(long)]
    pub roots_out: Option<PathBuf>,
    /// Seconds that a certificate lives when the request names none.
    #[arg(long, default_value_t = DEFAULT_TTL.as_secs())]
    pub workload_cert_ttl_s: u64,
    /// Most seconds that a request may name.
    #[arg(long, default_value_t = MAX_TTL.as_secs())]
    pub max_workload_cert_ttl_s: u64,
    /// Certificates per second that one identity gets in the long run; ten times as many at once.
    #[arg(long, default_value_t = 100)]
    pub rate_per_identity: u32,
    /// Address of /metrics, /ready, /logging and /version; empty for none.
    #[arg(long, default_value = "127.0.0.1:15014")]
    pub monitoring_addr: String,
}

fn hosts_of(text: &str) -> Result<(SpiffeId, Vec<String>), String> {
    let (id, hosts) = text.split_once('=').ok_or("write SPIFFE-ID=HOST,HOST")?;
    let id = SpiffeId::parse(id).map_err(|error| error.to_string())?;
    Ok((id, hosts.split(',').map(str::to_owned).collect()))
}

fn default_hosts() -> Vec<String> {
    [
        "istiod.istio-system.svc",
        "citadel.istio-system.svc",
        "istio-ca-secret.istio-system.svc",
        "localhost",
        "127.0.0.1",
        "::1",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Where the CA files, the key set or the address cannot be used.
pub async fn run(args: ServeArgs, level: Option<Level>) -> anyhow::Result<()> {
    let server = Server::start(args, level).await?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
    };
    Box::pin(server.serve(stop)).await
}

/// A certificate service whose files are read and whose port is open, but that answers nobody yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    authority: watch::Receiver<Arc<Authority>>,
    service: csr::CertificateService,
    hosts: Vec<String>,
    monitoring: Option<SocketAddr>,
    background: tokio::task::JoinSet<()>,
}

impl Server {
    /// Reads everything, opens the port, and starts what keeps files current.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn start(args: ServeArgs, level: Option<Level>) -> anyhow::Result<Self> {
        let domain = TrustDomain::from_mesh_config(&args.trust_domain)?;
        let mut background = tokio::task::JoinSet::new();
        let cluster = match &args.root_dir {
            Some(_) => None,
            None => {
                Some(kubernetes::connect(args.kubeconfig.as_deref(), "give the CA a directory with --root-dir").await?)
            }
        };
        let authority = Box::pin(open(&args, cluster.clone(), &domain, &mut background)).await?;
        if let Some(path) = args.roots_out.clone() {
            bundle::write(&path, &authority.borrow()).with_context(|| format!("cannot write {}", path.display()))?;
            let roots = authority.clone();
            background.spawn(async move { bundle::follow(&path, roots).await });
        }
        let tokens = tokens(&args, cluster, &domain, &mut background)?;
        let relays = args.relay.iter().map(|id| SpiffeId::parse(id)).collect::<Result<_, _>>()?;
        let authenticators = Authenticators { mtls: ClientCertificates { relays }, tokens };
        let policy = Policy {
            hosts: args.host_names.into_iter().collect(),
            default_ttl: Duration::from_secs(args.workload_cert_ttl_s),
            max_ttl: Duration::from_secs(args.max_workload_cert_ttl_s),
            ..Policy::new(domain)
        };
        let limits = limit::IdentityLimits::new(args.rate_per_identity);
        let metrics = Registry::new();
        let counts = count::Counts::new(&metrics)?;
        follow_authority(&counts, authority.clone(), &mut background);
        let monitoring = monitor(&args.monitoring_addr, metrics, level, &mut background).await?;
        let service = csr::CertificateService::new(authenticators, policy, authority.clone(), limits, counts);
        let listener =
            TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
        Ok(Self { listener, authority, service, hosts: args.host, monitoring, background })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where it shows its metrics, if anywhere.
    pub fn monitoring_addr(&self) -> Option<SocketAddr> {
        self.monitoring
    }

    /// Answers until `stop` ends; requests under way are finished.
    ///
    /// # Errors
    /// Where the serving certificate cannot be made or the transport fails.
    pub async fn serve(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let address = self.local_addr()?;
        let configs = tls::follow(self.authority.clone(), self.hosts, &mut self.background)?;
        let incoming = accept_tls(self.listener, move || Ok(Arc::clone(&configs.borrow())));
        tracing::info!(%address, "certificate service is ready");
        let service = IstioCertificateServiceServer::new(self.service).max_decoding_message_size(64 * 1024);
        tonic::transport::Server::builder()
            .concurrency_limit_per_connection(64)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stop)
            .await?;
        self.background.shutdown().await;
        Ok(())
    }
}

/// Opens the store of the authority and keeps it current; on Kubernetes its roots are published.
async fn open(
    args: &ServeArgs,
    cluster: Option<kube::Client>,
    domain: &TrustDomain,
    background: &mut tokio::task::JoinSet<()>,
) -> anyhow::Result<watch::Receiver<Arc<Authority>>> {
    let now = SystemTime::now();
    let (store, first) = match (&args.root_dir, &cluster) {
        (Some(directory), _) => {
            let keystore = Keystore::new(directory, domain.clone());
            let first = keystore.load_or_create(now)?;
            (Store::directory(keystore, directory)?, first)
        }
        (None, Some(client)) => {
            let (store, first) = SecretStore::open(client.clone(), &args.namespace, domain.clone(), now).await?;
            (Store::secret(store), first)
        }
        (None, None) => anyhow::bail!("the CA has neither a directory nor a cluster: give it --root-dir"),
    };
    let (sender, authority) = watch::channel(Arc::new(first));
    background.spawn(async move {
        if let Err(error) = rotate::run(store, sender).await {
            tracing::error!(%error, "the CA's store is no longer watched");
        }
    });
    if let Some(client) = cluster {
        let (namespace, name) = (args.namespace.clone(), args.roots_config_map.clone());
        let roots = authority.clone();
        background.spawn(async move { bundle::publish(client, (&namespace, &name), roots).await });
    }
    Ok(authority)
}

/// What checks bearer tokens: a key set where one is given, else the cluster.
fn tokens(
    args: &ServeArgs,
    cluster: Option<kube::Client>,
    domain: &TrustDomain,
    background: &mut tokio::task::JoinSet<()>,
) -> anyhow::Result<Tokens> {
    let (issuer, audiences) = (args.token_issuer.clone(), args.token_audience.clone());
    if let Some(path) = &args.token_jwks {
        let keys = follow_key_set(path, background)?;
        let rules = TokenRules { issuer, audiences, expiry: Expiry::Required };
        return Ok(Tokens::Keys { keys, rules, domain: domain.clone() });
    }
    let Some(client) = cluster else { return Ok(Tokens::Nothing) };
    let rules = ReviewRules { audiences, domain: domain.clone(), unbound: args.unbound_tokens };
    Ok(Tokens::Review(ReviewedTokens::new(client, rules)))
}

/// Time between two looks at what is left of the lives of certificates.
const OBSERVE: Duration = Duration::from_secs(15);

/// Keeps the expiry metrics those of the authority in use.
fn follow_authority(
    counts: &count::Counts,
    mut authority: watch::Receiver<Arc<Authority>>,
    background: &mut tokio::task::JoinSet<()>,
) {
    counts.observe(&authority.borrow_and_update(), SystemTime::now());
    let counts = counts.clone();
    background.spawn(async move {
        loop {
            tokio::select! {
                changed = authority.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(OBSERVE) => {}
            }
            counts.observe(&authority.borrow_and_update(), SystemTime::now());
        }
    });
}

/// Opens the monitoring port and serves it in the background.
async fn monitor(
    address: &str,
    metrics: Registry,
    level: Option<Level>,
    background: &mut tokio::task::JoinSet<()>,
) -> anyhow::Result<Option<SocketAddr>> {
    if address.is_empty() {
        return Ok(None);
    }
    let (listener, local) = vitals::admin::bind(address).await?;
    let (ready, receiver) = watch::channel(true);
    let version = concat!("citadel ", env!("CARGO_PKG_VERSION"));
    let router = vitals::admin::Admin { metrics, ready: receiver, level, version }.router();
    background.spawn(async move {
        if let Err(error) = vitals::admin::serve(listener, router).await {
            tracing::error!(%error, "metrics are no longer served");
        }
        drop(ready);
    });
    Ok(Some(local))
}

/// Reads a key set and follows its file; a broken new file leaves the old keys in use.
fn follow_key_set(
    path: &Path,
    background: &mut tokio::task::JoinSet<()>,
) -> anyhow::Result<watch::Receiver<Arc<KeySet>>> {
    let read = |path: &Path| -> anyhow::Result<KeySet> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        KeySet::parse(&text).with_context(|| format!("{}", path.display()))
    };
    let (sender, receiver) = watch::channel(Arc::new(read(path)?));
    let mut changes = watch_files::watch(&[path.to_owned()])?;
    let path = path.to_owned();
    background.spawn(async move {
        while changes.changed().await.is_ok() {
            match read(&path) {
                Ok(keys) => drop(sender.send_replace(Arc::new(keys))),
                Err(error) => tracing::error!(%error, "new key set refused, the old one stays in use"),
            }
        }
    });
    Ok(receiver)
}
