//! The edges of the mesh: who calls whom, how often, how fast and how well, over the last 15 minutes.

use super::family::{BUCKETS, Family, bucket_of};
use super::point::Value;
use super::series::Labels;
use super::window::{Sample, Stretch, Window};
use foldhash::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Edges that are kept, seen from the client's side and from the server's; each takes [`super::window::BYTES`].
pub const MAX_EDGES: usize = 2_000;
/// An edge without traffic for so long is dropped.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Idle edges are looked for at most so often.
const SWEEP: Duration = Duration::from_secs(1);
/// With fewer requests in a stretch, a stretch of [`LONG_SECONDS`] says more.
const FEW_REQUESTS: u64 = 20;
const LONG_SECONDS: u32 = 20;
/// What stands for an unknown name.
pub const UNKNOWN: &str = "unknown";

/// One end of an edge: a version of a service, or what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Node {
    /// Namespace.
    pub namespace: String,
    /// Canonical name of the service.
    pub app: String,
    /// Canonical revision; empty for a service of which no workload answered.
    pub version: String,
}

/// An edge, apart from who reports it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// The client.
    pub source: Node,
    /// The server.
    pub destination: Node,
    /// Host of the service that was asked for.
    pub service: String,
    /// `http`, `grpc` or `tcp`.
    pub protocol: String,
}

/// Whose report it is (LBL-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Reporter {
    /// The client's proxy.
    #[default]
    Source,
    /// The server's proxy.
    Destination,
}

/// What an edge's series mean for its window.
#[derive(Debug, Clone)]
struct Meaning {
    key: Arc<(Edge, Reporter)>,
    failed: bool,
    refused: bool,
    mutual_tls: bool,
}

/// All edges.
#[derive(Debug, Default)]
pub struct Traffic {
    edges: HashMap<Arc<(Edge, Reporter)>, Window>,
    meanings: HashMap<u32, Option<Meaning>>,
    dropped: u64,
    /// When idle edges were last looked for.
    swept: Duration,
}

/// An edge as seen now.
#[derive(Debug, Clone)]
pub struct View {
    /// Which.
    pub edge: Edge,
    /// The client's view where there is one, else the server's.
    pub stretch: Stretch,
    /// Whether requests came over mutual TLS, where the server's proxy said so.
    pub mutual_tls: Option<bool>,
    /// Time since the last report.
    pub idle: Duration,
}

impl Traffic {
    /// Adds what a series gained between two times.
    pub fn add(&mut self, series: (u32, Family, &Labels), gained: &Value, (from, to): (Duration, Duration)) {
        let (index, family, labels) = series;
        let meaning = self.meanings.entry(index).or_insert_with(|| meaning(labels));
        let Some(meaning) = meaning.clone() else { return };
        let sample = sample(family, &meaning, gained);
        if sample == Sample::default() {
            return;
        }
        if !self.edges.contains_key(&meaning.key) && self.edges.len() >= MAX_EDGES {
            if to.saturating_sub(self.swept) >= SWEEP {
                self.edges.retain(|_, window| to.saturating_sub(window.until()) < IDLE);
                self.swept = to;
            }
            if self.edges.len() >= MAX_EDGES {
                self.dropped += 1;
                return;
            }
        }
        self.edges.entry(meaning.key).or_default().add(from, to, &sample);
    }

    /// How often an edge was left out because there were too many.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Edges in memory.
    pub fn len(&self) -> usize {
        self.edges.len()
    }

    /// Whether nothing was reported yet.
    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    /// All edges that had traffic in the last 15 minutes, and what they did in the last `seconds`; of edges with few
    /// requests the last 20.
    pub fn views(&self, now: Duration, seconds: u32) -> Vec<View> {
        let mut views: Vec<View> = Vec::new();
        for (key, window) in &self.edges {
            let (edge, reporter) = &**key;
            let idle = now.saturating_sub(window.until());
            if idle >= IDLE {
                continue;
            }
            let other = match reporter {
                Reporter::Source => Reporter::Destination,
                Reporter::Destination => Reporter::Source,
            };
            let twin = self.edges.get(&(edge.clone(), other)).filter(|twin| now.saturating_sub(twin.until()) < IDLE);
            if *reporter == Reporter::Destination && twin.is_some() {
                continue;
            }
            let server = if *reporter == Reporter::Destination { Some(window) } else { twin };
            let mut stretch = window.last(now, seconds);
            if stretch.sample.requests < FEW_REQUESTS {
                stretch = window.last(now, LONG_SECONDS);
            }
            views.push(View { edge: edge.clone(), stretch, mutual_tls: server.and_then(|w| protected(w, now)), idle });
        }
        views.sort_by(|a, b| a.edge.cmp(&b.edge));
        views
    }

