//! Heads, chunks and trailers as bytes. What is written was validated when it was read or made here.

use crate::message::{Headers, Known, RequestHead, ResponseHead, Version};
use std::io::Write;

/// How the body that follows is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    /// Nothing: there is no body, or the head says it already.
    Nothing,
    /// `content-length`.
    Length(u64),
    /// `transfer-encoding: chunked`.
    Chunked,
}

/// Room for what a head has beside its fields, in bytes: asked for once instead of growing line by line.
const LINES_BYTES: usize = 160;

/// Writes a request head with `Host` first.
pub fn write_request(head: &RequestHead, announce: Announce, out: &mut Vec<u8>) {
    out.reserve(head.headers.size_bytes() + head.path().len() + head.authority().len() + LINES_BYTES);
    out.extend_from_slice(head.method());
    out.push(b' ');
    out.extend_from_slice(if head.method() == b"CONNECT" { head.authority() } else { head.path() });
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field(out, b"host", head.authority());
    if !head.protocol().is_empty() {
        out.extend_from_slice(b"connection: upgrade\r\n");
        field(out, b"upgrade", head.protocol());
    }
    finish(&head.headers, announce, out);
}

/// Writes a response head for a peer that speaks `version`; `close` tells it that the connection ends.
pub fn write_response(head: &ResponseHead, version: Version, announce: Announce, close: bool, out: &mut Vec<u8>) {
    let line: &[u8] = match version {
        Version::H10 => b"HTTP/1.0 ",
        Version::H11 | Version::H2 => b"HTTP/1.1 ",
    };
    out.reserve(head.headers.size_bytes() + LINES_BYTES);
    out.extend_from_slice(line);
    if head.status == 200 {
        out.extend_from_slice(b"200 OK\r\n");
    } else {
        let reason =
            http::StatusCode::from_u16(head.status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Unknown");
        // Writing to a vector cannot fail.
        if write!(out, "{} {reason}\r\n", head.status).is_err() {}
    }
    if close {
        out.extend_from_slice(b"connection: close\r\n");
    } else if version == Version::H10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    finish(&head.headers, announce, out);
}

fn finish(headers: &Headers, announce: Announce, out: &mut Vec<u8>) {
    for (name, value) in headers {
        if name.known != Known::ContentLength || announce == Announce::Nothing {
            field(out, name.bytes, value);
        }
    }
    match announce {
        Announce::Nothing => {}
        Announce::Length(n) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Announce::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// The line before a chunk of `size` bytes.
pub fn chunk_head(size: usize, out: &mut Vec<u8>) {
    if write!(out, "{size:x}\r\n").is_err() {}
}

/// The last chunk and the trailers.
pub fn write_trailers(trailers: Option<&Headers>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        field(out, name.bytes, value);
    }
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_written_with_host_first_and_one_framing() {
        let mut head = RequestHead::new(Version::H11, b"POST", b"http", b"a:1", b"/x");
        head.headers.append(b"X-Case", b"1");
        head.headers.append(b"content-length", b"9");
        let mut out = Vec::new();
        write_request(&head, Announce::Length(5), &mut out);
        assert_eq!(out, b"POST /x HTTP/1.1\r\nhost: a:1\r\nX-Case: 1\r\ncontent-length: 5\r\n\r\n");
        let mut out = Vec::new();
        write_response(&ResponseHead::new(404), Version::H10, Announce::Nothing, true, &mut out);
        assert_eq!(out, b"HTTP/1.0 404 Not Found\r\nconnection: close\r\n\r\n");
    }
}
