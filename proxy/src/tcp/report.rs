//! What is told about a TCP connection: Istio's metrics while it runs, its access log when it ends (TM-5, TM-6, AL-6).

use super::config::{Stats, TcpConfig};
use super::copy::Moved;
use crate::endpoint::Endpoint;
use crate::env::Instant;
use crate::filter::{Facts, peer_metadata};
use crate::net::PeerFacts;
use crate::outcome::{Flags, Outcome, Reason};
use crate::telemetry::Cells;
use crate::telemetry::access_log::{Bytes, Entry, LogFacts, Times, Upstream};
use crate::telemetry::istio::{Ends, Reporter, Security, Service, TcpSeries, Workload};
use crate::telemetry::names::TcpMetric;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// The side that `istio.stats` reports, and how.
pub(super) type Told<'a> = (Reporter, &'a Stats);

/// One connection, for its reports.
pub(super) struct Report<'a> {
    config: &'a TcpConfig,
    facts: &'a Rc<Facts>,
    peer: &'a PeerFacts,
    /// Whether `istio.stats` is in the chain.
    reporter: Option<Told<'a>>,
    cells: Rc<Cells<TcpMetric>>,
    start: Instant,
    upstream: RefCell<Chosen>,
    series: RefCell<Option<Rc<TcpSeries>>>,
    /// Bytes from and to the client that have been reported.
    told: Cell<(u64, u64)>,
}

/// The upstream side.
#[derive(Default)]
struct Chosen {
    cluster: Option<Arc<str>>,
    endpoint: Option<Arc<Endpoint>>,
    local: Option<SocketAddr>,
    attempts: u32,
}

impl<'a> Report<'a> {
    /// A connection that begins now.
    pub(super) fn new(
        config: &'a TcpConfig,
        facts: &'a Rc<Facts>,
        peer: &'a PeerFacts,
        reporter: Option<Told<'a>>,
    ) -> Self {
        let cells = facts.stats.tcp(&config.stat_prefix);
        cells.increment(TcpMetric::DownstreamCxTotal);
        Self {
            config,
            facts,
            peer,
            reporter,
            cells,
            start: Instant::now(),
            upstream: RefCell::default(),
            series: RefCell::default(),
            told: Cell::default(),
        }
    }

    /// A cluster was chosen.
    pub(super) fn chose(&self, cluster: &Arc<str>) {
        self.upstream.borrow_mut().cluster = Some(Arc::clone(cluster));
    }

    /// An endpoint is tried.
    pub(super) fn tries(&self, endpoint: &Arc<Endpoint>) {
        let mut upstream = self.upstream.borrow_mut();
        upstream.endpoint = Some(Arc::clone(endpoint));
        upstream.attempts += 1;
    }

    /// The upstream connection is up.
    pub(super) fn connected(&self, local: Option<SocketAddr>) {
        self.upstream.borrow_mut().local = local;
        self.open(Flags::NONE);
    }

    /// Counts what has been moved since the last time.
    pub(super) fn moved(&self, moved: &Moved) {
        let now = (moved.up.get(), moved.down.get());
        let before = self.told.replace(now);
        let (received, sent) = (now.0 - before.0, now.1 - before.1);
        self.cells.add(TcpMetric::DownstreamCxRxBytesTotal, received);
        self.cells.add(TcpMetric::DownstreamCxTxBytesTotal, sent);
        if let Some(series) = &*self.series.borrow() {
            series.moved(received, sent);
        }
    }

    /// The connection has ended.
    pub(super) fn ended(&self, moved: &Moved, outcome: Option<&Outcome>) {
        let flags = flags(outcome);
        if self.series.borrow().is_none() {
            self.open(flags);
        }
        self.moved(moved);
        match outcome.map(|outcome| outcome.reason) {
            Some(Reason::UnknownCluster) => self.cells.increment(TcpMetric::DownstreamCxNoRoute),
            Some(Reason::IdleTimeout) => self.cells.increment(TcpMetric::IdleTimeout),
            Some(Reason::MaxDuration) => self.cells.increment(TcpMetric::MaxDownstreamConnectionDuration),
            _ => {}
        }
        if let Some(series) = self.series.take() {
            series.close();
        }
        if !self.config.access_log.is_empty() {
            self.log(moved, Entry::TcpConnectionEnd, outcome);
        }
    }

    fn open(&self, flags: Flags) {
        let Some(ends) = self.ends() else { return };
        let upstream = self.upstream.borrow();
        let host = upstream.endpoint.as_ref().map(|endpoint| endpoint.address.to_string());
        let facts = LogFacts { flags, ..self.known(&upstream, host.as_deref()) };
        let changes = self.reporter.and_then(|(_, stats)| stats.changes.as_ref());
        let own = changes.map(|changes| (changes, &facts));
        *self.series.borrow_mut() = Some(self.facts.metrics.open_tcp(&ends, flags, own));
    }

