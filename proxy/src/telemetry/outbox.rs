//! What a worker has to tell other processes: entries of access logs and spans, collected until they are worth a message.
//!
//! Nobody on a request's path waits: an entry goes to the end of a buffer. The worker's exporter takes the buffers when
//! they are due. What finds a buffer full is dropped and counted (robustness F4).

use super::counters::Cells;
use super::names::{LogExportMetric as Log, SpanExportMetric as Span};
use super::series::{Labels, Registrar};
use crate::env::Instant;
use crate::net::Service;
use bytes::{BufMut, Bytes};
use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes of one destination that may wait.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Time after which a buffer is sent where nothing is configured (`buffer_flush_interval`).
pub const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// Bytes at which a buffer is sent where nothing is configured (`buffer_size_bytes`).
pub const FLUSH_AT: usize = 16 << 10;

/// Where entries go, and how they are put together there.
#[derive(Debug, Clone, PartialEq)]
pub struct Destination {
    /// The service.
    pub service: Service,
    /// The messages.
    pub shape: Shape,
    /// Longest time that an entry waits.
    pub flush_after: Duration,
    /// Bytes at which a buffer is sent.
    pub flush_at: usize,
}

/// What a message looks like; each entry is a field of it that is encoded already.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// `StreamAccessLogsMessage` of a log of this name: one stream, whose first message says who sends.
    AccessLog {
        /// Name of the log.
        name: Box<str>,
        /// Entries of TCP connections, not of requests.
        tcp: bool,
    },
    /// `ExportLogsServiceRequest`, each a call.
    OtlpLogs {
        /// The encoded `Resource`.
        resource: Bytes,
    },
    /// `ExportTraceServiceRequest`, each a call.
    OtlpSpans {
        /// The encoded `Resource`.
        resource: Bytes,
    },
    /// The same over HTTP.
    OtlpHttpSpans {
        /// The encoded `Resource`.
        resource: Bytes,
        /// Path of the request.
        path: Box<str>,
    },
    /// A JSON list of Zipkin's spans, over HTTP.
    ZipkinSpans {
        /// Path of the request.
        path: Box<str>,
    },
}

impl Shape {
    /// The body of a message that carries `entries`; `node` says who sends.
    pub fn message(&self, entries: &[u8], first: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(entries.len() + 64);
        match self {
            Self::AccessLog { name, tcp } => {
                if let Some(node) = first {
                    // Identifier: node = 1, log_name = 2.
                    let mut identifier = Vec::with_capacity(node.len() + name.len() + 8);
                    field(1, node, &mut identifier);
                    field(2, name.as_bytes(), &mut identifier);
                    field(1, &identifier, &mut out);
                }
                field(if *tcp { 3 } else { 2 }, entries, &mut out);
            }
            Self::OtlpLogs { resource } | Self::OtlpSpans { resource } | Self::OtlpHttpSpans { resource, .. } => {
                // resource_logs (spans) = 1 { resource = 1, scope_logs (spans) = 2 }; the entries are fields 2 of a scope.
                let mut of_resource = Vec::with_capacity(entries.len() + resource.len() + 16);
                field(1, resource, &mut of_resource);
                field(2, entries, &mut of_resource);
                field(1, &of_resource, &mut out);
            }
            Self::ZipkinSpans { .. } => {
                out.push(b'[');
                out.extend_from_slice(entries.strip_suffix(b",").unwrap_or(entries));
                out.push(b']');
            }
        }
        out
    }
}

/// Appends a length-delimited field of a protobuf message.
pub(super) fn field(number: u32, value: &[u8], out: &mut Vec<u8>) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(value.len() as u64, out);
    out.put_slice(value);
}

/// Entries that are due.
#[derive(Debug)]
pub struct Parcel {
    /// Where they go.
    pub to: Arc<Destination>,
    /// The entries, one after the other.
    pub entries: Vec<u8>,
    /// How many.
    pub count: u64,
}

