//! An authorization service that is asked by a copy of the request without its body: 200 lets it pass.

use super::{ExtAuthz, Field};
use crate::env::Instant;
use crate::filter::{StreamCx, plain};
use crate::message::matcher::StringMatcher;
use crate::message::{Body, Frame, Headers, Known, Request, RequestHead, Response, Version};
use crate::outcome::{Outcome, Reason};
use crate::upstream::call;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// Largest body that a denial may carry.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Headers of a denial that always reach the client.
const ALWAYS: [Known; 2] = [Known::WwwAuthenticate, Known::Location];
/// Whether the body that the service sees is only a part.
const PARTIAL: &[u8] = b"x-envoy-auth-partial-body";

/// Who is asked, and which headers travel where.
#[derive(Debug, Default)]
pub struct HttpService {
    /// Cluster of the service.
    pub cluster: Arc<str>,
    /// Prefix of the path that is asked for.
    pub path_prefix: Box<str>,
    /// Added to the question.
    pub added: Box<[Field]>,
    /// Headers of an answer that allows which replace the request's.
    pub to_upstream: Box<[StringMatcher]>,
    /// Those that are added to the request's.
    pub appended: Box<[StringMatcher]>,
    /// Headers of a denial for the client; none: all.
    pub to_client: Option<Box<[StringMatcher]>>,
    /// Headers of an answer that allows for the client.
    pub to_client_on_success: Box<[StringMatcher]>,
}

/// What the service says.
pub(super) enum Answer {
    /// The request may pass; these are for the client.
    Allowed(Box<[Field]>),
    /// The client gets this.
    Denied(Response),
}

/// Whether a header is on a list.
pub(super) fn listed(list: &[StringMatcher], name: &[u8]) -> bool {
    list.iter().any(|matcher| matcher.matches(name))
}

impl HttpService {
    /// Asks, and does to the request what the service says. `part`: whether the body is only a part of the request's; none
    /// where it is not sent.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn check(
        &self,
        filter: &ExtAuthz,
        (rq, body, part): (&mut Request, Bytes, Option<bool>),
        deadline: Instant,
        cx: &StreamCx,
    ) -> Result<Answer, Outcome> {
        let cluster = cx.cluster(&self.cluster).ok_or(Reason::UnknownCluster)?;
        let mut head = self.question(filter, &rq.head, body.is_empty());
        if let Some(part) = part {
            head.headers.set_name(PARTIAL, if part { b"true" } else { b"false" });
        }
        let answer = call(&cluster, Request { head, body: Body::full(body) }, deadline).await?;
        match answer.head.status {
            200 => {}
            500.. => return Err(Reason::UpstreamProtocol.into()), // a service that fails has not decided
            _ => return Ok(Answer::Denied(self.denied(answer, &rq.head).await)),
        }
        let told: Vec<Field> =
            answer.head.headers.iter().map(|(name, value)| (name.bytes.into(), value.into())).collect();
        let headers = &mut rq.head.headers;
        for (name, value) in told.iter().filter(|(name, _)| listed(&self.to_upstream, name)) {
            headers.set_name(name, value);
        }
        for (name, value) in told.iter().filter(|(name, _)| listed(&self.appended, name)) {
            headers.append(name, value);
        }
        Ok(Answer::Allowed(told.into_iter().filter(|(name, _)| listed(&self.to_client_on_success, name)).collect()))
    }

    fn question(&self, filter: &ExtAuthz, asked: &RequestHead, empty: bool) -> RequestHead {
        let path = [self.path_prefix.as_bytes(), asked.path()].concat();
        let mut head = RequestHead::new(Version::H11, asked.method(), asked.scheme(), asked.authority(), &path);
        if empty {
            head.headers.append_known(Known::ContentLength, b"0");
        }
        for (name, value) in asked.headers.iter() {
            let allowed = filter.request_headers.as_ref().is_some_and(|list| listed(list, name.bytes));
            if allowed || name.bytes.eq_ignore_ascii_case(b"authorization") {
                head.headers.append(name.bytes, value);
            }
        }
        for (name, value) in &self.added {
            head.headers.set_name(name, value);
        }
        head.headers.set(Known::XEnvoyInternal, b"true");
        head.headers.set(Known::XEnvoyExpectedRqTimeoutMs, filter.timeout.as_millis().to_string().as_bytes());
        head
    }

    /// The answer of a service that denies, as the client gets it.
    async fn denied(&self, mut answer: Response, asked: &RequestHead) -> Response {
        let body = read_all(&mut answer.body).await;
        let told: &mut Headers = &mut answer.head.headers;
        crate::codec::bridge::strip_connection_headers(told);
        told.remove(Known::ContentLength);
        let mut response = plain(answer.head.status, body, asked);
        for (name, value) in told.iter() {
            let wanted = self.to_client.as_ref().is_none_or(|list| listed(list, name.bytes));
            if name.known == Known::ContentType && wanted {
                response.head.headers.set(Known::ContentType, value);
            } else if wanted || ALWAYS.contains(&name.known) {
                response.head.headers.append_as(name.known, name.bytes, value);
            }
        }
        response
    }
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
