//! `meshctl proxy-status`: which proxies pilot knows and how current they are (spec CT-2).

use crate::output::{self, Format, Table};
use crate::{admin, demo};
use anyhow::Context;
use proto::type_url;
use serde_json::Value;
use std::path::PathBuf;

/// `meshctl proxy-status`.
#[derive(Debug, Clone, clap::Args)]
pub struct StatusArgs {
    /// Show only proxies whose name contains this.
    proxy: Option<String>,
    /// Address of pilot's debug pages; the demo's where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    pilot: Option<String>,
    /// Demo to ask.
    #[arg(long, default_value = "demo", value_name = "NAME")]
    demo: String,
    /// Saved answer of /debug/syncz to read instead.
    #[arg(short, long, value_name = "FILE", conflicts_with = "pilot")]
    file: Option<PathBuf>,
    /// A column per type instead of a summary.
    #[arg(short, long)]
    verbosity: bool,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Types in the order in which istioctl lists them.
const TYPES: &[&str] = &["CDS", "LDS", "EDS", "RDS", "ECDS"];

/// Shows the proxies that are connected to pilot.
///
/// # Errors
/// Where pilot does not answer.
pub async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let clients = fetch(&args).await?;
    let wanted = |client: &&Value| args.proxy.as_ref().is_none_or(|part| name(client).contains(part.as_str()));
    let chosen: Vec<Value> = clients.iter().filter(wanted).cloned().collect();
    let table = if args.verbosity { verbose(&chosen) } else { summary(&chosen) };
    output::show(args.output, &table, &Value::Array(chosen))
}

async fn fetch(args: &StatusArgs) -> anyhow::Result<Vec<Value>> {
    const PATH: &str = "/debug/syncz";
    let bytes = match (&args.file, &args.pilot) {
        (Some(file), _) => std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?.into(),
        (None, Some(address)) => {
            let stream = tokio::net::TcpStream::connect(address).await;
            admin::get(stream.with_context(|| format!("no pilot answers at {address}"))?, PATH).await?
        }
        (None, None) => admin::get(demo::pilot_stream(&args.demo).await?, PATH).await?,
    };
    let answer: Value = serde_json::from_slice(&bytes).context("what pilot gives for /debug/syncz is no JSON")?;
    match answer {
        Value::Array(clients) => Ok(clients),
        _ => anyhow::bail!("what pilot gives for /debug/syncz is no list of client configurations"),
    }
}

/// A member by its proto name or its JSON name.
fn member<'a>(value: &'a Value, snake: &str, camel: &str) -> &'a Value {
    if value[snake].is_null() { &value[camel] } else { &value[snake] }
}

/// `<pod>.<namespace>`, the third part of a node id.
fn name(client: &Value) -> &str {
    let id = client["node"]["id"].as_str().unwrap_or_default();
    id.split('~').nth(2).unwrap_or(id)
}

fn metadata<'a>(client: &'a Value, key: &str) -> &'a str {
    client["node"]["metadata"][key].as_str().unwrap_or_default()
}

/// (short type, status, age) of everything the proxy subscribed to.
fn subscriptions(client: &Value) -> Vec<(&str, String)> {
    let configs = member(client, "generic_xds_configs", "genericXdsConfigs").as_array();
    let one = |config: &'_ Value| -> Option<(String, String)> {
        let url = member(config, "type_url", "typeUrl").as_str()?;
        Some((type_url::short_name(url).to_owned(), status(config)))
    };
    let mut found: Vec<(&str, String)> = Vec::new();
    for (short, status) in configs.into_iter().flatten().filter_map(one) {
        let Some(known) = type_url::TABLE.iter().map(|(_, s)| *s).find(|s| *s == short) else { continue };
        match found.iter_mut().find(|(name, _)| *name == known) {
            Some(entry) if entry.1 == "SYNCED" => entry.1 = status, // the worst of a type is shown
            Some(_) => {}
            None => found.push((known, status)),
        }
    }
    found.sort_by_key(|(short, _)| TYPES.iter().position(|t| t == short).unwrap_or(TYPES.len()));
    found
}

fn status(config: &Value) -> String {
    if !member(config, "error_state", "errorState").is_null() {
        return "ERROR".to_owned();
    }
    match member(config, "config_status", "configStatus").as_str().unwrap_or("SYNCED") {
        "NOT_SENT" => "NOT SENT".to_owned(),
        other => other.to_owned(),
    }
}

fn summary(clients: &[Value]) -> Table {
    let mut table = Table::new(&["NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"]);
    for client in clients {
        let types: Vec<&str> = subscriptions(client).into_iter().map(|(short, _)| short).collect();
        let subscribed = format!("{} ({})", types.len(), types.join(","));
        table.row([
            name(client),
            metadata(client, "CLUSTER_ID"),
            pilot_of(client),
            metadata(client, "ISTIO_VERSION"),
            &subscribed,
        ]);
    }
    table.sort();
    table
}

fn verbose(clients: &[Value]) -> Table {
    let heads: Vec<&str> = ["NAME", "CLUSTER"].iter().chain(TYPES).copied().chain(["ISTIOD", "VERSION"]).collect();
    let mut table = Table::new(&heads);
    for client in clients {
        let subscribed = subscriptions(client);
        let of = |kind: &&str| {
            let found = subscribed.iter().find(|(short, _)| short == kind);
            found.map_or_else(|| "IGNORED".to_owned(), |(_, status)| status.clone())
        };
        let mut row = vec![name(client).to_owned(), metadata(client, "CLUSTER_ID").to_owned()];
        row.extend(TYPES.iter().map(of));
        row.extend([pilot_of(client).to_owned(), metadata(client, "ISTIO_VERSION").to_owned()]);
        table.row(row);
    }
    table.sort();
    table
}

/// The instance that answered: istiod writes it into the control plane identifier.
fn pilot_of(client: &Value) -> &str {
    let scope = member(client, "client_scope", "clientScope").as_str();
    scope.or_else(|| client["node"]["metadata"]["ISTIOD"].as_str()).unwrap_or("pilot")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn client() -> Value {
        let config = |url: &str, status: &str| json!({"type_url": url, "config_status": status});
        json!({
            "node": {"id": "sidecar~10.0.0.1~reviews-v1-0.default~x", "metadata": {"CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.0"}},
            "generic_xds_configs": [
                config(type_url::ROUTE, "STALE"), config(type_url::CLUSTER, "SYNCED"), config(type_url::LISTENER, "NOT_SENT"),
                {"typeUrl": type_url::ENDPOINT, "configStatus": "SYNCED", "errorState": {"details": "x"}},
            ],
        })
    }

    // spec: CT-2
    #[test]
    fn columns_are_those_of_istioctl() {
        let lines = summary(&[client()]).lines();
        let words =
            |line: &str| line.split("    ").map(str::trim).filter(|w| !w.is_empty()).collect::<Vec<_>>().join("|");
        assert_eq!(words(&lines[0]), "NAME|CLUSTER|ISTIOD|VERSION|SUBSCRIBED TYPES");
        assert_eq!(words(&lines[1]), "reviews-v1-0.default|Kubernetes|pilot|1.0|4 (CDS,LDS,EDS,RDS)");
        let lines = verbose(&[client()]).lines();
        assert_eq!(words(&lines[1]), "reviews-v1-0.default|Kubernetes|SYNCED|NOT SENT|ERROR|STALE|IGNORED|pilot|1.0");
    }
}
