//! Sends what the worker's outbox holds: to services of the mesh, through the same clusters, pools and mTLS as traffic.
//!
//! A service that is away costs entries, never a request: a stream that has ended is opened again with the next entries,
//! but not at once; what comes meanwhile is dropped and counted.

use super::Call;
use crate::cluster::Cluster;
use crate::env::Instant;
use crate::filter::Facts;
use crate::message::{Body, Known, Request, RequestHead, Version};
use crate::outcome::{Outcome, Reason};
use crate::telemetry::outbox::{Destination, Parcel, Shape};
use crate::upstream::{Method, Pipe, call, framed, unary_bytes};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const ACCESS_LOGS: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
const OTLP_LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const OTLP_SPANS: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Time limit of a call where the configuration has none.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Calls to one destination that may be under way.
const MAX_CALLS: u32 = 4;
/// Time between two streams to a service that ends them.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// Time that the last entries of a worker have.
const LAST: Duration = Duration::from_secs(1);

/// Sends a worker's entries.
pub(super) struct Exporter {
    facts: Rc<Facts>,
    lines: RefCell<Vec<Line>>,
}

/// What is under way to one destination.
struct Line {
    to: Arc<Destination>,
    calls: Rc<Cell<u32>>,
    stream: Option<Rc<Pipe>>,
    opened: Option<Instant>,
}

impl Exporter {
    pub(super) fn new(facts: Rc<Facts>) -> Rc<Self> {
        Rc::new(Self { facts, lines: RefCell::default() })
    }

    /// Sends what is due, for ever.
    pub(super) async fn run(self: Rc<Self>) {
        loop {
            let parcels = self.facts.logs.outbox.due().await;
            parcels.into_iter().for_each(|parcel| self.send(parcel));
        }
    }

    /// Sends what is left and waits a little for it.
    pub(super) async fn finish(&self) {
        self.facts.logs.outbox.take(None).into_iter().for_each(|parcel| self.send(parcel));
        for line in self.lines.borrow().iter() {
            line.stream.iter().for_each(|stream| stream.end());
        }
        let idle = || self.lines.borrow().iter().all(Line::is_idle);
        let until = Instant::now() + LAST;
        while !idle() && Instant::now() < until {
            tokio::time::sleep(LAST / 100).await;
        }
    }

    fn send(&self, parcel: Parcel) {
        let outbox = &self.facts.logs.outbox;
        let Some(cluster) = self.facts.clusters.get(&parcel.to.service.cluster) else {
            return outbox.dropped(&parcel.to, parcel.count);
        };
        let mut lines = self.lines.borrow_mut();
        let at = lines.iter().position(|line| line.to == parcel.to).unwrap_or(lines.len());
        if at == lines.len() {
            let to = Arc::clone(&parcel.to);
            lines.push(Line { to, calls: Rc::default(), stream: None, opened: None });
        }
        let Some(line) = lines.get_mut(at) else { return };
        match parcel.to.shape {
            Shape::AccessLog { .. } => line.stream(&self.facts, &cluster, &parcel),
            _ if line.calls.get() >= MAX_CALLS => outbox.dropped(&parcel.to, parcel.count),
            _ => line.call(&self.facts, cluster, parcel),
        }
    }
}

impl Line {
    fn is_idle(&self) -> bool {
        self.calls.get() == 0 && self.stream.as_ref().is_none_or(|stream| stream.is_over())
    }

    /// Adds a message to the stream of this line; opens one where there is none.
    fn stream(&mut self, facts: &Rc<Facts>, cluster: &Rc<Cluster>, parcel: &Parcel) {
        let outbox = &facts.logs.outbox;
        self.stream.take_if(|stream| stream.is_over());
        let now = Instant::now();
        let mut first = None;
        if self.stream.is_none() && self.opened.is_none_or(|opened| opened + REOPEN_AFTER <= now) {
            self.opened = Some(now);
            let method = Method { cluster, authority: &parcel.to.service.authority, path: ACCESS_LOGS, metadata: &[] };
            self.stream = Some(Pipe::open(method, None));
            first = Some(&*facts.node.encoded);
        }
        let message = framed(&parcel.to.shape.message(&parcel.entries, first));
        let taken = match (&self.stream, message) {
            (Some(stream), Ok(message)) => stream.push(message),
            _ => false,
        };
        if taken { outbox.sent(&parcel.to, parcel.count) } else { outbox.dropped(&parcel.to, parcel.count) }
    }

    fn call(&self, facts: &Rc<Facts>, cluster: Rc<Cluster>, parcel: Parcel) {
        let (facts, calls) = (Rc::clone(facts), Rc::clone(&self.calls));
        calls.set(calls.get() + 1);
        tokio::task::spawn_local(async move {
            let sent = deliver(&cluster, &parcel).await;
            calls.set(calls.get() - 1);
            match sent {
                Ok(()) => facts.logs.outbox.sent(&parcel.to, parcel.count),
                Err(outcome) => {
                    tracing::debug!(cluster = &*parcel.to.service.cluster, %outcome, "entries could not be delivered");
                    facts.logs.outbox.dropped(&parcel.to, parcel.count);
                }
            }
        });
    }
}

/// Makes a call that the main thread asks for.
pub(super) fn call_for_main(facts: &Rc<Facts>, asked: Call) {
    let cluster = facts.clusters.get(&asked.service.cluster);
    tokio::task::spawn_local(async move {
        let done = match cluster {
            None => Err(Reason::UnknownCluster.into()),
            Some(cluster) => {
                let timeout = asked.service.timeout.unwrap_or(TIMEOUT);
                let method =
                    Method { cluster: &cluster, authority: &asked.service.authority, path: asked.path, metadata: &[] };
                unary_bytes(method, asked.message, (timeout, Instant::now() + timeout)).await.map(drop)
            }
        };
        if let Err(outcome) = &done {
            tracing::debug!(cluster = &*asked.service.cluster, path = asked.path, %outcome, "call failed");
        }
        if asked.done.send(done.is_ok()).is_err() {
            tracing::trace!("nobody waits for the call any more");
        }
    });
}

/// One message as a call of its own.
async fn deliver(cluster: &Rc<Cluster>, parcel: &Parcel) -> Result<(), Outcome> {
    let to = &parcel.to;
    let timeout = to.service.timeout.unwrap_or(TIMEOUT);
    let deadline = Instant::now() + timeout;
    let message = to.shape.message(&parcel.entries, None);
    let (path, kind): (&str, &[u8]) = match &to.shape {
        Shape::OtlpLogs { .. } => (OTLP_LOGS, b""),
        Shape::OtlpSpans { .. } => (OTLP_SPANS, b""),
        Shape::OtlpHttpSpans { path, .. } => (path, b"application/x-protobuf"),
        Shape::ZipkinSpans { path } => (path, b"application/json"),
        Shape::AccessLog { .. } => return Ok(()),
    };
    if kind.is_empty() {
        let method = Method { cluster, authority: &to.service.authority, path, metadata: &[] };
        return unary_bytes(method, framed(&message)?, (timeout, deadline)).await.map(drop);
    }
    let mut head = RequestHead::new(Version::H11, b"POST", b"http", to.service.authority.as_bytes(), path.as_bytes());
    head.headers.append_known(Known::ContentType, kind);
    let answer = call(cluster, Request { head, body: Body::full(message) }, deadline).await?;
    match answer.head.status {
        200..=299 => Ok(()),
        status => Err(Outcome::with_detail(Reason::UpstreamProtocol, format!("status {status}"))),
    }
}
