//! TLS of port 15012: a certificate from files that is followed as it is renewed, optional client certificates.

use super::authenticate::PeerIdentity;
use anyhow::Context as _;
use identity::bundle::TrustBundle;
use identity::san::SanMatch;
use identity::svid::{LeafFacts, Svid, provider};
use identity::verify::optional_client_verifier;
use rustls::ServerConfig;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that may wait to be served.
const WAITING: usize = 64;

/// Where certificate, key and roots are.
#[derive(Debug, Clone)]
pub struct Files {
    /// Chain in PEM.
    pub certificate: PathBuf,
    /// Key in PEM.
    pub key: PathBuf,
    /// Roots of clients in PEM.
    pub roots: PathBuf,
}

impl Files {
    /// The configuration of the moment for a server of these protocols (ALPN); the files are read anew for each connection,
    /// so that a renewal needs no restart.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn server(&self, protocols: &[&[u8]]) -> anyhow::Result<ServerConfig> {
        let svid = self.svid()?;
        let roots = std::fs::read(&self.roots).with_context(|| format!("read {}", self.roots.display()))?;
        let bundle = Arc::new(TrustBundle::from_pem(&roots).context("roots of clients")?);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_client_cert_verifier(optional_client_verifier(bundle, SanMatch::any()))
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from((*svid.certified_key()).clone())));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }

    /// Certificate and key.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn svid(&self) -> anyhow::Result<Svid> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        Svid::from_pem(&read(&self.certificate)?, &read(&self.key)?).context("serving certificate")
    }
}

/// A connection with the identity that its certificate proves.
pub struct Secured {
    stream: TlsStream<TcpStream>,
    peer: PeerIdentity,
}

impl Connected for Secured {
    type ConnectInfo = PeerIdentity;
    fn connect_info(&self) -> PeerIdentity {
        self.peer.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Accepts for ever with the configuration of the moment; each handshake in a task of its own, so that a slow client holds
/// up nobody.
pub fn accept(
    listener: TcpListener,
    config: impl Fn() -> anyhow::Result<ServerConfig> + Send + Sync + 'static,
) -> ReceiverStream<std::io::Result<Secured>> {
    let config = Arc::new(config);
    let (connections, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (config, connections) = (config.clone(), connections.clone());
            tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE, handshake(stream, &*config)).await {
                    // Who shuts down takes no more connections.
                    Ok(Ok(secured)) => connections.send(Ok(secured)).await.unwrap_or_default(),
                    Ok(Err(error)) => tracing::debug!("handshake: {error:#}"),
                    Err(_elapsed) => tracing::debug!("handshake: too slow"),
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn handshake(
    stream: TcpStream,
    config: &(impl Fn() -> anyhow::Result<ServerConfig> + Sync),
) -> anyhow::Result<Secured> {
    stream.set_nodelay(true).context("nodelay")?;
    let acceptor = TlsAcceptor::from(Arc::new(config()?));
    let stream = acceptor.accept(stream).await.context("TLS")?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let id = leaf.map(LeafFacts::read).transpose().context("client certificate")?.and_then(|facts| facts.id);
    Ok(Secured { stream, peer: PeerIdentity(id) })
}
