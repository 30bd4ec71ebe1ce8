//! PEM text to DER and back (RFC 7468).

use base64::Engine;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why PEM text could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The text has no block of the kind asked for.
    #[error("no PEM block of type {0} found")]
    Missing(&'static str),
    /// A block is broken.
    #[error("broken PEM block of type {kind}: {reason}")]
    Broken {
        /// What was looked for.
        kind: &'static str,
        /// What the parser said; never the content of the block.
        reason: String,
    },
}

/// All certificates of a PEM text, in order; at least one.
///
/// # Errors
/// [`PemError`] where there is none or one is broken.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let broken = |e: rustls_pki_types::pem::Error| PemError::Broken { kind: "CERTIFICATE", reason: e.to_string() };
    let found: Vec<_> = CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(broken)?;
    if found.is_empty() { Err(PemError::Missing("CERTIFICATE")) } else { Ok(found) }
}

/// The first private key of a PEM text (PKCS#8, SEC1 or PKCS#1).
///
/// # Errors
/// [`PemError`] where there is none or it is broken.
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|e| match e {
        rustls_pki_types::pem::Error::NoItemsFound => PemError::Missing("PRIVATE KEY"),
        other => PemError::Broken { kind: "PRIVATE KEY", reason: other.to_string() },
    })
}

/// Writes one PEM block with lines of 64 characters and a trailing newline.
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 64);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Writes one certificate.
pub fn encode_certificate(der: &CertificateDer<'_>) -> String {
    encode("CERTIFICATE", der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for size in [1usize, 47, 48, 49, 96, 1000] {
            let der: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let text = encode("CERTIFICATE", &der);
            assert!(text.ends_with("-----END CERTIFICATE-----\n") && !text.contains("\n\n"));
            assert_eq!(certificates(text.as_bytes()).unwrap()[0].as_ref(), der.as_slice());
        }
    }

    #[test]
    fn says_what_is_missing() {
        assert!(matches!(certificates(b"nothing"), Err(PemError::Missing("CERTIFICATE"))));
        assert!(matches!(private_key(b"nothing"), Err(PemError::Missing("PRIVATE KEY"))));
        let broken = "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n";
        assert!(matches!(certificates(broken.as_bytes()), Err(PemError::Broken { .. })));
    }
}
