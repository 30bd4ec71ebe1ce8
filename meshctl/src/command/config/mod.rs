//! `meshctl proxy-config`: what a proxy has been told, in istioctl's columns (spec CT-3…CT-7).
//!
//! Each kind is a pure function from a dump to rows. Both spellings of protobuf JSON are read: Envoy writes
//! `snake_case`, saved files may hold `camelCase`.

pub mod authz;
mod cluster;
mod endpoint;
mod listener;
mod route;
mod secret;

use crate::admin::Target;
use crate::output::{self, Format, Table};
use clap::{Args, Subcommand};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

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

/// The certificates in a dump that the proxy shows to others: chains, each leaf first.
pub fn chains(dump: &Value) -> Vec<Vec<CertificateDer<'static>>> {
    secret::chains(dump)
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
}

/// Rows, and the values behind them.
type Shown = (Table, Vec<Value>);

const DUMP: &str = "/config_dump";
const DUMP_WITH_EDS: &str = "/config_dump?include_eds";
const CLUSTERS: &str = "/clusters?format=json";

/// Shows one kind of configuration.
///
/// # Errors
/// Where the proxy does not answer.
pub async fn run(args: ConfigArgs) -> anyhow::Result<()> {
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
            let shown = secret::show(&common.target.json(DUMP).await?, std::time::SystemTime::now());
            (common, shown)
        }
    };
    output::show(common.output, &table, &Value::Array(values))
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
