//! Request down, response up.

use super::{Decision, Filter, FilterState, Step, StreamCx};
use crate::message::{Request, Response};

/// What the request half decided.
#[derive(Debug)]
pub enum Verdict {
    /// Forward.
    Continue,
    /// Answer with this; filters from `from` on (exclusive) did not see the request.
    Reply {
        /// The answer.
        response: Box<Response>,
        /// Index of the filter that answered.
        from: usize,
    },
}

/// Passes the request through all filters in order.
pub async fn request_half(chain: &[Filter], states: &mut [FilterState], rq: &mut Request, cx: &StreamCx) -> Verdict {
    for (from, (filter, state)) in chain.iter().zip(states).enumerate() {
        if cx.is_disabled(&rq.head, filter.name()) {
            *state = FilterState::Disabled;
            continue;
        }
        let decision = match filter.on_request(state, rq, cx) {
            Step::Done(decision) => decision,
            Step::Wait(wait) => wait.await,
        };
        if let Decision::Reply(response) = decision {
            return Verdict::Reply { response, from };
        }
    }
    Verdict::Continue
}

/// Passes the response through the first `upto` filters in reverse order. A filter that answers replaces the response.
pub async fn response_half(
    chain: &[Filter],
    states: &mut [FilterState],
    upto: usize,
    response: &mut Response,
    cx: &StreamCx,
) {
    let seen = chain.iter().zip(states).take(upto);
    for (filter, state) in seen.rev() {
        if matches!(state, FilterState::Disabled) {
            continue;
        }
        let decision = match filter.on_response(state, response, cx) {
            Step::Done(decision) => decision,
            Step::Wait(wait) => wait.await,
        };
        if let Decision::Reply(other) = decision {
            *response = *other;
        }
    }
}
