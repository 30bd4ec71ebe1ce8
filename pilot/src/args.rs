//! The flags of `pilot`; istiod's, in kebab case with istiod's own spelling as alias (PI-1, PI-3).

use crate::admission::NativeSidecars;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Tells every proxy what to do.
#[derive(Debug, Parser)]
#[command(name = "pilot", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves xDS.
    Discovery(Box<Discovery>),
    /// Prints the CustomResourceDefinitions of the mesh's kinds, for `kubectl apply -f -`
    Crds,
}

/// `pilot discovery`.
#[derive(Debug, Clone, Args)]
pub struct Discovery {
    /// A directory of YAML, as `kubectl apply -f` would take it; saved files are live at once. Without it objects come from
    /// a Kubernetes API
    #[arg(long, alias = "configDir", conflicts_with = "kubeconfig")]
    pub config_dir: Option<PathBuf>,
    /// The way to the Kubernetes API; without it that of the pod
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the control plane: root namespace, and home of the ConfigMap with the mesh's settings
    #[arg(long, short = 'n', env = "POD_NAMESPACE", default_value = "istio-system")]
    pub namespace: String,
    /// ConfigMap with the roots of the mesh in every namespace (values: global.trustBundleName)
    #[arg(long, env = "PILOT_CA_CERT_CONFIGMAP", default_value = proto::wire::ROOTS_CONFIG_MAP)]
    pub roots_config_map: String,
    /// Namespaces whose objects are watched, separated by commas; none: all
    #[arg(long, short = 'a', alias = "appNamespace", value_delimiter = ',')]
    pub app_namespace: Vec<String>,
    /// Namespaces whose Secrets are read, for gateways, separated by commas; none: all that are watched
    #[arg(long, value_delimiter = ',')]
    pub secret_namespaces: Vec<String>,
    /// Revision: the ConfigMap with the mesh's settings is `istio-REVISION`
    #[arg(long, env = "REVISION", default_value = "")]
    pub revision: String,
    /// Write what became of each object into its status; one pilot of several does, the holder of a lease
    #[arg(long, env = "PILOT_ENABLE_STATUS", default_value_t = true, action = clap::ArgAction::Set)]
    pub write_status: bool,
    /// Name of this pod, under which it holds leases
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Address of xDS in the clear; empty: off
    #[arg(long, alias = "grpcAddr", default_value = "")]
    pub grpc_addr: String,
    /// Address of xDS and certificate requests over TLS; empty: off
    #[arg(long, alias = "secureGRPCAddr", default_value = ":15012")]
    pub secure_grpc_addr: String,
    /// Address of readiness and debug pages, in plain text; empty: off
    #[arg(long, alias = "httpAddr", default_value = ":8080")]
    pub http_addr: String,
    /// Whether callers of debug pages that are not on this machine must prove who they are
    #[arg(long, env = "ENABLE_DEBUG_ENDPOINT_AUTH", default_value_t = true, action = clap::ArgAction::Set)]
    pub debug_endpoint_auth: bool,
    /// Namespaces beside that of the control plane whose callers see every debug page, separated by commas; those of others
    /// see what proxies of their own namespace are told
    #[arg(long, env = "DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES", value_delimiter = ',')]
    pub debug_endpoint_auth_allowed_namespaces: Vec<String>,
    /// Address of the webhooks, which need a serving certificate; empty: off [default: :15017 where objects come from a
    /// Kubernetes API]
    #[arg(long, alias = "httpsAddr")]
    pub https_addr: Option<String>,
    /// Whether sidecars are init containers that keep running: where every kubelet knows them, always, or never
    #[arg(long, env = "ENABLE_NATIVE_SIDECARS", value_enum, default_value = "auto")]
    pub native_sidecars: NativeSidecars,
    /// Address of metrics; empty: off
    #[arg(long, alias = "monitoringAddr", default_value = ":15014")]
    pub monitoring_addr: String,
    /// File with the mesh's own settings (MeshConfig)
    #[arg(long, alias = "meshConfig")]
    pub mesh_config: Option<PathBuf>,
    /// Domain of Kubernetes services
    #[arg(long, default_value = "cluster.local")]
    pub domain: String,
    /// Name of this cluster
    #[arg(long, alias = "clusterID", env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Chain of the serving certificate, PEM
    #[arg(long, alias = "tlsCertFile")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate, PEM
    #[arg(long, alias = "tlsKeyFile")]
    pub tls_key_file: Option<PathBuf>,
    /// Roots of clients and of citadel, PEM
    #[arg(long, alias = "caCertFile")]
    pub ca_cert_file: Option<PathBuf>,
    /// citadel, to which certificate requests are passed on: HOST:PORT (TLS) or http://HOST:PORT
    #[arg(long, alias = "caAddr")]
    pub ca_addr: Option<String>,
    /// File with the token of this pod, with which pilot asks citadel for its own certificate where none is given
    #[arg(long, default_value = "/var/run/secrets/tokens/istio-token")]
    pub token_file: PathBuf,
    /// Directory in memory where the certificate that citadel gives is kept
    #[arg(long, default_value = "/var/run/secrets/istiod/tls")]
    pub tls_dir: PathBuf,
    /// Also take tokens of Kubernetes that are bound to no pod, as those of virtual machines are
    #[arg(long)]
    pub unbound_tokens: bool,
    /// Keys of the issuer of bearer tokens (JWKS); without them certificates alone prove, and on Kubernetes what the API
    /// server accepts
    #[arg(long)]
    pub jwks_file: Option<PathBuf>,
    /// Audiences of which bearer tokens must name one, separated by commas
    #[arg(long, env = "TOKEN_AUDIENCES", value_delimiter = ',', default_value = proto::wire::TOKEN_AUDIENCE)]
    pub token_audience: Vec<String>,
    /// How often the keys of token issuers (RequestAuthentication) are fetched anew
    #[arg(long, env = "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", default_value = "20m", value_parser = duration)]
    pub jwks_refresh: Duration,
    /// Roots of token issuers beside the public ones, PEM
    #[arg(long, env = "JWKS_EXTRA_ROOTS")]
    pub jwks_extra_roots: Option<PathBuf>,
    /// Address blocks that are never asked for keys, separated by commas; link-local addresses never are, nor loopback where
    /// objects come from a Kubernetes API
    #[arg(long, env = "BLOCKED_CIDRS_IN_JWKS_URIS", value_delimiter = ',')]
    pub jwks_blocked_cidrs: Vec<ipnet::IpNet>,
    /// Time without an event after which a push begins
    #[arg(long, env = "PILOT_DEBOUNCE_AFTER", default_value = "1ms", value_parser = duration)]
    pub debounce_after: Duration,
    /// Longest time from an event to its push
    #[arg(long, env = "PILOT_DEBOUNCE_MAX", default_value = "10ms", value_parser = duration)]
    pub debounce_max: Duration,
    /// Percentage of requests that are traced where neither a Telemetry nor ProxyConfig says it (values: pilot.traceSampling)
    #[arg(long, env = "PILOT_TRACE_SAMPLING", default_value = "1", value_parser = percentage)]
    pub trace_sampling: f64,
    /// Send Istio's values where our defaults differ
    #[arg(long)]
    pub istio_defaults: bool,
    /// Give addresses to hosts of ServiceEntries that have none, for proxies that answer DNS
    #[arg(long, env = "PILOT_ENABLE_IP_AUTOALLOCATE", default_value_t = true, action = clap::ArgAction::Set)]
    pub ip_autoallocate: bool,
    /// How often an idle connection is asked whether it lives
    #[arg(long, alias = "keepaliveInterval", default_value = "30s", value_parser = duration)]
    pub keepalive_interval: Duration,
    /// How long the answer may take
    #[arg(long, alias = "keepaliveTimeout", default_value = "10s", value_parser = duration)]
    pub keepalive_timeout: Duration,
    /// How long a proxy stays connected before it finds a pilot anew, so that a new pilot gets its share; up to a tenth more.
    /// 0: as long as it likes
    #[arg(long, alias = "keepaliveMaxServerConnectionAge", default_value = "30m", value_parser = duration)]
    pub max_connection_age: Duration,
    /// How long streams may go on after the signal to stop
    #[arg(long, alias = "shutdownDuration", default_value = "10s", value_parser = duration)]
    pub shutdown_duration: Duration,
    /// Log level, as `info` or `pilot=debug,info`
    #[arg(long, alias = "log_output_level", default_value = "info")]
    pub log_output_level: String,
    /// Log lines as JSON
    #[arg(long, alias = "log_as_json")]
    pub log_as_json: bool,
}

