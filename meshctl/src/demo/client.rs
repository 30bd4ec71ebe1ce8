//! A small HTTP/1.1 client over streams that were opened in some namespace.

use crate::demo::netns::Namespace;
use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long one exchange may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer that is read: a config dump may be big.
const MAX_BYTES: usize = 64 << 20;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What to ask.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// Method.
    pub method: Method,
    /// Host header.
    pub host: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Further headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body.
    pub body: Bytes,
}

impl<'a> Ask<'a> {
    /// A GET.
    pub fn get(host: &'a str, path: &'a str) -> Self {
        Self { method: Method::GET, host, path, headers: &[], body: Bytes::new() }
    }
}

/// A connection that can be used again and again.
#[derive(Debug)]
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    /// Speaks HTTP/1.1 over `stream`.
    ///
    /// # Errors
    /// Where the handshake fails.
    pub async fn over<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> anyhow::Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            drop(connection.await); // its error is also that of the request under way
        });
        Ok(Self(sender))
    }

    /// Opens one from inside a namespace.
    ///
    /// # Errors
    /// Where the address cannot be reached.
    pub async fn open(namespace: &Namespace, address: SocketAddr) -> anyhow::Result<Self> {
        let stream = namespace.connect(address).await.with_context(|| format!("cannot reach {address}"))?;
        Self::over(stream).await
    }

    /// One exchange.
    ///
    /// # Errors
    /// Where the connection breaks or nothing comes in time.
    pub async fn ask(&mut self, ask: &Ask<'_>) -> anyhow::Result<Answer> {
        let mut request =
            Request::builder().method(ask.method.clone()).uri(ask.path).body(Full::new(ask.body.clone()))?;
        request.headers_mut().insert(HOST, HeaderValue::from_str(ask.host)?);
        for (name, value) in ask.headers {
            request.headers_mut().append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
        }
        let exchange = async {
            self.0.ready().await?;
            let (parts, body) = self.0.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_BYTES).collect().await.map_err(|e| anyhow::anyhow!(e))?.to_bytes();
            Ok::<_, anyhow::Error>(Answer { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(TIMEOUT, exchange).await.context("no answer within 15 s")?
    }
}

/// One question from inside a namespace on a connection of its own.
///
/// # Errors
/// As [`Connection::ask`].
pub async fn ask(namespace: &Namespace, address: SocketAddr, ask: &Ask<'_>) -> anyhow::Result<Answer> {
    Connection::open(namespace, address).await?.ask(ask).await
}

/// One question over a Unix socket.
///
/// # Errors
/// As [`Connection::ask`].
pub async fn ask_socket(path: &Path, question: &Ask<'_>) -> anyhow::Result<Answer> {
    let stream = tokio::net::UnixStream::connect(path).await;
    let stream = stream.with_context(|| format!("cannot reach the socket {}", path.display()))?;
    Connection::over(stream).await?.ask(question).await
}
