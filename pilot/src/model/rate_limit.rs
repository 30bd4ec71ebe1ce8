//! RateLimit as meant: which requests of a workload are counted, and by whom (`policy.ferromesh.io`).

use super::check::Check;
use crate::registry::entry::selects;
use crate::source::{Key, Object, Problem};
use proto::istio::NOT_SUPPORTED_YET;
use proto::istio::rate_limit as written;
use proto::istio::rate_limit::{Rule, Scope};
use std::collections::BTreeMap;

/// One RateLimit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// The object.
    pub key: Key,
    /// Workloads it is for; empty: its whole scope.
    pub selector: BTreeMap<String, String>,
    /// What is written.
    pub spec: written::RateLimit,
}

impl RateLimit {
    /// Whether it is for a workload.
    pub fn applies(&self, namespace: &str, labels: &BTreeMap<String, String>, root: &str) -> bool {
        (&*self.key.namespace == namespace || &*self.key.namespace == root) && selects(&self.selector, labels)
    }

    /// Rules of this scope, with their names.
    pub fn rules(&self, scope: Scope) -> impl Iterator<Item = (String, &Rule)> {
        let numbered = self.spec.rules.iter().enumerate();
        numbered.filter(move |(_, rule)| rule.scope == scope).map(|(i, rule)| (self.spec.rule_name(i), rule))
    }
}

/// Parses, and so validates, a RateLimit. `shared` says whether there is a service that counts for all proxies.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(object: &Object, spec: &written::RateLimit, shared: bool) -> Result<RateLimit, Vec<Problem>> {
    let mut check = Check::new(object);
    if let Err((field, reason)) = spec.validate() {
        check.semantic(format!("spec.{field}"), reason);
    }
    for (i, rule) in spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{i}]");
        let local = rule.scope == Scope::Local;
        let message = format!("{NOT_SUPPORTED_YET}: more than one match in a rule; write a rule for each");
        check.require(rule.matches.len() <= 1, format!("{field}.match"), message);
        let message = "scope: SHARED needs a service that counts: name it in MeshConfig.mixerCheckServer";
        check.require(local || shared, format!("{field}.scope"), message);
        for (name, matching) in rule.matches.iter().flat_map(|block| &block.headers) {
            check.string_match(matching, &format!("{field}.match[0].headers.{name}"), true);
        }
    }
    let selector = spec.selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default();
    check.finish(RateLimit { key: object.key.clone(), selector, spec: spec.clone() })
}
