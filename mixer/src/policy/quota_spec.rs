//! `QuotaSpec` and `QuotaSpecBinding` (MX-49): which requests are charged to which quotas.

use super::object::{Key, Object};
use crate::attribute::touched::Touched;
use crate::attribute::vocabulary as v;
use crate::attribute::{AttributeId, Bag, Value, Vocabulary};
use crate::yaml::{Fault, Place};
use regex::Regex;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A `QuotaSpec`: charges, and for which requests.
#[derive(Debug)]
pub struct QuotaSpec {
    rules: Vec<SpecRule>,
}

#[derive(Debug)]
struct SpecRule {
    /// One of them must fit; none fits every request.
    matches: Vec<Vec<Clause>>,
    quotas: Vec<(String, i64)>,
}

#[derive(Debug)]
struct Clause {
    attribute: AttributeId,
    name: String,
    wanted: Wanted,
}

#[derive(Debug)]
enum Wanted {
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

/// A `QuotaSpecBinding`: the services to which specs apply.
#[derive(Debug)]
pub struct Binding {
    services: Vec<Service>,
    specs: Vec<Arc<QuotaSpec>>,
}

#[derive(Debug)]
enum Service {
    Every,
    Host(String),
    Named { name: String, namespace: String },
}

impl QuotaSpec {
    /// Reads an object.
    ///
    /// # Errors
    /// An unknown field or attribute, or a malformed pattern.
    pub fn parse(object: &Object, vocabulary: &Vocabulary) -> Result<Self, Fault> {
        let mut fields = Place::new(&object.spec, "spec").fields()?;
        let rules = fields.list("rules")?.iter().map(|place| spec_rule(place, vocabulary)).collect::<Result<_, _>>()?;
        fields.done()?;
        Ok(Self { rules })
    }
}

fn spec_rule(place: &Place<'_>, vocabulary: &Vocabulary) -> Result<SpecRule, Fault> {
    let mut fields = place.fields()?;
    let mut matches = Vec::new();
    for place in fields.list("match")? {
        let mut fields = place.fields()?;
        let clauses = fields.need("clause")?.entries()?;
        let clauses = clauses.into_iter().map(|(name, place)| clause(name, &place, vocabulary));
        matches.push(clauses.collect::<Result<_, _>>()?);
        fields.done()?;
    }
    let mut quotas = Vec::new();
    for place in fields.list("quotas")? {
        let mut fields = place.fields()?;
        let charge = fields.get("charge").map_or(Ok(1), |charge| charge.int())?;
        let name = fields.need("quota")?.text()?;
        // `requestcount` and `requestcount.quota.istio-system` are the same quota.
        let short = name.split('.').next().unwrap_or_default().to_owned();
        quotas.push((short, charge));
        fields.done()?;
    }
    fields.done()?;
    Ok(SpecRule { matches, quotas })
}

fn clause(name: &str, place: &Place<'_>, vocabulary: &Vocabulary) -> Result<Clause, Fault> {
    let (attribute, _) = vocabulary.get(name).ok_or_else(|| place.fault(format!("unknown attribute {name}")))?;
    let mut fields = place.fields()?;
    let wanted = match (fields.get("exact"), fields.get("prefix"), fields.get("regex")) {
        (Some(text), None, None) => Wanted::Exact(text.text()?),
        (None, Some(text), None) => Wanted::Prefix(text.text()?),
        (None, None, Some(text)) => {
            // Istio's patterns match the whole text.
            let pattern = Regex::new(&format!("^(?:{})$", text.text()?));
            Wanted::Regex(pattern.map_err(|_| text.fault("a malformed pattern"))?)
        }
        _ => return Err(place.fault("write one of exact, prefix and regex")),
    };
    fields.done()?;
    Ok(Clause { attribute, name: name.to_owned(), wanted })
}

impl Binding {
    /// Reads an object.
    ///
    /// # Errors
    /// An unknown field, or a spec that does not exist.
    pub fn parse(object: &Object, specs: &BTreeMap<Key, Arc<QuotaSpec>>) -> Result<Self, Fault> {
        let namespace = &object.key.namespace;
        let mut fields = Place::new(&object.spec, "spec").fields()?;
        let services =
            fields.list("services")?.iter().map(|place| service(place, namespace)).collect::<Result<_, _>>()?;
        let mut found = Vec::new();
        for place in fields.list("quotaSpecs")? {
            let mut fields = place.fields()?;
            let name = fields.need("name")?.text()?;
            let other = fields.text("namespace")?;
            fields.done()?;
            let namespace = if other.is_empty() { namespace.clone() } else { other };
            let key = Key { kind: "QuotaSpec".to_owned(), namespace, name };
            let spec = specs.get(&key).ok_or_else(|| place.fault(format!("no valid {key}")))?;
            found.push(spec.clone());
        }
        fields.done()?;
        Ok(Self { services, specs: found })
    }

