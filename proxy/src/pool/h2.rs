//! One request and its answer on a shared HTTP/2 connection.

use super::Counted;
use super::link::Link;
use crate::codec::h2::{Code, Config, Connection, Role};
use crate::endpoint::Permit;
use crate::env::Instant;
use crate::message::{Body, Frame, RequestHead, ResponseHead, Source};
use crate::net::Io;
use crate::outcome::Outcome;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A connection that carries many requests.
#[derive(Debug)]
pub struct Shared {
    /// The connection.
    pub link: Rc<Link>,
    /// Our address.
    pub local: Option<SocketAddr>,
    /// The identity that the peer proved.
    pub peer_id: Option<Arc<str>>,
    /// Requests carried so far.
    pub served: Cell<u32>,
    /// Since when no stream is open.
    pub idle_since: Cell<Instant>,
    _held: (Permit, Counted),
}

impl Shared {
    /// Starts a connection on `io`; a task of its own drives it until it ends.
    pub fn start(
        io: Io,
        (local, peer_id): (Option<SocketAddr>, Option<Arc<str>>),
        held: (Permit, Counted),
        now: Instant,
    ) -> Rc<Self> {
        let link = Link::new(io, Connection::new(Role::Client, Config::default()));
        let driven = Rc::clone(&link);
        tokio::task::spawn_local(async move {
            std::future::poll_fn(|cx| match driven.poll_read(cx) {
                Poll::Pending if driven.look(Connection::is_closed) => Poll::Ready(()),
                other => other,
            })
            .await;
            driven.shutdown().await;
        });
        Rc::new(Self { link, local, peer_id, served: Cell::new(0), idle_since: Cell::new(now), _held: held })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upload {
    Sending,
    /// A tunnel that is not open yet.
    Held,
    Done,
}

/// One request in flight. Every poll pumps the upload, then the download.
pub struct Exchange {
    shared: Rc<Shared>,
    id: u32,
    request: Body,
    upload: Upload,
    tunnel: bool,
    answered: bool,
    ended: bool,
}

impl Exchange {
    /// Opens a stream. Only where the connection can take one.
    pub fn new(shared: Rc<Shared>, head: &RequestHead, body: Body) -> Self {
        let tunnel = head.wants_tunnel();
        let end = body.is_empty() && !tunnel;
        let length = if end || tunnel { None } else { body.length() };
        let id = shared.link.with(|connection| connection.open(head, length, end));
        shared.served.set(shared.served.get() + 1);
        let upload = match (end, tunnel) {
            (true, _) => Upload::Done,
            (_, true) => Upload::Held,
            _ => Upload::Sending,
        };
        Self { shared, id, request: body, upload, tunnel, answered: false, ended: false }
    }

    /// Our address of the connection.
    pub fn local(&self) -> Option<SocketAddr> {
        self.shared.local
    }

    /// The identity that the peer proved.
    pub fn peer_id(&self) -> Option<Arc<str>> {
        self.shared.peer_id.clone()
    }

    /// How far it came.
    pub fn progress(&self) -> super::h1::Progress {
        super::h1::Progress {
            reused: self.shared.served.get() > 1,
            sent_bytes: 1,
            answered: self.answered,
            unread: false,
        }
    }

    /// The next head, interim ones too.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Outcome>> {
        self.pump(cx)?;
        let mut head = ready!(self.shared.link.with(|connection| connection.poll_head(self.id, cx)))?;
        self.answered = true;
        if self.tunnel && !head.is_interim() {
            if (200..300).contains(&head.status) {
                self.upload = Upload::Sending;
                // Inside the proxy an open tunnel is a 101, whatever carried it.
                head.status = 101;
            } else {
                self.upload = Upload::Done;
                self.request = Body::Empty;
            }
        }
        Poll::Ready(Ok(head))
    }

    /// The body if all of it is at hand.
    pub fn take_ready_body(&mut self) -> Option<Body> {
        if self.upload != Upload::Done {
            return None;
        }
        let body = self.shared.link.with(|connection| connection.take_ready_body(self.id))?;
        self.ended = true;
        Some(Body::full(body))
    }

    fn pump(&mut self, cx: &mut Context<'_>) -> Result<(), Outcome> {
        while self.upload == Upload::Sending {
            match self.shared.link.with(|connection| connection.poll_send(self.id, cx)) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => {}
                // The answer may have come before the request ended: reading tells.
                Poll::Ready(Err(_)) => {
                    self.upload = Upload::Done;
                    self.request = Body::Empty;
                    return Ok(());
                }
            }
            match self.request.poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Err(outcome))) => {
                    self.shared.link.with(|connection| connection.reset(self.id, Code::CANCEL));
                    return Err(outcome);
                }
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    self.shared.link.with(|connection| connection.send_data(self.id, data));
                }
                Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                    self.upload = Upload::Done;
                    self.shared.link.with(|connection| connection.send_end(self.id, Some(trailers)));
                }
                Poll::Ready(None) => {
                    self.upload = Upload::Done;
                    self.shared.link.with(|connection| connection.send_end(self.id, None));
                }
            }
        }
        Ok(())
    }
}

impl Source for Exchange {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        if let Err(outcome) = self.pump(cx) {
            return Poll::Ready(Some(Err(outcome)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.shared.link.with(|connection| connection.poll_frame(self.id, cx)));
        self.ended = matches!(frame, None | Some(Ok(Frame::Trailers(_)) | Err(_)));
        Poll::Ready(frame)
    }

    fn length(&self) -> Option<u64> {
        if self.ended { Some(0) } else { self.shared.link.look(|connection| connection.remaining(self.id)) }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.link.with(|connection| connection.release(self.id));
        if self.shared.link.look(|connection| connection.open_streams() == 0) {
            self.shared.idle_since.set(Instant::now());
        }
    }
}
