//! The trace of a request on its way through this proxy: begun with the request, told to the next hop, named by the
//! route or by the other side (TR-1 to TR-3).

use super::request_id;
use crate::cluster::Cluster;
use crate::env::Instant;
use crate::filter::StreamCx;
use crate::message::{Known, RequestHead, ResponseHead};
use crate::route::Route;
use crate::telemetry::trace::{Direction, Trace, TraceConfig};
use std::rc::Rc;
use std::sync::Arc;

/// Decides whether the request is followed, and begins its span.
pub(super) fn begin(config: &Arc<TraceConfig>, reason: (bool, bool), cx: &StreamCx, head: &mut RequestHead) {
    let sampled = request_id::is_traced(head, config, reason, cx.random);
    if config.driver.is_none() {
        return;
    }
    let direction = if cx.inbound { Direction::Inbound } else { Direction::Outbound };
    let mut trace = Trace::begin(config, head, direction, sampled, || cx.facts.env.bits());
    name(&mut trace, config, cx, head);
    trace.write(head);
    cx.info.borrow_mut().trace = Some(trace);
}

/// The span's name: what is configured, else what the client's proxy calls it (inbound), else what the route calls it.
/// A client's proxy passes its name on, so that both spans have one.
fn name(trace: &mut Trace, config: &TraceConfig, cx: &StreamCx, head: &mut RequestHead) {
    if let Some(format) = &config.operation {
        let mut name = Vec::new();
        let info = cx.info.borrow();
        format.write_omitting(&super::log::facts(cx, head, &info, None), &mut name);
        return trace.set_operation(&String::from_utf8_lossy(&name));
    }
    let route = cx.route(head);
    let decorated = route.and_then(|route| route.decorator.as_deref());
    match trace.direction() {
        Direction::Inbound => {
            let told = head.headers.get(Known::XEnvoyDecoratorOperation).map(String::from_utf8_lossy);
            if let Some(name) = told.as_deref().or(decorated) {
                trace.set_operation(name);
            }
            trace.told = told.is_some();
            head.headers.remove(Known::XEnvoyDecoratorOperation);
        }
        Direction::Outbound => {
            if let Some(name) = decorated {
                trace.set_operation(name);
                if route.is_some_and(propagates) {
                    head.headers.set(Known::XEnvoyDecoratorOperation, name.as_bytes());
                }
            }
        }
    }
}

fn propagates(route: &Route) -> bool {
    route.decorator_propagate
}

/// The answer's side: a server's proxy says what it calls the operation, a client's proxy takes that over.
pub(super) fn answered(cx: &StreamCx, request: &RequestHead, head: &mut ResponseHead) {
    // The route may be looked up anew, and by what is noted: nothing is borrowed meanwhile.
    let Some((direction, told)) = cx.info.borrow().trace.as_ref().map(|trace| (trace.direction(), trace.told)) else {
        return;
    };
    match direction {
        Direction::Inbound if !told => {
            if let Some(route) = cx.route(request)
                && let Some(name) = route.decorator.as_deref().filter(|_| propagates(route))
            {
                head.headers.set(Known::XEnvoyDecoratorOperation, name.as_bytes());
            }
        }
        Direction::Inbound => {}
        Direction::Outbound => {
            if let Some(name) = head.headers.get(Known::XEnvoyDecoratorOperation) {
                if let Some(trace) = &mut cx.info.borrow_mut().trace {
                    trace.set_operation(&String::from_utf8_lossy(name));
                }
                head.headers.remove(Known::XEnvoyDecoratorOperation);
            }
        }
    }
}

/// A try begins at `now`: where each has a span, the next hop is told of that one.
pub(super) fn try_begins(cx: &StreamCx, head: &mut RequestHead, now: Instant) {
    if let Some(trace) = cx.info.borrow_mut().trace.as_mut().filter(|trace| trace.has_tries()) {
        trace.try_begins(head, cx.facts.env.bits() as u64 | 1, cx.facts.env.wall(now));
    }
}

/// The try that began at `start` has ended, with this status or without an answer.
pub(super) fn try_ended(cx: &StreamCx, cluster: &Rc<Cluster>, start: Instant, status: Option<u16>) {
    let info = &mut *cx.info.borrow_mut();
    let peer = &info.endpoint;
    if let Some(trace) = info.trace.as_mut().filter(|trace| trace.has_tries()) {
        let (peer, took) = (peer.as_ref().map(|endpoint| &*endpoint.text), cx.now().saturating_duration_since(start));
        trace.try_ended(&cluster.config.name, peer, took, status.unwrap_or_default());
    }
}
