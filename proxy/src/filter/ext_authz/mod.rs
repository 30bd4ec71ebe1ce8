//! `envoy.filters.http.ext_authz`: asks a service whether a request may pass (HP-13, LR-17, AZ-20).
//!
//! - `config.rs`: the filter and what routes have for it
//! - `grpc.rs`: `envoy.service.auth.v3.Authorization/Check`
//! - `http.rs`: a service that is asked over HTTP
//! - `gather.rs`: the part of the body that the service sees
//! - `lease.rs`: answers that may be used again
//! - `program.rs`: policy that the service leaves here as a whole

mod config;
mod gather;
pub mod grpc;
mod http;
mod lease;
mod program;

pub use config::{Override, parse, parse_override};
pub use http::{HttpService, Told};
pub use program::Programs;

use super::lease::Asked;
use super::{Decision, Field, FilterState, Step, StreamCx, plain};
use crate::env::Instant;
use crate::message::matcher::{MetadataMatcher, StringMatcher};
use crate::message::{Request, RequestHead, Response};
use crate::net;
use crate::outcome::{Outcome, Reason};
use bytes::Bytes;
use gather::gather;
use std::collections::HashMap;
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
    /// Say so to the upstream (`failure_mode_allow_header_add`).
    pub mark_on_error: bool,
    /// Status where the service fails and that denies (403).
    pub status_on_error: u16,
    /// Body to send along.
    pub body: Option<BodyLimit>,
    /// Request headers that go to the service (`allowed_headers`). Where it is not set, an HTTP service gets the fixed ones
    /// alone and a gRPC service gets all.
    pub request_headers: Option<Box<[StringMatcher]>>,
    /// Which requests are checked, by what a filter before this one left (`filter_enabled_metadata`); none: all.
    pub enabled: Option<MetadataMatcher>,
    /// The route is looked up anew once the service has spoken.
    pub clear_route: bool,
}

/// Who is asked.
#[derive(Debug)]
pub enum Service {
    /// The request itself, without body: status 200 lets it pass.
    Http(Box<HttpService>),
    /// `Authorization/Check`.
    Grpc(net::Service),
}

/// The filter's name, under which routes may switch it off.
pub const NAME: &str = "envoy.filters.http.ext_authz";

/// Header for the upstream of a request that passed because the service failed.
const FAILED: &[u8] = b"x-envoy-auth-failure-mode-allowed";

/// What the service says: headers for the client, or what it gets where it is denied.
type Verdict = Result<Result<Box<[Field]>, Response>, Outcome>;

impl ExtAuthz {
    /// Cluster of the service.
    pub fn cluster(&self) -> &str {
        match &self.service {
            Service::Http(service) => &service.cluster,
            Service::Grpc(service) => &service.cluster,
        }
    }

    /// Whether the service is asked about the request.
    pub fn asks(&self, head: &RequestHead, cx: &StreamCx) -> bool {
        let enabled = self.enabled.as_ref();
        enabled.is_none_or(|enabled| enabled.matches(cx.info.borrow().metadata.as_deref()))
            && !cx.override_of::<Override>(head, NAME).is_some_and(|own| own.disabled)
    }

    pub(super) fn on_request<'a>(&'a self, st: &'a mut FilterState, rq: &'a mut Request, cx: &'a StreamCx) -> Step<'a> {
        if !self.asks(&rq.head, cx) {
            return Step::CONTINUE;
        }
        let own = cx.override_of::<Override>(&rq.head, NAME);
        if let Some(verdict) = self.leased(&mut rq.head, own.as_deref(), cx) {
            return Step::Done(self.conclude(verdict, st, rq, cx));
        }
        Step::Wait(Box::pin(self.check(st, rq, own, cx)))
    }

