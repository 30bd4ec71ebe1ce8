//! Bag → decision.

use super::code::Code;
use super::decision::{Answer, Decision, UNANSWERED_FOR};
use super::handler::{Adapter, Handler};
use super::instance::{Instance, Variety};
use super::limits::Charge;
use super::load::{Loader, Policy};
use super::meters::Meters;
use super::view::View;
use crate::attribute::vocabulary as v;
use crate::attribute::{Bag, Touched, Value};
use crate::expression::eval::Reader;
use crate::report::decided::{By, Decided};
use crate::report::family::Family;
use crate::rule::{Rule, Tally};
use crate::source::Texts;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// Decides by the policy in force, which [`Engine::load`] replaces as a whole.
#[derive(Debug, Default)]
pub struct Engine {
    policy: Arc<ArcSwap<Policy>>,
}

impl Engine {
    /// An engine without any policy: it lets everything through.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is measured of it; to be registered where it shall be seen.
    ///
    /// # Errors
    /// Never: the names of its metrics are good ones.
    pub fn meters(&self) -> Result<Meters, vitals::prometheus::Error> {
        Meters::new(self.policy.clone())
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

    /// The series of all handlers of the adapter prometheus, in Prometheus' text.
    pub async fn exposition(&self) -> String {
        let policy = self.policy();
        let mut text = String::new();
        for handler in &policy.handlers {
            if let Adapter::Prometheus(prometheus) = &handler.adapter {
                text.push_str(&prometheus.show().await);
            }
        }
        text
    }

    /// What is in force and what it did.
    pub fn view(&self) -> View {
        View::of(&self.policy.load())
    }
}

impl Policy {
    /// Decides about a request (MX-19): first the checks, and where they let it pass, the quotas.
    pub async fn check(&self, bag: &Bag<'_>, caller: Caller<'_>) -> Decision {
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
            let namespace = namespace.as_deref();
            self.charge(bag, &mut touched, (namespace, caller), &mut decision).await;
        }
        if decision.allowed() {
            header_operations(&matched, bag, &mut touched, &mut decision);
        }
        decision.by = self.shapes.fit(&touched);
        decision
    }

    /// Tells the adapters that a request is over (MX-27). An instance that lacks an attribute is dropped (MX-56).
    pub fn report(&self, bag: &Bag<'_>) {
        let mut touched = Touched::default();
        let namespace = if self.is_scoped() { namespace(bag, &mut touched) } else { None };
        for rule in self.rules(namespace.as_deref()).filter(|rule| rule.reports) {
            let mut reader = Reader::new(bag, &mut touched);
            let sampled = rule.applies(&mut reader) && rule.sampling.as_ref().is_none_or(|one| one.takes(&mut reader));
            if !sampled {
                continue;
            }
            Tally::count(&rule.tally.hits);
            for action in &rule.actions {
                for instance in action.instances.iter().filter(|one| one.template.variety() == Variety::Report) {
                    if let Err(failure) = action.handler.report(instance, &mut Reader::new(bag, &mut touched)) {
                        Tally::count(&rule.tally.failures);
                        tracing::debug!(rule = %rule.name, instance = %instance.name, "dropped: {failure}");
                    }
                }
            }
        }
    }

    /// Counts decisions that proxies took by themselves as those that were taken here. A rule or a handler that is gone
    /// counts no more.
    pub fn decided(&self, decided: &Decided) {
        let By::Rule { rule, handler } = &decided.by else { return };
        let rule = || self.all_rules().find(|known| known.name == *rule);
        let handler = || self.handlers.iter().find(|known| known.full_name() == *handler);
        let counter = match decided.family {
            Family::PolicyHits => rule().map(|rule| &rule.tally.hits),
            Family::PolicyDenials => rule().map(|rule| &rule.tally.denials),
            Family::PolicyFailures => rule().map(|rule| &rule.tally.failures),
            Family::PolicyDispatches => handler().map(|handler| &handler.asked),
            Family::PolicyRefusals => handler().map(|handler| &handler.refused),
            _ => None,
        };
        if let Some(counter) = counter {
            Tally::add(counter, decided.count);
        }
    }

    /// Whether any rule wants to know of requests that are over.
    pub fn reports(&self) -> bool {
        self.all_rules().any(|rule| rule.reports)
    }

    /// Charges a request to the quotas that are bound to its service.
    async fn charge<'a>(
        &'a self,
        bag: &'a Bag<'a>,
        touched: &mut Touched<'a>,
        (namespace, caller): (Option<&str>, Caller<'_>),
        decision: &mut Decision,
    ) {
        let mut charges = Vec::new();
        for binding in &self.bindings {
            charges.extend(binding.charges(bag, touched));
        }
        for (name, amount) in charges {
            // A quota that no rule takes care of is granted as asked (MX-23).
            let Some((rule, handler, instance)) = self.taker(name, namespace, bag, touched) else {
                decision.combine("", "", &Answer::ok(UNANSWERED_FOR, None));
                continue;
            };
            Tally::count(&rule.tally.hits);
            let charge = Charge { amount, ahead: caller.leases, dedup: caller.dedup };
            let answer = handler.charge(instance, Reader::new(bag, touched), charge).await;
            handler.count(&answer);
            decision.combine("", &rule.name, &answer);
            decision.took(&rule.name, &handler.full_name(), true, answer.code != Code::OK);
            if !decision.allowed() {
                Tally::count(&rule.tally.denials);
                return;
            }
        }
    }

    /// Who takes care of a quota: the first rule that applies and has an instance of its name.
    fn taker<'a>(
        &'a self,
        name: &str,
        namespace: Option<&str>,
        bag: &'a Bag<'a>,
        touched: &mut Touched<'a>,
    ) -> Option<(&'a Rule, &'a Handler, &'a Instance)> {
        for rule in self.rules(namespace).filter(|rule| rule.charges) {
            let instances =
                rule.actions.iter().flat_map(|action| action.instances.iter().map(move |one| (action, one)));
            let mut named = instances.filter(|(_, one)| one.name == name && one.template.variety() == Variety::Quota);
            let Some((action, instance)) = named.next() else { continue };
            if rule.applies(&mut Reader::new(bag, touched)) {
                return Some((rule, &action.handler, instance));
            }
        }
        None
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'c> {
    /// Whether it honours leases, so that quotas may be granted ahead.
    pub leases: bool,
    /// Identity of its question: asked again it counts once.
    pub dedup: Option<&'c str>,
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
    let mut applied = true;
    for action in &rule.actions {
        let mut output = None;
        for instance in action.instances.iter().filter(|one| one.template.variety() == Variety::Check) {
            let answer = action.handler.check(&instance.template, &mut Reader::new(bag, touched));
            action.handler.count(&answer);
            let handler = action.handler.full_name();
            decision.combine(&handler, &rule.name, &answer);
            decision.took(&rule.name, &handler, applied, answer.code != Code::OK);
            applied = false;
            let Answer { output: put, .. } = answer;
            output = put.or(output);
        }
        outputs.push(output);
    }
    if applied {
        decision.took(&rule.name, "", true, false);
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
