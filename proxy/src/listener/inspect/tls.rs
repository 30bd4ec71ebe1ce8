//! Server name and ALPN of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066, RFC 7301), without a TLS library:
//! nothing is verified here, the bytes only choose a filter chain.

use super::Seen;
use crate::listener::chain_match::Hello;

/// Reads a byte string from its front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
    }

    /// A vector with a length of `bytes` bytes in front.
    fn vector(&mut self, bytes: usize) -> Option<Self> {
        let n = self.number(bytes)?;
        self.take(n).map(Reader)
    }
}

/// The hello; `None` where the client does not speak TLS, or sends a hello that no server would take.
pub(super) fn parse(bytes: &[u8]) -> Seen<Option<Hello>> {
    match bytes {
        [] | [0x16] => return Seen::More,
        [0x16, 0x03, ..] => {}
        _ => return Seen::Known(None),
    }
    // The hello may be spread over several records.
    let (mut rest, mut message) = (Reader(bytes), Vec::new());
    loop {
        let (Some(kind), Some(_version)) = (rest.number(1), rest.number(2)) else { return Seen::More };
        let Some(length) = rest.number(2) else { return Seen::More };
        if kind != 0x16 || length == 0 || length > (16 << 10) + 256 {
            return Seen::Known(None);
        }
        let Some(body) = rest.take(length) else { return Seen::More };
        message.extend_from_slice(body);
        let mut reader = Reader(&message);
        if reader.number(1).is_some_and(|kind| kind != 1) {
            return Seen::Known(None);
        }
        let Some(length) = reader.number(3) else { continue };
        if let Some(hello) = reader.take(length) {
            return Seen::Known(Some(
                client_hello(Reader(hello)).unwrap_or_else(|| Hello { tls: true, ..Hello::default() }),
            ));
        }
    }
}

fn client_hello(mut reader: Reader<'_>) -> Option<Hello> {
    let mut hello = Hello { tls: true, ..Hello::default() };
    reader.take(2 + 32)?;
    reader.vector(1)?;
    reader.vector(2)?;
    reader.vector(1)?;
    if reader.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = reader.vector(2)?;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut body = extensions.vector(2)?;
        match kind {
            0 => {
                let mut names = body.vector(2)?;
                while !names.0.is_empty() {
                    let kind = names.number(1)?;
                    let name = names.vector(2)?;
                    if kind == 0 && name.0.is_ascii() {
                        hello.sni = String::from_utf8_lossy(name.0).to_ascii_lowercase();
                    }
                }
            }
            16 => {
                let mut protocols = body.vector(2)?;
                while !protocols.0.is_empty() {
                    hello.applications.push(protocols.vector(1)?.0.to_vec());
                }
            }
            _ => {}
        }
    }
    Some(hello)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn rustls_hello(sni: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(identity::svid::provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let name = sni.to_owned().try_into().expect("name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("client");
        let mut out = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut out).expect("vec");
        }
        out
    }

    // spec: XT-2, MT-3, GW-21
    #[test]
    fn reads_server_name_and_protocols_of_a_real_hello_byte_by_byte() {
        let bytes = rustls_hello("Reviews.Default.svc", &[b"istio-http/1.1", b"istio"]);
        for n in 0..bytes.len() {
            assert_eq!(parse(&bytes[..n]), Seen::More, "after {n} of {}", bytes.len());
        }
        let Seen::Known(Some(hello)) = parse(&bytes) else { panic!("no hello") };
        assert!(hello.tls && hello.sni == "reviews.default.svc");
        assert_eq!(hello.applications, [b"istio-http/1.1".to_vec(), b"istio".to_vec()]);
    }

    #[test]
    fn other_first_bytes_are_no_tls_and_garbage_never_panics() {
        assert_eq!(parse(b"GET / HTTP/1.1"), Seen::Known(None));
        assert_eq!(parse(&[0x16, 0x02, 0, 0, 1, 1]), Seen::Known(None));
        let bytes = rustls_hello("a", &[b"h2"]);
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2000 {
            let mut broken = bytes.clone();
            for _ in 0..4 {
                let at = random.usize(..broken.len());
                broken[at] = random.u8(..);
            }
            let _ = parse(&broken);
        }
    }
}
