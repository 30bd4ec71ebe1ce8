//! SPIFFE ids: `spiffe://<trust domain>/<path>` (the SPIFFE-ID standard, sections 2.1 and 2.2; spec CA-6).

use std::fmt;
use std::sync::Arc;

/// Longest SPIFFE id that is accepted, in bytes (SPIFFE-ID standard, section 2.3).
pub const MAX_ID_BYTES: usize = 2048;

/// What every SPIFFE id begins with.
pub const SCHEME: &str = "spiffe://";

/// Why a text is no SPIFFE id or no trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// The text does not begin with `spiffe://`.
    #[error("{0:?} is no SPIFFE id: it must begin with spiffe://")]
    Scheme(String),
    /// The trust domain is empty or holds a character that a trust domain must not hold.
    #[error("invalid trust domain {0:?}: use lower-case letters, digits, '.', '-' and '_'")]
    TrustDomain(String),
    /// A path segment is empty, a dot segment, or holds a forbidden character.
    #[error(
        "invalid path in SPIFFE id {0:?}: segments are letters, digits, '.', '-' and '_', and neither empty, '.' nor '..'"
    )]
    Path(String),
    /// The id is longer than [`MAX_ID_BYTES`].
    #[error("SPIFFE id of {0} bytes: at most 2048 are allowed")]
    TooLong(usize),
}

/// A trust domain, such as `cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses a trust domain.
    ///
    /// # Errors
    /// [`SpiffeError::TrustDomain`] for an empty name or a forbidden character.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > 255 || !text.bytes().all(allowed) {
            return Err(SpiffeError::TrustDomain(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The trust domain that a mesh configuration names: Istio replaces `@` by `.` (spec CA-6).
    ///
    /// # Errors
    /// As [`TrustDomain::parse`].
    pub fn from_mesh_config(text: &str) -> Result<Self, SpiffeError> {
        Self::parse(&text.replace('@', "."))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE id with at least one path segment. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    text: Arc<str>,
}

impl SpiffeId {
    /// Parses `spiffe://<trust domain>/<path>`.
    ///
    /// # Errors
    /// [`SpiffeError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| SpiffeError::Scheme(text.to_owned()))?;
        let (domain, path) = rest.split_once('/').ok_or_else(|| SpiffeError::Path(text.to_owned()))?;
        let trust_domain = TrustDomain::parse(domain)?;
        if !path.split('/').all(valid_segment) {
            return Err(SpiffeError::Path(text.to_owned()));
        }
        Ok(Self { trust_domain, text: text.into() })
    }

    /// The id of a Kubernetes service account: `spiffe://<td>/ns/<namespace>/sa/<account>` (spec CA-6).
    ///
    /// # Errors
    /// [`SpiffeError::Path`] where a name is no path segment.
    pub fn service_account(domain: &TrustDomain, namespace: &str, account: &str) -> Result<Self, SpiffeError> {
        let text = format!("{SCHEME}{domain}/ns/{namespace}/sa/{account}");
        if !valid_segment(namespace) || !valid_segment(account) {
            return Err(SpiffeError::Path(text));
        }
        Self::parse(&text)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain of this id.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Namespace and service account, for ids of the form `/ns/<namespace>/sa/<account>`.
    pub fn namespace_and_account(&self) -> Option<(&str, &str)> {
        let mut parts = self.text.strip_prefix(SCHEME)?.split('/').skip(1);
        let found = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        match (found, parts.next()) {
            (("ns", namespace, "sa", account), None) => Some((namespace, account)),
            _ => None,
        }
    }

    /// Whether it is the same workload, in whichever trust domain: a mesh may move to another one (CA-7).
    pub fn is_same_workload(&self, other: &Self) -> bool {
        let own = self.namespace_and_account();
        self == other || (own.is_some() && own == other.namespace_and_account())
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn valid_segment(segment: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CA-6
    #[test]
    fn prints_the_id_of_a_service_account() {
        let domain = TrustDomain::from_mesh_config("team@corp.example").unwrap();
        let id = SpiffeId::service_account(&domain, "shop", "reviews").unwrap();
        assert_eq!(id.as_str(), "spiffe://team.corp.example/ns/shop/sa/reviews");
        assert_eq!(id.namespace_and_account(), Some(("shop", "reviews")));
        assert_eq!(SpiffeId::parse(id.as_str()).unwrap(), id);
    }

    // spec: CA-7
    #[test]
    fn a_workload_is_the_same_in_another_trust_domain() {
        let id = |text: &str| SpiffeId::parse(text).unwrap();
        let own = id("spiffe://old/ns/shop/sa/reviews");
        assert!(own.is_same_workload(&own) && own.is_same_workload(&id("spiffe://new/ns/shop/sa/reviews")));
        for other in ["spiffe://old/ns/shop/sa/ratings", "spiffe://old/ns/bank/sa/reviews", "spiffe://new/reviews"] {
            assert!(!own.is_same_workload(&id(other)), "{other}");
        }
        assert!(!id("spiffe://old/vm").is_same_workload(&id("spiffe://new/vm")), "of other forms nothing is known");
    }

    #[test]
    fn refuses_what_is_no_spiffe_id() {
        for text in [
            "",
            "https://cluster.local/ns/a/sa/b",
            "SPIFFE://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local",
            "spiffe://cluster.local/",
            "spiffe:///ns/a/sa/b",
            "spiffe://Cluster.local/ns/a/sa/b",
            "spiffe://cluster.local:80/ns/a/sa/b",
            "spiffe://u@cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/ns/a/sa/b/",
            "spiffe://cluster.local/ns/../sa/b",
            "spiffe://cluster.local/ns/%61/sa/b",
            "spiffe://cluster.local/ns/a/sa/b\0evil",
            "spiffe://cluster.local/ns/a/sa/b?x=1",
            "spiffe://cluster.local/ns/a/sa/b#x",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text}");
        }
        assert!(matches!(SpiffeId::parse(&format!("spiffe://a/{}", "x".repeat(2048))), Err(SpiffeError::TooLong(_))));
    }

    #[test]
    fn a_name_cannot_smuggle_a_segment() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        assert!(SpiffeId::service_account(&domain, "a/sa/admin", "b").is_err());
        assert!(SpiffeId::service_account(&domain, "a", "..").is_err());
    }

    #[test]
    fn other_shapes_have_no_service_account() {
        for text in ["spiffe://a/workload", "spiffe://a/ns/x/sa/y/z", "spiffe://a/sa/x/ns/y"] {
            assert_eq!(SpiffeId::parse(text).unwrap().namespace_and_account(), None, "{text}");
        }
    }
}