    fn known<'b>(&'b self, upstream: &'b Chosen, host: Option<&'b str>) -> LogFacts<'b> {
        LogFacts {
            peer: Some(self.peer),
            upstream: Upstream {
                host,
                cluster: upstream.cluster.as_deref(),
                local: upstream.local,
                attempts: Some(upstream.attempts),
                ..Upstream::default()
            },
            ..LogFacts::default()
        }
    }

    fn ends(&self) -> Option<Ends> {
        let ((reporter, _), metrics) = (self.reporter?, &self.facts.metrics);
        let upstream = self.upstream.borrow();
        let cluster = upstream.cluster.as_deref().and_then(|name| self.facts.clusters.get(name));
        let metadata = cluster.as_ref().and_then(|cluster| cluster.config.service.clone());
        let triple = metadata.as_deref().map(|[host, name, namespace]| (&**host, &**name, &**namespace));
        let service = Service::of_cluster(upstream.cluster.as_deref().unwrap_or_default(), triple, None);
        let service = metrics.intern_service(service);
        let own = self.facts.metrics.own(&self.facts.node.workload);
        let security = Security::of(reporter, self.peer.is_mutual());
        Some(match reporter {
            Reporter::Destination => {
                let source = metrics.intern_workload(Workload::new(|_| None, self.peer.peer_id()));
                Ends { reporter, source, destination: own, service, security }
            }
            Reporter::Source => {
                let by_endpoint = upstream.endpoint.as_ref().and_then(|endpoint| endpoint.workload.as_deref());
                let workload = by_endpoint.map(|text| peer_metadata::of_endpoint(text, None)).unwrap_or_default();
                let destination = metrics.intern_workload(workload);
                Ends { reporter, source: own, destination, service, security }
            }
        })
    }

    /// Writes an entry of the access logs.
    pub(super) fn log(&self, moved: &Moved, entry: Entry, outcome: Option<&Outcome>) {
        let flags = flags(outcome);
        let upstream = self.upstream.borrow();
        let host = upstream.endpoint.as_ref().map(|endpoint| endpoint.address.to_string());
        let (received, sent) = (moved.up.get(), moved.down.get());
        let mut facts = LogFacts {
            flags,
            bytes: Bytes {
                received,
                sent,
                downstream_wire_received: received,
                downstream_wire_sent: sent,
                upstream_wire_received: sent,
                upstream_wire_sent: received,
                ..Bytes::default()
            },
            start: Some(self.facts.env.wall(self.start)),
            times: Times {
                total: Some(self.facts.env.now().saturating_duration_since(self.start)),
                ..Times::default()
            },
            entry,
            ..self.known(&upstream, host.as_deref())
        };
        facts.upstream.transport_failure = outcome.and_then(|outcome| outcome.detail.as_deref());
        let random = self.facts.env.below(u64::MAX);
        for log in &self.config.access_log {
            log.log(&facts, random, &self.facts.logs);
        }
    }
}

