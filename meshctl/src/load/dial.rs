//! Connections: which address, over what, and how long it took.

use super::flags::{DnsMethod, Family, RequestArgs};
use super::histogram::Histogram;
use super::plan::Plan;
use super::tls;
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// Where connections go. Shared by all of a run.
pub struct Destination {
    host: String,
    port: u16,
    socket: Option<PathBuf>,
    tls: Option<TlsConnector>,
    resolve: String,
    family: Family,
    method: DnsMethod,
    keep_address: bool,
    timeout: Duration,
    cached: OnceLock<Vec<IpAddr>>,
    turn: AtomicUsize,
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secure = self.tls.is_some();
        out.debug_struct("Destination")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &secure)
            .finish()
    }
}

impl Destination {
    /// A host and port, with the flags that say how to get there. `protocols` is what TLS offers (ALPN); without it
    /// the connection is plain.
    ///
    /// # Errors
    /// Where a certificate file is unusable.
    pub fn new(host: &str, port: u16, args: &RequestArgs, protocols: Option<&[&str]>) -> anyhow::Result<Arc<Self>> {
        let tls = protocols.map(|protocols| tls::client(args, protocols)).transpose()?;
        Ok(Arc::new(Self {
            host: host.to_owned(),
            port,
            socket: args.unix_socket.clone(),
            tls: tls.map(|config| TlsConnector::from(Arc::new(config))),
            resolve: args.resolve.clone(),
            family: args.resolve_ip_type,
            method: args.dns_method,
            keep_address: args.no_reresolve,
            timeout: args.timeout,
            cached: OnceLock::new(),
            turn: AtomicUsize::new(0),
        }))
    }

    /// The next address to use.
    ///
    /// # Errors
    /// Where the name has none of the wanted kind.
    pub async fn address(&self) -> Result<SocketAddr> {
        let name = if self.resolve.is_empty() { &self.host } else { &self.resolve };
        if let Ok(address) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, self.port));
        }
        let pick = |addresses: &[IpAddr], index: usize| {
            let address = addresses.get(index % addresses.len().max(1)).copied();
            address.map(|address| SocketAddr::new(address, self.port))
        };
        let nothing = || Error::new(ErrorKind::NotFound, format!("{name} has no address of type {:?}", self.family));
        let in_turn = || self.turn.fetch_add(1, Ordering::Relaxed);
        if self.method == DnsMethod::CachedRr {
            if self.cached.get().is_none() {
                let found = self.look_up(name).await?;
                self.cached.get_or_init(|| found); // whoever was first, the list is kept for all
            }
            return pick(self.cached.get().map_or(&[], Vec::as_slice), in_turn()).ok_or_else(nothing);
        }
        let addresses = self.look_up(name).await?;
        let index = match self.method {
            DnsMethod::Rnd => fastrand::usize(..),
            DnsMethod::Rr => in_turn(),
            DnsMethod::First | DnsMethod::CachedRr => 0,
        };
        pick(&addresses, index).ok_or_else(nothing)
    }

    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>> {
        let all = tokio::net::lookup_host((name, self.port)).await?.map(|address| address.ip());
        let wanted = |address: &IpAddr| match self.family {
            Family::Ip4 => address.is_ipv4(),
            Family::Ip6 => address.is_ipv6(),
            Family::Ip => true,
        };
        Ok(all.filter(wanted).collect())
    }
}

/// Makes the connections of one client, and counts them.
#[derive(Debug)]
pub struct Dialer {
    destination: Arc<Destination>,
    first: Option<SocketAddr>,
    /// Times of connecting, in seconds; its count is that of the connections.
    pub times: Histogram,
    /// Addresses used, with how often.
    pub addresses: BTreeMap<String, u64>,
}

impl Dialer {
    /// One for a destination, with the buckets of a plan.
    pub fn new(destination: &Arc<Destination>, plan: &Plan) -> Self {
        Self {
            destination: Arc::clone(destination),
            first: None,
            times: Histogram::new(plan.offset, plan.resolution),
            addresses: BTreeMap::new(),
        }
    }

    /// Opens a connection within the time of the flags.
    ///
    /// # Errors
    /// Where the name has no address, nobody listens, TLS fails or time runs out.
    pub async fn dial(&mut self) -> Result<Stream> {
        let destination = Arc::clone(&self.destination);
        if let Some(path) = &destination.socket {
            let start = Instant::now();
            let stream = in_time(destination.timeout, UnixStream::connect(path)).await;
            self.times.record(start.elapsed().as_secs_f64());
            return stream.map(Stream::Unix);
        }
        let address = match self.first {
            Some(address) if destination.keep_address => address,
            _ => in_time(destination.timeout, destination.address()).await?,
        };
        self.first.get_or_insert(address);
        *self.addresses.entry(address.to_string()).or_default() += 1;
        let start = Instant::now();
        let stream = in_time(destination.timeout, Box::pin(connect(&destination, address))).await;
        self.times.record(start.elapsed().as_secs_f64());
        stream
    }
}

async fn connect(destination: &Destination, address: SocketAddr) -> Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(connector) = &destination.tls else { return Ok(Stream::Tcp(stream)) };
    let name = ServerName::try_from(destination.host.clone()).map_err(|e| Error::new(ErrorKind::InvalidInput, e))?;
    Ok(Stream::Tls(Box::new(connector.connect(name, stream).await?)))
}

async fn in_time<T>(timeout: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::new(ErrorKind::TimedOut, "no connection in time: see -timeout");
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(late()))
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Plain.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// What TLS agreed on (ALPN), if anything.
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }
}

/// Calls a method of whichever stream it is.
macro_rules! each {
    ($self:expr, $method:ident, $($argument:expr),*) => {
        match $self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Self::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Self::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        each!(self, poll_read, cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        each!(self, poll_write, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        each!(self, poll_shutdown, cx)
    }
}
