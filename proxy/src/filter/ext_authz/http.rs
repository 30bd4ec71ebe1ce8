//! An authorization service that is asked by a copy of the request without its body: 200 lets it pass.

use super::{ExtAuthz, Field};
use crate::env::Instant;
use crate::filter::{StreamCx, lease, plain};
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

/// What the service said.
#[derive(Debug)]
pub struct Told {
    status: u16,
    headers: Headers,
    /// Of a denial.
    body: Bytes,
}

/// Whether a header is on a list.
pub(super) fn listed(list: &[StringMatcher], name: &[u8]) -> bool {
    list.iter().any(|matcher| matcher.matches(name))
}

impl HttpService {
    /// Asks. `part`: whether the body is only a part of the request's; none where it is not sent.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn ask(
        &self,
        filter: &ExtAuthz,
        (asked, body, part): (&RequestHead, Bytes, Option<bool>),
        deadline: Instant,
        cx: &StreamCx,
    ) -> Result<(Told, Option<Vec<u8>>), Outcome> {
        let cluster = cx.cluster(&self.cluster).ok_or(Reason::UnknownCluster)?;
        let mut head = self.question(filter, asked, body.is_empty());
        if let Some(part) = part {
            head.headers.set_name(PARTIAL, if part { b"true" } else { b"false" });
        }
        let mut answer = call(&cluster, Request { head, body: Body::full(body) }, deadline).await?;
        let status = answer.head.status;
        if status >= 500 {
            return Err(Reason::UpstreamProtocol.into()); // a service that fails has not decided
        }
        let body = if status == 200 { Bytes::new() } else { read_all(&mut answer.body).await };
        let mut headers = answer.head.headers;
        let lease = headers.get_name(lease::HEADER.as_bytes()).map(<[u8]>::to_vec);
        headers.remove_name(lease::HEADER.as_bytes());
        Ok((Told { status, headers, body }, lease))
    }

    /// Does to the request what the service said: headers for the client, or what it gets where it is denied.
    pub(super) fn obey(&self, told: &Told, rq: &mut RequestHead) -> Result<Box<[Field]>, Box<Response>> {
        if told.status != 200 {
            return Err(Box::new(self.denied(told, rq)));
        }
        for (name, value) in told.headers.iter().filter(|(name, _)| listed(&self.to_upstream, name.bytes)) {
            rq.headers.set_name(name.bytes, value);
        }
        for (name, value) in told.headers.iter().filter(|(name, _)| listed(&self.appended, name.bytes)) {
            rq.headers.append(name.bytes, value);
        }
        let for_client = told.headers.iter().filter(|(name, _)| listed(&self.to_client_on_success, name.bytes));
        Ok(for_client.map(|(name, value)| (name.bytes.into(), value.into())).collect())
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
    fn denied(&self, answer: &Told, asked: &RequestHead) -> Response {
        let mut told = answer.headers.clone();
        crate::codec::bridge::strip_connection_headers(&mut told);
        told.remove(Known::ContentLength);
        let mut response = plain(answer.status, answer.body.clone(), asked);
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
