//! The gRPC service `envoy.service.auth.v3.Authorization`.

use super::http::listed;
use super::{ExtAuthz, Field, Verdict};
use crate::cluster::Cluster;
use crate::codec::bytes::is_token;
use crate::env::Instant;
use crate::filter::{StreamCx, lease, plain};
use crate::message::{Headers, Request, RequestHead, Source};
use crate::outcome::{Outcome, Reason};
use crate::upstream::{Method, unary};
use bytes::Bytes;
use proto::envoy::auth::attribute_context::{HttpRequest, Peer, Request as Described};
use proto::envoy::auth::{AttributeContext, CheckRequest, CheckResponse, check_response::HttpResponse};
use proto::envoy::core::header_value_option::HeaderAppendAction;
use proto::envoy::core::{Address, HeaderValueOption, SocketAddress, address, socket_address};
use proto::envoy::wkt::Timestamp;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// `PERMISSION_DENIED`'s HTTP status, where a service denies without one.
const DENIED: u16 = 403;

/// What the service is told of a request.
pub(super) fn question(
    filter: &ExtAuthz,
    rq: &Request,
    body: &Bytes,
    context: Option<&HashMap<String, String>>,
    cx: &StreamCx,
) -> CheckRequest {
    let head = &rq.head;
    let mut headers: HashMap<String, String> = HashMap::new();
    let pseudo: [(&[u8], &[u8]); 4] = [
        (b":method", head.method()),
        (b":path", head.path()),
        (b":authority", head.authority()),
        (b":scheme", head.scheme()),
    ];
    let fields = head.headers.iter().map(|(name, value)| (name.bytes, value));
    for (name, value) in pseudo.into_iter().chain(fields) {
        let name = name.to_ascii_lowercase();
        let fixed = name.starts_with(b":") || name == b"authorization";
        if fixed || filter.request_headers.as_ref().is_none_or(|list| listed(list, &name)) {
            let told = headers.entry(text(&name)).or_default();
            if !told.is_empty() {
                told.push(',');
            }
            told.push_str(&text(value));
        }
    }
    let as_bytes = filter.body.is_some_and(|limit| limit.as_bytes);
    let http = HttpRequest {
        method: text(head.method()),
        headers,
        path: text(head.path()),
        host: text(head.authority()),
        scheme: text(head.scheme()),
        size: rq.body.length().and_then(|n| i64::try_from(n).ok()).unwrap_or(-1),
        protocol: head.version.as_str().to_owned(),
        body: if as_bytes { String::new() } else { text(body) },
        raw_body: if as_bytes { body.to_vec() } else { Vec::new() },
        ..HttpRequest::default()
    };
    let since = cx.facts.env.wall(cx.start).duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let time = Some(Timestamp { seconds, nanos: since.subsec_nanos().cast_signed() });
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer(cx.peer.remote, cx.peer.peer_id())),
            destination: Some(peer(cx.peer.local, cx.peer.local_id())),
            request: Some(Described { time, http: Some(http) }),
            context_extensions: context.cloned().unwrap_or_default(),
            ..AttributeContext::default()
        }),
    }
}

/// One end of the connection.
pub fn peer(address: SocketAddr, id: Option<&str>) -> Peer {
    Peer { address: Some(socket(address)), principal: id.unwrap_or_default().to_owned(), ..Peer::default() }
}

/// Asks the service.
///
/// # Errors
/// Why there is no answer.
pub async fn ask(
    cluster: &Rc<Cluster>,
    authority: &str,
    question: &CheckRequest,
    (timeout, deadline): (Duration, Instant),
) -> Result<CheckResponse, Outcome> {
    let method = Method { cluster, authority, path: PATH, metadata: &[(lease::HEADER, "1")] };
    unary(method, question, (timeout, deadline)).await
}

/// Does to the request what the service says: headers for the client, or what it gets where the service denies.
///
/// # Errors
/// The service names a header that cannot be written.
pub(super) fn obey(answer: &CheckResponse, head: &mut RequestHead) -> Verdict {
    let allowed = answer.status.as_ref().is_some_and(|status| status.code == 0);
    match &answer.http_response {
        Some(HttpResponse::OkResponse(ok)) if allowed => {
            for name in ok.headers_to_remove.iter().filter(|name| !name.starts_with(':') && *name != "host") {
                head.headers.remove_name(name.to_ascii_lowercase().as_bytes());
            }
            for option in &ok.headers {
                change(&mut head.headers, option)?;
            }
            let fields = ok.response_headers_to_add.iter().filter_map(|option| field(option).transpose());
            Ok(Ok(fields.collect::<Result<_, _>>()?))
        }
        None if allowed => Ok(Ok(Box::default())),
        Some(HttpResponse::DeniedResponse(denied)) => {
            let status =
                denied.status.as_ref().and_then(|status| u16::try_from(status.code).ok()).filter(|code| *code >= 100);
            let mut response = plain(status.unwrap_or(DENIED), denied.body.clone(), head);
            for option in &denied.headers {
                change(&mut response.head.headers, option)?;
            }
            Ok(Err(response))
        }
        _ => Ok(Err(plain(DENIED, String::new(), head))),
    }
}

/// Name and value of a header of an answer; none for a pseudo-header, which is not the service's to change.
fn field(option: &HeaderValueOption) -> Result<Option<Field>, Outcome> {
    let Some(header) = option.header.as_ref().filter(|header| !header.key.starts_with(':')) else { return Ok(None) };
    let name = header.key.to_ascii_lowercase();
    let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    let writable = !name.is_empty() && is_token(name.as_bytes()) && !value.iter().any(|b| b"\r\n\0".contains(b));
    if !writable {
        return Err(Reason::UpstreamProtocol.into());
    }
    Ok(Some((name.into_bytes().into(), value.into())))
}

/// One header of an answer: it replaces what is there, unless it says that it is to be added.
fn change(headers: &mut Headers, option: &HeaderValueOption) -> Result<(), Outcome> {
    let Some((name, value)) = field(option)? else { return Ok(()) };
    #[expect(deprecated, reason = "services still send it")]
    let append = option.append.as_ref().map(|append| append.value);
    let action = HeaderAppendAction::try_from(option.append_action).unwrap_or_default();
    let there = headers.get_name(&name).is_some();
    match (append, action) {
        (Some(true), _) => headers.append(&name, &value),
        (None, HeaderAppendAction::AddIfAbsent) if there => {}
        (None, HeaderAppendAction::OverwriteIfExists) if !there => {}
        _ => headers.set_name(&name, &value),
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn socket(at: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: at.ip().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(at.port().into())),
            ..SocketAddress::default()
        })),
    }
}
