//! Addresses to listen on, as Fortio writes them: `8080`, `host:8080`, `/a/path`, `unix:path`.

use super::echo::Peer;
use anyhow::Context;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener, PathBuf),
}

/// A connection that came in.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Listener {
    /// The next connection; `None` where it failed before it was there, which is its own affair.
    pub async fn accept(&self) -> Option<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await.ok()?;
                stream.set_nodelay(true).ok()?;
                Some((Socket::Tcp(stream), Peer::at(peer)))
            }
            Self::Unix(listener, path) => {
                let (stream, _) = listener.accept().await.ok()?;
                let name = path.display().to_string();
                Some((Socket::Unix(stream), Peer { name, is_local: true, tls: String::new() }))
            }
        }
    }

    /// `tcp` or `unix`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Unix(..) => "unix",
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> std::io::Result<String> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Self::Unix(_, path) => Ok(path.display().to_string()),
        }
    }
}

/// Listens on a port, an address or a path.
///
/// # Errors
/// Where that is taken or no address.
pub async fn stream(address: &str) -> anyhow::Result<Listener> {
    let path = address.strip_prefix("unix:").or_else(|| address.contains('/').then_some(address));
    if let Some(path) = path {
        let path = Path::new(path);
        // one that was left behind by a server that is gone; anything else stays
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
        if is_socket && UnixStream::connect(path).await.is_err() {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        return Ok(Listener::Unix(listener, path.to_owned()));
    }
    let mut failure = None;
    for address in addresses(address).await? {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(Listener::Tcp(listener)),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.map_or_else(|| anyhow::anyhow!("no such address"), Into::into))
        .with_context(|| format!("cannot listen on {address}"))
}

/// A UDP socket on a port or an address.
///
/// # Errors
/// Where that is taken or no address.
pub async fn udp(address: &str) -> anyhow::Result<UdpSocket> {
    let addresses = addresses(address).await?;
    UdpSocket::bind(addresses.as_slice()).await.with_context(|| format!("cannot listen on udp {address}"))
}

/// All addresses that a text may mean, the best first. A port alone is that of all addresses of this machine.
async fn addresses(text: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let any = |port: u16| {
        let both: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
        both.map(|ip| SocketAddr::new(ip, port)).to_vec()
    };
    if let Ok(port) = text.trim_start_matches(':').parse() {
        return Ok(any(port));
    }
    let found = tokio::net::lookup_host(text).await;
    let found = found.with_context(|| format!("{text:?} is no address: write 8080, host:8080, /a/path or disabled"))?;
    Ok(found.collect())
}
