//! Server sessions: what this proxy accepts, and what it learns of the peer.

use crate::net::{CertFacts, Io, PeerFacts, Session, TlsFacts, TlsIo};
use arc_swap::ArcSwapOption;
use bytes::BytesMut;
use identity::crl::Revocations;
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// TLS of one filter chain (`DownstreamTlsContext`). Replaced by the main thread when a secret rotates.
#[derive(Debug)]
pub struct ServerContext {
    /// `None` until the certificate arrives. Written by the main thread only.
    pub ready: ArcSwapOption<ServerReady>,
}

/// A server configuration with what is known of its own certificate.
#[derive(Debug)]
pub struct ServerReady {
    /// The configuration.
    pub config: Arc<ServerConfig>,
    /// The same without ALPN, for clients that offer only what is not negotiated (`istio`; MT-2): rustls would refuse
    /// them, Envoy goes on without a protocol.
    pub without_alpn: Arc<ServerConfig>,
    /// The first certificate.
    pub local: Option<CertFacts>,
    /// Which clients are revoked.
    pub revoked: Option<Arc<Revocations>>,
}

impl ServerReady {
    /// The configuration for a client that offers these protocols.
    fn config_for(&self, offered: &[Vec<u8>]) -> Arc<ServerConfig> {
        let common = offered.is_empty() || offered.iter().any(|protocol| self.config.alpn_protocols.contains(protocol));
        Arc::clone(if common { &self.config } else { &self.without_alpn })
    }
}

impl ServerContext {
    /// Accepts a session on `tcp`, of which `prefix` was read already, from a client that was seen to offer the ALPN
    /// protocols `offered`; notes in `facts` what it learns.
    ///
    /// # Errors
    /// The handshake's failure, or that no certificate has arrived yet. Cancel-safe: the connection is dropped.
    pub async fn accept(
        &self,
        tcp: TcpStream,
        prefix: BytesMut,
        offered: &[Vec<u8>],
        facts: &mut PeerFacts,
    ) -> io::Result<Io> {
        let ready = self.ready.load_full().ok_or_else(|| io::Error::other("no certificate yet"))?;
        let session = ServerConnection::new(ready.config_for(offered)).map_err(io::Error::other)?;
        let mut tls = Box::new(TlsIo::new(tcp, Session::Server(session), prefix));
        poll_fn(|cx| tls.poll_handshake(cx)).await?;
        let state = tls.session();
        facts.alpn = state.alpn_protocol().unwrap_or_default().into();
        facts.tls = Some(TlsFacts {
            version: match state.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "",
            },
            cipher: cipher(state.negotiated_cipher_suite()),
            peer: state.peer_certificates().and_then(|chain| chain.first()).and_then(cert_facts),
            local: ready.local.clone(),
        });
        Ok(Io::Tls(tls))
    }
}

/// The suite as OpenSSL, and so Envoy's log, names it.
fn cipher(suite: Option<rustls::SupportedCipherSuite>) -> Box<str> {
    let Some(suite) = suite else { return "".into() };
    let name = format!("{:?}", suite.suite());
    match name.strip_prefix("TLS13_") {
        Some(rest) => format!("TLS_{rest}").into(),
        None => name.trim_start_matches("TLS_").replace("_WITH_", "_").replace('_', "-").into(),
    }
}

/// What policies, headers and logs need of a certificate; `None` where it cannot be read.
pub fn cert_facts(der: &CertificateDer<'_>) -> Option<CertFacts> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let mut facts = CertFacts {
        subject: rfc2253(cert.subject()),
        issuer: rfc2253(cert.issuer()),
        serial: hex(cert.raw_serial()),
        sha256: hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref()),
        not_before: cert.validity().not_before.timestamp(),
        not_after: cert.validity().not_after.timestamp(),
        der: der.as_ref().into(),
        ..CertFacts::default()
    };
    let names = cert.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|san| &san.value.general_names) {
        match name {
            GeneralName::URI(uri) => facts.uri_sans.push((*uri).into()),
            GeneralName::DNSName(dns) => facts.dns_sans.push((*dns).into()),
            _ => {}
        }
    }
    Some(facts)
}

/// RFC 2253: the last attribute first, comma separated.
fn rfc2253(name: &x509_parser::x509::X509Name<'_>) -> Box<str> {
    let registry = x509_parser::objects::oid_registry();
    let parts = name.iter_attributes().map(|attribute| {
        let kind = registry.get(attribute.attr_type()).map_or("", |entry| entry.sn());
        let short = match kind {
            "commonName" => "CN",
            "organizationName" => "O",
            "organizationalUnit" => "OU",
            "countryName" => "C",
            "stateOrProvinceName" => "ST",
            "localityName" => "L",
            other => other,
        };
        format!("{short}={}", attribute.as_str().unwrap_or_default())
    });
    let mut parts: Vec<_> = parts.collect();
    parts.reverse();
    parts.join(",").into()
}

fn hex(bytes: &[u8]) -> Box<str> {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}
