//! Tree → typed program (MX-58). Names become numbers; calls of constants are done here, so that a malformed address
//! or pattern is found when a rule is loaded.

use super::Fault;
use super::eval::{self, Reader};
use super::parse::{Kind, Operator, Tree};
use crate::attribute::{AttributeId, Bag, Map, Touched, Type, Value, Vocabulary};
use std::borrow::Cow;
use std::sync::Arc;

/// What names may mean in an expression.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'v> {
    /// The attributes.
    pub vocabulary: &'v Vocabulary,
    /// What an adapter put out, by the name under which the expression may ask for it.
    pub outputs: &'v [(String, Type)],
}

impl<'v> Scope<'v> {
    /// Attributes only.
    pub fn of(vocabulary: &'v Vocabulary) -> Self {
        Self { vocabulary, outputs: &[] }
    }
}

/// A step of a program.
#[derive(Debug, Clone)]
pub enum Node {
    /// A value.
    Constant(Value<'static>),
    /// An attribute as a whole, and its name.
    Attribute(AttributeId, Arc<str>),
    /// An entry of an attribute that is a map.
    Entry(AttributeId, Arc<str>, Box<Self>),
    /// What an adapter put out.
    Output(usize),
    /// The first that is present.
    Default(Box<Self>, Box<Self>),
    /// All hold.
    And(Box<Self>, Box<Self>),
    /// One holds.
    Or(Box<Self>, Box<Self>),
    /// A comparison of two values of one type.
    Compare(Operator, Box<Self>, Box<Self>),
    /// Two texts, one after the other; or the sum of two numbers.
    Plus(Box<Self>, Box<Self>),
    /// The second where the first holds, else the third.
    Conditional(Box<Self>, Box<Self>, Box<Self>),
    /// A pattern found in a text.
    Matches(regex::Regex, Box<Self>),
    /// A function of texts.
    Call(Function, Vec<Self>),
}

/// Functions of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// `match(text, pattern)`: a star at the beginning or the end.
    Match,
    /// `text.startsWith(prefix)`
    StartsWith,
    /// `text.endsWith(suffix)`
    EndsWith,
    /// `ip(text)`
    Ip,
    /// `timestamp(text)`, RFC 3339.
    Timestamp,
    /// `dnsName(text)`
    DnsName,
    /// `email(text)`
    Email,
    /// `uri(text)`
    Uri,
    /// `toLower(text)`
    ToLower,
    /// `reverse(text)`
    Reverse,
    /// `size(text)`
    Size,
}

/// Name, function, number of texts it takes, type of its result.
const FUNCTIONS: [(&str, Function, usize, Type); 11] = [
    ("match", Function::Match, 2, Type::Bool),
    ("startsWith", Function::StartsWith, 2, Type::Bool),
    ("endsWith", Function::EndsWith, 2, Type::Bool),
    ("ip", Function::Ip, 1, Type::IpAddress),
    ("timestamp", Function::Timestamp, 1, Type::Timestamp),
    ("dnsName", Function::DnsName, 1, Type::DnsName),
    ("email", Function::Email, 1, Type::EmailAddress),
    ("uri", Function::Uri, 1, Type::Uri),
    ("toLower", Function::ToLower, 1, Type::String),
    ("reverse", Function::Reverse, 1, Type::String),
    ("size", Function::Size, 1, Type::Int64),
];

/// Checks a tree.
///
/// # Errors
/// A name that does not exist, a type that does not fit, a constant that is malformed.
pub fn check(tree: &Tree, scope: &Scope<'_>) -> Result<(Node, Type), Fault> {
    match &tree.kind {
        Kind::Text(text) => Ok(match proto::duration::parse(text) {
            // A literal that reads as a duration is one (MX-52).
            Ok(duration) if text.ends_with(['s', 'm', 'h']) => {
                (Node::Constant(Value::Duration(duration)), Type::Duration)
            }
            _ => (Node::Constant(Value::Text(Cow::Owned(text.clone()))), Type::String),
        }),
        Kind::Int(number) => Ok((Node::Constant(Value::Int(*number)), Type::Int64)),
        Kind::Double(number) => Ok((Node::Constant(Value::Double(*number)), Type::Double)),
        Kind::Bool(value) => Ok((Node::Constant(Value::Bool(*value)), Type::Bool)),
        Kind::Name(name) => named(name, tree.column, scope),
        Kind::Entry(map, key) => entry(map, key, scope),
        Kind::Binary(operator, left, right) => binary(*operator, tree.column, [left, right], scope),
        Kind::Call(name, receiver, arguments) => call(tree.column, name, receiver.as_deref(), arguments, scope),
    }
}

