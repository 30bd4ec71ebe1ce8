//! Rules → programs that a proxy of ours decides by itself, without a call.
//!
//! Only a policy that is simple as a whole becomes one: every check of every rule that holds for a workload reads nothing
//! but what the proxy itself sees of a request, and no quota is charged. Anything else is asked about, and leased.

use super::decision::Answer;
use super::handler::Adapter;
use super::instance::{Template, Variety};
use super::load::Policy;
use crate::attribute::vocabulary as v;
use crate::attribute::{AttributeId, Value};
use crate::expression::Expression;
use crate::expression::check::{Function, Node};
use crate::expression::parse::Operator;
use crate::rule::Rule;
use proto::program::{self, Check, Denial, List, MAX_BYTES, Part, Program};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The programs of one policy, as JSON.
#[derive(Debug, Default)]
pub struct Programs {
    root: Option<Arc<str>>,
    by_namespace: HashMap<String, Option<Arc<str>>>,
}

impl Programs {
    /// Compiles what is simple; each holds so long.
    pub fn of(policy: &Policy, valid_for: Duration) -> Self {
        if !policy.bindings.is_empty() {
            return Self::default();
        }
        let text = |namespace| compile(policy, namespace, valid_for).map(Arc::from);
        let by_namespace = policy.by_namespace.keys().map(|name| (name.clone(), text(Some(name.as_str()))));
        Self { root: text(None), by_namespace: by_namespace.collect() }
    }

    /// The program for a workload of a namespace.
    pub fn get(&self, namespace: &str) -> Option<&Arc<str>> {
        self.by_namespace.get(namespace).unwrap_or(&self.root).as_ref()
    }
}

fn compile(policy: &Policy, namespace: Option<&str>, valid_for: Duration) -> Option<String> {
    let mut rules = Vec::new();
    for rule in policy.rules(namespace).filter(|rule| rule.checks) {
        checks(rule, &mut rules)?;
    }
    let text = serde_json::to_string(&Program { valid_for_s: valid_for.as_secs_f64(), rules }).ok()?;
    (text.len() <= MAX_BYTES).then_some(text)
}

/// The checks of a rule, each as a rule of its own; `None` where it does more than that.
fn checks(rule: &Rule, to: &mut Vec<program::Rule>) -> Option<()> {
    if !rule.request_headers.is_empty() || !rule.response_headers.is_empty() {
        return None;
    }
    let when = rule.matches.as_ref().map(expression);
    let when = match when {
        None => None,
        Some(when) => Some(when?),
    };
    for action in &rule.actions {
        for instance in action.instances.iter().filter(|one| one.template.variety() == Variety::Check) {
            let check = match (&action.handler.adapter, &instance.template) {
                (Adapter::Denier(denier), _) => Check::Deny(denial(denier.check())),
                (Adapter::List(list), Template::ListEntry(value)) => {
                    let (entries, ignore_case, blacklist) = list.texts()?;
                    let refusal = super::code::Code::PERMISSION_DENIED;
                    let refusal = (refusal.0, refusal.name().to_owned(), refusal.http());
                    Check::List(List { value: present(value)?, entries, ignore_case, blacklist, refusal })
                }
                (Adapter::KeyVal(_), _) => return None,
                _ => Check::Pass,
            };
            let (rule, handler) = (rule.name.clone(), action.handler.full_name());
            to.push(program::Rule { rule, handler, when: when.clone(), check });
        }
    }
    Some(())
}

fn denial(answer: Answer) -> Denial {
    let direct = answer.direct.unwrap_or_default();
    Denial {
        code: answer.code.0,
        name: answer.code.name().to_owned(),
        message: answer.message,
        status: if direct.status == 0 { answer.code.http() } else { direct.status },
        body: direct.body,
        headers: direct.headers,
    }
}

/// An expression that has a value for every request.
fn present(value: &Expression) -> Option<program::Expression> {
    fn always(value: &program::Expression) -> bool {
        match value {
            program::Expression::Text(_) => true,
            program::Expression::Default(either) => either.iter().any(always),
            program::Expression::ToLower(inner) => always(inner),
            _ => false,
        }
    }
    expression(value).filter(always)
}

fn expression(expression: &Expression) -> Option<program::Expression> {
    node(expression.root())
}

