//! `meshctl proxy-config`: what a proxy has been told, in istioctl's columns (spec CT-3…CT-8).
//!
//! Each kind is a pure function from a dump to rows. Both spellings of protobuf JSON are read: Envoy writes
//! `snake_case`, saved files may hold `camelCase`.

pub mod agreement;
pub mod authz;
mod bootstrap;
mod cluster;
mod endpoint;
mod extension;
mod listener;
mod root;
mod route;
mod secret;

use super::log;
use crate::admin::{self, Target};
use crate::output::{self, Format, Table};
use crate::reach::{Pod, Reach};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use std::process::ExitCode;
use std::time::SystemTime;

/// `meshctl proxy-config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    kind: Kind,
}

/// Which proxy, and how to show it.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    target: Target,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The workload's certificate in a dump: chains, each leaf first.
pub fn chains(dump: &Value) -> Vec<Vec<CertificateDer<'static>>> {
    secret::chains(dump)
}

/// All that the proxy beside a pod holds, endpoints as well.
///
/// # Errors
/// Where the proxy does not answer.
pub async fn dump(reach: &Reach, pod: &Pod) -> anyhow::Result<Value> {
    let page = admin::get(reach.proxy(pod).await?, DUMP_WITH_EDS).await.with_context(|| pod.id())?;
    serde_json::from_slice(&page).with_context(|| format!("what {} gives for {DUMP_WITH_EDS} is no JSON", pod.id()))
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Clusters.
    #[command(visible_alias = "c", alias = "clusters")]
    Cluster {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        filter: cluster::Filter,
    },
    /// Listeners and their filter chains.
    #[command(visible_alias = "l", alias = "listeners")]
    Listener {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        filter: listener::Filter,
    },
    /// Routes.
    #[command(visible_alias = "r", alias = "routes")]
    Route {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        filter: route::Filter,
    },
    /// Endpoints with their health.
    #[command(visible_alias = "ep", alias = "endpoints")]
    Endpoint {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        filter: endpoint::Filter,
    },
    /// Endpoints as pilot sent them.
    Eds {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        filter: endpoint::Filter,
    },
    /// Certificates and roots.
    #[command(visible_alias = "s", alias = "secrets")]
    Secret {
        #[command(flatten)]
        common: Common,
    },
    /// Extensions that were sent by themselves.
    #[command(visible_alias = "ec")]
    Ecds {
        #[command(flatten)]
        common: Common,
    },
    /// What it was started with.
    #[command(visible_alias = "b")]
    Bootstrap {
        #[command(flatten)]
        target: Target,
        /// How to show the result.
        #[arg(short, long, value_enum, default_value = "json")]
        output: Format,
    },
    /// Clusters, listeners, routes, endpoints, secrets and extensions; as JSON and YAML all of the dump.
    #[command(visible_alias = "a")]
    All {
        #[command(flatten)]
        common: Common,
    },
    /// Log levels, read and changed: as meshctl log.
    #[command(visible_alias = "o")]
    Log(Box<log::LogArgs>),
    /// Tell whether two proxies trust a common root; exit code 1 where they do not.
    #[command(visible_alias = "rc")]
    RootcaCompare(Box<root::RootArgs>),
}

/// Rows, and the values behind them.
type Shown = (Table, Vec<Value>);

const DUMP: &str = "/config_dump";
const DUMP_WITH_EDS: &str = "/config_dump?include_eds";
const CLUSTERS: &str = "/clusters?format=json";

