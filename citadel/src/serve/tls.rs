//! TLS of the certificate service: a serving certificate of our own authority, optional client certificates.

use crate::authenticate::mtls::PeerCertificate;
use crate::ca::root::Authority;
use crate::ca::sign;
use anyhow::Context;
use identity::san::SanMatch;
use identity::svid::provider;
use identity::verify::optional_client_verifier;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Life of the serving certificate; it is replaced at half of it.
const SERVING_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most handshakes at a time; further connections wait in the kernel.
const MAX_HANDSHAKES: usize = 256;

/// The TLS configuration of the moment: follows the authority and renews its own certificate.
///
/// # Errors
/// Where the first certificate cannot be made.
pub fn follow(
    mut authority: watch::Receiver<Arc<Authority>>,
    hosts: Vec<String>,
    background: &mut JoinSet<()>,
) -> anyhow::Result<watch::Receiver<Arc<ServerConfig>>> {
    let first = config(&authority.borrow_and_update(), &hosts)?;
    let (sender, receiver) = watch::channel(Arc::new(first));
    background.spawn(async move {
        loop {
            tokio::select! {
                changed = authority.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(SERVING_TTL / 2) => {}
            }
            match config(&authority.borrow_and_update(), &hosts) {
                Ok(new) => drop(sender.send_replace(Arc::new(new))),
                Err(error) => tracing::error!(%error, "cannot renew the serving certificate"),
            }
        }
    });
    Ok(receiver)
}

fn config(authority: &Authority, hosts: &[String]) -> anyhow::Result<ServerConfig> {
    let key = KeyPair::generate()?;
    let chain = sign::server_certificate(authority, &key, hosts, SERVING_TTL, SystemTime::now())
        .context("cannot make the serving certificate")?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(optional_client_verifier(authority.roots(), SanMatch::any()))
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry a client certificate that nobody checked again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Accepts connections and shakes hands with each on its own, so that a slow client delays nobody.
pub fn accept(
    listener: TcpListener,
    configs: watch::Receiver<Arc<ServerConfig>>,
    background: &mut JoinSet<()>,
) -> ReceiverStream<std::io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(16);
    background.spawn(async move {
        let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors: let some close
                    continue;
                }
            };
            let acceptor = TlsAcceptor::from(Arc::clone(&configs.borrow()));
            let ready = ready.clone();
            tokio::spawn(async move {
                let _slot = slot;
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => drop(ready.send(Ok(Connection(stream))).await),
                    Ok(Err(error)) => tracing::debug!(%error, "handshake failed"),
                    Err(_) => tracing::debug!("handshake timed out"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

/// A TLS connection that tells tonic who the peer is.
#[derive(Debug)]
pub struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = super::Peer;

    fn connect_info(&self) -> Self::ConnectInfo {
        PeerCertificate::of(self.0.get_ref().1.peer_certificates())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