#[derive(Debug)]
struct Waiting {
    to: Arc<Destination>,
    entries: Vec<u8>,
    count: u64,
    /// When the first entry came.
    due: Option<Instant>,
}

/// The outbox of one worker.
#[derive(Debug)]
pub struct Outbox {
    /// By destination; there are few.
    waiting: RefCell<Vec<Waiting>>,
    /// A buffer has its first entry, or is full.
    changed: Notify,
    registrar: Rc<Registrar>,
    logs: OnceCell<Cells<Log>>,
    spans: OnceCell<Cells<Span>>,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(registrar: Rc<Registrar>) -> Self {
        Self {
            waiting: RefCell::default(),
            changed: Notify::new(),
            registrar,
            logs: OnceCell::new(),
            spans: OnceCell::new(),
        }
    }

    /// Adds an entry that `write` appends.
    pub fn put(&self, to: &Arc<Destination>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut all = self.waiting.borrow_mut();
        let at = all.iter().position(|known| Arc::ptr_eq(&known.to, to) || known.to == *to).unwrap_or(all.len());
        if at == all.len() {
            all.push(Waiting { to: Arc::clone(to), entries: Vec::new(), count: 0, due: None });
        }
        let Some(waiting) = all.get_mut(at) else { return };
        if waiting.entries.len() >= MAX_WAITING_BYTES {
            return self.dropped(to, 1);
        }
        write(&mut waiting.entries);
        waiting.count += 1;
        match waiting.due {
            None => {
                waiting.due = Some(Instant::now() + to.flush_after);
                self.changed.notify_one();
            }
            Some(_) if waiting.entries.len() >= to.flush_at => {
                waiting.due = Some(Instant::now());
                self.changed.notify_one();
            }
            Some(_) => {}
        }
    }

