//! `meshctl check`: whether the mesh is well, and what to do where it is not (CT-40).

use crate::check::report::Result as Outcome;
use crate::check::{Facts, Kubernetes, Report, Where, installed, judge};
use crate::output;
use crate::reach::{At, Cluster, Pod, Wanted};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks while waiting.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How the result is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// Everything.
    #[default]
    Table,
    /// Only what is not well.
    Short,
    /// linkerd's JSON.
    Json,
}

/// `meshctl check`.
///
/// In a cluster the API server is asked first: version, Deployments, webhooks, roots, pods. √ is well, ‼ works and should be looked at, × does not work; below each of the latter stands what to do. The exit
/// code is 1 where something is ×.
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CheckArgs {
    /// Look at the proxy of this pod or workload alone.
    proxy: Option<Wanted>,
    /// Before an installation: version of the cluster, rights, what is there of another mesh.
    #[arg(long, conflicts_with_all = ["proxy", "demo", "pilot", "citadel", "mixer"])]
    pre: bool,
    #[command(flatten)]
    at: At,
    /// Namespace of a name without one.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Address of pilot's debug pages; that of the mesh where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    pilot: Option<String>,
    /// Address of citadel's certificate service; that of the mesh where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    citadel: Option<String>,
    /// Address of mixer's metrics; that of the mesh where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    mixer: Option<String>,
    /// File with the roots of the mesh; the demo's where it is not given.
    #[arg(long, value_name = "PATH")]
    ca_root: Option<PathBuf>,
    /// How long to look again until nothing is × or ‼.
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = wait)]
    wait: Duration,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// What istioctl calls `x precheck`: `meshctl check --pre`.
#[derive(Debug, Clone, clap::Args)]
pub struct PrecheckArgs {
    #[command(flatten)]
    at: At,
    /// How long to look again until nothing is × or ‼.
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = wait)]
    wait: Duration,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

fn wait(text: &str) -> Result<Duration, String> {
    proto::duration::parse(text).map_err(|error| error.to_string())
}

/// Looks at everything and says how it stands.
///
/// # Errors
/// Where standard output is closed.
pub async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let until = Instant::now() + args.wait;
    let report = if args.pre {
        before(&args.at.cluster().await?, until).await
    } else {
        let reach = args.at.reach().await;
        let only = match &args.proxy {
            Some(name) => reach.pods(name, args.namespace.as_deref()).await?.first().map(Pod::id),
            None => None,
        };
        let (pilot, citadel, mixer) = (args.pilot, args.citadel, args.mixer);
        let at = Where { reach, pilot, citadel, mixer, ca_root: args.ca_root };
        Box::pin(look(&at, only.as_deref(), until)).await
    };
    show(&report, args.output)
}

/// Whether an installation can begin.
///
/// # Errors
/// Where there is no cluster, or standard output is closed.
pub async fn precheck(args: PrecheckArgs) -> anyhow::Result<ExitCode> {
    let until = Instant::now() + args.wait;
    show(&before(&args.at.cluster().await?, until).await, args.output)
}

fn show(report: &Report, form: Form) -> anyhow::Result<ExitCode> {
    match form {
        Form::Json => output::say(&serde_json::to_string_pretty(&report.json())?)?,
        form => report.text(form == Form::Table).iter().try_for_each(|line| output::say(line))?,
    }
    Ok(if report.worst() == Outcome::Error { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn look(at: &Where, only: Option<&str>, until: Instant) -> Report {
    loop {
        let facts = Box::pin(Facts::gather(at)).await;
        let report = match only {
            Some(id) => judge::one(&facts.only(id)),
            None => judge::judge(&facts),
        };
        if report.worst() == Outcome::Success || Instant::now() + LOOK_AGAIN > until {
            return report;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn before(cluster: &Cluster, until: Instant) -> Report {
    loop {
        let report = Report { groups: installed::before(&Box::pin(Kubernetes::gather(cluster, true)).await) };
        if report.worst() == Outcome::Success || Instant::now() + LOOK_AGAIN > until {
            return report;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
