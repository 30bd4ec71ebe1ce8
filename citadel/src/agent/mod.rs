//! The agent beside a real Envoy: it keeps one workload's certificate fresh and gives it away over SDS (spec CA-23…25).
//!
//! It knows one identity and its CA. Its key is made here and leaves only over the Unix socket.

pub mod client;
pub mod sds;

use anyhow::Context;
use identity::csr::Csr;
use identity::enrol::{ATTEMPT_TIMEOUT, Action, Enrolment, Event};
use identity::spiffe::SpiffeId;
use identity::svid::Svid;
use proto::envoy::secret_service::secret_discovery_service_server::SecretDiscoveryServiceServer;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;

/// `citadel agent`.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// Address of the certificate service.
    #[arg(long, default_value = "127.0.0.1:8060")]
    pub ca_addr: String,
    /// Name that the CA's certificate must have.
    #[arg(long, default_value = "istiod.istio-system.svc")]
    pub ca_host: String,
    /// Roots that vouch for the CA.
    #[arg(long)]
    pub ca_root: PathBuf,
    /// File with the bearer token; read again for every request.
    #[arg(long)]
    pub token_file: PathBuf,
    /// The workload's SPIFFE id.
    #[arg(long)]
    pub identity: String,
    /// Unix socket on which SDS is served.
    #[arg(long)]
    pub socket: PathBuf,
    /// Seconds of validity to ask for; 0 leaves it to the CA.
    #[arg(long, default_value_t = 0)]
    pub ttl_s: i64,
}

/// A certificate with the roots that came with it.
#[derive(Debug)]
pub struct Held {
    /// Chain and key.
    pub svid: Svid,
    /// Roots of the mesh as PEM.
    pub roots: String,
}

/// Serves SDS until SIGTERM or SIGINT.
///
/// # Errors
/// Where flags or the socket cannot be used.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let id = SpiffeId::parse(&args.identity)?;
    let (sender, held) = watch::channel(None);
    let client = client::CertificateClient::new(&args.ca_addr, &args.ca_host, &args.ca_root, &args.token_file)?;
    let enrol = tokio::spawn(keep_fresh(client, id, args.ttl_s, sender));
    if args.socket.exists() {
        std::fs::remove_file(&args.socket)?; // left by a predecessor
    }
    let listener =
        UnixListener::bind(&args.socket).with_context(|| format!("cannot listen on {}", args.socket.display()))?;
    restrict(&args.socket)?;
    let service = SecretDiscoveryServiceServer::new(sds::SecretService::new(held));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    tracing::info!(socket = %args.socket.display(), "SDS is ready");
    let served = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop)
        .await;
    enrol.abort();
    drop(std::fs::remove_file(&args.socket));
    Ok(served?)
}

/// The socket gives away a private key: its owner and group may use it, nobody else.
fn restrict(socket: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))
}

/// Drives the enrolment: asks, waits, asks again; the held certificate stays until a new one is there (CA-23).
pub async fn keep_fresh(
    client: client::CertificateClient,
    id: SpiffeId,
    ttl_s: i64,
    held: watch::Sender<Option<Arc<Held>>>,
) {
    let mut enrolment = Enrolment::new(fastrand::u64(..));
    let mut action = enrolment.handle(Event::Started(None), SystemTime::now());
    loop {
        let event = match action {
            Action::WaitUntil(time) => {
                let pause = time.duration_since(SystemTime::now()).unwrap_or_default();
                tokio::select! {
                    () = tokio::time::sleep(pause) => Event::Timer,
                    () = held.closed() => return,
                }
            }
            Action::Ask => match tokio::time::timeout(ATTEMPT_TIMEOUT, attempt(&client, &id, ttl_s)).await {
                Ok(Ok(new)) => {
                    let lifetime = new.svid.facts().lifetime;
                    tracing::info!(%id, serial = new.svid.facts().serial, "certificate installed");
                    held.send_replace(Some(Arc::new(new)));
                    Event::Issued(lifetime)
                }
                Ok(Err(error)) => {
                    tracing::warn!(%id, error = format!("{error:#}"), "no certificate, will try again");
                    Event::Failed
                }
                Err(_) => {
                    tracing::warn!(%id, "no certificate within 10 s, will try again");
                    Event::Failed
                }
            },
        };
        action = enrolment.handle(event, SystemTime::now());
    }
}

async fn attempt(client: &client::CertificateClient, id: &SpiffeId, ttl_s: i64) -> anyhow::Result<Held> {
    let csr = Csr::generate(id)?;
    let mut chain = client.sign(csr.pem, ttl_s).await?;
    let roots = chain.pop().context("the CA answered without certificates")?;
    anyhow::ensure!(!chain.is_empty(), "the CA answered with roots only");
    let chain: Vec<_> = identity::pem::certificates(chain.concat().as_bytes())?;
    Ok(Held { svid: Svid::new(chain, csr.key)?, roots })
}