/// Notes everything that a program can read. An entry whose key is not known makes that any entry.
pub fn reads(node: &Node, all: &mut Touched<'static>) {
    match node {
        Node::Constant(_) | Node::Output(_) => {}
        Node::Attribute(id, name) => all.attribute(*id, || Cow::Owned(name.to_string())),
        Node::Entry(id, name, key) => match key.as_ref() {
            Node::Constant(Value::Text(key)) => {
                all.entry(*id, Cow::Owned(key.to_string()), || Cow::Owned(name.to_string()));
            }
            other => {
                all.attribute(*id, || Cow::Owned(name.to_string()));
                reads(other, all);
            }
        },
        Node::Matches(_, inner) => reads(inner, all),
        Node::Default(one, other) | Node::And(one, other) | Node::Or(one, other) | Node::Plus(one, other) => {
            reads(one, all);
            reads(other, all);
        }
        Node::Compare(_, one, other) => {
            reads(one, all);
            reads(other, all);
        }
        Node::Conditional(condition, one, other) => {
            [condition, one, other].into_iter().for_each(|node| reads(node, all));
        }
        Node::Call(_, arguments) => arguments.iter().for_each(|node| reads(node, all)),
    }
}

fn named(name: &str, column: usize, scope: &Scope<'_>) -> Result<(Node, Type), Fault> {
    if let Some(index) = scope.outputs.iter().position(|(known, _)| known == name) {
        let kind = scope.outputs.get(index).map_or(Type::String, |(_, kind)| *kind);
        return Ok((Node::Output(index), kind));
    }
    match scope.vocabulary.get(name) {
        Some((id, kind)) => Ok((Node::Attribute(id, name.into()), kind)),
        None => {
            Err(Fault::new(column, format!("unknown attribute {name}; an attributemanifest object may declare more")))
        }
    }
}

fn entry(map: &Tree, key: &Tree, scope: &Scope<'_>) -> Result<(Node, Type), Fault> {
    let (node, kind) = check(map, scope)?;
    let (Node::Attribute(id, name), Type::StringMap) = (node, kind) else {
        return Err(Fault::new(map.column, "only an attribute of type STRING_MAP has entries"));
    };
    let (mut key, _) = wanted(key, Type::String, scope)?;
    let headers = id == crate::attribute::vocabulary::REQUEST_HEADERS;
    if let (true, Node::Constant(Value::Text(text))) = (headers, &mut key) {
        // Names of headers are known in small letters.
        *text = Cow::Owned(text.to_ascii_lowercase());
    }
    Ok((Node::Entry(id, name, Box::new(key)), Type::String))
}

fn wanted(tree: &Tree, wanted: Type, scope: &Scope<'_>) -> Result<(Node, Type), Fault> {
    let (node, kind) = check(tree, scope)?;
    if kind == wanted {
        return Ok((node, kind));
    }
    // A text that reads as a duration stays a text where one is asked for.
    if let (Kind::Text(text), Type::String, Type::Duration) = (&tree.kind, wanted, kind) {
        return Ok((Node::Constant(Value::Text(Cow::Owned(text.clone()))), Type::String));
    }
    Err(Fault::new(tree.column, format!("this is {}, {} is asked for", kind.name(), wanted.name())))
}

/// Two operands of one type.
fn same(column: usize, [left, right]: [&Tree; 2], scope: &Scope<'_>) -> Result<(Box<Node>, Box<Node>, Type), Fault> {
    let (left_node, left_kind) = check(left, scope)?;
    let (right_node, right_kind) = check(right, scope)?;
    let (left_node, kind) = match (left_kind, right_kind) {
        (one, other) if one == other => (left_node, one),
        (Type::Duration, Type::String) => wanted(left, Type::String, scope)?,
        (Type::String, Type::Duration) => {
            return Ok((Box::new(left_node), Box::new(wanted(right, Type::String, scope)?.0), Type::String));
        }
        (one, other) => {
            return Err(Fault::new(column, format!("{} and {} do not go together", one.name(), other.name())));
        }
    };
    Ok((Box::new(left_node), Box::new(right_node), kind))
}

