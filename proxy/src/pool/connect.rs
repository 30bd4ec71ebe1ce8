//! Dialling: socket options, connect timeout, TLS handshake.

use crate::endpoint::Address;
use crate::env::Instant;
use crate::net::{Io, TlsIo};
use crate::outcome::{Outcome, Reason};
use crate::tls::ClientContext;
use bytes::BytesMut;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// How to dial an endpoint.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Bound of connect and handshake together.
    pub timeout: Duration,
    /// Source address to bind, for IPv4 and IPv6 (PT-13: 127.0.0.6).
    pub source: Box<[IpAddr]>,
    /// Firewall mark (`SO_MARK`); needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// TCP keepalive: idle time, interval, probes.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// TLS; none is plaintext.
    pub tls: Option<Arc<ClientContext>>,
    /// ALPN protocols to offer instead of the configured ones.
    pub alpn: Option<Arc<[Vec<u8>]>>,
    /// Server name to send instead of the configured one.
    pub server_name: Option<Arc<str>>,
}

/// A connection that was dialled.
#[derive(Debug)]
pub struct Dialled {
    /// The connection, handshake done.
    pub io: Io,
    /// Our address; none for Unix sockets.
    pub local: Option<SocketAddr>,
    /// The first URI name of the certificate that the peer proved.
    pub peer_id: Option<Arc<str>>,
    /// Time that it took.
    pub took: Duration,
}

/// Dials `address`.
///
/// # Errors
/// [`Reason::ConnectTimeout`], or [`Reason::ConnectFailure`] with Envoy's text. Cancel-safe.
pub async fn connect(address: &Address, dial: &Dial) -> Result<Dialled, Outcome> {
    let started = Instant::now();
    match tokio::time::timeout(dial.timeout, establish(address, dial)).await {
        Ok(done) => done.map(|(io, local, peer_id)| Dialled { io, local, peer_id, took: started.elapsed() }),
        Err(_) => Err(Reason::ConnectTimeout.into()),
    }
}

/// A connection, our address, and the identity that the peer proved.
type Established = (Io, Option<SocketAddr>, Option<Arc<str>>);

async fn establish(address: &Address, dial: &Dial) -> Result<Established, Outcome> {
    let target = match address {
        Address::Ip(target) => *target,
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|error| refused(&error))?;
            return Ok((Io::Unix(stream), None, None));
        }
    };
    let stream = tcp(target, dial).await.map_err(|error| refused(&error))?;
    let local = stream.local_addr().ok();
    let Some(context) = &dial.tls else { return Ok((Io::tcp(stream), local, None)) };
    let session = context.session(dial.alpn.as_deref(), dial.server_name.as_deref())?;
    let mut tls = Box::new(TlsIo::new(stream, session, BytesMut::new()));
    poll_fn(|cx| tls.poll_handshake(cx)).await.map_err(|error| {
        let cause = error.get_ref().map_or_else(|| error.to_string(), ToString::to_string);
        Outcome::with_detail(Reason::ConnectFailure, format!("TLS error: {cause}"))
    })?;
    let leaf = tls.session().peer_certificates().and_then(|chain| chain.first()).and_then(crate::tls::cert_facts);
    let peer_id = leaf.and_then(|cert| cert.uri_sans.first().map(|id| Arc::from(&**id)));
    Ok((Io::Tls(tls), local, peer_id))
}

async fn tcp(target: SocketAddr, dial: &Dial) -> std::io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    if let Some(mark) = dial.mark {
        socket2::SockRef::from(&socket).set_mark(mark)?;
    }
    if let Some((idle, interval, probes)) = dial.keepalive {
        let options = socket2::TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes);
        socket2::SockRef::from(&socket).set_tcp_keepalive(&options)?;
    }
    if let Some(source) = dial.source.iter().find(|ip| ip.is_ipv4() == target.is_ipv4()) {
        socket.bind(SocketAddr::new(*source, 0))?;
    }
    socket.connect(target).await
}

fn refused(error: &std::io::Error) -> Outcome {
    let text = match error.raw_os_error() {
        Some(code) => rustix::io::Errno::from_raw_os_error(code).to_string(),
        None => error.to_string(),
    };
    let text = text.split(" (os error").next().unwrap_or(&text);
    Outcome::with_detail(Reason::ConnectFailure, format!("delayed connect error: {text}"))
}
