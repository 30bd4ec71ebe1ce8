//! One request and its answer on an HTTP/1 connection.

use super::{Counted, Pool};
use crate::codec::h1::{Announce, BodyReader, Decoded, HeadLimits, Outgoing, scan_response, write_request};
use crate::endpoint::Permit;
use crate::env::Instant;
use crate::message::{Body, Frame, RequestHead, ResponseHead, Source, Version};
use crate::net::Io;
use crate::outcome::{Outcome, Reason};
use bytes::{Buf, BytesMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Free room that a body read asks for.
const CHUNK_BYTES: usize = 16 << 10;

/// A connection; it holds no buffer while idle.
#[derive(Debug)]
pub struct Conn {
    /// The bytes.
    pub io: Io,
    /// Our address.
    pub local: Option<SocketAddr>,
    /// The identity that the peer proved.
    pub peer_id: Option<Arc<str>>,
    /// Since when it is idle.
    pub idle_since: Instant,
    /// Requests carried so far.
    pub served: u32,
    buf: BytesMut,
    /// Place below the cluster's connection limit, and the count; given back when the connection goes.
    _held: (Permit, Counted),
}

impl Conn {
    /// A fresh connection.
    pub fn new(
        io: Io,
        (local, peer_id): (Option<SocketAddr>, Option<Arc<str>>),
        held: (Permit, Counted),
        now: Instant,
    ) -> Box<Self> {
        Box::new(Self { io, local, peer_id, idle_since: now, served: 0, buf: BytesMut::new(), _held: held })
    }
}

/// What the answer may look like, given the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Plain,
    Head,
    Connect,
    Upgrade,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    /// Body bytes follow.
    Sending { chunked: bool },
    /// A tunnel that the server has not opened yet: no byte goes out (no early data).
    Held,
    /// Raw bytes of an open tunnel.
    Tunnel,
    /// All was written.
    Done,
    /// The server took no more; its answer may still come.
    Failed,
}

/// How far an exchange came, for the decision to try again (D3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether the connection had served a request before.
    pub reused: bool,
    /// Bytes of the request that the socket took.
    pub sent_bytes: u64,
    /// Whether any byte of an answer came.
    pub answered: bool,
    /// The connection ended, and the peer has not read all that was sent.
    pub unread: bool,
}

/// One request in flight. Every poll pumps the upload, then the download: full duplex without a task.
pub struct Exchange {
    conn: Option<Box<Conn>>,
    home: Rc<Pool>,
    out: Outgoing,
    request: Body,
    upload: Upload,
    asked: Asked,
    reader: BodyReader,
    keep_alive: bool,
    idle_before: Duration,
    sent_bytes: u64,
    received_bytes: u64,
    unread: bool,
    limits: HeadLimits,
}

impl Exchange {
    /// Starts a request on `conn`. Nothing is written before the first poll.
    pub fn new(mut conn: Box<Conn>, home: Rc<Pool>, head: &RequestHead, body: Body, now: Instant) -> Self {
        let asked = match head.method() {
            b"HEAD" => Asked::Head,
            b"CONNECT" => Asked::Connect,
            _ if !head.protocol().is_empty() => Asked::Upgrade,
            _ => Asked::Plain,
        };
        let mut out = Outgoing::default();
        let tunnel = matches!(asked, Asked::Connect | Asked::Upgrade);
        let announce = announce(head.method(), &body, tunnel);
        write_request(head, announce, out.lead());
        let upload = match (tunnel, announce, body.is_empty()) {
            (true, ..) => Upload::Held,
            (_, _, true) => Upload::Done,
            (_, announce, _) => Upload::Sending { chunked: announce == Announce::Chunked },
        };
        let idle_before = now.saturating_duration_since(conn.idle_since);
        conn.served += 1;
        Self {
            conn: Some(conn),
            home,
            out,
            request: body,
            upload,
            asked,
            reader: BodyReader::new(crate::codec::h1::Framing::Length(0)),
            keep_alive: true,
            idle_before,
            sent_bytes: 0,
            received_bytes: 0,
            unread: false,
            limits: HeadLimits { max_bytes: 96 << 10, max_fields: 200 },
        }
    }

    /// How far it came.
    pub fn progress(&self) -> Progress {
        Progress {
            reused: self.conn.as_ref().is_some_and(|conn| conn.served > 1),
            sent_bytes: self.sent_bytes,
            answered: self.received_bytes > 0,
            unread: self.unread,
        }
    }

