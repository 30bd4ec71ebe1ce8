//! What a rule takes from a request and gives to an adapter: `instance`, or an object of the old kind per template.

use super::object::Object;
use crate::attribute::{Type, Value, Vocabulary};
use crate::expression::check::Scope;
use crate::expression::eval::{Failure, Reader};
use crate::expression::{Expression, Fault as ExpressionFault};
use crate::yaml::{Fault, Place};
use std::borrow::Cow;

/// Kinds of objects that are instances: the general one, and one per template (MX-51).
pub const KINDS: &[&str] =
    &["instance", "checknothing", "reportnothing", "listentry", "quota", "metric", "logentry", "kubernetes"];

/// A checked instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What it takes.
    pub template: Template,
}

/// A template with its expressions (spec 1.8).
#[derive(Debug, Clone)]
pub enum Template {
    /// `checknothing`: the rule's match says it all.
    CheckNothing,
    /// `reportnothing`.
    ReportNothing,
    /// `listentry`: a value to be looked up.
    ListEntry(Expression),
    /// `quota`: what is counted apart.
    Quota(Vec<(String, Expression)>),
    /// `keyval`, of Istio's task on control of headers: a key to be looked up.
    KeyVal(Expression),
    /// `metric`.
    Metric {
        /// How much.
        value: Expression,
        /// Labels.
        dimensions: Vec<(String, Expression)>,
    },
    /// `logentry`.
    LogEntry {
        /// What is logged.
        variables: Vec<(String, Expression)>,
        /// When it happened.
        timestamp: Option<Expression>,
        /// How serious it is.
        severity: Option<Expression>,
    },
    /// `kubernetes`: mixer joins workloads by itself, so there is nothing to ask.
    Joined,
}

/// When an instance is used (its template's variety).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variety {
    /// Before a request.
    Check,
    /// Before a request, where a QuotaSpec asks for it.
    Quota,
    /// After a request.
    Report,
    /// Never: there is nothing to do.
    Generate,
}

impl Template {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::CheckNothing => "checknothing",
            Self::ReportNothing => "reportnothing",
            Self::ListEntry(_) => "listentry",
            Self::Quota(_) => "quota",
            Self::KeyVal(_) => "keyval",
            Self::Metric { .. } => "metric",
            Self::LogEntry { .. } => "logentry",
            Self::Joined => "kubernetes",
        }
    }

    /// What it reads before a request.
    pub fn expressions(&self) -> Vec<&Expression> {
        match self {
            Self::ListEntry(value) | Self::KeyVal(value) => vec![value],
            Self::Quota(dimensions) => dimensions.iter().map(|(_, value)| value).collect(),
            _ => Vec::new(),
        }
    }

    /// When it is used.
    pub fn variety(&self) -> Variety {
        match self {
            Self::CheckNothing | Self::ListEntry(_) | Self::KeyVal(_) => Variety::Check,
            Self::Quota(_) => Variety::Quota,
            Self::ReportNothing | Self::Metric { .. } | Self::LogEntry { .. } => Variety::Report,
            Self::Joined => Variety::Generate,
        }
    }
}

/// Texts of a set of named expressions.
///
/// # Errors
/// The first that fails.
pub fn texts<'a>(
    named: &'a [(String, Expression)],
    reader: &mut Reader<'a, '_>,
) -> Result<Vec<(&'a str, Cow<'a, str>)>, Failure> {
    let text = |value: Value<'a>| match value {
        Value::Text(text) => text,
        other => Cow::Owned(other.to_string()),
    };
    named.iter().map(|(name, expression)| Ok((name.as_str(), text(expression.eval(reader)?)))).collect()
}