/// Shows one kind of configuration, or all.
///
/// # Errors
/// Where the proxy does not answer.
pub async fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let (common, (table, values)) = match args.kind {
        Kind::Cluster { common, filter } => {
            let shown = cluster::show(&common.target.json(DUMP).await?, &filter);
            (common, shown)
        }
        Kind::Listener { common, filter } => {
            let shown = listener::show(&common.target.json(DUMP).await?, &filter);
            (common, shown)
        }
        Kind::Route { common, filter } => {
            let shown = route::show(&common.target.json(DUMP).await?, &filter);
            (common, shown)
        }
        Kind::Endpoint { common, filter } => {
            let shown = endpoint::show(&common.target.json(CLUSTERS).await?, &filter);
            (common, shown)
        }
        Kind::Eds { common, filter } => {
            let shown = endpoint::show_eds(&common.target.json(DUMP_WITH_EDS).await?, &filter);
            (common, shown)
        }
        Kind::Secret { common } => {
            let shown = secret::show(&common.target.json(DUMP).await?, SystemTime::now());
            (common, shown)
        }
        Kind::Ecds { common } => {
            let shown = extension::show(&common.target.json(DUMP).await?);
            if shown.1.is_empty() {
                output::note("the proxy was sent no extension by itself: filters stand in its listeners");
            }
            (common, shown)
        }
        Kind::Bootstrap { target, output } => {
            let (table, value) = bootstrap::show(&target.json(DUMP).await?);
            output::show(output, &table, &value)?;
            return Ok(ExitCode::SUCCESS);
        }
        Kind::All { common } => {
            all(&common.target.json(DUMP_WITH_EDS).await?, common.output)?;
            return Ok(ExitCode::SUCCESS);
        }
        Kind::Log(args) => return log::run(*args).await.map(|()| ExitCode::SUCCESS),
        Kind::RootcaCompare(args) => return root::compare(&args).await,
    };
    output::show(common.output, &table, &Value::Array(values))?;
    Ok(ExitCode::SUCCESS)
}

/// A table for each kind of which there is something, or the dump itself.
fn all(dump: &Value, output: Format) -> anyhow::Result<()> {
    if output != Format::Table {
        return output::show(output, &Table::new(&[]), dump);
    }
    for (nth, (table, values)) in tables(dump, SystemTime::now()).iter().enumerate() {
        if nth > 0 {
            output::say("")?;
        }
        output::show(output, table, values)?;
    }
    Ok(())
}

/// Each kind of which there is something, with its values.
fn tables(dump: &Value, now: SystemTime) -> Vec<(Table, Value)> {
    let every_listener = listener::Filter { address: None, port: None, kind: None, verbose: true };
    let kinds = [
        cluster::show(dump, &cluster::Filter::default()),
        listener::show(dump, &every_listener),
        route::show(dump, &route::Filter::default()),
        endpoint::show_eds(dump, &endpoint::Filter::default()),
        secret::show(dump, now),
        extension::show(dump),
    ];
    let there = kinds.into_iter().filter(|(_, values)| !values.is_empty());
    there.map(|(table, values)| (table, Value::Array(values))).collect()
}

/// A member by its proto name, or by its JSON name.
fn member<'a>(value: &'a Value, name: &str) -> &'a Value {
    if !value[name].is_null() {
        return &value[name];
    }
    let mut camel = String::with_capacity(name.len());
    for (index, word) in name.split('_').enumerate() {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if index > 0 => camel.extend(first.to_uppercase()),
            Some(first) => camel.push(first),
            None => {}
        }
        camel.push_str(letters.as_str());
    }
    &value[camel.as_str()]
}

/// A member of a member.
fn path<'a>(value: &'a Value, names: &[&str]) -> &'a Value {
    names.iter().fold(value, |value, name| member(value, name))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    member(value, name).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The part of a dump that holds one kind, such as `ClustersConfigDump`.
fn sections<'a>(dump: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    items(dump, "configs").iter().filter(move |config| text(&config["@type"]).rsplit('.').next() == Some(kind))
}

/// `address:port` parts of a socket address; the path of a pipe.
fn address_of(address: &Value) -> (String, Option<u64>) {
    let socket = member(address, "socket_address");
    if socket.is_null() {
        return (format!("unix://{}", text(path(address, &["pipe", "path"]))), None);
    }
    (text(&socket["address"]).to_owned(), member(socket, "port_value").as_u64())
}

