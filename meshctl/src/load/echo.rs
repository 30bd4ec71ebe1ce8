//! TCP and UDP: sends bytes and waits for the same bytes to come back.

use super::dial::{Destination, Dialer, Stream};
use super::record::{Answer, Code};
use super::watchdog::Watchdog;
use bytes::Bytes;
use std::borrow::Cow;
use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

/// What a good exchange is called.
const OK: Code = Code::Named(Cow::Borrowed("OK"));

/// What is sent: the given bytes, or 24 that name the connection and the message, as Fortio does.
#[derive(Debug)]
struct Messages {
    connection: usize,
    number: u64,
    fixed: Bytes,
}

impl Messages {
    fn next(&mut self) -> Bytes {
        self.number += 1;
        if !self.fixed.is_empty() {
            return self.fixed.clone();
        }
        format!("Fortio\n{:04}\n{:012}", self.connection % 10_000, self.number).into()
    }
}

/// Bytes that went over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Sent.
    pub sent: u64,
    /// Received.
    pub received: u64,
}

/// How an exchange ended, as an answer.
pub fn answer(outcome: &Result<u64>) -> Answer {
    match outcome {
        Ok(size) => Answer { code: OK, good: true, size: *size, head_size: 0 },
        Err(error) => Answer { code: Code::Named(Cow::Owned(error.to_string())), good: false, size: 0, head_size: 0 },
    }
}

/// A TCP client with one connection.
#[derive(Debug)]
pub struct TcpClient {
    /// How it connects.
    pub dialer: Dialer,
    /// What went over it.
    pub traffic: Traffic,
    messages: Messages,
    connection: Option<Stream>,
    buffer: Vec<u8>,
    watchdog: Watchdog,
    timeout: Duration,
}

impl TcpClient {
    /// The client of that number; `payload` may be empty.
    pub fn new(number: usize, dialer: Dialer, payload: Bytes, timeout: Duration) -> Self {
        Self {
            dialer,
            traffic: Traffic::default(),
            messages: Messages { connection: number, number: 0, fixed: payload },
            connection: None,
            buffer: Vec::new(),
            watchdog: Watchdog::default(),
            timeout,
        }
    }

    /// One exchange. Gives back the bytes received.
    ///
    /// # Errors
    /// What went wrong; the connection is closed then.
    pub async fn call(&mut self) -> Result<u64> {
        let message = self.messages.next();
        self.watchdog.start(self.timeout);
        let mut stream = match self.connection.take() {
            Some(stream) => stream,
            None => self.dialer.dial().await?,
        };
        self.buffer.resize(message.len(), 0);
        let Self { buffer, traffic, watchdog, .. } = self;
        watchdog.guard(stream.write_all(&message)).await?;
        traffic.sent += message.len() as u64;
        let short = |error: Error| match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => Error::new(error.kind(), "short read"),
            _ => error,
        };
        watchdog.guard(stream.read_exact(buffer)).await.map_err(short)?;
        traffic.received += message.len() as u64;
        if *buffer != message {
            return Err(Error::new(ErrorKind::InvalidData, "read not echoing writes"));
        }
        self.connection = Some(stream);
        Ok(message.len() as u64)
    }
}

/// A UDP client with one socket.
#[derive(Debug)]
pub struct UdpClient {
    destination: Arc<Destination>,
    /// What went over it.
    pub traffic: Traffic,
    /// Sockets opened.
    pub sockets: u64,
    messages: Messages,
    socket: Option<UdpSocket>,
    buffer: Vec<u8>,
    watchdog: Watchdog,
    timeout: Duration,
}

/// Largest datagram.
const MAX_DATAGRAM: usize = 65_536;

impl UdpClient {
    /// The client of that number; `payload` may be empty.
    pub fn new(number: usize, destination: &Arc<Destination>, payload: Bytes, timeout: Duration) -> Self {
        Self {
            destination: Arc::clone(destination),
            traffic: Traffic::default(),
            sockets: 0,
            messages: Messages { connection: number, number: 0, fixed: payload },
            socket: None,
            buffer: vec![0; MAX_DATAGRAM],
            watchdog: Watchdog::default(),
            timeout,
        }
    }

    /// One exchange. Gives back the bytes received.
    ///
    /// # Errors
    /// What went wrong; the socket is closed then, so that a late answer is not taken for the next one.
    pub async fn call(&mut self) -> Result<u64> {
        let message = self.messages.next();
        self.watchdog.start(self.timeout);
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.open().await?,
        };
        socket.send(&message).await?;
        self.traffic.sent += message.len() as u64;
        let count = self.watchdog.guard(socket.recv(&mut self.buffer)).await?;
        self.traffic.received += count as u64;
        if self.buffer.get(..count) != Some(message.as_ref()) {
            return Err(Error::new(ErrorKind::InvalidData, "read not echoing writes"));
        }
        self.socket = Some(socket);
        Ok(count as u64)
    }

    async fn open(&mut self) -> Result<UdpSocket> {
        let address = self.destination.address().await?;
        let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(std::net::SocketAddr::new(any, 0)).await?;
        self.sockets += 1;
        socket.connect(address).await?;
        Ok(socket)
    }
}
