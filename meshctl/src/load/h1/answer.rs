//! Finds the end of an HTTP/1 answer in the bytes that come, and keeps no more of it than its status and sizes.
//!
//! Lean on purpose, and not the proxy's codec: a fault that both ends shared would not be seen. It never reads past the
//! end of an answer without saying so: bytes behind it are an error of the server.

use memchr::memmem;
use std::io::{Error, ErrorKind, Result};

/// Largest body that is kept, in bytes.
const MAX_KEPT: usize = 64 << 20;
/// Largest head that is accepted, in bytes.
pub const MAX_HEAD: usize = 64 << 10;

/// An answer that is coming in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    rest: Rest,
    /// Whether the request was a HEAD, whose answer has no body.
    bodyless: bool,
    /// Status of the head, once it is there.
    pub status: u16,
    /// Bytes of the head.
    pub head_size: u64,
    /// Bytes that came in all.
    pub size: u64,
    /// Whether the connection may carry another request.
    pub keep: bool,
    kept: Option<Kept>,
}

/// An answer that is kept, for people to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// The last head, as it came.
    pub head: Vec<u8>,
    /// The body without the marks of chunks.
    pub body: Vec<u8>,
}

/// What is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Head,
    Length(u64),
    Chunks(Chunk),
    UntilClose,
    Nothing,
}

/// Where in the chunks we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
    },
    Data(u64),
    DataEnd,
    /// A line of trailers, and whether it is empty so far.
    Trailer {
        empty: bool,
    },
}

impl Incoming {
    /// One whose bytes are all still to come.
    pub fn new(bodyless: bool) -> Self {
        Self { rest: Rest::Head, bodyless, status: 0, head_size: 0, size: 0, keep: true, kept: None }
    }

    /// One whose head and body are kept.
    pub fn keeping(bodyless: bool) -> Self {
        Self { kept: Some(Kept::default()), ..Self::new(bodyless) }
    }

    /// What was kept.
    pub fn into_kept(self) -> Kept {
        self.kept.unwrap_or_default()
    }

    fn keep_body(&mut self, data: &[u8]) -> Result<()> {
        if let Some(kept) = &mut self.kept {
            if kept.body.len() + data.len() > MAX_KEPT {
                return Err(Error::new(ErrorKind::FileTooLarge, format!("the answer exceeds {MAX_KEPT} bytes")));
            }
            kept.body.extend_from_slice(data);
        }
        Ok(())
    }

    /// Whether all of it came.
    pub fn is_complete(&self) -> bool {
        self.rest == Rest::Nothing
    }

    /// Takes bytes, and says how many of them are done with; the others must come again with more behind them.
    ///
    /// # Errors
    /// Where they are no HTTP/1 answer.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        while self.rest == Rest::Head {
            let head = bytes.get(used..).unwrap_or_default();
            let Some(end) = memmem::find(head, b"\r\n\r\n").map(|at| at + 4) else {
                return if head.len() > MAX_HEAD { Err(wrong("its head is too large")) } else { Ok(used) };
            };
            used += end;
            self.read_head(head.get(..end).unwrap_or_default())?;
        }
        let body = bytes.get(used..).unwrap_or_default();
        let taken = self.take_body(body)?;
        self.size += taken as u64;
        if self.rest == Rest::Nothing && taken < body.len() {
            return Err(wrong("more bytes follow its end"));
        }
        Ok(used + taken)
    }

    /// The peer closed its half.
    ///
    /// # Errors
    /// Where the answer is not whole.
    pub fn end(&mut self) -> Result<()> {
        self.keep = false;
        match self.rest {
            Rest::UntilClose | Rest::Nothing => {
                self.rest = Rest::Nothing;
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::UnexpectedEof, "the server closed the connection within an answer")),
        }
    }

    fn read_head(&mut self, head: &[u8]) -> Result<()> {
        let version = head.get(..9).unwrap_or_default();
        let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        let status = status.and_then(|digits| digits.parse::<u16>().ok()).filter(|status| *status >= 100);
        let Some(status) = status.filter(|_| version.starts_with(b"HTTP/1.")) else {
            return Err(wrong("it does not begin with HTTP/1.x and a status"));
        };
        self.size += head.len() as u64;
        if (100..200).contains(&status) && status != 101 {
            return Ok(()); // another head follows
        }
        (self.status, self.head_size) = (status, head.len() as u64);
        if let Some(kept) = &mut self.kept {
            kept.head = head.to_vec();
        }
        self.keep = version != b"HTTP/1.0 ";
        let mut length = None;
        let mut chunked = false;
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            // the lengths of the three names differ, and few others have them
            match name.len() {
                14 if name.eq_ignore_ascii_case(b"content-length") => length = Some(decimal(value)?),
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    chunked |= value.to_ascii_lowercase().ends_with(b"chunked");
                }
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    let value = value.to_ascii_lowercase();
                    self.keep = match memmem::find(&value, b"close") {
                        Some(_) => false,
                        None => self.keep || memmem::find(&value, b"keep-alive").is_some(),
                    };
                }
                _ => {}
            }
        }
        self.rest = match length {
            _ if self.bodyless || matches!(status, 204 | 304) => Rest::Nothing,
            _ if chunked => Rest::Chunks(Chunk::Size { value: 0, digits: 0 }),
            Some(0) => Rest::Nothing,
            Some(length) => Rest::Length(length),
            None => Rest::UntilClose,
        };
        if self.rest == Rest::UntilClose {
            self.keep = false;
        }
        Ok(())
    }

    fn take_body(&mut self, body: &[u8]) -> Result<usize> {
        match self.rest {
            Rest::Head | Rest::Nothing => Ok(0),
            Rest::UntilClose => {
                self.keep_body(body)?;
                Ok(body.len())
            }
            Rest::Length(left) => {
                let taken = left.min(body.len() as u64);
                self.rest = if taken == left { Rest::Nothing } else { Rest::Length(left - taken) };
                let taken = usize::try_from(taken).unwrap_or(body.len());
                self.keep_body(body.get(..taken).unwrap_or_default())?;
                Ok(taken)
            }
            Rest::Chunks(chunk) => self.take_chunks(chunk, body),
        }
    }

    fn take_chunks(&mut self, mut chunk: Chunk, body: &[u8]) -> Result<usize> {
        let mut used = 0;
        while let Some(&byte) = body.get(used) {
            if let Chunk::Data(left) = chunk {
                let data = body.get(used..).unwrap_or_default();
                let taken = left.min(data.len() as u64);
                let end = usize::try_from(taken).unwrap_or(data.len());
                self.keep_body(data.get(..end).unwrap_or_default())?;
                used += end;
                chunk = if taken == left { Chunk::DataEnd } else { Chunk::Data(left - taken) };
                continue;
            }
            used += 1;
            if chunk == (Chunk::Trailer { empty: true }) && byte == b'\n' {
                self.rest = Rest::Nothing;
                return Ok(used);
            }
            chunk = next(chunk, byte)?;
        }
        self.rest = Rest::Chunks(chunk);
        Ok(used)
    }
}

