//! `meshctl stat`: golden figures of workloads, services and namespaces (CT-41).

use crate::output::{self, Format, Table};
use crate::reach::{At, Part};
use crate::stat::resource::Named;
use crate::stat::{Figures, Labels, Resource, Scrape, Window};
use anyhow::Context;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Shortest window: proxies report once a second.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest window that one waits for.
const LONGEST: Duration = Duration::from_secs(3600);

/// Which mixer is asked.
#[derive(Debug, Clone, clap::Args)]
pub struct Metrics {
    /// The mesh.
    #[command(flatten)]
    pub at: At,
    /// Address of mixer's metrics; that of the mesh where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    pub mixer: Option<String>,
}

/// `meshctl stat`.
///
/// mixer's counters are read twice; what they gained in between is shown. Workloads and namespaces are as their own
/// proxies saw the requests, services as the proxies of the clients did. Success is every answer but 5xx and gRPC
/// failures. TCP_CONN is what is open now.
///
/// Examples:
///   meshctl stat
///   meshctl stat svc/reviews --from productpage-v1 -t 10s
///   meshctl stat ns -o json
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct StatArgs {
    /// deploy, svc or ns; a name may follow, as svc/reviews.
    #[arg(default_value = "deploy", value_name = "KIND[/NAME]", value_parser = wanted)]
    resource: Wanted,
    /// Only requests from this workload: NAME or NAME.NAMESPACE.
    #[arg(long, value_name = "WORKLOAD")]
    from: Option<Named>,
    /// Only requests to this workload or service.
    #[arg(long, value_name = "NAME")]
    to: Option<Named>,
    /// Only this namespace; all where none is given.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Time between the two looks, 1s or longer.
    #[arg(short, long, default_value = "3s", value_parser = window)]
    time_window: Duration,
    #[command(flatten)]
    metrics: Metrics,
    /// Address of pilot's debug pages, for MESHED; that of the mesh where it is not given.
    #[arg(long, value_name = "HOST:PORT")]
    pilot: Option<String>,
    /// Bytes per second of TCP as well.
    #[arg(long)]
    wide: bool,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A kind, and a name where one is given.
#[derive(Debug, Clone)]
struct Wanted {
    kind: Resource,
    name: Option<Named>,
}

fn wanted(text: &str) -> Result<Wanted, String> {
    let (kind, name) = text.split_once('/').map_or((text, None), |(kind, name)| (kind, Some(name)));
    let kind = <Resource as clap::ValueEnum>::from_str(kind, true);
    let kind = kind.map_err(|_| format!("{text:?}: use deploy, svc or ns, with a name as svc/reviews"))?;
    let name = name.map(|name| name.parse().unwrap_or_else(|never: std::convert::Infallible| match never {}));
    Ok(Wanted { kind, name })
}

/// A window as `1s`, `500ms` (too short), `1m`.
///
/// # Errors
/// Where it is no duration, or outside of 1 s to 1 h.
pub(super) fn window(text: &str) -> Result<Duration, String> {
    let window = proto::duration::parse(text).map_err(|error| error.to_string())?;
    if window < SHORTEST || window > LONGEST {
        return Err("proxies report once a second: use 1s to 1h".to_owned());
    }
    Ok(window)
}

impl Metrics {
    /// One look at mixer.
    ///
    /// # Errors
    /// Where mixer does not answer.
    pub(super) async fn scrape(&self) -> anyhow::Result<Scrape> {
        let bytes = Part::MixerMetrics.get(self.mixer.as_deref(), &self.at.reach().await, "/metrics").await?;
        Ok(Scrape::parse(std::str::from_utf8(&bytes).context("what mixer gives for /metrics is no UTF-8")?))
    }

    /// Two looks.
    ///
    /// # Errors
    /// Where mixer does not answer.
    pub(super) async fn window(&self, length: Duration) -> anyhow::Result<Window> {
        let (before, at) = (self.scrape().await?, Instant::now());
        tokio::time::sleep_until(at + length).await;
        let now = self.scrape().await?;
        Ok(Window::between(&before, now, at.elapsed()))
    }
}

/// Shows the figures.
///
/// # Errors
/// Where mixer does not answer.
pub async fn run(args: StatArgs) -> anyhow::Result<()> {
    let meshed = Meshed::ask(&args).await;
    let window = args.metrics.window(args.time_window).await?;
    let group = |labels: &Labels| {
        let kept = args.from.as_ref().is_none_or(|from| from.sends(labels))
            && args.to.as_ref().is_none_or(|to| to.receives(labels));
        args.resource.kind.group(labels).filter(|_| kept)
    };
    let mut rows = Figures::by(&window, args.resource.kind, group);
    if args.from.is_none() && args.to.is_none() {
        // What has had no request stands there as well.
        for key in meshed.0.keys() {
            rows.entry(key.clone()).or_default();
        }
    }
    rows.retain(|(namespace, name), _| {
        let own = if args.resource.kind == Resource::Ns { name } else { namespace };
        args.namespace.as_ref().is_none_or(|wanted| wanted == own)
            && args.resource.name.as_ref().is_none_or(|wanted| wanted.is(name, namespace))
    });
    let mut table = Table::new(&heads(args.wide));
    let mut values = Vec::new();
    for ((namespace, name), figures) in &rows {
        let meshed = meshed.0.get(&(namespace.clone(), name.clone()));
        table.row(cells((namespace, name), meshed, figures, args.wide));
        let mut value = serde_json::to_value(figures)?;
        value["namespace"] = json!(namespace);
        value["name"] = json!(name);
        value["meshed"] = meshed.map_or(Value::Null, |(with, all)| json!({"proxies": with, "pods": all}));
        values.push(value);
    }
    if rows.is_empty() {
        output::note("nothing fits: no request was counted, and pilot knows no such workload");
    }
    output::show(args.output, &table, &Value::Array(values))
}

fn heads(wide: bool) -> Vec<&'static str> {
    let mut heads = vec![
        "NAMESPACE",
        "NAME",
        "MESHED",
        "SUCCESS",
        "RPS",
        "LATENCY_P50",
        "LATENCY_P95",
        "LATENCY_P99",
        "TCP_CONN",
        "MTLS",
    ];
    if wide {
        heads.extend(["READ_BYTES/SEC", "WRITE_BYTES/SEC"]);
    }
    heads
}

