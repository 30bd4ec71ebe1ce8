//! `meshctl proxy-status`: which proxies pilot knows and how current they are, or whether one holds what pilot sends (spec CT-2).

use super::config::agreement::{Agreement, agreements};
use super::config::dump;
use crate::output::{self, Format, Table};
use crate::reach::{At, Part, Wanted};
use anyhow::Context;
use proto::type_url;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `meshctl proxy-status`.
///
/// With a name clusters, listeners, routes and endpoints that the proxy holds are compared with those that pilot sends it now;
/// exit code 1 where they do not match.
///
/// Examples:
///   meshctl proxy-status
///   meshctl proxy-status productpage-v1-5d4f-x.default
///   meshctl proxy-status deploy/productpage-v1 -o json
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct StatusArgs {
    /// Compare what the proxy of this pod or workload holds with what pilot sends it.
    proxy: Option<Wanted>,
    /// Address of pilot's debug pages; that of the mesh where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    pilot: Option<String>,
    #[command(flatten)]
    at: At,
    /// Only proxies of this namespace; that of a name without one.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Saved answer of /debug/syncz to read instead; with a name the proxy's saved /config_dump?include_eds.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A column per type instead of a summary.
    #[arg(short, long, conflicts_with = "proxy")]
    verbosity: bool,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Types in the order in which istioctl lists them.
const TYPES: &[&str] = &["CDS", "LDS", "EDS", "RDS", "ECDS"];

/// Shows the proxies that are connected to pilot, or compares what one holds.
///
/// # Errors
/// Where pilot or the proxy does not answer.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    if let Some(wanted) = &args.proxy {
        return compare(&args, wanted).await;
    }
    let mut values = fetch(&args).await?;
    values.retain(|value| {
        let name = Client::read(value).name;
        let inside = |space: &String| name.rsplit_once('.').is_some_and(|(_, own)| own == space);
        args.namespace.as_ref().is_none_or(inside)
    });
    let clients: Vec<Client> = values.iter().map(Client::read).collect();
    let table = if args.verbosity { verbose(&clients) } else { summary(&clients) };
    output::show(args.output, &table, &Value::Array(values))?;
    Ok(ExitCode::SUCCESS)
}

/// Compares what the proxy beside the first pod that is meant holds with what pilot sends it.
async fn compare(args: &StatusArgs, wanted: &Wanted) -> anyhow::Result<ExitCode> {
    let reach = args.at.reach().await;
    let pods = reach.pods(wanted, args.namespace.as_deref()).await?;
    let pod = pods.first().context("no pod")?;
    let path = format!("/debug/config_dump?types=cds,lds,rds,eds&proxyID={}", pod.id());
    // Of several pilots the one answers that the proxy is connected to.
    let pages = Part::Pilot.of_all(args.pilot.as_deref(), &reach, &path).await?;
    let (_, page) = pages.first().context("no pilot")?;
    let sent: Value =
        serde_json::from_slice(page).with_context(|| format!("what pilot gives for {path} is no JSON"))?;
    let held = match &args.file {
        Some(file) => serde_json::from_slice(&std::fs::read(file).with_context(|| unreadable(file))?)
            .with_context(|| format!("{} is no JSON", file.display()))?,
        None => dump(&reach, pod).await?,
    };
    verdict(&agreements(&sent, &held), args.output)
}

