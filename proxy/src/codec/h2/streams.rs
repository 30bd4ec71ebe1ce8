//! What the holders of streams do: take what arrived, send what they have.

use super::connection::{Connection, Role};
use super::frame::{Code, Head, flag, kind};
use super::stream::{Ending, Inbound, keep};
use crate::message::{Frame, Headers, RequestHead, ResponseHead};
use crate::outcome::{Outcome, Reason};
use bytes::{Buf, Bytes};
use std::task::{Context, Poll};

impl Connection {
    /// The next request that arrived, with whether its body is empty.
    pub fn next_request(&mut self) -> Option<(u32, RequestHead, bool)> {
        loop {
            let id = self.opened.pop_front()?;
            let Some(stream) = self.streams.get_mut(id) else { continue };
            let empty = stream.recv_end && stream.data.is_empty() && stream.trailers.is_none();
            if let Some(Inbound::Request(head)) = stream.heads.pop() {
                return Some((id, head, empty));
            }
        }
    }

    /// Whether another stream may be opened now.
    pub fn can_open(&self) -> bool {
        let room = (self.streams.len() as u64) < u64::from(self.peer_max_streams);
        self.is_usable() && room
    }

    /// Whether streams may be opened at all.
    pub fn is_usable(&self) -> bool {
        self.role == Role::Client
            && self.fatal.is_none()
            && !self.goaway_received
            && !self.goaway_sent
            && self.last_stream < 0x7fff_fff0
    }

    /// Opens a stream; `end`: no body follows. Only where [`Self::can_open`].
    pub fn open(&mut self, head: &RequestHead, length: Option<u64>, end: bool) -> u32 {
        debug_assert!(self.can_open(), "asked before");
        let id = if self.last_stream == 0 { 1 } else { self.last_stream + 2 };
        self.last_stream = id;
        let stream = self.streams.open(id, self.peer_stream_window, i64::from(self.config.stream_window));
        stream.send_end = end;
        self.budget.stream();
        self.write_request(id, head, length, end);
        id
    }

