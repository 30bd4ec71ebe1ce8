//! Rules, compiled (MX-45): when which handlers get which instances, and what is done to headers.

use crate::attribute::{Touched, Type, Vocabulary};
use crate::expression::Expression;
use crate::expression::check::Scope;
use crate::expression::eval::Reader;
use crate::policy::decision::{HeaderOperation, Operation};
use crate::policy::handler::Handler;
use crate::policy::instance::{Instance, Variety, expression};
use crate::policy::object::Object;
use crate::policy::sampling::Sampling;
use crate::yaml::{Fault, Place};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    /// `namespace/name`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// When it applies; nothing is always.
    pub matches: Option<Expression>,
    /// What it does.
    pub actions: Vec<Action>,
    /// What is done to the request's headers.
    pub request_headers: Vec<HeaderTemplate>,
    /// What is done to the response's headers.
    pub response_headers: Vec<HeaderTemplate>,
    /// Whether it has a say before a request: reports alone do not.
    pub checks: bool,
    /// Whether it charges quotas.
    pub charges: bool,
    /// Whether it has something to do after a request.
    pub reports: bool,
    /// Which requests it reports; nothing is all.
    pub sampling: Option<Sampling>,
    /// What it has done so far; lives as long as an object of its name.
    pub tally: Arc<Tally>,
}

/// What a rule has done so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that it matched.
    pub hits: AtomicU64,
    /// Requests that it refused.
    pub denials: AtomicU64,
    /// Requests whose match could not be evaluated.
    pub failures: AtomicU64,
}

impl Tally {
    /// Counts one.
    pub fn count(counter: &AtomicU64) {
        Self::add(counter, 1);
    }

    /// Counts so many.
    pub fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// Instances for a handler.
#[derive(Debug)]
pub struct Action {
    /// Who gets them.
    pub handler: Arc<Handler>,
    /// What.
    pub instances: Vec<Arc<Instance>>,
}

/// An operation on a header, its value not yet known.
#[derive(Debug)]
pub struct HeaderTemplate {
    name: String,
    values: Vec<Expression>,
    operation: Operation,
}

/// What a rule's names mean: the objects as they are compiled.
pub trait Resolve {
    /// The handler of this name, seen from a namespace.
    fn handler(&self, name: &str, namespace: &str) -> Option<Arc<Handler>>;
    /// The instance of this name, seen from a namespace.
    fn instance(&self, name: &str, namespace: &str) -> Option<Arc<Instance>>;
}

impl Rule {
    /// Compiles an object.
    ///
    /// # Errors
    /// Names the field that is unknown, does not resolve or does not check.
    pub fn parse(
        object: &Object,
        vocabulary: &Vocabulary,
        names: &impl Resolve,
        tally: Arc<Tally>,
    ) -> Result<Self, Fault> {
        let namespace = &object.key.namespace;
        let scope = Scope::of(vocabulary);
        let mut fields = Place::new(&object.spec, "spec").fields()?;
        let matches = match fields.get("match") {
            Some(place) if !place.text()?.trim().is_empty() => Some(expression(&place, Some(Type::Bool), &scope)?),
            _ => None,
        };
        let mut actions = Vec::new();
        let mut outputs = Vec::new();
        for place in fields.list("actions")? {
            let (action, name) = parse_action(&place, namespace, names)?;
            // One per action, so that outputs and actions have the same numbers.
            outputs.push((format!("{name}.output.value"), Type::String));
            actions.push(action);
        }
        let scope = Scope { outputs: &outputs, ..scope };
        let request_headers = header_templates(fields.list("requestHeaderOperations")?, &scope)?;
        let places = fields.list("responseHeaderOperations")?;
        let response_headers = header_templates(places.clone(), &scope)?;
        if let Some((_, place)) =
            response_headers.iter().zip(&places).find(|(header, _)| header.operation == Operation::Remove)
        {
            return Err(place
                .fault("a header of the response cannot be removed by external authorization; use a VirtualService"));
        }
        let sampling = fields.get("sampling").map(|place| Sampling::parse(&place, &scope)).transpose()?;
        fields.done()?;
        let has = |variety| {
            let mut instances = actions.iter().flat_map(|action: &Action| &action.instances);
            instances.any(|instance| instance.template.variety() == variety)
        };
        let checks = has(Variety::Check) || !request_headers.is_empty() || !response_headers.is_empty();
        let charges = has(Variety::Quota);
        let reports = has(Variety::Report);
        let name = format!("{namespace}/{}", object.key.name);
        let namespace = namespace.clone();
        Ok(Self {
            name,
            namespace,
            matches,
            actions,
            request_headers,
            response_headers,
            checks,
            charges,
            reports,
            sampling,
            tally,
        })
    }

