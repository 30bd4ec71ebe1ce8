//! A YAML document as a tree that remembers lines, and a serde deserializer that names the field it fails at.

use super::problem::Class;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_saphyr::Spanned;
use std::fmt;

/// A value and the line it stands on.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Line, counted from 1.
    pub line: u32,
    /// The value.
    pub value: Value,
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
    /// A mapping in the order of writing; each key with its own line.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Parses one document; `first_line` is the line of the file on which it begins, counted from 1.
    ///
    /// # Errors
    /// A [`Fault`] of class syntax with the line in the file.
    pub fn parse(text: &str, first_line: u32) -> Result<Self, Fault> {
        let options = serde_saphyr::options! { strict_booleans: true };
        let mut node: Self = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(1, |at| u32::try_from(at.line()).unwrap_or(1));
            let whole = error.to_string();
            let first = whole.lines().next().unwrap_or("malformed YAML");
            let message =
                first.split_once(": ").map_or(first, |(_, rest)| rest.split_once(": ").map_or(rest, |(_, m)| m));
            let message = message.to_owned();
            Fault { class: Class::Syntax, path: Vec::new(), line: line + first_line - 1, message }
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

    /// The text of a scalar.
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

    /// Decodes this tree as `T`.
    ///
    /// # Errors
    /// A [`Fault`] that names the field and its line.
    pub fn decode<'de, T: Deserialize<'de>>(&'de self) -> Result<T, Fault> {
        T::deserialize(self).map_err(|mut fault| {
            if fault.line == 0 {
                fault.line = self.line;
            }
            fault
        })
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

/// Why a document or a part of it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its class.
    pub class: Class,
    /// The way to the field, innermost first while it climbs, outermost first in [`Fault::field`].
    path: Vec<String>,
    /// Line in the file; 0 while unknown.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

impl Fault {
    /// A fault without a field.
    pub fn new(class: Class, line: u32, message: impl Into<String>) -> Self {
        Self { class, path: Vec::new(), line, message: message.into() }
    }

    /// The field, as `spec.http[0].weight`.
    pub fn field(&self) -> String {
        let mut out = String::new();
        for part in self.path.iter().rev() {
            if !out.is_empty() && !part.starts_with('[') {
                out.push('.');
            }
            out.push_str(part);
        }
        out
    }

    pub(super) fn under(mut self, part: String, line: u32) -> Self {
        if self.line == 0 {
            self.line = line;
        }
        self.path.push(part);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.field(), self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Class::Semantic, 0, message.to_string())
    }
    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Class::WrongType, 0, format!("expected {expected}, found {found}"))
    }
    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Class::WrongType, 0, format!("expected {expected}, found {found}"))
    }
    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let near = expected.iter().min_by_key(|known| distance(known, field));
        let hint = near.map_or_else(String::new, |known| format!("; did you mean {known}?"));
        Self::new(Class::UnknownField, 0, format!("unknown field {field}{hint}"))
    }
    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Class::WrongType, 0, format!("unknown value {variant}, expected one of {}", expected.join(", ")))
    }
}

/// Edit distance, for hints.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = if ca.eq_ignore_ascii_case(cb) { diagonal } else { diagonal + 1 };
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_negative) => visitor.visit_i64(*value),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_borrowed_str(value),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        }
        .map_err(|mut fault: Fault| {
            if fault.line == 0 && fault.path.is_empty() {
                fault.line = self.line;
            }
            fault
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// As in protobuf's JSON and in Kubernetes, null is the default of any type.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.value == Value::Null {
            return visitor.visit_seq(Items { items: [].iter(), index: 0 });
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.value == Value::Null {
            return visitor.visit_map(Entries { entries: [].iter(), value: None });
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            // a choice with a content, as `{header: x}`
            Value::Map(entries) if entries.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(Entries { entries: entries.iter(), value: None }))
            }
            _ => Err(Fault::new(Class::WrongType, self.line, "expected a text")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string
        bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Node>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(item).map(Some).map_err(|fault| fault.under(format!("[{index}]"), item.line))
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, (String, Node)>,
    value: Option<(&'de str, &'de Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key, value));
        seed.deserialize(key.as_str().into_deserializer())
            .map(Some)
            .map_err(|fault: Fault| fault.under(key.clone(), value.line))
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, value) = self.value.take().ok_or_else(|| Fault::new(Class::Syntax, 0, "value without a key"))?;
        seed.deserialize(value).map_err(|fault| fault.under(key.to_owned(), value.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::istio::virtual_service::VirtualService;

    fn fault(yaml: &str) -> Fault {
        Node::parse(yaml, 1).unwrap().decode::<VirtualService>().unwrap_err()
    }

    #[test]
    fn names_field_and_line_of_an_unknown_field() {
        let fault = fault("hosts: [a]\nhttp:\n- route:\n  - destination: {host: a}\n    wieght: 3\n");
        assert_eq!(
            (fault.class, fault.line, fault.field().as_str()),
            (Class::UnknownField, 5, "http[0].route[0].wieght")
        );
        assert!(fault.message.contains("did you mean weight?"), "{}", fault.message);
    }

    #[test]
    fn names_field_and_line_of_a_wrong_type() {
        let fault = fault("hosts: [a]\nhttp:\n- route:\n  - weight: heavy\n");
        assert_eq!((fault.class, fault.line, fault.field().as_str()), (Class::WrongType, 4, "http[0].route[0].weight"));
    }

    #[test]
    fn json_is_decoded_by_the_same_rules() {
        let json =
            serde_json::json!({"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}, "wieght": 3}]}]});
        let fault = Node::from_json(json).decode::<VirtualService>().unwrap_err();
        assert_eq!((fault.line, fault.field().as_str()), (0, "http[0].route[0].wieght"));
        let numbers = serde_json::json!([1, -1, 1.5, u64::MAX]);
        let Value::List(items) = Node::from_json(numbers).value else { panic!("a list") };
        assert_eq!(items[0].value, Value::Int(1));
        assert_eq!(items[2].value, Value::Float(1.5));
        assert!(matches!(items[3].value, Value::Float(_)), "what no i64 holds is a float, as in YAML");
    }

    #[test]
    fn names_the_field_that_is_not_supported_yet() {
        let fault = fault("http:\n- fault:\n    delay:\n      exponentialDelay: 1s\n");
        assert_eq!(fault.field(), "http[0].fault.delay.exponentialDelay");
        assert_eq!(fault.message, proto::istio::NOT_SUPPORTED_YET);
    }

    #[test]
    fn finds_the_line_of_a_path_in_block_and_flow_style() {
        let node = Node::parse("spec:\n  http:\n  - {route: [{weight: 1},\n     {weight: 2}]}\n", 10).unwrap();
        assert_eq!(node.line_of("spec.http[0].route[1].weight"), 13);
        assert_eq!(node.line_of("spec.http[0].nothing"), 12);
    }

    #[test]
    fn syntax_errors_carry_the_line_of_the_file() {
        let fault = Node::parse("a: [1,\nb: }\n", 5).unwrap_err();
        assert_eq!(fault.class, Class::Syntax);
        assert_eq!(fault.line, 5, "{fault}");
        assert!(fault.message.starts_with("mismatched bracket"), "{fault}");
    }
}
