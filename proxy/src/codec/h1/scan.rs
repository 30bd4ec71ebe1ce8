//! Request and response heads: bytes → typed head, or the rule that was broken.

use super::framing::{BodyReader, Framing};
use crate::codec::bytes::{is_host, is_target, is_token, is_value};
use crate::message::{Headers, Known, RequestHead, ResponseHead, Version};
use crate::outcome::{Outcome, Reason};

/// Limits of one head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Whole head in bytes (HP-2: 60 KiB).
    pub max_bytes: usize,
    /// Number of fields (HP-2: 100).
    pub max_fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { max_bytes: 60 << 10, max_fields: 100 }
    }
}

/// What the codec itself must know of a request beside its head.
#[derive(Debug)]
pub struct RequestMeta {
    /// Bytes of the head, the empty line included.
    pub head_bytes: usize,
    /// How the body is framed.
    pub body: BodyReader,
    /// Whether the connection may carry another request.
    pub keep_alive: bool,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
}

/// What the codec itself must know of a response beside its head.
#[derive(Debug)]
pub struct ResponseMeta {
    /// Bytes of the head, the empty line included.
    pub head_bytes: usize,
    /// How the body is framed.
    pub body: BodyReader,
    /// Whether the connection may carry another request afterwards.
    pub keep_alive: bool,
    /// `Keep-Alive: timeout=N` in seconds, where the server said so.
    pub keep_alive_timeout_s: Option<u64>,
}

fn bad(how: &'static str) -> Outcome {
    Outcome::malformed(how)
}

/// Length of the head at the start of `buf` (the empty line included); `None` while it is incomplete.
///
/// # Errors
/// A line feed without carriage return, a head over the limit.
fn head_end(buf: &[u8], limits: HeadLimits) -> Result<Option<usize>, Outcome> {
    let mut line_start = 0;
    for at in memchr::memchr_iter(b'\n', buf) {
        if at == 0 || buf.get(at - 1) != Some(&b'\r') {
            return Err(bad("http1.codec_error"));
        }
        if at > limits.max_bytes {
            return Err(Reason::HeadersTooLarge.into());
        }
        if at - 1 == line_start {
            return Ok(Some(at + 1));
        }
        line_start = at + 1;
    }
    // Without its line feed, a carriage return would be waited for to the end of the time.
    let bare = memchr::memchr(b'\r', buf.get(line_start..).unwrap_or_default());
    if bare.is_some_and(|at| line_start + at + 1 < buf.len()) {
        return Err(bad("http1.codec_error"));
    }
    if buf.len() > limits.max_bytes { Err(Reason::HeadersTooLarge.into()) } else { Ok(None) }
}

/// Parses a request head at the start of `buf`; `None` while it is incomplete. Empty lines before it must have been
/// skipped by the caller.
///
/// # Errors
/// [`Reason::Malformed`] with Envoy's detail, [`Reason::HeadersTooLarge`], [`Reason::MissingHost`].
pub fn scan_request(buf: &[u8], limits: HeadLimits) -> Result<Option<(RequestHead, RequestMeta)>, Outcome> {
    // An early look at the first byte refuses TLS and garbage without waiting for a line end.
    if buf.first().is_some_and(|b| !is_token(&[*b])) {
        return Err(bad("http1.codec_error"));
    }
    let Some(head_bytes) = head_end(buf, limits)? else { return Ok(None) };
    let mut lines = Lines { rest: buf.get(..head_bytes - 2).unwrap_or_default() };
    let (method, target, version) = request_line(lines.next().unwrap_or_default())?;
    let mut head = RequestHead::new(version, method, b"", b"", b"");
    let facts = fields(&mut lines, &mut head.headers, limits)?;
    let authority = target_into(&mut head, target, facts.hosts)?;
    if facts.hosts > 1 {
        return Err(bad("http1.codec_error"));
    }
    match authority {
        Some(()) => {}
        None if facts.hosts == 0 => return Err(Reason::MissingHost.into()),
        None => {
            let host = head.headers.get(Known::Host).unwrap_or_default().to_vec();
            valid_authority(&host)?;
            head.set_authority(&host);
        }
    }
    head.headers.remove(Known::Host);
    if facts.transfer_encoding.is_some() && (facts.content_length.is_some() || version == Version::H10) {
        return Err(bad("http1.content_length_and_chunked_not_allowed"));
    }
    let framing = match (facts.transfer_encoding, facts.content_length) {
        (Some(TransferEncoding::Chunked), _) => Framing::Chunked,
        (Some(_), _) => return Err(bad("http1.transfer_encoding_not_supported")),
        (None, length) => Framing::Length(length.unwrap_or(0)),
    };
    let keep_alive = facts.keep_alive(version);
    let expects_continue = version == Version::H11
        && head.headers.get(Known::Expect).is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue"));
    if facts.upgrade
        && let Some(protocol) = head.headers.get(Known::Upgrade).map(<[u8]>::to_vec)
        && version == Version::H11
    {
        head.set_protocol(&protocol);
    }
    let body = BodyReader::new(framing);
    Ok(Some((head, RequestMeta { head_bytes, body, keep_alive, expects_continue })))
}

