//! Access logs written out: Istio's text line (AL-1) or its JSON keys (AL-2), to a file or to standard output.

use crate::report::entry::Entry;
use crate::report::names::Meters;
use anyhow::Context as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, BufWriter};
use tokio::sync::mpsc;

/// Lines that wait to be written; further ones are dropped and counted.
const QUEUE: usize = 10_000;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Istio's default line.
    Text,
    /// One object per line.
    Json,
}

/// The way to the file.
#[derive(Debug, Clone)]
pub struct Writer {
    lines: mpsc::Sender<String>,
    format: Format,
    meters: Meters,
}

impl Writer {
    /// Opens a file to append to, or standard output for `-`; the second value writes until all writers have gone.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn open(
        path: &str,
        format: Format,
        meters: Meters,
    ) -> anyhow::Result<(Self, impl Future<Output = anyhow::Result<()>> + use<>)> {
        let out: Box<dyn AsyncWrite + Unpin + Send> = if path == "-" {
            Box::new(tokio::io::stdout())
        } else {
            let mut options = tokio::fs::OpenOptions::new();
            Box::new(options.create(true).append(true).open(path).await.with_context(|| format!("access log {path}"))?)
        };
        let (lines, queue) = mpsc::channel(QUEUE);
        Ok((Self { lines, format, meters: meters.clone() }, write_all(out, queue, meters)))
    }

    /// Writes an entry, or drops it where too many wait.
    pub fn write(&self, entry: &Entry) {
        let line = match self.format {
            Format::Text => text(entry),
            Format::Json => json_line(entry),
        };
        if self.lines.try_send(line).is_err() {
            self.meters.drop("access_log_lines", "queue", 1);
        }
    }
}

async fn write_all(
    out: Box<dyn AsyncWrite + Unpin + Send>,
    mut queue: mpsc::Receiver<String>,
    meters: Meters,
) -> anyhow::Result<()> {
    let mut out = BufWriter::new(out);
    while let Some(line) = queue.recv().await {
        // A full disk must not stop the hub: what cannot be written is counted.
        match out.write_all(line.as_bytes()).await {
            Ok(()) => meters.lines.inc(),
            Err(_) => meters.drop("access_log_lines", "write", 1),
        }
        if queue.is_empty() && out.flush().await.is_err() {
            meters.drop("access_log_lines", "flush", 1);
        }
    }
    out.flush().await.context("access log")
}

/// A time as Istio's logs write it.
pub fn time(since_1970: Duration) -> String {
    let ms = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
    let Ok(at) = jiff::Timestamp::from_millisecond(ms) else { return "-".to_owned() };
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn service_time(entry: &Entry) -> String {
    let header = entry.response_headers.get("x-envoy-upstream-service-time").cloned();
    header.or_else(|| entry.upstream_time.map(|time| ms(time).to_string())).unwrap_or_default()
}

fn ms(duration: Duration) -> u128 {
    duration.as_millis()
}

/// A value in a line: nothing is `-`, and no value can end the line or its quotes.
fn plain(text: &str) -> Arc<str> {
    if text.is_empty() {
        return "-".into();
    }
    let escaped: String = text
        .chars()
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            c if c.is_control() => c.escape_default().collect(),
            c => vec![c],
        })
        .collect();
    escaped.into()
}

fn text(entry: &Entry) -> String {
    let [upstream, upstream_local, downstream_local, downstream_remote] = &entry.addresses;
    format!(
        "[{}] \"{} {} {}\" {} {} {} {} \"{}\" {} {} {} {} \"{}\" \"{}\" \"{}\" \"{}\" \"{}\" {} {} {} {} {} {}\n",
        time(entry.start),
        plain(&entry.method),
        plain(&entry.path),
        plain(entry.protocol),
        entry.code,
        plain(&entry.flags),
        plain(&entry.details),
        plain(&entry.termination),
        plain(&entry.transport_failure),
        entry.request_bytes.0,
        entry.response_bytes.0,
        ms(entry.duration),
        plain(&service_time(entry)),
        plain(&entry.forwarded_for),
        plain(&entry.user_agent),
        plain(&entry.request_id),
        plain(&entry.authority),
        plain(upstream),
        plain(&entry.cluster),
        plain(upstream_local),
        plain(downstream_local),
        plain(downstream_remote),
        plain(&entry.server_name),
        plain(&entry.route),
    )
}

fn json_line(entry: &Entry) -> String {
    let or_null = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
    let mut line = json!({
        "start_time": time(entry.start),
        "route_name": or_null(&entry.route),
        "method": or_null(&entry.method),
        "path": or_null(&entry.path),
        "protocol": or_null(entry.protocol),
        "response_code": entry.code,
        "response_flags": if entry.flags.is_empty() { "-" } else { &entry.flags },
        "response_code_details": or_null(&entry.details),
        "connection_termination_details": or_null(&entry.termination),
        "bytes_received": entry.request_bytes.0,
        "bytes_sent": entry.response_bytes.0,
        "duration": u64::try_from(ms(entry.duration)).unwrap_or(u64::MAX),
        "upstream_service_time": or_null(&service_time(entry)),
        "x_forwarded_for": or_null(&entry.forwarded_for),
        "user_agent": or_null(&entry.user_agent),
        "request_id": or_null(&entry.request_id),
        "authority": or_null(&entry.authority),
        "upstream_host": or_null(&entry.addresses[0]),
        "upstream_cluster": or_null(&entry.cluster),
        "upstream_local_address": or_null(&entry.addresses[1]),
        "downstream_local_address": or_null(&entry.addresses[2]),
        "downstream_remote_address": or_null(&entry.addresses[3]),
        "requested_server_name": or_null(&entry.server_name),
        "upstream_transport_failure_reason": or_null(&entry.transport_failure),
    });
    // Beyond Istio's keys: only where a proxy of ours said why.
    if !entry.reason.side.is_empty() {
        line["why"] = Value::from(entry.reason.why.as_str());
        line["side"] = Value::from(entry.reason.side.as_str());
    }
    format!("{line}\n")
}
