//! Conditions on structured values (`ValueMatcher`).

use super::StringMatcher;
use crate::refusal::{Refusal, Within};
use proto::envoy::matcher::double_matcher::MatchPattern as Number;
use proto::envoy::matcher::list_matcher::MatchPattern as List;
use proto::envoy::matcher::value_matcher::MatchPattern;
use proto::envoy::matcher::{self};
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
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn parse(written: &matcher::ValueMatcher) -> Result<Self, Refusal> {
        let needed = |field: &str| Refusal::new(field, "is needed");
        Ok(match written.match_pattern.as_ref().ok_or_else(|| needed("match_pattern"))? {
            MatchPattern::NullMatch(_) => Self::Null,
            MatchPattern::DoubleMatch(number) => match &number.match_pattern {
                Some(Number::Range(range)) => Self::Range(range.start, range.end),
                Some(Number::Exact(exact)) => Self::Number(*exact),
                None => return Err(needed("double_match.match_pattern")),
            },
            MatchPattern::StringMatch(text) => Self::Text(StringMatcher::parse(text).within("string_match")?),
            MatchPattern::BoolMatch(wanted) => Self::Bool(*wanted),
            MatchPattern::PresentMatch(wanted) => Self::Present(*wanted),
            MatchPattern::ListMatch(list) => match &list.match_pattern {
                Some(List::OneOf(one)) => Self::OneOf(Box::new(Self::parse(one).within("list_match.one_of")?)),
                None => return Err(needed("list_match.match_pattern")),
            },
            MatchPattern::OrMatch(or) => {
                let each = or.value_matchers.iter().map(|one| Self::parse(one).within("or_match"));
                Self::Or(each.collect::<Result<_, _>>()?)
            }
        })
    }

    /// Whether the value meets the condition.
    pub fn matches(&self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Range(from, below) => value.as_f64().is_some_and(|number| number >= *from && number < *below),
            #[expect(clippy::float_cmp, reason = "the condition is exact")]
            Self::Number(wanted) => value.as_f64() == Some(*wanted),
            Self::Text(matcher) => value.as_str().is_some_and(|text| matcher.matches(text.as_bytes())),
            Self::Bool(wanted) => value.as_bool() == Some(*wanted),
            Self::Present(wanted) => *wanted && (value.is_string() || value.is_number() || value.is_boolean()),
            Self::OneOf(matcher) => value.as_array().is_some_and(|list| list.iter().any(|item| matcher.matches(item))),
            Self::Or(any) => any.iter().any(|matcher| matcher.matches(value)),
        }
    }
}
