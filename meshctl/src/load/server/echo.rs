//! What the HTTP servers answer: echo, the debug page, and the redirect to https.

use super::params::{Limits, Params};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    LOCATION,
};
use hyper::{Request, Response, StatusCode, Version};
use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Largest body that is kept to be echoed over HTTP/1, in bytes.
const MAX_BODY: usize = 64 << 20;
/// How much of a body the debug page shows at its beginning and at its end, in bytes.
const SHOWN: usize = 256;

/// Body of an answer.
pub type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// What the echo server knows.
#[derive(Debug, Clone)]
pub struct Echo {
    /// Path of the debug page; empty for none.
    pub debug_path: String,
    /// Bounds of the parameters.
    pub limits: Limits,
    /// Query of requests that have none.
    pub default_params: String,
    /// When the server began.
    pub start: Instant,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Address, or the path of a Unix socket.
    pub name: String,
    /// Whether it is on this machine.
    pub is_local: bool,
    /// What is known of TLS, for the debug page.
    pub tls: String,
}

impl Peer {
    /// One on an address.
    pub fn at(address: std::net::SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
            ip => ip,
        };
        Self { name: address.to_string(), is_local: ip.is_loopback(), tls: String::new() }
    }
}

/// Bytes as a body.
pub fn full<B: Into<Bytes>>(bytes: B) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Echo {
    /// Answers a request.
    pub async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let query = match request.uri().query() {
            Some(query) => query,
            None => &self.default_params,
        };
        let params = Params::new(query, self.limits);
        let debug = !self.debug_path.is_empty() && request.uri().path() == self.debug_path;
        let mut response =
            if debug { self.debug(request, &params, peer).await } else { self.echo(request, &params).await };
        wait(params.delay).await;
        if params.close {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in &params.headers {
            let header = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
            if let (Ok(name), Ok(value)) = header {
                response.headers_mut().append(name, value);
            }
        }
        response
    }

    async fn echo(&self, request: Request<Incoming>, params: &Params) -> Response<Body> {
        let takes_gzip = request.headers().get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        let gzip = params.gzip && takes_gzip.is_some_and(|value| value.contains("gzip"));
        let mut response = Response::new(full(Bytes::new()));
        *response.status_mut() = params.status.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or_default();
        let two = request.version() == Version::HTTP_2;
        let (parts, body) = request.into_parts();
        let kind = parts.headers.get(CONTENT_TYPE).cloned();
        if two && !gzip && params.size.is_none() {
            // over HTTP/2 the body flows back while it comes
            if let Some(length) = parts.headers.get(CONTENT_LENGTH) {
                response.headers_mut().insert(CONTENT_LENGTH, length.clone());
            }
            *response.body_mut() = body.boxed_unsync();
        } else {
            let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
                let mut refusal =
                    Response::new(full(format!("the body cannot be read, or exceeds {MAX_BODY} bytes\n")));
                *refusal.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                return refusal;
            };
            let bytes = params.size.map_or_else(|| body.to_bytes(), payload);
            *response.body_mut() = full(if gzip { zipped(&bytes) } else { bytes });
        }
        if gzip {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let stream = HeaderValue::from_static("application/octet-stream");
        if let Some(kind) = if params.size.is_some() { Some(stream) } else { kind } {
            response.headers_mut().insert(CONTENT_TYPE, kind);
        }
        response
    }

    async fn debug(&self, request: Request<Incoming>, params: &Params, peer: &Peer) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let up = self.start.elapsed().as_secs_f64();
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let mut text = format!(
            "Ferromesh version {} echo debug server up for {up:.1}s on {machine} - request from {}{}\n\n{} {} {:?}\n\nheaders:\n\n",
            env!("CARGO_PKG_VERSION"),
            peer.name,
            peer.tls,
            parts.method,
            parts.uri.path_and_query().map_or("/", |path| path.as_str()),
            parts.version
        );
        let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let host = parts.headers.get(HOST).map(shown);
        let host = host.or_else(|| parts.uri.authority().map(ToString::to_string)).unwrap_or_default();
        text.push_str(&format!("Host: {host}\n"));
        let mut names: Vec<&HeaderName> = parts.headers.keys().filter(|name| *name != HOST).collect();
        names.sort_by_key(|name| name.as_str());
        for name in names {
            let values: Vec<String> = parts.headers.get_all(name).iter().map(shown).collect();
            text.push_str(&format!("{}: {}\n", title_case(name.as_str()), values.join(",")));
        }
        let body = Limited::new(body, MAX_BODY).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        text.push_str(&format!("\nbody:\n\n{}\n", summary(&body)));
        if params.environment {
            text.push_str("\nenvironment:\n\n");
            if peer.is_local {
                std::env::vars_os().for_each(|(name, value)| {
                    text.push_str(&format!("{}={}\n", name.display(), value.display()));
                });
            } else {
                text.push_str("shown to clients on the same machine only\n");
            }
        }
        let mut response = Response::new(full(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
        response
    }
}

/// Waits. A timer of no time would still last until the next millisecond.
pub async fn wait(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

/// Leads to the same URL by https.
pub fn redirect(request: &Request<Incoming>) -> Response<Body> {
    let host = request.headers().get(HOST).and_then(|value| value.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str())).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut response = Response::new(full(Bytes::new()));
    match HeaderValue::from_str(&format!("https://{host}{path}")) {
        Ok(location) if !host.is_empty() => {
            *response.status_mut() = StatusCode::SEE_OTHER;
            response.headers_mut().insert(LOCATION, location);
        }
        _ => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    response
}

/// Bytes that do not compress to nothing.
fn payload(size: usize) -> Bytes {
    let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    letters.iter().copied().cycle().take(size).collect()
}

fn zipped(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.unwrap_or_default().into() // writing to memory does not fail
}

/// `content-type` as `Content-Type`.
fn title_case(name: &str) -> String {
    let mut upper = true;
    let letter = |c: char| {
        let shown = if upper { c.to_ascii_uppercase() } else { c };
        upper = c == '-';
        shown
    };
    name.chars().map(letter).collect()
}

/// A body as text; of a long one its beginning and its end.
fn summary(body: &[u8]) -> String {
    match (body.get(..SHOWN), body.len().checked_sub(SHOWN).and_then(|from| body.get(from..))) {
        (Some(first), Some(last)) if body.len() > 2 * SHOWN => {
            format!("{}: {}...{}", body.len(), first.escape_ascii(), last.escape_ascii())
        }
        _ => body.escape_ascii().to_string(),
    }
}
