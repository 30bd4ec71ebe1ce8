//! Trust bundles: the roots that vouch for a trust domain, several while a root is being replaced.

use crate::pem::{self, PemError};
use crate::spiffe::TrustDomain;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::collections::BTreeMap;

/// Why a bundle could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The PEM text holds no certificates or broken ones.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A certificate cannot be a root.
    #[error("certificate {index} of the bundle cannot be a trust anchor: {reason}")]
    Anchor {
        /// Position in the PEM text, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Roots by trust domain, and roots that vouch for every name (Envoy's plain `trusted_ca`).
///
/// A domain with roots of its own is vouched for by those only; so a federated root cannot speak for another domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustBundle {
    any: Vec<Root>,
    domains: BTreeMap<TrustDomain, Vec<Root>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Root {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
}

impl TrustBundle {
    /// A bundle without roots: it vouches for nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Roots that vouch for every name.
    ///
    /// # Errors
    /// [`BundleError`] for broken PEM or a certificate that cannot be a root.
    pub fn from_pem(roots: &[u8]) -> Result<Self, BundleError> {
        Ok(Self { any: read(roots)?, domains: BTreeMap::new() })
    }

    /// Adds roots that vouch for one trust domain only.
    ///
    /// # Errors
    /// As [`TrustBundle::from_pem`].
    pub fn with_domain(mut self, domain: TrustDomain, roots: &[u8]) -> Result<Self, BundleError> {
        self.domains.entry(domain).or_default().extend(read(roots)?);
        Ok(self)
    }

    /// The anchors that may vouch for a peer of this trust domain (`None`: the peer has no SPIFFE id).
    pub fn anchors(&self, domain: Option<&TrustDomain>) -> Vec<TrustAnchor<'_>> {
        let own = domain.and_then(|d| self.domains.get(d));
        own.unwrap_or(&self.any).iter().map(|root| root.anchor.clone()).collect()
    }

    /// All root certificates, each once, those of single domains last.
    pub fn certificates(&self) -> Vec<&CertificateDer<'static>> {
        let mut all: Vec<&CertificateDer<'static>> = Vec::new();
        for root in self.any.iter().chain(self.domains.values().flatten()) {
            if !all.contains(&&root.der) {
                all.push(&root.der);
            }
        }
        all
    }

    /// All root certificates as PEM.
    pub fn to_pem(&self) -> String {
        self.certificates().into_iter().map(pem::encode_certificate).collect()
    }
}

fn read(roots: &[u8]) -> Result<Vec<Root>, BundleError> {
    let mut found: Vec<Root> = Vec::new();
    for (index, der) in pem::certificates(roots)?.into_iter().enumerate() {
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|e| BundleError::Anchor { index, reason: format!("{e:?}") })?
            .to_owned();
        if !found.iter().any(|root| root.der == der) {
            found.push(Root { der, anchor });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testca::TestCa;

    #[test]
    fn holds_several_roots_each_once() {
        let (old, new) = (TestCa::new("old"), TestCa::new("new"));
        let pem = format!("{}{}{}", old.root_pem, new.root_pem, old.root_pem);
        let bundle = TrustBundle::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(bundle.anchors(None).len(), 2);
        assert_eq!(bundle.to_pem().matches("BEGIN").count(), 2);
    }

    #[test]
    fn names_the_certificate_that_is_broken() {
        let text = format!("{}{}", TestCa::new("a").root_pem, pem::encode("CERTIFICATE", b"junk"));
        assert!(matches!(TrustBundle::from_pem(text.as_bytes()), Err(BundleError::Anchor { index: 1, .. })));
    }
}
