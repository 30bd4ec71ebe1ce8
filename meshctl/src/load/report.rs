//! What a run came to, as text and as JSON: Fortio's, line by line and key by key, and beside them what Fortio lacks.

use super::client::Facts;
use super::flags::Level;
use super::format::{duration, general, shortest};
use super::grpc::Call;
use super::histogram::{Exported, Histogram, number, percentiles_json};
use super::plan::{Late, Plan, Schedule};
use super::record::{Code, Record};
use super::run::Outcome;
use super::target::{Kind, Target};
use base64::Engine;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Share of late calls above which the waits are shown in full, in per cent.
const LATE_PERCENT: f64 = 5.0;
/// Longest name of a saved result.
const MAX_ID: usize = 96;

/// A run with all that is known of it.
#[derive(Debug)]
pub struct Report<'a> {
    /// What was planned.
    pub plan: &'a Plan,
    /// How it was dealt out.
    pub schedule: &'a Schedule,
    /// What was called.
    pub target: &'a Target,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// Each connection.
    pub facts: &'a [Facts],
    /// How it is called.
    pub identity: &'a Identity,
    /// Calls made before the run.
    pub warm_up_calls: usize,
    /// Code at which the run was to stop; 0 for none.
    pub abort_on: i16,
}

/// What a result is called.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Labels, for people.
    pub labels: String,
    /// Number of the run; 0 for none.
    pub run: i64,
    /// When it began.
    pub start: jiff::Zoned,
}

impl Identity {
    /// Name of the saved result: `YYYY-MM-DD-HHMMSS_<run>_<labels>`, with one `_` for what is no letter or digit.
    pub fn id(&self) -> String {
        let mut id = self.start.strftime("%Y-%m-%d-%H%M%S").to_string();
        if self.run != 0 {
            id.push_str(&format!("_{}", self.run));
        }
        let words = self.labels.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        for word in words {
            id.push('_');
            id.push_str(word);
        }
        id.chars().take(MAX_ID).collect()
    }
}

