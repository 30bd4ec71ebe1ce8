//! One HTTP/1 connection from a client: requests one after the other.

use super::downstream::{Downstream, Sent};
use super::stream::{Settings, serve_stream};
use crate::codec::bridge::strip_connection_headers;
use crate::codec::h1::{Announce, BodyReader, Decoded, Framing, Outgoing, RequestMeta, scan_request, write_response};
use crate::drain::{Stage, Stay};
use crate::env::Instant;
use crate::filter::Filter;
use crate::message::{Body, Frame, Known, Request, RequestHead, ResponseHead, Source, Version};
use crate::net::{Io, PeerFacts};
use crate::outcome::{Outcome, Reason};
use bytes::{Buf, BytesMut};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Free room that a body read asks for.
const CHUNK_BYTES: usize = 16 << 10;
/// Bytes of pipelined requests that are read ahead.
const READ_AHEAD_BYTES: usize = 64 << 10;
/// Bytes of an unread request body that are read and dropped to keep the connection.
const DRAIN_BYTES: u64 = 64 << 10;

/// What body source, reply and watch share of a connection.
#[derive(Debug)]
pub struct Conn {
    io: Io,
    buf: BytesMut,
    out: Outgoing,
    body: BodyReader,
    tunnel: Tunnel,
    /// `100 Continue` is owed as soon as somebody wants the body.
    owes_continue: bool,
    gone: bool,
    received_bytes: u64,
    started: Instant,
    requests: u32,
    stay: Stay,
}

/// A connection that its parts share; no borrow outlives a poll.
pub(super) type Shared = Rc<RefCell<Conn>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tunnel {
    No,
    /// Asked for; the client's bytes wait until it is granted.
    Asked,
    Open,
}

impl Conn {
    /// Ready once the client is gone. Pipelined bytes are read ahead up to a limit.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.gone |= self.stay.stage() == Stage::Over;
        if self.gone {
            return Poll::Ready(());
        }
        if !self.body.is_done() || self.tunnel != Tunnel::No || self.buf.len() >= READ_AHEAD_BYTES {
            // The body's reader sees the end itself; a full read-ahead waits for the next request.
            return Poll::Pending;
        }
        loop {
            match ready!(self.io.poll_read(cx, &mut self.buf)) {
                Ok(n) if n > 0 && self.buf.len() < READ_AHEAD_BYTES => {}
                Ok(n) if n > 0 => return Poll::Pending,
                _ => {
                    self.gone = true;
                    return Poll::Ready(());
                }
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        if self.tunnel == Tunnel::Asked {
            return Poll::Pending;
        }
        if self.owes_continue {
            self.owes_continue = false;
            if self.buf.is_empty() {
                self.out.lead().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
        }
        if self.poll_write(cx).is_err() {
            return Poll::Ready(Some(Err(Reason::DownstreamGone.into())));
        }
        loop {
            match self.body.decode(&mut self.buf) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::Trailers(trailers)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(outcome) => {
                    self.gone = true;
                    return Poll::Ready(Some(Err(outcome)));
                }
            }
            self.buf.reserve(CHUNK_BYTES);
            match ready!(self.io.poll_read(cx, &mut self.buf)) {
                Ok(n) if n > 0 => self.received_bytes += n as u64,
                Ok(_) if self.body.ends_with_connection() => return Poll::Ready(None),
                _ => {
                    self.gone = true;
                    return Poll::Ready(Some(Err(Reason::DownstreamGone.into())));
                }
            }
        }
    }

    /// Writes what the socket takes now.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Outcome> {
        while !self.out.is_empty() {
            match self.io.poll_write(cx, &self.out.slices()) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(n)) if n > 0 => self.out.advance(n),
                Poll::Ready(_) => {
                    self.gone = true;
                    return Err(Reason::DownstreamGone.into());
                }
            }
        }
        match self.io.poll_flush(cx) {
            Poll::Ready(Err(_)) => Err(Reason::DownstreamGone.into()),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Pending => Ok(Poll::Pending),
        }
    }
}

