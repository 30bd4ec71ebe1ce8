//! Small HTTP services of the main thread: bind, accept, answer. Not the data path: hyper serves them.

use crate::bootstrap::AdminAddress;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// An answer of a small service.
pub(super) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Connections that one service holds at a time.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket of a small service.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    /// Listens on an address; the file of a Unix socket that nobody listens on any more is replaced.
    pub(super) fn bind(address: &AdminAddress) -> io::Result<Self> {
        match address {
            AdminAddress::Tcp(address) => {
                let socket = socket2::Socket::new(socket2::Domain::for_address(*address), socket2::Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.set_nonblocking(true)?;
                socket.bind(&(*address).into())?;
                socket.listen(128)?;
                Ok(Self::Tcp(TcpListener::from_std(socket.into())?))
            }
            AdminAddress::Unix(path, mode) => {
                remove_stale(path)?;
                let listener = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))?;
                Ok(Self::Unix(listener))
            }
        }
    }

    /// The address as it was bound.
    pub(super) fn address(&self) -> io::Result<AdminAddress> {
        match self {
            Self::Tcp(listener) => Ok(AdminAddress::Tcp(listener.local_addr()?)),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or_else(|| io::Error::other("the socket has no path"))?;
                Ok(AdminAddress::Unix(path.to_path_buf(), 0))
            }
        }
    }

    /// Serves for as long as it is polled; `respond` makes the answer to each request.
    pub(super) async fn serve<F, R>(self, respond: F)
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted: io::Result<(Box<dyn Stream>, Peer)> = match &self {
                Self::Tcp(listener) => {
                    listener.accept().await.map(|(stream, peer)| (Box::new(stream) as _, Peer(Some(peer))))
                }
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| (Box::new(stream) as _, Peer(None))),
            };
            match accepted {
                Ok((stream, peer)) => {
                    let respond = respond.clone();
                    tokio::spawn(async move {
                        one_connection(stream, peer, respond).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // too many open files, most often: what is open must end first
                    tracing::warn!(%error, "connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Who asks; none on a Unix socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) Option<SocketAddr>);

impl Peer {
    /// Whether the request comes from this machine.
    pub(super) fn is_local(self) -> bool {
        self.0.is_none_or(|address| address.ip().to_canonical().is_loopback())
    }
}

async fn one_connection<F, R>(stream: Box<dyn Stream>, peer: Peer, respond: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Answer> + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = respond(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error, "connection of a small service ended");
    }
}

/// An answer with a text.
pub(super) fn text(status: u16, text: impl Into<Bytes>) -> Answer {
    with_type(status, "text/plain; charset=UTF-8", text)
}

/// An answer with JSON.
pub(super) fn json(value: &serde_json::Value) -> Answer {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    with_type(200, "application/json", text)
}

/// An answer of any type.
pub(super) fn with_type(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    streamed(status, content_type, body)
}

/// An answer whose body comes piece by piece.
pub(super) fn streamed(status: u16, content_type: &'static str, body: UnsyncBoxBody<Bytes, io::Error>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    headers.insert(hyper::header::CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert("x-content-type-options", hyper::header::HeaderValue::from_static("nosniff"));
    answer
}

/// A text, with gzip where the request accepts it (PT-7).
pub(super) fn compressed(content_type: &'static str, text: String, request: &Request<Incoming>) -> Answer {
    if !accepts_gzip(request) {
        return with_type(200, content_type, text);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let encoded = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    let mut answer = with_type(200, content_type, encoded.expect("a Vec takes any bytes"));
    let headers = answer.headers_mut();
    headers.insert(hyper::header::CONTENT_ENCODING, hyper::header::HeaderValue::from_static("gzip"));
    headers.insert(hyper::header::VARY, hyper::header::HeaderValue::from_static("Accept-Encoding"));
    answer
}

/// Whether `accept-encoding` names gzip, with a weight above 0.
fn accepts_gzip(request: &Request<Incoming>) -> bool {
    let values = request.headers().get_all(hyper::header::ACCEPT_ENCODING).iter();
    let mut codings = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip") || name == "*");
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
        is_gzip && weight.is_ok_and(|weight| weight > 0.0)
    })
}

/// The decoded parameters of a request's query, in order.
pub(super) fn parameters(query: Option<&str>) -> Vec<(String, String)> {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn remove_stale(path: &Path) -> io::Result<()> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("{} is served by another process", path.display()),
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
