//! The proxy's command line: Envoy's flags, and a few subcommands of its own.

use clap::{Parser, Subcommand};
use proxy::agent::AgentArgs;
use proxy::bootstrap::pod::PodArgs;
use proxy::bootstrap::{Flags, JsonArgs};
use proxy::explain::ExplainArgs;
use proxy::redirect::{ApplyError, EXIT_UNPROVEN, RedirectArgs};
use proxy::server::ask::{self, RequestArgs, WaitArgs};
use std::io::Write;
use std::process::ExitCode;

/// The data plane of the mesh: sidecar and gateway, configured as Envoy is.
#[derive(Debug, Parser)]
#[command(name = "proxy", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs in a pod: everything that is needed comes from what injection gives it.
    Proxy(Box<PodArgs>),
    /// Waits until the proxy beside it is ready.
    Wait(WaitArgs),
    /// Sends a request to the proxy beside it.
    Request(RequestArgs),
    /// Redirects a workload's traffic to its sidecar by iptables rules.
    #[command(alias = "istio-iptables")]
    Redirect(Box<RedirectArgs>),
    /// Removes those rules again; the flags are those that they were set with.
    #[command(alias = "istio-clean-iptables")]
    Unredirect(Box<RedirectArgs>),
    /// Shows the version.
    Version(VersionArgs),
    /// Runs on a node and redirects the traffic of its pods from outside of them.
    Agent(Box<AgentArgs>),
    /// Tells the way of a request through a configuration: listener, policies, route, cluster, endpoints.
    Explain(Box<ExplainArgs>),
    /// Converts between Envoy's JSON or YAML and protobuf, for the proxy itself.
    #[command(hide = true)]
    Json(JsonArgs),
}

/// `proxy version`
#[derive(Debug, clap::Args)]
struct VersionArgs {
    /// The version alone.
    #[arg(short, long)]
    short: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Proxy(args)) => proxy::server::run_in_pod(&args),
        Some(Command::Wait(args)) => ask::wait(&args),
        Some(Command::Request(args)) => {
            ask::request(&args).and_then(|body| Ok(std::io::stdout().write_all(body.as_bytes())?))
        }
        Some(Command::Redirect(args)) => proxy::redirect::run(*args).map_err(Into::into),
        Some(Command::Unredirect(args)) => {
            proxy::redirect::run(RedirectArgs { cleanup: true, ..*args }).map_err(Into::into)
        }
        Some(Command::Version(args)) => {
            let (name, version) = (if args.short { "" } else { "proxy " }, env!("CARGO_PKG_VERSION"));
            writeln!(std::io::stdout(), "{name}{version}").map_err(Into::into)
        }
        Some(Command::Agent(args)) => proxy::agent::run(*args),
        Some(Command::Explain(args)) => proxy::explain::run(&args),
        Some(Command::Json(args)) => {
            proxy::bootstrap::convert(&args, std::io::stdin().lock(), std::io::stdout().lock())
        }
        None => proxy::server::run(cli.flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // not through the log: it may not have been started, and the parent of a converter reads this
            match writeln!(std::io::stderr(), "{error:#}") {
                _ if matches!(error.downcast_ref(), Some(ApplyError::Unproven(_))) => ExitCode::from(EXIT_UNPROVEN),
                Ok(()) => ExitCode::FAILURE,
                Err(_) => ExitCode::from(2),
            }
        }
    }
}