    /// The last 15 minutes of all edges that `wanted` names together, in parts of ten seconds.
    pub fn history(&self, now: Duration, wanted: impl Fn(&Edge) -> bool) -> Vec<Sample> {
        let mut sum: Vec<Sample> = Vec::new();
        for (key, window) in &self.edges {
            let (edge, reporter) = &**key;
            let twin = *reporter == Reporter::Destination && self.edges.contains_key(&(edge.clone(), Reporter::Source));
            if twin || !wanted(edge) {
                continue;
            }
            let history = window.history(now);
            if sum.is_empty() {
                sum = history;
            } else {
                sum.iter_mut().zip(&history).for_each(|(sum, part)| sum.merge(part));
            }
        }
        sum
    }
}

/// Whether the last requests (of the last 20 seconds, else of 15 minutes) came over mutual TLS.
fn protected(window: &Window, now: Duration) -> Option<bool> {
    let mut sample = window.last(now, 20).sample;
    if sample.requests == 0 {
        window.history(now).iter().for_each(|part| sample.merge(part));
    }
    (sample.requests > 0).then_some(sample.mutual_tls == sample.requests)
}

/// What labels mean; nothing for series that belong to no edge.
fn meaning(labels: &Labels) -> Option<Meaning> {
    let reporter = match labels.of("reporter") {
        "source" => Reporter::Source,
        "destination" => Reporter::Destination,
        _ => return None,
    };
    let node = |side: &str| {
        let of = |name: &str| labels.of(&format!("{side}_{name}"));
        Node {
            namespace: of("workload_namespace").to_owned(),
            app: of("canonical_service").to_owned(),
            version: of("canonical_revision").to_owned(),
        }
    };
    let mut destination = node("destination");
    if known(&destination.app).is_none() {
        // No workload answered: the service as a whole.
        let or_unknown = |name: &str| known(labels.of(name)).unwrap_or(UNKNOWN).to_owned();
        let (app, namespace) = (or_unknown("destination_service_name"), or_unknown("destination_service_namespace"));
        destination = Node { namespace, app, ..Node::default() };
    }
    let mut source = node("source");
    if known(&source.app).is_none() {
        source = Node { namespace: UNKNOWN.to_owned(), app: UNKNOWN.to_owned(), ..Node::default() };
    }
    let (service, protocol) = (labels.of("destination_service").to_owned(), labels.of("request_protocol").to_owned());
    let code = labels.of("response_code");
    let tcp = protocol == "tcp";
    // gRPC's codes of the server's kind: unknown, deadline, unimplemented, internal, unavailable, data loss.
    let grpc_failed = matches!(labels.of("grpc_response_status"), "2" | "4" | "12" | "13" | "14" | "15");
    Some(Meaning {
        key: Arc::new((Edge { source, destination, service, protocol }, reporter)),
        failed: grpc_failed || (!tcp && (code.starts_with('5') || code == "0")) || (tcp && tcp_failed(labels)),
        refused: code.starts_with('4'),
        mutual_tls: labels.of("connection_security_policy") == "mutual_tls",
    })
}

/// A TCP connection whose flags name a fault of the mesh or of the server.
fn tcp_failed(labels: &Labels) -> bool {
    labels.of("response_flags").split(',').any(|flag| !matches!(flag, "" | "-" | "DC"))
}

fn known(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty() && *name != UNKNOWN)
}

fn sample(family: Family, meaning: &Meaning, gained: &Value) -> Sample {
    let mut sample = Sample::default();
    match (family, gained) {
        (Family::Requests | Family::TcpOpened, Value::Number(count)) => {
            sample.requests = *count as u64;
            let of = |fact: bool| if fact { *count as u64 } else { 0 };
            (sample.failed, sample.refused) = (of(meaning.failed), of(meaning.refused));
            sample.mutual_tls = of(meaning.mutual_tls);
        }
        // Flags are known when a connection ends, not when it opens.
        (Family::TcpClosed, Value::Number(count)) if meaning.failed => sample.failed = *count as u64,
        (Family::TcpSent, Value::Number(bytes)) => sample.sent = *bytes as u64,
        (Family::TcpReceived, Value::Number(bytes)) => sample.received = *bytes as u64,
        (Family::Duration, Value::Histogram(counts, _, bounds)) => sample.latency = latency(counts, bounds),
        _ => {}
    }
    sample
}

/// Counts in Istio's buckets.
fn latency(counts: &[u64], bounds: &[f64]) -> [u64; BUCKETS] {
    let mut latency = [0; BUCKETS];
    for (index, count) in counts.iter().enumerate() {
        let at = bounds.get(index).map_or(BUCKETS - 1, |bound| bucket_of(*bound));
        if let Some(sum) = latency.get_mut(at) {
            *sum += count;
        }
    }
    latency
}
