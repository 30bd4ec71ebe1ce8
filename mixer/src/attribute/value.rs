//! Values of attributes and of expressions. They borrow from the request wherever they can.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

static EMPTY: BTreeMap<String, String> = BTreeMap::new();

/// A value. E-mail addresses, URIs and DNS names are texts in their normal form: the type check keeps them apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A whole number.
    Int(i64),
    /// Another number.
    Double(f64),
    /// A truth value.
    Bool(bool),
    /// A moment.
    Time(jiff::Timestamp),
    /// An IP address; an IPv4 address within IPv6 equals the plain one.
    Ip(IpAddr),
    /// A length of time.
    Duration(Duration),
    /// Texts by name.
    Map(Map<'a>),
}

/// Texts by name, borrowed.
#[derive(Debug, Clone, Copy)]
pub enum Map<'a> {
    /// As protobuf has them.
    Hash(&'a HashMap<String, String>),
    /// In order.
    Tree(&'a BTreeMap<String, String>),
}

impl<'a> Map<'a> {
    /// Nothing in it.
    pub fn empty() -> Self {
        Map::Tree(&EMPTY)
    }

    /// The text of this name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        match self {
            Map::Hash(map) => map.get(name).map(String::as_str),
            Map::Tree(map) => map.get(name).map(String::as_str),
        }
    }

    /// All, in order of their names.
    pub fn sorted(&self) -> Vec<(&'a str, &'a str)> {
        match self {
            Map::Tree(map) => map.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            Map::Hash(map) => {
                let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                entries.sort_unstable();
                entries
            }
        }
    }
}

impl PartialEq for Map<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.sorted() == other.sorted()
    }
}

impl<'a> Value<'a> {
    /// A text, borrowed.
    pub fn text(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }

    /// The same value, borrowed from this one.
    pub fn borrow(&'a self) -> Self {
        match self {
            Value::Text(text) => Value::Text(Cow::Borrowed(text)),
            other => other.clone(),
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Int(number) => Some(*number as f64),
            Value::Double(number) => Some(*number),
            Value::Duration(duration) => Some(duration.as_secs_f64()),
            _ => None,
        }
    }
}

/// As an adapter writes it: a label of a metric, a dimension of a quota.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Int(number) => number.fmt(f),
            Value::Double(number) => number.fmt(f),
            Value::Bool(value) => value.fmt(f),
            Value::Time(time) => time.fmt(f),
            Value::Ip(address) => address.to_canonical().fmt(f),
            Value::Duration(duration) => write!(f, "{}s", duration.as_secs_f64()),
            Value::Map(map) => {
                for (index, (key, value)) in map.sorted().into_iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}{key}={value}")?;
                }
                Ok(())
            }
        }
    }
}
