//! Header blocks ↔ heads, and the rules of RFC 9113 section 8 for them.

use super::connection::{Config, Connection, Fatal, Role};
use super::frame::{Code, Head, flag, kind};
use super::hpack::{Field, Indexing};
use super::stream::{Inbound, Stream};
use crate::codec::bytes::{is_target, is_token};
use crate::codec::h1::valid_authority;
use crate::message::{Headers, Known, RequestHead, ResponseHead, Version};

/// What a decoded block says: fields go straight into the head that they will be.
struct Block {
    head: RequestHead,
    /// Pseudo-headers that were there, as bits of [`seen`].
    seen: u8,
    status: Option<u16>,
    malformed: bool,
    regular: bool,
    size: usize,
    too_large: bool,
}

/// Bits of pseudo-headers.
mod seen {
    pub(super) const METHOD: u8 = 1;
    pub(super) const SCHEME: u8 = 2;
    pub(super) const AUTHORITY: u8 = 4;
    pub(super) const PATH: u8 = 8;
    pub(super) const PROTOCOL: u8 = 16;
    pub(super) const STATUS: u8 = 32;
}

impl Block {
    fn new() -> Self {
        Self {
            head: RequestHead::blank(Version::H2),
            seen: 0,
            status: None,
            malformed: false,
            regular: false,
            size: 0,
            too_large: false,
        }
    }

    fn take(&mut self, config: &Config, field: Field<'_>) {
        let Field { name, known, value, .. } = field;
        // Decoded bytes are charged, discarded ones too (7.6, point 8).
        self.size += name.len() + value.len() + 32;
        if self.size > config.max_header_bytes || self.head.headers.len() > config.max_fields {
            self.too_large = true;
            return;
        }
        self.malformed |= !field.valid;
        if name.first() == Some(&b':') {
            return self.pseudo(name, value);
        }
        self.regular = true;
        match known {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => {
                self.malformed = true;
            }
            Known::Te => self.malformed |= !value.eq_ignore_ascii_case(b"trailers"),
            _ => {}
        }
        let headers = &mut self.head.headers;
        match (field.never_index, known) {
            (true, _) => headers.append_sensitive(known, name, value),
            (false, Known::Other) => headers.append_as(known, name, value),
            // Names in another case are malformed.
            (false, _) => headers.append_known(known, value),
        }
    }

    fn pseudo(&mut self, name: &[u8], value: &[u8]) {
        let bit = match name {
            b":method" => {
                self.head.set_method(value);
                seen::METHOD
            }
            b":scheme" => {
                self.head.set_scheme(value);
                seen::SCHEME
            }
            b":authority" => {
                self.head.set_authority(value);
                seen::AUTHORITY
            }
            b":path" => {
                self.head.set_path(value);
                seen::PATH
            }
            b":protocol" => {
                self.head.set_protocol(value);
                seen::PROTOCOL
            }
            b":status" => {
                self.malformed |= value.len() != 3 || !value.iter().all(u8::is_ascii_digit);
                let number = value.iter().take(3).fold(0, |n, d| n * 10 + u16::from(d.wrapping_sub(b'0') % 10));
                self.status = Some(number);
                seen::STATUS
            }
            _ => {
                self.malformed = true;
                return;
            }
        };
        // Each once, and before all others.
        self.malformed |= self.regular || self.has(bit);
        self.seen |= bit;
    }

    fn has(&self, bit: u8) -> bool {
        self.seen & bit != 0
    }

