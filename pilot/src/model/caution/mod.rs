//! What is valid and will surprise: told by the webhook to whoever applies an object, and by `meshctl analyze`.
//!
//! - `authorization`: policies that close TCP ports
//! - `route`: rules that no request reaches
//! - `entry`: ServiceEntries whose connections nothing tells from others
//!
//! What this part knows: one object, and the mesh's settings. What needs other objects to be seen is an analyzer of meshctl.

mod authorization;
mod entry;
mod route;

use super::MeshConfig;
use crate::source::{Object, Spec};

/// The annotation that silences codes for one object: `IST0101,IST0102` or `*`.
pub const SUPPRESS: &str = "galley.istio.io/analyze-suppress";

/// What surprises, after Istio's `messages.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surprise {
    /// A policy denies connections on TCP ports (AZ-17).
    ClosesTcp,
    /// No request reaches a rule.
    UnreachableRule,
    /// A match repeats an earlier one, and decides nothing.
    IneffectiveMatch,
    /// Nothing tells connections to a TCP port from others on the port.
    AddressesRequired,
}

impl Surprise {
    /// Istio's code.
    pub fn code(self) -> &'static str {
        match self {
            Self::ClosesTcp => "IST0133",
            Self::UnreachableRule => "IST0130",
            Self::IneffectiveMatch => "IST0131",
            Self::AddressesRequired => "IST0134",
        }
    }

    /// Whether whoever applies the object is told: what does no harm is left to `meshctl analyze`.
    fn warns(self) -> bool {
        self != Self::IneffectiveMatch
    }
}

/// One thing that will surprise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caution {
    /// What.
    pub surprise: Surprise,
    /// Where, as `spec.rules[0]`.
    pub field: String,
    /// One sentence, in Istio's words where Istio has some.
    pub text: String,
}

impl Caution {
    fn new(surprise: Surprise, field: impl Into<String>, text: impl Into<String>) -> Self {
        Self { surprise, field: field.into(), text: text.into() }
    }
}

/// What of a valid object will surprise.
pub fn cautions(object: &Object, config: &MeshConfig) -> Vec<Caution> {
    match &object.spec {
        Spec::AuthorizationPolicy(spec) => authorization::of(object, spec),
        Spec::VirtualService(spec) => route::of(&spec.http),
        Spec::ServiceEntry(spec) => entry::of(object, spec, config),
        _ => Vec::new(),
    }
}

/// What to tell whoever applies an object: one sentence each, none twice, without what the object silences.
pub fn warnings(object: &Object, config: &MeshConfig) -> Vec<String> {
    let silent = object.meta.annotations.get(SUPPRESS).map(String::as_str).unwrap_or_default();
    let told = |caution: &Caution| caution.surprise.warns() && !silences(silent, caution.surprise.code());
    let mut texts: Vec<String> = Vec::new();
    for caution in cautions(object, config).into_iter().filter(told) {
        if !texts.contains(&caution.text) {
            texts.push(caution.text);
        }
    }
    texts
}

/// Whether the value of [`SUPPRESS`] names a code.
pub fn silences(value: &str, code: &str) -> bool {
    value.split(',').map(str::trim).any(|own| own == "*" || own == code)
}

#[cfg(test)]
mod tests;
