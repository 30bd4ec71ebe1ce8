//! Program × bag → value. Allocates only where a text must be made.

use super::check::{Function, Node};
use super::parse::Operator;
use crate::attribute::{Bag, Touched, Value};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

/// What an evaluation reads, and where it notes what it read.
#[derive(Debug)]
pub struct Reader<'a, 'r> {
    bag: &'a Bag<'a>,
    touched: &'r mut Touched<'a>,
    outputs: &'a [Option<String>],
}

impl<'a, 'r> Reader<'a, 'r> {
    /// Reads a bag.
    pub fn new(bag: &'a Bag<'a>, touched: &'r mut Touched<'a>) -> Self {
        Self { bag, touched, outputs: &[] }
    }

    /// Reads what an adapter put out as well.
    pub fn with_outputs(self, outputs: &'a [Option<String>]) -> Self {
        Self { outputs, ..self }
    }
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// An attribute or an entry is not there (MX-56).
    #[error("{0} is absent; write {0} | \"a default\"")]
    Absent(Arc<str>),
    /// A text is not what a function needs.
    #[error("{0:?} is no {1}")]
    Malformed(String, &'static str),
}

/// Evaluates a program.
///
/// # Errors
/// An absent attribute without a default, or a malformed text.
pub fn eval<'a>(node: &'a Node, reader: &mut Reader<'a, '_>) -> Result<Value<'a>, Failure> {
    match node {
        Node::Constant(value) => Ok(value.borrow()),
        Node::Attribute(id, name) => {
            reader.touched.attribute(*id, || Cow::Borrowed(name.as_ref()));
            reader.bag.get(*id).map(Value::borrow).ok_or_else(|| Failure::Absent(name.clone()))
        }
        Node::Entry(id, name, key) => {
            let Value::Text(key) = eval(key, reader)? else { return Err(Failure::Absent(name.clone())) };
            reader.touched.entry(*id, key.clone(), || Cow::Borrowed(name.as_ref()));
            let found = match reader.bag.get(*id) {
                Some(Value::Map(map)) => map.get(&key),
                _ => None,
            };
            found.map(Value::text).ok_or_else(|| Failure::Absent(format!("{name}[{key:?}]").into()))
        }
        Node::Output(index) => match reader.outputs.get(*index) {
            Some(Some(text)) => Ok(Value::text(text)),
            _ => Err(Failure::Absent("output".into())),
        },
        Node::Default(first, second) => match eval(first, reader) {
            Err(Failure::Absent(_)) => eval(second, reader),
            other => other,
        },
        Node::And(left, right) => Ok(Value::Bool(truth(left, reader)? && truth(right, reader)?)),
        Node::Or(left, right) => Ok(Value::Bool(truth(left, reader)? || truth(right, reader)?)),
        Node::Compare(operator, left, right) => {
            let (left, right) = (eval(left, reader)?, eval(right, reader)?);
            Ok(Value::Bool(compare(*operator, &left, &right)))
        }
        Node::Plus(left, right) => Ok(plus(eval(left, reader)?, eval(right, reader)?)),
        Node::Conditional(condition, then, other) => {
            let chosen = if truth(condition, reader)? { then } else { other };
            eval(chosen, reader)
        }
        Node::Matches(pattern, text) => Ok(Value::Bool(pattern.is_match(&text_of(text, reader)?))),
        Node::Call(function, arguments) => call(*function, arguments, reader),
    }
}

fn truth<'a>(node: &'a Node, reader: &mut Reader<'a, '_>) -> Result<bool, Failure> {
    Ok(eval(node, reader)? == Value::Bool(true))
}

fn text_of<'a>(node: &'a Node, reader: &mut Reader<'a, '_>) -> Result<Cow<'a, str>, Failure> {
    match eval(node, reader)? {
        Value::Text(text) => Ok(text),
        other => Ok(Cow::Owned(other.to_string())),
    }
}

