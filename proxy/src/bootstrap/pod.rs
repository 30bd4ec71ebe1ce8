//! `proxy proxy sidecar`: the start configuration of a proxy in a pod, from what injection gives it: flags and variables of
//! Istio's agent, and the pod's labels and annotations in files (spec NI-1 to NI-4, PI-60, PI-61).

use super::{BootstrapError, DrainStrategy, Environment, Flags, LogLevel, Mode};
use proto::wire::{
    CLUSTER_SDS, CLUSTER_XDS, PORT_ADMIN, PORT_METRICS, PORT_READY, PORT_STATUS, SECRET_DEFAULT, SECRET_ROOT,
    VARIABLE_METRICS,
};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Where pilot is when nothing says so.
const DISCOVERY: &str = "istiod.istio-system.svc:15012";
/// Seconds between the end of draining and that of the pod, in which the process ends by itself (D2).
const BEFORE_KILL_S: u64 = 2;
/// Seconds of draining where nobody knows the pod's grace period: Istio's `drainDuration`.
const DRAIN_S: u64 = 45;
/// Variables of Istio's agent with the ports of readiness and of the proxy's own metrics.
const READY_VARIABLE: &str = "ENVOY_STATUS_PORT";
const METRICS_VARIABLE: &str = "ENVOY_PROMETHEUS_PORT";
/// Time between two reports of metrics.
const REPORT_EVERY: &str = "1s";
/// Annotations of the pod that win over `PROXY_CONFIG`, as with Istio's agent (spec AN-2, AN-3).
const STATUS_PORT: &str = "status.sidecar.istio.io/port";
const DISCOVERY_ADDRESS: &str = "sidecar.istio.io/discoveryAddress";
/// Where another process, SPIRE for one, has its socket of secrets (spec PT-14, CA-19).
pub(crate) const IDENTITY_SOCKETS: &str = "/var/run/secrets/workload-spiffe-uds";
/// Name of that socket, and the variable that gives it another one.
pub(crate) const IDENTITY_SOCKET: &str = "socket";
pub(crate) const IDENTITY_SOCKET_VARIABLE: &str = "WORKLOAD_IDENTITY_SOCKET_FILE";
/// Name of the file that Istio's agent writes for Envoy; ours is written for whoever looks into the pod.
const FILE: &str = "envoy-rev.json";

/// What the proxy is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Beside an application.
    Sidecar,
    /// A gateway.
    Router,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

/// Flags of `pilot-agent proxy`, so that a pod's command line need not change.
#[derive(Debug, Clone, clap::Args)]
pub struct PodArgs {
    /// What the proxy is in its pod.
    #[arg(value_enum, default_value_t = Role::Sidecar)]
    pub role: Role,
    /// Domain of the pod's own services: NAMESPACE.svc.DOMAIN.
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
    /// Log level: trace, debug, info, warning, error, critical, off.
    #[arg(long = "proxyLogLevel", value_name = "LEVEL", default_value = "warning")]
    pub log_level: LogLevel,
    /// Levels of single components, as upstream:debug,xds:trace; those that are Envoy's alone are passed over.
    #[arg(long = "proxyComponentLogLevel", value_name = "LIST")]
    pub component_log_level: Option<String>,
    /// Worker threads.
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// node.cluster.
    #[arg(long = "serviceCluster", value_name = "NAME")]
    pub service_cluster: Option<String>,
    /// Directory for the configuration and the certificate; in memory, in a pod.
    #[arg(long, value_name = "DIR", default_value = "/etc/istio/proxy")]
    pub config_dir: PathBuf,
    /// Directory with the pod's labels and annotations.
    #[arg(long, value_name = "DIR", default_value = "/etc/istio/pod")]
    pub pod_info_dir: PathBuf,
    /// Accepted for Istio's sake: there is no agent beside the proxy whose log could have another level
    #[arg(long = "log_output_level", value_name = "LEVELS", hide = true)]
    pub log_output_level: Option<String>,
    /// Accepted for Istio's sake
    #[arg(long = "log_as_json", hide = true)]
    pub log_as_json: bool,
    /// Accepted for Istio's sake: there is no service of tokens for others here
    #[arg(long = "stsPort", value_name = "PORT", hide = true)]
    pub sts_port: Option<u16>,
    /// Accepted for Istio's sake: ejections are counted, and not written into a file
    #[arg(long = "outlierLogPath", value_name = "FILE", hide = true)]
    pub outlier_log_path: Option<PathBuf>,
}

