//! Secrets: of their content only what TLS needs, and that is never shown.

use std::collections::BTreeMap;
use std::fmt;

/// The fields that are kept: those of `kubernetes.io/tls` and Istio's own.
pub const FIELDS: [&str; 9] =
    ["tls.crt", "tls.key", "tls.ocsp-staple", "ca.crt", "ca.crl", "cert", "key", "cacert", "crl"];

/// `data` of a Secret. It has no serialised form, and its debug form has names alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    fields: BTreeMap<&'static str, Vec<u8>>,
}

impl Secret {
    /// A Secret with these fields; those that TLS has no use for are left out.
    pub fn new(fields: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let known = |name: &str| FIELDS.into_iter().find(|field| *field == name);
        let kept = fields.into_iter().filter_map(|(name, value)| Some((known(&name)?, value)));
        Self { fields: kept.filter(|(_, value)| !value.is_empty()).collect() }
    }

    /// The content of a field, where it has any.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name).map(Vec::as_slice)
    }

    /// Whether there is nothing that TLS has a use for.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.fields.keys()).finish()
    }
}
