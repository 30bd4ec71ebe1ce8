//! The flags of `mixer`.

use crate::export::file::Format;
use crate::report::series::MAX_SERIES;
use anyhow::Context as _;
use clap::Args;
use identity::spiffe::{SpiffeId, TrustDomain};
use std::path::PathBuf;

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
    /// pilot's debug address: workloads, objects, state of the proxies; `http://127.0.0.1:8080` on pilot's machine, elsewhere
    /// `https://istiod.istio-system.svc:15012`, to which mixer shows its certificate
    #[arg(long)]
    pub pilot: Option<String>,
    /// Address of OTLP over gRPC
    #[arg(long, default_value = "127.0.0.1:4317")]
    pub otlp_grpc_addr: String,
    /// Address of OTLP over HTTP
    #[arg(long, default_value = "127.0.0.1:4318")]
    pub otlp_http_addr: String,
    /// Address of Zipkin's collector
    #[arg(long, default_value = "127.0.0.1:9411")]
    pub zipkin_addr: String,
    /// Where to write the access log: a file, or `-` for standard output
    #[arg(long)]
    pub access_log: Option<String>,
    /// How lines of the access log look
    #[arg(long, value_enum, default_value = "text")]
    pub access_log_format: Format,
    /// Another collector that gets spans and metrics, as `http://collector:4317` (OTLP over gRPC)
    #[arg(long)]
    pub otlp_export: Option<String>,
    /// The program proxy, which explains on the page what would become of a request; the one beside mixer where it is not given
    #[arg(long, value_name = "PATH")]
    pub proxy_program: Option<PathBuf>,
    /// Series that are kept, merged over all proxies; what is beyond shares overflow series
    #[arg(long, default_value_t = MAX_SERIES)]
    pub max_series: usize,
    /// Policy
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Its own certificate
    #[command(flatten)]
    pub identity: IdentityArgs,
}

/// Where mixer's certificate comes from. With one, its services take who has a certificate of the mesh, and nobody else;
/// its pages (`--http-addr`, `--monitoring-addr`, `--adapter-metrics-addr`) take plain text as well.
#[derive(Debug, Clone, Default, Args)]
pub struct IdentityArgs {
    /// Certificate service, HOST:PORT; without it all addresses are served in plain text
    #[arg(long, requires = "identity")]
    pub ca_addr: Option<String>,
    /// Name that the CA's certificate must have; the one of --ca-addr where it is not given
    #[arg(long)]
    pub ca_host: Option<String>,
    /// Roots that vouch for the CA
    #[arg(long, default_value = "/var/run/secrets/istio/root-cert.pem")]
    pub ca_root: PathBuf,
    /// File with the bearer token; read again for every request
    #[arg(long, default_value = "/var/run/secrets/tokens/istio-token")]
    pub token_file: PathBuf,
    /// mixer's SPIFFE id; clients must be of its trust domain, or of an alias of it
    #[arg(long, value_name = "SPIFFE-ID")]
    pub identity: Option<String>,
    /// Aliases of the trust domain, separated by commas: those that the mesh moves from or to
    #[arg(long, default_value = "")]
    pub trust_domain_aliases: String,
    /// Directory in memory in which the certificate is kept, so that mixer starts while the CA is away
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
}

/// Where policy comes from and how it is served.
#[derive(Debug, Clone, Default, Args)]
pub struct PolicyArgs {
    /// A directory of YAML with objects of config.istio.io and policy.ferromesh.io, watched
    #[arg(long)]
    pub config_dir: Option<PathBuf>,
    /// Address of /metrics with the series of the adapter prometheus, such as `:42422`
    #[arg(long, default_value = "")]
    pub adapter_metrics_addr: String,
    /// Address of external authorization over HTTP, for proxies only
    #[arg(long, default_value = "")]
    pub ext_authz_http_addr: String,
    /// The prefix that proxies put before the path of the request that they ask about over HTTP
    #[arg(long, default_value = "")]
    pub ext_authz_http_prefix: String,
    /// Rate limits: a directory with the YAML of envoyproxy/ratelimit, watched
    #[arg(long)]
    pub ratelimit_config: Option<PathBuf>,
    /// Rate limits: where they are counted, as `redis://HOST:PORT`; without it in this process
    #[arg(long)]
    pub redis: Option<String>,
    /// Rate limits: a Redis of their own for limits of a second
    #[arg(long, requires = "redis")]
    pub redis_per_second: Option<String>,
    /// Rate limits: address of the gRPC service besides --grpc-addr, such as `:8081`
    #[arg(long, default_value = "")]
    pub ratelimit_grpc_addr: String,
    /// Rate limits: address of /json, /healthcheck and /rlconfig
    #[arg(long, default_value = "")]
    pub ratelimit_http_addr: String,
    /// Rate limits: count, and refuse nothing
    #[arg(long)]
    pub ratelimit_shadow_mode: bool,
    /// Rate limits: tell clients by the headers RateLimit-Limit, -Remaining and -Reset
    #[arg(long)]
    pub ratelimit_response_headers: bool,
}

impl IdentityArgs {
    /// The aliases.
    ///
    /// # Errors
    /// Where one is no trust domain.
    pub fn aliases(&self) -> anyhow::Result<Vec<TrustDomain>> {
        let names = self.trust_domain_aliases.split(',').filter(|name| !name.is_empty());
        names.map(TrustDomain::from_mesh_config).collect::<Result<_, _>>().context("--trust-domain-aliases")
    }

    /// Where and as whom mixer enrols; nothing where it does not.
    ///
    /// # Errors
    /// Where the id is none, or roots cannot be read.
    pub fn config(&self) -> anyhow::Result<Option<credentials::Config>> {
        let (Some(address), Some(id)) = (&self.ca_addr, &self.identity) else { return Ok(None) };
        let config = credentials::Config {
            ca_address: address.clone(),
            ca_host: self.ca_host.clone().unwrap_or_else(|| credentials::host_of(address).to_owned()),
            ca_roots: self.ca_root.clone(),
            token_file: Some(self.token_file.clone()),
            cluster_id: None,
            identity: SpiffeId::parse(id).with_context(|| format!("--identity {id}"))?,
            ttl_s: 0,
            state_dir: self.state_dir.clone(),
        };
        config.tls(None).context("--ca-root")?;
        Ok(Some(config))
    }
}

impl ServeArgs {
    /// The program proxy: the one that was named, else the one beside this program.
    pub fn proxy_program(&self) -> PathBuf {
        let beside = || std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("proxy")));
        self.proxy_program.clone().or_else(beside).unwrap_or_else(|| "proxy".into())
    }
}