/// What the variable `PROXY_CONFIG` says.
#[derive(Debug, Default)]
pub(crate) struct ProxyConfig(Map<String, Value>);

impl ProxyConfig {
    pub(crate) fn of(environment: &Environment) -> Result<Self, BootstrapError> {
        let text = environment.get("PROXY_CONFIG").map(str::trim).filter(|text| !text.is_empty());
        let parsed = text.map(serde_json::from_str).transpose();
        Ok(Self(parsed.map_err(|error| BootstrapError::field("PROXY_CONFIG", error.to_string()))?.unwrap_or_default()))
    }

    /// This with what annotations of the pod say in its place.
    fn with(mut self, annotations: &Value) -> Result<Self, BootstrapError> {
        let written = |name: &str| annotations[name].as_str().map(str::trim).filter(|text| !text.is_empty());
        if let Some(port) = written(STATUS_PORT) {
            let bad = |_| BootstrapError::field(STATUS_PORT, format!("{port:?} is no port from 0 (none) to 65535"));
            self.0.insert("statusPort".to_owned(), json!(port.parse::<u16>().map_err(bad)?));
        }
        if let Some(address) = written(DISCOVERY_ADDRESS) {
            self.0.insert("discoveryAddress".to_owned(), json!(address));
        }
        Ok(self)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    /// A port where 0 is none.
    fn port(&self, name: &str, default: u16) -> Option<u16> {
        let written = self.number(name).and_then(|port| u16::try_from(port).ok());
        Some(written.unwrap_or(default)).filter(|port| *port != 0)
    }
}

/// The flags of a proxy in a pod; its start configuration is written into `--config-dir`.
///
/// # Errors
/// [`BootstrapError`] with the variable or file that cannot be used.
pub fn flags(args: &PodArgs, environment: &Environment) -> Result<Flags, BootstrapError> {
    let config = ProxyConfig::of(environment)?.with(&pod_info(&args.pod_info_dir.join("annotations")))?;
    let own = environment.get("ISTIO_BOOTSTRAP_OVERRIDE").map(Path::new);
    let config_yaml = own.map(std::fs::read_to_string).transpose().map_err(failed_override)?;
    let mut bootstrap = bootstrap(args, environment, &config)?;
    // A file that is laid over this one and has a sink of its own wins: there can be one.
    let has_sink = config_yaml.as_ref().is_some_and(|text| text.contains("stats_sinks"));
    if let Some((host, port)) = reports_to(environment).ok().flatten().filter(|_| !has_sink) {
        bootstrap["stats_flush_interval"] = json!(REPORT_EVERY);
        bootstrap["stats_sinks"] = json!([sink(host, port)]);
    }
    let path = args.config_dir.join(FILE);
    let failed = |error: std::io::Error| BootstrapError::Source {
        source_name: path.display().to_string(),
        why: error.to_string(),
    };
    std::fs::create_dir_all(&args.config_dir).map_err(failed)?;
    std::fs::write(&path, format!("{bootstrap:#}\n")).map_err(failed)?;
    Ok(Flags {
        config_path: Some(path),
        config_yaml,
        concurrency: concurrency(args, environment, &config),
        mode: Mode::Serve,
        log_level: args.log_level,
        component_log_level: args.component_log_level.clone().filter(|list| !list.is_empty()),
        service_node: None,
        service_cluster: args.service_cluster.clone(),
        service_zone: None,
        drain_time_s: drain_time_s(environment, &config),
        drain_strategy: DrainStrategy::Gradual,
        parent_shutdown_time_s: 900,
        state_dir: Some(args.config_dir.clone()),
        admin_address_path: None,
        status_port: config.port("statusPort", PORT_STATUS),
        ready_port: Some(port_of(environment, READY_VARIABLE, PORT_READY)?),
        metrics_port: Some(port_of(environment, METRICS_VARIABLE, PORT_METRICS)?),
        file_flush_interval_msec: 1_000,
        base_id: None,
        restart_epoch: None,
        disable_hot_restart: true,
        log_format: None,
        skip_deprecated_logs: false,
        local_address_ip_version: None,
    })
}

fn port_of(environment: &Environment, name: &str, default: u16) -> Result<u16, BootstrapError> {
    let written = environment.get(name).filter(|text| !text.is_empty()).map(str::parse).transpose();
    Ok(written.map_err(|_| BootstrapError::field(name, "a port from 1 to 65535 is needed"))?.unwrap_or(default))
}

fn failed_override(error: std::io::Error) -> BootstrapError {
    BootstrapError::field("ISTIO_BOOTSTRAP_OVERRIDE", error.to_string())
}

/// Host and port of the service that is told each second what was counted; none where nothing says one.
///
/// # Errors
/// The variable is no `http://HOST:PORT` of a service of the mesh. A proxy starts without reports all the same.
pub fn reports_to(environment: &Environment) -> Result<Option<(&str, u16)>, BootstrapError> {
    let Some(written) = environment.get(VARIABLE_METRICS).filter(|text| !text.is_empty()) else { return Ok(None) };
    let rest = written.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').rsplit_once(':'));
    let of_host =
        |host: &str| host.contains('.') && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    let parsed = rest.and_then(|(host, port)| Some((host, port.parse::<u16>().ok().filter(|port| *port != 0)?)));
    let bad = || {
        let why = "is no http://HOST:PORT with the whole name of a service of the mesh, as \
                   http://mixer.istio-system.svc.cluster.local:9091; no metrics are reported";
        BootstrapError::field(VARIABLE_METRICS, format!("{written:?} {why}"))
    };
    parsed.filter(|(host, _)| of_host(host)).map(Some).ok_or_else(bad)
}

/// Metrics by OTLP to a service of the mesh, by its cluster of pilot's: in the mesh's mTLS, and with the pods that are
/// there. Before that cluster has come nothing is lost, for a report has running totals.
fn sink(host: &str, port: u16) -> Value {
    json!({"name": "envoy.stat_sinks.open_telemetry", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig",
        "grpc_service": {"envoy_grpc": {"cluster_name": format!("outbound|{port}||{host}"), "authority": host}},
    }})
}