fn binary(
    operator: Operator,
    column: usize,
    [left, right]: [&Tree; 2],
    scope: &Scope<'_>,
) -> Result<(Node, Type), Fault> {
    if matches!(operator, Operator::And | Operator::Or) {
        let left = Box::new(wanted(left, Type::Bool, scope)?.0);
        let right = Box::new(wanted(right, Type::Bool, scope)?.0);
        let node = if operator == Operator::And { Node::And(left, right) } else { Node::Or(left, right) };
        return Ok((node, Type::Bool));
    }
    let (left, right, kind) = same(column, [left, right], scope)?;
    let ordered = matches!(kind, Type::String | Type::Int64 | Type::Double | Type::Timestamp | Type::Duration);
    let refused = || Err(Fault::new(column, format!("{} is not for {}", operator.sign(), kind.name())));
    match operator {
        Operator::Default => Ok((Node::Default(left, right), kind)),
        Operator::Plus if matches!(kind, Type::String | Type::Int64 | Type::Double) => {
            Ok((Node::Plus(left, right), kind))
        }
        Operator::Plus => refused(),
        Operator::Equal | Operator::NotEqual => Ok((Node::Compare(operator, left, right), Type::Bool)),
        _ if ordered => Ok((Node::Compare(operator, left, right), Type::Bool)),
        _ => refused(),
    }
}

fn call(
    column: usize,
    name: &str,
    receiver: Option<&Tree>,
    arguments: &[Tree],
    scope: &Scope<'_>,
) -> Result<(Node, Type), Fault> {
    let all: Vec<&Tree> = receiver.into_iter().chain(arguments).collect();
    match (name, all.as_slice()) {
        ("emptyStringMap", []) => return Ok((Node::Constant(Value::Map(Map::empty())), Type::StringMap)),
        ("conditional" | "conditionalString", [condition, then, other]) => {
            let condition = Box::new(wanted(condition, Type::Bool, scope)?.0);
            let (then, other, kind) = same(column, [then, other], scope)?;
            return Ok((Node::Conditional(condition, then, other), kind));
        }
        ("matches", [pattern, text]) => {
            let Kind::Text(source) = &pattern.kind else {
                return Err(Fault::new(pattern.column, "the pattern of matches is a literal: \"^a.*\".matches(text)"));
            };
            let compiled = regex::RegexBuilder::new(source).size_limit(1 << 20).build();
            let compiled = compiled.map_err(|error| Fault::new(pattern.column, one_line(&error.to_string())))?;
            let text = Box::new(wanted(text, Type::String, scope)?.0);
            return Ok((Node::Matches(compiled, text), Type::Bool));
        }
        _ => {}
    }
    let Some((_, function, texts, kind)) = FUNCTIONS.iter().find(|(known, ..)| *known == name) else {
        return Err(Fault::new(column, format!("unknown function {name}")));
    };
    if all.len() != *texts {
        return Err(Fault::new(column, format!("{name} takes {texts} texts, here are {}", all.len())));
    }
    let nodes = all.iter().map(|tree| Ok(wanted(tree, Type::String, scope)?.0)).collect::<Result<Vec<_>, Fault>>()?;
    let constant = nodes.iter().all(|node| matches!(node, Node::Constant(_)));
    let node = Node::Call(*function, nodes);
    Ok((if constant { fold(column, &node)? } else { node }, *kind))
}

/// The value of a call whose arguments are constants.
fn fold(column: usize, node: &Node) -> Result<Node, Fault> {
    let bag = Bag::default();
    let mut touched = Touched::default();
    let value = eval::eval(node, &mut Reader::new(&bag, &mut touched))
        .map_err(|failure| Fault::new(column, failure.to_string()))?;
    Ok(Node::Constant(match value {
        Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        Value::Map(_) => Value::Map(Map::empty()),
        Value::Int(value) => Value::Int(value),
        Value::Double(value) => Value::Double(value),
        Value::Bool(value) => Value::Bool(value),
        Value::Time(value) => Value::Time(value),
        Value::Ip(value) => Value::Ip(value),
        Value::Duration(value) => Value::Duration(value),
    }))
}

/// The last line of a report of several: the reason.
fn one_line(report: &str) -> String {
    report.lines().last().unwrap_or_default().trim().to_owned()
}
