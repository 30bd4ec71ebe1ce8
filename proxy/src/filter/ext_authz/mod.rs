//! `envoy.filters.http.ext_authz`: asks a service whether a request may pass (HP-13, LR-17, AZ-20).

use super::{Decision, Step, StreamCx, plain};
use crate::env::Instant;
use crate::message::{Body, Frame, Known, Request, RequestHead, Response, Source, Version};
use crate::outcome::{Outcome, Reason};
use crate::refusal::Refusal;
use crate::upstream::call;
use bytes::{Bytes, BytesMut};
use proto::any;
use proto::duration::from_proto;
use proto::envoy::core::http_uri::HttpUpstreamType;
use proto::envoy::http_filters::ext_authz::v3::{
    ExtAuthz as Written, ExtAuthzPerRoute, ext_authz::Services, ext_authz_per_route,
};
use proto::envoy::matcher::{ListStringMatcher, string_matcher::MatchPattern};
use proto::envoy::wkt::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How much of the body goes to the service (`with_request_body`).
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit {
    /// `max_request_bytes`
    pub max_bytes: usize,
    /// `allow_partial_message`: send what there is at the limit; otherwise answer 413.
    pub allow_partial: bool,
}

/// Configuration with the HTTP service.
#[derive(Debug)]
pub struct ExtAuthz {
    /// Cluster of the service.
    pub cluster: Arc<str>,
    /// Prefix of the path that is asked for.
    pub path_prefix: Box<str>,
    /// Time limit (200 ms).
    pub timeout: Duration,
    /// Let the request pass where the service fails (`failure_mode_allow`).
    pub allow_on_error: bool,
    /// Status where the service fails and that denies (403).
    pub status_on_error: u16,
    /// Body to send along.
    pub body: Option<BodyLimit>,
    /// Names of request headers that go to the service beside the fixed ones; lower case.
    pub request_headers: Box<[Box<[u8]>]>,
    /// Names of the answer's headers that replace the request's where it allows.
    pub upstream_headers: Box<[Box<[u8]>]>,
}

/// The filter's name, under which routes may switch it off.
pub const NAME: &str = "envoy.filters.http.ext_authz";

/// What a route has for the filter.
#[derive(Debug, Clone, Copy)]
pub struct Override {
    /// The request is not checked.
    disabled: bool,
}

/// Parses the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any) -> Result<ExtAuthz, Refusal> {
    let written: Written = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let Some(Services::HttpService(http)) = &written.services else {
        return Err(Refusal::unsupported("services: only http_service"));
    };
    let uri = http.server_uri.as_ref().ok_or_else(|| Refusal::new("http_service.server_uri", "is needed"))?;
    let Some(HttpUpstreamType::Cluster(cluster)) = &uri.http_upstream_type else {
        return Err(Refusal::new("http_service.server_uri.cluster", "is needed"));
    };
    let allowed = written.allowed_headers.as_ref();
    let upstream = http.authorization_response.as_ref().and_then(|r| r.allowed_upstream_headers.as_ref());
    let body = written.with_request_body.as_ref().map(|body| BodyLimit {
        max_bytes: body.max_request_bytes as usize,
        allow_partial: body.allow_partial_message,
    });
    Ok(ExtAuthz {
        cluster: cluster.as_str().into(),
        path_prefix: http.path_prefix.as_str().into(),
        timeout: uri.timeout.as_ref().map_or(Duration::from_millis(200), from_proto),
        allow_on_error: written.failure_mode_allow,
        status_on_error: written.status_on_error.as_ref().and_then(|s| u16::try_from(s.code).ok()).unwrap_or(403),
        body,
        request_headers: names(allowed, "allowed_headers")?,
        upstream_headers: names(upstream, "http_service.authorization_response.allowed_upstream_headers")?,
    })
}

/// Header names of a list; patterns that are no exact name are not supported yet.
fn names(list: Option<&ListStringMatcher>, field: &str) -> Result<Box<[Box<[u8]>]>, Refusal> {
    let patterns = list.into_iter().flat_map(|list| &list.patterns);
    let name = |matcher: &proto::envoy::matcher::StringMatcher| match &matcher.match_pattern {
        Some(MatchPattern::Exact(name)) => Ok(name.to_ascii_lowercase().into_bytes().into()),
        _ => Err(Refusal::unsupported(format!("{field}: only exact"))),
    };
    patterns.map(name).collect()
}

/// Parses what a route has for the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse_override(typed: &Any) -> Result<Override, Refusal> {
    let written: ExtAuthzPerRoute = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    match written.r#override {
        Some(ext_authz_per_route::Override::Disabled(disabled)) => Ok(Override { disabled }),
        _ => Err(Refusal::unsupported("check_settings")),
    }
}

