//! The YAML of envoyproxy/ratelimit (MX-105, MX-112): one domain per document.

use super::domain::{Domain, Domains, Level, Limit, Node, Unit};
use crate::source::Texts;
use crate::yaml::{self, Fault, Place};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How deep rules may be nested.
const MAX_DEPTH: usize = 16;

/// Reads texts again and again; a broken file keeps what it was last.
#[derive(Debug, Default)]
pub struct Loader {
    last: BTreeMap<Arc<str>, Vec<Arc<Domain>>>,
}

impl Loader {
    /// The domains of all files, and what was refused.
    pub fn load(&mut self, texts: &Texts) -> (Domains, Vec<String>) {
        let mut problems = Vec::new();
        let mut domains = Domains::new();
        self.last.retain(|file, _| texts.contains_key(file));
        for (file, text) in texts {
            match parse(text) {
                Ok(found) => drop(self.last.insert(file.clone(), found)),
                Err(fault) => problems.push(format!("{file}:{fault}")),
            }
            for domain in self.last.get(file).into_iter().flatten() {
                if domains.contains_key(&domain.name) {
                    problems.push(format!("{file}: the domain {} is defined twice; the first counts", domain.name));
                } else {
                    domains.insert(domain.name.clone(), domain.clone());
                }
            }
        }
        (domains, problems)
    }
}

/// The domains of a file.
///
/// # Errors
/// The first fault, with line and field.
pub fn parse(text: &str) -> Result<Vec<Arc<Domain>>, Fault> {
    let mut found = Vec::new();
    for document in yaml::documents(text) {
        let root = document?;
        let mut fields = Place::new(&root, "").fields()?;
        let name = fields.need("domain")?;
        let domain = name.text()?;
        if domain.is_empty() {
            return Err(name.fault("a domain has a name"));
        }
        let rules = level(&fields.list("descriptors")?, &domain, 0)?;
        fields.done()?;
        found.push(Arc::new(Domain { name: domain, rules, local: Vec::new() }));
    }
    Ok(found)
}