    /// Waits until entries are due, and takes them.
    pub async fn due(&self) -> Vec<Parcel> {
        loop {
            let next = self.waiting.borrow().iter().filter_map(|waiting| waiting.due).min();
            match next {
                Some(at) if at <= Instant::now() => return self.take(Some(Instant::now())),
                Some(at) => {
                    if tokio::time::timeout_at(at, self.changed.notified()).await.is_err() {
                        return self.take(Some(at));
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Takes what is due at `now`, or all.
    pub fn take(&self, now: Option<Instant>) -> Vec<Parcel> {
        let mut all = self.waiting.borrow_mut();
        let due = all.iter_mut().filter(|waiting| match (waiting.due, now) {
            (Some(due), Some(now)) => due <= now,
            (due, None) => due.is_some(),
            (None, Some(_)) => false,
        });
        due.map(|waiting| {
            waiting.due = None;
            Parcel {
                to: Arc::clone(&waiting.to),
                entries: std::mem::take(&mut waiting.entries),
                count: std::mem::take(&mut waiting.count),
            }
        })
        .collect()
    }

    /// So many entries were sent.
    pub fn sent(&self, to: &Destination, count: u64) {
        match &to.shape {
            Shape::AccessLog { tcp: false, .. } => self.logs().add(Log::GrpcWritten, count),
            Shape::AccessLog { tcp: true, .. } => self.logs().add(Log::TcpWritten, count),
            Shape::OtlpLogs { .. } => self.logs().add(Log::OtlpWritten, count),
            Shape::OtlpSpans { .. } | Shape::OtlpHttpSpans { .. } => self.spans().add(Span::OtlpSent, count),
            Shape::ZipkinSpans { .. } => self.spans().add(Span::ZipkinSent, count),
        }
    }

    /// So many entries were dropped.
    pub fn dropped(&self, to: &Destination, count: u64) {
        match &to.shape {
            Shape::AccessLog { tcp: false, .. } => self.logs().add(Log::GrpcDropped, count),
            Shape::AccessLog { tcp: true, .. } => self.logs().add(Log::TcpDropped, count),
            Shape::OtlpLogs { .. } => self.logs().add(Log::OtlpDropped, count),
            Shape::OtlpSpans { .. } | Shape::OtlpHttpSpans { .. } => self.spans().add(Span::OtlpDropped, count),
            Shape::ZipkinSpans { .. } => self.spans().add(Span::ZipkinDropped, count),
        }
    }

    fn logs(&self) -> &Cells<Log> {
        self.logs.get_or_init(|| self.registrar.cells(Labels::default()))
    }

    fn spans(&self) -> &Cells<Span> {
        self.spans.get_or_init(|| self.registrar.cells(Labels::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{MAX_SCOPES, Registry, Selection};

    fn destination(shape: Shape) -> Arc<Destination> {
        let service = Service { cluster: "mixer".into(), authority: "mixer".into(), timeout: None };
        Arc::new(Destination { service, shape, flush_after: FLUSH_AFTER, flush_at: 100 })
    }

    // spec: MX-118
    #[tokio::test(start_paused = true)]
    async fn entries_wait_for_a_second_or_for_a_full_buffer_and_are_dropped_when_nobody_takes_them() {
        let mut registry = Registry::new();
        let outbox = Outbox::new(Rc::new(registry.registrar(MAX_SCOPES)));
        let (one, same) = (destination(access_log()), destination(access_log()));
        let start = Instant::now();
        outbox.put(&one, |out| out.extend_from_slice(b"a"));
        outbox.put(&same, |out| out.extend_from_slice(b"b"));
        let parcels = outbox.due().await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!((parcels.len(), parcels[0].entries.as_slice(), parcels[0].count), (1, &b"ab"[..], 2));
        outbox.put(&one, |out| out.resize(60, 0));
        outbox.put(&one, |out| out.resize(120, 0));
        assert_eq!(outbox.due().await[0].count, 2);
        assert_eq!(start.elapsed(), Duration::from_secs(1), "a full buffer does not wait");
        for _ in 0..20 {
            outbox.put(&one, |out| out.resize(out.len() + MAX_WAITING_BYTES / 10, 0));
        }
        assert_eq!(outbox.take(None)[0].count, 11);
        let used = Selection { used_only: true, ..Selection::default() };
        let text = registry.collect().text(&used);
        assert!(text.contains("access_logs.grpc_access_log.logs_dropped: 9\n"), "{text}");
    }

    fn access_log() -> Shape {
        Shape::AccessLog { name: "ferromesh".into(), tcp: false }
    }

    // spec: MX-95, MX-118
    #[test]
    fn the_first_message_says_who_sends_and_the_others_do_not() {
        use prost::Message as _;
        use proto::envoy::accesslog_service::{StreamAccessLogsMessage, stream_access_logs_message::LogEntries};
        use proto::envoy::core::Node;
        let mut entries = Vec::new();
        field(1, &proto::envoy::log_entry::HttpAccessLogEntry::default().encode_to_vec(), &mut entries);
        field(1, &[], &mut entries);
        let node = Node { id: "n".into(), ..Node::default() }.encode_to_vec();
        let read = |bytes: Vec<u8>| StreamAccessLogsMessage::decode(bytes.as_slice()).unwrap();
        let first = read(access_log().message(&entries, Some(&node)));
        let identifier = first.identifier.unwrap();
        assert_eq!((identifier.node.unwrap().id.as_str(), identifier.log_name.as_str()), ("n", "ferromesh"));
        assert!(matches!(first.log_entries, Some(LogEntries::HttpLogs(logs)) if logs.log_entry.len() == 2));
        assert!(read(access_log().message(&entries, None)).identifier.is_none());
        let tcp = Shape::AccessLog { name: "x".into(), tcp: true };
        assert!(matches!(read(tcp.message(&entries, None)).log_entries, Some(LogEntries::TcpLogs(_))));
    }
}