/// `<name>.<namespace>` of the Istio object that a resource came from, if it is of this kind.
fn origin(resource: &Value, kind: &str) -> Option<String> {
    let config = text(path(resource, &["metadata", "filter_metadata", "istio", "config"]));
    // /apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews
    let parts: Vec<&str> = config.split('/').collect();
    match parts.as_slice() {
        [.., "namespaces", namespace, found, name] if *found == kind => Some(format!("{name}.{namespace}")),
        _ => None,
    }
}

/// The four parts of a name like `outbound|9080|v1|reviews.default.svc.cluster.local`.
fn parts(name: &str) -> Option<[&str; 4]> {
    let mut parts = name.split('|');
    let found = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
fn words(line: &str) -> String {
    line.split("    ").map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        config: ConfigArgs,
    }

    // spec: CT-8
    #[test]
    fn kinds_have_istioctls_names() {
        use clap::Parser as _;
        let kind = |words: &[&str]| {
            let kind = Flags::parse_from(std::iter::once(&"x").chain(words)).config.kind;
            format!("{kind:?}").split([' ', '(']).next().unwrap_or_default().to_owned()
        };
        for (names, expected) in [
            (["bootstrap", "b"], "Bootstrap"),
            (["all", "a"], "All"),
            (["log", "o"], "Log"),
            (["ecds", "ec"], "Ecds"),
            (["cluster", "c"], "Cluster"),
            (["endpoints", "ep"], "Endpoint"),
        ] {
            names.iter().for_each(|name| assert_eq!(kind(&[*name, "reviews-v1-0.default"]), expected, "{name}"));
        }
        assert_eq!(kind(&["log", "a.b", "--level", "http:debug"]), "Log");
        assert_eq!(kind(&["rootca-compare", "a.b", "c.d"]), "RootcaCompare");
        assert_eq!(kind(&["rc", "a.b", "pod/c.d"]), "RootcaCompare");
    }

    // spec: CT-8
    #[test]
    fn all_shows_a_table_for_each_kind_of_which_there_is_something() {
        let section = |name: &str, list: &str, entry: Value| json!({"@type": format!("type.googleapis.com/envoy.admin.v3.{name}"), list: [entry]});
        let endpoint = json!({"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 1}}}});
        let dump = json!({"configs": [
            section("EndpointsConfigDump", "dynamic_endpoint_configs", json!({"endpoint_config": {"cluster_name": "c", "endpoints": [{"lb_endpoints": [endpoint]}]}})),
            section("ClustersConfigDump", "static_clusters", json!({"cluster": {"name": "xds-grpc"}})),
            section("RoutesConfigDump", "dynamic_route_configs", json!({"route_config": {"name": "80", "virtual_hosts": []}})),
        ]});
        let heads: Vec<String> =
            tables(&dump, SystemTime::now()).iter().map(|(table, _)| words(&table.lines()[0])).collect();
        assert_eq!(
            heads,
            [
                "SERVICE FQDN|PORT|SUBSET|DIRECTION|TYPE|DESTINATION RULE",
                "NAME|VHOST NAME|DOMAINS|MATCH|VIRTUAL SERVICE",
                "NAME|STATUS|LOCALITY|CLUSTER",
            ]
        );
    }

    #[test]
    fn both_spellings_are_read() {
        assert_eq!(member(&json!({"socketAddress": 1}), "socket_address"), 1);
        assert_eq!(member(&json!({"socket_address": 2}), "socket_address"), 2);
    }

    #[test]
    fn an_origin_is_read_for_its_kind_only() {
        let config = "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews";
        let route = json!({"metadata": {"filter_metadata": {"istio": {"config": config}}}});
        assert_eq!(origin(&route, "virtual-service").as_deref(), Some("reviews.default"));
        assert_eq!(origin(&route, "destination-rule"), None);
    }
}