/// The request's body.
struct RequestBody {
    conn: Shared,
}

impl Source for RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        self.conn.borrow_mut().poll_body(cx)
    }

    fn length(&self) -> Option<u64> {
        self.conn.borrow().body.remaining()
    }
}

/// The response to one request.
#[derive(Debug)]
pub struct Reply {
    conn: Shared,
    version: Version,
    head_only: bool,
    keep_alive: bool,
    settings: Rc<Settings>,
    started: bool,
    complete: bool,
}

impl Reply {
    fn new(conn: &Shared, head: &RequestHead, keep_alive: bool, settings: &Rc<Settings>) -> Self {
        let (conn, head_only, settings) = (Rc::clone(conn), head.method() == b"HEAD", Rc::clone(settings));
        Self { conn, version: head.version, head_only, keep_alive, settings, started: false, complete: false }
    }

    pub(super) fn started(&self) -> bool {
        self.started
    }

    pub(super) fn watch(&self) -> Shared {
        Rc::clone(&self.conn)
    }

    pub(super) async fn interim(&self, head: ResponseHead) -> Result<(), Outcome> {
        if self.version == Version::H10 {
            return Ok(());
        }
        {
            let mut conn = self.conn.borrow_mut();
            conn.owes_continue &= head.status != 100;
            write_response(&head, self.version, Announce::Nothing, false, conn.out.lead());
        }
        poll_fn(|cx| match self.conn.borrow_mut().poll_write(cx) {
            Ok(polled) => polled.map(Ok),
            Err(outcome) => Poll::Ready(Err(outcome)),
        })
        .await
    }

    pub(super) async fn send(&mut self, head: &ResponseHead, mut body: Body, sent: &mut Sent) -> Result<(), Outcome> {
        // Asked here, not when the request came: a drain may have begun since (HP-6).
        {
            let conn = self.conn.borrow();
            self.keep_alive &= conn.stay.stage() == Stage::Stays && !self.settings.ends(conn.requests, conn.started);
        }
        let opened = self.open_tunnel(head.status);
        let announce = self.announce(head, &body, opened);
        {
            let mut conn = self.conn.borrow_mut();
            conn.owes_continue = false;
            if !conn.body.is_done() && !opened && self.unread(&conn) {
                self.keep_alive = false;
            }
            let close = !self.keep_alive && !opened;
            write_response(head, self.version, announce, close, conn.out.lead());
        }
        self.started = true;
        if self.head_only {
            body = Body::Empty;
        }
        let chunked = announce == Announce::Chunked;
        let mut ended = false;
        let result = poll_fn(|cx| self.poll_send(cx, &mut body, chunked, &mut ended, sent)).await;
        match &result {
            Ok(()) => self.complete = true,
            Err(_) => self.abort(announce),
        }
        result
    }

