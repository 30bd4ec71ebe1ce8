//! One canonical path and host, computed once and seen by routes, policies, metrics and the upstream (HD-17, HD-18,
//! AZ-21).

use super::config::{EscapedSlashes, HcmConfig, PathRules};
use crate::message::{RequestHead, Version};
use crate::outcome::{Outcome, Reason};

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Continue,
    /// The client is sent to the canonical path.
    Redirect(Vec<u8>),
    /// It is refused.
    Refuse(Outcome),
}

/// Makes path and host canonical.
pub(super) fn request(head: &mut RequestHead, config: &HcmConfig) -> Verdict {
    if config.refuse_http10 && head.version == Version::H10 {
        return Verdict::Refuse(Reason::LowVersion.into());
    }
    if config.refuse_underscores && head.headers.iter().any(|(name, _)| name.bytes.contains(&b'_')) {
        return Verdict::Refuse(Outcome::malformed("http1.unexpected_underscore"));
    }
    host(head, config);
    if head.path().is_empty() || head.path() == b"*" {
        return Verdict::Continue;
    }
    let path = head.path_only();
    if is_canonical(path, config.path) {
        return Verdict::Continue;
    }
    let query_at = path.len();
    let (canonical, redirect) = match path_of(path, config.path) {
        Ok(done) => done,
        Err(outcome) => return Verdict::Refuse(outcome),
    };
    let Some(mut canonical) = canonical else { return Verdict::Continue };
    canonical.extend_from_slice(head.path().get(query_at..).unwrap_or_default());
    if redirect {
        return Verdict::Redirect(canonical);
    }
    head.set_path(&canonical);
    Verdict::Continue
}

/// Whether a path plainly needs no work, as nearly all do.
fn is_canonical(path: &[u8], rules: PathRules) -> bool {
    let doubtful = |pair: &[u8]| match pair {
        [b'/', b'.'] => true,
        [b'/', b'/'] => rules.merge_slashes,
        _ => false,
    };
    !path.iter().any(|byte| matches!(byte, b'%' | b'\\')) && !path.windows(2).any(doubtful)
}

fn host(head: &mut RequestHead, config: &HcmConfig) {
    let authority = head.authority();
    let port_at = match authority.iter().rposition(|b| *b == b':') {
        Some(at) if authority.get(at..).is_some_and(|port| !port.contains(&b']')) => at,
        _ => authority.len(),
    };
    let (name, port) = authority.split_at(port_at);
    let dotless = if config.strip_trailing_dot { name.strip_suffix(b".").unwrap_or(name) } else { name };
    let port = if config.strip_host_port.0 { b"" } else { port };
    if dotless.len() + port.len() != authority.len() && !dotless.is_empty() {
        let canonical = [dotless, port].concat();
        head.set_authority(&canonical);
    }
}

/// The canonical path, where it differs, and whether the client is to be redirected there.
fn path_of(path: &[u8], rules: PathRules) -> Result<(Option<Vec<u8>>, bool), Outcome> {
    let escaped = has_escaped_slash(path);
    let mut redirect = false;
    let mut current = std::borrow::Cow::Borrowed(path);
    if escaped {
        match rules.escaped_slashes {
            EscapedSlashes::Keep => {}
            EscapedSlashes::Reject => return Err(Outcome::malformed("path_normalization_failed")),
            EscapedSlashes::UnescapeAndForward => current = unescape_slashes(&current).into(),
            EscapedSlashes::UnescapeAndRedirect => {
                current = unescape_slashes(&current).into();
                redirect = true;
            }
        }
    }
    if rules.normalize {
        current = dots(&unreserved(&current)).ok_or_else(|| Outcome::malformed("path_normalization_failed"))?.into();
    }
    if rules.merge_slashes {
        current = merge(&current).into();
    }
    let changed = *current != *path;
    Ok((changed.then(|| current.into_owned()), redirect && changed))
}