/// Threads: what is asked for, else what the container may use.
fn concurrency(args: &PodArgs, environment: &Environment, config: &ProxyConfig) -> Option<usize> {
    let written = args.concurrency.or_else(|| usize::try_from(config.number("concurrency")?).ok());
    written.or_else(|| environment.get("ISTIO_CPU_LIMIT")?.parse().ok())
}

/// An explicit `drainDuration`, else the pod's grace period: one clock for the end of a pod (D2).
fn drain_time_s(environment: &Environment, config: &ProxyConfig) -> u64 {
    let written = config.text("drainDuration").and_then(|text| proto::duration::parse(text).ok());
    let grace = environment.get("TERMINATION_GRACE_PERIOD_SECONDS").and_then(|text| text.parse::<u64>().ok());
    let of_grace = grace.map(|seconds| seconds.saturating_sub(BEFORE_KILL_S).max(1));
    written.map(|duration| duration.as_secs()).or(of_grace).unwrap_or(DRAIN_S)
}

fn bootstrap(args: &PodArgs, environment: &Environment, config: &ProxyConfig) -> Result<Value, BootstrapError> {
    let pilot = config.text("discoveryAddress").unwrap_or(DISCOVERY);
    let ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    let reconnect = json!({"retry_back_off": {"base_interval": "0.1s", "max_interval": "2s"}});
    Ok(json!({
        "node": node(args, environment, config)?,
        "admin": {"address": {"socket_address": {
            "address": "127.0.0.1", "port_value": config.port("proxyAdminPort", PORT_ADMIN).unwrap_or(PORT_ADMIN),
        }}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": CLUSTER_XDS, "retry_policy": reconnect}}],
            },
            "cds_config": ads, "lds_config": ads,
        },
        "static_resources": {"clusters": [pilot_cluster(pilot)?, secrets_cluster(environment)]},
    }))
}

