//! What a store of an authority holds, by Istio's file names; pure (spec CA-12, CA-13).
//!
//! `ca-cert.pem`, `ca-key.pem`, `root-cert.pem` and, for an intermediate, `cert-chain.pem`; or cert-manager's `tls.crt`,
//! `tls.key`, `ca.crt`. A root that citadel made itself is marked by `istio-generated`; only such a root is rotated.

use crate::ca::root::{Authority, AuthorityError, CaKey, Material, self_signed};
use identity::spiffe::TrustDomain;
use std::collections::BTreeMap;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// The signing certificate.
pub(super) const CERT: &str = "ca-cert.pem";
/// Its key.
pub(super) const KEY: &str = "ca-key.pem";
/// Certificates above it.
pub(super) const CHAIN: &str = "cert-chain.pem";
/// All roots.
pub(super) const ROOTS: &str = "root-cert.pem";
/// Marks a root that citadel made.
pub(super) const GENERATED: &str = "istio-generated";
/// cert-manager's names of certificate with chain, key, and root.
pub(super) const MANAGER: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Names with what stands under them. Wiped when dropped.
#[derive(Default, Clone)]
pub struct Contents(BTreeMap<String, Zeroizing<Vec<u8>>>);

impl Contents {
    /// A new root of our own, marked as such.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn generate(domain: &TrustDomain, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = CaKey::generate()?;
        let cert = self_signed(&key, domain, now)?;
        let mut contents = Self::default();
        contents.insert(KEY, key.to_pem().as_bytes().to_vec());
        contents.insert(GENERATED, Vec::new());
        contents.insert(ROOTS, cert.clone().into_bytes());
        contents.insert(CERT, cert.into_bytes());
        Ok(contents)
    }

    /// Sets what stands under a name.
    pub fn insert(&mut self, name: &str, bytes: Vec<u8>) {
        self.0.insert(name.to_owned(), Zeroizing::new(bytes));
    }

    /// What stands under a name; what is empty, as in the secrets that Istio makes, is not there.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(|bytes| bytes.as_slice()).filter(|bytes| !bytes.is_empty())
    }

    /// All names with what stands under them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// Whether there is a signing certificate, so that none may be made.
    pub fn holds_authority(&self) -> bool {
        self.get(CERT).is_some() || self.get(MANAGER[0]).is_some()
    }

    /// Whether citadel made the root itself, and so may replace it.
    pub fn is_generated(&self) -> bool {
        self.0.contains_key(GENERATED)
    }

    /// The authority.
    ///
    /// # Errors
    /// [`AuthorityError`] names what is missing or wrong.
    pub fn authority(&self, now: SystemTime) -> Result<Authority, AuthorityError> {
        let manager = self.get(CERT).is_none() && self.get(MANAGER[0]).is_some();
        let [cert, key, roots] = if manager { MANAGER } else { [CERT, KEY, ROOTS] };
        let cert_pem = self.need(cert)?.to_vec();
        let chain = match self.get(CHAIN) {
            _ if manager => cert_pem.clone(), // cert-manager appends the chain to tls.crt
            chain => chain.unwrap_or_default().to_vec(),
        };
        // Istio's own secret names no root: there, the certificate is the root.
        let roots = match self.get(roots) {
            Some(roots) => roots.to_vec(),
            None if self.is_generated() => cert_pem.clone(),
            None => return Err(AuthorityError::Missing(roots)),
        };
        let material = Material { cert: cert_pem, key: CaKey::from_pem(self.need(key)?)?, chain, roots };
        Authority::new(material, now)
    }

    /// The same with a new root from the same key; peers trust it by the old root's key too (CA-11).
    ///
    /// # Errors
    /// As [`Contents::authority`].
    pub fn renewed(&self, domain: &TrustDomain, now: SystemTime) -> Result<Self, AuthorityError> {
        let cert = self_signed(&CaKey::from_pem(self.need(KEY)?)?, domain, now)?;
        let old = match self.get(ROOTS) {
            Some(roots) => roots,
            None => self.need(CERT)?,
        };
        let roots = [cert.as_bytes(), old].concat();
        let mut contents = self.clone();
        contents.insert(ROOTS, roots);
        contents.insert(CERT, cert.into_bytes());
        Ok(contents)
    }

    fn need(&self, name: &'static str) -> Result<&[u8], AuthorityError> {
        self.get(name).ok_or(AuthorityError::Missing(name))
    }
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CA-13
    #[test]
    fn a_secret_of_istio_is_taken_as_it_is() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let ours = Contents::generate(&domain, SystemTime::now()).unwrap();
        let mut theirs = Contents::default();
        for name in [CERT, KEY] {
            theirs.insert(name, ours.get(name).unwrap().to_vec());
        }
        for empty in [CHAIN, ROOTS, "key.pem"] {
            theirs.insert(empty, Vec::new());
        }
        let missing = theirs.authority(SystemTime::now()).unwrap_err();
        assert_eq!(missing.to_string(), "root-cert.pem is missing");
        theirs.insert(GENERATED, Vec::new());
        let authority = theirs.authority(SystemTime::now()).unwrap();
        assert_eq!(authority.roots(), ours.authority(SystemTime::now()).unwrap().roots());
        let renewed = theirs.renewed(&domain, SystemTime::now()).unwrap();
        assert_eq!(renewed.authority(SystemTime::now()).unwrap().roots().certificates().len(), 2);
    }

    #[test]
    fn contents_are_never_printed() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let printed = format!("{:?}", Contents::generate(&domain, SystemTime::now()).unwrap());
        assert_eq!(printed, "{\"ca-cert.pem\", \"ca-key.pem\", \"istio-generated\", \"root-cert.pem\"}");
    }
}
