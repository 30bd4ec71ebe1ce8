//! Request down, response up.

use super::{Decision, Filter, FilterState, Step, StreamCx};
use crate::message::{Request, Response};

/// What the request half decided.
#[derive(Debug)]
pub enum Verdict {
    /// Forward.
    Continue,
    /// Answer with this.
    Reply(Box<Response>),
}

/// Passes the request through all filters in order.
pub async fn request_half(chain: &[Filter], states: &mut [FilterState], rq: &mut Request, cx: &StreamCx) -> Verdict {
    let mut answer = None;
    for (filter, state) in chain.iter().zip(states) {
        if cx.is_disabled(&rq.head, filter.name()) {
            *state = FilterState::Disabled;
            continue;
        }
        if answer.is_some() {
            continue;
        }
        let decision = match filter.on_request(state, rq, cx) {
            Step::Done(decision) => decision,
            Step::Wait(wait) => {
                cx.waited.set(true);
                wait.await
            }
        };
        if let Decision::Reply(response) = decision {
            answer = Some(response); // the others only learn whether they are switched off
        }
    }
    answer.map_or(Verdict::Continue, Verdict::Reply)
}

/// Passes the response through all filters in reverse order, as Envoy does with local replies too: filters that did not
/// see the request see the response. A filter that answers replaces the response.
pub async fn response_half(chain: &[Filter], states: &mut [FilterState], response: &mut Response, cx: &StreamCx) {
    for (filter, state) in chain.iter().zip(states).rev() {
        if matches!(state, FilterState::Disabled) {
            continue;
        }
        let decision = match filter.on_response(state, response, cx) {
            Step::Done(decision) => decision,
            Step::Wait(wait) => {
                cx.waited.set(true);
                wait.await
            }
        };
        if let Decision::Reply(other) = decision {
            *response = *other;
        }
    }
}
