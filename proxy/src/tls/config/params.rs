//! `TlsParameters` → versions, cipher suites and curves.

use crate::refusal::Refusal;
use identity::svid::provider;
use proto::envoy::tls::{TlsParameters, tls_parameters::TlsProtocol};
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SupportedProtocolVersion};

/// Versions, cipher suites and curves of a context. TLS below 1.2 is not offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params {
    only_tls13: bool,
    only_tls12: bool,
    /// Those of TLS 1.2 in order; empty: all. As in Envoy, those of TLS 1.3 are not configured.
    suites: Vec<CipherSuite>,
    /// In order; empty: all.
    curves: Vec<NamedGroup>,
}

/// OpenSSL's names of what is offered.
const SUITES: [(&str, CipherSuite); 6] = [
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

const CURVES: [(&str, NamedGroup); 4] = [
    ("X25519MLKEM768", NamedGroup::X25519MLKEM768),
    ("X25519", NamedGroup::X25519),
    ("P-256", NamedGroup::secp256r1),
    ("P-384", NamedGroup::secp384r1),
];

impl Params {
    /// Reads the parameters.
    ///
    /// # Errors
    /// The field that is wrong or not supported.
    pub fn parse(written: Option<&TlsParameters>) -> Result<Self, Refusal> {
        let Some(written) = written else { return Ok(Self::default()) };
        if !written.signature_algorithms.is_empty() {
            return Err(Refusal::unsupported("signature_algorithms"));
        }
        if !written.compliance_policies.is_empty() {
            return Err(Refusal::unsupported("compliance_policies"));
        }
        let only_tls13 = written.tls_minimum_protocol_version == i32::from(TlsProtocol::TlSv13);
        let max = TlsProtocol::try_from(written.tls_maximum_protocol_version).unwrap_or(TlsProtocol::TlsAuto);
        match max {
            TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
                return Err(Refusal::new("tls_maximum_protocol_version", "TLS below 1.2 is not offered"));
            }
            TlsProtocol::TlSv12 if only_tls13 => {
                return Err(Refusal::new("tls_maximum_protocol_version", "is below the minimum"));
            }
            _ => {}
        }
        Ok(Self {
            only_tls13,
            only_tls12: max == TlsProtocol::TlSv12,
            suites: suites(&written.cipher_suites)?,
            curves: curves(&written.ecdh_curves)?,
        })
    }

    /// The provider with what these parameters leave of it, in their order.
    pub fn provider(&self) -> CryptoProvider {
        let mut provider = provider();
        if !self.suites.is_empty() {
            let place = |suite: &rustls::SupportedCipherSuite| {
                let older = suite.version().version == ProtocolVersion::TLSv1_2;
                if older { self.suites.iter().position(|s| *s == suite.suite()).map(|at| at + 1) } else { Some(0) }
            };
            provider.cipher_suites.retain(|suite| place(suite).is_some());
            provider.cipher_suites.sort_by_key(place);
        }
        if !self.curves.is_empty() {
            let place = |curve: NamedGroup| self.curves.iter().position(|c| *c == curve);
            provider.kx_groups.retain(|group| place(group.name()).is_some());
            provider.kx_groups.sort_by_key(|group| place(group.name()));
        }
        provider
    }

    /// The versions, best first.
    pub fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
        match (self.only_tls13, self.only_tls12) {
            (true, _) => BOTH.get(..1).unwrap_or(&BOTH),
            (_, true) => BOTH.get(1..).unwrap_or(&BOTH),
            _ => &BOTH,
        }
    }
}

/// Names as Envoy takes them: `[A|B]` are of equal preference. Suites without forward secrecy, which Istio lists too,
/// are never offered; a list of nothing else is refused.
fn suites(written: &[String]) -> Result<Vec<CipherSuite>, Refusal> {
    let names = written.iter().flat_map(|name| name.trim_matches(['[', ']']).split('|'));
    let known: Vec<CipherSuite> =
        names.filter_map(|name| SUITES.iter().find(|(known, _)| *known == name)).map(|(_, suite)| *suite).collect();
    if known.is_empty() && !written.is_empty() {
        return Err(Refusal::new("cipher_suites", format!("none of {} is offered", written.join(", "))));
    }
    Ok(known)
}

fn curves(written: &[String]) -> Result<Vec<NamedGroup>, Refusal> {
    let of = |name: &String| {
        let found = CURVES.iter().find(|(known, _)| known == name);
        found.map(|(_, curve)| *curve).ok_or_else(|| Refusal::unsupported(format!("ecdh_curves: {name}")))
    };
    written.iter().map(of).collect()
}