/// How istiod's variables begin.
const ISTIODS: [&str; 9] = [
    "PILOT_",
    "ISTIOD_",
    "CITADEL_",
    "ENABLE_",
    "JWT_",
    "XDS_",
    "TRUSTED_GATEWAY_",
    "SHARED_MESH_CONFIG",
    "COMPLIANCE_POLICY",
];

/// Variables of istiod's that are set and that nothing here reads: whoever sets one should know.
pub fn unread() -> Vec<String> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    unread_of(std::env::vars_os().filter_map(text))
}

fn unread_of(set: impl Iterator<Item = (String, String)>) -> Vec<String> {
    let command = Cli::command();
    let read: Vec<_> = { command.get_subcommands().flat_map(clap::Command::get_arguments) }
        .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned))
        .collect();
    let istiods = |name: &String| ISTIODS.iter().any(|start| name.starts_with(start));
    // Kubernetes gives every pod some for each Service, as ISTIOD_SERVICE_HOST and ISTIOD_PORT_15012_TCP.
    set.filter(|(name, value)| istiods(name) && !read.contains(name) && !of_service(name, value))
        .map(|(name, _)| name)
        .collect()
}

/// Whether Kubernetes gives a variable for a Service: NAME_SERVICE_HOST, NAME_SERVICE_PORT and that with a port's name,
/// NAME_PORT, and NAME_PORT_443_TCP with what follows.
fn of_service(name: &str, value: &str) -> bool {
    let of_port = |(_, rest): (&str, &str)| {
        let mut parts = rest.split('_');
        let number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
        number && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.rsplit_once("_PORT_").is_some_and(of_port)
}

impl Discovery {
    /// Where webhooks are served; none: nowhere.
    pub fn webhook_addr(&self) -> Option<String> {
        let default = || self.config_dir.is_none().then(|| format!(":{}", proto::wire::PORT_WEBHOOK));
        self.https_addr.clone().or_else(default).filter(|address| !address.is_empty())
    }

    /// Addresses that are never asked for keys: in a cluster whoever may write a policy is not who owns pilot's pod, and so
    /// its own loopback as well; a directory of files is the owner's.
    pub fn blocked_of_keys(&self) -> Vec<ipnet::IpNet> {
        let loopback = ["127.0.0.0/8", "::1/128"].into_iter().filter_map(|block| block.parse().ok());
        let own = loopback.filter(|_| self.config_dir.is_none());
        self.jwks_blocked_cidrs.iter().copied().chain(own).collect()
    }

    /// How long a proxy stays connected; none: as long as it likes.
    pub fn connection_age(&self) -> Option<Duration> {
        Some(self.max_connection_age).filter(|age| !age.is_zero())
    }

    /// Under which name this process holds leases: its pod's, else one that no other process has.
    pub fn identity(&self) -> String {
        self.pod_name.clone().unwrap_or_else(|| format!("pilot-{}-{:08x}", std::process::id(), fastrand::u32(..)))
    }
}

fn percentage(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
    parsed.ok_or_else(|| format!("{text:?}: a percentage from 0 to 100 is needed"))
}

fn duration(text: &str) -> Result<Duration, proto::duration::DurationError> {
    proto::duration::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: PI-33, PI-42
    #[test]
    fn variables_of_istiods_that_nothing_reads_are_told() {
        let unread = ["PILOT_PUSH_THROTTLE", "ENABLE_MCS_SERVICE_DISCOVERY", "PILOT_HTTP_PORT", "PILOT_PORT_RANGE"];
        let read = [
            "PILOT_DEBOUNCE_AFTER",
            "ISTIOD_SERVICE_HOST",
            "ISTIOD_SERVICE_PORT",
            "ISTIOD_SERVICE_PORT_GRPC_XDS",
            "ISTIOD_PORT_443_TCP",
            "ISTIOD_PORT_443_TCP_ADDR",
            "HOME",
        ];
        let set = unread.iter().chain(&read).map(|name| ((*name).to_owned(), "1".to_owned()));
        let port = ("ISTIOD_PORT".to_owned(), "tcp://10.0.0.1:443".to_owned());
        assert_eq!(unread_of(set.chain([port])), unread);
    }

    // spec: PI-3, PI-26
    #[test]
    fn no_age_is_no_limit() {
        let age = |value: &str| {
            let line = ["pilot", "discovery", "--keepaliveMaxServerConnectionAge", value];
            let Command::Discovery(args) = Cli::try_parse_from(line).unwrap().command else { panic!("discovery") };
            args.connection_age()
        };
        assert_eq!([age("0"), age("0s"), age("5m")], [None, None, Some(Duration::from_secs(300))]);
    }

    // spec: PI-1, PI-3
    // bar: S1, S4
    #[test]
    fn istiods_spelling_is_taken() {
        Cli::command().debug_assert();
        let line = [
            "pilot",
            "discovery",
            "--configDir",
            "/c",
            "--grpcAddr",
            ":15010",
            "--secureGRPCAddr",
            "",
            "--httpAddr",
            ":1",
            "--monitoringAddr",
            ":2",
            "--meshConfig",
            "/m",
            "--clusterID",
            "c",
            "--caCertFile",
            "/r",
            "--log_output_level",
            "default:debug",
        ];
        let Command::Discovery(args) = Cli::try_parse_from(line).unwrap().command else { panic!("discovery") };
        assert_eq!(
            (args.grpc_addr.as_str(), args.cluster_id.as_str(), args.domain.as_str()),
            (":15010", "c", "cluster.local")
        );
        assert_eq!((args.debounce_after, args.debounce_max), (Duration::from_millis(1), Duration::from_millis(10)));
        let plain = Cli::try_parse_from(["pilot", "discovery", "--appNamespace", "a,b"]).unwrap().command;
        let Command::Discovery(plain) = plain else { panic!("discovery") };
        assert_eq!((plain.namespace.as_str(), plain.app_namespace.len()), ("istio-system", 2));
        assert_eq!(
            (plain.secure_grpc_addr.as_str(), plain.http_addr.as_str(), plain.monitoring_addr.as_str()),
            (":15012", ":8080", ":15014")
        );
        assert_eq!((plain.https_addr.clone(), plain.native_sidecars), (None, NativeSidecars::Auto));
        assert_eq!(plain.grpc_addr, "", "in the clear only when asked for");
        let blocked = |args: &Discovery| args.blocked_of_keys().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(blocked(&plain), ["127.0.0.0/8", "::1/128"]);
        assert!(blocked(&args).is_empty(), "files are the owner's");
    }
}
