//! Signing: a request and a grant become a certificate chain (spec CA-3, CA-4).
//!
//! Of the request only the public key is used. Names, extensions and usages in it are never looked at, so they cannot
//! be signed in.

use crate::ca::policy::Grant;
use crate::ca::root::Authority;
use aws_lc_rs::rand;
use identity::pem;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// How far `notBefore` lies in the past, for clocks that are behind (CA-4).
pub const BACKDATE: Duration = Duration::from_secs(120);
/// Longest request that is looked at, in bytes.
pub const MAX_CSR_BYTES: usize = 32 * 1024;
/// Shortest RSA key that is signed, in bits.
const MIN_RSA_BITS: usize = 2048;

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The request is malformed, not signed by its own key, or has an unacceptable key.
    #[error("invalid CSR: {0}")]
    Csr(String),
    /// The authority's own certificate has ended.
    #[error("the signing certificate has expired")]
    AuthorityExpired,
    /// The crypto library refused.
    #[error("signing failed: {0}")]
    Crypto(rcgen::Error),
}

/// Signs a PKCS#10 request for the granted identity. Gives one PEM text per certificate: the leaf, those above it, and
/// last the root bundle unsplit; each ends with a newline.
///
/// # Errors
/// [`SignError`] says whether request or authority is at fault.
pub fn sign(authority: &Authority, csr_pem: &str, grant: &Grant, now: SystemTime) -> Result<Vec<String>, SignError> {
    let key = public_key(csr_pem)?;
    let mut names = vec![SanType::URI(grant.id.as_str().try_into().map_err(SignError::Crypto)?)];
    for host in &grant.hosts {
        names.push(host_name(host)?);
    }
    let params = leaf_params(authority, names, grant.ttl, now)?;
    let leaf = params.signed_by(&key, authority.issuer()).map_err(SignError::Crypto)?;
    let mut chain = vec![pem::encode_certificate(leaf.der())];
    chain.extend(authority.intermediates().iter().map(pem::encode_certificate));
    chain.push(authority.roots().to_pem());
    Ok(chain)
}

/// A certificate for citadel's own server (CA-17): host names and addresses instead of a SPIFFE id.
///
/// # Errors
/// As [`sign`].
pub fn server_certificate(
    authority: &Authority,
    key: &KeyPair,
    hosts: &[String],
    ttl: Duration,
    now: SystemTime,
) -> Result<Vec<CertificateDer<'static>>, SignError> {
    let names = hosts.iter().map(|host| host_name(host)).collect::<Result<_, _>>()?;
    let params = leaf_params(authority, names, ttl, now)?;
    let leaf = params.signed_by(key, authority.issuer()).map_err(SignError::Crypto)?;
    Ok(std::iter::once(CertificateDer::from(leaf)).chain(authority.intermediates()).collect())
}

/// A host's name or address as a name of a certificate.
fn host_name(host: &str) -> Result<SanType, SignError> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => host.try_into().map(SanType::DnsName).map_err(SignError::Crypto),
    }
}

/// A leaf that only proves that the authority can sign; it is never given away.
pub(crate) fn probe(
    key: &KeyPair,
    authority: &Authority,
    now: SystemTime,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let params = leaf_params(authority, Vec::new(), Duration::from_secs(60), now)
        .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    Ok(params.signed_by(key, authority.issuer())?.into())
}

fn leaf_params(
    authority: &Authority,
    names: Vec<SanType>,
    ttl: Duration,
    now: SystemTime,
) -> Result<CertificateParams, SignError> {
    let signer = authority.signing_life();
    let not_after = (now + ttl).min(signer.not_after);
    if not_after <= now {
        return Err(SignError::AuthorityExpired);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new(); // an empty subject makes the SAN critical
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial().map_err(SignError::Crypto)?);
    params.not_before = (now - BACKDATE).into();
    params.not_after = not_after.into();
    Ok(params)
}

/// A random positive serial number of 127 bits.
pub(crate) fn random_serial() -> Result<SerialNumber, rcgen::Error> {
    let mut bytes = [0u8; 16];
    rand::fill(&mut bytes).map_err(|_| rcgen::Error::RemoteKeyError)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// The public key of a request whose signature proves that the caller has the private half.
fn public_key(csr_pem: &str) -> Result<SubjectPublicKeyInfo, SignError> {
    let bad = |reason: &str| SignError::Csr(reason.to_owned());
    if csr_pem.len() > MAX_CSR_BYTES {
        return Err(bad("longer than 32 KiB"));
    }
    let (_, block) = x509_parser::pem::parse_x509_pem(csr_pem.as_bytes()).map_err(|_| bad("not PEM"))?;
    if block.label != "CERTIFICATE REQUEST" && block.label != "NEW CERTIFICATE REQUEST" {
        return Err(SignError::Csr(format!("PEM block is a {}, not a CERTIFICATE REQUEST", block.label)));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(&block.contents).map_err(|_| bad("not a PKCS#10 request"))?;
    if !rest.is_empty() {
        return Err(bad("bytes after the request"));
    }
    request.verify_signature().map_err(|_| bad("its signature does not verify with its own key"))?;
    let spki = &request.certification_request_info.subject_pki;
    match spki.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < MIN_RSA_BITS => return Err(bad("RSA key shorter than 2048 bits")),
        Ok(PublicKey::RSA(_) | PublicKey::EC(_)) => {}
        _ => return Err(bad("unsupported key: use ECDSA P-256, P-384 or RSA of 2048 bits or more")),
    }
    let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|e| SignError::Csr(format!("unsupported key: {e}")))?;
    debug_assert!(!key.der_bytes().is_empty());
    Ok(key)
}

#[cfg(test)]
mod tests;
