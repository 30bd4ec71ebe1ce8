//! The head of a request or response: what stands before the body.

use super::Known;
use super::headers::{Headers, Span};
use std::fmt;

/// HTTP version of a message as its sender wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0
    H10,
    /// HTTP/1.1
    H11,
    /// HTTP/2
    H2,
}

impl Version {
    /// As `%PROTOCOL%` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H10 => "HTTP/1.0",
            Self::H11 => "HTTP/1.1",
            Self::H2 => "HTTP/2",
        }
    }
}

/// Method, target and headers. The texts share the arena of the header list.
#[derive(Clone)]
pub struct RequestHead {
    /// Header fields, without `Host` (see [`Self::authority`]) and without HTTP/2 pseudo-headers.
    pub headers: Headers,
    /// Version that the sender used.
    pub version: Version,
    method: Span,
    scheme: Span,
    authority: Span,
    path: Span,
    protocol: Span,
}

impl RequestHead {
    /// A head without headers. `path` holds the query; it is empty for CONNECT.
    pub fn new(version: Version, method: &[u8], scheme: &[u8], authority: &[u8], path: &[u8]) -> Self {
        let mut headers = Headers::new();
        let method = headers.store(method);
        let scheme = headers.store(scheme);
        let authority = headers.store(authority);
        let path = headers.store(path);
        Self { headers, version, method, scheme, authority, path, protocol: Span::default() }
    }

    /// A head of which nothing is known yet.
    pub fn blank(version: Version) -> Self {
        let [method, scheme, authority, path, protocol] = [Span::default(); 5];
        Self { headers: Headers::new(), version, method, scheme, authority, path, protocol }
    }

    /// The method, such as `GET`.
    pub fn method(&self) -> &[u8] {
        self.headers.text(self.method)
    }

    /// `http` or `https`; empty if not known.
    pub fn scheme(&self) -> &[u8] {
        self.headers.text(self.scheme)
    }

    /// Host and optional port as the client wrote them (`Host` or `:authority`).
    pub fn authority(&self) -> &[u8] {
        self.headers.text(self.authority)
    }

    /// Path and query (`:path`); `*` for a server-wide OPTIONS, empty for CONNECT.
    pub fn path(&self) -> &[u8] {
        self.headers.text(self.path)
    }

    /// The protocol of an upgrade: `Upgrade` of HTTP/1.1 or `:protocol` of extended CONNECT (RFC 8441); empty if none.
    pub fn protocol(&self) -> &[u8] {
        self.headers.text(self.protocol)
    }

    /// The path without the query.
    pub fn path_only(&self) -> &[u8] {
        let path = self.path();
        path.split(|b| *b == b'?').next().unwrap_or(path)
    }

    /// The query without the question mark; empty if there is none.
    pub fn query(&self) -> &[u8] {
        let path = self.path();
        path.iter().position(|b| *b == b'?').and_then(|at| path.get(at + 1..)).unwrap_or_default()
    }

    /// Replaces the method.
    pub fn set_method(&mut self, method: &[u8]) {
        self.method = self.headers.store(method);
    }

    /// Replaces the scheme.
    pub fn set_scheme(&mut self, scheme: &[u8]) {
        self.scheme = self.headers.store(scheme);
    }

    /// Replaces the scheme by the first value of a header, where there is one.
    pub fn set_scheme_to(&mut self, known: Known) {
        self.scheme = self.headers.span_of(known).unwrap_or(self.scheme);
    }

    /// Replaces host and port.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = self.headers.store(authority);
    }

    /// Replaces path and query.
    pub fn set_path(&mut self, path: &[u8]) {
        self.path = self.headers.store(path);
    }

    /// Replaces the protocol of an upgrade.
    pub fn set_protocol(&mut self, protocol: &[u8]) {
        self.protocol = self.headers.store(protocol);
    }

    /// Whether the request asks to become a tunnel: an HTTP/1.1 upgrade, or CONNECT of any kind.
    pub fn wants_tunnel(&self) -> bool {
        self.protocol.ne(&Span::default()) && !self.protocol().is_empty() || self.method() == b"CONNECT"
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method().escape_ascii().to_string())
            .field("authority", &self.authority().escape_ascii().to_string())
            .field("path", &self.path().escape_ascii().to_string())
            .field("version", &self.version)
            .field("headers", &self.headers)
            .finish()
    }
}

/// Status and headers.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// Header fields, without HTTP/2 pseudo-headers.
    pub headers: Headers,
    /// Version that the sender used.
    pub version: Version,
    /// Status code, 100 to 999.
    pub status: u16,
}

impl ResponseHead {
    /// A head without headers.
    pub fn new(status: u16) -> Self {
        Self { headers: Headers::new(), version: Version::H11, status }
    }

    /// Whether the response is interim (1xx, but not 101).
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_target_can_be_replaced() {
        let mut head = RequestHead::new(Version::H11, b"GET", b"http", b"a:80", b"/x/y?q=1");
        assert_eq!((head.path_only(), head.query()), (&b"/x/y"[..], &b"q=1"[..]));
        head.headers.append(b"a", b"b");
        head.set_path(b"/z");
        head.set_authority(b"b");
        assert_eq!((head.path(), head.query(), head.authority()), (&b"/z"[..], &b""[..], &b"b"[..]));
        assert!(!head.wants_tunnel());
        head.set_protocol(b"websocket");
        assert!(head.clone().wants_tunnel());
    }
}
