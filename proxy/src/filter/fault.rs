//! `envoy.filters.http.fault`: delays and aborts on purpose (VS-34, VS-35, LR-14).

use super::{Decision, Step, StreamCx, grpc_reply, plain};
use crate::message::matcher::HeaderMatcher;
use crate::message::{Request, Response};
use crate::outcome::{Flags, Reason};
use crate::refusal::{Refusal, Within};
use proto::any;
use proto::duration::from_proto;
use proto::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use proto::envoy::http_filters::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType};
use proto::envoy::types::{FractionalPercent, fractional_percent::DenominatorType};
use proto::envoy::wkt::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The filter's name, under which routes have their own configuration.
pub const NAME: &str = "envoy.filters.http.fault";

/// A share of requests.
#[derive(Debug, Clone, Copy)]
struct Share {
    numerator: u64,
    denominator: u64,
}

#[derive(Debug, Clone, Copy)]
enum Abort {
    Http(u16),
    Grpc(u32),
}

/// Which requests are hurt, and how.
#[derive(Debug)]
pub struct Fault {
    delay: Option<(Duration, Share)>,
    abort: Option<(Abort, Share)>,
    headers: Vec<HeaderMatcher>,
    cluster: Option<Box<str>>,
    /// Faults in progress at most, and now; written by every worker.
    max_active: Option<u32>,
    active: Arc<AtomicU32>,
}

/// Parses the filter, or what a route has for it.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any) -> Result<Fault, Refusal> {
    let written: HttpFault = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    if written.response_rate_limit.is_some() {
        return Err(Refusal::unsupported("response_rate_limit"));
    }
    let delay = match &written.delay {
        None => None,
        Some(delay) => match &delay.fault_delay_secifier {
            Some(FaultDelaySecifier::FixedDelay(time)) => Some((from_proto(time), share(delay.percentage.as_ref()))),
            Some(_) => return Err(Refusal::unsupported("delay.header_delay")),
            None => return Err(Refusal::new("delay.fixed_delay", "is needed")),
        },
    };
    let headers = written.headers.iter().enumerate();
    let headers = headers.map(|(i, m)| HeaderMatcher::parse(m).within(&format!("headers[{i}]")));
    Ok(Fault {
        delay,
        abort: written.abort.as_ref().map(abort).transpose().within("abort")?,
        headers: headers.collect::<Result<_, _>>()?,
        cluster: (!written.upstream_cluster.is_empty()).then(|| written.upstream_cluster.as_str().into()),
        max_active: written.max_active_faults.as_ref().map(|n| n.value),
        active: Arc::default(),
    })
}

fn abort(written: &FaultAbort) -> Result<(Abort, Share), Refusal> {
    let kind = match &written.error_type {
        Some(ErrorType::HttpStatus(status)) => {
            let status = u16::try_from(*status).ok().filter(|s| (200..600).contains(s));
            Abort::Http(status.ok_or_else(|| Refusal::new("http_status", "200 to 599"))?)
        }
        Some(ErrorType::GrpcStatus(status)) => Abort::Grpc(*status),
        Some(ErrorType::HeaderAbort(_)) => return Err(Refusal::unsupported("header_abort")),
        None => return Err(Refusal::new("error_type", "http_status or grpc_status is needed")),
    };
    Ok((kind, share(written.percentage.as_ref())))
}

/// Absent is nothing (VS-34).
fn share(written: Option<&FractionalPercent>) -> Share {
    let denominator = match written.map(|p| DenominatorType::try_from(p.denominator)) {
        Some(Ok(DenominatorType::TenThousand)) => 10_000,
        Some(Ok(DenominatorType::Million)) => 1_000_000,
        _ => 100,
    };
    Share { numerator: written.map_or(0, |p| u64::from(p.numerator)), denominator }
}

/// Counts a fault in progress.
struct Active<'a>(&'a AtomicU32);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fault {
    /// What may happen to a request, for people; `None` where nothing can.
    pub fn describe(&self, head: &crate::message::RequestHead) -> Option<String> {
        if !self.headers.iter().all(|matcher| matcher.matches_request(head)) {
            return None;
        }
        let percent = |share: &Share| 100.0 * share.numerator as f64 / share.denominator.max(1) as f64;
        let delay = self.delay.as_ref().map(|(time, share)| format!("{} % are delayed by {time:?}", percent(share)));
        let abort = self.abort.as_ref().map(|(how, share)| match how {
            Abort::Http(status) => format!("{} % are answered with {status}", percent(share)),
            Abort::Grpc(status) => format!("{} % are answered with gRPC status {status}", percent(share)),
        });
        let all: Vec<String> = delay.into_iter().chain(abort).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    pub(super) fn on_request<'a>(&'a self, rq: &'a Request, cx: &'a StreamCx) -> Step<'a> {
        let own = cx.override_of::<Self>(&rq.head, NAME);
        let (delay, abort) = own.as_deref().unwrap_or(self).drawn(rq, cx);
        let Some(delay) = delay else {
            return match abort {
                Some(abort) => Step::Done(Decision::Reply(Box::new(answer(abort, rq, cx)))),
                None => Step::CONTINUE,
            };
        };
        cx.info.borrow_mut().flags.insert(Flags::DI);
        let active = Arc::clone(&own.as_deref().unwrap_or(self).active);
        Step::Wait(Box::pin(async move {
            active.fetch_add(1, Ordering::Relaxed);
            let _counted = Active(&active);
            tokio::time::sleep(delay).await;
            match abort {
                Some(abort) => Decision::Reply(Box::new(answer(abort, rq, cx))),
                None => Decision::Continue,
            }
        }))
    }

    /// What happens to this request; delay and abort are drawn independently.
    fn drawn(&self, rq: &Request, cx: &StreamCx) -> (Option<Duration>, Option<Abort>) {
        if self.delay.is_none() && self.abort.is_none() {
            return (None, None);
        }
        let elsewhere = self.cluster.as_ref().is_some_and(|wanted| {
            let route = cx.route(&rq.head);
            route.and_then(|route| route.choose(&rq.head, cx.random).map(|c| c.cluster)).is_none_or(|c| *c != **wanted)
        });
        let full = self.max_active.is_some_and(|max| self.active.load(Ordering::Relaxed) >= max);
        if elsewhere || full || !self.headers.iter().all(|matcher| matcher.matches_request(&rq.head)) {
            return (None, None);
        }
        let hit = |share: Share| cx.facts.env.chance(share.numerator, share.denominator);
        let delay = self.delay.and_then(|(time, share)| hit(share).then_some(time));
        let abort = self.abort.and_then(|(abort, share)| hit(share).then_some(abort));
        (delay, abort)
    }
}

fn answer(abort: Abort, rq: &Request, cx: &StreamCx) -> Response {
    cx.note(Reason::FaultAbort);
    let text = Reason::FaultAbort.face().body;
    match abort {
        Abort::Http(status) => plain(status, text.to_owned(), &rq.head),
        Abort::Grpc(code) => grpc_reply(code, text),
    }
}