fn cells(
    (namespace, name): (&str, &str),
    meshed: Option<&(usize, usize)>,
    figures: &Figures,
    wide: bool,
) -> Vec<String> {
    let mut cells = vec![
        if namespace.is_empty() { "-".to_owned() } else { namespace.to_owned() },
        name.to_owned(),
        meshed.map_or_else(|| "-".to_owned(), |(with, all)| format!("{with}/{all}")),
    ];
    cells.extend(golden(figures));
    cells.push(figures.tcp_connections.map_or_else(|| "-".to_owned(), |open| format!("{open:.0}")));
    cells.push(percent(figures.mtls));
    if wide {
        cells.extend([format!("{:.1}B/s", figures.read_bytes), format!("{:.1}B/s", figures.write_bytes)]);
    }
    cells
}

/// Success, rate and latencies in linkerd's form.
pub(super) fn golden(figures: &Figures) -> [String; 5] {
    let latency = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(ms) if ms < 10.0 => format!("{ms:.1}ms"),
        Some(ms) => format!("{ms:.0}ms"),
    };
    [
        percent(figures.success),
        format!("{:.1}rps", figures.rps),
        latency(figures.p50_ms),
        latency(figures.p95_ms),
        latency(figures.p99_ms),
    ]
}

/// A share as percent.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.2}%", share * 100.0))
}

/// Pods and how many of them have a connected proxy, per group.
struct Meshed(BTreeMap<(String, String), (usize, usize)>);

impl Meshed {
    /// Asks pilot; where it does not answer nothing is known.
    async fn ask(args: &StatArgs) -> Self {
        let (pilot, reach) = (args.pilot.as_deref(), args.metrics.at.reach().await);
        let workloads = Part::Pilot.json(pilot, &reach, "/debug/workloadz").await;
        match (workloads, Part::Pilot.list(pilot, &reach, "/debug/syncz").await) {
            (Ok(workloads), Ok(proxies)) => Self::of(args.resource.kind, &workloads, &Value::Array(proxies)),
            (Err(error), _) | (_, Err(error)) => {
                output::note(&format!("MESHED is not known: {error:#}"));
                Self(BTreeMap::new())
            }
        }
    }

    fn of(kind: Resource, workloads: &Value, proxies: &Value) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let connected: BTreeSet<String> = list(proxies).iter().map(|proxy| text(&proxy["proxy"])).collect();
        let mut counts: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
        for pod in list(workloads) {
            let (namespace, name) = (text(&pod["namespace"]), text(&pod["name"]));
            let groups: Vec<(String, String)> = match kind {
                Resource::Deploy => vec![(namespace.clone(), text(&pod["workload"]))],
                Resource::Ns => vec![(String::new(), namespace.clone())],
                Resource::Svc => list(&pod["services"]).iter().filter_map(service).collect(),
            };
            let with = usize::from(connected.contains(&format!("{name}.{namespace}")));
            for group in groups {
                let count = counts.entry(group).or_default();
                *count = (count.0 + with, count.1 + 1);
            }
        }
        Self(counts)
    }
}

/// Namespace and name of `reviews.default.svc.cluster.local`.
fn service(host: &Value) -> Option<(String, String)> {
    let mut parts = host.as_str()?.split('.');
    let (name, namespace) = (parts.next()?, parts.next()?);
    Some((namespace.to_owned(), name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CT-41
    #[test]
    fn meshed_counts_pods_with_a_connected_proxy() {
        let workloads = json!([
            {"name": "a-1", "namespace": "n", "workload": "a", "services": ["s.n.svc.cluster.local"]},
            {"name": "a-2", "namespace": "n", "workload": "a", "services": ["s.n.svc.cluster.local"]},
        ]);
        let proxies = json!([{"proxy": "a-1.n"}]);
        let of = |kind, key: (&str, &str)| {
            Meshed::of(kind, &workloads, &proxies).0.get(&(key.0.to_owned(), key.1.to_owned())).copied()
        };
        assert_eq!(of(Resource::Deploy, ("n", "a")), Some((1, 2)));
        assert_eq!(of(Resource::Svc, ("n", "s")), Some((1, 2)));
        assert_eq!(of(Resource::Ns, ("", "n")), Some((1, 2)));
    }

    #[test]
    fn what_is_wanted_has_a_kind_and_may_have_a_name() {
        assert!(wanted("svc/reviews").is_ok_and(|wanted| wanted.kind == Resource::Svc && wanted.name.is_some()));
        assert!(wanted("deployment").is_ok_and(|wanted| wanted.kind == Resource::Deploy && wanted.name.is_none()));
        assert!(wanted("job/x").is_err_and(|error| error.contains("use deploy, svc or ns")));
        assert!(window("100ms").is_err() && window("1m").is_ok());
    }

    #[test]
    fn figures_look_like_linkerds() {
        let figures =
            Figures { rps: 12.34, success: Some(0.995), p50_ms: Some(1.25), p99_ms: Some(120.4), ..Figures::default() };
        assert_eq!(golden(&figures), ["99.50%", "12.3rps", "1.2ms", "-", "120ms"]);
    }
}
