//! The engine of one connection: frames in, frames out, streams in between.

use super::frame::{Code, HEAD_BYTES, Head, MAX_PAYLOAD, PREFACE, flag, kind, number, setting, unpad};
use super::hpack::{Decoder, Encoder};
use super::limits::{Budget, Flood};
use super::spare;
use super::stream::Stream;
use super::table::Table;
use std::collections::VecDeque;

/// Which side we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The peer opens streams.
    Server,
    /// We do.
    Client,
}

/// What we offer.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Streams that the peer may have open.
    pub max_streams: u32,
    /// Bytes that may be in flight on one stream towards us.
    pub stream_window: u32,
    /// Bytes that may be in flight on the connection towards us.
    pub connection_window: u32,
    /// Decoded size of one header list (HP-2: 60 KiB).
    pub max_header_bytes: usize,
    /// Fields of one header list.
    pub max_fields: usize,
    /// Whether extended CONNECT is taken (RFC 8441).
    pub connect_protocol: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: 1024,
            stream_window: 64 << 10,
            connection_window: 1 << 20,
            max_header_bytes: 60 << 10,
            max_fields: 100,
            connect_protocol: true,
        }
    }
}

/// The connection ends with this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fatal(pub(super) Code);

impl From<Flood> for Fatal {
    fn from(_: Flood) -> Self {
        Self(Code::ENHANCE_YOUR_CALM)
    }
}

/// Output that may wait before streams stop adding to it.
pub(super) const HIGH_WATER: usize = 1 << 20;
/// What a window is before SETTINGS change it.
const DEFAULT_WINDOW: i64 = 65_535;
pub(super) const MAX_WINDOW: i64 = 0x7fff_ffff;
/// Encoded size of one header block.
const MAX_BLOCK: usize = 256 << 10;
/// Streams of our own resets that are remembered.
const ABORTED: usize = 128;
/// Output of acknowledgements and resets that may wait: a peer that does not read them is cut off.
const MAX_UNREAD_CONTROL: usize = 64 << 10;

/// A header block of which CONTINUATION frames are awaited.
#[derive(Debug)]
struct Partial {
    stream: u32,
    end: bool,
    block: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    pub(super) role: Role,
    pub(super) config: Config,
    pub(super) streams: Table,
    /// Requests that arrived and were not taken.
    pub(super) opened: VecDeque<u32>,
    /// Streams that wait for window or for room in the output.
    pub(super) waiting: VecDeque<u32>,
    pub(super) out: Vec<u8>,
    written: usize,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) send_window: i64,
    pub(super) recv_window: i64,
    pub(super) credit: u32,
    pub(super) peer_stream_window: i64,
    pub(super) peer_max_payload: usize,
    pub(super) peer_max_streams: u32,
    pub(super) peer_connect_protocol: bool,
    /// Highest stream that the peer opened (server) or that we did (client).
    pub(super) last_stream: u32,
    pub(super) budget: Budget,
    /// Streams that nobody holds any more, but that are not over.
    pub(super) lingering: usize,
    rest: Vec<u8>,
    partial: Option<Partial>,
    preface: bool,
    settings_seen: bool,
    pub(super) goaway_sent: bool,
    pub(super) goaway_received: bool,
    pub(super) fatal: Option<Code>,
    /// Bytes of the output that are acknowledgements and resets.
    control_bytes: usize,
    /// Streams that we reset last: what the peer sent before it knew is ignored.
    aborted: VecDeque<u32>,
}

impl Connection {
    /// A new connection; preface and SETTINGS wait in the output.
    pub fn new(role: Role, config: Config) -> Self {
        let mut this = Self {
            role,
            config,
            streams: Table::new(),
            opened: VecDeque::new(),
            waiting: VecDeque::new(),
            out: Vec::new(),
            written: 0,
            decoder: Decoder::new(4096),
            encoder: Encoder::new(),
            send_window: DEFAULT_WINDOW,
            recv_window: i64::from(config.connection_window),
            credit: 0,
            peer_stream_window: DEFAULT_WINDOW,
            peer_max_payload: MAX_PAYLOAD,
            peer_max_streams: if role == Role::Client { 100 } else { 0 },
            peer_connect_protocol: false,
            last_stream: 0,
            budget: Budget::default(),
            lingering: 0,
            rest: Vec::new(),
            partial: None,
            preface: role == Role::Client,
            settings_seen: false,
            goaway_sent: false,
            goaway_received: false,
            fatal: None,
            control_bytes: 0,
            aborted: VecDeque::new(),
        };
        this.greet();
        this
    }