    /// Notes everything that it can read.
    pub fn reads(&self, all: &mut Touched<'static>) {
        all.attribute(v::DESTINATION_SERVICE_NAME, || Cow::Borrowed("destination.service.name"));
        let rules = self.specs.iter().flat_map(|spec| &spec.rules);
        for clause in rules.flat_map(|rule| rule.matches.iter().flatten()) {
            all.attribute(clause.attribute, || Cow::Owned(clause.name.clone()));
        }
    }

    /// What a request is charged to.
    pub fn charges<'a>(&'a self, bag: &'a Bag<'a>, touched: &mut Touched<'a>) -> Vec<(&'a str, i64)> {
        if !self.services.iter().any(|service| service.is(bag, touched)) {
            return Vec::new();
        }
        let rules = self.specs.iter().flat_map(|spec| &spec.rules);
        let mut charges = Vec::new();
        for rule in rules {
            let fits =
                |clauses: &'a Vec<Clause>, touched: &mut _| clauses.iter().all(|clause| clause.fits(bag, touched));
            if rule.matches.is_empty() || rule.matches.iter().any(|clauses| fits(clauses, touched)) {
                charges.extend(rule.quotas.iter().map(|(name, charge)| (name.as_str(), *charge)));
            }
        }
        charges
    }
}

fn service(place: &Place<'_>, namespace: &str) -> Result<Service, Fault> {
    let mut fields = place.fields()?;
    let host = fields.text("service")?;
    let name = fields.text("name")?;
    let other = fields.text("namespace")?;
    let domain = fields.text("domain")?;
    if fields.get("labels").is_some() {
        return Err(place.fault("labels of a bound service are not supported: match destination.labels in the rule"));
    }
    fields.done()?;
    let namespace = if other.is_empty() { namespace.to_owned() } else { other };
    match (host.as_str(), name.as_str(), domain.is_empty()) {
        ("*", ..) => Ok(Service::Every),
        ("", "", _) => Err(place.fault("name a service: name, or service: '*'")),
        ("", _, true) => Ok(Service::Named { name, namespace }),
        ("", _, false) => Ok(Service::Host(format!("{name}.{namespace}.{domain}"))),
        _ => Ok(Service::Host(host)),
    }
}

impl Service {
    fn is<'a>(&'a self, bag: &'a Bag<'a>, touched: &mut Touched<'a>) -> bool {
        let mut read = |id, name: &'static str| {
            touched.attribute(id, || Cow::Borrowed(name));
            bag.get(id).and_then(Value::as_text)
        };
        match self {
            Self::Every => true,
            Self::Host(host) => read(v::DESTINATION_SERVICE_HOST, "destination.service.host") == Some(host),
            Self::Named { name, namespace } => {
                read(v::DESTINATION_SERVICE_NAME, "destination.service.name") == Some(name)
                    && read(v::DESTINATION_NAMESPACE, "destination.namespace") == Some(namespace)
            }
        }
    }
}

impl Clause {
    fn fits<'a>(&'a self, bag: &'a Bag<'a>, touched: &mut Touched<'a>) -> bool {
        touched.attribute(self.attribute, || Cow::Borrowed(&self.name));
        let Some(value) = bag.get(self.attribute) else { return false };
        let text = value.to_string();
        match &self.wanted {
            Wanted::Exact(wanted) => *wanted == text,
            Wanted::Prefix(wanted) => text.starts_with(wanted),
            Wanted::Regex(wanted) => wanted.is_match(&text),
        }
    }
}
