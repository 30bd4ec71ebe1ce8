//! Command-line flags, with Envoy's names.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Flags of `proxy`, as Envoy takes them, so that a start script need not change.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// Bootstrap file: YAML or JSON, or protobuf when it ends in .pb
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config_path: Option<PathBuf>,
    /// Bootstrap as text; merged over the file
    #[arg(long, value_name = "YAML")]
    pub config_yaml: Option<String>,
    /// Worker threads; 0 and absent mean one per CPU that this process may use
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// Serve, or check the configuration and exit
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub mode: Mode,
    /// Log level: trace, debug, info, warning, error, critical, off
    #[arg(short = 'l', long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// Levels of single components, as upstream:debug,xds:trace
    #[arg(long, value_name = "LIST")]
    pub component_log_level: Option<String>,
    /// node.id, when the bootstrap has none
    #[arg(long, value_name = "ID")]
    pub service_node: Option<String>,
    /// node.cluster, when the bootstrap has none
    #[arg(long, value_name = "NAME")]
    pub service_cluster: Option<String>,
    /// node.locality.zone, when the bootstrap has none
    #[arg(long, value_name = "ZONE")]
    pub service_zone: Option<String>,
    /// Seconds that a stopping listener drains
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub drain_time_s: u64,
    /// How connections are asked to leave while draining
    #[arg(long, value_enum, default_value_t = DrainStrategy::Gradual)]
    pub drain_strategy: DrainStrategy,
    /// Seconds before a replaced process ends
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub parent_shutdown_time_s: u64,
    /// Where the last good configuration and the certificate are kept; absent: nowhere
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Writes the admin address to this file once it is known
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,
    /// Port of merged metrics and rewritten probes (Istio: 15020); absent: none
    #[arg(long, value_name = "PORT")]
    pub status_port: Option<u16>,
    /// Port of the readiness probe (Istio: 15021); absent: none
    #[arg(long, value_name = "PORT")]
    pub ready_port: Option<u16>,
    /// Port of the proxy's own metrics (Istio: 15090); absent: none
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<u16>,
    /// Milliseconds between flushes of access-log files
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub file_flush_interval_msec: u64,
    /// Accepted for Envoy's sake: processes are handed over by a socket, so there is no shared memory to number
    #[arg(long, value_name = "N", hide = true)]
    pub base_id: Option<u32>,
    /// Accepted for Envoy's sake
    #[arg(long, value_name = "N", hide = true)]
    pub restart_epoch: Option<u32>,
    /// Accepted for Envoy's sake
    #[arg(long, hide = true)]
    pub disable_hot_restart: bool,
    /// Accepted for Envoy's sake: log lines have one format
    #[arg(long, value_name = "FORMAT", hide = true)]
    pub log_format: Option<String>,
    /// Accepted for Envoy's sake
    #[arg(long, hide = true)]
    pub skip_deprecated_logs: bool,
    /// Accepted for Envoy's sake: addresses are used as the bootstrap gives them
    #[arg(long, value_name = "v4|v6", hide = true)]
    pub local_address_ip_version: Option<String>,
}

/// What the process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Run.
    Serve,
    /// Check the configuration and exit with 0 or 1.
    Validate,
}

/// How connections are asked to leave while a listener drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DrainStrategy {
    /// More and more of them as the drain time passes.
    Gradual,
    /// All at once.
    Immediate,
}

/// A log level in Envoy's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Each frame.
    Trace,
    /// Each connection.
    Debug,
    /// Life cycle and configuration.
    Info,
    /// Degraded, going on.
    Warning,
    /// An operator must act.
    Error,
    /// Nothing.
    Off,
}

impl LogLevel {
    /// The directive that `tracing_subscriber`'s filter takes.
    pub fn directive(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warn",
            Self::Error => "error",
            Self::Off => "off",
        }
    }

    /// The name that `/logging` shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            other => other.directive(),
        }
    }
}

impl std::str::FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "trace" => Ok(Self::Trace),
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warning" | "warn" => Ok(Self::Warning),
            "error" | "critical" => Ok(Self::Error),
            "off" => Ok(Self::Off),
            other => Err(format!("unknown level {other}: one of trace, debug, info, warning, error, critical, off")),
        }
    }
}

/// `component:level` pairs of `--component-log-level` as a filter of our modules.
///
/// # Errors
/// A text that names the pair that cannot be read.
pub fn component_directives(list: &str) -> Result<Vec<(String, LogLevel)>, String> {
    list.split(',')
        .map(|pair| {
            let (component, level) =
                pair.split_once(':').ok_or_else(|| format!("{pair}: write component:level, as xds:debug"))?;
            Ok((component.trim().to_owned(), level.trim().parse()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn takes_the_command_line_that_istio_gives_to_envoy() {
        let line = "proxy -c etc/istio/proxy/envoy-rev.json --drain-time-s 45 --drain-strategy immediate \
            --local-address-ip-version v4 --file-flush-interval-msec 1000 --disable-hot-restart \
            --log-format %v -l warning --component-log-level misc:error --concurrency 2 --base-id 7 \
            --service-node n --service-cluster c --service-zone z --mode validate";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!((cli.flags.drain_time_s, cli.flags.concurrency), (45, Some(2)));
        assert_eq!((cli.flags.mode, cli.flags.log_level), (Mode::Validate, LogLevel::Warning));
        assert_eq!(cli.flags.drain_strategy, DrainStrategy::Immediate);
        let listed = component_directives("upstream:debug,xds:trace").unwrap();
        assert_eq!(listed, [("upstream".to_owned(), LogLevel::Debug), ("xds".to_owned(), LogLevel::Trace)]);
        assert!(component_directives("upstream").is_err());
    }
}
