//! The tree of commands.

use crate::command::{
    analyze, bug_report, check, check_inject, config, curl, dashboard, describe, diagnostics, diff, echo, edges,
    explain, grpcping, identity, injector, install, kube_inject, kube_uninject, load, log, manual, server, stat,
    status, tag, tap, top, uninstall, validate, version,
};
use crate::demo;
use crate::load::flags::translate;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// Looks at and runs a mesh.
#[derive(Debug, Parser)]
#[command(name = "meshctl", disable_version_flag = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a bookshop in a mesh on this machine.
    Demo(demo::DemoArgs),
    /// Install the mesh on Kubernetes, or change what is installed.
    Install(Box<install::InstallArgs>),
    /// Bring the mesh that is installed to this version.
    Upgrade(Box<install::UpgradeArgs>),
    /// Make other names for revisions, which namespaces can ask for.
    Tag(tag::TagArgs),
    /// Take the mesh away from Kubernetes.
    Uninstall(uninstall::UninstallArgs),
    /// Show what would be installed.
    Manifest(install::ManifestArgs),
    /// Write what is installed and wanted no longer, as YAML for kubectl delete -f -.
    Prune(Box<install::PruneArgs>),
    /// Check whether everything that was installed is there and ready.
    VerifyInstall(install::VerifyArgs),
    /// Show which proxies pilot knows and how current they are, or whether one holds what pilot sends it.
    #[command(visible_alias = "ps")]
    ProxyStatus(status::StatusArgs),
    /// Show what a proxy has been told.
    #[command(visible_alias = "pc")]
    ProxyConfig(config::ConfigArgs),
    /// Tell what becomes of a request: route, endpoints, policies, and which object decided.
    Explain(Box<explain::ExplainArgs>),
    /// Check whether the mesh is well, and say what to do where it is not.
    Check(check::CheckArgs),
    /// Open the page that shows the mesh, or another one: of an addon, a proxy, pilot.
    #[command(visible_aliases = ["dash", "d"])]
    Dashboard(dashboard::DashboardArgs),
    /// Show success, rate and latencies of workloads, services and namespaces.
    Stat(Box<stat::StatArgs>),
    /// Show requests as they pass.
    Tap(Box<tap::TapArgs>),
    /// Show the busiest pairs of workload and service, or the busiest paths of one, live.
    Top(Box<top::TopArgs>),
    /// Show who speaks to whom, and whether mutual TLS protects it.
    Edges(edges::EdgesArgs),
    /// Tell what the mesh does with a pod or a service: which objects apply to it, and which do not match.
    #[command(visible_alias = "desc")]
    Describe(describe::DescribeArgs),
    /// Commands under the names that istioctl has for them, and some that it has nowhere else.
    #[command(visible_alias = "x", subcommand)]
    Experimental(Experimental),
    /// Show who a proxy proves to be, and how long.
    Identity(identity::IdentityArgs),
    /// Show raw metrics of a proxy or of the control plane.
    Diagnostics(diagnostics::DiagnosticsArgs),
    /// Show or change the log levels of a proxy or of the control plane.
    Log(log::LogArgs),
    /// Gather in one archive what somebody else needs to help, without secrets.
    BugReport(bug_report::BugReportArgs),
    /// Tell what is wrong with objects of a cluster, or of files before they are applied, in Istio's codes.
    Analyze(Box<analyze::AnalyzeArgs>),
    /// Tell whether the mesh would take objects of files.
    #[command(visible_alias = "v")]
    Validate(validate::ValidateArgs),
    /// Show what a change does to each proxy, before it is applied.
    Diff(Box<diff::DiffArgs>),
    /// Give workloads in files the sidecar that the webhook would give them.
    KubeInject(kube_inject::KubeInjectArgs),
    /// Send requests at a rate and report latencies, as Fortio does.
    Load(Box<load::LoadArgs>),
    /// Fetch a URL once.
    Curl(Box<curl::CurlArgs>),
    /// Run servers that echo, delay and fail as asked.
    Server(Box<server::ServerArgs>),
    /// Run a TCP server that echoes.
    TcpEcho(echo::TcpArgs),
    /// Run a UDP server that echoes.
    UdpEcho(echo::UdpArgs),
    /// Run a server that redirects to https.
    Redirect(echo::RedirectArgs),
    /// Measure the way to a gRPC server and back, and the difference of the clocks.
    #[command(name = "grpcping")]
    GrpcPing(Box<grpcping::GrpcPingArgs>),
    /// Show versions.
    Version(version::VersionArgs),
    /// Write the completion of a shell, to be sourced: source <(meshctl completion bash).
    Completion(manual::CompletionArgs),
    /// Write a manual page for each command.
    Man(manual::ManArgs),
    #[command(hide = true)]
    Reaper(demo::ReaperArgs),
}

