//! Our own kind, `RateLimit` (`policy.ferromesh.io/v1alpha1`): what of it is shared becomes a domain `NAMESPACE/NAME`; what is
//! local is counted by proxies and named here for people.
//!
//! A descriptor of a rule has the entry `rule` = its name, then one entry per key of `per`, in order, named as
//! [`Key::descriptor_key`](proto::istio::rate_limit::Key::descriptor_key) says. pilot writes the actions that make such
//! descriptors.

use super::domain::{Domain, Domains, Level, Limit, Node, Unit};
use crate::policy::object::Object;
use crate::yaml::Fault;
use proto::istio::rate_limit::{RULE_KEY, RateLimit, Rule, Scope};
use serde::Deserialize;
use std::sync::Arc;

/// The kind.
pub const KIND: &str = "RateLimit";

/// Reads an object.
///
/// # Errors
/// An unknown field, a wrong type or a value that cannot be meant.
pub fn parse(object: &Object) -> Result<RateLimit, Fault> {
    let fault = |field: String, message: String| Fault { line: object.spec.line, field, message };
    let spec: RateLimit =
        serde_json::from_value(object.spec.json()).map_err(|error| fault("spec".to_owned(), error.to_string()))?;
    spec.validate().map_err(|(field, reason)| fault(format!("spec.{field}"), reason.to_owned()))?;
    Ok(spec)
}

/// Where pilot shows the objects that are in force.
pub const PATH: &str = "/debug/ratelimitz";

/// An object as pilot shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Shown {
    namespace: String,
    name: String,
    spec: RateLimit,
}

/// The domains of the objects that pilot shows. One that cannot be meant is left out: pilot has refused it already.
pub fn domains(shown: Vec<Shown>) -> Domains {
    let sound = shown.into_iter().filter(|one| one.spec.validate().is_ok());
    let domains = sound.map(|one| domain((&one.namespace, &one.name), &one.spec));
    domains.map(|domain| (domain.name.clone(), Arc::new(domain))).collect()
}

/// The domain of an object, by its namespace and name.
pub fn domain((namespace, name): (&str, &str), spec: &RateLimit) -> Domain {
    let name = format!("{namespace}/{name}");
    let (mut rules, mut local) = (Level::default(), Vec::new());
    for (index, rule) in spec.rules.iter().enumerate() {
        let own = spec.rule_name(index);
        let limit = limit(rule, &format!("{name}.{own}"));
        match rule.scope {
            // Names of rules differ: that was validated.
            Scope::Shared => drop(rules.add(RULE_KEY, &own, node(rule, limit))),
            Scope::Local => local.extend(limit),
        }
    }
    Domain { name, rules, local }
}

fn limit(rule: &Rule, path: &str) -> Option<Arc<Limit>> {
    let limit = rule.limit.as_ref()?;
    Some(Arc::new(Limit {
        per_unit: Some(limit.amount()),
        unit: unit(limit.length()),
        name: String::new(),
        replaces: Vec::new(),
        shadow: rule.shadow,
        detailed: false,
        path: path.to_owned(),
    }))
}

/// A rule, with a level for each of its keys.
fn node(rule: &Rule, limit: Option<Arc<Limit>>) -> Node {
    let mut node = Node { limit, below: Level::default() };
    for key in rule.per.iter().rev() {
        let mut above = Node::default();
        // One entry at each level.
        let _once = above.below.add(&key.descriptor_key(), "", node).is_ok();
        node = above;
    }
    node
}

/// A named unit where there is one of this length.
fn unit(length: std::time::Duration) -> Unit {
    let named = [Unit::Second, Unit::Minute, Unit::Hour, Unit::Day];
    named.into_iter().find(|unit| unit.length() == length).unwrap_or(Unit::Every(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::object::Objects;
    use crate::source::Texts;

    #[test]
    fn shared_rules_become_a_domain_of_descriptors() {
        let text = "apiVersion: policy.ferromesh.io/v1alpha1\nkind: RateLimit\nmetadata: {name: api, namespace: shop}\n\
            spec:\n  rules:\n  - name: per-user\n    per: [{header: X-User}, path]\n    limit: {requests: 5, unit: MINUTE}\n    scope: SHARED\n\
            \x20 - limit: {requests: 1, window: 10s}\n";
        let mut objects = Objects::default();
        assert!(objects.read(&Texts::from([("a.yaml".into(), text.to_owned())])).is_empty());
        let object = objects.of(&[KIND]).next().unwrap();
        let key = &object.key;
        let domain = domain((&key.namespace, &key.name), &parse(object).unwrap());
        assert_eq!(domain.name, "shop/api");
        let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let descriptor = [entry("rule", "per-user"), entry("header/x-user", "ann"), entry("path", "/a")];
        let limit = domain.limit(&descriptor).unwrap();
        assert_eq!((limit.per_unit, limit.unit, limit.path.as_str()), (Some(5), Unit::Minute, "shop/api.per-user"));
        assert_eq!(domain.rules.limits().len(), 1, "the local one is the proxy's");
        assert_eq!(domain.local[0].path, format!("shop/api.{}", parse(object).unwrap().rule_name(1)));

        let mut bad = object.clone();
        bad.spec = crate::yaml::Node::parse("rules: [{limit: {requests: 1}}]", 7).unwrap();
        let fault = parse(&bad).unwrap_err();
        assert_eq!((fault.line, fault.field.as_str()), (7, "spec.rules[0].limit"));
    }
}
