//! The fast client: HTTP/1 with the bytes of the request made once, one connection, and no more of the answer kept than
//! its status and sizes. It knows nothing of pacing.

pub mod answer;

use super::dial::{Dialer, Stream};
use super::flags::{RequestArgs, Reuse};
use super::record::Answer;
use super::request::{Request, UUID, uuid};
use super::watchdog::Watchdog;
use answer::{Incoming, Kept, MAX_HEAD};
use std::io::{ErrorKind, Result, Write};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Smallest buffer, so that a head fits.
const MIN_BUFFER: usize = MAX_HEAD + 1024;
/// Largest buffer that `-httpbufferkb` may ask for, in bytes.
const MAX_BUFFER: usize = 64 << 20;

/// One client with one connection.
#[derive(Debug)]
pub struct FastClient {
    /// How it connects.
    pub dialer: Dialer,
    request: Vec<u8>,
    /// Where in the request a random number stands.
    markers: Vec<usize>,
    head_only: bool,
    keep_alive: bool,
    half_close: bool,
    reuse: Option<Reuse>,
    /// Requests that the connection may still carry; `None` without a bound.
    left: Option<u32>,
    watchdog: Watchdog,
    timeout: Duration,
    connection: Option<Stream>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold something.
    filled: usize,
}

impl FastClient {
    /// A client for a request.
    pub fn new(request: &Request, args: &RequestArgs, dialer: Dialer) -> Self {
        let (bytes, markers) = bytes_of(request, args);
        Self {
            dialer,
            request: bytes,
            markers,
            head_only: request.method == "HEAD",
            keep_alive: args.keepalive && !args.http10,
            half_close: args.halfclose,
            reuse: args.connection_reuse,
            left: None,
            watchdog: Watchdog::default(),
            timeout: args.timeout,
            connection: None,
            // grown to its full size once an answer needs it: a thousand connections must not hold 128 MB
            buffer: vec![0; MIN_BUFFER.min((args.httpbufferkb << 10).clamp(4096, MAX_BUFFER))],
            filled: 0,
        }
    }

    /// One call; a failure is a code too. A connection that died while it was idle is replaced once.
    ///
    /// # Errors
    /// What went wrong, where there is no answer.
    pub async fn call(&mut self) -> Result<Answer> {
        self.watchdog.start(self.timeout);
        let reused = self.connection.is_some();
        let fresh = Incoming::new(self.head_only);
        let outcome = match self.exchange(fresh.clone()).await {
            Err(error) if reused && self.filled == 0 && is_dead(&error) => self.exchange(fresh).await,
            outcome => outcome,
        };
        let incoming = outcome?;
        debug_assert!(incoming.status >= 200 || incoming.status == 101, "an answer has a final status");
        Ok(Answer::http(incoming.status, incoming.size, incoming.head_size))
    }

    /// One call whose answer is given back too, with its status.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn fetch(&mut self) -> Result<(u16, Kept)> {
        self.watchdog.start(self.timeout);
        let incoming = self.exchange(Incoming::keeping(self.head_only)).await?;
        Ok((incoming.status, incoming.into_kept()))
    }

    /// Sends the request and takes the answer. The connection is kept only where all went well.
    async fn exchange(&mut self, incoming: Incoming) -> Result<Incoming> {
        self.filled = 0;
        let mut stream = match self.connection.take() {
            Some(stream) => stream,
            None => {
                self.left = self.reuse.map(Reuse::draw).filter(|bound| *bound > 0);
                self.dialer.dial().await?
            }
        };
        for marker in &self.markers {
            if let Some(mut place) = self.request.get_mut(*marker..) {
                place.write_all(uuid().as_bytes())?;
            }
        }
        self.watchdog.guard(stream.write_all(&self.request)).await?;
        self.watchdog.guard(stream.flush()).await?;
        if !self.keep_alive && self.half_close {
            self.watchdog.guard(stream.shutdown()).await?;
        }
        let incoming = self.receive(&mut stream, incoming).await?;
        let spent = self.left.as_mut().is_some_and(|left| {
            *left = left.saturating_sub(1);
            *left == 0
        });
        if self.keep_alive && incoming.keep && !spent {
            self.connection = Some(stream);
        }
        Ok(incoming)
    }

    async fn receive(&mut self, stream: &mut Stream, mut incoming: Incoming) -> Result<Incoming> {
        let mut pending = 0; // bytes at the beginning of the buffer that must be looked at again
        while !incoming.is_complete() {
            let room = self.buffer.get_mut(pending..).unwrap_or_default();
            let count = self.watchdog.guard(stream.read(room)).await?;
            if count == 0 {
                incoming.end()?;
                break;
            }
            self.filled += count;
            let end = pending + count;
            let bytes = self.buffer.get(..end).unwrap_or_default();
            let used = incoming.take(bytes)?;
            self.buffer.copy_within(used..end, 0);
            pending = end - used;
            if pending == self.buffer.len() {
                self.buffer.resize(MIN_BUFFER.max(self.buffer.len() * 2), 0); // Incoming refuses longer heads
            }
        }
        Ok(incoming)
    }
}

/// Whether the server had closed the connection before it saw the request.
fn is_dead(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}

/// The request as it is sent, and where in it a random number stands.
fn bytes_of(request: &Request, args: &RequestArgs) -> (Vec<u8>, Vec<usize>) {
    let version = if args.http10 { "1.0" } else { "1.1" };
    let mut head = format!("{} {} HTTP/{version}\r\nHost: {}\r\n", request.method, request.path, request.authority);
    if !args.keepalive && !args.http10 {
        head.push_str("Connection: close\r\n");
    }
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut template = head.into_bytes();
    template.extend_from_slice(&request.payload);
    let (mut bytes, mut markers, mut rest) = (Vec::new(), Vec::new(), template.as_slice());
    while let Some(at) = memchr::memmem::find(rest, UUID.as_bytes()) {
        bytes.extend_from_slice(rest.get(..at).unwrap_or_default());
        markers.push(bytes.len());
        bytes.extend_from_slice(uuid().as_bytes());
        rest = rest.get(at + UUID.len()..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest);
    (bytes, markers)
}