/// Where we are after a byte that is no data.
fn next(chunk: Chunk, byte: u8) -> Result<Chunk> {
    Ok(match (chunk, byte) {
        (Chunk::Size { value, digits }, _) if byte.is_ascii_hexdigit() && digits < 15 => {
            let digit = char::from(byte).to_digit(16).unwrap_or(0);
            Chunk::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
        }
        (Chunk::Size { value, digits: 1.. }, b'\r' | b';' | b' ' | b'\t') => Chunk::Extension { value },
        (Chunk::Extension { value: 0 } | Chunk::Size { value: 0, digits: 1.. }, b'\n') => {
            Chunk::Trailer { empty: true }
        }
        (Chunk::Extension { value } | Chunk::Size { value, digits: 1.. }, b'\n') => Chunk::Data(value),
        (Chunk::Extension { .. }, _) => chunk,
        (Chunk::DataEnd, b'\r') => Chunk::DataEnd,
        (Chunk::DataEnd, b'\n') => Chunk::Size { value: 0, digits: 0 },
        (Chunk::Trailer { .. }, b'\n') => Chunk::Trailer { empty: true },
        (Chunk::Trailer { empty }, b'\r') => Chunk::Trailer { empty },
        (Chunk::Trailer { .. }, _) => Chunk::Trailer { empty: false },
        _ => return Err(wrong("a chunk has no size or no end")),
    })
}

fn decimal(text: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or_else(|| wrong("its content-length is no number"))
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the answer is no HTTP/1: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds an answer in pieces of `step` bytes, and ends the connection after it.
    fn read(text: &str, step: usize, bodyless: bool) -> Result<Incoming> {
        let mut incoming = Incoming::new(bodyless);
        let mut pending = Vec::new();
        for piece in text.as_bytes().chunks(step) {
            pending.extend_from_slice(piece);
            let used = incoming.take(&pending)?;
            pending.drain(..used);
        }
        if !incoming.is_complete() {
            incoming.end()?;
        }
        Ok(incoming)
    }

    fn facts(text: &str) -> (u16, u64, u64, bool) {
        let mut found = Vec::new();
        for step in [1, 2, 3, 7, text.len()] {
            let incoming = read(text, step, false).unwrap();
            found.push((incoming.status, incoming.head_size, incoming.size, incoming.keep));
        }
        found.dedup();
        assert_eq!(found.len(), 1, "the pieces do not matter: {text:?}");
        found[0]
    }

    #[test]
    fn answers_end_where_their_head_says() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(facts(&format!("{head}abc")), (200, head.len() as u64, head.len() as u64 + 3, true));
        assert_eq!(facts("HTTP/1.1 204 No Content\r\n\r\n"), (204, 27, 27, true));
        assert!(!facts("HTTP/1.0 404 x\r\ncontent-length: 0\r\n\r\n").3);
        assert!(facts("HTTP/1.0 404 x\r\nconnection: Keep-Alive\r\ncontent-length: 0\r\n\r\n").3);
        assert!(!facts("HTTP/1.1 200 x\r\nConnection: close\r\ncontent-length: 1\r\n\r\na").3);
        assert_eq!(facts("HTTP/1.1 200 x\r\n\r\nuntil close"), (200, 18, 29, false));
        let chunked =
            "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nt: x\r\n\r\n";
        assert_eq!(facts(chunked), (200, 46, chunked.len() as u64, true));
        let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 x\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(facts(early), (201, 37, early.len() as u64, true));
        assert!(read("HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\n", 5, true).unwrap().keep, "HEAD has no body");
    }

    #[test]
    fn a_kept_body_has_no_marks_of_chunks() {
        let mut incoming = Incoming::keeping(false);
        let text = "HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(incoming.take(text.as_bytes()).unwrap(), text.len());
        let kept = incoming.into_kept();
        assert_eq!((kept.head.len(), kept.body.as_slice()), (46, b"abcde".as_slice()));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for wrong in [
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
            "HTTP/1.1 200 x\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 x\r\ncontent-length: 5\r\n\r\nabc",
            "HTTP/1.1 200 x\r\ncontent-length: 1\r\n\r\nab",
            "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd",
            "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            "HTTP/1.1 200 x\r\n",
        ] {
            assert!(read(wrong, wrong.len(), false).is_err(), "{wrong:?}");
        }
        assert!(Incoming::new(false).take(&vec![b'a'; MAX_HEAD + 1]).is_err());
    }
}
