//! The node agent (`proxy agent`): redirects the traffic of pods from outside of them, so that no pod of the mesh needs
//! rights for it (IN-10 to IN-13). One runs on every node.
//!
//! - [`install`]: the plugin's program and its place in the node's network configuration
//! - [`serve`]: the plugin says that a pod is set up
//! - [`repair`]: pods that were set up while nobody listened
//! - [`pod`]: which pods, and by which rules; pure
//! - [`space`]: rules in the network of a pod
//! - [`api`]: the API server, as far as the agent needs it: pods are read, nothing is changed
//!
//! The rules are those of [`crate::redirect`]. It must never know what a proxy does with a connection.

mod api;
mod install;
mod pod;
mod repair;
mod serve;
mod space;

use anyhow::Context as _;
use api::Api;
use install::Installation;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

/// `proxy agent`.
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// Name of the node.
    #[arg(long, env = "NODE_NAME")]
    node: String,
    /// Namespace and name of the DaemonSet that this pod is of: when it is deleted, the node is left as it was.
    #[arg(long, env = "DAEMON_SET", value_name = "NAMESPACE/NAME")]
    daemon_set: Option<String>,
    /// Where the node's plugins are, as seen from here.
    #[arg(long, default_value = "/host/opt/cni/bin", value_name = "DIR")]
    bin_dir: PathBuf,
    /// Where the node's network configuration is, as seen from here.
    #[arg(long, default_value = "/host/etc/cni/net.d", value_name = "DIR")]
    conf_dir: PathBuf,
    /// File of the configuration to change or to write; the first one where none is given.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "FILE")]
    conf_file: String,
    /// Whether the plugin is added to the configuration that is there; else it has a file of its own.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    chained: bool,
    /// The plugin's program.
    #[arg(long, default_value = "/usr/local/bin/istio-cni", value_name = "FILE")]
    plugin: PathBuf,
    /// Directory of the socket on which the plugin finds the agent: the same path here and on the node.
    #[arg(long, default_value = "/var/run/istio-cni", value_name = "DIR")]
    run_dir: PathBuf,
    /// Directory of the pods' networks: the same path here and on the node.
    #[arg(long, default_value = "/var/run/netns", value_name = "DIR")]
    networks: PathBuf,
    /// Namespaces whose pods are left alone.
    #[arg(long, value_delimiter = ',', default_value = "kube-system")]
    exclude_namespaces: Vec<String>,
    /// Whether pods that were set up without rules get them.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    repair: bool,
    /// The API server.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", value_name = "ADDRESS")]
    api_host: String,
    /// Its port.
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", value_name = "PORT")]
    api_port: u16,
    /// Directory with token and root for the API server.
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount", value_name = "DIR")]
    credentials: PathBuf,
    /// Takes connections once the agent is ready.
    #[arg(long, default_value = "[::]:8000", value_name = "ADDRESS")]
    ready_address: SocketAddr,
    /// Least important messages that are logged.
    #[arg(long, default_value = "info")]
    log: LevelFilter,
}

/// What the parts of the agent share.
#[derive(Debug)]
struct Agent {
    args: AgentArgs,
    api: Api,
}

/// Runs until it is told to stop.
///
/// # Errors
/// What is missing on the node, or in what the pod was given.
pub fn run(args: AgentArgs) -> anyhow::Result<()> {
    let format = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(args.log).with(format))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve_node(args))
}

async fn serve_node(args: AgentArgs) -> anyhow::Result<()> {
    let api = Api::new(&args.api_host, args.api_port, &args.credentials)?;
    let agent = Arc::new(Agent { args, api });
    let listener = serve::listen(&agent.args.run_dir)?;
    let installation = Installation::of(&agent.args);
    installation.program()?;
    let mut stop = signal(SignalKind::terminate()).context("SIGTERM")?;
    let installed = async {
        installation.first().await?;
        // Who looks at the port learns that pods are redirected from now on.
        let ready = TcpListener::bind(agent.args.ready_address).await.context("--ready-address")?;
        tracing::info!(node = agent.args.node, "the node agent is ready");
        tokio::select! {
            ended = installation.keep() => ended,
            ended = accept(&ready) => ended,
        }
    };
    let repair = agent.args.repair;
    tokio::select! {
        ended = installed => ended,
        () = serve::serve(&agent, listener) => Ok(()),
        () = repair::run(&agent), if repair => Ok(()),
        _ = stop.recv() => {
            if agent.is_deleted().await {
                tracing::info!("the agent is uninstalled: the node is left as it was");
                installation.remove();
            }
            Ok(())
        }
    }
}

async fn accept(ready: &TcpListener) -> anyhow::Result<()> {
    loop {
        drop(ready.accept().await?);
    }
}

impl Agent {
    /// Whether its DaemonSet is gone, or about to be: else another agent follows this one, and the plugin stays.
    async fn is_deleted(&self) -> bool {
        let Some((namespace, name)) = self.args.daemon_set.as_deref().and_then(|name| name.split_once('/')) else {
            return false;
        };
        match self.api.get(&format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}")).await {
            Ok(Some(found)) => found["metadata"]["deletionTimestamp"].is_string(),
            Ok(None) => true,
            Err(error) => {
                tracing::warn!(
                    "the plugin stays, for the API server does not say whether the agent is uninstalled: {error:#}"
                );
                false
            }
        }
    }
}
