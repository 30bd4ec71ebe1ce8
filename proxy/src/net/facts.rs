//! What is known of the two ends of a downstream connection once it is accepted.

use percent_encoding::{AsciiSet, CONTROLS};
use std::net::SocketAddr;

/// What of a PEM text Envoy encodes in headers and logs: all that its base64 and line ends have and a URL takes otherwise.
const PEM_ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'+').add(b'/').add(b'=');

/// Addresses and identities of one downstream connection; fixed for its life.
#[derive(Debug, Clone)]
pub struct PeerFacts {
    /// Number of the connection within this process.
    pub id: u64,
    /// Address of the socket's other end.
    pub direct_remote: SocketAddr,
    /// The client's address: the socket's other end, or what PROXY protocol says.
    pub remote: SocketAddr,
    /// The address that the client dialled: the original destination where traffic was redirected, else the socket's own.
    pub local: SocketAddr,
    /// Server name of the TLS hello; empty if none.
    pub sni: Box<str>,
    /// ALPN that was negotiated; empty if none.
    pub alpn: Box<[u8]>,
    /// TLS facts where this proxy terminated TLS.
    pub tls: Option<TlsFacts>,
    /// Name of the filter chain that took the connection.
    pub filter_chain: Box<str>,
}

impl PeerFacts {
    /// Facts of a plaintext connection.
    pub fn plain(id: u64, remote: SocketAddr, local: SocketAddr) -> Self {
        Self {
            id,
            direct_remote: remote,
            remote,
            local,
            sni: "".into(),
            alpn: Box::default(),
            tls: None,
            filter_chain: "".into(),
        }
    }

    /// First URI SAN of this proxy's own certificate.
    pub fn local_id(&self) -> Option<&str> {
        self.tls.as_ref().and_then(|tls| tls.local.as_ref()).and_then(|cert| cert.uri_sans.first()).map(|san| &**san)
    }

    /// Whether the client and this proxy have proven to each other who they are in the mesh.
    pub fn is_mutual(&self) -> bool {
        self.peer_id().is_some() && self.local_id().is_some()
    }

    /// First URI SAN of the client's certificate: the peer's SPIFFE id (spec MT-9).
    pub fn peer_id(&self) -> Option<&str> {
        self.tls.as_ref().and_then(|tls| tls.peer.as_ref()).and_then(|cert| cert.uri_sans.first()).map(|san| &**san)
    }
}

/// Facts of a TLS session that this proxy is an end of.
#[derive(Debug, Clone, Default)]
pub struct TlsFacts {
    /// `TLSv1.3` and the like, as Envoy prints it.
    pub version: &'static str,
    /// Cipher suite as OpenSSL names it.
    pub cipher: Box<str>,
    /// The peer's certificate, verified; none where the peer sent none.
    pub peer: Option<CertFacts>,
    /// This proxy's certificate.
    pub local: Option<CertFacts>,
}

/// What policies, headers and logs need of a certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertFacts {
    /// URI SANs in order.
    pub uri_sans: Vec<Box<str>>,
    /// DNS SANs in order.
    pub dns_sans: Vec<Box<str>>,
    /// Subject, RFC 2253 form.
    pub subject: Box<str>,
    /// Issuer, RFC 2253 form.
    pub issuer: Box<str>,
    /// Serial number in lower-case hex.
    pub serial: Box<str>,
    /// SHA-256 of the DER in lower-case hex.
    pub sha256: Box<str>,
    /// Start of validity, seconds since 1970.
    pub not_before: i64,
    /// End of validity, seconds since 1970.
    pub not_after: i64,
    /// The certificate itself, DER.
    pub der: Box<[u8]>,
}

impl CertFacts {
    /// The certificate as URL-encoded PEM, byte for byte as Envoy writes it.
    pub fn url_encoded_pem(&self) -> String {
        let pem = identity::pem::encode_certificate(&self.der.to_vec().into());
        percent_encoding::utf8_percent_encode(&pem, PEM_ENCODED).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: MT-9
    #[test]
    fn an_identity_is_the_first_uri_of_a_certificate_and_plaintext_has_none() {
        let cert = |uris: &[&str]| {
            Some(CertFacts {
                uri_sans: uris.iter().map(|uri| (*uri).into()).collect(),
                dns_sans: vec!["a.test".into()],
                subject: "CN=a".into(),
                ..CertFacts::default()
            })
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut facts = PeerFacts::plain(1, address, address);
        assert_eq!((facts.peer_id(), facts.local_id()), (None, None));
        let (ours, theirs) =
            (cert(&["spiffe://td/ns/b/sa/b"]), cert(&["spiffe://td/ns/a/sa/a", "spiffe://td/ns/x/sa/x"]));
        facts.tls = Some(TlsFacts { peer: theirs, local: ours, ..TlsFacts::default() });
        assert_eq!(facts.peer_id(), Some("spiffe://td/ns/a/sa/a"));
        assert_eq!(facts.local_id(), Some("spiffe://td/ns/b/sa/b"));
        facts.tls = Some(TlsFacts { peer: cert(&[]), ..TlsFacts::default() });
        assert_eq!(facts.peer_id(), None, "a DNS name or a subject is no identity");
    }
}
