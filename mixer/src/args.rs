//! The flags of `mixer`.

use clap::Args;

/// `mixer serve`. An empty address turns a server off.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address of the gRPC services: access logs, OTLP, external authorization, rate limits
    #[arg(long, default_value = "127.0.0.1:9091")]
    pub grpc_addr: String,
    /// Address of the page
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub http_addr: String,
    /// Address of /metrics, /ready, /logging and /version
    #[arg(long, default_value = "127.0.0.1:15014")]
    pub monitoring_addr: String,
    /// pilot's debug address, as `http://127.0.0.1:8080`: workloads, objects, state of the proxies
    #[arg(long)]
    pub pilot: Option<String>,
}
