//! YAML and JSON for serde: a fault names the field that it is about, and its line.

pub use outline::{Node, Value};

use super::problem::Class;
use outline::Broken;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use std::fmt;

/// Decodes a document, or a part of one, as `T`.
///
/// # Errors
/// A [`Fault`] that names the field and its line.
pub fn decode<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<T, Fault> {
    T::deserialize(Reader(node)).map_err(|mut fault| {
        if fault.line == 0 {
            fault.line = node.line;
        }
        fault
    })
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

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::new(Class::Syntax, broken.line, broken.message)
    }
}

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

/// Reads a tree for serde.
struct Reader<'de>(&'de Node);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
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
                fault.line = self.0.line;
            }
            fault
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.value == Value::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    /// As in protobuf's JSON and in Kubernetes, null is the default of any type.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.value == Value::Null {
            return visitor.visit_seq(Items { items: [].iter(), index: 0 });
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.value == Value::Null {
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
        match &self.0.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            // a choice with a content, as `{header: x}`
            Value::Map(entries) if entries.len() == 1 => {
                visitor.visit_enum(MapAccessDeserializer::new(Entries { entries: entries.iter(), value: None }))
            }
            _ => Err(Fault::new(Class::WrongType, self.0.line, "expected a text")),
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
        seed.deserialize(Reader(item)).map(Some).map_err(|fault| fault.under(format!("[{index}]"), item.line))
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
        seed.deserialize(Reader(value)).map_err(|fault| fault.under(key.to_owned(), value.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::istio::virtual_service::VirtualService;

    fn fault(yaml: &str) -> Fault {
        decode::<VirtualService>(&Node::parse(yaml, 1).unwrap()).unwrap_err()
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
        let fault = decode::<VirtualService>(&Node::from_json(json)).unwrap_err();
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
}