    /// Our address of the connection.
    pub fn local(&self) -> Option<SocketAddr> {
        self.conn.as_ref().and_then(|conn| conn.local)
    }

    /// The identity that the peer proved.
    pub fn peer_id(&self) -> Option<Arc<str>> {
        self.conn.as_ref().and_then(|conn| conn.peer_id.clone())
    }

    /// The next head: interim ones too. After a final head the body follows by [`Source::poll_frame`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Outcome>> {
        loop {
            self.pump(cx)?;
            let method: &[u8] = match self.asked {
                Asked::Head => b"HEAD",
                Asked::Connect => b"CONNECT",
                _ => b"GET",
            };
            let conn = self.conn.as_mut().ok_or(Reason::Internal)?;
            if let Some((mut head, meta)) = scan_response(&conn.buf, method, self.limits)? {
                conn.buf.advance(meta.head_bytes);
                if !head.is_interim() {
                    self.reader = meta.body;
                    self.keep_alive = meta.keep_alive;
                    if let Some(seconds) = meta.keep_alive_timeout_s {
                        self.home.told_timeout(seconds);
                    }
                    self.open_tunnel(&head);
                }
                strip_hop_by_hop(&mut head);
                return Poll::Ready(Ok(head));
            }
            match ready!(conn.io.poll_read(cx, &mut conn.buf)) {
                Ok(0) => {
                    self.unread |= conn.io.is_unread();
                    return Poll::Ready(Err(self.died()));
                }
                Ok(n) => self.received_bytes += n as u64,
                Err(error) => {
                    self.unread |= is_reset(&error);
                    return Poll::Ready(Err(self.died()));
                }
            }
        }
    }

    /// The body if all of it is at hand; the connection goes home at once.
    pub fn take_ready_body(&mut self, now: Instant) -> Option<Body> {
        if self.upload != Upload::Done || !self.out.is_empty() {
            return None;
        }
        let conn = self.conn.as_mut()?;
        let body = match self.reader.remaining()? {
            0 => Body::Empty,
            n if n <= conn.buf.len() as u64 => Body::full(conn.buf.split_to(usize::try_from(n).ok()?).freeze()),
            _ => return None,
        };
        self.reader = BodyReader::new(crate::codec::h1::Framing::Length(0));
        self.finish(now);
        Some(body)
    }

    fn open_tunnel(&mut self, head: &ResponseHead) {
        let open = match self.asked {
            Asked::Upgrade => head.status == 101,
            Asked::Connect => (200..300).contains(&head.status),
            _ => return,
        };
        if open {
            self.upload = Upload::Tunnel;
            self.reader = BodyReader::new(crate::codec::h1::Framing::UntilClose);
        } else {
            self.upload = Upload::Done;
            self.request = Body::Empty;
        }
        // After an upgrade attempt the connection is never used again.
        self.keep_alive = false;
    }

    /// Writes what the socket takes. An upload that fails is remembered: the answer may be on its way already.
    fn pump(&mut self, cx: &mut Context<'_>) -> Result<(), Outcome> {
        let Some(conn) = self.conn.as_mut() else { return Ok(()) };
        loop {
            if matches!(self.upload, Upload::Sending { .. } | Upload::Tunnel) && self.out.has_room() {
                match self.request.poll_frame(cx) {
                    Poll::Pending if self.out.is_empty() => return Ok(()),
                    Poll::Pending => {}
                    Poll::Ready(Some(Err(outcome))) => return Err(outcome),
                    Poll::Ready(frame) => take(&mut self.out, &mut self.upload, frame.and_then(Result::ok)),
                }
            }
            if self.out.is_empty() {
                if !matches!(conn.io.poll_flush(cx), Poll::Ready(Ok(()))) {
                    return Ok(());
                }
                if self.upload == Upload::Done && self.asked != Asked::Plain && !self.keep_alive {
                    // The client of a tunnel is done: so is our half of it.
                    return match conn.io.poll_shutdown(cx) {
                        Poll::Ready(_) | Poll::Pending => Ok(()),
                    };
                }
                return Ok(());
            }
            if self.upload == Upload::Failed {
                return Ok(());
            }
            let written = match conn.io.poll_write(cx, &self.out.slices()) {
                Poll::Pending => return Ok(()),
                Poll::Ready(written) => written,
            };
            match written {
                Ok(n) if n > 0 => {
                    self.sent_bytes += n as u64;
                    self.out.advance(n);
                }
                failed => {
                    // The error is told once: the next read will know nothing of it.
                    self.unread |= failed.is_err_and(|error| is_reset(&error));
                    self.upload = Upload::Failed;
                    self.request = Body::Empty;
                    self.keep_alive = false;
                    return Ok(());
                }
            }
        }
    }

    fn died(&self) -> Outcome {
        if self.received_bytes == 0 && self.progress().reused {
            self.home.died_after(self.idle_before);
        }
        Reason::UpstreamClosed.into()
    }

    fn finish(&mut self, now: Instant) {
        let Some(mut conn) = self.conn.take() else { return };
        let clean = self.keep_alive && self.upload == Upload::Done && self.out.is_empty() && conn.buf.is_empty();
        if clean {
            conn.buf = BytesMut::new();
            self.home.give_back(conn, now);
        } else {
            drop(conn);
            self.home.lost(None);
        }
    }
}

