//! Istio's standard metrics and their labels (spec TM, LBL), per worker.
//!
//! Labels are resolved once: workloads and services are interned by those who know them (connection, cluster), and a
//! series is found by their addresses, the status, the flags and the protocol. Series are bounded: past the limit all
//! further ones share an overflow series.

mod attribute;
mod change;
mod ends;

pub use change::Changes;
pub use ends::{Ends, Reporter, Security, Service, Workload};

use super::access_log::LogFacts;
use super::counters::{Cells, InFamily};
use super::names::{IstioGrpcMetric, IstioHttpMetric, IstioTcpMetric};
use super::series::{Labels, Registrar};
use crate::outcome::Flags;
use change::Changed;
use foldhash::{HashMap, HashSet};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A request that has ended.
#[derive(Debug, Clone, Copy)]
pub struct RequestReport {
    /// Status; 0 when there was none.
    pub code: u16,
    /// Response flags.
    pub flags: Flags,
    /// `grpc-status`, for gRPC only.
    pub grpc_status: Option<u32>,
    /// Whether the request was gRPC.
    pub is_grpc: bool,
    /// Time to the end of the answer.
    pub duration: Duration,
    /// Bytes received from the client.
    pub request_bytes: u64,
    /// Bytes sent to the client.
    pub response_bytes: u64,
}

/// Code of a key for the messages of gRPC streams, which have none.
const MESSAGES: u16 = u16::MAX;

/// A series is told apart by these; the ends by address, since the map keeps them alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct SeriesKey {
    ends: (usize, usize, usize),
    reporter: Reporter,
    security: Security,
    code: u16,
    flags: u32,
    grpc: Option<Option<u32>>,
}

#[derive(Debug)]
struct HttpSeries {
    cells: Cells<IstioHttpMetric>,
    _ends: Ends,
}

#[derive(Debug)]
struct MessageSeries {
    cells: Cells<IstioGrpcMetric>,
    _ends: Ends,
}

/// The cells of one TCP connection's series.
#[derive(Debug)]
pub struct TcpSeries(TcpCells);

#[derive(Debug)]
enum TcpCells {
    Standard { cells: Cells<IstioTcpMetric>, _ends: Option<Ends> },
    Changed(Rc<change::Series>),
}

/// Changes of the metrics, with the facts that labels of the user's own are taken from.
pub type Own<'a> = (&'a Arc<Changes>, &'a LogFacts<'a>);

/// Workloads of one text by proven identity.
type ByIdentity = Vec<(Option<Box<str>>, Option<Rc<Workload>>)>;

/// Services by the address of their names.
type ByMetadata = HashMap<usize, (Arc<ServiceNames>, Rc<Service>)>;

/// Host, name and namespace of a service.
pub type ServiceNames = [Box<str>; 3];

/// Istio's metrics of one worker.
#[derive(Debug)]
pub struct IstioMetrics {
    registrar: Rc<Registrar>,
    own: OnceCell<Rc<Workload>>,
    workloads: RefCell<HashSet<Rc<Workload>>>,
    services: RefCell<HashSet<Rc<Service>>>,
    /// Workloads by the words that a peer or an endpoint uses for them, then by proven identity.
    by_words: RefCell<HashMap<Box<[u8]>, ByIdentity>>,
    /// Services by the address of their cluster's metadata, which is kept alive here.
    by_metadata: RefCell<ByMetadata>,
    http: RefCell<HashMap<SeriesKey, Rc<HttpSeries>>>,
    messages: RefCell<HashMap<SeriesKey, Rc<MessageSeries>>>,
    tcp: RefCell<HashMap<SeriesKey, Rc<TcpSeries>>>,
    overflow: RefCell<Option<Rc<HttpSeries>>>,
    tcp_overflow: RefCell<Option<Rc<TcpSeries>>>,
    changed: Changed,
}

