//! The signing authority itself: its certificate, the chain above it, the roots that vouch for it, and its key.

use crate::ca::sign;
use identity::bundle::{BundleError, TrustBundle};
use identity::pem::{self, PemError};
use identity::san::SanMatch;
use identity::spiffe::TrustDomain;
use identity::svid::{LeafFacts, Lifetime, SvidError};
use identity::verify::{PeerVerifier, Role, VerifyError};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use zeroize::{Zeroize, Zeroizing};

/// Life of a root that citadel makes for itself (CA-10).
pub const ROOT_TTL: Duration = Duration::from_secs(3650 * 86_400);

/// Why an authority cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A part is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A PEM file is broken.
    #[error("{file}: {source}")]
    Pem {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        source: PemError,
    },
    /// The root file is broken.
    #[error("root-cert.pem: {0}")]
    Roots(#[from] BundleError),
    /// A certificate is malformed.
    #[error("ca-cert.pem: {0}")]
    Certificate(#[from] SvidError),
    /// The key is broken or of an unknown kind.
    #[error("ca-key.pem: {0}: use an unencrypted RSA or ECDSA (P-256, P-384) key")]
    Key(rcgen::Error),
    /// Certificate, chain, roots and key do not belong together.
    #[error("ca-cert.pem does not lead to root-cert.pem, or ca-key.pem does not belong to it: {0}")]
    Chain(VerifyError),
    /// The crypto library refused.
    #[error("cannot make a certificate: {0}")]
    Sign(rcgen::Error),
}

/// The signing key: wiped when dropped, never printed.
pub struct CaKey(KeyPair);

impl CaKey {
    /// A new ECDSA P-256 key.
    ///
    /// # Errors
    /// [`AuthorityError::Key`] when the crypto library fails.
    pub fn generate() -> Result<Self, AuthorityError> {
        KeyPair::generate().map(Self).map_err(AuthorityError::Key)
    }

    /// Reads a key of any supported kind (CA-21).
    ///
    /// # Errors
    /// [`AuthorityError`] for broken PEM or an unknown kind.
    pub fn from_pem(text: &[u8]) -> Result<Self, AuthorityError> {
        let mut der = pem::private_key(text).map_err(|source| AuthorityError::Pem { file: "ca-key.pem", source })?;
        let pair = KeyPair::try_from(&der).map_err(AuthorityError::Key);
        der.zeroize();
        pair.map(Self)
    }

    /// The key as PEM, wiped when dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }
}

impl Drop for CaKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for CaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CaKey(redacted)")
    }
}

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

/// PEM material of an authority, as it lies in files.
#[derive(Debug)]
pub struct Material {
    /// `ca-cert.pem`: the signing certificate.
    pub cert: Vec<u8>,
    /// `ca-key.pem`.
    pub key: CaKey,
    /// `cert-chain.pem`: certificates above it, possibly with itself first; empty for a root.
    pub chain: Vec<u8>,
    /// `root-cert.pem`: all roots.
    pub roots: Vec<u8>,
}

/// An authority that is ready to sign. Immutable: a rotation makes a new one.
pub struct Authority {
    issuer: Issuer<'static, CaKey>,
    cert: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<TrustBundle>,
    signing_life: Lifetime,
    root_life: Lifetime,
}

impl Authority {
    /// Checks the material and makes it ready to sign.
    ///
    /// # Errors
    /// [`AuthorityError`] names the file and what is wrong with it.
    pub fn new(material: Material, now: SystemTime) -> Result<Self, AuthorityError> {
        let read = |file, text: &[u8]| pem::certificates(text).map_err(|source| AuthorityError::Pem { file, source });
        let cert = read("ca-cert.pem", &material.cert)?.swap_remove(0);
        let mut chain = if material.chain.is_empty() { Vec::new() } else { read("cert-chain.pem", &material.chain)? };
        let roots = TrustBundle::from_pem(&material.roots)?;
        chain.retain(|above| *above != cert && !roots.certificates().contains(&above));
        let signing_life = shortest(std::iter::once(&cert).chain(&chain))?;
        let root_life = shortest(roots.certificates().into_iter())?;
        let issuer = Issuer::from_ca_cert_der(&cert, material.key).map_err(AuthorityError::Key)?;
        let authority = Self { issuer, cert, chain, roots: Arc::new(roots), signing_life, root_life };
        authority.prove(now)?;
        Ok(authority)
    }

    /// Signs a throw-away leaf and verifies it as a peer would: that proves chain, CA flags, key and validity at once.
    fn prove(&self, now: SystemTime) -> Result<(), AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Sign)?;
        let probe = sign::probe(&key, self, now).map_err(AuthorityError::Sign)?;
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        PeerVerifier::new(self.roots(), SanMatch::any(), Role::Client)
            .check(&probe, &self.intermediates(), UnixTime::since_unix_epoch(seconds))
            .map_err(AuthorityError::Chain)
    }

    /// What a leaf must carry along so that peers find a root: the signing certificate and those above it, no root.
    pub fn intermediates(&self) -> Vec<CertificateDer<'static>> {
        let is_root = self.roots.certificates().contains(&&self.cert);
        let own = (!is_root).then(|| self.cert.clone());
        own.into_iter().chain(self.chain.iter().cloned()).collect()
    }

    /// Whether another signs with the same certificate, under the same chain and roots.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.cert == other.cert && self.chain == other.chain && self.roots == other.roots
    }

    /// The issuer for rcgen.
    pub(crate) fn issuer(&self) -> &Issuer<'static, CaKey> {
        &self.issuer
    }

    /// All roots.
    pub fn roots(&self) -> Arc<TrustBundle> {
        Arc::clone(&self.roots)
    }

    /// The common life of the signing certificate and the chain above it: no leaf outlives it (CA-10).
    pub fn signing_life(&self) -> Lifetime {
        self.signing_life
    }

    /// The life of the root that ends first.
    pub fn root_life(&self) -> Lifetime {
        self.root_life
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("signing_life", &self.signing_life).finish_non_exhaustive()
    }
}

fn shortest<'a>(certs: impl Iterator<Item = &'a CertificateDer<'static>>) -> Result<Lifetime, AuthorityError> {
    let mut common: Option<Lifetime> = None;
    for cert in certs {
        let life = LeafFacts::read(cert)?.lifetime;
        common = Some(common.map_or(life, |c| Lifetime {
            not_before: c.not_before.max(life.not_before),
            not_after: c.not_after.min(life.not_after),
        }));
    }
    common.ok_or(AuthorityError::Roots(BundleError::Pem(PemError::Missing("CERTIFICATE"))))
}

/// A root of our own, signed by `key`. Rotation calls this again with the same key (CA-11).
///
/// # Errors
/// [`AuthorityError::Sign`] when the crypto library fails.
pub fn self_signed(key: &CaKey, domain: &TrustDomain, now: SystemTime) -> Result<String, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(sign::random_serial().map_err(AuthorityError::Sign)?);
    params.not_before = (now - sign::BACKDATE).into();
    params.not_after = (now + ROOT_TTL).into();
    Ok(params.self_signed(key).map_err(AuthorityError::Sign)?.pem())
}
