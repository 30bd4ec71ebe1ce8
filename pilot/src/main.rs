//! `pilot`: flags → run.

use anyhow::Context as _;
use clap::Parser as _;
use pilot::args::{Cli, Command, unread};
use pilot::server::Server;
use std::io::Write as _;
use tokio::signal::unix::{SignalKind, signal};
use vitals::log::{self, Format};

fn main() -> anyhow::Result<()> {
    let args = match Cli::parse().command {
        Command::Discovery(args) => args,
        Command::Crds => {
            let manifests = pilot::source::kube::crd::manifests();
            return writeln!(std::io::stdout(), "{manifests:#}").context("standard output");
        }
    };
    let format = if args.log_as_json { Format::Json } else { Format::Text };
    let level = log::init(format, &args.log_output_level)?;
    for name in unread() {
        tracing::warn!("the variable {name} has no effect: pilot --help names those that have");
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("runtime")?.block_on(async move {
        let grace = args.shutdown_duration;
        let mut running = Box::pin(Server::new(*args, Some(level)).start()).await?;
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        tokio::select! {
            failed = running.failed() => return failed,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        running.stop(grace).await;
        Ok(())
    })
}
