//! Conditions on texts and headers, as Envoy's configuration writes them: for routes, policies, faults and logs alike.

mod config;
mod tree;
mod value;

pub use config::cidr;
pub use config::tree::header_of;
pub use tree::Tree;
pub use value::{MetadataMatcher, ValueMatcher};

use super::{Headers, RequestHead};

/// A condition on a text.
#[derive(Debug, Clone)]
pub struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Debug, Clone)]
enum Pattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    /// Matches the whole text.
    Regex(regex::bytes::Regex),
}

impl StringMatcher {
    /// A condition that only `text` meets.
    pub fn exact(text: impl Into<Box<[u8]>>) -> Self {
        Self { pattern: Pattern::Exact(text.into()), ignore_case: false }
    }

    /// Whether `text` meets the condition.
    pub fn matches(&self, text: &[u8]) -> bool {
        let same = |a: &[u8], b: &[u8]| if self.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
        match &self.pattern {
            Pattern::Exact(wanted) => same(text, wanted),
            Pattern::Prefix(wanted) => text.get(..wanted.len()).is_some_and(|head| same(head, wanted)),
            Pattern::Suffix(wanted) => {
                let at = text.len().checked_sub(wanted.len());
                at.and_then(|at| text.get(at..)).is_some_and(|tail| same(tail, wanted))
            }
            Pattern::Contains(wanted) if wanted.is_empty() => true,
            Pattern::Contains(wanted) if self.ignore_case => text.windows(wanted.len()).any(|part| same(part, wanted)),
            Pattern::Contains(wanted) => memchr::memmem::find(text, wanted).is_some(),
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A condition on one header of a message.
#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    name: Box<[u8]>,
    condition: Condition,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Debug, Clone)]
enum Condition {
    Present(bool),
    Text(StringMatcher),
    /// A whole number from the first to below the second.
    Range(i64, i64),
}

impl HeaderMatcher {
    /// The name of the header, in lower case.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether a request meets the condition; pseudo-headers count as headers.
    pub fn matches_request(&self, head: &RequestHead) -> bool {
        let pseudo = |text: &[u8]| self.matches((!text.is_empty()).then_some(text));
        match &*self.name {
            b":method" => pseudo(head.method()),
            b":path" => pseudo(head.path()),
            b":authority" | b"host" => pseudo(head.authority()),
            b":scheme" => pseudo(head.scheme()),
            b":protocol" => pseudo(head.protocol()),
            _ => self.matches_headers(&head.headers),
        }
    }

    /// Whether a header list meets the condition.
    pub fn matches_headers(&self, headers: &Headers) -> bool {
        self.matches_any(headers.values(&self.name))
    }

    /// Whether a value, or its absence, meets the condition.
    pub fn matches(&self, value: Option<&[u8]>) -> bool {
        self.matches_any(value.into_iter())
    }

    /// Of a header that is there several times, one value that meets the condition is enough (and none may meet an
    /// inverted one). A header that is missing meets no condition on its value, not even an inverted one, unless a
    /// missing header counts as empty.
    fn matches_any<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        let Some(first) = values.next() else {
            return match &self.condition {
                Condition::Present(wanted) => (*wanted == self.missing_is_empty) != self.invert,
                _ => self.missing_is_empty && self.condition.is_met(b"") != self.invert,
            };
        };
        let met = match &self.condition {
            Condition::Present(wanted) => *wanted,
            condition => condition.is_met(first) || values.any(|value| condition.is_met(value)),
        };
        met != self.invert
    }
}

impl Condition {
    fn is_met(&self, value: &[u8]) -> bool {
        match self {
            Self::Present(_) => true,
            Self::Text(matcher) => matcher.matches(value),
            Self::Range(from, below) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| (*from..*below).contains(&number)),
        }
    }
}

/// A regex that must match the whole text, in the dialect of RE2: ASCII classes, bytes that need not be UTF-8.
///
/// # Errors
/// What is wrong with the pattern.
pub fn whole_regex(pattern: &str) -> Result<regex::bytes::Regex, String> {
    part_regex(&format!("^(?:{pattern})$")).map_err(|_| match part_regex(pattern) {
        Ok(_) => format!("regex {pattern:?} cannot be anchored"),
        Err(why) => why,
    })
}

/// A regex that may match anywhere, in the dialect of RE2.
///
/// # Errors
/// What is wrong with the pattern.
pub fn part_regex(pattern: &str) -> Result<regex::bytes::Regex, String> {
    let build = |unicode: bool| {
        regex::bytes::RegexBuilder::new(pattern)
            .unicode(unicode)
            .dot_matches_new_line(false)
            .size_limit(1 << 20)
            .build()
    };
    // Unicode classes such as \pL need the other mode, in which \d would match more than RE2's
    build(false).or_else(|_| build(true)).map_err(|error| format!("regex {pattern:?}: {error}"))
}

#[cfg(test)]
mod tests;
