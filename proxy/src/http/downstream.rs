//! The write half of one downstream stream, whatever protocol carries it.

use super::{h1, h2};
use crate::message::{Body, Headers, ResponseHead};
use crate::outcome::Outcome;
use crate::pool::Link;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Where a response goes.
#[derive(Debug)]
pub enum Downstream {
    /// HTTP/1: the connection's only stream at this time.
    H1(h1::Reply),
    /// HTTP/2: one of many.
    H2(h2::Reply),
}

/// What was sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// Body bytes.
    pub body_bytes: u64,
    /// Trailers that ended the body.
    pub trailers: Option<Headers>,
}

impl Downstream {
    /// Sends an interim response (100, 103).
    ///
    /// # Errors
    /// The client is gone.
    pub async fn interim(&mut self, head: ResponseHead) -> Result<(), Outcome> {
        match self {
            Self::H1(reply) => reply.interim(head).await,
            Self::H2(reply) => {
                reply.interim(&head);
                Ok(())
            }
        }
    }

    /// Sends a response; drives the body to its end or a reset. `sent` is true to the last byte also on failure.
    ///
    /// # Errors
    /// The client is gone, or the body failed half way: then the client sees a message that is plainly incomplete.
    pub async fn send(&mut self, head: &ResponseHead, body: Body, sent: &mut Sent) -> Result<(), Outcome> {
        match self {
            Self::H1(reply) => reply.send(head, body, sent).await,
            Self::H2(reply) => reply.send(head, body, sent).await,
        }
    }

    /// Whether a final head was sent.
    pub fn started(&self) -> bool {
        match self {
            Self::H1(reply) => reply.started(),
            Self::H2(reply) => reply.started(),
        }
    }

    /// A watch on the client of this stream.
    pub fn watch(&self) -> Watch {
        match self {
            Self::H1(reply) => Watch::H1(reply.watch()),
            Self::H2(reply) => {
                let (link, id) = reply.watch();
                Watch::H2(link, id)
            }
        }
    }
}

/// Tells when the client goes away while its request is being worked on.
#[derive(Debug)]
pub enum Watch {
    /// HTTP/1.
    H1(h1::Shared),
    /// HTTP/2.
    H2(Rc<Link>, u32),
}

impl Watch {
    /// Ready once the client is gone.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(conn) => conn.borrow_mut().poll_gone(cx),
            Self::H2(link, id) => link.with(|connection| connection.poll_gone(*id, cx)),
        }
    }
}
