//! One finding.

use super::code::Code;
use pilot::source::{Key, Object, Problem};
use serde_json::{Value, json};
use std::fmt;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its code.
    pub code: Code,
    /// The object, where it is known.
    pub object: Option<Key>,
    /// The file.
    pub file: String,
    /// Line of the file, counted from 1.
    pub line: u32,
    /// What is found, in Istio's words.
    pub text: String,
}

impl Message {
    /// A finding about a field of an object.
    pub fn at(code: Code, object: &Object, field: &str, text: impl Into<String>) -> Self {
        let origin = object.origin.as_ref();
        Self {
            code,
            object: Some(object.key.clone()),
            file: origin.map(|origin| origin.file.to_string()).unwrap_or_default(),
            line: origin.map_or(0, |origin| origin.document.line_of(field)),
            text: text.into(),
        }
    }

    /// What pilot refuses.
    pub fn refused(problem: &Problem) -> Self {
        let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
        Self {
            code: Code::SchemaValidationError,
            object: problem.object.clone(),
            file: problem.file.as_deref().unwrap_or_default().to_owned(),
            line: problem.line.unwrap_or(0),
            text: format!("Schema validation error: {field}{}", problem.message),
        }
    }

    /// `VirtualService reviews.default`; empty where the object is not known.
    pub fn resource(&self) -> String {
        match &self.object {
            Some(key) if key.namespace.is_empty() => format!("{:?} {}", key.kind, key.name),
            Some(key) => format!("{:?} {}.{}", key.kind, key.name, key.namespace),
            None => String::new(),
        }
    }

    /// As istioctl writes it with `-o json`.
    pub fn json(&self) -> Value {
        json!({
            "code": self.code.text(),
            "documentationUrl": format!("https://istio.io/v1.27/docs/reference/config/analysis/{}/", self.code.text().to_lowercase()),
            "level": self.code.level().to_string(),
            "message": self.text,
            "origin": self.resource(),
            "reference": if self.file.is_empty() { String::new() } else { format!("{}:{}", self.file, self.line) },
        })
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = self.resource();
        // What a cluster holds stands in no file.
        let place = if self.file.is_empty() { resource } else { format!("{resource} {}:{}", self.file, self.line) };
        write!(f, "{} [{}] ({}) {}", self.code.level(), self.code.text(), place.trim_start(), self.text)
    }
}
