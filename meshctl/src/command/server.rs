//! `meshctl server`: Fortio's servers, all at once (spec FO-2, FO-34, FO-35, FO-41).

use crate::load::flags::RequestArgs;
use crate::load::format::parse_duration;
use crate::load::run::raise_descriptor_limit;
use crate::load::server::echo::Echo;
use crate::load::server::params::Limits;
use crate::load::server::{self, Settings};
use crate::load::tls;
use crate::output;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// `meshctl server`. Addresses are a port, host:port, a path or unix:path, or `disabled`.
#[derive(Debug, Clone, clap::Args)]
#[command(args_override_self = true)] // of a flag that stands twice the last counts, as in Fortio
pub struct ServerArgs {
    /// HTTP echo.
    #[arg(long, default_value = "8080", value_name = "ADDRESS")]
    http_port: String,
    /// gRPC ping and health.
    #[arg(long, default_value = "8079", value_name = "ADDRESS")]
    grpc_port: String,
    /// TCP echo.
    #[arg(long, default_value = "8078", value_name = "ADDRESS")]
    tcp_port: String,
    /// UDP echo.
    #[arg(long, default_value = "8078", value_name = "ADDRESS")]
    udp_port: String,
    /// Redirect to https.
    #[arg(long, default_value = "8081", value_name = "ADDRESS")]
    redirect_port: String,
    /// Path of the debug page; empty for none.
    #[arg(long, default_value = "/debug", value_name = "PATH")]
    echo_debug_path: String,
    /// Largest size= that is answered, in kilobytes.
    #[arg(long, default_value_t = 256, value_name = "KB")]
    maxpayloadsizekb: usize,
    /// Longest delay= that is obeyed.
    #[arg(long, default_value = "1.5s", value_parser = parse_duration, value_name = "DURATION")]
    max_echo_delay: Duration,
    /// How long a connection may be idle.
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "DURATION")]
    server_idle_timeout: Duration,
    /// Query of requests that have none, such as delay=10ms:50.
    #[arg(long, default_value = "", value_name = "QUERY")]
    echo_server_default_params: String,
    /// Service whose health is good; <NAME>_down is not serving.
    #[arg(long, default_value = "ping", value_name = "NAME")]
    healthservice: String,
    /// Streams that a gRPC client may have open at once; 0 for no bound of ours.
    #[arg(long, default_value_t = 0, value_name = "STREAMS")]
    grpc_max_streams: u32,
    /// Threads; as many as processors where it is 0.
    #[arg(long, default_value_t = 0)]
    gomaxprocs: usize,
    #[command(flatten)]
    request: RequestArgs,
}

impl ServerArgs {
    fn settings(&self) -> anyhow::Result<Settings> {
        Ok(Settings {
            http: self.http_port.clone(),
            grpc: self.grpc_port.clone(),
            tcp: self.tcp_port.clone(),
            udp: self.udp_port.clone(),
            redirect: self.redirect_port.clone(),
            echo: Echo {
                debug_path: self.echo_debug_path.clone(),
                limits: Limits { delay: self.max_echo_delay, size: self.maxpayloadsizekb << 10 },
                default_params: self.echo_server_default_params.clone(),
                start: Instant::now(),
            },
            health_service: self.healthservice.clone(),
            grpc_streams: self.grpc_max_streams,
            idle: self.server_idle_timeout,
            tls: tls::server(&self.request)?.map(Arc::new),
        })
    }
}

/// Runs the servers until Ctrl-C or a signal to end.
///
/// # Errors
/// Where an address is taken or a certificate is unusable.
pub async fn run(args: ServerArgs) -> anyhow::Result<ExitCode> {
    serve(args.settings()?, args.gomaxprocs).await
}

/// Runs one server until Ctrl-C or a signal to end.
///
/// # Errors
/// Where the address is taken.
pub async fn alone(settings: Settings) -> anyhow::Result<ExitCode> {
    serve(settings, 0).await
}

/// Serves on so many threads; as many as processors where it is 0.
async fn serve(settings: Settings, threads: usize) -> anyhow::Result<ExitCode> {
    raise_descriptor_limit();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads > 0 { threads } else { processors };
    // the runtime of the commands has one thread
    let served = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            server::start(&settings).await?;
            output::note("All servers started");
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            anyhow::Ok(())
        })?;
        runtime.shutdown_background();
        anyhow::Ok(())
    });
    served.await??;
    Ok(ExitCode::SUCCESS)
}