fn node(from: &Node) -> Option<program::Expression> {
    use program::Expression as E;
    let pair = |one: &Node, other: &Node| Some(Box::new([node(one)?, node(other)?]));
    Some(match from {
        Node::Constant(Value::Text(text)) => E::Text(text.to_string()),
        Node::Constant(Value::Bool(value)) => E::Bool(*value),
        Node::Attribute(id, _) => E::Read(part(*id)?),
        Node::Entry(id, _, key) if *id == v::REQUEST_HEADERS => match key.as_ref() {
            Node::Constant(Value::Text(name)) => E::Read(Part::Header(name.to_string())),
            _ => return None,
        },
        Node::Default(one, other) => E::Default(pair(one, other)?),
        Node::And(one, other) => E::And(pair(one, other)?),
        Node::Or(one, other) => E::Or(pair(one, other)?),
        Node::Compare(Operator::Equal, one, other) => E::Equal(pair(one, other)?),
        Node::Compare(Operator::NotEqual, one, other) => E::NotEqual(pair(one, other)?),
        Node::Matches(pattern, text) => E::Matches(pattern.as_str().to_owned(), Box::new(node(text)?)),
        Node::Call(function, arguments) => match (function, arguments.as_slice()) {
            (Function::Match, [text, pattern]) => E::Wildcard(pair(text, pattern)?),
            (Function::StartsWith, [text, start]) => E::StartsWith(pair(text, start)?),
            (Function::EndsWith, [text, end]) => E::EndsWith(pair(text, end)?),
            (Function::ToLower, [text]) => E::ToLower(Box::new(node(text)?)),
            _ => return None,
        },
        _ => return None,
    })
}

/// What a proxy sees of an attribute as mixer would know it.
fn part(id: AttributeId) -> Option<Part> {
    let parts = [
        (v::REQUEST_METHOD, Part::Method),
        (v::REQUEST_PATH, Part::Path),
        (v::REQUEST_URL_PATH, Part::UrlPath),
        (v::REQUEST_HOST, Part::Host),
        (v::REQUEST_SCHEME, Part::Scheme),
        (v::SOURCE_PRINCIPAL, Part::Principal),
        (v::SOURCE_USER, Part::Principal),
        (v::ORIGIN_USER, Part::Principal),
    ];
    parts.into_iter().find_map(|(known, part)| (known == id).then_some(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::load::Loader;
    use crate::source::Texts;

    fn rule(name: &str, namespace: &str, spec: &str) -> String {
        format!(
            "apiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  {spec}\n---\n"
        )
    }

    fn programs(rules: &str) -> Programs {
        let fixed = r#"
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: no, namespace: istio-system}
spec: {compiledAdapter: denier, params: {status: {code: 7, message: not you}}}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: nothing, namespace: istio-system}
spec: {compiledTemplate: checknothing}
---
"#;
        let texts = Texts::from([("a.yaml".into(), format!("{fixed}{rules}"))]);
        let policy = Loader::default().load(&texts);
        assert_eq!(policy.problems, []);
        Programs::of(&policy, Duration::from_secs(5))
    }

    #[test]
    fn only_a_policy_that_is_simple_as_a_whole_becomes_a_program() {
        let action = "actions: [{handler: no, instances: [nothing]}]";
        let by = |expression: &str| rule("a", "istio-system", &format!("match: {expression}\n  {action}"));
        for simple in [
            r#"request.headers["x-user"] == "eve" && request.method != "GET""#,
            r#"match(request.path, "/a*") || "^b".matches(request.host)"#,
            r#"(request.headers["x"] | "") == "" && source.principal != "a""#,
        ] {
            assert!(programs(&by(simple)).get("shop").is_some(), "{simple}");
        }
        for other in [
            r#"source.labels["app"] == "a""#,
            r#"source.ip == ip("10.0.0.1")"#,
            r#"request.size > 3"#,
            r#"source.namespace == "shop""#,
        ] {
            assert!(programs(&by(other)).get("shop").is_none(), "{other}");
            let both = by(r#"request.method == "GET""#) + &by(other).replace("name: a", "name: b");
            assert!(programs(&both).get("shop").is_none(), "one that is not spoils all");
        }
        let header = "requestHeaderOperations: [{name: x, values: ['\"y\"']}]";
        assert!(programs(&rule("a", "istio-system", header)).get("shop").is_none());
    }

    #[test]
    fn a_namespace_has_its_own_rules_too() {
        let action = "actions: [{handler: no.istio-system, instances: [nothing.istio-system]}]";
        let both = rule("a", "istio-system", action)
            + &rule("b", "shop", &format!("match: source.ip == ip(\"1.2.3.4\")\n  {action}"));
        let programs = programs(&both);
        assert!(programs.get("other").is_some() && programs.get("shop").is_none());
    }
}