impl IstioMetrics {
    /// Metrics whose series are registered by `registrar`.
    pub fn new(registrar: Rc<Registrar>) -> Self {
        Self {
            changed: Changed::new(Rc::clone(&registrar)),
            registrar,
            own: OnceCell::new(),
            workloads: RefCell::default(),
            services: RefCell::default(),
            by_words: RefCell::default(),
            by_metadata: RefCell::default(),
            http: RefCell::default(),
            messages: RefCell::default(),
            tcp: RefCell::default(),
            overflow: RefCell::default(),
            tcp_overflow: RefCell::default(),
        }
    }

    /// The worker's copy of the proxy's own workload, which is always the same.
    pub fn own(&self, workload: &Workload) -> Rc<Workload> {
        Rc::clone(self.own.get_or_init(|| self.intern_workload(workload.clone())))
    }

    /// The one copy of a workload on this worker; series are found by its address, so connections share it.
    pub fn intern_workload(&self, workload: Workload) -> Rc<Workload> {
        intern(&self.workloads, workload)
    }

    /// The one copy of a service on this worker.
    pub fn intern_service(&self, service: Service) -> Rc<Service> {
        intern(&self.services, service)
    }

    /// The workload that `words` stand for when they come from a peer of this identity: `read` is asked once per text and
    /// identity, not once per request. `None` is remembered as well.
    pub fn workload_of(
        &self,
        words: &[u8],
        identity: Option<&str>,
        read: impl FnOnce() -> Option<Workload>,
    ) -> Option<Rc<Workload>> {
        let same = |known: &ByIdentity| {
            known.iter().find(|(known, _)| known.as_deref() == identity).map(|(_, workload)| workload.clone())
        };
        if let Some(found) = self.by_words.borrow().get(words).and_then(same) {
            return found;
        }
        let fresh = read().map(|workload| self.intern_workload(workload));
        let mut by_words = self.by_words.borrow_mut();
        // what a stranger sends must not fill the memory: the texts of real proxies are few and short
        if words.len() > MAX_WORDS_BYTES {
            return fresh;
        }
        if by_words.len() >= MAX_WORDS {
            by_words.clear();
        }
        by_words.entry(words.into()).or_default().push((identity.map(Box::from), fresh.clone()));
        fresh
    }

    /// The service of a cluster by its `istio` metadata: host, name, namespace. Made once per cluster.
    pub fn service_of(&self, metadata: &Arc<ServiceNames>) -> Rc<Service> {
        let address = Arc::as_ptr(metadata).addr();
        if let Some((_, service)) = self.by_metadata.borrow().get(&address) {
            return service.clone();
        }
        let [host, name, namespace] = &**metadata;
        let service = Service { host: host.clone(), name: name.clone(), namespace: namespace.clone() };
        let service = self.intern_service(service);
        let mut by_metadata = self.by_metadata.borrow_mut();
        if by_metadata.len() >= MAX_INTERNED {
            by_metadata.clear();
        }
        by_metadata.insert(address, (metadata.clone(), service.clone()));
        service
    }

