//! `meshctl top`: the busiest pairs of workload and service, or the busiest paths of one of them, live (CT-42).

use super::stat::{Metrics, golden, percent, window};
use super::tap::Proxies;
use crate::output::{self, Format, Table};
use crate::reach::Wanted;
use crate::stat::resource::Named;
use crate::stat::{Figures, Labels, Resource, Window};
use crate::tap::Filter;
use crate::tap::filter::More;
use crate::tap::tally::{Row, Tally};
use crate::tap::text::millis;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

/// `meshctl top`.
///
/// Without a name: a line per pair of workload that asks and service that is asked, by mixer's figures. With one: a line
/// per source, destination, method and path of the requests that its proxies show (as meshctl tap does), added up since
/// the command began. The busiest stand first.
///
/// On a terminal it is shown anew each interval until Ctrl-C; otherwise, and with -o json or yaml, once.
///
/// Examples:
///   meshctl top
///   meshctl top deploy/productpage-v1 --method GET --hide-sources
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct TopArgs {
    /// Whose paths: NAME, deploy/NAME, svc/NAME, ns/NAME or pod/NAME; .NAMESPACE may follow.
    target: Option<Wanted>,
    #[command(flatten)]
    filter: Filter,
    /// Add up all who ask.
    #[arg(long)]
    hide_sources: bool,
    /// Time between two looks, 1s or longer.
    #[arg(short, long, default_value = "2s", value_parser = window)]
    time_window: Duration,
    /// Most lines that are shown.
    #[arg(long, default_value_t = 30, value_name = "LINES")]
    rows: usize,
    /// Show it once, on a terminal too.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    metrics: Metrics,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Shows the busiest pairs.
///
/// # Errors
/// Where mixer does not answer, or no proxy can be tapped.
pub async fn run(args: TopArgs) -> anyhow::Result<()> {
    let live = args.output == Format::Table && !args.once && std::io::stdout().is_terminal();
    if let Some(target) = &args.target {
        return Box::pin(paths(&args, target, live)).await;
    }
    let filter = &args.filter;
    let labels_say =
        [&filter.method, &filter.path, &filter.authority, &filter.status].iter().all(|list| list.is_empty());
    anyhow::ensure!(
        labels_say && filter.scheme.is_none(),
        "name a workload or service: methods, paths and hosts are no labels of Istio's metrics, proxies show them"
    );
    let (mut before, mut at) = (args.metrics.scrape().await?, Instant::now());
    loop {
        tokio::time::sleep_until(at + args.time_window).await;
        let (now, then) = (args.metrics.scrape().await?, Instant::now());
        let window = Window::between(&before, now.clone(), then - at);
        let (table, values) = table(&args, &window);
        if live {
            // Home, and everything below it is cleared: the screen does not flicker.
            output::show_now("\x1b[H\x1b[J")?;
        }
        output::show(args.output, &table, &values)?;
        if !live {
            return Ok(());
        }
        (before, at) = (now, then);
    }
}

/// Shows what requests add up to, as proxies show them.
async fn paths(args: &TopArgs, target: &Wanted, live: bool) -> anyhow::Result<()> {
    let proxies = Proxies { at: args.metrics.at.clone(), namespace: None, admin: Vec::new() };
    let mut stream = proxies.tap(Some(target), &args.filter, &More::default()).await?;
    let mut tally = Tally::default();
    let mut shown_at = Instant::now() + args.time_window;
    loop {
        tokio::select! {
            next = stream.next() => match next {
                Some((_, _, request)) if stream.shows_server_of(&request) => {}
                Some((_, _, request)) => tally.add(&request, args.hide_sources),
                None => anyhow::bail!("all proxies have ended: {}", stream.ended().join(", ")),
            },
            () = tokio::time::sleep_until(shown_at) => {
                shown_at += args.time_window;
                if live {
                    output::show_now("\x1b[H\x1b[J")?;
                }
                let mut rows = tally.rows();
                rows.truncate(args.rows);
                output::show(args.output, &path_table(&rows), &serde_json::to_value(&rows)?)?;
                let (over_cap, slow) = stream.left_out();
                if over_cap + slow > 0 {
                    output::note(&format!("left out: {} requests (--max-rps {})", over_cap + slow, args.filter.max_rps));
                }
                if !live {
                    return Ok(());
                }
            }
        }
    }
}

fn path_table(rows: &[Row]) -> Table {
    let mut table =
        Table::new(&["SOURCE", "DESTINATION", "METHOD", "PATH", "COUNT", "BEST", "WORST", "LAST", "SUCCESS"]);
    for row in rows {
        let names = [&row.source, &row.destination, &row.method, &row.path].map(Clone::clone);
        let times = [row.best_ms, row.worst_ms, row.last_ms].map(|ms| millis(Some(ms)));
        let figures = std::iter::once(row.count.to_string()).chain(times).chain([percent(Some(row.success))]);
        table.row(names.into_iter().chain(figures));
    }
    table
}

fn table(args: &TopArgs, window: &Window) -> (Table, Value) {
    // Parsing a name cannot fail.
    let named = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<Named>().ok());
    let (from, to) = (named(&args.filter.from), named(&args.filter.to));
    let group = |labels: &Labels| {
        let kept =
            from.as_ref().is_none_or(|from| from.sends(labels)) && to.as_ref().is_none_or(|to| to.receives(labels));
        let (namespace, name) = Resource::Svc.group(labels).filter(|_| kept)?;
        let source = match labels.get("source_workload") {
            _ if args.hide_sources => "*",
            "" => "outside",
            source => source,
        };
        Some((source.to_owned(), format!("{name}.{namespace}")))
    };
    let mut rows: Vec<((String, String), Figures)> = Figures::by(window, Resource::Svc, group).into_iter().collect();
    rows.retain(|(_, figures)| figures.rps > 0.0);
    rows.sort_by(|(_, a), (_, b)| b.rps.total_cmp(&a.rps));
    rows.truncate(args.rows);
    let mut table =
        Table::new(&["SOURCE", "DESTINATION", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "MTLS"]);
    let mut values = Vec::new();
    for ((source, destination), figures) in rows {
        let ends = [source.clone(), destination.clone()];
        table.row(ends.into_iter().chain(golden(&figures)).chain([percent(figures.mtls)]));
        let mut value = json!(figures);
        value["source"] = json!(source);
        value["destination"] = json!(destination);
        values.push(value);
    }
    (table, Value::Array(values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::Scrape;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        top: TopArgs,
    }

    // spec: CT-42
    #[test]
    fn the_busiest_pair_stands_first() {
        let line = |source: &str, service: &str, count: u32| {
            format!(
                "istio_requests_total{{reporter=\"source\",source_workload=\"{source}\",source_principal=\"x\",\
                 destination_service_name=\"{service}\",destination_service_namespace=\"n\",response_code=\"200\"}} {count}\n"
            )
        };
        let text = [line("a", "b", 5), line("c", "b", 20), line("c", "d", 0)].concat();
        let window = Window::between(&Scrape::default(), Scrape::parse(&text), Duration::from_secs(1));
        let rows = |flags: &[&str]| {
            let (_, values) = table(&Flags::parse_from(std::iter::once(&"x").chain(flags)).top, &window);
            let text = |value: &Value| format!("{} {}", value["source"], value["rps"]).replace('"', "");
            values.as_array().unwrap().iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(rows(&[]), ["c 20.0", "a 5.0"]);
        assert_eq!(rows(&["--hide-sources"]), ["* 25.0"]);
        assert_eq!(rows(&["--from", "a", "--rows", "1"]), ["a 5.0"]);
    }
}