/// istioctl's group `experimental`, as far as its commands are here.
#[derive(Debug, Subcommand)]
enum Experimental {
    /// As meshctl describe.
    #[command(visible_alias = "desc")]
    Describe(describe::DescribeArgs),
    /// As meshctl check --pre.
    Precheck(check::PrecheckArgs),
    /// Show which AuthorizationPolicies a proxy enforces.
    Authz(config::authz::AuthzArgs),
    /// Show which webhook injects which namespace, and which revisions its pods have.
    Injector(injector::InjectorArgs),
    /// Tell whether a pod gets a sidecar, from whom, and why.
    CheckInject(check_inject::CheckInjectArgs),
    /// Take the sidecar out of workloads in files.
    KubeUninject(kube_uninject::KubeUninjectArgs),
}

/// Reads the command line of this process. Flags of the load tool may have one dash, as Fortio's users write them.
pub fn parse() -> Cli {
    Cli::parse_from(translate(&Cli::command(), std::env::args_os()))
}

/// Runs one command.
///
/// # Errors
/// What the command says.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // One thread: children of the demo die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match cli.command {
        Command::Demo(args) => runtime.block_on(demo::run(args)),
        Command::Install(args) => runtime.block_on(install::install(*args)),
        Command::Upgrade(args) => runtime.block_on(Box::pin(install::upgrade(*args))),
        Command::Tag(args) => runtime.block_on(Box::pin(tag::run(args))).map(|()| ExitCode::SUCCESS),
        Command::Uninstall(args) => runtime.block_on(uninstall::run(args)),
        Command::Manifest(args) => install::manifest(&args).map(|()| ExitCode::SUCCESS),
        Command::Prune(args) => runtime.block_on(install::prune(*args)).map(|()| ExitCode::SUCCESS),
        Command::VerifyInstall(args) => runtime.block_on(install::verify(args)),
        Command::ProxyStatus(args) => runtime.block_on(Box::pin(status::run(args))),
        Command::ProxyConfig(args) => runtime.block_on(Box::pin(config::run(args))),
        Command::Explain(args) => runtime.block_on(explain::run(*args)),
        Command::Check(args) => runtime.block_on(check::run(args)),
        Command::Dashboard(args) => runtime.block_on(dashboard::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Stat(args) => runtime.block_on(stat::run(*args)).map(|()| ExitCode::SUCCESS),
        Command::Tap(args) => runtime.block_on(Box::pin(tap::run(*args))).map(|()| ExitCode::SUCCESS),
        Command::Top(args) => runtime.block_on(top::run(*args)).map(|()| ExitCode::SUCCESS),
        Command::Edges(args) => runtime.block_on(edges::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Analyze(args) => runtime.block_on(Box::pin(analyze::run(&args))),
        Command::Describe(args) => runtime.block_on(Box::pin(describe::run(args))).map(|()| ExitCode::SUCCESS),
        Command::Experimental(Experimental::Describe(args)) => {
            runtime.block_on(Box::pin(describe::run(args))).map(|()| ExitCode::SUCCESS)
        }
        Command::Experimental(Experimental::Precheck(args)) => runtime.block_on(check::precheck(args)),
        Command::Experimental(Experimental::Authz(args)) => {
            runtime.block_on(config::authz::run(args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Experimental(Experimental::Injector(args)) => {
            runtime.block_on(injector::run(args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Experimental(Experimental::CheckInject(args)) => {
            runtime.block_on(check_inject::run(args)).map(|()| ExitCode::SUCCESS)
        }
        Command::Identity(args) => runtime.block_on(identity::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Diagnostics(args) => runtime.block_on(diagnostics::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Experimental(Experimental::KubeUninject(args)) => {
            kube_uninject::run(&args).map(|()| ExitCode::SUCCESS)
        }
        Command::Log(args) => runtime.block_on(log::run(args)).map(|()| ExitCode::SUCCESS),
        Command::BugReport(args) => runtime.block_on(Box::pin(bug_report::run(args))).map(|()| ExitCode::SUCCESS),
        Command::Validate(args) => validate::run(&args),
        Command::Diff(args) => diff::run(&args).map(|()| ExitCode::SUCCESS),
        Command::KubeInject(args) => runtime.block_on(kube_inject::run(&args)).map(|()| ExitCode::SUCCESS),
        Command::Load(args) => runtime.block_on(load::run(*args)),
        Command::Curl(args) => runtime.block_on(curl::run(*args)),
        Command::Server(args) => runtime.block_on(server::run(*args)),
        Command::TcpEcho(args) => runtime.block_on(server::alone(args.settings())),
        Command::UdpEcho(args) => runtime.block_on(server::alone(args.settings())),
        Command::Redirect(args) => runtime.block_on(server::alone(args.settings())),
        Command::GrpcPing(args) => runtime.block_on(grpcping::run(*args)),
        Command::Version(args) => runtime.block_on(version::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Completion(args) => manual::complete(&args, Cli::command()).map(|()| ExitCode::SUCCESS),
        Command::Man(args) => manual::write(&args, Cli::command()).map(|()| ExitCode::SUCCESS),
        Command::Reaper(args) => demo::reap(&args).map(|()| ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_flags_of_a_command_are_called_the_same() {
        Cli::command().debug_assert();
    }
}
