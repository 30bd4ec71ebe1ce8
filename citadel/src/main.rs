//! The citadel binary: `serve`, `agent` and `token`.

use clap::{Parser, Subcommand};
use vitals::log::Format;

#[derive(Parser)]
#[command(name = "citadel", version, about = "Certificate authority of the mesh")]
struct Arguments {
    /// Log filter, such as `info` or `citadel=debug`.
    #[arg(long, global = true, default_value = "info", env = "CITADEL_LOG")]
    log: String,
    /// Write log lines as JSON.
    #[arg(long, global = true)]
    log_as_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sign certificates for the mesh.
    Serve(Box<citadel::serve::ServeArgs>),
    /// Keep a workload's certificate fresh and give it to an Envoy over SDS.
    Agent(citadel::agent::AgentArgs),
    /// Make a bootstrap token bound to one SPIFFE id.
    Token(citadel::token::TokenArgs),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let format = if arguments.log_as_json { Format::Json } else { Format::Text };
    let level = vitals::log::init(format, &arguments.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.command {
        Command::Serve(args) => runtime.block_on(citadel::serve::run(*args, Some(level))),
        Command::Agent(args) => runtime.block_on(citadel::agent::run(args)),
        Command::Token(args) => citadel::token::run(&args),
    }
}
