//! `meshctl explain`: what becomes of one request, and why (D14, CT-60).

use crate::explain::{Journey, Program, Request, Running, Source, Verdict, text};
use crate::offline::Offline;
use crate::output::{self, Format, Table};
use crate::reach::At;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code where the request is denied or fails.
const CODE_REFUSED: u8 = 3;

/// `meshctl explain`.
///
/// The configuration of the asking workload's proxy decides first: name, listener, route and the object that made it,
/// shares of clusters, endpoints. Then that of the endpoint's proxy: TLS, policies, and the rule that decided. The exit
/// code is 0 where somebody answers, 3 where the request is denied or fails, 1 where it cannot be told.
///
/// Examples:
///   meshctl explain GET http://reviews:9080/reviews/1 --from productpage-v1
///   meshctl explain GET reviews:9080/ --from productpage -H 'end-user: jason' -o json
///   meshctl explain GET http://reviews:9080/ --from productpage --config-dir ./mesh
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ExplainArgs {
    /// Method of the request.
    method: String,
    /// What is asked for: http://HOST:PORT/PATH.
    url: String,
    /// Who asks: the name of a pod, what it begins with, or its label app; .NAMESPACE may follow.
    #[arg(long, value_name = "WORKLOAD")]
    from: String,
    /// A header of the request, as 'name: value'; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    #[command(flatten)]
    at: At,
    /// Address of pilot's debug pages; that of the mesh where it is not given.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config_dir")]
    pilot: Option<String>,
    /// Directory of YAML to explain before it is applied; nothing that runs is asked then.
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
    /// File with the mesh's own settings, with --config-dir.
    #[arg(long, value_name = "FILE", requires = "config_dir")]
    mesh_config: Option<PathBuf>,
    /// Trust domain of the mesh; with --config-dir the settings say it.
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    trust_domain: String,
    /// The program that decides; the one beside meshctl where it is not given.
    #[arg(long, value_name = "PATH")]
    proxy: Option<PathBuf>,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Explains a request.
///
/// # Errors
/// Where pilot does not answer, the workload is not known, or the request is malformed.
pub async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let program = Program::find(args.proxy.as_deref())?;
    let source = match &args.config_dir {
        Some(directory) => {
            Source::Offline(Box::new(Offline::read(std::slice::from_ref(directory), args.mesh_config.as_deref())?))
        }
        None => Source::Running(Box::new(Running::open(args.pilot, args.at.reach().await, args.trust_domain).await?)),
    };
    let request = Request { method: args.method, url: args.url, headers: args.headers, from: args.from };
    let journey = Journey::explain(&source, &program, &request).await?;
    match args.output {
        Format::Table => text::lines(&journey).iter().try_for_each(|line| output::say(line))?,
        Format::Json | Format::Yaml => output::show(args.output, &Table::new(&[]), &serde_json::to_value(&journey)?)?,
    }
    Ok(match journey.verdict {
        Verdict::Answered => ExitCode::SUCCESS,
        Verdict::Denied | Verdict::Failing => ExitCode::from(CODE_REFUSED),
    })
}
