//! `StringMatcher` and `HeaderMatcher` of Envoy's API → conditions.

pub(super) mod tree;

use super::{Condition, HeaderMatcher, MetadataMatcher, Pattern, StringMatcher, ValueMatcher, whole_regex};
use crate::refusal::{Refusal, Within};
use proto::envoy::matcher::{
    self, double_matcher, list_matcher, metadata_matcher, string_matcher::MatchPattern, value_matcher,
};
use proto::envoy::route::{self, header_matcher::HeaderMatchSpecifier};

impl StringMatcher {
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn parse(written: &matcher::StringMatcher) -> Result<Self, Refusal> {
        let text = |text: &str| text.as_bytes().into();
        let pattern = match &written.match_pattern {
            Some(MatchPattern::Exact(wanted)) => Pattern::Exact(text(wanted)),
            Some(MatchPattern::Prefix(wanted)) => Pattern::Prefix(text(wanted)),
            Some(MatchPattern::Suffix(wanted)) => Pattern::Suffix(text(wanted)),
            Some(MatchPattern::Contains(wanted)) => Pattern::Contains(text(wanted)),
            Some(MatchPattern::SafeRegex(regex)) => {
                Pattern::Regex(whole_regex(&regex.regex).map_err(|why| Refusal::new("safe_regex.regex", why))?)
            }
            Some(MatchPattern::Custom(_)) => return Err(Refusal::unsupported("custom")),
            None => {
                return Err(Refusal::new(
                    "match_pattern",
                    "one of exact, prefix, suffix, contains, safe_regex is needed",
                ));
            }
        };
        if written.ignore_case && matches!(pattern, Pattern::Regex(_)) {
            return Err(Refusal::new("ignore_case", "has no effect on a regex: write (?i) into it"));
        }
        Ok(Self { pattern, ignore_case: written.ignore_case })
    }
}

impl HeaderMatcher {
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn parse(written: &route::HeaderMatcher) -> Result<Self, Refusal> {
        if written.name.is_empty() {
            return Err(Refusal::new("name", "is empty"));
        }
        let condition = match &written.header_match_specifier {
            None => Condition::Present(true),
            Some(HeaderMatchSpecifier::PresentMatch(wanted)) => Condition::Present(*wanted),
            Some(HeaderMatchSpecifier::RangeMatch(range)) => Condition::Range(range.start, range.end),
            Some(HeaderMatchSpecifier::StringMatch(text)) => {
                Condition::Text(StringMatcher::parse(text).within("string_match")?)
            }
            Some(old) => Condition::Text(deprecated(old)?),
        };
        Ok(Self {
            name: written.name.to_ascii_lowercase().into_bytes().into(),
            condition,
            invert: written.invert_match,
            missing_is_empty: written.treat_missing_header_as_empty,
        })
    }
}

impl ValueMatcher {
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn parse(written: &matcher::ValueMatcher) -> Result<Self, Refusal> {
        let needed = |field: &str| Refusal::new(field, "is needed");
        Ok(match written.match_pattern.as_ref().ok_or_else(|| needed("match_pattern"))? {
            value_matcher::MatchPattern::NullMatch(_) => Self::Null,
            value_matcher::MatchPattern::DoubleMatch(number) => match &number.match_pattern {
                Some(double_matcher::MatchPattern::Range(range)) => Self::Range(range.start, range.end),
                Some(double_matcher::MatchPattern::Exact(exact)) => Self::Number(*exact),
                None => return Err(needed("double_match.match_pattern")),
            },
            value_matcher::MatchPattern::StringMatch(text) => {
                Self::Text(StringMatcher::parse(text).within("string_match")?)
            }
            value_matcher::MatchPattern::BoolMatch(wanted) => Self::Bool(*wanted),
            value_matcher::MatchPattern::PresentMatch(wanted) => Self::Present(*wanted),
            value_matcher::MatchPattern::ListMatch(list) => match &list.match_pattern {
                Some(list_matcher::MatchPattern::OneOf(one)) => {
                    Self::OneOf(Box::new(Self::parse(one).within("list_match.one_of")?))
                }
                None => return Err(needed("list_match.match_pattern")),
            },
            value_matcher::MatchPattern::OrMatch(or) => {
                let each = or.value_matchers.iter().map(|one| Self::parse(one).within("or_match"));
                Self::Or(each.collect::<Result<_, _>>()?)
            }
        })
    }
}

impl MetadataMatcher {
    /// Reads the message.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn parse(written: &matcher::MetadataMatcher) -> Result<Self, Refusal> {
        let value = written.value.as_ref().ok_or_else(|| Refusal::new("value", "is needed"))?;
        let key = |segment: &metadata_matcher::PathSegment| match &segment.segment {
            Some(metadata_matcher::path_segment::Segment::Key(key)) => Ok(key.as_str().into()),
            None => Err(Refusal::new("path", "a segment without key")),
        };
        Ok(Self {
            filter: written.filter.as_str().into(),
            path: written.path.iter().map(key).collect::<Result<_, _>>()?,
            value: ValueMatcher::parse(value).within("value")?,
            invert: written.invert,
        })
    }
}

/// The forms that `string_match` has replaced; Istio and many files still write them.
#[expect(deprecated, reason = "they are still written")]
fn deprecated(specifier: &HeaderMatchSpecifier) -> Result<StringMatcher, Refusal> {
    let text = |text: &str| text.as_bytes().into();
    let pattern = match specifier {
        HeaderMatchSpecifier::ExactMatch(wanted) => Pattern::Exact(text(wanted)),
        HeaderMatchSpecifier::PrefixMatch(wanted) => Pattern::Prefix(text(wanted)),
        HeaderMatchSpecifier::SuffixMatch(wanted) => Pattern::Suffix(text(wanted)),
        HeaderMatchSpecifier::ContainsMatch(wanted) => Pattern::Contains(text(wanted)),
        HeaderMatchSpecifier::SafeRegexMatch(regex) => {
            Pattern::Regex(whole_regex(&regex.regex).map_err(|why| Refusal::new("safe_regex_match.regex", why))?)
        }
        HeaderMatchSpecifier::PresentMatch(_)
        | HeaderMatchSpecifier::RangeMatch(_)
        | HeaderMatchSpecifier::StringMatch(_) => return Err(Refusal::unsupported("header_match_specifier")),
    };
    Ok(StringMatcher { pattern, ignore_case: false })
}

/// An address range.
///
/// # Errors
/// No IP address, or a prefix longer than the address.
pub fn cidr(written: &proto::envoy::core::CidrRange) -> Result<ipnet::IpNet, Refusal> {
    let ip: std::net::IpAddr =
        written.address_prefix.parse().map_err(|_| Refusal::new("address_prefix", "an IP address is needed"))?;
    let length = written.prefix_len.as_ref().map_or(0, |n| u8::try_from(n.value).unwrap_or(u8::MAX));
    let net = ipnet::IpNet::new(ip, length);
    net.map(|net| net.trunc()).map_err(|_| Refusal::new("prefix_len", "longer than the address"))
}
