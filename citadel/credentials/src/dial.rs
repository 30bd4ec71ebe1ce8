//! Connections to a server of the mesh by its host name, with the certificate that is held.

use crate::client::{Credentials, tls_by_name};
use crate::stream::Stream;
use anyhow::Context as _;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::Uri;

/// Connects an HTTP client: to `http://` in plain text; to `https://` over TLS, where the server's certificate must have
/// the host name and be vouched for by the roots of the mesh, and the own one is shown.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    /// The credentials of the moment; without them there is only plain text.
    pub held: Option<watch::Receiver<Option<Arc<Credentials>>>>,
}

impl Dialer {
    async fn dial(self, uri: Uri) -> anyhow::Result<Stream> {
        let host = uri.host().with_context(|| format!("{uri} names no host"))?.to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream =
            TcpStream::connect((bare.as_str(), port)).await.with_context(|| format!("connect {host}:{port}"))?;
        stream.set_nodelay(true)?;
        if !is_tls {
            return Ok(Stream::Plain(stream));
        }
        let held = self.held.context("https needs a certificate of the mesh")?;
        let own = held.borrow().clone().context("there is no certificate yet")?;
        let config = tls_by_name(own.roots.clone(), &bare, Some(&own))?;
        let name = ServerName::try_from(bare)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.context("TLS")?;
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Stream>;
    type Error = std::io::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial(uri).await.map(TokioIo::new).map_err(std::io::Error::other) })
    }
}

impl Connection for Stream {
    /// Tells the client whether it is HTTP/2.
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => Connected::new().negotiated_h2(),
            _ => Connected::new(),
        }
    }
}