/// Parses a response head at the start of `buf`; `None` while it is incomplete. `method` is the request's: it decides
/// whether a body follows.
///
/// # Errors
/// [`Reason::UpstreamProtocol`] with what is wrong.
pub fn scan_response(
    buf: &[u8],
    method: &[u8],
    limits: HeadLimits,
) -> Result<Option<(ResponseHead, ResponseMeta)>, Outcome> {
    scan_response_inner(buf, method, limits).map_err(|o| Outcome {
        limit: None,
        reason: Reason::UpstreamProtocol,
        detail: o.detail.filter(|d| **d != *"http1.codec_error"),
    })
}

fn scan_response_inner(
    buf: &[u8],
    method: &[u8],
    limits: HeadLimits,
) -> Result<Option<(ResponseHead, ResponseMeta)>, Outcome> {
    if !b"HTTP/1.".starts_with(buf.get(..buf.len().min(7)).unwrap_or_default()) {
        return Err(bad("http1.codec_error"));
    }
    let Some(head_bytes) = head_end(buf, limits)? else { return Ok(None) };
    let mut lines = Lines { rest: buf.get(..head_bytes - 2).unwrap_or_default() };
    let (version, status) = status_line(lines.next().unwrap_or_default())?;
    let mut head = ResponseHead::new(status);
    head.version = version;
    let facts = fields(&mut lines, &mut head.headers, limits)?;
    let mut keep_alive = facts.keep_alive(version);
    let framing = if method == b"HEAD" || (100..200).contains(&status) || status == 204 || status == 304 {
        Framing::Length(0)
    } else if method == b"CONNECT" && (200..300).contains(&status) {
        Framing::UntilClose
    } else {
        match (facts.transfer_encoding, facts.content_length) {
            // D8: both framings in one response are repaired, Transfer-Encoding wins (RFC 9112 section 6.3), and the
            // connection is not used again.
            (Some(te), length) => {
                keep_alive &= length.is_none();
                head.headers.remove(Known::ContentLength);
                if te == TransferEncoding::Chunked { Framing::Chunked } else { Framing::UntilClose }
            }
            (None, Some(length)) => Framing::Length(length),
            (None, None) => Framing::UntilClose,
        }
    };
    if framing == Framing::UntilClose {
        keep_alive = false;
    }
    let keep_alive_timeout_s = head.headers.get(Known::KeepAlive).and_then(keep_alive_timeout);
    let body = BodyReader::new(framing);
    Ok(Some((head, ResponseMeta { head_bytes, body, keep_alive, keep_alive_timeout_s })))
}

/// Parses the fields of a trailer section at the start of `buf`. Returns the section and its length in bytes; `None`
/// while it is incomplete.
///
/// # Errors
/// Malformed fields; fields that must not stand in trailers (RFC 9110 section 6.5.1).
pub(super) fn scan_trailers(buf: &[u8], limits: HeadLimits) -> Result<Option<(Headers, usize)>, Outcome> {
    let Some(bytes) = head_end(buf, limits)? else { return Ok(None) };
    let mut lines = Lines { rest: buf.get(..bytes - 2).unwrap_or_default() };
    let mut trailers = Headers::new();
    fields(&mut lines, &mut trailers, limits)?;
    let forbidden = [Known::ContentLength, Known::TransferEncoding, Known::Host, Known::Trailer, Known::Connection];
    if forbidden.iter().any(|name| trailers.contains(*name)) {
        return Err(bad("http1.codec_error"));
    }
    Ok(Some((trailers, bytes)))
}

/// Lines of a head whose line ends are known to be CRLF.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest).map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(line.strip_suffix(b"\r\n").unwrap_or(line))
    }
}

fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], Version), Outcome> {
    let malformed = || bad("http1.codec_error");
    let mut parts = line.splitn(3, |b| *b == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let method = method.filter(|m| !m.is_empty() && is_token(m)).ok_or_else(malformed)?;
    let target = target.filter(|t| !t.is_empty() && is_target(t)).ok_or_else(malformed)?;
    let version = match version {
        Some(b"HTTP/1.1") => Version::H11,
        Some(b"HTTP/1.0") => Version::H10,
        _ => return Err(malformed()),
    };
    Ok((method, target, version))
}

fn status_line(line: &[u8]) -> Result<(Version, u16), Outcome> {
    let malformed = || bad("http1.codec_error");
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::H11,
        Some(b"HTTP/1.0 ") => Version::H10,
        _ => return Err(malformed()),
    };
    let digits = line.get(9..12).filter(|d| d.iter().all(u8::is_ascii_digit)).ok_or_else(malformed)?;
    let status = digits.iter().fold(0_u16, |n, d| n * 10 + u16::from(d - b'0'));
    let reason = line.get(12..).unwrap_or_default();
    let reason_ok = reason.is_empty() || reason.starts_with(b" ") && is_value(reason);
    if status >= 100 && reason_ok { Ok((version, status)) } else { Err(malformed()) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransferEncoding {
    Chunked,
    Identity,
    Other,
}

/// What the fields say about the connection and the framing.
#[derive(Default)]
struct FieldFacts {
    hosts: usize,
    content_length: Option<u64>,
    transfer_encoding: Option<TransferEncoding>,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl FieldFacts {
    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::H11 || self.keep_alive)
    }
}

fn fields(lines: &mut Lines<'_>, into: &mut Headers, limits: HeadLimits) -> Result<FieldFacts, Outcome> {
    let mut facts = FieldFacts::default();
    for line in lines {
        if line.is_empty() {
            break;
        }
        let colon = memchr::memchr(b':', line).ok_or_else(|| bad("http1.codec_error"))?;
        let (name, value) = line.split_at(colon);
        let value = trim_ows(value.get(1..).unwrap_or_default());
        // A line that starts with a space is obs-fold; a space before the colon is no token either.
        if name.is_empty() || !is_token(name) || !is_value(value) {
            return Err(bad("http1.codec_error"));
        }
        if into.len() >= limits.max_fields {
            return Err(Reason::HeadersTooLarge.into());
        }
        let known = Known::of(name);
        into.append_as(known, name, value);
        match known {
            Known::Host => facts.hosts += 1,
            Known::ContentLength => facts.take_length(value)?,
            Known::TransferEncoding => facts.take_encoding(value)?,
            Known::Connection | Known::ProxyConnection => facts.take_connection(value),
            _ => {}
        }
    }
    Ok(facts)
}

/// Without the optional white space around it: spaces and tabs alone (RFC 9110 section 5.6.3).
fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

impl FieldFacts {
    fn take_length(&mut self, value: &[u8]) -> Result<(), Outcome> {
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        if !digits || self.content_length.is_some() {
            return Err(bad("http1.unexpected_content_length"));
        }
        self.content_length = Some(value.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')));
        Ok(())
    }

    fn take_encoding(&mut self, value: &[u8]) -> Result<(), Outcome> {
        let this = if value.eq_ignore_ascii_case(b"chunked") {
            TransferEncoding::Chunked
        } else if value.eq_ignore_ascii_case(b"identity") {
            TransferEncoding::Identity
        } else {
            TransferEncoding::Other
        };
        match self.transfer_encoding {
            None => self.transfer_encoding = Some(this),
            Some(_) => self.transfer_encoding = Some(TransferEncoding::Other),
        }
        if value.is_empty() { Err(bad("http1.transfer_encoding_not_supported")) } else { Ok(()) }
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

/// Puts the target into the head; `Some` where it brought the authority with it (absolute form, CONNECT).
fn target_into(head: &mut RequestHead, target: &[u8], hosts: usize) -> Result<Option<()>, Outcome> {
    if head.method() == b"CONNECT" {
        valid_authority(target)?;
        if !target.contains(&b':') {
            return Err(bad("http1.codec_error"));
        }
        head.set_authority(target);
        return Ok(Some(()));
    }
    if target.starts_with(b"/") || (target == b"*" && head.method() == b"OPTIONS") {
        head.set_path(target);
        return Ok(None);
    }
    let (scheme, rest): (&[u8], _) = if let Some(rest) = strip_prefix_ignore_case(target, b"http://") {
        (b"http", rest)
    } else if let Some(rest) = strip_prefix_ignore_case(target, b"https://") {
        (b"https", rest)
    } else {
        return Err(bad("http1.codec_error"));
    };
    // RFC 9112 section 3.2.2: the authority of an absolute target replaces Host, which must still be there.
    if hosts == 0 && head.version == Version::H11 {
        return Err(Reason::MissingHost.into());
    }
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    valid_authority(authority)?;
    head.set_authority(authority);
    head.set_scheme(scheme);
    match path.first() {
        Some(b'/') => head.set_path(path),
        _ => head.set_path(&[b"/", path].concat()),
    }
    Ok(Some(()))
}

fn strip_prefix_ignore_case<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Host and optional port (RFC 3986 section 3.2), without user information.
///
/// # Errors
/// Anything else, the empty host included.
pub(crate) fn valid_authority(authority: &[u8]) -> Result<(), Outcome> {
    let fail = || Err(bad("http1.codec_error"));
    let (host, port) = if authority.first() == Some(&b'[') {
        let Some(end) = authority.iter().position(|b| *b == b']') else { return fail() };
        let (host, port) = authority.split_at(end + 1);
        let inner = host.get(1..end).unwrap_or_default();
        if inner.is_empty() || !inner.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
            return fail();
        }
        (host, port)
    } else {
        let end = authority.iter().position(|b| *b == b':').unwrap_or(authority.len());
        let (host, port) = authority.split_at(end);
        if !is_host(host) {
            return fail();
        }
        (host, port)
    };
    let port_ok = match port.strip_prefix(b":") {
        Some(digits) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        None => port.is_empty(),
    };
    if host.is_empty() || !port_ok { fail() } else { Ok(()) }
}

/// The `timeout` of a `Keep-Alive` header in seconds.
fn keep_alive_timeout(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.split(',').find_map(|part| part.trim().strip_prefix("timeout=")).and_then(|n| n.trim().parse().ok())
}

#[cfg(test)]
mod tests;