    fn greet(&mut self) {
        if self.role == Role::Client {
            self.out.extend_from_slice(PREFACE);
        }
        let mut settings = vec![
            (setting::INITIAL_WINDOW_SIZE, self.config.stream_window),
            (setting::MAX_HEADER_LIST_SIZE, u32::try_from(self.config.max_header_bytes).unwrap_or(u32::MAX)),
        ];
        match self.role {
            Role::Client => settings.push((setting::ENABLE_PUSH, 0)),
            Role::Server => {
                settings.push((setting::MAX_CONCURRENT_STREAMS, self.config.max_streams));
                if self.config.connect_protocol {
                    settings.push((setting::ENABLE_CONNECT_PROTOCOL, 1));
                }
            }
        }
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        self.frame(kind::SETTINGS, 0, 0, &payload);
        let more = i64::from(self.config.connection_window) - DEFAULT_WINDOW;
        if more > 0 {
            self.frame(kind::WINDOW_UPDATE, 0, 0, &(more as u32).to_be_bytes());
        } else {
            self.recv_window = DEFAULT_WINDOW;
        }
    }

    /// The output, with memory where it had none.
    pub(super) fn output_mut(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = spare::take();
        }
        &mut self.out
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.output_mut();
        Head { length: payload.len(), kind, flags, stream }.write(&mut self.out);
        self.out.extend_from_slice(payload);
    }

    pub(super) fn control_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Fatal> {
        self.frame(kind, flags, stream, payload);
        self.control_bytes += HEAD_BYTES + payload.len();
        if self.control_bytes > MAX_UNREAD_CONTROL { Err(Fatal(Code::ENHANCE_YOUR_CALM)) } else { Ok(()) }
    }

    /// Output that waits to be written.
    pub fn output(&self) -> &[u8] {
        self.out.get(self.written..).unwrap_or_default()
    }

    /// Notes that `n` bytes of the output were written; streams that waited for room go on.
    pub fn wrote(&mut self, n: usize) {
        self.written += n;
        if self.written >= self.out.len() {
            self.out.clear();
            self.written = 0;
            self.control_bytes = 0;
            spare::give_back(std::mem::take(&mut self.out));
        }
        self.pump();
    }

    pub(super) fn has_room(&self) -> bool {
        self.out.len() - self.written < HIGH_WATER
    }

    /// Whether the connection is over: broken, or drained after GOAWAY.
    pub fn is_closed(&self) -> bool {
        self.fatal.is_some() || ((self.goaway_sent || self.goaway_received) && self.streams.is_empty())
    }

    /// The code that the connection ended with, where it was broken.
    pub fn fatal(&self) -> Option<Code> {
        self.fatal
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// The peer is gone: every stream ends.
    pub fn close(&mut self) {
        if self.fatal.is_none() {
            self.fatal = Some(Code::NO_ERROR);
        }
        self.streams.iter_mut().for_each(|(_, stream)| stream.wake_both());
    }

    /// Announces that no further streams are taken; `last` is false for the first of two steps (HP-6).
    pub fn go_away(&mut self, last: bool) {
        let stream = if last { self.last_stream } else { 0x7fff_ffff };
        let mut payload = stream.to_be_bytes().to_vec();
        payload.extend_from_slice(&Code::NO_ERROR.0.to_be_bytes());
        self.frame(kind::GOAWAY, 0, 0, &payload);
        self.goaway_sent |= last;
    }

    /// Takes bytes of the peer in.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.fatal.is_some() {
            return;
        }
        let taken = if self.rest.is_empty() {
            self.frames(bytes)
        } else {
            let mut all = std::mem::take(&mut self.rest);
            all.extend_from_slice(bytes);
            let taken = self.frames(&all);
            if let Ok(n) = taken {
                all.drain(..n);
                self.rest = all;
                return self.grant_connection();
            }
            taken
        };
        match taken {
            Ok(n) => self.rest.extend_from_slice(bytes.get(n..).unwrap_or_default()),
            Err(Fatal(code)) => self.fail(code),
        }
        self.grant_connection();
    }

    pub(super) fn fail(&mut self, code: Code) {
        let mut payload = self.last_stream.to_be_bytes().to_vec();
        payload.extend_from_slice(&code.0.to_be_bytes());
        self.frame(kind::GOAWAY, 0, 0, &payload);
        self.fatal = Some(code);
        self.goaway_sent = true;
        self.streams.iter_mut().for_each(|(_, stream)| stream.wake_both());
    }

    /// Handles whole frames; returns how many bytes they took.
    fn frames(&mut self, bytes: &[u8]) -> Result<usize, Fatal> {
        let mut at = 0;
        if !self.preface {
            if !PREFACE.starts_with(bytes.get(..bytes.len().min(PREFACE.len())).unwrap_or_default()) {
                return Err(Fatal(Code::PROTOCOL_ERROR));
            }
            if bytes.len() < PREFACE.len() {
                return Ok(0);
            }
            self.preface = true;
            at = PREFACE.len();
        }
        while let Some(head) = Head::parse(bytes.get(at..).unwrap_or_default()) {
            if head.length > MAX_PAYLOAD {
                return Err(Fatal(Code::FRAME_SIZE_ERROR));
            }
            let start = at + HEAD_BYTES;
            let Some(payload) = bytes.get(start..start + head.length) else { break };
            at = start + head.length;
            self.one(head, payload)?;
        }
        Ok(at)
    }

    fn one(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let protocol = Err(Fatal(Code::PROTOCOL_ERROR));
        if self.partial.is_some() && head.kind != kind::CONTINUATION {
            return protocol;
        }
        if !self.settings_seen {
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return protocol;
            }
            self.settings_seen = true;
        }
        match head.kind {
            kind::DATA => self.on_data(head, payload),
            kind::HEADERS => self.on_headers(head, payload),
            kind::CONTINUATION => self.on_continuation(head, payload),
            kind::PRIORITY => self.on_priority(head, payload),
            kind::RST_STREAM => self.on_reset(head, payload),
            kind::SETTINGS => self.on_settings(head, payload),
            kind::PING => self.on_ping(head, payload),
            kind::GOAWAY => self.on_goaway(head, payload),
            kind::WINDOW_UPDATE => self.on_window_update(head, payload),
            kind::PUSH_PROMISE => protocol,
            // RFC 9113 section 4.1: unknown types are ignored.
            _ => Ok(self.budget.control()?),
        }
    }

    /// Whether the peer speaks of a stream that was never opened.
    pub(super) fn is_idle(&self, stream: u32) -> bool {
        let ours = stream % 2 == 1;
        match self.role {
            Role::Server | Role::Client if !ours => true,
            _ => stream > self.last_stream,
        }
    }

    fn on_data(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Fatal(Code::PROTOCOL_ERROR));
        }
        let data = unpad(head, payload).ok_or(Fatal(Code::PROTOCOL_ERROR))?;
        let (flow, end) = (payload.len() as u32, head.has(flag::END_STREAM));
        self.budget.data_received(data.len(), end)?;
        self.recv_window -= i64::from(flow);
        if self.recv_window < 0 {
            return Err(Fatal(Code::FLOW_CONTROL_ERROR));
        }
        let open = self.streams.get_mut(head.stream).filter(|stream| stream.reset.is_none());
        let Some(stream) = open else {
            // The stream is closed: its bytes count, but nobody will take them.
            self.credit += flow;
            return self.on_closed(head.stream);
        };
        stream.recv_window -= i64::from(flow);
        let refused = if stream.recv_end {
            Some(Code::STREAM_CLOSED)
        } else if stream.recv_window < 0 {
            Some(Code::FLOW_CONTROL_ERROR)
        } else if self.role == Role::Client && !stream.got_head {
            Some(Code::PROTOCOL_ERROR)
        } else {
            stream.count(data.len() as u64, end).err()
        };
        if let Some(code) = refused {
            self.credit += flow;
            return self.refuse(head.stream, code);
        }
        stream.recv_end = end;
        // Padding is nobody's to take.
        let padding = flow - data.len() as u32;
        if stream.released {
            self.credit += flow;
        } else {
            self.credit += padding;
            stream.credit += padding;
            if !data.is_empty() {
                stream.data.push(bytes::Bytes::copy_from_slice(data));
            }
            stream.wake_reader();
        }
        self.bury(head.stream);
        Ok(())
    }

    fn on_headers(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        let protocol = Fatal(Code::PROTOCOL_ERROR);
        if head.stream == 0 || head.stream.is_multiple_of(2) {
            return Err(protocol);
        }
        let mut block = unpad(head, payload).ok_or(protocol)?;
        if head.has(flag::PRIORITY) {
            let depends = number(block).ok_or(Fatal(Code::FRAME_SIZE_ERROR))? & 0x7fff_ffff;
            block = block.get(5..).ok_or(Fatal(Code::FRAME_SIZE_ERROR))?;
            if depends == head.stream {
                return Err(protocol);
            }
        }
        let end = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.on_block(head.stream, end, block);
        }
        self.partial = Some(Partial { stream: head.stream, end, block: block.to_vec() });
        Ok(())
    }

    fn on_continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Fatal> {
        self.budget.continuation()?;
        let mut partial = self.partial.take().ok_or(Fatal(Code::PROTOCOL_ERROR))?;
        if partial.stream != head.stream {
            return Err(Fatal(Code::PROTOCOL_ERROR));
        }
        partial.block.extend_from_slice(payload);
        if partial.block.len() > MAX_BLOCK {
            return Err(Fatal(Code::ENHANCE_YOUR_CALM));
        }
        if head.has(flag::END_HEADERS) {
            return self.on_block(partial.stream, partial.end, &partial.block);
        }
        self.partial = Some(partial);
        Ok(())
    }

    /// Resets a stream because of what the peer did on it.
    pub(super) fn refuse(&mut self, id: u32, code: Code) -> Result<(), Fatal> {
        self.budget.own_reset()?;
        self.aborted(id);
        self.control_frame(kind::RST_STREAM, 0, id, &code.0.to_be_bytes())?;
        if let Some(stream) = self.streams.get_mut(id) {
            stream.reset = Some(code);
            stream.wake_both();
        }
        self.bury(id);
        Ok(())
    }

    /// A frame for a stream that is closed (RFC 9113 section 5.1): ignored where we closed it, and the peer may not have
    /// known.
    pub(super) fn on_closed(&mut self, id: u32) -> Result<(), Fatal> {
        if self.is_aborted(id) { Ok(self.budget.control()?) } else { self.refuse(id, Code::STREAM_CLOSED) }
    }

    pub(super) fn is_aborted(&self, id: u32) -> bool {
        self.aborted.contains(&id)
    }

    /// Remembers that we reset a stream.
    pub(super) fn aborted(&mut self, id: u32) {
        if self.aborted.len() == ABORTED {
            self.aborted.pop_front();
        }
        self.aborted.push_back(id);
    }

    /// Forgets a stream that is over and that nobody holds.
    #[inline]
    pub(super) fn bury(&mut self, id: u32) {
        if self.lingering > 0 {
            self.bury_released(id);
        }
    }

    fn bury_released(&mut self, id: u32) {
        let over = |stream: &&Stream| stream.released && stream.is_over();
        if let Some(stream) = self.streams.get(id).filter(over) {
            // What was never read goes back to the connection's window.
            self.credit += stream.data.iter().map(|data| data.len() as u32).sum::<u32>();
            self.streams.remove(id);
            self.lingering -= 1;
        }
    }
}
