//! Why a resource is not taken: the field and the way out. Every station's `config.rs` speaks it.

/// Extensions that are taken and have no effect here, with what they would do. What else is unknown is refused by its name
/// (XT-15).
pub const WITHOUT_EFFECT: [(&str, &str); 2] = [
    (
        "envoy.tcp.metadataexchange.config.MetadataExchange",
        "two proxies tell each other their workloads at the start of a TCP connection with ALPN istio-peer-exchange; here the workload of the other side is known from the endpoint's metadata, at the server only its identity (MD-3)",
    ),
    (
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        "tunes Envoy's DNS library; names are resolved by a resolver of our own, with the servers of /etc/resolv.conf",
    ),
];

/// Whether an extension of this type may be passed over.
pub fn has_no_effect(type_name: &str) -> bool {
    WITHOUT_EFFECT.iter().any(|(name, _)| *name == type_name)
}

/// A field that is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Refusal {
    /// Path of the field from the resource down, in proto names (`filter_chains[0].filters[1].typed_config`).
    pub field: String,
    /// What is wrong and what would be right.
    pub why: String,
}

impl Refusal {
    /// `field` is wrong because of `why`.
    pub fn new(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into() }
    }

    /// A field that this version does not know how to obey.
    pub fn unsupported(field: impl Into<String>) -> Self {
        let field = field.into();
        Self { why: format!("not supported yet: {field}"), field }
    }

    /// The same refusal seen from one level further up.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.field = if self.field.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.field) };
        self
    }
}

/// Adds the parent's field to a refusal on its way up.
pub trait Within<T> {
    /// The same result seen from one level further up.
    ///
    /// # Errors
    /// The refusal with `parent` in front of its field.
    fn within(self, parent: &str) -> Result<T, Refusal>;
}

impl<T> Within<T> for Result<T, Refusal> {
    fn within(self, parent: &str) -> Self {
        self.map_err(|refusal| refusal.within(parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_grow_from_the_leaf_up() {
        let refused: Result<(), _> = Err(Refusal::new("regex", "unclosed group"));
        let refused = refused.within("match").within("routes[2]").expect_err("refused");
        assert_eq!(refused.to_string(), "routes[2].match.regex: unclosed group");
        assert_eq!(Refusal::unsupported("lua").to_string(), "lua: not supported yet: lua");
    }
}
