//! A fresh key and the PKCS#10 request for it (RFC 2986), written by hand: the proxy carries no certificate builder.

use crate::pem;
use crate::spiffe::SpiffeId;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use std::fmt;
use zeroize::Zeroizing;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const ATTRIBUTES: u8 = 0xa0;
const URI: u8 = 0x86;
const TRUE: [u8; 3] = [0x01, 0x01, 0xff];
/// 1.2.840.10045.4.3.2, ecdsa-with-SHA256 (RFC 5758).
const OID_ECDSA_SHA256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// 1.2.840.113549.1.9.14, extensionRequest (RFC 2985).
const OID_EXTENSION_REQUEST: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
/// 2.5.29.17, subjectAltName (RFC 5280).
const OID_SUBJECT_ALT_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];

/// The operating system gave no randomness, or the crypto library refused to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("key generation failed in the crypto library")]
pub struct KeyError;

/// A private key as DER. Wiped when dropped, never printed.
pub struct PrivateKey {
    der: Zeroizing<Vec<u8>>,
    form: KeyForm,
}

#[derive(Clone, Copy)]
enum KeyForm {
    Pkcs8,
    Sec1,
    Pkcs1,
}

impl PrivateKey {
    /// Takes over a PKCS#8 document.
    pub fn from_pkcs8(der: Vec<u8>) -> Self {
        Self { der: Zeroizing::new(der), form: KeyForm::Pkcs8 }
    }

    /// Copies a key in any form that PEM files have.
    pub fn from_der(key: &PrivateKeyDer<'_>) -> Self {
        let form = match key {
            PrivateKeyDer::Sec1(_) => KeyForm::Sec1,
            PrivateKeyDer::Pkcs1(_) => KeyForm::Pkcs1,
            _ => KeyForm::Pkcs8,
        };
        Self { der: Zeroizing::new(key.secret_der().to_vec()), form }
    }

    /// The bytes of the document.
    pub fn secret_der(&self) -> &[u8] {
        &self.der
    }

    /// The key as rustls wants it. The copy is not wiped by rustls.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        let der = self.der.to_vec();
        match self.form {
            KeyForm::Pkcs8 => PrivateKeyDer::Pkcs8(der.into()),
            KeyForm::Sec1 => PrivateKeyDer::Sec1(der.into()),
            KeyForm::Pkcs1 => PrivateKeyDer::Pkcs1(der.into()),
        }
    }

    /// The key as PEM text, itself wiped when dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let label = match self.form {
            KeyForm::Pkcs8 => "PRIVATE KEY",
            KeyForm::Sec1 => "EC PRIVATE KEY",
            KeyForm::Pkcs1 => "RSA PRIVATE KEY",
        };
        Zeroizing::new(pem::encode(label, &self.der))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

/// A new key with the request that proves its possession.
#[derive(Debug)]
pub struct Csr {
    /// The key; it never leaves the process that made it.
    pub key: PrivateKey,
    /// The request as PEM text.
    pub pem: String,
}

impl Csr {
    /// Makes an ECDSA P-256 key and a request that names `id` as its only SAN. One key serves one request (CA-23).
    ///
    /// # Errors
    /// [`KeyError`] when the crypto library fails.
    pub fn generate(id: &SpiffeId) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| KeyError)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError)?;
        let key = PrivateKey::from_pkcs8(pkcs8.as_ref().to_vec());
        let spki = pair.public_key().as_der().map_err(|_| KeyError)?;
        let info = request_info(spki.as_ref(), id.as_str());
        let signature = pair.sign(&SystemRandom::new(), &info).map_err(|_| KeyError)?;
        let algorithm = element(SEQUENCE, &[&OID_ECDSA_SHA256]);
        let signature = element(BIT_STRING, &[&[0], signature.as_ref()]);
        let request = element(SEQUENCE, &[&info, &algorithm, &signature]);
        Ok(Self { key, pem: pem::encode("CERTIFICATE REQUEST", &request) })
    }
}

/// `CertificationRequestInfo`: version 0, empty subject, key, and one attribute that asks for the URI SAN.
fn request_info(spki: &[u8], uri: &str) -> Vec<u8> {
    let names = element(SEQUENCE, &[&element(URI, &[uri.as_bytes()])]);
    let san = element(SEQUENCE, &[&OID_SUBJECT_ALT_NAME, &TRUE, &element(OCTET_STRING, &[&names])]);
    let extensions = element(SET, &[&element(SEQUENCE, &[&san])]);
    let attribute = element(SEQUENCE, &[&OID_EXTENSION_REQUEST, &extensions]);
    let version = element(INTEGER, &[&[0]]);
    element(SEQUENCE, &[&version, &element(SEQUENCE, &[]), spki, &element(ATTRIBUTES, &[&attribute])])
}

/// One DER element (X.690, definite length).
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let significant = bytes.iter().skip_while(|b| **b == 0);
        out.push(0x80 | significant.clone().count() as u8);
        out.extend(significant);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer;

    fn parsed(pem: &str, check: impl FnOnce(&X509CertificationRequest<'_>)) {
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        assert_eq!(block.label, "CERTIFICATE REQUEST");
        let (rest, request) = X509CertificationRequest::from_der(&block.contents).unwrap();
        assert!(rest.is_empty());
        check(&request);
    }

    #[test]
    fn the_request_is_signed_by_its_own_key_and_names_the_id() {
        // The second id needs two length bytes, the third three.
        for name in ["reviews".to_owned(), "x".repeat(150), "y".repeat(1500)] {
            let id = SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap();
            let csr = Csr::generate(&id).unwrap();
            parsed(&csr.pem, |request| {
                request.verify_signature().unwrap();
                let names: Vec<_> = request
                    .requested_extensions()
                    .unwrap()
                    .flat_map(|e| match e {
                        ParsedExtension::SubjectAlternativeName(san) => san.general_names.clone(),
                        other => panic!("unexpected extension {other:?}"),
                    })
                    .collect();
                assert_eq!(names, vec![GeneralName::URI(id.as_str())]);
                assert_eq!(request.certification_request_info.subject.iter().count(), 0);
            });
        }
    }

    // spec: CA-23
    #[test]
    fn every_request_has_a_new_key() {
        let id = SpiffeId::parse("spiffe://a/b").unwrap();
        let (one, two) = (Csr::generate(&id).unwrap(), Csr::generate(&id).unwrap());
        assert_ne!(one.key.secret_der(), two.key.secret_der());
    }

    // bar: C4
    #[test]
    fn keys_are_never_printed() {
        let csr = Csr::generate(&SpiffeId::parse("spiffe://a/b").unwrap()).unwrap();
        let printed = format!("{csr:?}");
        assert!(printed.contains("PrivateKey(redacted)"));
        let body: String = csr.key.to_pem().lines().skip(1).take(1).collect();
        assert!(!printed.contains(&body));
    }
}