fn escape_at(path: &[u8], at: usize) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    match path.get(at..at + 3)? {
        [b'%', high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

fn has_escaped_slash(path: &[u8]) -> bool {
    (0..path.len()).any(|at| matches!(escape_at(path, at), Some(b'/' | b'\\')))
}

fn decode(path: &[u8], which: impl Fn(u8) -> bool) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(path.len()), 0);
    while let Some(byte) = path.get(at) {
        match escape_at(path, at).filter(|byte| which(*byte)) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

fn unescape_slashes(path: &[u8]) -> Vec<u8> {
    decode(path, |byte| matches!(byte, b'/' | b'\\'))
}

/// Escapes of unreserved characters mean the characters themselves (RFC 3986 section 6.2.2.2).
fn unreserved(path: &[u8]) -> Vec<u8> {
    let mut plain = decode(path, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'));
    // A backslash is a slash to every browser and to many servers (Envoy maps it as well).
    plain.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
    plain
}

/// Removes dot segments (RFC 3986 section 5.2.4); `None` where a path would climb above its root.
fn dots(path: &[u8]) -> Option<Vec<u8>> {
    if !path.windows(2).any(|pair| pair == b"/.") {
        return Some(path.to_vec());
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut parts = path.split(|b| *b == b'/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            b"." | b".." => {
                if part == b".." {
                    segments.pop()?;
                }
                if last {
                    segments.push(b"");
                }
            }
            other => segments.push(other),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    Some(out)
}

fn merge(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for byte in path {
        if *byte != b'/' || out.last() != Some(&b'/') {
            out.push(*byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::RouteTable;
    use std::sync::Arc;

    fn run(path: &str, host: &str, rules: PathRules) -> (Verdict, String, String) {
        let plain = HcmConfig::plain(Arc::new([]), Arc::new(RouteTable::default())).expect("valid");
        let config = HcmConfig { path: rules, ..plain };
        let mut head = RequestHead::new(Version::H11, b"GET", b"http", host.as_bytes(), path.as_bytes());
        let verdict = request(&mut head, &config);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (verdict, text(head.path()), text(head.authority()))
    }

    const BASE: PathRules = PathRules { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };

    // spec: HD-17, AZ-21
    #[test]
    fn paths_become_canonical() {
        let rows = [
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2e/b?x=/../y", "/b?x=/../y"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/%61dmin", "/admin"),
            ("/a%2fb", "/a%2fb"),
            ("/a\\..\\b", "/b"),
            ("/a//b", "/a//b"),
            ("/a/..;/b", "/a/..;/b"),
        ];
        for (path, expected) in rows {
            assert_eq!(run(path, "h", BASE), (Verdict::Continue, expected.to_owned(), "h".to_owned()), "{path}");
        }
        assert!(matches!(run("/a/../../b", "h", BASE).0, Verdict::Refuse(_)));
        let merge = PathRules { merge_slashes: true, ..BASE };
        assert_eq!(run("//a///b", "h", merge).1, "/a/b");
        let forward = PathRules { escaped_slashes: EscapedSlashes::UnescapeAndForward, ..BASE };
        assert_eq!(run("/a%2F..%5cb", "h", forward).1, "/b");
        let redirect = PathRules { escaped_slashes: EscapedSlashes::UnescapeAndRedirect, ..BASE };
        assert_eq!(run("/a%2fb?q", "h", redirect).0, Verdict::Redirect(b"/a/b?q".to_vec()));
        let reject = PathRules { escaped_slashes: EscapedSlashes::Reject, ..BASE };
        assert!(matches!(run("/a%2fb", "h", reject).0, Verdict::Refuse(_)));
    }

    // spec: HD-18
    #[test]
    fn a_trailing_dot_of_the_host_is_dropped() {
        assert_eq!(run("/", "a.b.", BASE).2, "a.b");
        assert_eq!(run("/", "a.b.:80", BASE).2, "a.b:80");
        assert_eq!(run("/", "[::1]:80", BASE).2, "[::1]:80");
    }
}
