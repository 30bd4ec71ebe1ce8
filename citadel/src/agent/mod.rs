//! The agent beside a real Envoy: it keeps one workload's certificate fresh and gives it away over SDS (spec CA-23…25).
//!
//! It knows one identity and its CA. Its key is made here and leaves only over the Unix socket.

pub mod sds;

use anyhow::Context;
use identity::spiffe::SpiffeId;
use proto::envoy::secret_service::secret_discovery_service_server::SecretDiscoveryServiceServer;
use std::path::PathBuf;
use std::sync::Arc;
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

/// Serves SDS until SIGTERM or SIGINT.
///
/// # Errors
/// Where flags or the socket cannot be used.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let (sender, held) = watch::channel(None);
    let config = credentials::Config {
        ca_address: args.ca_addr,
        ca_host: args.ca_host,
        ca_roots: args.ca_root,
        token_file: Some(args.token_file),
        cluster_id: None,
        identity: SpiffeId::parse(&args.identity)?,
        ttl_s: args.ttl_s,
        state_dir: None,
    };
    config.tls(None)?; // roots that cannot be read are said at once
    let enrol = tokio::spawn(credentials::keep_fresh(config, sender, Arc::default()));
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