fn level(places: &[Place<'_>], path: &str, depth: usize) -> Result<Level, Fault> {
    let mut rules = Level::default();
    for place in places {
        if depth >= MAX_DEPTH {
            return Err(place.fault(format!("nested deeper than {MAX_DEPTH}")));
        }
        let mut fields = place.fields()?;
        let key = fields.need("key")?.text()?;
        if key.is_empty() {
            return Err(place.fault("a descriptor has a key"));
        }
        let value = fields.text("value")?;
        let below = if value.is_empty() { format!("{path}.{key}") } else { format!("{path}.{key}_{value}") };
        let shadow = fields.bool("shadowMode")?;
        let detailed = fields.bool("detailedMetric")?;
        let policy = fields.get("rateLimit").map(|place| limit(&place)).transpose()?;
        let limit = policy.map(|policy| Arc::new(Limit { shadow, detailed, path: below.clone(), ..policy }));
        let nested = level(&fields.list("descriptors")?, &below, depth + 1)?;
        fields.done()?;
        rules.add(&key, &value, Node { limit, below: nested }).map_err(|reason| place.fault(reason))?;
    }
    Ok(rules)
}

fn limit(place: &Place<'_>) -> Result<Limit, Fault> {
    let mut fields = place.fields()?;
    let unlimited = fields.bool("unlimited")?;
    let unit = fields.get("unit");
    let per_unit = fields.get("requestsPerUnit");
    let name = fields.text("name")?;
    let mut replaces = Vec::new();
    for place in fields.list("replaces")? {
        let mut fields = place.fields()?;
        replaces.push(fields.need("name")?.text()?);
        fields.done()?;
    }
    fields.done()?;
    if !name.is_empty() && replaces.contains(&name) {
        return Err(place.fault("a limit cannot replace itself"));
    }
    let limit = Limit {
        per_unit: None,
        unit: Unit::Second,
        name,
        replaces,
        shadow: false,
        detailed: false,
        path: String::new(),
    };
    if unlimited {
        return match unit {
            Some(unit) => Err(unit.fault("what is unlimited has no unit")),
            None => Ok(limit),
        };
    }
    let unit = unit.ok_or_else(|| place.fault("unit is missing: second, minute, hour, day, week, month or year"))?;
    let text = unit.text()?;
    let named = Unit::named(&text).ok_or_else(|| unit.fault(format!("unknown unit {text}, such as minute")))?;
    let per_unit = per_unit.ok_or_else(|| place.fault("requests_per_unit is missing"))?;
    let amount = u32::try_from(per_unit.int()?).map_err(|_| per_unit.fault("a number from 0 to 4294967295"))?;
    Ok(Limit { per_unit: Some(amount), unit: named, ..limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Arc<Domain> {
        parse(text).unwrap().remove(0)
    }

    fn limit_of(domain: &Domain, entries: &[(&str, &str)]) -> Option<String> {
        let entries: Vec<_> = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        domain.limit(&entries).map(|limit| limit.path.clone())
    }

    // spec: MX-105, MX-111
    #[test]
    fn the_deepest_rule_of_exactly_the_same_depth_counts() {
        let domain = domain(
            "domain: d\ndescriptors:\n- key: a\n  value: x\n  rate_limit: {unit: second, requests_per_unit: 1}\n\
             - key: a\n  rate_limit: {unit: minute, requests_per_unit: 2}\n  descriptors:\n  - key: b\n    rate_limit: {unit: hour, requests_per_unit: 3}\n\
             - key: a\n  value: x-*\n  rate_limit: {unit: day, requests_per_unit: 4}\n",
        );
        assert_eq!(limit_of(&domain, &[("a", "x")]).as_deref(), Some("d.a_x"));
        assert_eq!(limit_of(&domain, &[("a", "y")]).as_deref(), Some("d.a"));
        assert_eq!(limit_of(&domain, &[("a", "x-1")]).as_deref(), Some("d.a_x-*"));
        assert_eq!(limit_of(&domain, &[("a", "y"), ("b", "z")]).as_deref(), Some("d.a.b"));
        assert_eq!(limit_of(&domain, &[("a", "x"), ("b", "z")]), None, "the rule for a_x has nothing below it");
        assert_eq!(limit_of(&domain, &[("A", "x")]), None, "case counts");
        assert_eq!(limit_of(&domain, &[("a", "y"), ("b", "z"), ("c", "")]), None);
        let mut set = vec![("b".to_owned(), "z".to_owned()), ("a".to_owned(), "y".to_owned())];
        assert_eq!(domain.limit_of_set(&mut set).unwrap().path, "d.a.b");
    }

    // spec: MX-112
    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, message) in [
            ("descriptors: []", "domain is missing"),
            ("domain: d\ndescriptors: [{value: x}]", "key is missing"),
            ("domain: d\ndescriptors: [{key: a, rate_limit: {unit: fortnight, requests_per_unit: 1}}]", "unknown unit"),
            ("domain: d\ndescriptors: [{key: a, rate_limit: {unit: day}}]", "requests_per_unit is missing"),
            ("domain: d\ndescriptors: [{key: a, rate_limit: {unlimited: true, unit: day}}]", "has no unit"),
            ("domain: d\ndescriptors: [{key: a}, {key: a}]", "twice"),
            ("domain: d\ndescriptors: [{key: a, limit: 1}]", "unknown field limit"),
            (
                "domain: d\ndescriptors: [{key: a, rate_limit: {unit: day, requests_per_unit: 1, name: n, replaces: [{name: n}]}}]",
                "replace itself",
            ),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.message.contains(message), "{text}: {fault}");
        }
    }

    // spec: MX-113
    #[test]
    fn a_broken_file_keeps_what_it_was_and_a_domain_counts_once() {
        let mut loader = Loader::default();
        let texts = |a: &str, b: &str| Texts::from([("a.yaml".into(), a.to_owned()), ("b.yaml".into(), b.to_owned())]);
        let good = "domain: d\ndescriptors: [{key: a}]";
        assert!(loader.load(&texts(good, "domain: e")).1.is_empty());
        let (domains, problems) = loader.load(&texts("domain: [", "domain: e\nx: 1"));
        assert_eq!((domains.len(), problems.len()), (2, 2), "{problems:?}");
        let (domains, problems) = loader.load(&texts(good, good));
        assert_eq!((domains.len(), problems.len()), (1, 1));
        assert!(problems[0].contains("twice"));
    }
}
