//! `envoy.filters.http.ext_authz`: asks a service whether a request may pass (HP-13, LR-17, AZ-20).
//!
//! - `config.rs`: the filter and what routes have for it
//! - `grpc.rs`: `envoy.service.auth.v3.Authorization/Check`
//! - `gather.rs`: the part of the body that the service sees
//! - `lease.rs`: answers that may be used again

mod config;
mod gather;
pub mod grpc;
mod lease;

pub use config::{Override, parse, parse_override};

use super::lease::Asked;
use super::{Decision, Step, StreamCx, plain};
use crate::env::Instant;
use crate::message::{Body, Frame, Known, Request, RequestHead, Response, Version};
use crate::net;
use crate::outcome::{Outcome, Reason};
use crate::upstream::call;
use bytes::{Bytes, BytesMut};
use gather::gather;
use std::sync::Arc;
use std::time::Duration;

/// How much of the body goes to the service (`with_request_body`).
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit {
    /// `max_request_bytes`
    pub max_bytes: usize,
    /// `allow_partial_message`: send what there is at the limit; otherwise answer 413.
    pub allow_partial: bool,
    /// `pack_as_bytes`: as bytes, not as text (gRPC).
    pub as_bytes: bool,
}

/// Configuration.
#[derive(Debug)]
pub struct ExtAuthz {
    /// Its own among all filters: leases are kept under it, and go with it.
    pub id: u64,
    /// Who is asked.
    pub service: Service,
    /// Time limit (200 ms).
    pub timeout: Duration,
    /// Let the request pass where the service fails (`failure_mode_allow`).
    pub allow_on_error: bool,
    /// Status where the service fails and that denies (403).
    pub status_on_error: u16,
    /// Body to send along.
    pub body: Option<BodyLimit>,
    /// Names of request headers that go to the service (`allowed_headers`); lower case. Where it is not set, an HTTP
    /// service gets the fixed ones alone and a gRPC service gets all.
    pub request_headers: Option<Box<[Box<[u8]>]>>,
}

/// Who is asked.
#[derive(Debug)]
pub enum Service {
    /// The request itself, without body: status 200 lets it pass.
    Http {
        /// Cluster of the service.
        cluster: Arc<str>,
        /// Prefix of the path that is asked for.
        path_prefix: Box<str>,
        /// Names of the answer's headers that replace the request's where it allows.
        upstream_headers: Box<[Box<[u8]>]>,
    },
    /// `Authorization/Check`.
    Grpc(net::Service),
}

/// The filter's name, under which routes may switch it off.
pub const NAME: &str = "envoy.filters.http.ext_authz";

/// Largest body that a denial may carry, and largest answer of a gRPC service.
const MAX_ANSWER_BYTES: usize = 64 << 10;

impl ExtAuthz {
    /// Cluster of the service.
    pub fn cluster(&self) -> &str {
        match &self.service {
            Service::Http { cluster, .. } => cluster,
            Service::Grpc(service) => &service.cluster,
        }
    }

    pub(super) fn on_request<'a>(&'a self, rq: &'a mut Request, cx: &'a StreamCx) -> Step<'a> {
        let own = cx.override_of::<Override>(&rq.head, NAME);
        if own.as_ref().is_some_and(|own| own.disabled) {
            return Step::CONTINUE;
        }
        Step::Wait(Box::pin(self.check(rq, own, cx)))
    }

    async fn check(&self, rq: &mut Request, own: Option<Arc<Override>>, cx: &StreamCx) -> Decision {
        let body = match self.body.filter(|_| !own.as_ref().is_some_and(|own| own.without_body)) {
            Some(limit) => match gather(rq, limit).await {
                Ok(body) => body,
                Err(outcome) => return Decision::Reply(Box::new(super::reply(&outcome, &rq.head))),
            },
            None => Bytes::new(),
        };
        let deadline = Instant::now() + self.timeout;
        let asked = async {
            match &self.service {
                Service::Http { cluster, path_prefix, upstream_headers } => {
                    let answer = self.ask_http((cluster, path_prefix), rq, body, deadline, cx).await?;
                    if answer.head.status != 200 {
                        return Ok(Some(denied(answer).await));
                    }
                    for name in upstream_headers {
                        if let Some(value) = answer.head.headers.get_name(name) {
                            rq.head.headers.set_name(name, value);
                        }
                    }
                    Ok(None)
                }
                Service::Grpc(service) => {
                    let context = own.as_ref().map(|own| &own.context);
                    let asked = Asked { head: &rq.head, context, cx };
                    if let Some(leased) = lease::find(self.id, asked) {
                        return grpc::obey(&leased, &mut rq.head);
                    }
                    let question = grpc::question(self, rq, &body, context, cx);
                    let cluster = cx.cluster(&service.cluster).ok_or(Reason::UnknownCluster)?;
                    let answer = grpc::ask(&cluster, &service.authority, &question, (self.timeout, deadline)).await?;
                    let terms = lease::terms(&answer, self.id, Asked { head: &rq.head, context, cx });
                    let obeyed = grpc::obey(&answer, &mut rq.head)?;
                    if let Some(terms) = terms {
                        lease::keep(terms, answer, cx);
                    }
                    Ok(obeyed)
                }
            }
        };
        let verdict: Result<Option<Response>, Outcome> = match tokio::time::timeout_at(deadline, asked).await {
            Ok(verdict) => verdict,
            Err(_) => Err(Reason::RouteTimeout.into()),
        };
        match verdict {
            Ok(None) => Decision::Continue,
            Ok(Some(response)) => {
                cx.note(Reason::ExtAuthzDenied);
                Decision::Reply(Box::new(response))
            }
            Err(_) if self.allow_on_error => Decision::Continue,
            Err(_) => {
                cx.note(Reason::ExtAuthzError);
                Decision::Reply(Box::new(plain(self.status_on_error, String::new(), &rq.head)))
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a question and who is asked")]
    async fn ask_http(
        &self,
        (cluster, path_prefix): (&str, &str),
        rq: &Request,
        body: Bytes,
        deadline: Instant,
        cx: &StreamCx,
    ) -> Result<Response, Outcome> {
        let cluster = cx.cluster(cluster).ok_or(Reason::UnknownCluster)?;
        let path = [path_prefix.as_bytes(), rq.head.path()].concat();
        let mut head = RequestHead::new(Version::H11, rq.head.method(), rq.head.scheme(), rq.head.authority(), &path);
        for name in self.request_headers.iter().flatten() {
            for value in rq.head.headers.values(name) {
                head.headers.append(name, value);
            }
        }
        if let Some(token) = rq.head.headers.get(Known::Authorization) {
            head.headers.append_known(Known::Authorization, token);
        }
        call(&cluster, Request { head, body: Body::full(body) }, deadline).await
    }
}

/// The answer of an HTTP service that denies, as the client gets it.
async fn denied(mut response: Response) -> Response {
    let body = read_all(&mut response.body).await;
    crate::codec::bridge::strip_connection_headers(&mut response.head.headers);
    response.head.headers.remove(Known::ContentLength);
    response.body = Body::full(body);
    response
}

/// A body up to [`MAX_ANSWER_BYTES`]; what follows, and what fails, is left out.
async fn read_all(body: &mut Body) -> Bytes {
    let mut read = BytesMut::new();
    while let Some(Ok(Frame::Data(data))) = body.frame().await {
        if read.len() + data.len() > MAX_ANSWER_BYTES {
            break;
        }
        read.extend_from_slice(&data);
    }
    read.freeze()
}
