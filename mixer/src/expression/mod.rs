//! Istio's expression language, CEXL (spec 1.7): texts of rules and instances, checked when they are loaded and
//! evaluated for each request.
//!
//! - [`parse`]: text → tree, bounded in length, depth and size
//! - [`check`]: tree → typed program; names become numbers, constant calls are done once
//! - [`eval`]: program × bag → value, noting which parts of the request were read
//!
//! What this part must never know: rules, adapters, where a value came from.

pub mod check;
pub mod eval;
pub mod parse;

use crate::attribute::{Touched, Type, Value};
use check::{Node, Scope};
use eval::{Failure, Reader};

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct Fault {
    /// Where, in characters, counted from 1.
    pub column: usize,
    /// What is wrong, and the way out.
    pub message: String,
}

impl Fault {
    fn new(column: usize, message: impl Into<String>) -> Self {
        Self { column, message: message.into() }
    }
}

/// A checked expression.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    root: Node,
    kind: Type,
}

impl Expression {
    /// Parses and checks a text.
    ///
    /// # Errors
    /// Where it is malformed, too large, names what does not exist or mixes types (MX-58).
    pub fn compile(text: &str, scope: &Scope<'_>) -> Result<Self, Fault> {
        let tree = parse::parse(text)?;
        let (root, kind) = check::check(&tree, scope)?;
        Ok(Self { text: text.to_owned(), root, kind })
    }

    /// The same, where a type is asked for.
    ///
    /// # Errors
    /// As [`Self::compile`], and where the type is another one.
    pub fn typed(text: &str, wanted: Type, scope: &Scope<'_>) -> Result<Self, Fault> {
        let found = Self::compile(text, scope)?;
        if found.kind == wanted {
            return Ok(found);
        }
        Err(Fault::new(1, format!("{text} is {}, {} is asked for", found.kind.name(), wanted.name())))
    }

    /// Its type.
    pub fn kind(&self) -> Type {
        self.kind
    }

    /// Its program.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Notes everything that it can read, whatever the request.
    pub fn reads(&self, all: &mut Touched<'static>) {
        check::reads(&self.root, all);
    }

    /// Its value for a request.
    ///
    /// # Errors
    /// Where an attribute is absent (MX-56) or a text is not what a function needs.
    pub fn eval<'a>(&'a self, reader: &mut Reader<'a, '_>) -> Result<Value<'a>, Failure> {
        eval::eval(&self.root, reader)
    }

    /// Whether it holds. A failure is no match (MX-22).
    pub fn holds<'a>(&'a self, reader: &mut Reader<'a, '_>) -> Result<bool, Failure> {
        Ok(matches!(self.eval(reader)?, Value::Bool(true)))
    }
}

#[cfg(test)]
mod tests;
