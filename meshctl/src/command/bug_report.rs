//! `meshctl bug-report`: in one archive what somebody else needs to help (CT-23).

use crate::bug_report::Archive;
use crate::bug_report::gather::{Scope, gather};
use crate::output;
use crate::reach::At;
use anyhow::Context as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Namespaces that are left out where nothing is said, as istioctl leaves them out.
const EXCLUDED: [&str; 4] = ["kube-node-lease", "kube-public", "kube-system", "local-path-storage"];

/// `meshctl bug-report`.
///
/// Versions, the mesh's objects, what analyze finds, pilot's debug pages, logs of the control plane and of proxies, and what
/// each proxy has been told. Secrets are not read; keys, tokens, cookies, and the environment and arguments of applications
/// are left out.
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct BugReportArgs {
    #[command(flatten)]
    at: At,
    /// Only proxies and objects of this namespace; may be repeated.
    #[arg(long, value_name = "NAMESPACE")]
    include: Vec<String>,
    /// Not those of this namespace; may be repeated.
    #[arg(long, value_name = "NAMESPACE", default_values = EXCLUDED)]
    exclude: Vec<String>,
    /// Where the archive is written.
    #[arg(long, short, value_name = "FILE", default_value = "bug-report.tar.gz")]
    output_file: PathBuf,
}

/// Writes the archive.
///
/// # Errors
/// Where there is no cluster, or the archive cannot be written.
pub async fn run(args: BugReportArgs) -> anyhow::Result<()> {
    let cluster = args.at.cluster().await?;
    cluster.client.apiserver_version().await.context("the API server does not answer")?;
    let path = args.output_file.display().to_string();
    let file = std::fs::File::create(&args.output_file).with_context(|| format!("cannot write {path}"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut archive = Archive::new(file, now);
    let scope = Scope { include: args.include, exclude: args.exclude };
    Box::pin(gather(&cluster, &scope, &mut archive)).await?;
    let count = archive.names().len();
    archive.finish().with_context(|| format!("cannot write {path}"))?;
    output::say(&format!("✔ {path}: {count} files; look through it before you hand it on"))
}