    /// The next head of a response: interim ones too.
    pub fn poll_head(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Outcome>> {
        let (fatal, role) = (self.fatal, self.role);
        let Some(stream) = self.streams.get_mut(id) else { return Poll::Ready(Err(ended(None, role))) };
        if let Some(Inbound::Response(head)) = stream.heads.pop() {
            return Poll::Ready(Ok(head));
        }
        if stream.reset.is_some() || fatal.is_some() {
            return Poll::Ready(Err(ended(stream.reset.or_else(|| fatal.filter(|c| *c != Code::NO_ERROR)), role)));
        }
        keep(&mut stream.reader, cx);
        Poll::Pending
    }

    /// The next frame of a body. What is taken earns the peer credit.
    pub fn poll_frame(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Outcome>>> {
        let (fatal, role) = (self.fatal, self.role);
        let Some(stream) = self.streams.get_mut(id) else { return Poll::Ready(Some(Err(ended(None, role)))) };
        if let Some(data) = stream.data.pop() {
            self.credit(id, data.len() as u32);
            return Poll::Ready(Some(Ok(Frame::Data(data))));
        }
        if stream.recv_end {
            return Poll::Ready(stream.trailers.take().map(|trailers| Ok(Frame::Trailers(*trailers))));
        }
        if stream.reset.is_some() || fatal.is_some() {
            return Poll::Ready(Some(Err(ended(
                stream.reset.or_else(|| fatal.filter(|c| *c != Code::NO_ERROR)),
                role,
            ))));
        }
        keep(&mut stream.reader, cx);
        Poll::Pending
    }

    /// Bytes of the body that are still announced; `Some(0)` once it has ended.
    pub fn remaining(&self, id: u32) -> Option<u64> {
        let stream = self.streams.get(id)?;
        let held: u64 = stream.data.iter().map(|data| data.len() as u64).sum();
        if stream.recv_end && stream.trailers.is_none() { Some(held) } else { stream.announced.map(|left| left + held) }
    }

    /// The whole body, where it has arrived and ended without trailers.
    pub fn take_ready_body(&mut self, id: u32) -> Option<Bytes> {
        let stream = self.streams.get_mut(id)?;
        if !stream.recv_end || stream.trailers.is_some() || stream.data.len() > 1 {
            return None;
        }
        let data = stream.data.pop().unwrap_or_default();
        self.credit(id, data.len() as u32);
        Some(data)
    }

    /// Ready with an error once the peer has given the stream up.
    pub fn poll_gone(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<()> {
        let fatal = self.fatal.is_some();
        match self.streams.get_mut(id) {
            Some(stream) if stream.reset.is_none() && !fatal => {
                keep(&mut stream.writer, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Sends a response head; `end`: no body follows.
    pub fn send_response(&mut self, id: u32, head: &ResponseHead, length: Option<u64>, end: bool) {
        if self.fatal.is_some() || self.streams.get(id).is_none_or(|stream| stream.reset.is_some()) {
            return;
        }
        self.write_response(id, head, length, end);
        if end && let Some(stream) = self.streams.get_mut(id) {
            stream.send_end = true;
        }
        self.bury(id);
    }

    /// Ready when the piece before has left: one piece waits per stream, not more.
    pub fn poll_send(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<Result<(), Outcome>> {
        let (fatal, role) = (self.fatal, self.role);
        match self.streams.get_mut(id) {
            Some(stream) if stream.reset.is_none() && fatal.is_none() => {
                if stream.pending.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                keep(&mut stream.writer, cx);
                Poll::Pending
            }
            Some(stream) => Poll::Ready(Err(ended(stream.reset.or(fatal), role))),
            None => Poll::Ready(Err(ended(None, role))),
        }
    }

    /// Takes a piece of the body; only after [`Self::poll_send`] was ready.
    pub fn send_data(&mut self, id: u32, data: Bytes) {
        if let Some(stream) = self.streams.get_mut(id) {
            debug_assert!(stream.pending.is_empty(), "one piece at a time");
            stream.pending = data;
        }
        self.push(id);
    }

    /// Ends the sending half behind what waits.
    pub fn send_end(&mut self, id: u32, trailers: Option<Headers>) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.ending = trailers.map_or(Ending::End, |trailers| Ending::Trailers(Box::new(trailers)));
        }
        self.push(id);
    }

    /// Gives a stream up: what has not ended is reset.
    pub fn release(&mut self, id: u32) {
        let fatal = self.fatal.is_some();
        let Some(stream) = self.streams.get_mut(id) else { return };
        self.lingering += usize::from(!std::mem::replace(&mut stream.released, true));
        (stream.reader, stream.writer) = (None, None);
        if !stream.is_over() && !fatal {
            // A complete answer to an unread request: the client may stop sending (RFC 9113 section 8.1).
            let finished = stream.send_end && self.role == Role::Server;
            let ending = stream.send_end || !matches!(stream.ending, Ending::Open);
            if ending && stream.recv_end {
                return; // the rest of the answer is on its way out
            }
            let code = if finished { Code::NO_ERROR } else { Code::CANCEL };
            stream.reset = Some(code);
            self.frame(kind::RST_STREAM, 0, id, &code.0.to_be_bytes());
            self.aborted(id);
        }
        self.bury(id);
    }

    /// Resets a stream: its message cannot be completed.
    pub fn reset(&mut self, id: u32, code: Code) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.reset.is_none() && self.fatal.is_none() {
            stream.reset = Some(code);
            stream.pending = Bytes::new();
            self.frame(kind::RST_STREAM, 0, id, &code.0.to_be_bytes());
            self.aborted(id);
        }
        self.bury(id);
    }

    /// Moves what a stream has into the output, as far as windows and room allow.
    fn push(&mut self, id: u32) {
        if self.move_frame(id) {
            return;
        }
        if let Some(stream) = self.streams.get_mut(id)
            && !std::mem::replace(&mut stream.queued, true)
        {
            self.waiting.push_back(id);
        }
    }

    /// Goes on with the streams that wait: one frame each and round, so that they share the connection fairly.
    pub(super) fn pump(&mut self) {
        let mut idle_turns = 0;
        while self.has_room() && idle_turns < self.waiting.len() {
            let Some(id) = self.waiting.pop_front() else { break };
            let Some(stream) = self.streams.get_mut(id) else { continue };
            let before = stream.pending.len();
            if self.move_frame(id) {
                if let Some(stream) = self.streams.get_mut(id) {
                    stream.queued = false;
                }
                idle_turns = 0;
                continue;
            }
            let Some(stream) = self.streams.get_mut(id) else { continue };
            idle_turns = if stream.pending.len() == before { idle_turns + 1 } else { 0 };
            self.waiting.push_back(id);
        }
    }

    /// Moves one frame of a stream, and its end where nothing is left. True where the stream has nothing to wait for.
    fn move_frame(&mut self, id: u32) -> bool {
        self.output_mut();
        let has_room = self.has_room();
        let (window, max) = (self.send_window, self.peer_max_payload);
        let Some(stream) = self.streams.get_mut(id) else { return true };
        if stream.reset.is_some() || stream.send_end {
            return true;
        }
        if !stream.pending.is_empty() {
            let allowed = window.min(stream.send_window).max(0) as usize;
            let n = stream.pending.len().min(allowed).min(max);
            if n == 0 || !has_room {
                return false;
            }
            stream.send_window -= n as i64;
            let last = n == stream.pending.len() && matches!(stream.ending, Ending::End);
            let flags = if last { flag::END_STREAM } else { 0 };
            Head { length: n, kind: kind::DATA, flags, stream: id }.write(&mut self.out);
            self.out.extend_from_slice(stream.pending.get(..n).unwrap_or_default());
            stream.pending.advance(n);
            stream.send_end |= last;
            self.send_window -= n as i64;
            self.budget.data_sent();
            if !stream.pending.is_empty() {
                return false;
            }
            stream.wake_writer();
        }
        if stream.send_end {
            self.bury(id);
            return true;
        }
        match std::mem::take(&mut stream.ending) {
            Ending::Open => return true,
            Ending::End => {
                stream.send_end = true;
                self.frame(kind::DATA, flag::END_STREAM, id, &[]);
            }
            Ending::Trailers(trailers) => {
                stream.send_end = true;
                self.write_trailers(id, &trailers);
            }
        }
        if let Some(stream) = self.streams.get_mut(id) {
            stream.wake_writer();
        }
        self.bury(id);
        true
    }

    /// Ready once everything that a stream had to send is in the output.
    pub fn poll_sent(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<Result<(), Outcome>> {
        let (fatal, role) = (self.fatal, self.role);
        match self.streams.get_mut(id) {
            None => Poll::Ready(Ok(())),
            Some(stream) if stream.send_end && stream.reset.is_none() => Poll::Ready(Ok(())),
            Some(stream) if stream.reset.is_some() || fatal.is_some() => {
                Poll::Ready(Err(ended(stream.reset.or(fatal), role)))
            }
            Some(stream) => {
                keep(&mut stream.writer, cx);
                Poll::Pending
            }
        }
    }
}

/// Why a stream of ours ended: the peer is the client at a server, and the upstream at a client.
fn ended(code: Option<Code>, role: Role) -> Outcome {
    match (role, code) {
        (Role::Server, _) => Reason::DownstreamGone.into(),
        (_, Some(Code::REFUSED_STREAM)) => Reason::UpstreamRefused.into(),
        (
            _,
            Some(Code::PROTOCOL_ERROR | Code::FRAME_SIZE_ERROR | Code::FLOW_CONTROL_ERROR | Code::COMPRESSION_ERROR),
        ) => Reason::UpstreamProtocol.into(),
        (_, Some(_)) => Reason::UpstreamReset.into(),
        (_, None) => Reason::UpstreamClosed.into(),
    }
}
