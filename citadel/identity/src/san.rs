//! Which subject alternative names of a peer are acceptable (Envoy: `match_typed_subject_alt_names`).

use crate::spiffe::{SCHEME, TrustDomain};
use std::fmt;

/// Which kind of subject alternative name a pattern looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SanKind {
    /// `uniformResourceIdentifier`, where SPIFFE ids live.
    Uri,
    /// `dNSName`.
    Dns,
}

/// How the text of a name is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SanText {
    /// The whole name.
    Exact(String),
    /// The beginning of the name, such as `spiffe://cluster.local/`.
    Prefix(String),
    /// The end of the name.
    Suffix(String),
    /// Any part of the name.
    Contains(String),
}

impl SanText {
    fn accepts(&self, name: &str) -> bool {
        match self {
            Self::Exact(text) => name == text,
            Self::Prefix(text) => name.starts_with(text.as_str()),
            Self::Suffix(text) => name.ends_with(text.as_str()),
            Self::Contains(text) => name.contains(text.as_str()),
        }
    }
}

/// One acceptable name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SanPattern {
    /// Kind of name.
    pub kind: SanKind,
    /// How it is compared.
    pub text: SanText,
}

/// The acceptable names of a peer: one match of one name suffices. Without patterns every name is acceptable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct SanMatch(Vec<SanPattern>);

impl SanMatch {
    /// Accepts every name: only the chain is checked.
    pub fn any() -> Self {
        Self::default()
    }

    /// Accepts what one of `patterns` accepts; all names where there is none, as Envoy does.
    pub fn of(patterns: Vec<SanPattern>) -> Self {
        Self(patterns)
    }

    /// Accepts exactly these URIs.
    pub fn uris<I: IntoIterator<Item = S>, S: Into<String>>(ids: I) -> Self {
        let pattern = |id: S| SanPattern { kind: SanKind::Uri, text: SanText::Exact(id.into()) };
        Self(ids.into_iter().map(pattern).collect())
    }

    /// Accepts every id of a trust domain and of its aliases.
    pub fn trust_domains(own: &TrustDomain, aliases: &[TrustDomain]) -> Self {
        let prefix = |domain| SanText::Prefix(format!("{SCHEME}{domain}/"));
        let pattern = |domain| SanPattern { kind: SanKind::Uri, text: prefix(domain) };
        Self(aliases.iter().chain([own]).map(pattern).collect())
    }

    /// Whether every name is acceptable.
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a name of this kind is acceptable.
    pub fn accepts(&self, kind: SanKind, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|p| p.kind == kind && p.text.accepts(name))
    }
}

impl fmt::Display for SanMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any name");
        }
        for (at, pattern) in self.0.iter().enumerate() {
            if at == 8 {
                return write!(f, " or one of {} more", self.0.len() - at);
            }
            let joiner = if at == 0 { "" } else { " or " };
            match &pattern.text {
                SanText::Exact(text) => write!(f, "{joiner}{text}")?,
                SanText::Prefix(text) => write!(f, "{joiner}{text}*")?,
                SanText::Suffix(text) => write!(f, "{joiner}*{text}")?,
                SanText::Contains(text) => write!(f, "{joiner}*{text}*")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: MT-6
    #[test]
    fn a_trust_domain_does_not_match_a_longer_one() {
        let accept = SanMatch::trust_domains(&TrustDomain::parse("cluster.local").unwrap(), &[]);
        assert!(accept.accepts(SanKind::Uri, "spiffe://cluster.local/ns/a/sa/b"));
        assert!(!accept.accepts(SanKind::Uri, "spiffe://cluster.local.evil/ns/a/sa/b"));
        assert!(!accept.accepts(SanKind::Dns, "spiffe://cluster.local/ns/a/sa/b"));
    }

    #[test]
    fn says_what_it_accepts() {
        assert_eq!(SanMatch::any().to_string(), "any name");
        assert_eq!(SanMatch::uris(["spiffe://a/b", "spiffe://a/c"]).to_string(), "spiffe://a/b or spiffe://a/c");
    }
}
