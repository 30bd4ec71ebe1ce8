//! Questions about names that are not of the mesh: passed on to the pod's own servers, bytes untouched.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// How long one server may take (DN-1).
pub(super) const SERVER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest UDP answer that is read.
const MAX_UDP_BYTES: usize = 4096;

/// What matters here of a resolv.conf.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvConf {
    /// Servers, in order.
    pub servers: Vec<SocketAddr>,
    /// Search list.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads the text; lines that say nothing about servers or search domains are passed over.
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|text| text.split('%').next()?.parse::<IpAddr>().ok());
                    found.servers.extend(address.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search") => found.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        found
    }
}

/// Asks the servers one after the other.
#[derive(Debug, Clone)]
pub struct Forwarder {
    servers: Vec<SocketAddr>,
    timeout: Duration,
    mark: Option<u32>,
}

impl Forwarder {
    /// Asks these servers; `own` is where we listen, and is never asked.
    pub fn new(servers: Vec<SocketAddr>, own: SocketAddr) -> Self {
        let servers = servers.into_iter().filter(|server| *server != own).collect();
        Self { servers, timeout: SERVER_TIMEOUT, mark: None }
    }

    /// The same with another timeout per server.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The same with a firewall mark on what it sends, so that rules which capture DNS leave it alone.
    #[must_use]
    pub fn with_mark(self, mark: Option<u32>) -> Self {
        Self { mark, ..self }
    }

    /// The first answer over UDP; `None` where no server answers in time.
    pub async fn udp(&self, question: &[u8]) -> Option<Vec<u8>> {
        for server in &self.servers {
            match tokio::time::timeout(self.timeout, ask_udp(*server, self.mark, question)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "name server failed"),
                Err(_) => tracing::debug!(%server, "name server did not answer in time"),
            }
        }
        None
    }

    /// The same over TCP.
    pub async fn tcp(&self, question: &[u8]) -> Option<Vec<u8>> {
        for server in &self.servers {
            match tokio::time::timeout(self.timeout, ask_tcp(*server, self.mark, question)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "name server failed"),
                Err(_) => tracing::debug!(%server, "name server did not answer in time"),
            }
        }
        None
    }
}

/// A socket per question: its random port is what makes forged answers hard.
async fn ask_udp(server: SocketAddr, mark: Option<u32>, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    if let Some(mark) = mark {
        socket2::SockRef::from(&socket).set_mark(mark)?;
    }
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MAX_UDP_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let same_id = length >= 12 && buffer.get(..2) == question.get(..2);
        if same_id {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, mark: Option<u32>, question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(mark) = mark {
        socket2::SockRef::from(&socket).set_mark(mark)?;
    }
    let mut stream = socket.connect(server).await?;
    write_framed(&mut stream, question).await?;
    read_framed(&mut stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Writes one message with its length before it (RFC 1035, section 4.2.2).
pub(super) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// Reads one message; `None` at the end of the stream.
pub(super) async fn read_framed(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other.map(drop)?,
    }
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