/// Who this is, as pilot reads it. What `ISTIO_META_X` says is added to it with every other bootstrap.
fn node(args: &PodArgs, environment: &Environment, config: &ProxyConfig) -> Result<Value, BootstrapError> {
    let needed = |name: &str| {
        let missing = || BootstrapError::field(name, "this variable is needed: injection sets it from the pod");
        environment.get(name).filter(|value| !value.is_empty()).ok_or_else(missing)
    };
    let (name, namespace, ip) = (needed("POD_NAME")?, needed("POD_NAMESPACE")?, needed("INSTANCE_IP")?);
    let written = args.domain.clone().filter(|domain| !domain.is_empty());
    let domain = written.unwrap_or_else(|| format!("{namespace}.svc.cluster.local"));
    let mut metadata = json!({
        "NAME": name,
        "NAMESPACE": namespace,
        "INSTANCE_IPS": ip,
        "ISTIO_VERSION": env!("CARGO_PKG_VERSION"),
        "LABELS": pod_info(&args.pod_info_dir.join("labels")),
        "ANNOTATIONS": pod_info(&args.pod_info_dir.join("annotations")),
        "PROXY_CONFIG": config.0,
        READY_VARIABLE: port_of(environment, READY_VARIABLE, PORT_READY)?,
        METRICS_VARIABLE: port_of(environment, METRICS_VARIABLE, PORT_METRICS)?,
    });
    if let Some(account) = environment.get("SERVICE_ACCOUNT") {
        metadata["SERVICE_ACCOUNT"] = json!(account);
    }
    let mut node = json!({
        "id": format!("{}~{ip}~{name}.{namespace}~{domain}", args.role.name()),
        "metadata": metadata,
    });
    if environment.get("ISTIO_META_WORKLOAD_NAME").is_none() && args.service_cluster.is_none() {
        node["cluster"] = json!(format!("istio-proxy.{namespace}"));
    }
    Ok(node)
}

/// The lines `name="value"` of a file of the downward API; nothing where there is no file.
fn pod_info(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), serde_json::from_str::<String>(value).ok()?.into()))
    });
    Value::Object(pairs.collect())
}

/// pilot over mutual TLS with the certificate that this process has from its CA.
fn pilot_cluster(address: &str) -> Result<Value, BootstrapError> {
    let bad = || BootstrapError::field("discoveryAddress", format!("{address:?} is no HOST:PORT"));
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let secret = |name: &str| {
        json!({"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": {
            "api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": CLUSTER_SDS}}],
        }}})
    };
    let names = json!([{"san_type": "DNS", "matcher": {"exact": host}}]);
    let context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": host,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [secret(SECRET_DEFAULT)],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": names},
                "validation_context_sds_secret_config": secret(SECRET_ROOT),
            },
        },
    });
    let mut cluster = http2(
        CLUSTER_XDS,
        "STRICT_DNS",
        &json!({
            "socket_address": {"address": host, "port_value": port},
        }),
    );
    cluster["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": context});
    cluster["upstream_connection_options"] = json!({"tcp_keepalive": {"keepalive_time": 300}});
    Ok(cluster)
}

/// Where secrets come from beside this process; without anybody there it provides its own.
fn secrets_cluster(environment: &Environment) -> Value {
    let path = format!("{IDENTITY_SOCKETS}/{}", identity_socket(environment));
    http2(CLUSTER_SDS, "STATIC", &json!({"pipe": {"path": path}}))
}

/// Name of the socket in [`IDENTITY_SOCKETS`].
pub(crate) fn identity_socket(environment: &Environment) -> &str {
    environment.get(IDENTITY_SOCKET_VARIABLE).filter(|name| !name.is_empty()).unwrap_or(IDENTITY_SOCKET)
}