    /// What the service left for requests like this one: its policy as a whole, or an answer.
    fn leased(&self, head: &mut RequestHead, own: Option<&Override>, cx: &StreamCx) -> Option<Verdict> {
        let asked = Asked { head, context: own.map(|own| &own.context), cx };
        let book = &cx.facts.leases;
        match &self.service {
            Service::Grpc(_) => {
                if own.is_none_or(|own| own.context.is_empty())
                    && let Some(program) = book.programs.find(self.id, cx.now())
                {
                    return Some(program.decide(self, head, cx));
                }
                let leased = lease::find(&book.checks, self.id, asked)?;
                Some(grpc::obey(&leased, head))
            }
            Service::Http(service) => {
                let leased = lease::find(&book.http_checks, self.id, asked)?;
                Some(Ok(service.obey(&leased, head).map_err(|denied| *denied)))
            }
        }
    }

    async fn check(
        &self,
        st: &mut FilterState,
        rq: &mut Request,
        own: Option<Arc<Override>>,
        cx: &StreamCx,
    ) -> Decision {
        let (body, part) = match self.body.filter(|_| !own.as_ref().is_some_and(|own| own.without_body)) {
            Some(limit) => match gather(rq, limit).await {
                Ok((body, part)) => (body, Some(part)),
                Err(outcome) => {
                    cx.note(outcome.clone());
                    return Decision::Reply(Box::new(super::reply(&outcome, &rq.head)));
                }
            },
            None => (Bytes::new(), None),
        };
        let part = part.filter(|_| !body.is_empty());
        let deadline = Instant::now() + self.timeout;
        let asked = async {
            match &self.service {
                Service::Http(service) => {
                    let (told, lease) = service.ask(self, (&rq.head, body, part), deadline, cx).await?;
                    let context = own.as_ref().map(|own| &own.context);
                    let asked = Asked { head: &rq.head, context, cx };
                    let terms = lease.and_then(|text| lease::terms_of_text(&text, self.id, asked));
                    let obeyed = service.obey(&told, &mut rq.head).map_err(|denied| *denied);
                    if let Some(terms) = terms {
                        lease::keep(&cx.facts.leases.http_checks, terms, told, cx);
                    }
                    Ok(obeyed)
                }
                Service::Grpc(service) => {
                    let context = own.as_ref().map(|own| &own.context);
                    let question = grpc::question(self, rq, &body, context, cx);
                    let cluster = cx.cluster(&service.cluster).ok_or(Reason::UnknownCluster)?;
                    let answer = grpc::ask(&cluster, &service.authority, &question, (self.timeout, deadline)).await?;
                    if context.is_none_or(HashMap::is_empty) {
                        let programs = &cx.facts.leases.programs;
                        programs.keep(self.id, &answer, (cx.now(), &cx.facts.stats));
                    }
                    let terms = lease::terms(&answer, self.id, Asked { head: &rq.head, context, cx });
                    let obeyed = grpc::obey(&answer, &mut rq.head)?;
                    if let Some(terms) = terms {
                        lease::keep(&cx.facts.leases.checks, terms, answer, cx);
                    }
                    Ok(obeyed)
                }
            }
        };
        let verdict: Verdict = match tokio::time::timeout_at(deadline, asked).await {
            Ok(verdict) => verdict,
            Err(_) => Err(Reason::RouteTimeout.into()),
        };
        self.conclude(verdict, st, rq, cx)
    }

    fn conclude(&self, verdict: Verdict, st: &mut FilterState, rq: &mut Request, cx: &StreamCx) -> Decision {
        match verdict {
            Ok(Ok(fields)) => {
                if !fields.is_empty() {
                    *st = FilterState::ForClient(fields);
                }
                if self.clear_route {
                    cx.clear_route();
                }
                Decision::Continue
            }
            Ok(Err(response)) => {
                cx.note(Reason::ExtAuthzDenied);
                Decision::Reply(Box::new(response))
            }
            Err(_) if self.allow_on_error => {
                if self.mark_on_error {
                    rq.head.headers.set_name(FAILED, b"true");
                }
                Decision::Continue
            }
            Err(_) => {
                cx.note(Reason::ExtAuthzError);
                Decision::Reply(Box::new(plain(self.status_on_error, String::new(), &rq.head)))
            }
        }
    }
}