impl Instance {
    /// Reads an object (MX-47).
    ///
    /// # Errors
    /// An unknown template or field, or an expression that does not check.
    pub fn parse(object: &Object, vocabulary: &Vocabulary) -> Result<Self, Fault> {
        let spec = Place::new(&object.spec, "spec");
        let template = if object.key.kind == "instance" {
            let mut fields = spec.fields()?;
            let name = fields
                .get("compiledTemplate")
                .or_else(|| fields.get("template"))
                .ok_or_else(|| spec.fault("name a template: compiledTemplate, such as listentry"))?;
            // mixer binds nothing anew: what `kubernetes` instances produce is joined already.
            fields.get("attributeBindings");
            let empty = crate::yaml::Node::empty(object.spec.line);
            let params = fields.get("params").unwrap_or_else(|| Place::new(&empty, "spec.params"));
            fields.done()?;
            parse_template(&name.text()?, &name, &params, vocabulary)?
        } else {
            parse_template(&object.key.kind, &spec, &spec, vocabulary)?
        };
        Ok(Self { name: object.key.name.clone(), namespace: object.key.namespace.clone(), template })
    }
}

fn parse_template(name: &str, at: &Place<'_>, params: &Place<'_>, vocabulary: &Vocabulary) -> Result<Template, Fault> {
    if name == "kubernetes" {
        return Ok(Template::Joined);
    }
    let scope = Scope::of(vocabulary);
    let mut fields = params.fields()?;
    // Where Stackdriver files what it gets: no other adapter reads it.
    fields.get("monitoredResourceType");
    fields.get("monitoredResourceDimensions");
    let template = match name {
        "checknothing" => Template::CheckNothing,
        "reportnothing" => Template::ReportNothing,
        "listentry" => Template::ListEntry(expression(&fields.need("value")?, None, &scope)?),
        "quota" => Template::Quota(expressions(fields.get("dimensions"), &scope)?),
        "keyval" => Template::KeyVal(expression(&fields.need("key")?, Some(Type::String), &scope)?),
        "metric" => Template::Metric {
            value: number(&fields.need("value")?, &scope)?,
            dimensions: expressions(fields.get("dimensions"), &scope)?,
        },
        "logentry" => Template::LogEntry {
            variables: expressions(fields.get("variables"), &scope)?,
            timestamp: optional(fields.get("timestamp"), Type::Timestamp, &scope)?,
            severity: optional(fields.get("severity"), Type::String, &scope)?,
        },
        "authorization" | "apikey" | "tracespan" | "edge" => {
            return Err(at.fault(format!(
                "the template {name} is not supported; AuthorizationPolicy and the Telemetry API do its work"
            )));
        }
        other => return Err(at.fault(format!("unknown template {other}"))),
    };
    fields.done()?;
    Ok(template)
}

fn number(place: &Place<'_>, scope: &Scope<'_>) -> Result<Expression, Fault> {
    let found = expression(place, None, scope)?;
    match found.kind() {
        Type::Int64 | Type::Double | Type::Duration => Ok(found),
        other => Err(place.fault(format!("{} is no number", other.name()))),
    }
}

fn optional(place: Option<Place<'_>>, kind: Type, scope: &Scope<'_>) -> Result<Option<Expression>, Fault> {
    place.map(|place| expression(&place, Some(kind), scope)).transpose()
}

fn expressions(place: Option<Place<'_>>, scope: &Scope<'_>) -> Result<Vec<(String, Expression)>, Fault> {
    let Some(place) = place else { return Ok(Vec::new()) };
    place.entries()?.into_iter().map(|(name, place)| Ok((name.to_owned(), expression(&place, None, scope)?))).collect()
}

/// The expression that stands in a field; a number or a truth value is one as well.
///
/// # Errors
/// With line, field and column.
pub fn expression(place: &Place<'_>, kind: Option<Type>, scope: &Scope<'_>) -> Result<Expression, Fault> {
    let text = place.text()?;
    let compiled = match kind {
        Some(kind) => Expression::typed(&text, kind, scope),
        None => Expression::compile(&text, scope),
    };
    compiled.map_err(|fault: ExpressionFault| place.fault(fault.to_string()))
}
