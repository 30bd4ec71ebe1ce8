//! A reader of YAML's mappings that names the field it stumbles over.
//!
//! Names of fields are taken in protobuf's two forms: `maxAmount` and `max_amount`.

pub use outline::{Node, Value};

use outline::Broken;
use std::time::Duration;

/// The largest file that is read, in bytes.
pub const MAX_FILE: usize = 4 * 1024 * 1024;

/// Why a part of a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {field}: {message}")]
pub struct Fault {
    /// Line in the file.
    pub line: u32,
    /// The field, as `spec.actions[0].handler`.
    pub field: String,
    /// What is wrong, and the way out.
    pub message: String,
}

/// Parses each document of a file; empty ones are left out.
pub fn documents(text: &str) -> Vec<Result<Node, Fault>> {
    let fault = |Broken { line, message }| Fault { line, field: String::new(), message };
    let parse = |(first_line, document)| Node::parse(document, first_line).map_err(fault);
    outline::documents(text).into_iter().map(parse).collect()
}

/// A value together with the way to it.
#[derive(Debug, Clone)]
pub struct Place<'n> {
    node: &'n Node,
    path: String,
}

impl<'n> Place<'n> {
    /// The root of a part, with the name it has in messages.
    pub fn new(node: &'n Node, path: impl Into<String>) -> Self {
        Self { node, path: path.into() }
    }

    /// A fault of this place.
    pub fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { line: self.node.line, field: self.path.clone(), message: message.into() }
    }

    /// The value itself.
    pub fn node(&self) -> &'n Node {
        self.node
    }

    /// A text. A number or a truth value is taken as it would be written.
    ///
    /// # Errors
    /// Where it is a list or a mapping.
    pub fn text(&self) -> Result<String, Fault> {
        match &self.node.value {
            Value::Text(text) => Ok(text.clone()),
            Value::Int(number) => Ok(number.to_string()),
            Value::Float(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            Value::Null => Ok(String::new()),
            Value::List(_) | Value::Map(_) => Err(self.fault("a text is asked for")),
        }
    }

    /// A whole number; protobuf's JSON writes large ones as text.
    ///
    /// # Errors
    /// Where it is none.
    pub fn int(&self) -> Result<i64, Fault> {
        match &self.node.value {
            Value::Int(number) => Ok(*number),
            Value::Text(text) => text.parse().map_err(|_| self.fault("a whole number is asked for")),
            _ => Err(self.fault("a whole number is asked for")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// Where it is none.
    pub fn number(&self) -> Result<f64, Fault> {
        match &self.node.value {
            Value::Int(number) => Ok(*number as f64),
            Value::Float(number) => Ok(*number),
            _ => Err(self.fault("a number is asked for")),
        }
    }

    /// A truth value.
    ///
    /// # Errors
    /// Where it is none.
    pub fn bool(&self) -> Result<bool, Fault> {
        match &self.node.value {
            Value::Bool(value) => Ok(*value),
            _ => Err(self.fault("true or false is asked for")),
        }
    }

    /// A duration.
    ///
    /// # Errors
    /// Where it is none.
    pub fn duration(&self) -> Result<Duration, Fault> {
        proto::duration::parse(&self.text()?).map_err(|error| self.fault(error.to_string()))
    }

    /// The items of a list; nothing is an empty one.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn list(&self) -> Result<Vec<Self>, Fault> {
        match &self.node.value {
            Value::Null => Ok(Vec::new()),
            Value::List(items) => {
                Ok(items.iter().zip(0..).map(|(item, i)| Self::new(item, format!("{}[{i}]", self.path))).collect())
            }
            _ => Err(self.fault("a list is asked for")),
        }
    }

    /// The entries of a mapping, whatever their names.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn entries(&self) -> Result<Vec<(&'n str, Self)>, Fault> {
        match &self.node.value {
            Value::Null => Ok(Vec::new()),
            Value::Map(entries) => Ok(entries
                .iter()
                .map(|(key, value)| (key.as_str(), Self::new(value, format!("{}.{key}", self.path))))
                .collect()),
            _ => Err(self.fault("a mapping is asked for")),
        }
    }

    /// The mapping, to be read field by field.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn fields(&self) -> Result<Fields<'n>, Fault> {
        Ok(Fields { place: self.clone(), entries: self.entries()?, known: Vec::new() })
    }
}

