//! Conditions of HTTP rules (VS-7 to VS-15).

use super::authz_claims;
use super::message::boolean;
use crate::model::claim;
use proto::envoy::matcher::string_matcher::MatchPattern;
use proto::envoy::matcher::{MetadataMatcher, RegexMatcher, StringMatcher};
use proto::envoy::route::header_matcher::HeaderMatchSpecifier;
use proto::envoy::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use proto::envoy::route::route_match::PathSpecifier;
use proto::envoy::route::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use proto::istio::StringMatch;
use proto::istio::virtual_service::HttpMatchRequest;

/// An expression; the whole text must match.
pub fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}

/// A comparison of texts; none where it only asks for presence.
pub fn string(value: &StringMatch) -> Option<StringMatcher> {
    let pattern = match value {
        StringMatch { exact: Some(exact), .. } => MatchPattern::Exact(exact.clone()),
        StringMatch { prefix: Some(prefix), .. } => MatchPattern::Prefix(prefix.clone()),
        StringMatch { regex: Some(pattern), .. } if pattern != "*" => MatchPattern::SafeRegex(regex(pattern)),
        _ => return None,
    };
    Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() })
}

fn header(name: &str, value: &StringMatch, invert: bool) -> HeaderMatcher {
    let matcher = string(value);
    HeaderMatcher {
        name: name.to_owned(),
        invert_match: invert,
        // A missing header counts as empty, and so satisfies "not" (VS-11).
        treat_missing_header_as_empty: invert && matcher.is_some(),
        header_match_specifier: Some(
            matcher.map_or(HeaderMatchSpecifier::PresentMatch(true), HeaderMatchSpecifier::StringMatch),
        ),
    }
}

/// A condition on a claim of a token; `none` where the name is that of a header.
fn of_token(name: &str, value: &StringMatch, invert: bool) -> Option<MetadataMatcher> {
    let there =
        || StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(regex(".*"))), ..StringMatcher::default() };
    let path = claim::path(name)?;
    Some(MetadataMatcher { invert, ..authz_claims::condition(&path, string(value).unwrap_or_else(there)) })
}

fn query(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = string(value)
        .map_or(QueryParameterMatchSpecifier::PresentMatch(true), QueryParameterMatchSpecifier::StringMatch);
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}

/// Every request.
pub fn everything() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() }
}

/// The conditions of one block; of none, every request.
pub fn route_match(block: Option<&HttpMatchRequest>) -> RouteMatch {
    let Some(block) = block else { return everything() };
    let mut out = everything();
    match block.uri.as_ref() {
        Some(StringMatch { exact: Some(exact), .. }) => out.path_specifier = Some(PathSpecifier::Path(exact.clone())),
        Some(StringMatch { prefix: Some(prefix), .. }) => {
            out.path_specifier = Some(PathSpecifier::Prefix(prefix.clone()));
        }
        Some(StringMatch { regex: Some(pattern), .. }) => {
            out.path_specifier = Some(PathSpecifier::SafeRegex(regex(pattern)));
        }
        _ => {}
    }
    out.case_sensitive = boolean(!block.ignore_uri_case);
    let own = |name: &String| {
        !matches!(name.as_str(), "uri" | "scheme" | "method" | "authority") && claim::path(name).is_none()
    };
    let wanted = block.headers.iter().filter(|(name, _)| own(name)).map(|(name, value)| header(name, value, false));
    let unwanted =
        block.without_headers.iter().filter(|(name, _)| own(name)).map(|(name, value)| header(name, value, true));
    out.headers = wanted.chain(unwanted).collect();
    out.headers.sort_by(|a, b| a.name.cmp(&b.name));
    let wanted = block.headers.iter().filter_map(|(name, value)| of_token(name, value, false));
    let unwanted = block.without_headers.iter().filter_map(|(name, value)| of_token(name, value, true));
    out.dynamic_metadata = wanted.chain(unwanted).collect();
    let pseudo = [(":method", &block.method), (":authority", &block.authority), (":scheme", &block.scheme)];
    for (name, value) in pseudo {
        out.headers.extend(value.as_ref().map(|value| header(name, value, false)));
    }
    out.query_parameters = block.query_params.iter().map(|(name, value)| query(name, value)).collect();
    out
}

/// Whether nothing gets past it: prefix `/` or regex `.*`, and no other condition (VS-6).
pub fn is_catch_all(rule: &RouteMatch) -> bool {
    let path = match &rule.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(pattern)) => pattern.regex == ".*",
        _ => false,
    };
    path && rule.headers.is_empty() && rule.query_parameters.is_empty() && rule.dynamic_metadata.is_empty()
}