    /// One turn of sending: body frames into the connection as long as it takes them.
    #[expect(clippy::too_many_arguments, reason = "the state of one turn of sending")]
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        body: &mut Body,
        chunked: bool,
        ended: &mut bool,
        sent: &mut Sent,
    ) -> Poll<Result<(), Outcome>> {
        loop {
            let mut waits = false;
            if !*ended && self.conn.borrow().out.has_room() {
                match body.poll_frame(cx) {
                    Poll::Pending => waits = true,
                    Poll::Ready(Some(Err(outcome))) => return Poll::Ready(Err(outcome)),
                    Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                        sent.body_bytes += data.len() as u64;
                        self.conn.borrow_mut().out.data(data, chunked);
                    }
                    Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                        *ended = true;
                        sent.trailers = Some(trailers);
                    }
                    Poll::Ready(None) => *ended = true,
                }
                if *ended && chunked {
                    self.conn.borrow_mut().out.end_chunks(sent.trailers.as_ref());
                }
            }
            match self.conn.borrow_mut().poll_write(cx)? {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) if *ended => return Poll::Ready(Ok(())),
                Poll::Ready(()) if waits => return Poll::Pending,
                Poll::Ready(()) => {}
            }
        }
    }

    fn announce(&mut self, head: &ResponseHead, body: &Body, opened: bool) -> Announce {
        let bodiless = head.status < 200 || matches!(head.status, 204 | 304);
        if bodiless || opened || self.head_only {
            return Announce::Nothing;
        }
        match body.length() {
            Some(length) => Announce::Length(length),
            None if self.version == Version::H11 => Announce::Chunked,
            None => {
                self.keep_alive = false;
                Announce::Nothing
            }
        }
    }

    fn open_tunnel(&mut self, status: u16) -> bool {
        let mut conn = self.conn.borrow_mut();
        if conn.tunnel != Tunnel::Asked {
            return false;
        }
        let opened = status == 101 || (200..300).contains(&status);
        if opened {
            conn.tunnel = Tunnel::Open;
            conn.body = BodyReader::new(Framing::UntilClose);
        } else {
            conn.tunnel = Tunnel::No;
        }
        self.keep_alive = false;
        opened
    }

    /// Whether more of the request's body is unread than is worth draining.
    fn unread(&self, conn: &Conn) -> bool {
        conn.body.remaining().is_none_or(|n| n > DRAIN_BYTES)
    }

    /// The response cannot be completed: make sure that it does not look complete.
    fn abort(&mut self, announce: Announce) {
        self.keep_alive = false;
        if announce == Announce::Nothing {
            self.conn.borrow().io.reset_on_close();
        }
    }
}

/// Serves one connection until it ends. `io` is past TLS and inspectors; `first` was read from it already.
pub async fn serve_h1((io, first): (Io, BytesMut), settings: Rc<Settings>, chain: Arc<[Filter]>, peer: Rc<PeerFacts>) {
    let conn = Conn {
        io,
        buf: first,
        out: Outgoing::default(),
        body: BodyReader::new(Framing::Length(0)),
        tunnel: Tunnel::No,
        owes_continue: false,
        gone: false,
        received_bytes: 0,
        started: Instant::now(),
        requests: 0,
        stay: settings.drain.join(&settings.facts.env),
    };
    let conn = Rc::new(RefCell::new(conn));
    loop {
        let (head, meta) = match next_head(&conn, &settings).await {
            Ok(Some(parsed)) => parsed,
            Ok(None) => break,
            Err(outcome) => {
                refuse(&conn, &outcome, &settings, &peer).await;
                break;
            }
        };
        let keep = pin!(one_request(&conn, head, meta, &settings, &chain, &peer)).await;
        if !keep || !drain(&conn).await {
            break;
        }
    }
    // The peer may still send: a FIN first lets it read the answer (RFC 9112 section 9.6).
    if conn.borrow().gone {
        return;
    }
    let shutdown = poll_fn(|cx| conn.borrow_mut().io.poll_shutdown(cx));
    if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), shutdown).await {
        linger(&conn).await;
    }
}

