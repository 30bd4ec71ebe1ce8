//! What a person may want to see of the policy: rules, handlers, what they did, what was refused.

use super::load::Policy;
use serde::Serialize;
use std::sync::atomic::Ordering;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// The rules, those for everywhere first.
    pub rules: Vec<RuleView>,
    /// The handlers.
    pub handlers: Vec<HandlerView>,
    /// What was refused, with file, line and field.
    pub problems: Vec<String>,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleView {
    /// `namespace/name`.
    pub name: String,
    /// When it applies; empty is always.
    pub matches: String,
    /// Names of its handlers.
    pub handlers: Vec<String>,
    /// Decisions that it took part in, those of proxies among them.
    pub hits: u64,
    /// Decisions that it turned into refusals.
    pub denials: u64,
    /// Requests whose match could not be evaluated.
    pub failures: u64,
}

/// A handler.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HandlerView {
    /// `name.namespace`.
    pub name: String,
    /// Its adapter.
    pub adapter: String,
    /// How often it was asked.
    pub asked: u64,
    /// How often it refused.
    pub refused: u64,
    /// The last thing that went wrong with it.
    pub last_error: Option<String>,
}

impl View {
    /// The view of a policy.
    pub fn of(policy: &Policy) -> Self {
        let rules = policy.all_rules().map(|rule| RuleView {
            name: rule.name.clone(),
            matches: rule.matches.as_ref().map(|matches| matches.text().to_owned()).unwrap_or_default(),
            handlers: rule.actions.iter().map(|action| action.handler.full_name()).collect(),
            hits: rule.tally.hits.load(Ordering::Relaxed),
            denials: rule.tally.denials.load(Ordering::Relaxed),
            failures: rule.tally.failures.load(Ordering::Relaxed),
        });
        let handlers = policy.handlers.iter().map(|handler| HandlerView {
            name: handler.full_name(),
            adapter: handler.kind.clone(),
            asked: handler.asked.load(Ordering::Relaxed),
            refused: handler.refused.load(Ordering::Relaxed),
            last_error: handler.last_error(),
        });
        Self {
            rules: rules.collect(),
            handlers: handlers.collect(),
            problems: policy.problems.iter().map(ToString::to_string).collect(),
        }
    }
}
