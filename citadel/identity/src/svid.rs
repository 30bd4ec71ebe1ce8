//! A certificate chain with its key: what a workload proves itself by (an X.509-SVID, or any server certificate).

use crate::csr::PrivateKey;
use crate::pem::{self, PemError};
use crate::spiffe::SpiffeId;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a chain and a key make no SVID.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// The PEM text is no chain or no key.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The leaf is no X.509 certificate.
    #[error("the leaf certificate is malformed: {0}")]
    Leaf(String),
    /// The key is of a kind that the crypto library does not know, or does not belong to the leaf.
    #[error("the private key does not fit the leaf certificate: {0}")]
    Key(Box<rustls::Error>),
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// First second of validity.
    pub not_before: SystemTime,
    /// Last second of validity.
    pub not_after: SystemTime,
}

impl Lifetime {
    /// The whole length of validity.
    pub fn length(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }
}

/// What the leaf of a chain says about its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafFacts {
    /// The SPIFFE id, where the leaf has exactly one URI SAN and that is one.
    pub id: Option<SpiffeId>,
    /// URI SANs in order.
    pub uris: Vec<String>,
    /// DNS SANs in order.
    pub dns: Vec<String>,
    /// Subject in RFC 2253 style, as Envoy writes it into headers; empty for SVIDs.
    pub subject: String,
    /// When it is valid.
    pub lifetime: Lifetime,
    /// Serial number in lower-case hexadecimal without leading zeros.
    pub serial: String,
    /// SHA-256 of the DER, lower-case hexadecimal.
    pub fingerprint: String,
}

impl LeafFacts {
    /// Reads a certificate; its signature is not checked here.
    ///
    /// # Errors
    /// [`SvidError::Leaf`] for malformed DER.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, SvidError> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| SvidError::Leaf(e.to_string()))?;
        let san = cert.subject_alternative_name().map_err(|e| SvidError::Leaf(e.to_string()))?;
        let names = san.iter().flat_map(|s| &s.value.general_names);
        let (mut uris, mut dns) = (Vec::new(), Vec::new());
        for name in names {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(host) => dns.push((*host).to_owned()),
                _ => {}
            }
        }
        let id = match uris.as_slice() {
            [only] => SpiffeId::parse(only).ok(),
            _ => None,
        };
        let seconds = |t: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(t).unwrap_or(0));
        let validity = cert.validity();
        Ok(Self {
            id,
            uris,
            dns,
            subject: cert.subject().to_string(),
            lifetime: Lifetime {
                not_before: seconds(validity.not_before.timestamp()),
                not_after: seconds(validity.not_after.timestamp()),
            },
            serial: hex(cert.raw_serial()).trim_start_matches('0').to_owned(),
            fingerprint: hex(digest(&SHA256, der).as_ref()),
        })
    }
}

/// A chain (leaf first) with the leaf's key.
#[derive(Debug)]
pub struct Svid {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
    facts: LeafFacts,
    certified: Arc<CertifiedKey>,
}

impl Svid {
    /// Puts a chain (leaf first) and a key together and checks that they fit.
    ///
    /// # Errors
    /// [`SvidError`] for a malformed leaf or a key that does not fit.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, SvidError> {
        let leaf = chain.first().ok_or(SvidError::Pem(PemError::Missing("CERTIFICATE")))?;
        let facts = LeafFacts::read(leaf)?;
        let der = key.to_der();
        let certified =
            CertifiedKey::from_der(chain.clone(), der, &provider()).map_err(|e| SvidError::Key(Box::new(e)))?;
        Ok(Self { chain, key, facts, certified: Arc::new(certified) })
    }

    /// Reads chain and key from PEM. Keys in SEC1 or PKCS#1 form are accepted too.
    ///
    /// # Errors
    /// As [`Svid::new`], or broken PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, SvidError> {
        let chain = pem::certificates(chain)?;
        let der = pem::private_key(key)?;
        let leaf = chain.first().ok_or(SvidError::Pem(PemError::Missing("CERTIFICATE")))?;
        let facts = LeafFacts::read(leaf)?;
        let key = PrivateKey::from_der(&der);
        let certified =
            CertifiedKey::from_der(chain.clone(), der, &provider()).map_err(|e| SvidError::Key(Box::new(e)))?;
        Ok(Self { chain, key, facts, certified: Arc::new(certified) })
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// What the leaf says.
    pub fn facts(&self) -> &LeafFacts {
        &self.facts
    }

    /// Chain and key as rustls wants them.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// The chain as PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(pem::encode_certificate).collect()
    }
}

/// The one crypto provider of the mesh: aws-lc-rs, hybrid post-quantum key exchange preferred (design decision H).
pub fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::Csr;
    use crate::testca::TestCa;

    #[test]
    fn reads_what_a_chain_says() {
        let ca = TestCa::new("cluster.local");
        let leaf = ca.leaf("spiffe://cluster.local/ns/shop/sa/reviews");
        let svid = Svid::from_pem(leaf.chain_pem.as_bytes(), leaf.key_pem.as_bytes()).unwrap();
        assert_eq!(svid.facts().id.as_ref().unwrap().namespace_and_account(), Some(("shop", "reviews")));
        assert_eq!(svid.facts().fingerprint.len(), 64);
        assert_eq!(svid.facts().lifetime.length(), Duration::from_secs(86_400));
        assert_eq!(svid.chain_pem(), leaf.chain_pem);
    }

    #[test]
    fn refuses_a_key_of_someone_else() {
        let leaf = TestCa::new("cluster.local").leaf("spiffe://cluster.local/ns/a/sa/b");
        let other = Csr::generate(&SpiffeId::parse("spiffe://cluster.local/ns/a/sa/b").unwrap()).unwrap();
        let chain = pem::certificates(leaf.chain_pem.as_bytes()).unwrap();
        assert!(matches!(Svid::new(chain, other.key), Err(SvidError::Key(_))));
    }

    #[test]
    fn never_prints_its_key() {
        let leaf = TestCa::new("cluster.local").leaf("spiffe://cluster.local/ns/a/sa/b");
        let svid = Svid::from_pem(leaf.chain_pem.as_bytes(), leaf.key_pem.as_bytes()).unwrap();
        let printed = format!("{svid:?}");
        let numbers: Vec<String> = svid.key().secret_der().iter().rev().take(8).rev().map(u8::to_string).collect();
        assert!(printed.contains("PrivateKey(redacted)"));
        assert!(!printed.contains(&numbers.join(", ")));
    }
}