impl Report<'_> {
    fn record(&self) -> &Record {
        &self.outcome.record
    }

    /// Calls per second.
    pub fn rate(&self) -> f64 {
        let seconds = self.outcome.elapsed.as_secs_f64();
        if seconds > 0.0 { self.record().calls() as f64 / seconds } else { 0.0 }
    }

    /// The lines that Fortio prints after a run, and ours.
    pub fn lines(&self, level: Level) -> Vec<String> {
        let record = self.record();
        let mut lines = Vec::new();
        if level <= Level::Warning {
            lines.push(format!(
                "Ended after {} : {} calls. qps={}",
                duration(self.outcome.elapsed),
                record.calls(),
                general(self.rate(), 5)
            ));
        }
        self.wait_lines(level, &mut lines);
        let (all, failed) =
            (record.latency.export(&self.plan.percentiles), record.failed.export(&self.plan.percentiles));
        if level <= Level::Warning {
            lines.extend(all.lines("Aggregated Function Time"));
            lines.extend(failed.lines("Error cases"));
        } else {
            lines.push(all.counter.line("Aggregated Function Time"));
            lines.extend(all.percentile_lines());
            lines.push(failed.counter.line("Error cases"));
        }
        self.exact_lines(&mut lines);
        match &self.target.kind {
            Kind::Http(_) => self.http_lines(level, &mut lines),
            Kind::Grpc { call, .. } => self.grpc_lines(call, &mut lines),
            Kind::Tcp(_) => self.echo_lines("tcp", &mut lines),
            Kind::Udp(..) => self.echo_lines("udp", &mut lines),
        }
        lines.push(format!(
            "All done {} calls (plus {} warmup) {:.3} ms avg, {:.1} qps",
            record.calls(),
            self.warm_up_calls,
            1000.0 * record.latency.counter.average(),
            self.rate()
        ));
        lines
    }

    fn wait_lines(&self, level: Level, lines: &mut Vec<String>) {
        let waits = &self.record().waits;
        if self.plan.rate.is_none() || waits.counter.count == 0 {
            return;
        }
        let late = 100.0 * waits.at_or_below_offset() as f64 / waits.counter.count as f64;
        if late > LATE_PERCENT {
            lines.extend(waits.export(&[50.0]).lines("Aggregated Sleep Time"));
            lines.push(format!("WARNING {late:.2}% of sleep were falling behind"));
        } else if level <= Level::Verbose {
            lines.extend(waits.export(&[50.0]).lines("Aggregated Sleep Time"));
        } else if level <= Level::Warning {
            lines.push(waits.counter.line("Sleep times"));
        }
        if self.record().skipped > 0 {
            lines.push(format!("Skipped {} calls that were due while one before them was late", self.record().skipped));
        }
    }

    /// Ours: percentiles to three digits, and those counted from when calls were due.
    fn exact_lines(&self, lines: &mut Vec<String>) {
        let record = self.record();
        if record.calls() == 0 {
            return;
        }
        let corrected = record.corrected.counter;
        if corrected.count > 0 {
            lines.push(corrected.line("Corrected Function Time (from when due)"));
        }
        for (percentile, exact) in record.exact.percentiles(&self.plan.percentiles) {
            let mut line = format!("# exact {}% {}", shortest(percentile), general(exact, 6));
            if corrected.count > 0 {
                line.push_str(&format!(", corrected {}", general(record.exact_corrected.percentile(percentile), 6)));
            }
            lines.push(line);
        }
    }

    fn http_lines(&self, level: Level, lines: &mut Vec<String>) {
        lines.push("# Socket and IP used for each connection:".to_owned());
        for (index, facts) in self.facts.iter().enumerate() {
            let sockets = facts.connecting.counter.count;
            let addresses = match facts.addresses.iter().collect::<Vec<_>>().as_slice() {
                [(address, _)] => (*address).clone(),
                several => {
                    let each: Vec<String> = several.iter().map(|(address, n)| format!("{address} ({n})")).collect();
                    format!("[{}]", each.join(", "))
                }
            };
            let timing = facts.connecting.counter.line(", connection timing");
            lines.push(format!("[{index}] {sockets:3} socket used, resolved to {addresses}{timing}"));
        }
        let connecting = self.connecting();
        if level <= Level::Info {
            lines.extend(connecting.lines("Connection time histogram (s)"));
        } else if level <= Level::Warning {
            lines.push(connecting.counter.line("Connection time (s)"));
        }
        lines.push(format!(
            "Sockets used: {} (for perfect keepalive, would be {})",
            connecting.counter.count, self.schedule.connections
        ));
        lines.push(format!(
            "Uniform: {}, Jitter: {}, Catchup allowed: {}",
            self.plan.spread.uniform,
            self.plan.spread.jitter,
            self.plan.late == Late::CatchUp
        ));
        lines.push("IP addresses distribution:".to_owned());
        let mut addresses: Vec<(String, u64)> = self.addresses().into_iter().collect();
        addresses.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        lines.extend(addresses.iter().map(|(address, count)| format!("{address}: {count}")));
        for (code, count) in self.codes() {
            lines.push(format!("Code {:>3} : {count} ({})", code.to_string(), self.share(count)));
        }
        let (heads, sizes) = (&self.record().head_sizes, &self.record().sizes);
        if level <= Level::Verbose {
            lines.extend(heads.export(&[]).lines("Response Header Sizes Histogram"));
            lines.extend(sizes.export(&[]).lines("Response Body/Total Sizes Histogram"));
        } else if level <= Level::Warning {
            lines.push(heads.counter.line("Response Header Sizes"));
            lines.push(sizes.counter.line("Response Body/Total Sizes"));
        }
    }

    fn grpc_lines(&self, call: &Call, lines: &mut Vec<String>) {
        let name = match call {
            Call::Ping(_) => "Ping",
            Call::Health(_) => "Health",
            Call::Method { .. } => "Custom gRPC Method",
        };
        lines.push(format!("Jitter: {}", self.plan.spread.jitter));
        lines.extend(self.codes().iter().map(|(code, count)| format!("{name} {code} : {count}")));
    }

    fn echo_lines(&self, name: &str, lines: &mut Vec<String>) {
        let (sent, received) = self.traffic();
        lines.push(format!(
            "Sockets used: {} (for perfect no error run, would be {})",
            self.connecting().counter.count,
            self.schedule.connections
        ));
        lines.push(format!("Total Bytes sent: {sent}, received: {received}"));
        for (code, count) in self.codes() {
            lines.push(format!("{name} {code} : {count} ({})", self.share(count)));
        }
    }

    fn share(&self, count: u64) -> String {
        format!("{:.1} %", 100.0 * count as f64 / self.record().calls() as f64)
    }

    fn codes(&self) -> Vec<(Code, u64)> {
        let mut codes = self.record().codes.clone();
        codes.sort();
        codes
    }

    fn connecting(&self) -> Exported {
        let mut all = Histogram::new(self.plan.offset, self.plan.resolution);
        self.facts.iter().for_each(|facts| all.add(&facts.connecting));
        all.export(&self.plan.percentiles)
    }

    fn addresses(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (address, count) in self.facts.iter().flat_map(|facts| &facts.addresses) {
            *all.entry(address.clone()).or_default() += count;
        }
        all
    }

    fn traffic(&self) -> (u64, u64) {
        self.facts
            .iter()
            .fold((0, 0), |(sent, received), facts| (sent + facts.traffic.sent, received + facts.traffic.received))
    }

    /// Fortio's JSON, with our keys `CorrectedDurationHistogram` and `ExactPercentiles`.
    pub fn json(&self) -> Value {
        let mut json = self.common();
        match &self.target.kind {
            Kind::Http(_) => {
                json.extend(self.http_json());
                json.extend(self.http_facts());
            }
            Kind::Grpc { call, streams, channel } => {
                let mut metadata: BTreeMap<&str, Vec<String>> = BTreeMap::new();
                for (name, value) in &channel.metadata {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    metadata.entry(name.as_str()).or_default().push(value);
                }
                json.extend(object(json!({
                    "RetCodes": self.codes_json(),
                    "Destination": self.target.url,
                    "Streams": streams,
                    "Ping": matches!(call, Call::Ping(_)),
                    "Metadata": metadata,
                })));
            }
            Kind::Tcp(payload) | Kind::Udp(payload, _) => {
                let (sent, received) = self.traffic();
                json.extend(object(json!({
                    "Destination": self.target.url,
                    "Payload": if payload.is_empty() { Value::Null } else { json!(base64(payload)) },
                    "UnixDomainSocket": path_text(self.target.args.unix_socket.as_deref()),
                    "ReqTimeout": nanos(self.target.args.timeout),
                    "RetCodes": self.codes_json(),
                    "SocketCount": self.connecting().counter.count,
                    "BytesSent": sent,
                    "BytesReceived": received,
                })));
            }
        }
        Value::Object(json)
    }

    fn common(&self) -> Map<String, Value> {
        let record = self.record();
        let percentiles = &self.plan.percentiles;
        let mut json = object(json!({
            "RunType": self.run_type(),
            "Labels": self.identity.labels,
            "StartTime": self.identity.start.timestamp().to_string(),
            "RequestedQPS": self.schedule.requested_rate,
            "RequestedDuration": self.requested_length(),
            "ActualQPS": number(self.rate()),
            "ActualDuration": nanos(self.outcome.elapsed),
            "NumThreads": self.schedule.connections,
            "Version": env!("CARGO_PKG_VERSION"),
            "DurationHistogram": record.latency.export(percentiles).json(),
            "ErrorsDurationHistogram": record.failed.export(percentiles).json(),
            "Exactly": self.plan.exactly.unwrap_or(0),
            "Jitter": self.plan.spread.jitter,
            "Uniform": self.plan.spread.uniform,
            "NoCatchUp": self.plan.late == Late::Skip,
            "RunID": self.identity.run,
            "AccessLoggerInfo": "",
            "ID": self.identity.id(),
            "ExactPercentiles": percentiles_json(&record.exact.percentiles(percentiles)),
        }));
        if record.corrected.counter.count > 0 {
            let mut corrected = record.corrected.export(&[]);
            corrected.percentiles = record.exact_corrected.percentiles(percentiles);
            json.insert("CorrectedDurationHistogram".to_owned(), corrected.json());
        }
        json
    }

    fn run_type(&self) -> String {
        let with_length = |name: String, length: usize| match length {
            0 => name,
            length => format!("{name} PayloadLength={length}"),
        };
        match &self.target.kind {
            Kind::Http(_) => "HTTP".to_owned(),
            Kind::Tcp(_) => "TCP".to_owned(),
            Kind::Udp(..) => "UDP".to_owned(),
            Kind::Grpc { call: Call::Health(service), .. } => format!("GRPC Health for '{service}'"),
            Kind::Grpc { call: Call::Method { path, message }, .. } => {
                with_length(format!("Custom GRPC Method {path}"), message.len())
            }
            Kind::Grpc { call: Call::Ping(ping), .. } => {
                let delay = Duration::from_nanos(ping.delay_nanos.unsigned_abs());
                let delay = if delay.is_zero() { String::new() } else { format!(" Delay={}", duration(delay)) };
                with_length(format!("GRPC Ping{delay}"), ping.payload.len())
            }
        }
    }

    fn requested_length(&self) -> String {
        let length = self.schedule.requested_length.clone();
        match self.plan.exactly {
            Some(exactly) if exactly != self.record().calls() => {
                format!("{length}, interrupted after {}", self.record().calls())
            }
            _ => length,
        }
    }

    fn codes_json(&self) -> Value {
        self.codes().into_iter().map(|(code, count)| (code.to_string(), json!(count))).collect()
    }

    fn http_json(&self) -> Map<String, Value> {
        let args = &self.target.args;
        let reuse = args.connection_reuse.map_or([0, 0], |reuse| [reuse.least, reuse.most]);
        let payload = match &self.target.kind {
            Kind::Http(request) => base64(&request.payload),
            Kind::Grpc { .. } | Kind::Tcp(_) | Kind::Udp(..) => String::new(),
        };
        object(json!({
            "RetCodes": self.codes_json(),
            "IPCountMap": self.addresses(),
            "Insecure": args.insecure,
            "MTLS": args.mtls,
            "CACert": path_text(args.cacert.as_deref()),
            "Cert": path_text(args.cert.as_deref()),
            "Key": path_text(args.key.as_deref()),
            "UnixDomainSocket": path_text(args.unix_socket.as_deref()),
            "URL": self.target.url,
            "NumConnections": 1,
            "Compression": args.compression,
            "DisableFastClient": args.stdclient || args.h2 || args.follow,
            "HTTP10": args.http10,
            "H2": args.h2,
            "DisableKeepAlive": !args.keepalive,
            "AllowHalfClose": args.halfclose,
            "FollowRedirects": args.follow,
            "Resolve": args.resolve,
            "HTTPReqTimeOut": nanos(args.timeout),
            "UserCredentials": "", // Fortio writes the password here; a result is shown to others
            "ContentType": args.content_type,
            "Payload": payload,
            "MethodOverride": args.method,
            "LogErrors": args.log_errors,
            "SequentialWarmup": args.sequential_warmup,
            "ConnReuseRange": reuse,
            "NoResolveEachConn": args.no_reresolve,
            "Offset": (self.plan.offset * 1e9) as i64,
            "Resolution": number(self.plan.resolution),
        }))
    }

    fn http_facts(&self) -> Map<String, Value> {
        let sockets: Vec<u64> = self.facts.iter().map(|facts| facts.connecting.counter.count).collect();
        object(json!({
            "Sizes": self.record().sizes.export(&[]).json(),
            "HeaderSizes": self.record().head_sizes.export(&[]).json(),
            "SocketCount": sockets.iter().sum::<u64>(),
            "Sockets": sockets,
            "ConnectionStats": self.connecting().json(),
            "AbortOn": self.abort_on,
        }))
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn path_text(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Nanoseconds: how Go's JSON writes durations.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: FO-23
    #[test]
    fn results_are_named_as_fortio_names_them() {
        let start: jiff::Zoned = "2026-11-25T19:31:30[UTC]".parse().unwrap();
        let id = |labels: &str, run: i64| Identity { labels: labels.to_owned(), run, start: start.clone() }.id();
        assert_eq!(id("localhost:18580/x , vm", 0), "2026-11-25-193130_localhost_18580_x_vm");
        assert_eq!(id("tcp://a ,", 7), "2026-11-25-193130_7_tcp_a");
        assert_eq!(id("", 0), "2026-11-25-193130");
        assert_eq!(id(&"x".repeat(200), 0).len(), MAX_ID);
    }
}
