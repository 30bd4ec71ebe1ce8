//! Connections to a server, with the identity that their certificates prove.
//!
//! Each handshake runs in a task of its own, so that a slow client holds up nobody; at most [`MAX_HANDSHAKES`] at a time,
//! further connections wait in the kernel.

use crate::client::Credentials;
use crate::stream::Stream;
use anyhow::Context as _;
use identity::san::SanMatch;
use identity::spiffe::SpiffeId;
use identity::svid::{LeafFacts, provider};
use identity::verify::{client_verifier, optional_client_verifier};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Most handshakes at a time.
const MAX_HANDSHAKES: usize = 256;
/// Connections that may wait to be served.
const WAITING: usize = 64;
/// Pause after a refusal of the system, such as a lack of descriptors: some will close meanwhile.
const PAUSE: Duration = Duration::from_millis(50);
/// First byte of a handshake (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;
/// What clients of the mesh may offer: gRPC, HTTP/1, and what a sidecar says where it does not know (MT-1).
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"istio"];

/// Who gets in.
#[derive(Debug, Clone)]
pub enum Door {
    /// Everybody, in plain text; nobody proves anything.
    Plain,
    /// Everybody, in plain text or by TLS; a certificate that is shown is checked.
    Permissive(Trust),
    /// Who has a certificate of the mesh.
    Strict(Trust),
}

/// What is presented and who is accepted.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The credentials of the moment; while there are none, nobody gets in by TLS.
    pub held: watch::Receiver<Option<Arc<Credentials>>>,
    /// Acceptable names of clients.
    pub accept: SanMatch,
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate that it has shown, which was checked.
    pub certificate: Option<Certificate>,
}

/// What a client's certificate proves.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Its SPIFFE id; none where it has no single one.
    pub id: Option<SpiffeId>,
    /// When it ends.
    pub until: SystemTime,
}

impl Peer {
    /// One that has shown no certificate.
    pub fn unproven(address: SocketAddr) -> Self {
        Self { address, certificate: None }
    }

    /// The identity in its certificate.
    pub fn id(&self) -> Option<&SpiffeId> {
        self.certificate.as_ref()?.id.as_ref()
    }

    /// The identity, unless its certificate has ended since: a connection may outlive the certificate that opened it.
    pub fn proven(&self, now: SystemTime) -> Option<&SpiffeId> {
        self.certificate.as_ref().filter(|certificate| now <= certificate.until)?.id.as_ref()
    }
}

/// A connection that tells tonic who the peer is.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
}

/// Accepts until nobody takes connections any more.
pub fn accept(listener: TcpListener, door: Door) -> ReceiverStream<std::io::Result<Connection>> {
    let mut configs = Configs { door, last: None };
    accept_by(listener, move || configs.now())
}

/// Accepts by TLS, each connection with the configuration of the moment.
pub fn accept_tls(
    listener: TcpListener,
    mut config: impl FnMut() -> anyhow::Result<Arc<ServerConfig>> + Send + 'static,
) -> ReceiverStream<std::io::Result<Connection>> {
    accept_by(listener, move || Terms::Tls { config: config(), plain: false })
}

fn accept_by(
    listener: TcpListener,
    mut terms: impl FnMut() -> Terms + Send + 'static,
) -> ReceiverStream<std::io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let terms = terms();
            let ready = ready.clone();
            tokio::spawn(async move {
                let _slot = slot;
                match tokio::time::timeout(HANDSHAKE, enter(stream, address, terms)).await {
                    // Who shuts down takes no more connections.
                    Ok(Ok(connection)) => ready.send(Ok(connection)).await.unwrap_or_default(),
                    Ok(Err(error)) => tracing::debug!(%address, "connection refused: {error:#}"),
                    Err(_elapsed) => tracing::debug!(%address, "connection refused: the handshake is too slow"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

/// What holds for one connection.
enum Terms {
    Plain,
    Tls { config: anyhow::Result<Arc<ServerConfig>>, plain: bool },
}

/// The TLS configuration of the moment, made once for each certificate.
struct Configs {
    door: Door,
    last: Option<(Arc<Credentials>, Arc<ServerConfig>)>,
}

impl Configs {
    fn now(&mut self) -> Terms {
        let (trust, plain) = match &self.door {
            Door::Plain => return Terms::Plain,
            Door::Permissive(trust) => (trust, true),
            Door::Strict(trust) => (trust, false),
        };
        let Some(held) = trust.held.borrow().clone() else {
            return Terms::Tls { config: Err(anyhow::anyhow!("there is no certificate yet")), plain };
        };
        if let Some((credentials, config)) = &self.last
            && Arc::ptr_eq(credentials, &held)
        {
            return Terms::Tls { config: Ok(config.clone()), plain };
        }
        let verify = if plain { optional_client_verifier } else { client_verifier };
        let clients = verify(held.roots.clone(), trust.accept.clone());
        let config = server_config((*held.svid.certified_key()).clone(), clients, &PROTOCOLS).map(Arc::new);
        if let Ok(config) = &config {
            self.last = Some((held, config.clone()));
        }
        Terms::Tls { config, plain }
    }
}

/// TLS of a server: what it presents, who may be its clients, what they may speak (ALPN). No session is resumed: it would carry
/// a client certificate that nobody checked again.
///
/// # Errors
/// Where the versions of TLS are not those of the provider.
pub fn server_config(
    own: CertifiedKey,
    clients: Arc<dyn ClientCertVerifier>,
    protocols: &[&[u8]],
) -> anyhow::Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

async fn enter(stream: TcpStream, address: SocketAddr, terms: Terms) -> anyhow::Result<Connection> {
    stream.set_nodelay(true)?;
    let plain = |stream| Connection { stream: Stream::Plain(stream), peer: Peer::unproven(address) };
    let Terms::Tls { config, plain: accepts_plain } = terms else { return Ok(plain(stream)) };
    if accepts_plain {
        let mut first = [0];
        stream.peek(&mut first).await?;
        if first != [HANDSHAKE_RECORD] {
            return Ok(plain(stream));
        }
    }
    let stream = TlsAcceptor::from(config?).accept(stream).await.context("TLS")?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let facts = leaf.map(LeafFacts::read).transpose().context("client certificate")?;
    let certificate = facts.map(|facts| Certificate { id: facts.id, until: facts.lifetime.not_after });
    let peer = Peer { address, certificate };
    Ok(Connection { stream: Stream::Tls(Box::new(stream.into())), peer })
}

impl Connection {
    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
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