    /// Counts a request that has ended.
    pub fn report(&self, ends: &Ends, report: &RequestReport, own: Option<Own<'_>>) {
        let millis = u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX);
        if let Some(own) = own
            && self.report_changed((ends, millis), report, own)
        {
            return;
        }
        let series = self.http_series(ends, report);
        series.cells.increment(IstioHttpMetric::RequestsTotal);
        series.cells.record(IstioHttpMetric::RequestDurationMs, millis);
        series.cells.record(IstioHttpMetric::RequestBytes, report.request_bytes);
        series.cells.record(IstioHttpMetric::ResponseBytes, report.response_bytes);
    }

    /// Counts messages of a gRPC stream, from and to the client. They are counted while it is open: as with Istio, their
    /// labels do not say how it ends.
    pub fn messages(&self, ends: &Ends, (received, sent): (u64, u64), own: Option<Own<'_>>) {
        let key = SeriesKey { code: MESSAGES, ..key(ends) };
        let labels = || ends.labels().into_iter().map(|(name, value)| (name, value.into())).collect();
        if let Some(series) = own.and_then(|own| self.changed.series(own, (key, ends), change::GRPC, labels)) {
            series.add(change::GRPC.start, received);
            series.add(change::GRPC.start + 1, sent);
            return;
        }
        let Some(series) = self.message_series(key, ends, labels) else { return };
        series.cells.add(IstioGrpcMetric::RequestMessagesTotal, received);
        series.cells.add(IstioGrpcMetric::ResponseMessagesTotal, sent);
    }

    fn message_series(
        &self,
        key: SeriesKey,
        ends: &Ends,
        labels: impl FnOnce() -> Labels,
    ) -> Option<Rc<MessageSeries>> {
        if let Some(found) = self.messages.borrow().get(&key) {
            return Some(Rc::clone(found));
        }
        let series = Rc::new(MessageSeries { cells: self.registrar.try_cells(labels())?, _ends: ends.clone() });
        self.messages.borrow_mut().insert(key, Rc::clone(&series));
        Some(series)
    }

    /// Counts it where the user has changed something; false once there are too many series.
    fn report_changed(&self, (ends, millis): (&Ends, u64), report: &RequestReport, own: Own<'_>) -> bool {
        let labels = || http_labels(ends, report);
        let Some(series) = self.changed.series(own, (http_key(ends, report), ends), change::HTTP, labels) else {
            return false;
        };
        let values = [1, millis, report.request_bytes, report.response_bytes];
        values.into_iter().enumerate().for_each(|(metric, value)| series.add(metric, value));
        true
    }

    /// Counts a TCP connection that has opened; what it moves is counted on the series.
    pub fn open_tcp(&self, ends: &Ends, flags: Flags, own: Option<Own<'_>>) -> Rc<TcpSeries> {
        let key = SeriesKey { code: 0, flags: flag_key(flags), grpc: None, ..key(ends) };
        let standard = || labels(ends, "tcp", "0", &flags.to_string(), None);
        let changed = own.and_then(|own| self.changed.series(own, (key, ends), change::TCP, standard));
        let series = match changed {
            Some(changed) => Rc::new(TcpSeries(TcpCells::Changed(changed))),
            None => self.tcp_series(key, ends, standard),
        };
        series.add(IstioTcpMetric::ConnectionsOpenedTotal, 1);
        series
    }

    fn tcp_series(&self, key: SeriesKey, ends: &Ends, labels: impl Fn() -> Labels) -> Rc<TcpSeries> {
        let found = self.tcp.borrow().get(&key).cloned();
        found.unwrap_or_else(|| match self.registrar.try_cells(labels()) {
            Some(cells) => {
                let series = Rc::new(TcpSeries(TcpCells::Standard { cells, _ends: Some(ends.clone()) }));
                self.tcp.borrow_mut().insert(key, series.clone());
                series
            }
            None => self.tcp_overflow(),
        })
    }

    fn http_series(&self, ends: &Ends, report: &RequestReport) -> Rc<HttpSeries> {
        let key = http_key(ends, report);
        if let Some(series) = self.http.borrow().get(&key) {
            return series.clone();
        }
        let labels = http_labels(ends, report);
        let Some(cells) = self.registrar.try_cells(labels) else { return self.overflow() };
        let series = Rc::new(HttpSeries { cells, _ends: ends.clone() });
        self.http.borrow_mut().insert(key, series.clone());
        series
    }

    fn overflow(&self) -> Rc<HttpSeries> {
        let make = || {
            let ends = Ends::overflow();
            let labels = labels(&ends, "http", "0", "-", Some(None));
            Rc::new(HttpSeries { cells: self.registrar.cells(labels), _ends: ends })
        };
        self.overflow.borrow_mut().get_or_insert_with(make).clone()
    }

    fn tcp_overflow(&self) -> Rc<TcpSeries> {
        let make = || {
            let labels = labels(&Ends::overflow(), "tcp", "0", "-", None);
            Rc::new(TcpSeries(TcpCells::Standard { cells: self.registrar.cells(labels), _ends: None }))
        };
        self.tcp_overflow.borrow_mut().get_or_insert_with(make).clone()
    }
}

