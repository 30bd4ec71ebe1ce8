//! The general client: HTTP/2 with and without TLS, and HTTP/1 with all of hyper's care. gRPC stands on it.

use super::dial::{Dialer, Stream};
use super::flags::RequestArgs;
use super::record::Answer;
use super::request::{Request, UUID, uuid, with_scheme};
use super::watchdog::Watchdog;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderMap, LOCATION};
use hyper::{Method, Response, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

/// Redirects that are followed of one request; Go's bound.
const MAX_REDIRECTS: usize = 10;
/// Flow-control window of an HTTP/2 connection and of each stream: large, so that it never is what is measured.
const WINDOW: u32 = 4 << 20;

/// What a general client's request carries.
pub type Body = Full<Bytes>;

/// Which HTTP a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version2 {
    /// HTTP/1.1.
    No,
    /// HTTP/2 where TLS agrees, and always without TLS.
    Wanted,
}

/// A connection that is opened when it is needed, and again when it broke.
#[derive(Debug)]
pub struct Link {
    /// How it connects.
    pub dialer: Dialer,
    version2: Version2,
    sender: Option<Sender>,
}

/// The open end of a connection.
#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Link {
    /// One that is not open yet.
    pub fn new(dialer: Dialer, version2: Version2) -> Self {
        Self { dialer, version2, sender: None }
    }

    async fn open(&mut self) -> Result<&mut Sender> {
        let usable = match &self.sender {
            Some(Sender::One(sender)) => !sender.is_closed(),
            Some(Sender::Two(sender)) => !sender.is_closed(),
            None => false,
        };
        if !usable {
            let stream = self.dialer.dial().await?;
            self.sender = Some(Box::pin(shake_hands(stream, self.version2)).await.map_err(Error::other)?);
        }
        self.sender.as_mut().ok_or_else(|| Error::other("the connection closed at once"))
    }

    /// A handle for HTTP/2, of which many may be used at once.
    ///
    /// # Errors
    /// Where the connection cannot be opened, or is none of HTTP/2.
    pub async fn handle(&mut self) -> Result<http2::SendRequest<Body>> {
        match self.open().await? {
            Sender::Two(sender) => Ok(sender.clone()),
            Sender::One(_) => Err(Error::other("the server does not speak HTTP/2")),
        }
    }

    /// Forgets the connection.
    pub fn close(&mut self) {
        self.sender = None;
    }

    async fn send(&mut self, mut request: hyper::Request<Body>) -> Result<Response<Incoming>> {
        let outcome = match self.open().await? {
            Sender::One(sender) => {
                sender.ready().await.map_err(Error::other)?;
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse();
                *request.uri_mut() = path.map_err(Error::other)?;
                *request.version_mut() = Version::HTTP_11;
                sender.send_request(request).await
            }
            Sender::Two(sender) => {
                sender.ready().await.map_err(Error::other)?;
                request.headers_mut().remove(HOST);
                sender.send_request(request).await
            }
        };
        outcome.map_err(Error::other)
    }
}

async fn shake_hands(stream: Stream, version2: Version2) -> hyper::Result<Sender> {
    let two = version2 == Version2::Wanted
        && match &stream {
            Stream::Tls(_) => stream.protocol() == Some(b"h2"),
            Stream::Tcp(_) | Stream::Unix(_) => true,
        };
    if two {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move { drop(connection.await) }); // its error is also that of each request under way
        return Ok(Sender::Two(sender));
    }
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) }); // as above
    Ok(Sender::One(sender))
}

/// A request that is sent again and again.
#[derive(Debug)]
struct Template {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Template {
    /// One of a request, unless parts of it change each time.
    fn new(request: &Request) -> Option<Self> {
        let changes = request.path.contains(UUID) || filled_bytes(&request.payload).is_some();
        let (parts, _) = message(request, &request.path).ok().filter(|_| !changes)?.into_parts();
        let body = request.payload.clone();
        Some(Self { method: parts.method, uri: parts.uri, headers: parts.headers, body })
    }

