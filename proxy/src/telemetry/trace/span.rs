//! The spans of one request.

use super::config::{Driver, HeaderKind, TraceConfig};
use super::context::Context;
use super::write;
use crate::message::RequestHead;
use crate::telemetry::access_log::LogFacts;
use crate::telemetry::outbox::Outbox;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Which way a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the workload: the span is the server's.
    Inbound,
    /// From the workload: the span is the client's.
    Outbound,
}

/// The span of a request at this proxy, and those of its tries.
#[derive(Debug)]
pub struct Trace {
    config: Arc<TraceConfig>,
    context: Context,
    direction: Direction,
    /// The server's span is the client's.
    shared: bool,
    operation: Option<Box<str>>,
    /// The client's proxy has named the span.
    pub told: bool,
    tries: Vec<Try>,
}

/// One try.
#[derive(Debug)]
pub(super) struct Try {
    pub(super) span: u64,
    pub(super) cluster: Arc<str>,
    pub(super) peer: Option<Box<str>>,
    pub(super) start: SystemTime,
    pub(super) duration: Duration,
    pub(super) status: u16,
}

/// A span as a collector sees it.
pub(super) struct Span<'a> {
    pub(super) context: Context,
    pub(super) direction: Direction,
    pub(super) shared: bool,
    pub(super) name: &'a str,
    pub(super) start: SystemTime,
    pub(super) duration: Duration,
    pub(super) local: Option<SocketAddr>,
    pub(super) tags: Vec<(&'a str, String)>,
    pub(super) failed: bool,
}

/// Who a proxy is, in spans.
#[derive(Debug, Clone, Copy)]
pub struct Teller<'a> {
    /// Node id.
    pub node: &'a str,
    /// Service cluster.
    pub cluster: &'a str,
}

impl Trace {
    /// Takes the trace of a request over, or begins one; `sampled` is what was decided here, `random` gives ids.
    pub fn begin(
        config: &Arc<TraceConfig>,
        head: &RequestHead,
        direction: Direction,
        sampled: bool,
        mut random: impl FnMut() -> u128,
    ) -> Self {
        let headers = &head.headers;
        let driver = config.driver.as_ref();
        let kind = driver.map_or(HeaderKind::W3c, |driver| driver.headers);
        let found = match kind {
            HeaderKind::B3 => Context::of_b3(headers),
            HeaderKind::B3AndW3c => Context::of_b3(headers).or_else(|| Context::of_w3c(headers)),
            HeaderKind::W3c => Context::of_w3c(headers),
        };
        let shared = driver.is_some_and(|driver| driver.shared) && found.is_some() && direction == Direction::Inbound;
        let alone = if kind == HeaderKind::W3c { None } else { Context::decision_alone(headers) };
        let span = random() as u64 | 1;
        let context = match found {
            Some(found) if shared => found,
            Some(found) => found.child(span),
            None => Context {
                trace: random() | 1,
                wide: driver.is_none_or(|driver| driver.wide),
                span,
                parent: None,
                sampled: alone,
            },
        };
        let context = match context.wide {
            true => context,
            false => Context { trace: context.trace & u128::from(u64::MAX), ..context },
        };
        let context = Context { sampled: Some(context.sampled.unwrap_or(sampled)), ..context };
        Self { config: Arc::clone(config), context, direction, shared, operation: None, told: false, tries: Vec::new() }
    }

    /// The span within its trace.
    pub fn context(&self) -> Context {
        self.context
    }

    /// Whether it is recorded.
    pub fn is_sampled(&self) -> bool {
        self.context.sampled == Some(true)
    }

    /// Which way the request goes.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Names the span, where anyone will see it.
    pub fn set_operation(&mut self, name: &str) {
        self.operation = self.is_sampled().then(|| name.into());
    }

    /// Tells the next hop of this span.
    pub fn write(&self, head: &mut RequestHead) {
        write_context(&self.context, self.config.driver.as_ref(), head);
    }

    /// Whether each try has a span.
    pub fn has_tries(&self) -> bool {
        self.config.span_per_try
    }

    /// A try begins at `start`, with a span of its own: the next hop is told of that.
    pub fn try_begins(&mut self, head: &mut RequestHead, span: u64, start: SystemTime) {
        write_context(&self.context.child(span), self.config.driver.as_ref(), head);
        if self.is_sampled() {
            let (cluster, duration) = (Arc::from(""), Duration::ZERO);
            self.tries.push(Try { span, cluster, peer: None, start, duration, status: 0 });
        }
    }

    /// The try that began last has ended; status 0 where there was no answer.
    pub fn try_ended(&mut self, cluster: &Arc<str>, peer: Option<&str>, duration: Duration, status: u16) {
        if let Some(last) = self.tries.last_mut() {
            last.cluster = Arc::clone(cluster);
            last.peer = peer.map(Into::into);
            last.duration = duration;
            last.status = status;
        }
    }

    /// Tells the collector, once the request has ended.
    pub fn report(&self, facts: &LogFacts<'_>, teller: Teller<'_>, outbox: &Outbox) {
        let Some(driver) = self.config.driver.as_ref().filter(|_| self.is_sampled()) else { return };
        let host = facts.request.map(|head| String::from_utf8_lossy(head.authority()).into_owned()).unwrap_or_default();
        let span = Span {
            context: self.context,
            direction: self.direction,
            shared: self.shared,
            name: self.operation.as_deref().unwrap_or(&host),
            start: facts.start.unwrap_or(SystemTime::UNIX_EPOCH),
            duration: facts.times.total.unwrap_or_default(),
            local: facts.peer.map(|peer| peer.local),
            tags: write::tags(&self.config, facts, teller),
            failed: facts.status.is_none_or(|status| status == 0 || status >= 500),
        };
        outbox.put(&driver.to, |out| write::span(driver, &span, teller, out));
        for one in &self.tries {
            let name = format!("router {} egress", one.cluster);
            let span = Span {
                context: self.context.child(one.span),
                direction: Direction::Outbound,
                shared: false,
                name: &name,
                start: one.start,
                duration: one.duration,
                local: None,
                tags: write::tags_of_try(one),
                failed: one.status == 0 || one.status >= 500,
            };
            outbox.put(&driver.to, |out| write::span(driver, &span, teller, out));
        }
    }
}

fn write_context(context: &Context, driver: Option<&Driver>, head: &mut RequestHead) {
    let Some(driver) = driver else { return };
    if driver.headers != HeaderKind::W3c {
        context.write_b3(&mut head.headers);
    }
    if driver.headers != HeaderKind::B3 {
        context.write_w3c(&mut head.headers);
    }
}