impl TcpSeries {
    /// Counts bytes from and to the client (TM-6: sent is what the client received).
    pub fn moved(&self, received: u64, sent: u64) {
        self.add(IstioTcpMetric::ReceivedBytesTotal, received);
        self.add(IstioTcpMetric::SentBytesTotal, sent);
    }

    /// Counts a connection that has closed.
    pub fn close(&self) {
        self.add(IstioTcpMetric::ConnectionsClosedTotal, 1);
    }

    fn add(&self, metric: IstioTcpMetric, value: u64) {
        match &self.0 {
            TcpCells::Standard { cells, .. } => cells.add(metric, value),
            TcpCells::Changed(series) => series.add(change::TCP.start + metric.index(), value),
        }
    }
}

/// Texts for workloads that are remembered at most.
const MAX_WORDS: usize = 1000;
/// Longest text that is remembered, in bytes.
const MAX_WORDS_BYTES: usize = 2048;

/// Names that are interned at most; what comes after that has a copy of its own, and so a series of its own.
const MAX_INTERNED: usize = 10_000;

fn intern<T: Eq + std::hash::Hash>(known: &RefCell<HashSet<Rc<T>>>, value: T) -> Rc<T> {
    let mut known = known.borrow_mut();
    if let Some(found) = known.get(&value) {
        return found.clone();
    }
    let fresh = Rc::new(value);
    if known.len() < MAX_INTERNED {
        known.insert(fresh.clone());
    }
    fresh
}

fn key(ends: &Ends) -> SeriesKey {
    let address = |workload: &Rc<Workload>| Rc::as_ptr(workload).addr();
    SeriesKey {
        ends: (address(&ends.source), address(&ends.destination), Rc::as_ptr(&ends.service).addr()),
        reporter: ends.reporter,
        security: ends.security,
        code: 0,
        flags: 0,
        grpc: None,
    }
}

fn http_key(ends: &Ends, report: &RequestReport) -> SeriesKey {
    let grpc = report.is_grpc.then_some(report.grpc_status);
    SeriesKey { code: report.code, flags: flag_key(report.flags), grpc, ..key(ends) }
}

fn http_labels(ends: &Ends, report: &RequestReport) -> Labels {
    let protocol = if report.is_grpc { "grpc" } else { "http" };
    labels(ends, protocol, &report.code.to_string(), &report.flags.to_string(), Some(report.grpc_status))
}

/// Flags have no public bits; their short form tells them apart.
fn flag_key(flags: Flags) -> u32 {
    if flags.is_empty() {
        return 0;
    }
    let mut text = Vec::with_capacity(8);
    flags.write_short(&mut text);
    text.iter().fold(2_166_136_261, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(16_777_619))
}

/// All labels; gRPC status is there for HTTP and gRPC only, and empty for HTTP (LBL-5).
fn labels(ends: &Ends, protocol: &str, code: &str, flags: &str, grpc_status: Option<Option<u32>>) -> Labels {
    let mut list = ends.labels();
    list.extend([
        ("request_protocol", protocol),
        ("response_flags", flags),
        ("connection_security_policy", ends.security.as_str()),
    ]);
    let grpc = grpc_status.map(|status| status.map_or_else(String::new, |status| status.to_string()));
    if let Some(grpc) = &grpc {
        list.push(("response_code", code));
        list.push(("grpc_response_status", grpc));
    }
    list.into_iter().map(|(name, value)| (name, value.into())).collect()
}

#[cfg(test)]
mod tests;
