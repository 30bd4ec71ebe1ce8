//! Local replies: what the proxy answers by itself (spec 4.1, byte for byte as Envoy).

use crate::message::{Body, Known, RequestHead, Response, ResponseHead};
use crate::outcome::{Outcome, Reason};
use bytes::Bytes;

/// The answer to a request that ended with `outcome`.
pub fn reply(outcome: &Outcome, request: &RequestHead) -> Response {
    let (status, body) = (outcome.reason.face().status, outcome.body(false));
    let mut response = match outcome.reason {
        // The client's own deadline has passed: DEADLINE_EXCEEDED, not what 504 is mapped to.
        Reason::MaxDuration if is_grpc(request) => grpc_reply(4, &body),
        _ => plain(status, body, request),
    };
    if outcome.reason == Reason::Overflow {
        response.head.headers.append_known(Known::XEnvoyOverloaded, b"true");
    }
    response
}

/// An answer with a status and a text, as HTTP or, for gRPC clients, as trailers-only (LR-31).
pub fn plain(status: u16, body: impl Into<Bytes>, request: &RequestHead) -> Response {
    let body = body.into();
    if is_grpc(request) {
        return grpc_reply(grpc_status(status), &String::from_utf8_lossy(&body));
    }
    let mut head = ResponseHead::new(status);
    if !body.is_empty() {
        head.headers.append_known(Known::ContentLength, body.len().to_string().as_bytes());
        head.headers.append_known(Known::ContentType, b"text/plain");
    }
    let head_only = request.method() == b"HEAD";
    Response { head, body: if head_only { Body::Empty } else { Body::full(body) } }
}

/// Whether the client speaks gRPC.
pub fn is_grpc(request: &RequestHead) -> bool {
    request.headers.get(Known::ContentType).is_some_and(|value| {
        value.strip_prefix(b"application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
    })
}

/// A trailers-only answer with a gRPC status.
pub fn grpc_reply(code: u32, message: &str) -> Response {
    let mut head = ResponseHead::new(200);
    head.headers.append_known(Known::ContentType, b"application/grpc");
    head.headers.append_known(Known::GrpcStatus, code.to_string().as_bytes());
    if !message.is_empty() {
        head.headers.append_known(Known::GrpcMessage, percent(message).as_bytes());
    }
    Response { head, body: Body::Empty }
}

/// The gRPC status of an HTTP status (LR-31).
pub fn grpc_status(http: u16) -> u32 {
    match http {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// Percent-encoding of `grpc-message`: everything but printable ASCII, and the percent sign.
fn percent(message: &str) -> String {
    const SET: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
    percent_encoding::utf8_percent_encode(message, SET).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Version;

    fn request(content_type: Option<&[u8]>) -> RequestHead {
        let mut head = RequestHead::new(Version::H2, b"POST", b"http", b"a", b"/");
        if let Some(value) = content_type {
            head.headers.append_known(Known::ContentType, value);
        }
        head
    }

    // spec: LR-31
    #[test]
    fn grpc_clients_get_trailers_only() {
        for (status, code) in [
            (503, "14"),
            (403, "7"),
            (404, "12"),
            (401, "16"),
            (400, "13"),
            (500, "2"),
            (429, "14"),
            (502, "14"),
            (504, "14"),
        ] {
            let response = plain(status, "RBAC: access denied%", &request(Some(b"application/grpc+proto")));
            assert_eq!(response.head.status, 200);
            assert_eq!(response.head.headers.get(Known::GrpcStatus), Some(code.as_bytes()));
            assert_eq!(response.head.headers.get(Known::GrpcMessage), Some(&b"RBAC: access denied%25"[..]));
            assert!(response.body.is_empty());
        }
        assert!(!is_grpc(&request(Some(b"application/grpc-web"))) && !is_grpc(&request(None)));
    }

    // spec: LR-1, LR-12
    #[test]
    fn http_clients_get_envoys_text() {
        let response = reply(&Reason::NoHealthyUpstream.into(), &request(None));
        assert_eq!(response.head.status, 503);
        assert_eq!(crate::message::Source::length(&response.body), Some(19));
        assert_eq!(response.head.headers.get(Known::ContentType), Some(&b"text/plain"[..]));
        let response = reply(&Reason::Overflow.into(), &request(None));
        assert_eq!(response.head.headers.get(Known::XEnvoyOverloaded), Some(&b"true"[..]));
    }
}
