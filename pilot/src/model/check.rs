//! Collects what is wrong with one object while it is parsed.

use crate::source::{Class, Object, Problem};
use proto::istio::StringMatch;

/// Longest expression, as Istio has it: proxies compile it, and each of its bytes may become a state.
const MAX_REGEX_BYTES: usize = 1024;

/// The problems of one object.
pub struct Check<'a> {
    object: &'a Object,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    /// Nothing wrong so far.
    pub fn new(object: &'a Object) -> Self {
        Self { object, problems: Vec::new() }
    }

    /// Notes a value that makes no sense.
    pub fn semantic(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(self.object.problem(Class::Semantic, field, message));
    }

    /// Notes `message` unless `good`.
    pub fn require(&mut self, good: bool, field: impl Into<String>, message: impl Into<String>) {
        if !good {
            self.semantic(field, message);
        }
    }

    /// A host name, wildcard allowed in front.
    pub fn host(&mut self, host: &str, field: impl Into<String>) {
        let rest = host.strip_prefix("*.").unwrap_or(host);
        let good = host == "*"
            || (!rest.is_empty()
                && rest.len() <= 253
                && rest.split('.').all(|label| {
                    !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
                }));
        self.require(
            good,
            field,
            format!("{host:?} is no host name; a wildcard is allowed only in front, as *.x or *"),
        );
    }

    /// An expression.
    pub fn regex(&mut self, pattern: &str, field: impl Into<String>) {
        if pattern.len() > MAX_REGEX_BYTES {
            let text = format!("an expression has at most {MAX_REGEX_BYTES} bytes, this one {}", pattern.len());
            return self.semantic(field, text);
        }
        if let Err(error) = regex::Regex::new(pattern) {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or("malformed").trim_start_matches("error: ").to_owned();
            self.semantic(field, format!("regular expression: {last}"));
        }
    }

    /// A comparison of texts: at most one form; `empty` says whether none is allowed, meaning "present".
    pub fn string_match(&mut self, value: &StringMatch, field: &str, empty: bool) {
        let forms = [&value.exact, &value.prefix, &value.regex].into_iter().flatten().count();
        self.require(forms <= 1 && (empty || forms == 1), field, "exactly one of exact, prefix and regex is needed");
        if let Some(pattern) = value.regex.as_deref().filter(|pattern| *pattern != "*") {
            self.regex(pattern, format!("{field}.regex"));
        }
    }

    /// A port number.
    pub fn port(&mut self, number: u32, field: impl Into<String>) {
        self.require((1..=65535).contains(&number), field, format!("{number} is no port: use 1 to 65535"));
    }

    /// A percentage.
    pub fn percent(&mut self, value: f64, field: impl Into<String>) {
        self.require((0.0..=100.0).contains(&value), field, format!("{value} is no percentage: use 0 to 100"));
    }

    /// The parsed value, or everything that is wrong.
    pub fn finish<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.problems.is_empty() { Ok(value) } else { Err(self.problems) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::memory;

    // bar: S3
    #[test]
    fn an_expression_is_bounded_in_length_and_in_what_it_grows_to() {
        let object = &memory::parse("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n", None).objects[0];
        let said = |pattern: &str| {
            let mut check = Check::new(object);
            check.regex(pattern, "f");
            check.finish(()).err().map(|mut problems| problems.remove(0).message)
        };
        assert_eq!(said(&"a".repeat(1024)), None);
        assert_eq!(said(&"a".repeat(1025)).unwrap(), "an expression has at most 1024 bytes, this one 1025");
        assert!(said("(a{1000}){1000}").unwrap().contains("size limit"), "short, and large once it is compiled");
    }
}