/// A mapping that is read field by field; what is left at the end is unknown.
#[derive(Debug)]
pub struct Fields<'n> {
    place: Place<'n>,
    entries: Vec<(&'n str, Place<'n>)>,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// A field by its name in camel case.
    pub fn get(&mut self, name: &'static str) -> Option<Place<'n>> {
        self.known.push(name);
        let at = self.entries.iter().position(|(key, _)| *key == name || snake_is(key, name))?;
        let (_, place) = self.entries.swap_remove(at);
        (place.node.value != Value::Null).then_some(place)
    }

    /// A field that must be there.
    ///
    /// # Errors
    /// Where it is not.
    pub fn need(&mut self, name: &'static str) -> Result<Place<'n>, Fault> {
        self.get(name).ok_or_else(|| self.place.fault(format!("{name} is missing")))
    }

    /// A text, empty where the field is not there.
    ///
    /// # Errors
    /// Where it is no text.
    pub fn text(&mut self, name: &'static str) -> Result<String, Fault> {
        self.get(name).map_or_else(|| Ok(String::new()), |place| place.text())
    }

    /// A truth value, false where the field is not there.
    ///
    /// # Errors
    /// Where it is none.
    pub fn bool(&mut self, name: &'static str) -> Result<bool, Fault> {
        self.get(name).map_or(Ok(false), |place| place.bool())
    }

    /// A duration, or what to take where the field is not there.
    ///
    /// # Errors
    /// Where it is none.
    pub fn duration(&mut self, name: &'static str, default: Duration) -> Result<Duration, Fault> {
        self.get(name).map_or(Ok(default), |place| place.duration())
    }

    /// The items of a list, none where the field is not there.
    ///
    /// # Errors
    /// Where it is no list.
    pub fn list(&mut self, name: &'static str) -> Result<Vec<Place<'n>>, Fault> {
        self.get(name).map_or_else(|| Ok(Vec::new()), |place| place.list())
    }

    /// Where the mapping stands.
    pub fn place(&self) -> &Place<'n> {
        &self.place
    }

    /// Refuses what was not read.
    ///
    /// # Errors
    /// Names the first unknown field.
    pub fn done(self) -> Result<(), Fault> {
        match self.entries.first() {
            None => Ok(()),
            Some((key, place)) => Err(place.fault(format!("unknown field {key}; known are {}", self.known.join(", ")))),
        }
    }
}

/// Whether a key in snake case is this name in camel case.
fn snake_is(key: &str, name: &str) -> bool {
    if !key.contains('_') {
        return false;
    }
    let mut camel = String::with_capacity(key.len());
    let mut upper = false;
    for c in key.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            camel.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            camel.push(c);
        }
    }
    camel == name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_know_their_lines_and_fields_are_taken_in_both_forms() {
        let text = "a: 1\n---\n# nothing\n---\nmax_amount: 2\nvalidDuration: 5s\n";
        let found: Vec<Node> = documents(text).into_iter().map(Result::unwrap).collect();
        assert_eq!(found.len(), 2);
        let mut fields = Place::new(&found[1], "spec").fields().unwrap();
        assert_eq!(fields.need("maxAmount").unwrap().int(), Ok(2));
        assert_eq!(fields.duration("validDuration", Duration::ZERO), Ok(Duration::from_secs(5)));
        fields.done().unwrap();
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line() {
        let node = Node::parse("a:\n  wieght: 1\n", 10).unwrap();
        let mut outer = Place::new(&node, "spec").fields().unwrap();
        let mut inner = outer.need("a").unwrap().fields().unwrap();
        assert!(inner.get("weight").is_none());
        let fault = inner.done().unwrap_err();
        assert_eq!((fault.line, fault.field.as_str()), (11, "spec.a.wieght"));
        assert_eq!(fault.message, "unknown field wieght; known are weight");
    }

    #[test]
    fn malformed_yaml_names_its_line() {
        let fault = documents("a: 1\n---\nb: [\n").remove(1).unwrap_err();
        assert!(fault.line >= 3, "{fault}");
    }
}