fn compare(operator: Operator, left: &Value<'_>, right: &Value<'_>) -> bool {
    let order = match (left, right) {
        (Value::Text(one), Value::Text(other)) => Some(one.as_ref().cmp(other.as_ref())),
        (Value::Int(one), Value::Int(other)) => Some(one.cmp(other)),
        (Value::Double(one), Value::Double(other)) => one.partial_cmp(other),
        (Value::Time(one), Value::Time(other)) => Some(one.cmp(other)),
        (Value::Duration(one), Value::Duration(other)) => Some(one.cmp(other)),
        (Value::Ip(one), Value::Ip(other)) => Some(one.to_canonical().cmp(&other.to_canonical())),
        (one, other) => (one == other).then_some(Ordering::Equal),
    };
    match operator {
        Operator::Equal => order == Some(Ordering::Equal),
        Operator::NotEqual => order != Some(Ordering::Equal),
        Operator::Less => order == Some(Ordering::Less),
        Operator::LessOrEqual => order.is_some_and(Ordering::is_le),
        Operator::Greater => order == Some(Ordering::Greater),
        Operator::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        Operator::Or | Operator::And | Operator::Plus | Operator::Default => false,
    }
}

fn plus<'a>(left: Value<'a>, right: Value<'a>) -> Value<'a> {
    match (left, right) {
        (Value::Int(one), Value::Int(other)) => Value::Int(one.saturating_add(other)),
        (Value::Double(one), Value::Double(other)) => Value::Double(one + other),
        (one, other) => Value::Text(Cow::Owned(format!("{one}{other}"))),
    }
}

fn call<'a>(function: Function, arguments: &'a [Node], reader: &mut Reader<'a, '_>) -> Result<Value<'a>, Failure> {
    let mut argument = |index: usize| match arguments.get(index) {
        Some(node) => text_of(node, reader),
        None => Ok(Cow::Borrowed("")),
    };
    let text = argument(0)?;
    Ok(match function {
        Function::Match => Value::Bool(wildcard(&text, &argument(1)?)),
        Function::StartsWith => Value::Bool(text.starts_with(argument(1)?.as_ref())),
        Function::EndsWith => Value::Bool(text.ends_with(argument(1)?.as_ref())),
        Function::Ip => {
            Value::Ip(text.parse::<IpAddr>().map_err(|_| Failure::Malformed(text.into_owned(), "IP address"))?)
        }
        Function::Timestamp => {
            Value::Time(text.parse().map_err(|_| Failure::Malformed(text.into_owned(), "RFC 3339 timestamp"))?)
        }
        Function::DnsName => Value::Text(Cow::Owned(dns_name(&text)?)),
        Function::Email => Value::Text(Cow::Owned(email(&text)?)),
        Function::Uri => Value::Text(Cow::Owned(uri(&text)?)),
        Function::ToLower => Value::Text(Cow::Owned(text.to_lowercase())),
        Function::Reverse => Value::Text(Cow::Owned(text.chars().rev().collect())),
        Function::Size => Value::Int(i64::try_from(text.len()).unwrap_or(i64::MAX)),
    })
}

/// A star at the end is a prefix match, one at the beginning a suffix match, anything else is compared as it stands.
fn wildcard(text: &str, pattern: &str) -> bool {
    if let Some(prefix) = pattern.strip_suffix('*') {
        return text.starts_with(prefix);
    }
    pattern.strip_prefix('*').map_or(text == pattern, |suffix| text.ends_with(suffix))
}

/// Small letters, without the dot at the end (MX-55).
fn dns_name(text: &str) -> Result<String, Failure> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let inner = label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_' || c == '*');
        !label.is_empty() && label.len() <= 63 && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(Failure::Malformed(text.to_owned(), "DNS name"));
    }
    Ok(name.to_lowercase())
}

/// The domain as a DNS name, the part before the @ as it stands.
fn email(text: &str) -> Result<String, Failure> {
    let malformed = || Failure::Malformed(text.to_owned(), "e-mail address");
    let (local, domain) = text.rsplit_once('@').ok_or_else(malformed)?;
    if local.is_empty() || local.contains(char::is_whitespace) {
        return Err(malformed());
    }
    Ok(format!("{local}@{}", dns_name(domain).map_err(|_| malformed())?))
}

/// Scheme, and host of http and https, in small letters.
fn uri(text: &str) -> Result<String, Failure> {
    let malformed = || Failure::Malformed(text.to_owned(), "URI");
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(malformed());
    }
    let Some((scheme, rest)) = text.split_once(':') else { return Ok(text.to_owned()) };
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(malformed());
    }
    let scheme = scheme.to_ascii_lowercase();
    let Some(after) = rest.strip_prefix("//").filter(|_| matches!(scheme.as_str(), "http" | "https")) else {
        return Ok(format!("{scheme}:{rest}"));
    };
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (authority, path) = after.split_at(end);
    Ok(format!("{scheme}://{}{path}", authority.to_ascii_lowercase()))
}
