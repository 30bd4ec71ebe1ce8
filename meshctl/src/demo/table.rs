//! The live table: what each workload saw in the last seconds.

use crate::demo::mesh::Mesh;
use crate::output::{self, Table};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

const REFRESH: Duration = Duration::from_secs(2);

/// Counts of one workload at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sample {
    requests: u64,
    succeeded: u64,
    mutual_tls: u64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Sample {
    fn read(counts: &Value) -> Self {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let good = |(status, count): (&String, &Value)| if status.starts_with('2') { number(count) } else { 0 };
        Self {
            requests: number(&counts["requests"]),
            succeeded: counts["statuses"].as_object().map_or(0, |statuses| statuses.iter().map(good).sum()),
            mutual_tls: number(&counts["mutual_tls"]),
            p50_ms: counts["p50_ms"].as_f64().unwrap_or(0.0),
            p99_ms: counts["p99_ms"].as_f64().unwrap_or(0.0),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            succeeded: self.succeeded.saturating_sub(before.succeeded),
            mutual_tls: self.mutual_tls.saturating_sub(before.mutual_tls),
            ..self
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
struct Row {
    service: &'static str,
    version: &'static str,
    sample: Sample,
}

/// Shows the table until the future is dropped.
///
/// # Errors
/// Where standard output is closed.
pub(super) async fn watch(mesh: &mut Mesh) -> anyhow::Result<()> {
    let fresh = std::io::stdout().is_terminal();
    let mut before: BTreeMap<&'static str, Sample> = BTreeMap::new();
    let mut height = 0;
    let mut last = Instant::now();
    loop {
        tokio::time::sleep(REFRESH).await;
        let seconds = last.elapsed().as_secs_f64();
        last = Instant::now();
        let mut rows = Vec::new();
        for workload in mesh.plan.workloads.iter().filter(|w| w.runs_shop) {
            let Ok(answer) = mesh.ask_shop(workload, "/__count").await else { continue };
            let now = Sample::read(&serde_json::from_slice(&answer.body).unwrap_or_default());
            let sample = now.since(before.insert(workload.name, now).unwrap_or(now));
            rows.push(Row { service: workload.app, version: workload.version, sample });
        }
        let mut lines = table(&rows, seconds).lines();
        lines.extend(mesh.problems().await.iter().map(|problem| format!("refused: {problem}")));
        lines.extend(mesh.ended().iter().map(|process| format!("ended: {process}")));
        let up = if fresh && height > 0 { format!("\x1b[{height}A\x1b[J") } else { String::new() };
        height = lines.len() + 1;
        output::show_now(&format!("{up}{}\n\n", lines.join("\n")))?;
    }
}

fn table(rows: &[Row], seconds: f64) -> Table {
    let mut table = Table::new(&["SERVICE", "VERSION", "RPS", "SUCCESS", "P50", "P99", "MTLS", "SHARE"]);
    for row in rows {
        let total: u64 = rows.iter().filter(|r| r.service == row.service).map(|r| r.sample.requests).sum();
        let percent = |part: u64, whole: u64| {
            // Answers of the last interval may belong to requests of the one before.
            if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part.min(whole) as f64 * 100.0 / whole as f64) }
        };
        let sample = row.sample;
        let time = |ms: f64| if sample.requests == 0 { "-".to_owned() } else { format!("{ms:.1} ms") };
        table.row([
            row.service.to_owned(),
            row.version.to_owned(),
            format!("{:.1}", sample.requests as f64 / seconds),
            percent(sample.succeeded, sample.requests),
            time(sample.p50_ms),
            time(sample.p99_ms),
            percent(sample.mutual_tls, sample.requests),
            percent(sample.requests, total),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shares_are_those_of_a_service() {
        let counts =
            json!({"requests": 30, "statuses": {"200": 27, "503": 3}, "mutual_tls": 30, "p50_ms": 1.0, "p99_ms": 9.0});
        let now = Sample::read(&counts);
        let rows = [
            Row { service: "reviews", version: "v1", sample: now },
            Row { service: "reviews", version: "v2", sample: Sample { requests: 10, ..now } },
            Row { service: "ratings", version: "v1", sample: Sample::default() },
        ];
        let lines = table(&rows, 2.0).lines();
        assert_eq!(
            lines[1].split_whitespace().collect::<Vec<_>>().join(" "),
            "reviews v1 15.0 90.0 % 1.0 ms 9.0 ms 100.0 % 75.0 %"
        );
        assert!(lines[3].contains('-'));
    }
}