    /// Notes everything that it can read before a request.
    pub fn reads(&self, all: &mut Touched<'static>) {
        let instances = self.actions.iter().flat_map(|action| &action.instances);
        let headers = self.request_headers.iter().chain(&self.response_headers).flat_map(|header| &header.values);
        let expressions = instances.flat_map(|instance| instance.template.expressions()).chain(headers);
        expressions.chain(&self.matches).for_each(|expression| expression.reads(all));
    }

    /// Whether it applies. What cannot be evaluated does not (MX-22).
    pub fn applies<'a>(&'a self, reader: &mut Reader<'a, '_>) -> bool {
        let Some(matches) = &self.matches else { return true };
        match matches.holds(reader) {
            Ok(holds) => holds,
            Err(failure) => {
                Tally::count(&self.tally.failures);
                tracing::debug!(rule = %self.name, "no match: {failure}");
                false
            }
        }
    }
}

fn parse_action(place: &Place<'_>, namespace: &str, names: &impl Resolve) -> Result<(Action, String), Fault> {
    let mut fields = place.fields()?;
    let at = fields.need("handler")?;
    let name = at.text()?;
    let handler = names.handler(&name, namespace).ok_or_else(|| at.fault(unresolved("handler", &name, namespace)))?;
    let mut instances = Vec::new();
    for at in fields.list("instances")? {
        let name = at.text()?;
        let found =
            names.instance(&name, namespace).ok_or_else(|| at.fault(unresolved("instance", &name, namespace)))?;
        handler.takes(&found).map_err(|reason| at.fault(reason))?;
        instances.push(found);
    }
    if instances.is_empty() {
        return Err(place.fault("an action without instances does nothing: name at least one"));
    }
    let name = fields.text("name")?;
    fields.done()?;
    Ok((Action { handler, instances }, name))
}

fn unresolved(what: &str, name: &str, namespace: &str) -> String {
    format!("no valid {what} {name} in namespace {namespace}; for another namespace write {name}.NAMESPACE")
}

fn header_templates(places: Vec<Place<'_>>, scope: &Scope<'_>) -> Result<Vec<HeaderTemplate>, Fault> {
    let mut found = Vec::new();
    for place in places {
        let mut fields = place.fields()?;
        let name = fields.need("name")?.text()?.to_ascii_lowercase();
        let mut values = Vec::new();
        for value in fields.list("values")? {
            values.push(expression(&value, Some(Type::String), scope)?);
        }
        let operation = match fields.text("operation")?.as_str() {
            "" | "REPLACE" | "0" => Operation::Replace,
            "REMOVE" | "1" => Operation::Remove,
            "APPEND" | "2" => Operation::Append,
            other => return Err(place.fault(format!("unknown operation {other}: REPLACE, REMOVE or APPEND"))),
        };
        if (operation == Operation::Remove) != values.is_empty() {
            return Err(place.fault("REPLACE and APPEND need values, REMOVE has none"));
        }
        fields.done()?;
        found.push(HeaderTemplate { name, values, operation });
    }
    Ok(found)
}

impl HeaderTemplate {
    /// The operations for a request; values that are empty or absent are skipped (MX-24).
    pub fn apply<'a>(&'a self, reader: &mut Reader<'a, '_>, to: &mut Vec<HeaderOperation>) {
        if self.operation == Operation::Remove {
            to.push(HeaderOperation { name: self.name.clone(), value: String::new(), operation: self.operation });
        }
        let mut operation = self.operation;
        for value in &self.values {
            match value.eval(reader).map(|value| value.to_string()) {
                Ok(value) if !value.is_empty() => {
                    to.push(HeaderOperation { name: self.name.clone(), value, operation });
                    // The first value replaces, the others join it.
                    operation = Operation::Append;
                }
                Ok(_) => {}
                Err(failure) => tracing::debug!(header = %self.name, "skipped: {failure}"),
            }
        }
    }
}