fn http2(name: &str, kind: &str, address: &Value) -> Value {
    json!({
        "name": name, "type": kind, "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{BOOTSTRAP, Bootstrap, Direction, JsonArgs, convert};
    use clap::Parser;
    use prost::Message;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: PodArgs,
    }

    const ARGS: [&str; 8] = [
        "proxy",
        "sidecar",
        "--domain",
        "ns.svc.cluster.local",
        "--proxyLogLevel=warning",
        "--proxyComponentLogLevel=misc:error",
        "--log_output_level=default:info",
        "--config-dir",
    ];
    /// What Istio's template adds where values of the installation say so.
    const MORE: [&str; 3] = ["--stsPort=15463", "--log_as_json", "--outlierLogPath=/dev/stdout"];

    fn environment(proxy_config: &str) -> Environment {
        Environment::from([
            ("POD_NAME", "shop-1"),
            ("POD_NAMESPACE", "ns"),
            ("INSTANCE_IP", "10.0.0.9"),
            ("SERVICE_ACCOUNT", "shop"),
            ("ISTIO_META_WORKLOAD_NAME", "shop"),
            ("ISTIO_META_CLUSTER_ID", "c1"),
            ("ISTIO_CPU_LIMIT", "3"),
            ("TERMINATION_GRACE_PERIOD_SECONDS", "60"),
            ("PROXY_CONFIG", proxy_config),
        ])
    }

    fn load(directory: &Path, more: &[&str], environment: &Environment) -> Result<Bootstrap, BootstrapError> {
        let path = directory.display().to_string();
        let line = ARGS.iter().copied().chain([path.as_str(), "--pod-info-dir", &path]).chain(more.iter().copied());
        let flags = flags(&Cli::try_parse_from(line).unwrap().args, environment)?;
        let text = std::fs::read(flags.config_path.as_ref().unwrap()).unwrap();
        let args = JsonArgs { direction: Direction::Encode, type_name: BOOTSTRAP.to_owned(), mask: None };
        let mut bytes = Vec::new();
        convert(&args, text.as_slice(), &mut bytes).unwrap();
        let written = proto::envoy::bootstrap::Bootstrap::decode(bytes.as_slice()).unwrap();
        Bootstrap::check(written, flags, environment.clone())
    }

    // spec: NI-1, NI-2, NI-4, PI-60, PI-61
    #[test]
    fn an_injected_pod_makes_a_proxy() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("labels"), "app=\"shop\"\nquoted=\"a\\\"b\\nc\"\n").unwrap();
        let loaded = load(directory.path(), &MORE, &environment("{}\n")).unwrap();
        assert_eq!(loaded.node.id, "sidecar~10.0.0.9~shop-1.ns~ns.svc.cluster.local");
        assert_eq!(loaded.node.cluster, "shop.ns");
        let node = crate::bootstrap::node_json(&loaded.node);
        let metadata = &node["metadata"];
        assert_eq!(metadata["LABELS"], json!({"app": "shop", "quoted": "a\"b\nc"}));
        assert_eq!((&metadata["CLUSTER_ID"], &metadata["SERVICE_ACCOUNT"]), (&json!("c1"), &json!("shop")));
        assert_eq!((loaded.concurrency.get(), loaded.drain_time.as_secs()), (3, 58));
        let flags = &loaded.flags;
        assert_eq!((flags.status_port, flags.ready_port, flags.metrics_port), (Some(15020), Some(15021), Some(15090)));
        assert_eq!(flags.state_dir.as_deref(), Some(directory.path()), "the certificate outlives the container");
    }

    // spec: MX-99, PI-61
    #[test]
    fn metrics_go_to_the_service_that_the_variable_names() {
        let directory = tempfile::tempdir().unwrap();
        let with = |variable: &str, more: Option<&Path>| {
            let pod =
                [("POD_NAME", "p"), ("POD_NAMESPACE", "ns"), ("INSTANCE_IP", "10.0.0.9"), (VARIABLE_METRICS, variable)];
            let environment = match more {
                None => Environment::from(pod),
                Some(path) => {
                    let [name, namespace, ip, metrics] = pod;
                    let own = ("ISTIO_BOOTSTRAP_OVERRIDE", path.to_str().unwrap());
                    Environment::from([name, namespace, ip, metrics, own])
                }
            };
            let flags = flags(
                &Cli::parse_from(["proxy", "--config-dir", directory.path().to_str().unwrap()]).args,
                &environment,
            );
            let text = std::fs::read_to_string(flags.unwrap().config_path.unwrap()).unwrap();
            let warning = reports_to(&environment).err().map(|error| error.to_string());
            (serde_json::from_str::<Value>(&text).unwrap(), warning)
        };
        let (written, warning) = with("http://mixer.mesh.svc.cluster.local:9091", None);
        let service = &written["stats_sinks"][0]["typed_config"]["grpc_service"]["envoy_grpc"];
        assert_eq!(service["cluster_name"], "outbound|9091||mixer.mesh.svc.cluster.local");
        assert_eq!((&written["stats_flush_interval"], warning), (&json!("1s"), None));
        for bad in [
            "mixer.mesh.svc:9091",
            "http://mixer.mesh.svc",
            "http://mixer:1",
            "https://a.b:1",
            "http://a.b:0",
            "http://a|b.c:1",
        ] {
            let (written, warning) = with(bad, None);
            assert!(written.get("stats_sinks").is_none(), "{bad}");
            assert!(warning.unwrap().starts_with("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT: \""), "{bad}");
        }
        assert!(with("", None).0.get("stats_sinks").is_none());
        let own = directory.path().join("own.json");
        std::fs::write(&own, r#"{"stats_sinks": []}"#).unwrap();
        assert!(with("http://mixer.mesh.svc.cluster.local:9091", Some(&own)).0.get("stats_sinks").is_none());
    }

    // spec: NI-2, AN-4
    #[test]
    fn proxy_config_wins_over_what_the_pod_says() {
        let directory = tempfile::tempdir().unwrap();
        let config = r#"{"concurrency": 1, "drainDuration": "7s", "statusPort": 16020, "proxyAdminPort": 16000,
            "discoveryAddress": "istiod-canary.mesh.svc:15012"}"#;
        let loaded = load(directory.path(), &[], &environment(config)).unwrap();
        assert_eq!((loaded.concurrency.get(), loaded.drain_time.as_secs()), (1, 7));
        assert_eq!(loaded.flags.status_port, Some(16020));
        let text = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert!(text.contains("istiod-canary.mesh.svc") && text.contains("16000"), "{text}");
        let error = load(directory.path(), &[], &environment("{")).unwrap_err().to_string();
        assert!(error.starts_with("PROXY_CONFIG: "), "{error}");
        let nobody = Environment::from([("POD_NAME", "p")]);
        let error = load(directory.path(), &[], &nobody).unwrap_err().to_string();
        assert_eq!(error, "POD_NAMESPACE: this variable is needed: injection sets it from the pod");
    }

    // spec: AN-2, AN-3
    #[test]
    fn annotations_of_the_pod_win_over_proxy_config() {
        let directory = tempfile::tempdir().unwrap();
        let config = r#"{"statusPort": 16020, "discoveryAddress": "istiod-canary.mesh.svc:15012"}"#;
        let with = |annotations: &str| {
            std::fs::write(directory.path().join("annotations"), annotations).unwrap();
            let status_port = load(directory.path(), &[], &environment(config))?.flags.status_port;
            let text = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
            let written: Value = serde_json::from_str(&text).unwrap();
            let pilot = &written["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]["sni"];
            let in_force = &written["node"]["metadata"]["PROXY_CONFIG"];
            Ok::<_, BootstrapError>((status_port, pilot.clone(), in_force.clone()))
        };
        let annotations = "status.sidecar.istio.io/port=\"17020\"\n\
            sidecar.istio.io/discoveryAddress=\"istiod-red.mesh.svc:15012\"\n";
        let in_force = json!({"statusPort": 17020, "discoveryAddress": "istiod-red.mesh.svc:15012"});
        assert_eq!(with(annotations).unwrap(), (Some(17020), json!("istiod-red.mesh.svc"), in_force));
        let (status_port, pilot, in_force) = with("status.sidecar.istio.io/port=\"0\"\n").unwrap();
        assert_eq!((status_port, pilot), (None, json!("istiod-canary.mesh.svc")));
        assert_eq!(in_force["statusPort"], 0);
        let error = with("status.sidecar.istio.io/port=\"x\"\n").unwrap_err().to_string();
        assert_eq!(error, "status.sidecar.istio.io/port: \"x\" is no port from 0 (none) to 65535");
    }

    // spec: PT-14, CA-19
    #[test]
    fn secrets_come_from_the_socket_that_the_variable_names() {
        let address = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/pipe/path";
        let path = |environment| secrets_cluster(&environment).pointer(address).cloned();
        assert_eq!(path(Environment::default()), Some(json!("/var/run/secrets/workload-spiffe-uds/socket")));
        let named = Environment::from([("WORKLOAD_IDENTITY_SOCKET_FILE", "spire.sock")]);
        assert_eq!(path(named), Some(json!("/var/run/secrets/workload-spiffe-uds/spire.sock")));
    }
}
