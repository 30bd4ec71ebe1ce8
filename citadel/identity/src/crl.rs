//! Certificate revocation lists (Envoy: `crl`).

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};

/// Why lists could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// The PEM text holds no list.
    #[error("no X509 CRL in the PEM text")]
    Missing,
    /// The PEM text is broken.
    #[error("broken PEM: {0}")]
    Pem(String),
    /// A list is malformed.
    #[error("list {index} of the PEM text is malformed: {reason}")]
    Malformed {
        /// Position in the PEM text, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Which certificates of a chain are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The leaf alone.
    Leaf,
    /// All of the chain.
    Chain,
}

/// Lists of revoked certificates. As in OpenSSL, a certificate whose issuer has no list here, or an outdated one, is
/// refused: its state is unknown.
#[derive(Debug)]
pub struct Revocations {
    lists: Vec<CertRevocationList<'static>>,
    depth: Depth,
}

impl Revocations {
    /// Reads lists, PEM.
    ///
    /// # Errors
    /// [`CrlError`] for a text without lists, or with a broken one.
    pub fn from_pem(pem: &[u8], depth: Depth) -> Result<Self, CrlError> {
        let mut lists = Vec::new();
        for (index, der) in CertificateRevocationListDer::pem_slice_iter(pem).enumerate() {
            let der = der.map_err(|error| CrlError::Pem(error.to_string()))?;
            let list = OwnedCertRevocationList::from_der(der.as_ref())
                .map_err(|error| CrlError::Malformed { index, reason: format!("{error:?}") })?;
            lists.push(CertRevocationList::Owned(list));
        }
        if lists.is_empty() { Err(CrlError::Missing) } else { Ok(Self { lists, depth }) }
    }

    /// Whether a list names this certificate. One that cannot be read is named by none.
    pub fn names(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(read) = EndEntityCert::try_from(certificate) else { return false };
        let of_issuer = self.lists.iter().filter(|list| list.issuer() == read.issuer());
        { of_issuer }.any(|list| matches!(list.find_serial(read.serial()), Ok(Some(_))))
    }

    /// The lists, for [`Revocations::options`].
    pub(crate) fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.lists.iter().collect()
    }

    /// How webpki is to use `lists`, which are those of [`Revocations::lists`].
    pub(crate) fn options<'a>(&self, lists: &'a [&'a CertRevocationList<'a>]) -> RevocationOptions<'a> {
        let depth = match self.depth {
            Depth::Leaf => RevocationCheckDepth::EndEntity,
            Depth::Chain => RevocationCheckDepth::Chain,
        };
        RevocationOptionsBuilder::new(lists)
            .expect("from_pem refuses a text without lists")
            .with_depth(depth)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    }
}