impl Source for Exchange {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        loop {
            if let Err(outcome) = self.pump(cx) {
                return Poll::Ready(Some(Err(outcome)));
            }
            let Some(conn) = self.conn.as_mut() else { return Poll::Ready(None) };
            match self.reader.decode(&mut conn.buf) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                Ok(Decoded::Trailers(trailers)) => {
                    self.finish(Instant::now());
                    return Poll::Ready(Some(Ok(Frame::Trailers(trailers))));
                }
                Ok(Decoded::End) => {
                    self.finish(Instant::now());
                    return Poll::Ready(None);
                }
                Ok(Decoded::More) => {}
                Err(outcome) => {
                    let outcome = Outcome { reason: Reason::UpstreamProtocol, ..outcome };
                    return Poll::Ready(Some(Err(outcome)));
                }
            }
            conn.buf.reserve(CHUNK_BYTES);
            match ready!(conn.io.poll_read(cx, &mut conn.buf)) {
                Ok(n) if n > 0 => self.received_bytes += n as u64,
                Ok(_) if self.reader.ends_with_connection() => {
                    self.keep_alive = false;
                    self.finish(Instant::now());
                    return Poll::Ready(None);
                }
                _ => return Poll::Ready(Some(Err(Reason::UpstreamClosed.into()))),
            }
        }
    }

    fn length(&self) -> Option<u64> {
        self.reader.remaining()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.conn.take().is_some() {
            // Given up half way: the connection is closed, never reused.
            self.home.lost(None);
        }
    }
}

/// A peer resets what it closes with bytes that nobody has read.
fn is_reset(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::ConnectionReset
}

fn take(out: &mut Outgoing, upload: &mut Upload, frame: Option<Frame>) {
    let chunked = *upload == Upload::Sending { chunked: true };
    match frame {
        Some(Frame::Data(data)) => out.data(data, chunked),
        Some(Frame::Trailers(trailers)) => {
            if chunked {
                out.end_chunks(Some(&trailers));
            }
            *upload = Upload::Done;
        }
        None => {
            if chunked {
                out.end_chunks(None);
            }
            *upload = Upload::Done;
        }
    }
}

/// How the request's body is announced.
fn announce(method: &[u8], body: &Body, tunnel: bool) -> Announce {
    match body.length() {
        _ if tunnel => Announce::Nothing,
        Some(0) if body.is_empty() && !matches!(method, b"GET" | b"HEAD" | b"DELETE" | b"TRACE" | b"CONNECT") => {
            Announce::Length(0)
        }
        Some(0) if body.is_empty() => Announce::Nothing,
        Some(n) => Announce::Length(n),
        None => Announce::Chunked,
    }
}

/// Removes what concerns this connection only (HD-15).
fn strip_hop_by_hop(head: &mut ResponseHead) {
    use crate::message::Known;
    let upgrade = (head.status == 101).then(|| head.headers.get(Known::Upgrade).map(<[u8]>::to_vec)).flatten();
    crate::codec::bridge::strip_connection_headers(&mut head.headers);
    if let Some(protocol) = upgrade {
        head.headers.append_known(Known::Upgrade, &protocol);
    }
    if head.version == Version::H10 {
        head.version = Version::H11;
    }
}
