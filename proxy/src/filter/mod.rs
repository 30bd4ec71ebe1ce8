//! HTTP filters: a slice of one enum, called in order; a filter allocates only when it must wait.
//!
//! Knows a stream's request, response and context. Must never know a codec, a connection or the worker.

mod chain;
pub mod ext_authz;
pub mod registry;
mod reply;
mod stream_cx;

pub use chain::{Verdict, request_half, response_half};
pub use reply::{grpc_status, is_grpc, plain, reply};
pub use stream_cx::{Facts, StreamCx, StreamInfo};

use crate::message::{Request, RequestHead, Response, ResponseHead};
use crate::outcome::Outcome;
use std::future::Future;
use std::pin::Pin;

/// What a filter says.
#[derive(Debug)]
pub enum Decision {
    /// Go on.
    Continue,
    /// Answer now; the answer climbs the response half from this filter.
    Reply(Box<Response>),
}

/// What a call of a filter gives back.
pub enum Step<'a> {
    /// Decided at once.
    Done(Decision),
    /// To be waited for.
    Wait(Pin<Box<dyn Future<Output = Decision> + 'a>>),
}

impl Step<'_> {
    /// Goes on at once.
    pub const CONTINUE: Self = Self::Done(Decision::Continue);
}

/// What one filter keeps for one stream.
#[derive(Debug, Default)]
pub enum FilterState {
    /// Nothing.
    #[default]
    None,
}

/// One filter of a chain, with its configuration.
#[derive(Debug)]
pub enum Filter {
    /// `envoy.filters.http.ext_authz`
    ExtAuthz(ext_authz::ExtAuthz),
}

/// How a stream ended, for filters and logs.
#[derive(Debug)]
pub struct End<'a> {
    /// Why.
    pub outcome: &'a Outcome,
    /// The request as it went upstream.
    pub request: &'a RequestHead,
    /// The response as it went downstream.
    pub response: Option<&'a ResponseHead>,
}

impl Filter {
    /// The request passes, on its way down.
    pub fn on_request<'a>(&'a self, _st: &'a mut FilterState, rq: &'a mut Request, cx: &'a StreamCx) -> Step<'a> {
        match self {
            Self::ExtAuthz(filter) => filter.on_request(rq, cx),
        }
    }

    /// The response passes, on its way up.
    pub fn on_response<'a>(&'a self, _st: &'a mut FilterState, _rs: &'a mut Response, _cx: &'a StreamCx) -> Step<'a> {
        match self {
            Self::ExtAuthz(_) => Step::CONTINUE,
        }
    }

    /// The stream has ended.
    pub fn on_end(&self, _st: &mut FilterState, _end: &End<'_>, _cx: &StreamCx) {
        match self {
            Self::ExtAuthz(_) => {}
        }
    }
}
