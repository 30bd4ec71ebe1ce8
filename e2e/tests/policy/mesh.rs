//! A mixer in this process, and proxies that ask it.

use clap::Parser;
use e2e::app::Echo;
use e2e::client::{Answer, exchange};
use e2e::proxies::{Flavour, Proxy, free_address};
use mixer::args::ServeArgs;
use mixer::server::{Running, Server};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ServeArgs,
}

/// A mixer with these rules and limits, in this process.
pub(crate) struct Mixer {
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
    directory: tempfile::TempDir,
}

impl Mixer {
    pub(crate) fn start(rules: &str, limits: &str, pilot: Option<SocketAddr>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let folder = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("a.yaml"), text).unwrap();
            path.display().to_string()
        };
        let mut line = vec!["mixer".to_owned()];
        line.extend(["otlp-grpc-addr", "otlp-http-addr", "zipkin-addr"].map(|name| format!("--{name}=")));
        let on = ["grpc-addr", "http-addr", "ext-authz-http-addr", "monitoring-addr"];
        line.extend(on.map(|name| format!("--{name}=127.0.0.1:0")));
        line.push("--ext-authz-http-prefix=/check".to_owned());
        line.push("--ratelimit-response-headers".to_owned());
        line.push(format!("--config-dir={}", folder("rules", rules)));
        line.push(format!("--ratelimit-config={}", folder("limits", limits)));
        line.extend(pilot.map(|pilot| format!("--pilot=http://{pilot}")));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let running = runtime.block_on(Server::new(Cli::parse_from(line).args, None).start()).unwrap();
        Self { running: Some(running), runtime, directory }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Other rules.
    pub(crate) fn change(&self, rules: &str) {
        let path: &Path = self.directory.path();
        std::fs::write(path.join("rules/a.yaml"), rules).unwrap();
    }

    /// The value of a metric of mixer's own.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = get(self.running().monitoring.unwrap(), "/metrics", "").body;
        let line = text.lines().find(|line| line.starts_with(name)).map_or("0", |line| line);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Mixer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop(Duration::from_millis(100)));
        }
    }
}

fn cluster(name: &str, address: SocketAddr, http2: bool) -> Value {
    let socket = json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket}}]}]},
    });
    if http2 {
        cluster["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }});
    }
    cluster
}

/// Which proxy, at which address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) flavour: Flavour,
    pub(crate) address: Ipv4Addr,
}

impl Place {
    pub(crate) fn here(flavour: Flavour) -> Self {
        Self { flavour, address: Ipv4Addr::LOCALHOST }
    }
}

/// A proxy with one filter before the router.
pub(crate) fn proxy(place: Place, mixer: &Mixer, filter: (&str, Value), route: &Value) -> (Proxy, SocketAddr) {
    let echo = Echo::start("app").unwrap();
    let listen = SocketAddr::new(place.address.into(), free_address().unwrap().port());
    let running = mixer.running();
    let mut action = json!({"cluster": "app"});
    if route.is_object() {
        action["rate_limits"] = json!([route]);
    }
    let router = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "a",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": action}]}]},
        "http_filters": [
            {"name": filter.0, "typed_config": filter.1},
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
    });
    let clusters = [
        cluster("app", echo.address, false),
        cluster("mixer", running.grpc.unwrap(), true),
        cluster("mixer-http", running.ext_authz_http.unwrap(), false),
    ];
    let mut bootstrap = json!({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [{
                "name": "l",
                "address": {"socket_address": {"address": place.address.to_string(), "port_value": listen.port()}},
                "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
            }],
            "clusters": clusters,
        },
    });
    bootstrap["stats_flush_interval"] = json!("1s");
    bootstrap["stats_sinks"] = json!([{"name": "envoy.stat_sinks.open_telemetry", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig",
        "grpc_service": grpc_service(),
    }}]);
    (Proxy::start(place.flavour, |_| bootstrap).unwrap(), listen)
}

pub(crate) fn grpc_service() -> Value {
    json!({"envoy_grpc": {"cluster_name": "mixer"}, "timeout": "2s"})
}

pub(crate) fn get(address: SocketAddr, path: &str, headers: &str) -> Answer {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: app\r\nconnection: close\r\n{headers}\r\n")).unwrap()
}

/// What the upstream received under a name.
pub(crate) fn received(answer: &Answer, name: &str) -> Option<String> {
    let seen: Value = serde_json::from_str(&answer.body).unwrap();
    let pair = seen["headers"].as_array()?.iter().find(|pair| pair[0] == name)?;
    Some(pair[1].as_str()?.to_owned())
}
