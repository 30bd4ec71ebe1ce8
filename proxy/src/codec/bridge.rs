//! The differences between HTTP/1 and HTTP/2 messages, in one table.
//!
//! | from → to | head | body |
//! |---|---|---|
//! | h1 → h1 | connection headers out, `Host` first | unknown length → chunked, trailers kept |
//! | h1 → h2 | `Host` → `:authority`, names lower case, `Upgrade` → `:protocol` | chunks → DATA, trailers → HEADERS |
//! | h2 → h1 | `:authority` → `Host`, cookie crumbs joined, `:protocol` → `Upgrade` | DATA → chunks unless length known |
//! | h2 → h2 | pseudo-headers first, connection headers never | DATA and trailers as they are |

use crate::message::{Headers, Known};

/// Removes connection headers and those that `Connection` names (HD-15, RFC 9110 section 7.6.1). `te: trailers` stays.
pub fn strip_connection_headers(headers: &mut Headers) {
    let named: Vec<Box<[u8]>> = headers
        .values_known(Known::Connection)
        .flat_map(|value| value.split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty() && Known::of(name) == Known::Other)
        .map(Into::into)
        .collect();
    for name in &named {
        headers.remove_name(name);
    }
    headers.retain(|name, value| match name.known {
        Known::Connection
        | Known::KeepAlive
        | Known::ProxyConnection
        | Known::TransferEncoding
        | Known::Upgrade
        | Known::Http2Settings => false,
        Known::Te => value.eq_ignore_ascii_case(b"trailers"),
        _ => true,
    });
}

/// Joins cookie crumbs into one field (RFC 9113 section 8.2.3).
pub fn join_cookies(headers: &mut Headers) {
    if headers.values_known(Known::Cookie).nth(1).is_none() {
        return;
    }
    let joined = headers.values_known(Known::Cookie).collect::<Vec<_>>().join(&b"; "[..]);
    headers.set(Known::Cookie, &joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: HD-15
    #[test]
    fn strips_connection_headers_and_what_connection_names() {
        let mut h = Headers::new();
        for (n, v) in [
            ("Connection", "keep-alive, X-Hop"),
            ("X-Hop", "1"),
            ("Keep-Alive", "timeout=5"),
            ("TE", "trailers"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("Proxy-Connection", "x"),
            ("X-Stay", "1"),
        ] {
            h.append(n.as_bytes(), v.as_bytes());
        }
        strip_connection_headers(&mut h);
        let names: Vec<_> = h.iter().map(|(n, _)| n.bytes.to_vec()).collect();
        assert_eq!(names, [b"TE".to_vec(), b"X-Stay".to_vec()]);
        let mut h = Headers::new();
        h.append(b"te", b"gzip");
        strip_connection_headers(&mut h);
        assert!(h.is_empty());
    }

    // spec: HP-1
    #[test]
    fn cookie_crumbs_become_one_field() {
        let mut h = Headers::new();
        h.append(b"cookie", b"a=1");
        h.append(b"x", b"y");
        h.append(b"cookie", b"b=2");
        join_cookies(&mut h);
        assert_eq!(h.values_known(Known::Cookie).collect::<Vec<_>>(), [b"a=1; b=2"]);
    }
}