    /// `content-length`, once and in digits.
    fn length(&self) -> Result<Option<u64>, Code> {
        let mut values = self.head.headers.values_known(Known::ContentLength);
        let Some(value) = values.next() else { return Ok(None) };
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        if !digits || values.next().is_some() {
            return Err(Code::PROTOCOL_ERROR);
        }
        Ok(Some(value.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0'))))
    }

    /// The request, where the block is one (RFC 9113 section 8.3.1).
    fn request(mut self) -> Result<RequestHead, Code> {
        let bad = Code::PROTOCOL_ERROR;
        if self.malformed || self.has(seen::STATUS) {
            return Err(bad);
        }
        let method = self.head.method();
        if method.is_empty() || !is_token(method) {
            return Err(bad);
        }
        let connect = method == b"CONNECT";
        if connect && !self.has(seen::PROTOCOL) {
            if self.has(seen::SCHEME | seen::PATH) {
                return Err(bad);
            }
        } else {
            let path = self.head.path();
            let path_ok = (path.starts_with(b"/") || (path == b"*" && method == b"OPTIONS")) && is_target(path);
            if !matches!(self.head.scheme(), b"http" | b"https") || !path_ok {
                return Err(bad);
            }
        }
        if self.has(seen::PROTOCOL) {
            if !connect || self.head.protocol().is_empty() {
                return Err(bad);
            }
            // Inside the proxy an upgrade looks the same whatever carried it (RFC 8441).
            self.head.set_method(b"GET");
        }
        self.settle_authority()?;
        crate::codec::bridge::join_cookies(&mut self.head.headers);
        Ok(self.head)
    }

    /// `:authority`, or `host` in its place; both only where they agree.
    fn settle_authority(&mut self) -> Result<(), Code> {
        let bad = Code::PROTOCOL_ERROR;
        if !self.head.headers.contains(Known::Host) {
            return if self.has(seen::AUTHORITY) { self.check_authority() } else { Err(bad) };
        }
        let mut hosts = self.head.headers.values_known(Known::Host).map(<[u8]>::to_vec);
        let (host, more) = (hosts.next().unwrap_or_default(), hosts.next());
        drop(hosts);
        let agree = !self.has(seen::AUTHORITY) || self.head.authority().eq_ignore_ascii_case(&host);
        if more.is_some() || !agree {
            return Err(bad);
        }
        if !self.has(seen::AUTHORITY) {
            self.head.set_authority(&host);
        }
        self.head.headers.remove(Known::Host);
        self.check_authority()
    }

    fn check_authority(&self) -> Result<(), Code> {
        valid_authority(self.head.authority()).map_err(|_| Code::PROTOCOL_ERROR)
    }

    fn response(self) -> Result<ResponseHead, Code> {
        let status = self.status.filter(|s| *s >= 100 && *s != 101).ok_or(Code::PROTOCOL_ERROR)?;
        if self.malformed || self.seen != seen::STATUS {
            return Err(Code::PROTOCOL_ERROR);
        }
        Ok(ResponseHead { headers: self.head.headers, version: Version::H2, status })
    }
}

impl Stream {
    /// Counts body bytes against `content-length`.
    pub(super) fn count(&mut self, bytes: u64, end: bool) -> Result<(), Code> {
        let Some(left) = &mut self.announced else { return Ok(()) };
        *left = left.checked_sub(bytes).ok_or(Code::PROTOCOL_ERROR)?;
        if end && *left > 0 { Err(Code::PROTOCOL_ERROR) } else { Ok(()) }
    }
}

impl Connection {
    /// A whole header block arrived.
    pub(super) fn on_block(&mut self, id: u32, end: bool, block: &[u8]) -> Result<(), Fatal> {
        let mut decoded = Block::new();
        let config = &self.config;
        self.decoder.decode(block, |field| decoded.take(config, field)).map_err(|_| Fatal(Code::COMPRESSION_ERROR))?;
        if self.streams.get(id).is_some_and(|stream| stream.reset.is_some()) {
            return self.on_closed(id);
        }
        match (self.role, self.streams.get(id).is_some()) {
            (Role::Server, true) => self.on_trailers(id, end, decoded),
            (Role::Server, false) => self.on_request(id, end, decoded),
            (Role::Client, true) => self.on_response(id, end, decoded),
            (Role::Client, false) if id > self.last_stream => Err(Fatal(Code::PROTOCOL_ERROR)),
            (Role::Client, false) => self.on_closed(id),
        }
    }

    fn on_request(&mut self, id: u32, end: bool, block: Block) -> Result<(), Fatal> {
        if id <= self.last_stream {
            return if self.is_aborted(id) { self.on_closed(id) } else { Err(Fatal(Code::STREAM_CLOSED)) };
        }
        self.last_stream = id;
        self.budget.stream();
        if self.goaway_sent || self.streams.len() >= self.config.max_streams as usize {
            return self.refuse(id, Code::REFUSED_STREAM);
        }
        if block.too_large {
            return self.refuse(id, Code::ENHANCE_YOUR_CALM);
        }
        let announced = match block.length() {
            Ok(Some(n)) if end && n > 0 => return self.refuse(id, Code::PROTOCOL_ERROR),
            Ok(announced) => announced,
            Err(code) => return self.refuse(id, code),
        };
        let head = match block.request() {
            Ok(head) => head,
            Err(code) => return self.refuse(id, code),
        };
        let stream = self.streams.open(id, self.peer_stream_window, i64::from(self.config.stream_window));
        stream.recv_end = end;
        stream.got_head = true;
        stream.announced = announced;
        stream.heads.push(Inbound::Request(head));
        self.opened.push_back(id);
        Ok(())
    }

    fn on_response(&mut self, id: u32, end: bool, block: Block) -> Result<(), Fatal> {
        let Some(stream) = self.streams.get_mut(id) else { return Ok(()) };
        if stream.got_head {
            return self.on_trailers(id, end, block);
        }
        if stream.recv_end {
            return self.refuse(id, Code::STREAM_CLOSED);
        }
        if block.too_large {
            return self.refuse(id, Code::ENHANCE_YOUR_CALM);
        }
        let announced = block.length();
        let (Ok(head), Ok(announced)) = (block.response(), announced) else {
            return self.refuse(id, Code::PROTOCOL_ERROR);
        };
        let Some(stream) = self.streams.get_mut(id) else { return Ok(()) };
        let interim = head.is_interim();
        if interim && end {
            return self.refuse(id, Code::PROTOCOL_ERROR);
        }
        if !interim {
            stream.got_head = true;
            stream.recv_end = end;
            // A HEAD answer announces what it does not send.
            stream.announced = if end { None } else { announced };
        }
        stream.heads.push(Inbound::Response(head));
        stream.wake_reader();
        self.bury(id);
        Ok(())
    }

    fn on_trailers(&mut self, id: u32, end: bool, block: Block) -> Result<(), Fatal> {
        let Some(stream) = self.streams.get_mut(id) else { return Ok(()) };
        if stream.recv_end {
            return self.refuse(id, Code::STREAM_CLOSED);
        }
        let headers = &block.head.headers;
        let forbidden = headers.contains(Known::ContentLength) || headers.contains(Known::Host);
        if !end || block.malformed || block.seen != 0 || block.too_large || forbidden || stream.count(0, true).is_err()
        {
            return self.refuse(id, Code::PROTOCOL_ERROR);
        }
        stream.recv_end = true;
        stream.trailers = Some(Box::new(block.head.headers));
        stream.wake_reader();
        self.bury(id);
        Ok(())
    }

    /// Writes a block, split into CONTINUATION frames where it is larger than a frame.
    fn write_block(&mut self, id: u32, end: bool, fill: impl FnOnce(&mut super::hpack::Encoder, &mut Vec<u8>)) {
        let start = self.output_mut().len();
        let end_flag = if end { flag::END_STREAM } else { 0 };
        Head { length: 0, kind: kind::HEADERS, flags: flag::END_HEADERS | end_flag, stream: id }.write(&mut self.out);
        self.encoder.begin(&mut self.out);
        fill(&mut self.encoder, &mut self.out);
        let body = start + super::frame::HEAD_BYTES;
        let length = self.out.len() - body;
        if length <= self.peer_max_payload {
            let [_, high, middle, low] = (length as u32).to_be_bytes();
            if let Some(field) = self.out.get_mut(start..start + 3) {
                field.copy_from_slice(&[high, middle, low]);
            }
            return;
        }
        let block = self.out.split_off(body);
        self.out.truncate(start);
        let last = block.len().div_ceil(self.peer_max_payload) - 1;
        for (i, chunk) in block.chunks(self.peer_max_payload).enumerate() {
            let ends = if i == last { flag::END_HEADERS } else { 0 };
            match i {
                0 => self.frame(kind::HEADERS, ends | end_flag, id, chunk),
                _ => self.frame(kind::CONTINUATION, ends, id, chunk),
            }
        }
    }

    /// Sends a request head; `end`: no body follows.
    pub(super) fn write_request(&mut self, id: u32, head: &RequestHead, length: Option<u64>, end: bool) {
        self.write_block(id, end, |encoder, out| {
            let upgrade = !head.protocol().is_empty();
            let connect = head.method() == b"CONNECT";
            encoder.pseudo(2, if upgrade { b"CONNECT" } else { head.method() }, Indexing::Yes, out);
            if !connect {
                let scheme = if head.scheme().is_empty() { b"http" } else { head.scheme() };
                encoder.pseudo(6, scheme, Indexing::Yes, out);
                encoder.pseudo(4, head.path(), Indexing::No, out);
            }
            encoder.pseudo(1, head.authority(), Indexing::Yes, out);
            if upgrade {
                encoder.field(Known::Other, b":protocol", head.protocol(), Indexing::Yes, out);
            }
            write_fields(encoder, &head.headers, length, out);
        });
    }

    /// Sends a response head; `end`: no body follows.
    pub(super) fn write_response(&mut self, id: u32, head: &ResponseHead, length: Option<u64>, end: bool) {
        self.write_block(id, end, |encoder, out| {
            encoder.pseudo(8, itoa::Buffer::new().format(head.status).as_bytes(), Indexing::Yes, out);
            write_fields(encoder, &head.headers, length, out);
        });
    }

    /// Sends trailers, the end of the stream.
    pub(super) fn write_trailers(&mut self, id: u32, trailers: &Headers) {
        self.write_block(id, true, |encoder, out| write_fields(encoder, trailers, None, out));
    }
}

/// A value that does not come again would only push what does out of the table.
fn is_different_each_time(known: Known) -> bool {
    matches!(
        known,
        Known::ContentLength
            | Known::Etag
            | Known::XRequestId
            | Known::XEnvoyUpstreamServiceTime
            | Known::Traceparent
            | Known::B3
            | Known::XB3TraceId
            | Known::XB3SpanId
            | Known::XB3ParentSpanId
    )
}

fn write_fields(encoder: &mut super::hpack::Encoder, headers: &Headers, length: Option<u64>, out: &mut Vec<u8>) {
    for (i, (name, value)) in headers.iter().enumerate() {
        let indexing = match name.known {
            Known::ContentLength if length.is_some() => continue,
            _ if headers.never_index(i) => Indexing::Never,
            _ if is_different_each_time(name.known) => Indexing::No,
            _ => Indexing::Yes,
        };
        encoder.field(name.known, name.bytes, value, indexing, out);
    }
    if let Some(length) = length {
        let mut digits = itoa::Buffer::new();
        encoder.field(Known::ContentLength, b"", digits.format(length).as_bytes(), Indexing::No, out);
    }
}
