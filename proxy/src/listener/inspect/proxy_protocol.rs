//! PROXY protocol, versions 1 and 2 (HP-16).

use super::{Proxied, Seen};
use bytes::{Buf, BytesMut};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1, line end included.
const MAX_V1: usize = 107;
/// Longest header of version 2 that is taken, its type-length-values included.
const MAX_V2: usize = 4 << 10;

/// Takes the header off the front of `bytes`. `optional`: connections without one are let through.
///
/// # Errors
/// A broken header, or none where it is needed.
pub(super) fn parse(bytes: &mut BytesMut, optional: bool) -> io::Result<Seen<Proxied>> {
    let known = |prefix: &[u8]| prefix.starts_with(bytes.get(..bytes.len().min(prefix.len())).unwrap_or_default());
    if known(V2) {
        return if bytes.len() < V2.len() + 4 { Ok(Seen::More) } else { version2(bytes) };
    }
    if known(b"PROXY ") {
        return version1(bytes);
    }
    if optional { Ok(Seen::Known(None)) } else { Err(bad("a PROXY header is needed")) }
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("PROXY protocol: {why}"))
}

fn version1(bytes: &mut BytesMut) -> io::Result<Seen<Proxied>> {
    let Some(end) = memchr::memchr(b'\n', bytes.get(..bytes.len().min(MAX_V1)).unwrap_or_default()) else {
        return if bytes.len() >= MAX_V1 { Err(bad("line too long")) } else { Ok(Seen::More) };
    };
    let line = bytes.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").ok_or_else(|| bad("bare line feed"))?;
    let line = std::str::from_utf8(line).map_err(|_| bad("not ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Seen::Known(None));
    }
    let mut ip = || words.next().and_then(|text| text.parse::<IpAddr>().ok()).ok_or_else(|| bad("address"));
    let (source, destination) = (ip()?, ip()?);
    let mut port = || words.next().and_then(|text| text.parse::<u16>().ok()).ok_or_else(|| bad("port"));
    let (source_port, destination_port) = (port()?, port()?);
    let fits = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    if !fits || words.next().is_some() {
        return Err(bad("family"));
    }
    Ok(Seen::Known(Some((SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port)))))
}

fn version2(bytes: &mut BytesMut) -> io::Result<Seen<Proxied>> {
    let head: [u8; 4] =
        bytes.get(V2.len()..V2.len() + 4).and_then(|b| b.try_into().ok()).ok_or_else(|| bad("short"))?;
    let [version_command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version_command >> 4 != 2 || version_command & 0xf > 1 || length > MAX_V2 {
        return Err(bad("version, command or length"));
    }
    if bytes.len() < V2.len() + 4 + length {
        return Ok(Seen::More);
    }
    bytes.advance(V2.len() + 4);
    let body = bytes.split_to(length);
    if version_command & 0xf == 0 {
        return Ok(Seen::Known(None));
    }
    let port = |at: usize| body.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes);
    let proxied = match family {
        0x11 => {
            let ip = |at: usize| {
                body.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(|b| IpAddr::V4(Ipv4Addr::from(b)))
            };
            (ip(0), port(8), ip(4), port(10))
        }
        0x21 => {
            let ip = |at: usize| {
                body.get(at..at + 16).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(|b| IpAddr::V6(Ipv6Addr::from(b)))
            };
            (ip(0), port(32), ip(16), port(34))
        }
        // Families without addresses of ours: the socket's own stand.
        _ => return Ok(Seen::Known(None)),
    };
    match proxied {
        (Some(source), Some(source_port), Some(destination), Some(destination_port)) => {
            let ends = (SocketAddr::new(source, source_port), SocketAddr::new(destination, destination_port));
            Ok(Seen::Known(Some(ends)))
        }
        _ => Err(bad("addresses are missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes: &[u8], optional: bool) -> io::Result<(Option<Proxied>, Vec<u8>)> {
        let mut buf = BytesMut::from(bytes);
        match parse(&mut buf, optional)? {
            Seen::Known(proxied) => Ok((Some(proxied), buf.to_vec())),
            Seen::More => Ok((None, buf.to_vec())),
        }
    }

    // spec: HP-16
    #[test]
    fn reads_both_versions_and_leaves_what_follows() {
        let (proxied, rest) = run(b"PROXY TCP4 1.2.3.4 5.6.7.8 99 80\r\nGET", false).expect("valid");
        let ends = (([1, 2, 3, 4], 99).into(), ([5, 6, 7, 8], 80).into());
        assert_eq!((proxied, rest.as_slice()), (Some(Some(ends)), &b"GET"[..]));
        assert_eq!(run(b"PROXY UNKNOWN whatever\r\n", false).expect("valid").0, Some(None));
        let v2 = [V2, &[0x21, 0x11, 0, 14], &[1, 2, 3, 4, 5, 6, 7, 8, 0, 99, 0, 80], &[4, 0], b"GET"].concat();
        assert_eq!(run(&v2, false).expect("valid"), (Some(Some(ends)), b"GET".to_vec()));
        for n in 0..v2.len() - 3 {
            assert_eq!(run(&v2[..n], false).expect("incomplete").0, None, "{n}");
        }
        let local = [V2, &[0x20, 0, 0, 0]].concat();
        assert_eq!(run(&local, false).expect("valid").0, Some(None));
        assert_eq!(run(b"GET / HTTP/1.1", true).expect("let through").0, Some(None));
        for bad in [
            &b"GET / HTTP/1.1"[..],
            b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            &[V2, &[0x31, 0x11, 0, 0]].concat(),
            &[V2, &[0x21, 0x11, 0, 2, 0, 0]].concat(),
        ] {
            assert!(run(bad, false).is_err(), "{}", bad.escape_ascii());
        }
    }
}
