//! Conditions on a verified token: what `jwt_authn` leaves as metadata (AZ-8, AZ-15, RA-5).
//!
//! Without such a filter there is no metadata: a positive condition never holds, and so an ALLOW rule denies.

use super::authz::{principal_of, text_matcher};
use proto::envoy::matcher::metadata_matcher::{PathSegment, path_segment};
use proto::envoy::matcher::value_matcher::MatchPattern;
use proto::envoy::matcher::{ListMatcher, MetadataMatcher, OrMatcher, StringMatcher, ValueMatcher, list_matcher};
use proto::envoy::rbac::Principal;
use proto::envoy::rbac::principal::{Identifier, Set};

fn metadata(claim: &[&str], value: ValueMatcher) -> MetadataMatcher {
    let segment = |key: &&str| PathSegment { segment: Some(path_segment::Segment::Key((*key).to_owned())) };
    MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".to_owned(),
        path: ["payload"].iter().chain(claim).map(segment).collect(),
        value: Some(value),
        ..MetadataMatcher::default()
    }
}

fn who(condition: MetadataMatcher) -> Principal {
    #[expect(deprecated, reason = "istiod sends it, and so every proxy of the mesh reads it")]
    let identifier = Identifier::Metadata(condition);
    principal_of(identifier)
}

fn string(matcher: StringMatcher) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(MatchPattern::StringMatch(matcher)) }
}

/// `issuer/subject`; either may have a wildcard, `*` is any verified token.
pub fn principal(value: &str) -> Option<Principal> {
    let (issuer, subject) = value.rsplit_once('/').unwrap_or(("*", if value == "*" { "*" } else { value }));
    let is = |claim: &str, value: &str| who(metadata(&[claim], string(text_matcher(value))));
    let ids = vec![is("iss", issuer), is("sub", subject)];
    Some(principal_of(Identifier::AndIds(Set { ids })))
}

/// A claim that is a text or a list of texts.
pub fn claim(path: &[&str], value: &str) -> Principal {
    who(condition(path, text_matcher(value)))
}

/// The same condition for routes.
pub fn condition(path: &[&str], text: StringMatcher) -> MetadataMatcher {
    let one = string(text);
    let list = ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(one.clone()))) };
    let list = ValueMatcher { match_pattern: Some(MatchPattern::ListMatch(Box::new(list))) };
    let either = OrMatcher { value_matchers: vec![list, one] };
    metadata(path, ValueMatcher { match_pattern: Some(MatchPattern::OrMatch(either)) })
}

/// The parts of `[a][b]`.
pub fn brackets(text: &str) -> Vec<&str> {
    text.split(['[', ']']).filter(|part| !part.is_empty()).collect()
}
