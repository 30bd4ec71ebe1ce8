//! The mixer binary: `serve`.

use clap::{Parser, Subcommand};
use vitals::log::Format;

#[derive(Parser)]
#[command(name = "mixer", version, about = "Policy and telemetry hub of the mesh")]
struct Arguments {
    /// Log filter, such as `info` or `mixer=debug`.
    #[arg(long, global = true, default_value = "info", env = "MIXER_LOG")]
    log: String,
    /// Write log lines as JSON.
    #[arg(long, global = true)]
    log_as_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take reports, decide what policies ask, and show the mesh.
    Serve(Box<mixer::args::ServeArgs>),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let format = if arguments.log_as_json { Format::Json } else { Format::Text };
    let level = vitals::log::init(format, &arguments.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.command {
        Command::Serve(args) => runtime.block_on(mixer::server::run(*args, Some(level))),
    }
}
