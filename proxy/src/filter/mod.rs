//! HTTP filters: a slice of one enum, called in order; a filter allocates only when it must wait.
//!
//! Knows a stream's request, response and context. Must never know a codec, a connection or the worker.

pub mod alpn;
pub mod buffer;
mod chain;
pub mod cors;
pub mod ext_authz;
pub mod fault;
pub mod grpc_stats;
pub mod header_mutation;
pub mod jwt_authn;
pub mod lease;
pub mod local_ratelimit;
pub mod on_demand;
pub mod peer_metadata;
pub mod rate_limit_quota;
pub mod ratelimit;
pub mod rbac;
pub mod registry;
mod reply;
pub mod stats;
mod stream_cx;

pub use chain::{Verdict, request_half, response_half};
pub use reply::{grpc_reply, grpc_status, is_grpc, plain, reply};
pub use stats::ends;
pub use stream_cx::{Facts, LeaseBook, Pulled, Received, StreamCx, StreamInfo};

use crate::message::{Request, RequestHead, Response, ResponseHead};
use crate::outcome::Outcome;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that no other filter of this process has: what a service leaves with a filter is kept under it.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Name and value of a header.
pub type Field = (Box<[u8]>, Box<[u8]>);

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
    /// The route switches the filter off.
    Disabled,
    /// The policy and the origin that it allows.
    Cors(Arc<cors::Cors>, Box<[u8]>),
    /// Headers for the client, of a service that was asked.
    ForClient(Box<[Field]>),
    /// Whether the client takes part in the exchange.
    PeerMetadata {
        /// It sent its own.
        exchanges: bool,
    },
}

/// One filter of a chain, with its configuration.
#[derive(Debug)]
pub enum Filter {
    /// `istio.alpn`
    Alpn(alpn::Alpn),
    /// `envoy.filters.http.buffer`
    Buffer(buffer::Buffer),
    /// `envoy.filters.http.cors`
    Cors,
    /// `envoy.filters.http.ext_authz`
    ExtAuthz(ext_authz::ExtAuthz),
    /// `envoy.filters.http.fault`
    Fault(fault::Fault),
    /// `envoy.filters.http.grpc_stats`
    GrpcStats,
    /// `envoy.filters.http.header_mutation`
    HeaderMutation(header_mutation::HeaderMutation),
    /// `envoy.filters.http.jwt_authn`
    JwtAuthn(jwt_authn::JwtAuthn),
    /// `envoy.filters.http.local_ratelimit`
    LocalRateLimit(local_ratelimit::LocalRateLimit),
    /// `envoy.filters.http.on_demand`
    OnDemand(on_demand::OnDemand),
    /// `istio.metadata_exchange`
    PeerMetadata(peer_metadata::PeerMetadata),
    /// `envoy.filters.http.ratelimit`
    RateLimit(Box<ratelimit::RateLimitFilter>),
    /// `envoy.filters.http.rate_limit_quota`
    RateLimitQuota(Box<rate_limit_quota::RateLimitQuota>),
    /// `envoy.filters.http.rbac`
    Rbac(rbac::Rbac),
    /// `istio.stats`
    Stats(stats::Stats),
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
    /// The name under which a route has configuration for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Alpn(_) => "istio.alpn",
            Self::Buffer(_) => buffer::NAME,
            Self::Cors => cors::NAME,
            Self::ExtAuthz(_) => ext_authz::NAME,
            Self::Fault(_) => fault::NAME,
            Self::GrpcStats => "envoy.filters.http.grpc_stats",
            Self::HeaderMutation(_) => "envoy.filters.http.header_mutation",
            Self::JwtAuthn(_) => jwt_authn::NAME,
            Self::LocalRateLimit(_) => local_ratelimit::NAME,
            Self::OnDemand(_) => "envoy.filters.http.on_demand",
            Self::PeerMetadata(_) => "istio.metadata_exchange",
            Self::RateLimit(_) => ratelimit::NAME,
            Self::RateLimitQuota(_) => rate_limit_quota::NAME,
            Self::Rbac(_) => rbac::NAME,
            Self::Stats(_) => "istio.stats",
        }
    }

    /// The request passes, on its way down.
    pub fn on_request<'a>(&'a self, st: &'a mut FilterState, rq: &'a mut Request, cx: &'a StreamCx) -> Step<'a> {
        match self {
            Self::Alpn(alpn) => *cx.alpn.borrow_mut() = Some(alpn.clone()),
            Self::Buffer(filter) => return filter.on_request(rq, cx),
            Self::Cors => return cors::on_request(st, rq, cx),
            Self::ExtAuthz(filter) => return filter.on_request(st, rq, cx),
            Self::Fault(filter) => return filter.on_request(rq, cx),
            Self::GrpcStats => grpc_stats::on_request(rq, cx),
            Self::HeaderMutation(filter) => filter.on_request(rq, cx),
            Self::JwtAuthn(filter) => return filter.on_request(rq, cx),
            Self::LocalRateLimit(filter) => return filter.on_request(rq, cx),
            Self::OnDemand(filter) => return filter.on_request(rq, cx),
            Self::PeerMetadata(filter) => filter.on_request(st, rq, cx),
            Self::RateLimit(filter) => return filter.on_request(st, rq, cx),
            Self::RateLimitQuota(filter) => return filter.on_request(rq, cx),
            Self::Rbac(filter) => return filter.on_request(rq, cx),
            Self::Stats(_) => {}
        }
        Step::CONTINUE
    }

    /// The response passes, on its way up.
    pub fn on_response<'a>(&'a self, st: &'a mut FilterState, rs: &'a mut Response, cx: &'a StreamCx) -> Step<'a> {
        match self {
            Self::Cors => cors::on_response(st, rs),
            Self::GrpcStats => grpc_stats::on_response(rs, cx),
            Self::HeaderMutation(filter) => filter.on_response(rs),
            Self::PeerMetadata(filter) => filter.on_response(st, rs, cx),
            Self::ExtAuthz(_) | Self::RateLimit(_) => {
                if let FilterState::ForClient(headers) = st {
                    headers.iter().for_each(|(name, value)| rs.head.headers.append(name, value));
                }
            }
            _ => {}
        }
        Step::CONTINUE
    }

    /// How often it wants to be told that a gRPC stream goes on.
    pub fn period(&self) -> Option<Duration> {
        match self {
            Self::Stats(filter) => Some(filter.period),
            _ => None,
        }
    }

    /// A gRPC stream goes on.
    pub fn on_period(&self, cx: &StreamCx) {
        if let Self::Stats(filter) = self {
            filter.on_period(cx);
        }
    }

    /// The stream has ended.
    pub fn on_end(&self, _st: &mut FilterState, end: &End<'_>, cx: &StreamCx) {
        if let Self::Stats(filter) = self {
            filter.on_end(end, cx);
        }
    }
}
