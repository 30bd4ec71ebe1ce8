//! Bag → decision.

use super::decision::{Answer, Decision};
use super::instance::Variety;
use super::load::{Loader, Policy};
use super::view::View;
use crate::attribute::vocabulary as v;
use crate::attribute::{Bag, Touched, Value, Vocabulary};
use crate::expression::eval::Reader;
use crate::rule::{Rule, Tally};
use crate::source::Texts;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// Decides by the policy in force, which [`Engine::load`] replaces as a whole.
#[derive(Debug, Default)]
pub struct Engine {
    policy: ArcSwap<Policy>,
}

impl Engine {
    /// An engine without any policy: it lets everything through.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the texts of all files in force. `loader` is its caller's: there is one.
    pub fn load(&self, loader: &mut Loader, texts: &Texts) {
        let policy = loader.load(texts);
        for problem in policy.problems.iter().filter(|problem| !self.policy.load().problems.contains(problem)) {
            tracing::warn!("refused: {problem}");
        }
        self.policy.store(Arc::new(policy));
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// What is in force and what it did.
    pub fn view(&self) -> View {
        View::of(&self.policy.load())
    }

    /// The attributes that bags may hold.
    pub fn vocabulary(&self) -> Vocabulary {
        self.policy.load().vocabulary.clone()
    }
}

impl Policy {
    /// Decides about a request.
    pub async fn check(&self, bag: &Bag<'_>) -> Decision {
        let mut matched = Vec::new();
        let mut touched = Touched::default();
        let mut decision = Decision::default();
        let namespace = if self.is_scoped() { namespace(bag, &mut touched) } else { None };
        for rule in self.rules(namespace.as_deref()).filter(|rule| rule.checks) {
            if rule.applies(&mut Reader::new(bag, &mut touched)) {
                Tally::count(&rule.tally.hits);
                let outputs = check_rule(rule, bag, &mut touched, &mut decision);
                matched.push((rule, outputs));
            }
        }
        if decision.allowed() {
            header_operations(&matched, bag, &mut touched, &mut decision);
        }
        decision.by = touched.by();
        decision
    }
}

/// The namespace whose rules hold besides those for everywhere (MX-21): the destination's for an inbound proxy, the
/// source's for an outbound one.
fn namespace<'a>(bag: &'a Bag<'a>, touched: &mut Touched<'a>) -> Option<String> {
    touched.attribute(v::CONTEXT_REPORTER_KIND, || "context.reporter.kind".into());
    let outbound = bag.get(v::CONTEXT_REPORTER_KIND).and_then(Value::as_text) == Some("outbound");
    let (id, name) = match outbound {
        true => (v::SOURCE_NAMESPACE, "source.namespace"),
        false => (v::DESTINATION_NAMESPACE, "destination.namespace"),
    };
    touched.attribute(id, || name.into());
    bag.get(id).and_then(Value::as_text).map(str::to_owned)
}

/// Asks a rule's handlers. Gives what each put out.
fn check_rule<'a>(
    rule: &'a Rule,
    bag: &'a Bag<'a>,
    touched: &mut Touched<'a>,
    decision: &mut Decision,
) -> Vec<Option<String>> {
    let allowed = decision.allowed();
    let mut outputs = Vec::with_capacity(rule.actions.len());
    for action in &rule.actions {
        let mut output = None;
        for instance in action.instances.iter().filter(|one| one.template.variety() == Variety::Check) {
            let answer = action.handler.check(&instance.template, &mut Reader::new(bag, touched));
            action.handler.count(&answer);
            decision.combine(&action.handler.full_name(), &rule.name, &answer);
            let Answer { output: put, .. } = answer;
            output = put.or(output);
        }
        outputs.push(output);
    }
    if allowed && !decision.allowed() {
        Tally::count(&rule.tally.denials);
    }
    outputs
}

/// What the rules that matched do to headers (MX-24).
fn header_operations<'a>(
    matched: &'a [(&'a Arc<Rule>, Vec<Option<String>>)],
    bag: &'a Bag<'a>,
    touched: &mut Touched<'a>,
    decision: &mut Decision,
) {
    for (rule, outputs) in matched {
        for template in &rule.request_headers {
            template.apply(&mut Reader::new(bag, touched).with_outputs(outputs), &mut decision.request_headers);
        }
        for template in &rule.response_headers {
            template.apply(&mut Reader::new(bag, touched).with_outputs(outputs), &mut decision.response_headers);
        }
    }
}