    fn message(&self) -> hyper::Request<Body> {
        let mut message = hyper::Request::new(Full::new(self.body.clone()));
        *message.method_mut() = self.method.clone();
        *message.uri_mut() = self.uri.clone();
        *message.headers_mut() = self.headers.clone();
        *message.version_mut() = Version::HTTP_2;
        message
    }
}

/// One client with one connection.
#[derive(Debug)]
pub struct GeneralClient {
    /// Its connection.
    pub link: Link,
    request: Request,
    /// The request in hyper's form, made once; none where each is another one.
    template: Option<Template>,
    follow: bool,
    keep_alive: bool,
    timeout: Duration,
    watchdog: Watchdog,
}

impl GeneralClient {
    /// A client for a request.
    pub fn new(request: &Request, args: &RequestArgs, dialer: Dialer) -> Self {
        let version2 = if args.h2 { Version2::Wanted } else { Version2::No };
        Self {
            link: Link::new(dialer, version2),
            request: request.clone(),
            template: Template::new(request),
            follow: args.follow,
            keep_alive: args.keepalive,
            timeout: args.timeout,
            watchdog: Watchdog::default(),
        }
    }

    /// One call; the body is read and counted. A redirect is followed where the flags say so.
    ///
    /// # Errors
    /// What went wrong, where there is no answer.
    pub async fn call(&mut self) -> Result<Answer> {
        self.watchdog.start(self.timeout);
        let Self { link, request, template, follow, watchdog, .. } = self;
        let outcome = match template {
            Some(template) if !*follow => watchdog.guard(link.send(template.message())).await,
            _ => watchdog.guard(ask(link, request, *follow)).await,
        };
        if outcome.is_err() || !self.keep_alive {
            self.link.close();
        }
        let (parts, body) = outcome?.into_parts();
        let mut body = body;
        let size = self.watchdog.guard(async {
            let mut size = 0;
            while let Some(frame) = body.frame().await {
                size += frame.map_err(Error::other)?.data_ref().map_or(0, Bytes::len) as u64;
            }
            Ok(size)
        });
        Ok(Answer::http(parts.status.as_u16(), size.await?, 0))
    }

    /// One call whose answer is given back with its body still to read.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn fetch(&mut self) -> Result<Response<Incoming>> {
        self.watchdog.start(self.timeout);
        self.watchdog.guard(ask(&mut self.link, &self.request, self.follow)).await
    }
}

/// Sends a request, and follows redirects. Those that lead to another host end here: a client has one destination.
async fn ask(link: &mut Link, request: &Request, follow: bool) -> Result<Response<Incoming>> {
    let mut path = request.path.clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = link.send(message(request, &path)?).await?;
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(location) = location.filter(|_| follow && response.status().is_redirection()) else {
            return Ok(response);
        };
        if location.starts_with('/') {
            location.clone_into(&mut path);
            continue;
        }
        let target: Uri = with_scheme(location).parse().map_err(|e| Error::new(ErrorKind::InvalidData, e))?;
        if target.authority().map(|authority| authority.as_str()) != Some(request.authority.as_str()) {
            return Err(Error::other(format!("redirected to another host: {location}")));
        }
        path = target.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    }
    Err(Error::other(format!("more than {MAX_REDIRECTS} redirects")))
}

fn message(request: &Request, path: &str) -> Result<hyper::Request<Body>> {
    let scheme = if request.https { "https" } else { "http" };
    let uri = format!("{scheme}://{}{}", request.authority, filled(path));
    let body = filled_bytes(&request.payload).unwrap_or_else(|| request.payload.clone());
    let mut builder = hyper::Request::builder().method(request.method.as_str()).uri(uri).version(Version::HTTP_2);
    builder = builder.header(HOST, &request.authority);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    builder.body(Full::new(body)).map_err(|e| Error::new(ErrorKind::InvalidInput, e))
}

/// A payload with a number of its own for each `{uuid}`; none where there is none to fill in.
fn filled_bytes(payload: &Bytes) -> Option<Bytes> {
    let text = std::str::from_utf8(payload).ok().filter(|text| text.contains(UUID))?;
    Some(filled(text).into())
}

/// Text with a number of its own for each `{uuid}`.
fn filled(text: &str) -> String {
    let mut parts = text.split(UUID);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(&uuid());
        out.push_str(part);
    }
    out
}