/// Shows what agrees and what does not.
fn verdict(found: &[Agreement], output: Format) -> anyhow::Result<ExitCode> {
    match output {
        Format::Table => found.iter().flat_map(Agreement::lines).try_for_each(|line| output::say(&line))?,
        _ => output::show(output, &Table::new(&[]), &serde_json::to_value(found)?)?,
    }
    Ok(if found.iter().all(Agreement::is_match) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn fetch(args: &StatusArgs) -> anyhow::Result<Vec<Value>> {
    match &args.file {
        Some(file) => read(&std::fs::read(file).with_context(|| unreadable(file))?),
        None => Part::Pilot.list(args.pilot.as_deref(), &args.at.reach().await, "/debug/syncz").await,
    }
}

fn unreadable(file: &Path) -> String {
    format!("cannot read {}", file.display())
}

fn read(bytes: &[u8]) -> anyhow::Result<Vec<Value>> {
    match serde_json::from_slice(bytes).context("what pilot gives for /debug/syncz is no JSON")? {
        Value::Array(clients) => Ok(clients),
        _ => anyhow::bail!("what pilot gives for /debug/syncz is no list of client configurations"),
    }
}

/// The version of a proxy, as pilot tells it.
pub(super) fn version_of(proxy: &Value) -> String {
    Client::read(proxy).version
}

/// What one line is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Client {
    name: String,
    cluster: String,
    pilot: String,
    version: String,
    /// Short type and status of everything the proxy subscribed to.
    types: Vec<(String, &'static str)>,
}

impl Client {
    /// Reads pilot's own lines (`cluster_id`, `proxy`, `resources` by type), or `ClientConfig` messages as istiod
    /// gives them.
    fn read(value: &Value) -> Self {
        let mut client = if value["proxy"].is_string() { Self::of_line(value) } else { Self::of_client_config(value) };
        client.types.sort_by_key(|(short, _)| TYPES.iter().position(|t| t == short).unwrap_or(TYPES.len()));
        client
    }

    fn of_line(line: &Value) -> Self {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let status = |progress: &Value| match (progress["sent"].as_str(), progress["acked"].as_str()) {
            _ if progress["lastError"].is_string() => "ERROR",
            (None | Some(""), _) => "NOT SENT",
            (sent, acked) if sent == acked => "SYNCED",
            _ => "STALE",
        };
        let types = line["resources"].as_object().into_iter().flatten();
        let pilot = if line["pilot"].is_string() { text("pilot") } else { "pilot".to_owned() };
        Self {
            name: text("proxy"),
            cluster: text("cluster_id"),
            pilot,
            version: text("istio_version"),
            types: types.map(|(short, progress)| (short.clone(), status(progress))).collect(),
        }
    }

    fn of_client_config(config: &Value) -> Self {
        let id = config["node"]["id"].as_str().unwrap_or_default();
        let metadata = |key: &str| config["node"]["metadata"][key].as_str().unwrap_or_default().to_owned();
        let scope = member(config, "client_scope", "clientScope").as_str().unwrap_or("istiod");
        let mut types: Vec<(String, &'static str)> = Vec::new();
        for one in member(config, "generic_xds_configs", "genericXdsConfigs").as_array().into_iter().flatten() {
            let short = type_url::short_name(member(one, "type_url", "typeUrl").as_str().unwrap_or_default());
            let status = if member(one, "error_state", "errorState").is_null() {
                match member(one, "config_status", "configStatus").as_str().unwrap_or_default() {
                    "STALE" => "STALE",
                    "NOT_SENT" => "NOT SENT",
                    "ERROR" => "ERROR",
                    _ => "SYNCED",
                }
            } else {
                "ERROR"
            };
            match types.iter_mut().find(|(name, _)| name == short) {
                Some(entry) if entry.1 == "SYNCED" => entry.1 = status, // the worst of a type is shown
                Some(_) => {}
                None => types.push((short.to_owned(), status)),
            }
        }
        Self {
            name: id.split('~').nth(2).unwrap_or(id).to_owned(),
            cluster: metadata("CLUSTER_ID"),
            pilot: scope.to_owned(),
            version: metadata("ISTIO_VERSION"),
            types,
        }
    }
}

/// A member by its proto name or its JSON name.
fn member<'a>(value: &'a Value, snake: &str, camel: &str) -> &'a Value {
    if value[snake].is_null() { &value[camel] } else { &value[snake] }
}

fn summary(clients: &[Client]) -> Table {
    let mut table = Table::new(&["NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"]);
    for client in clients {
        let types: Vec<&str> = client.types.iter().map(|(short, _)| short.as_str()).collect();
        let subscribed = format!("{} ({})", types.len(), types.join(","));
        table.row([&client.name, &client.cluster, &client.pilot, &client.version, &subscribed]);
    }
    table.sort();
    table
}

fn verbose(clients: &[Client]) -> Table {
    let heads: Vec<&str> = ["NAME", "CLUSTER"].iter().chain(TYPES).copied().chain(["ISTIOD", "VERSION"]).collect();
    let mut table = Table::new(&heads);
    for client in clients {
        let of =
            |kind: &&str| client.types.iter().find(|(short, _)| short == kind).map_or("IGNORED", |(_, status)| status);
        let mut row = vec![client.name.as_str(), &client.cluster];
        row.extend(TYPES.iter().map(of));
        row.extend([client.pilot.as_str(), &client.version]);
        table.row(row);
    }
    table.sort();
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn istiods() -> Value {
        let config = |url: &str, status: &str| json!({"type_url": url, "config_status": status});
        json!({
            "node": {"id": "sidecar~10.0.0.1~reviews-v1-0.default~x", "metadata": {"CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.0"}},
            "generic_xds_configs": [
                config(type_url::ROUTE, "STALE"), config(type_url::CLUSTER, "SYNCED"), config(type_url::LISTENER, "NOT_SENT"),
                {"typeUrl": type_url::ENDPOINT, "configStatus": "SYNCED", "errorState": {"details": "x"}},
            ],
        })
    }

    fn pilots() -> Value {
        json!({
            "cluster_id": "Kubernetes", "proxy": "productpage-v1-0.default", "istio_version": "0.1",
            "resources": {
                "CDS": {"sent": "a", "acked": "a"}, "LDS": {"sent": "b", "acked": "a"}, "NDS": {"sent": "", "acked": ""},
                "EDS": {"sent": "c", "acked": "b", "lastError": "bad"},
            },
        })
    }

    // spec: CT-2
    #[test]
    fn the_exit_code_tells_whether_a_proxy_holds_what_pilot_sends() {
        let cluster = json!({"name": "a", "type": "EDS"});
        let sent = json!({"CDS": [{"name": "a", "version": "1", "resource": cluster}]});
        let held = |clusters: Value| json!({"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "dynamic_active_clusters": clusters}]});
        let code = |held: &Value| verdict(&agreements(&sent, held), Format::Table).unwrap();
        assert_eq!(code(&held(json!([{"version_info": "1", "cluster": cluster}]))), ExitCode::SUCCESS);
        assert_eq!(code(&held(json!([]))), ExitCode::FAILURE);
    }

    // spec: CT-2
    #[test]
    fn columns_are_those_of_istioctl() {
        let clients = [Client::read(&istiods()), Client::read(&pilots())];
        let lines = summary(&clients).lines();
        let words =
            |line: &str| line.split("    ").map(str::trim).filter(|w| !w.is_empty()).collect::<Vec<_>>().join("|");
        assert_eq!(words(&lines[0]), "NAME|CLUSTER|ISTIOD|VERSION|SUBSCRIBED TYPES");
        assert_eq!(words(&lines[1]), "productpage-v1-0.default|Kubernetes|pilot|0.1|4 (CDS,LDS,EDS,NDS)");
        assert_eq!(words(&lines[2]), "reviews-v1-0.default|Kubernetes|istiod|1.0|4 (CDS,LDS,EDS,RDS)");
        let lines = verbose(&clients).lines();
        assert_eq!(
            words(&lines[1]),
            "productpage-v1-0.default|Kubernetes|SYNCED|STALE|ERROR|IGNORED|IGNORED|pilot|0.1"
        );
        assert_eq!(words(&lines[2]), "reviews-v1-0.default|Kubernetes|SYNCED|NOT SENT|ERROR|STALE|IGNORED|istiod|1.0");
    }
}
