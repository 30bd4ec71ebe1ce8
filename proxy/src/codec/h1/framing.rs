//! Where a body ends: content-length, chunks or the end of the connection.

use super::scan::{HeadLimits, scan_trailers};
use crate::message::Headers;
use crate::outcome::Outcome;
use bytes::{Buf, Bytes, BytesMut};

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Exactly so many bytes (0: no body).
    Length(u64),
    /// Chunked coding with optional trailers.
    Chunked,
    /// Everything until the peer closes (responses only).
    UntilClose,
}

/// Bytes of chunk extensions that one body may hold in all.
const MAX_EXTENSION_BYTES: usize = 4 << 10;
/// Longest chunk-size line that is waited for.
const MAX_SIZE_LINE_BYTES: usize = 4 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// Takes a body out of the bytes of a connection.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    extension_bytes: usize,
}

/// What the reader made of the buffer.
#[derive(Debug)]
pub enum Decoded {
    /// The next piece of the body; never empty.
    Data(Bytes),
    /// Trailers; the body is complete.
    Trailers(Headers),
    /// The body is complete.
    End,
    /// More bytes are needed.
    More,
}

impl BodyReader {
    /// A reader at the start of a body.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extension_bytes: 0 }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes that are still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(n) => Some(n),
            _ => None,
        }
    }

    /// Whether the end of the connection is a legal end of the body.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// Takes the next piece from the front of `buf`.
    ///
    /// # Errors
    /// Malformed chunks or trailers.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, Outcome> {
        loop {
            match self.state {
                State::Done => return Ok(Decoded::End),
                State::UntilClose if buf.is_empty() => return Ok(Decoded::More),
                State::UntilClose => return Ok(Decoded::Data(buf.split().freeze())),
                State::Length(left) | State::ChunkData(left) => {
                    if buf.is_empty() {
                        return Ok(Decoded::More);
                    }
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
                    let left = left - n as u64;
                    self.state = match self.state {
                        State::Length(_) if left == 0 => State::Done,
                        State::Length(_) => State::Length(left),
                        _ if left == 0 => State::ChunkEnd,
                        _ => State::ChunkData(left),
                    };
                    return Ok(Decoded::Data(buf.split_to(n).freeze()));
                }
                State::ChunkSize => match self.chunk_size(buf)? {
                    None => return Ok(Decoded::More),
                    Some(0) => self.state = State::Trailers,
                    Some(n) => self.state = State::ChunkData(n),
                },
                State::ChunkEnd => match (buf.first(), buf.get(1)) {
                    (Some(b'\r'), Some(b'\n')) => {
                        buf.advance(2);
                        self.state = State::ChunkSize;
                    }
                    (None, _) | (Some(b'\r'), None) => return Ok(Decoded::More),
                    _ => return Err(Outcome::malformed("http1.codec_error")),
                },
                State::Trailers => {
                    let Some((trailers, bytes)) = scan_trailers(buf, HeadLimits::default())? else {
                        return Ok(Decoded::More);
                    };
                    buf.advance(bytes);
                    self.state = State::Done;
                    return Ok(if trailers.is_empty() { Decoded::End } else { Decoded::Trailers(trailers) });
                }
            }
        }
    }

    fn chunk_size(&mut self, buf: &mut BytesMut) -> Result<Option<u64>, Outcome> {
        let bad = || Outcome::malformed("http1.codec_error");
        let Some(end) = memchr::memchr(b'\n', buf) else {
            let plausible = buf.first().is_none_or(u8::is_ascii_hexdigit);
            return if buf.len() > MAX_SIZE_LINE_BYTES || !plausible { Err(bad()) } else { Ok(None) };
        };
        let line = buf.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or_else(bad)?;
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let (size, extension) = line.split_at(digits);
        // RFC 9112 section 7.1.1: extensions start with a semicolon; white space before it is "bad" and refused.
        let extension_ok =
            extension.is_empty() || extension.starts_with(b";") && crate::codec::bytes::is_value(extension);
        self.extension_bytes += extension.len();
        if digits == 0 || digits > 15 || !extension_ok || self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(bad());
        }
        let size = size.iter().fold(0_u64, |n, d| n << 4 | u64::from(hex(*d)));
        buf.advance(end + 1);
        Ok(Some(size))
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, bool, Option<Headers>), Outcome> {
        let (mut reader, mut buf, mut out) = (BodyReader::new(framing), BytesMut::new(), Vec::new());
        let mut rest = input;
        loop {
            match reader.decode(&mut buf)? {
                Decoded::Data(data) => out.extend_from_slice(&data),
                Decoded::Trailers(t) => return Ok((out, true, Some(t))),
                Decoded::End => return Ok((out, true, None)),
                Decoded::More if rest.is_empty() => return Ok((out, false, None)),
                Decoded::More => {
                    let (now, later) = rest.split_at(step.min(rest.len()));
                    buf.extend_from_slice(now);
                    rest = later;
                }
            }
        }
    }

    // spec: HP-1
    #[test]
    fn bodies_end_where_their_framing_says_in_pieces_of_any_size() {
        for step in 1..20 {
            assert_eq!(run(Framing::Length(5), b"helloGET", step).expect("ok").0, b"hello");
            let chunked = b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\n\r\nrest";
            let (body, done, _) = run(Framing::Chunked, chunked, step).expect("ok");
            assert_eq!((body.as_slice(), done), (&b"hello!"[..], true));
            let trailed = b"1\r\nx\r\n0\r\nGrpc-Status: 0\r\n\r\n";
            let trailers = run(Framing::Chunked, trailed, step).expect("ok").2.expect("trailers");
            assert_eq!(trailers.get(crate::message::Known::GrpcStatus), Some(&b"0"[..]));
            assert!(!run(Framing::UntilClose, b"abc", step).expect("ok").1);
        }
    }

    // spec: LR-22, HD-20
    #[test]
    fn rejects_malformed_chunks_and_trailers() {
        let cases: [&[u8]; 14] = [
            b"g\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"\r\n",
            b"1;\x00\r\nx\r\n",
            b"10000000000000000\r\n",
            b"0\r\nContent-Length: 1\r\n\r\n",
            b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\r\n folded: 1\r\n\r\n",
            b"0\r\na\x01: 1\r\n\r\n",
        ];
        for case in cases {
            assert!(run(Framing::Chunked, case, 64).is_err(), "{}", case.escape_ascii());
        }
        let long = [b"1;".as_slice(), &[b'a'; 5000], b"\r\nx\r\n0\r\n\r\n"].concat();
        assert!(run(Framing::Chunked, &long, 64).is_err());
    }
}
