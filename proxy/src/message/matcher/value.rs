//! Conditions on structured values (`ValueMatcher`).

use super::StringMatcher;
use crate::message::Metadata;
use serde_json::Value;

/// A condition on a value; what is not there counts as null.
#[derive(Debug)]
pub enum ValueMatcher {
    /// Null.
    Null,
    /// A number from the first to below the second.
    Range(f64, f64),
    /// This number.
    Number(f64),
    /// A text.
    Text(StringMatcher),
    /// This truth.
    Bool(bool),
    /// A text, a number or a truth where this is true; as with Envoy, nothing meets the opposite.
    Present(bool),
    /// A list with an element that meets the condition.
    OneOf(Box<Self>),
    /// One of these holds.
    Or(Box<[Self]>),
}

impl ValueMatcher {
    /// Whether the value meets the condition.
    pub fn matches(&self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Range(from, below) => value.as_f64().is_some_and(|number| number >= *from && number < *below),
            Self::Number(wanted) => value.as_f64() == Some(*wanted),
            Self::Text(matcher) => value.as_str().is_some_and(|text| matcher.matches(text.as_bytes())),
            Self::Bool(wanted) => value.as_bool() == Some(*wanted),
            Self::Present(wanted) => *wanted && (value.is_string() || value.is_number() || value.is_boolean()),
            Self::OneOf(matcher) => value.as_array().is_some_and(|list| list.iter().any(|item| matcher.matches(item))),
            Self::Or(any) => any.iter().any(|matcher| matcher.matches(value)),
        }
    }
}

/// A condition on what a filter has left.
#[derive(Debug)]
pub struct MetadataMatcher {
    pub(super) filter: Box<str>,
    /// Keys down to the value.
    pub(super) path: Box<[Box<str>]>,
    pub(super) value: ValueMatcher,
    pub(super) invert: bool,
}

impl MetadataMatcher {
    /// Whether what was left meets the condition.
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        let root = metadata.and_then(|metadata| metadata.get(&self.filter));
        let value = root.and_then(|root| self.path.iter().try_fold(root, |value, key| value.get(&**key)));
        self.value.matches(value.unwrap_or(&Value::Null)) != self.invert
    }
}