/// Reads and drops what the peer still sends, for a moment, so that our last bytes are not lost to a reset.
async fn linger(conn: &Shared) {
    let rest = async {
        let mut dropped = 0;
        while dropped < DRAIN_BYTES {
            let read = |cx: &mut Context<'_>| {
                let Conn { io, buf, .. } = &mut *conn.borrow_mut();
                buf.clear();
                io.poll_read(cx, buf)
            };
            match poll_fn(read).await {
                Ok(n) if n > 0 => dropped += n as u64,
                _ => break,
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(1), rest).await.is_err() {
        tracing::trace!("peer kept the connection open after our FIN");
    }
}

#[expect(clippy::too_many_arguments, reason = "a request and what it is served by")]
async fn one_request(
    conn: &Shared,
    mut head: RequestHead,
    meta: RequestMeta,
    settings: &Rc<Settings>,
    chain: &Arc<[Filter]>,
    peer: &Rc<PeerFacts>,
) -> bool {
    let start = Instant::now();
    let tunnel = head.wants_tunnel() && (head.method() == b"CONNECT" || settings.allows_upgrade(head.protocol()));
    if !tunnel && !head.protocol().is_empty() {
        head.set_protocol(b"");
    }
    strip_connection_headers(&mut head.headers);
    let body = {
        let mut shared = conn.borrow_mut();
        shared.tunnel = if tunnel { Tunnel::Asked } else { Tunnel::No };
        shared.owes_continue = meta.expects_continue && !settings.config.proxy_100_continue;
        shared.body = meta.body;
        shared.requests += 1;
        if meta.expects_continue && !settings.config.proxy_100_continue {
            head.headers.remove(Known::Expect);
        }
        request_body(conn, &mut shared, tunnel)
    };
    let mut reply = Downstream::H1(Reply::new(conn, &head, meta.keep_alive, settings));
    pin!(serve_stream(settings, chain, peer, Request { head, body }, &mut reply, start)).await;
    matches!(reply, Downstream::H1(reply) if reply.complete && reply.keep_alive)
}

/// The body: nothing, what is at hand, or a source.
fn request_body(conn: &Shared, shared: &mut Conn, tunnel: bool) -> Body {
    match shared.body.remaining() {
        _ if tunnel => Body::source(RequestBody { conn: Rc::clone(conn) }),
        Some(0) => Body::Empty,
        Some(n) if n <= shared.buf.len() as u64 => match shared.body.decode(&mut shared.buf) {
            Ok(Decoded::Data(data)) => Body::Full(data),
            _ => Body::Empty,
        },
        _ => Body::source(RequestBody { conn: Rc::clone(conn) }),
    }
}

/// The next request's head; `None` where the client closed between requests, stayed idle for too long or is to leave.
async fn next_head(conn: &Shared, settings: &Settings) -> Result<Option<(RequestHead, RequestMeta)>, Outcome> {
    let mut waiting_since = None;
    let head = poll_fn(|cx| {
        let mut conn = conn.borrow_mut();
        let conn = &mut *conn;
        // Asked in any case: the task is to be woken while it works on a request, too.
        let leaves = conn.stay.poll(cx, Stage::Released).is_ready();
        loop {
            while conn.buf.starts_with(b"\r\n") {
                conn.buf.advance(2);
            }
            if let Some((head, meta)) = scan_request(&conn.buf, settings.config.head_limits)? {
                conn.buf.advance(meta.head_bytes);
                if conn.buf.is_empty() {
                    conn.buf = BytesMut::new();
                }
                return Poll::Ready(Ok(Some((head, meta))));
            }
            let read = conn.io.poll_read(cx, &mut conn.buf);
            if read.is_pending() && leaves {
                // A head that has begun to arrive is waited for.
                if conn.buf.is_empty() || conn.stay.stage() == Stage::Over {
                    return Poll::Ready(Ok(None));
                }
            }
            match ready!(read) {
                Ok(n) if n > 0 => {
                    waiting_since.get_or_insert_with(Instant::now);
                }
                _ => {
                    conn.gone = true;
                    return Poll::Ready(Ok(None));
                }
            }
        }
    });
    settings.await_head(head).await
}

/// Answers what is no request, and closes.
async fn refuse(conn: &Shared, outcome: &Outcome, settings: &Rc<Settings>, peer: &Rc<PeerFacts>) {
    let head = RequestHead::new(Version::H11, b"", b"", b"", b"");
    let mut reply = Downstream::H1(Reply::new(conn, &head, false, settings));
    super::stream::refuse(settings, peer, &head, outcome, &mut reply).await;
}

/// Reads the rest of a request's body that nobody wanted; false where the connection is better closed.
async fn drain(conn: &Shared) -> bool {
    let rest = async {
        let mut dropped = 0;
        while !conn.borrow().body.is_done() {
            match poll_fn(|cx| conn.borrow_mut().poll_body(cx)).await {
                Some(Ok(Frame::Data(data))) => dropped += data.len() as u64,
                Some(Ok(Frame::Trailers(_))) | None => {}
                Some(Err(_)) => return false,
            }
            if dropped > DRAIN_BYTES {
                return false;
            }
        }
        !conn.borrow().gone
    };
    tokio::time::timeout(Duration::from_secs(1), rest).await.unwrap_or(false)
}
