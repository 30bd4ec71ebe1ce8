//! HTTP or not: the first line decides (PR-8).

use super::Seen;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A first line that is longer without a line end is taken for HTTP if it began as a request line does.
const MAX_LINE: usize = 8 << 10;

/// `http/1.0`, `http/1.1` or `h2c`; `None` for anything else.
pub(super) fn parse(bytes: &[u8]) -> Seen<Option<&'static [u8]>> {
    if PREFACE.starts_with(bytes.get(..bytes.len().min(PREFACE.len())).unwrap_or_default()) {
        return if bytes.len() >= PREFACE.len() { Seen::Known(Some(b"h2c")) } else { Seen::More };
    }
    let method = bytes.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
    if method == 0 || method > 24 {
        return if bytes.is_empty() { Seen::More } else { Seen::Known(None) };
    }
    match bytes.get(method) {
        None => return Seen::More,
        Some(b' ') => {}
        Some(_) => return Seen::Known(None),
    }
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > MAX_LINE { Seen::Known(Some(b"http/1.1")) } else { Seen::More };
    };
    let line = bytes.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.ends_with(b" HTTP/1.1") {
        Seen::Known(Some(b"http/1.1"))
    } else if line.ends_with(b" HTTP/1.0") {
        Seen::Known(Some(b"http/1.0"))
    } else {
        Seen::Known(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: PR-3, PR-5, PR-8
    #[test]
    fn tells_http_from_the_rest_byte_by_byte() {
        let cases: [(&[u8], Option<&[u8]>); 7] = [
            (b"GET / HTTP/1.1\r\n", Some(b"http/1.1")),
            (b"POST /x HTTP/1.0\r\n", Some(b"http/1.0")),
            (PREFACE, Some(b"h2c")),
            (b"GET / HTTP/9\r\n", None),
            (b"\x16\x03\x01", None),
            (b"EHLO\r\n", None),
            (b"GETX\x00", None),
        ];
        for (bytes, expected) in cases {
            let decided = (0..=bytes.len()).find_map(|n| match parse(&bytes[..n]) {
                Seen::Known(protocol) => Some(protocol),
                Seen::More => None,
            });
            assert_eq!(decided, Some(expected), "{}", bytes.escape_ascii());
        }
    }
}