/// The response flags of a connection that has ended so.
fn flags(outcome: Option<&Outcome>) -> Flags {
    let Some(outcome) = outcome else { return Flags::NONE };
    let mut flags = outcome.reason.face().flags;
    match outcome.reason {
        // All connects that were allowed have failed (LR-32).
        Reason::ConnectFailure | Reason::ConnectTimeout => flags.insert(Flags::URX),
        Reason::MaxDuration => flags.insert(Flags::DT),
        _ => {}
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::super::serve_tcp;
    use super::*;
    use crate::cluster::{Cluster, ClusterConfig};
    use crate::endpoint::{Address, HostSet};
    use crate::env::Env;
    use crate::net::Io;
    use crate::telemetry::access_log::{AccessLog, LogContext, LogSinks, LogWriter};
    use crate::telemetry::istio::IstioMetrics;
    use crate::telemetry::{Registry, Selection};
    use prost::Message;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::LocalSet;

    const STATS: Stats = Stats { changes: None, period: Duration::from_secs(5) };

    fn access_log(path: &str) -> AccessLog {
        let format = "%ACCESS_LOG_TYPE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %PROTOCOL%\n";
        let json = serde_json::json!({"name": "f", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path, "log_format": {"text_format_source": {"inline_string": format}}}});
        let bytes = proto::json::from_value("envoy.config.accesslog.v3.AccessLog", &json).unwrap();
        let written = proto::envoy::accesslog::AccessLog::decode(bytes.as_slice()).unwrap();
        let (environment, runtime) = (Default::default(), BTreeMap::new());
        AccessLog::parse(&written, LogContext { environment: &environment, runtime: &runtime }).unwrap()
    }

    fn config(cluster: &str, log: AccessLog) -> TcpConfig {
        TcpConfig {
            stat_prefix: "tcp".into(),
            clusters: [(cluster.into(), 1)].into(),
            idle_timeout: None,
            max_duration: None,
            max_connect_attempts: 1,
            access_log: vec![log],
            log_interval: None,
            log_connected: false,
        }
    }

    /// A client's connection through the proxy to a cluster: what the client got.
    async fn through(facts: &Rc<Facts>, config: TcpConfig) -> Vec<u8> {
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(front.local_addr().unwrap()).await.unwrap();
        let (stream, remote) = front.accept().await.unwrap();
        let peer = Rc::new(PeerFacts::plain(1, remote, front.local_addr().unwrap()));
        let facts = Rc::clone(facts);
        let served = tokio::task::spawn_local(async move {
            let io = Io::Tcp(stream, bytes::BytesMut::new());
            let stay = Rc::new(crate::drain::Drain::default()).join(&facts.env);
            serve_tcp((io, stay), &config, &facts, &peer, Some((Reporter::Destination, &STATS))).await;
        });
        let mut got = Vec::new();
        let exchange = async {
            client.write_all(b"ping").await?;
            client.shutdown().await?;
            client.read_to_end(&mut got).await
        };
        match exchange.await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        served.await.unwrap();
        got
    }

    // spec: TM-5, TM-6, LBL-1, AL-6, LR-32
    #[tokio::test]
    async fn a_connection_is_counted_and_logged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tcp.log").to_str().unwrap().to_owned();
        let writer = LogWriter::start().unwrap();
        let mut registry = Registry::new();
        let mut facts = Facts::alone(Env::seeded(1));
        facts.metrics = Rc::new(IstioMetrics::new(Rc::new(registry.registrar(100))));
        facts.logs = Rc::new(LogSinks::new(writer.buffers(), Rc::new(registry.registrar(100))));
        let back = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::at(Address::Ip(back.local_addr().unwrap()));
        let hosts = Arc::new(HostSet::flat(vec![endpoint]));
        let env = Rc::clone(&facts.env);
        facts.clusters.insert(Cluster::new(Arc::new(ClusterConfig::plain("app")), hosts, env));
        let facts = Rc::new(facts);
        let application = tokio::spawn(async move {
            let (mut stream, _) = back.accept().await.unwrap();
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).await.unwrap();
            stream.write_all(b"pongpong").await.unwrap();
            asked
        });
        let local = LocalSet::new();
        let got = local.run_until(through(&facts, config("app", access_log(&path)))).await;
        assert_eq!((got, application.await.unwrap()), (b"pongpong".to_vec(), b"ping".to_vec()));
        let got = local.run_until(through(&facts, config("missing", access_log(&path)))).await;
        assert_eq!(got, b"");
        facts.logs.lines.flush();
        drop(writer);
        let log = std::fs::read_to_string(path).unwrap();
        assert_eq!(log, "TcpConnectionEnd - 4 8 app -\nTcpConnectionEnd NC 0 0 - -\n");
        let text = registry.collect().prometheus(&Selection::default());
        let value = |name: &str, flags: &str| {
            let line = text
                .lines()
                .find(|l| l.starts_with(&format!("{name}{{")) && l.contains(&format!("response_flags=\"{flags}\"")));
            line.and_then(|l| l.rsplit(' ').next()).unwrap_or("none").to_owned()
        };
        assert_eq!(value("istio_tcp_received_bytes_total", "-"), "4");
        assert_eq!(value("istio_tcp_sent_bytes_total", "-"), "8");
        for flags in ["-", "NC"] {
            assert_eq!(value("istio_tcp_connections_opened_total", flags), "1");
            assert_eq!(value("istio_tcp_connections_closed_total", flags), "1");
        }
        assert!(text.contains("reporter=\"destination\""));
    }

    // spec: TM-6
    #[test]
    fn what_was_reported_is_not_reported_again() {
        let mut registry = Registry::new();
        let mut facts = Facts::alone(Env::seeded(1));
        facts.metrics = Rc::new(IstioMetrics::new(Rc::new(registry.registrar(100))));
        let facts = Rc::new(facts);
        let config = config("app", access_log("/dev/null"));
        let peer = PeerFacts::plain(1, "127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let report = Report::new(&config, &facts, &peer, Some((Reporter::Source, &STATS)));
        report.connected(None);
        let moved = Moved::default();
        for (up, down) in [(10, 1), (10, 1), (15, 4)] {
            moved.up.set(up);
            moved.down.set(down);
            report.moved(&moved);
        }
        let text = registry.collect().prometheus(&Selection { used_only: true, ..Selection::default() });
        let ends: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("bytes_total{"))
            .filter_map(|line| line.rsplit(' ').next())
            .collect();
        assert_eq!(ends, ["15", "4"], "{text}");
    }
}
