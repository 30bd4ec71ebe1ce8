//! YAML as a tree that remembers its lines, so that who reads it can say where it is wrong.

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;
use std::fmt;

/// A value and the line it stands on.
#[derive(Debug, Clone)]
pub struct Node {
    /// Line, counted from 1.
    pub line: u32,
    /// The value.
    pub value: Value,
}

/// Equal by value: the same text further down is the same.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// A YAML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of writing.
    Map(Vec<(String, Node)>),
}

/// Why a text is no YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Broken {
    /// Line in the file.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// The documents of a text that are not empty, with the line on which each begins, counted from 1.
pub fn documents(text: &str) -> Vec<(u32, &str)> {
    let mut out = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let line_number = u32::try_from(index).unwrap_or(u32::MAX - 1) + 1;
        let end = offset + line.len();
        if line.trim_end() == "---" || line.starts_with("--- ") {
            out.push((start_line, text.get(start..offset).unwrap_or("")));
            (start, start_line) = (end, line_number + 1);
        }
        offset = end;
    }
    out.push((start_line, text.get(start..).unwrap_or("")));
    out.retain(|(_, document)| {
        document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    out
}

impl Node {
    /// Parses one document; `first_line` is the line of the file on which it begins, counted from 1.
    ///
    /// # Errors
    /// Where it is no YAML.
    pub fn parse(text: &str, first_line: u32) -> Result<Self, Broken> {
        let options = serde_saphyr::options! { strict_booleans: true };
        let mut node: Self = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(1, |at| u32::try_from(at.line()).unwrap_or(1));
            let whole = error.to_string();
            let first = whole.lines().next().unwrap_or("malformed YAML");
            // What stands before is a place within the document, and its kind.
            let message =
                first.split_once(": ").map_or(first, |(_, rest)| rest.split_once(": ").map_or(rest, |(_, m)| m));
            Broken { line: line + first_line - 1, message: message.to_owned() }
        })?;
        node.shift(first_line - 1);
        Ok(node)
    }

    /// The same from JSON, which has no lines: they are 0.
    pub fn from_json(json: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Value::Int(value),
                (None, value) => Value::Float(value.unwrap_or_default()),
            },
            Json::String(text) => Value::Text(text),
            Json::Array(items) => Value::List(items.into_iter().map(Self::from_json).collect()),
            Json::Object(entries) => {
                Value::Map(entries.into_iter().map(|(key, value)| (key, Self::from_json(value))).collect())
            }
        };
        Self { line: 0, value }
    }

    /// The same as JSON.
    pub fn json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::json).collect(),
            Value::Map(entries) => {
                serde_json::Value::Object(entries.iter().map(|(key, value)| (key.clone(), value.json())).collect())
            }
        }
    }

    /// An empty mapping on a line.
    pub fn empty(line: u32) -> Self {
        Self { line, value: Value::Map(Vec::new()) }
    }

    fn shift(&mut self, by: u32) {
        self.line += by;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.shift(by)),
            _ => {}
        }
    }

    /// The entry of a mapping.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text of a text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The line of the deepest part of `path` (`spec.http[0].weight`) that exists.
    pub fn line_of(&self, path: &str) -> u32 {
        let mut at = self;
        for part in path.split(['.', '[']).map(|part| part.trim_end_matches(']')) {
            let next = match (&at.value, part.parse::<usize>()) {
                (Value::List(items), Ok(index)) => items.get(index),
                _ => at.field(part),
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        at.line
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: u32::try_from(spanned.referenced.line()).unwrap_or(0), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;
        impl<'de> Visitor<'de> for AnyValue {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_none<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }
            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(Value::Text(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Value::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<String, Node>()? {
                    entries.push(entry);
                }
                Ok(Value::Map(entries))
            }
        }
        deserializer.deserialize_any(AnyValue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_line_of_a_path_in_block_and_flow_style() {
        let node = Node::parse("spec:\n  http:\n  - {route: [{weight: 1},\n     {weight: 2}]}\n", 10).unwrap();
        assert_eq!(node.line_of("spec.http[0].route[1].weight"), 13);
        assert_eq!(node.line_of("spec.http[0].nothing"), 12);
    }

    #[test]
    fn syntax_errors_carry_the_line_of_the_file() {
        let broken = Node::parse("a: [1,\nb: }\n", 5).unwrap_err();
        assert_eq!(broken.line, 5, "{broken}");
        assert!(broken.message.starts_with("mismatched bracket"), "{broken}");
    }
}
