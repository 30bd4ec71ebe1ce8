//! What is wrong with an object, and where it is written.

use super::object::Key;
use std::fmt;
use std::sync::Arc;

/// The five classes of problems, from the outermost to the innermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// The text is no YAML, or no object.
    Syntax,
    /// A field holds a value of another type.
    WrongType,
    /// The kind has no such field.
    UnknownField,
    /// The value makes no sense: weights, expressions, exclusive fields, what is not supported yet.
    Semantic,
    /// It names something that does not exist.
    DanglingReference,
    /// An older object has the same: that one counts.
    Conflict,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Its class.
    pub class: Class,
    /// The object, where it is known.
    pub object: Option<Key>,
    /// The file, where there is one.
    pub file: Option<Arc<str>>,
    /// The line in the file, counted from 1.
    pub line: Option<u32>,
    /// The field, as `spec.http[0].route[1].weight`.
    pub field: String,
    /// What is wrong and how it is mended.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:{}: ", self.line.unwrap_or(0))?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
