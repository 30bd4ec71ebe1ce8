//! `meshctl top`: the busiest pairs of workload and service, live (CT-42).

use super::stat::{Metrics, golden, percent, window};
use crate::output::{self, Format, Table};
use crate::stat::resource::Named;
use crate::stat::{Figures, Labels, Resource, Window};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

/// `meshctl top`.
///
/// A line per pair of workload that asks and service that is asked, the busiest first. On a terminal it is shown anew
/// each interval until Ctrl-C; otherwise, and with -o json or yaml, once.
#[derive(Debug, Clone, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct TopArgs {
    /// Only requests to this workload or service.
    #[arg(long, value_name = "NAME")]
    to: Option<Named>,
    /// Only requests from this workload.
    #[arg(long, value_name = "WORKLOAD")]
    from: Option<Named>,
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
/// Where mixer does not answer.
pub async fn run(args: TopArgs) -> anyhow::Result<()> {
    let live = args.output == Format::Table && !args.once && std::io::stdout().is_terminal();
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

fn table(args: &TopArgs, window: &Window) -> (Table, Value) {
    let group = |labels: &Labels| {
        let kept = args.from.as_ref().is_none_or(|from| from.sends(labels))
            && args.to.as_ref().is_none_or(|to| to.receives(labels));
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
