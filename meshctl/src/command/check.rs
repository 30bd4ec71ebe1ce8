//! `meshctl check`: whether the mesh is well, and what to do where it is not (CT-40).

use crate::check::report::Result as Outcome;
use crate::check::{Facts, Report, Where, judge};
use crate::output;
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
/// √ is well, ‼ works and should be looked at, × does not work; below each of the latter stands what to do. The exit
/// code is 1 where something is ×.
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CheckArgs {
    /// Demo to look at.
    #[arg(long, default_value = "demo", value_name = "NAME")]
    demo: String,
    /// Address of pilot's debug pages; the demo's where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    pilot: Option<String>,
    /// Address of citadel's certificate service; the demo's where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    citadel: Option<String>,
    /// Address of mixer's metrics; the demo's where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    mixer: Option<String>,
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
    let at = Where { demo: args.demo, pilot: args.pilot, citadel: args.citadel, mixer: args.mixer };
    let report = look(&at, Instant::now() + args.wait).await;
    match args.output {
        Form::Json => output::say(&serde_json::to_string_pretty(&report.json())?)?,
        form => report.text(form == Form::Table).iter().try_for_each(|line| output::say(line))?,
    }
    Ok(if report.worst() == Outcome::Error { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn look(at: &Where, until: Instant) -> Report {
    loop {
        let report = judge::judge(&Facts::gather(at).await);
        if report.worst() == Outcome::Success || Instant::now() + LOOK_AGAIN > until {
            return report;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