impl ExtAuthz {
    pub(super) fn on_request<'a>(&'a self, rq: &'a mut Request, cx: &'a StreamCx) -> Step<'a> {
        if cx.override_of::<Override>(&rq.head, NAME).is_some_and(|own| own.disabled) {
            return Step::CONTINUE;
        }
        Step::Wait(Box::pin(self.check(rq, cx)))
    }

    async fn check(&self, rq: &mut Request, cx: &StreamCx) -> Decision {
        let body = match self.body {
            Some(limit) => match gather(rq, limit).await {
                Ok(body) => body,
                Err(outcome) => return Decision::Reply(Box::new(super::reply(&outcome, &rq.head))),
            },
            None => Bytes::new(),
        };
        match self.ask(rq, body, cx).await {
            Ok(answer) if answer.head.status == 200 => {
                for name in &self.upstream_headers {
                    if let Some(value) = answer.head.headers.get_name(name) {
                        rq.head.headers.set_name(name, value);
                    }
                }
                Decision::Continue
            }
            Ok(answer) => self.denied(answer, cx).await,
            Err(_) if self.allow_on_error => Decision::Continue,
            Err(_) => {
                cx.note(Reason::ExtAuthzError);
                Decision::Reply(Box::new(plain(self.status_on_error, String::new(), &rq.head)))
            }
        }
    }

    async fn ask(&self, rq: &Request, body: Bytes, cx: &StreamCx) -> Result<Response, Outcome> {
        let cluster = cx.cluster(&self.cluster).ok_or(Reason::UnknownCluster)?;
        let path = [self.path_prefix.as_bytes(), rq.head.path()].concat();
        let mut head = RequestHead::new(Version::H11, rq.head.method(), rq.head.scheme(), rq.head.authority(), &path);
        for name in &self.request_headers {
            for value in rq.head.headers.values(name) {
                head.headers.append(name, value);
            }
        }
        if let Some(token) = rq.head.headers.get(Known::Authorization) {
            head.headers.append_known(Known::Authorization, token);
        }
        let deadline = Instant::now() + self.timeout;
        call(&cluster, Request { head, body: Body::full(body) }, deadline).await
    }

    async fn denied(&self, answer: Response, cx: &StreamCx) -> Decision {
        cx.note(Reason::ExtAuthzDenied);
        let mut response = answer;
        let mut body = BytesMut::new();
        while let Some(Ok(Frame::Data(data))) = response.body.frame().await {
            if body.len() + data.len() > MAX_DENIAL_BYTES {
                break;
            }
            body.extend_from_slice(&data);
        }
        crate::codec::bridge::strip_connection_headers(&mut response.head.headers);
        response.head.headers.remove(Known::ContentLength);
        response.body = Body::full(body.freeze());
        Decision::Reply(Box::new(response))
    }
}

/// Largest body that a denial may carry.
const MAX_DENIAL_BYTES: usize = 64 << 10;

/// Reads the body up to the limit and puts it back in front of what is still to come.
async fn gather(rq: &mut Request, limit: BodyLimit) -> Result<Bytes, Outcome> {
    let length = rq.body.length();
    let (mut frames, mut bytes, mut ended) = (VecDeque::new(), 0, false);
    while bytes < limit.max_bytes {
        match rq.body.frame().await {
            None => {
                ended = true;
                break;
            }
            Some(frame) => {
                let frame = frame?;
                match &frame {
                    Frame::Data(data) => bytes += data.len(),
                    Frame::Trailers(_) => ended = true,
                }
                frames.push_back(frame);
                if ended {
                    break;
                }
            }
        }
    }
    if !ended && !limit.allow_partial {
        return Err(Reason::PayloadTooLarge.into());
    }
    let mut seen = BytesMut::with_capacity(bytes.min(limit.max_bytes));
    for frame in &frames {
        if let Frame::Data(data) = frame {
            let room = limit.max_bytes - seen.len();
            seen.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        }
    }
    let rest = std::mem::replace(&mut rq.body, Body::Empty);
    if !frames.is_empty() {
        rq.body = Body::source(Regathered { frames, rest, length });
    } else if !ended {
        rq.body = rest;
    }
    Ok(seen.freeze())
}

/// What was read, then what is still to come.
struct Regathered {
    frames: VecDeque<Frame>,
    rest: Body,
    length: Option<u64>,
}

impl Source for Regathered {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => self.rest.poll_frame(cx),
        }
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}
