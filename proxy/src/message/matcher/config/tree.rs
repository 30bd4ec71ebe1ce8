//! `xds.type.matcher.v3.Matcher` → tree.

use crate::message::matcher::StringMatcher;
use crate::message::matcher::tree::{Branches, Next, Predicate, Prefixed, Tree};
use crate::refusal::{Refusal, Within};
use foldhash::{HashMap, HashMapExt as _};
use proto::any;
use proto::envoy::matcher::{self as envoy, HttpRequestHeaderMatchInput, string_matcher::MatchPattern};
use proto::envoy::wkt::Any;
use proto::envoy::xds::core::v3::TypedExtensionConfig;
use proto::envoy::xds::r#type::matcher::v3::matcher::matcher_list::{
    Predicate as WrittenPredicate,
    predicate::{MatchType, PredicateList, SinglePredicate, single_predicate::Matcher as Wanted},
};
use proto::envoy::xds::r#type::matcher::v3::matcher::matcher_tree::{MatchMap, TreeType};
use proto::envoy::xds::r#type::matcher::v3::matcher::{MatcherType, OnMatch, on_match};
use proto::envoy::xds::r#type::matcher::v3::{self as xds, string_matcher};

/// How deep trees and conditions may be nested.
const MAX_DEPTH: u32 = 16;

/// Reads an action.
type Read<'r, A> = &'r dyn Fn(&Any) -> Result<A, Refusal>;

impl<A> Tree<A> {
    /// Reads the message; `read` reads the configuration of an action.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub fn parse(written: &xds::Matcher, read: Read<'_, A>) -> Result<Self, Refusal> {
        tree(written, read, MAX_DEPTH)
    }
}

fn tree<A>(written: &xds::Matcher, read: Read<'_, A>, depth: u32) -> Result<Tree<A>, Refusal> {
    let depth = depth.checked_sub(1).ok_or_else(|| Refusal::new("", "is nested too deeply"))?;
    let branches = match &written.matcher_type {
        None if written.on_no_match.is_none() => {
            return Err(Refusal::new("matcher_type", "matcher_list, matcher_tree or on_no_match is needed"));
        }
        None => Branches::None,
        Some(MatcherType::MatcherList(list)) => {
            let each = list.matchers.iter().enumerate().map(|(i, one)| {
                let place = format!("matcher_list.matchers[{i}]");
                let predicate = one.predicate.as_ref().ok_or_else(|| Refusal::new("predicate", "is needed"));
                let predicate = predicate.and_then(|p| condition(p, depth).within("predicate")).within(&place)?;
                Ok((predicate, next(one.on_match.as_ref(), read, depth).within("on_match").within(&place)?))
            });
            Branches::List(each.collect::<Result<_, Refusal>>()?)
        }
        Some(MatcherType::MatcherTree(by)) => {
            let header = header(by.input.as_ref()).within("matcher_tree.input")?;
            let entries = |map: &MatchMap| {
                let each = map.map.iter().map(|(key, on)| {
                    let next = next(Some(on), read, depth).within(&format!("matcher_tree.map[{key}]"))?;
                    Ok((key.as_bytes().into(), next))
                });
                each.collect::<Result<Vec<Prefixed<A>>, Refusal>>()
            };
            match &by.tree_type {
                Some(TreeType::ExactMatchMap(map)) => {
                    let mut found = HashMap::new();
                    found.extend(entries(map)?);
                    Branches::Exact(header, found)
                }
                Some(TreeType::PrefixMatchMap(map)) => {
                    let mut prefixes = entries(map)?;
                    prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
                    Branches::Prefix(header, prefixes.into())
                }
                Some(TreeType::CustomMatch(_)) => return Err(Refusal::unsupported("matcher_tree.custom_match")),
                None => return Err(Refusal::new("matcher_tree.tree_type", "is needed")),
            }
        }
    };
    let otherwise = written.on_no_match.as_deref().map(|on| next(Some(on), read, depth).within("on_no_match"));
    Ok(Tree { branches, otherwise: otherwise.transpose()? })
}

fn next<A>(written: Option<&OnMatch>, read: Read<'_, A>, depth: u32) -> Result<Next<A>, Refusal> {
    let written = written.ok_or_else(|| Refusal::new("", "is needed"))?;
    if written.keep_matching {
        return Err(Refusal::unsupported("keep_matching"));
    }
    match &written.on_match {
        Some(on_match::OnMatch::Matcher(nested)) => {
            Ok(Next::Tree(Box::new(tree(nested, read, depth).within("matcher")?)))
        }
        Some(on_match::OnMatch::Action(action)) => {
            let typed = action.typed_config.as_ref().ok_or_else(|| Refusal::new("action.typed_config", "is needed"))?;
            read(typed).within("action.typed_config").map(Next::Action)
        }
        None => Err(Refusal::new("on_match", "matcher or action is needed")),
    }
}

fn condition(written: &WrittenPredicate, depth: u32) -> Result<Predicate, Refusal> {
    let depth = depth.checked_sub(1).ok_or_else(|| Refusal::new("", "is nested too deeply"))?;
    let all = |list: &PredicateList| {
        let each = list.predicate.iter().enumerate();
        each.map(|(i, one)| condition(one, depth).within(&format!("predicate[{i}]"))).collect::<Result<Box<[_]>, _>>()
    };
    Ok(match written.match_type.as_ref().ok_or_else(|| Refusal::new("match_type", "is needed"))? {
        MatchType::SinglePredicate(single) => single_condition(single).within("single_predicate")?,
        MatchType::OrMatcher(list) => Predicate::Any(all(list).within("or_matcher")?),
        MatchType::AndMatcher(list) => Predicate::All(all(list).within("and_matcher")?),
        MatchType::NotMatcher(one) => Predicate::Not(Box::new(condition(one, depth).within("not_matcher")?)),
    })
}

fn single_condition(written: &SinglePredicate) -> Result<Predicate, Refusal> {
    let header = header(written.input.as_ref()).within("input")?;
    match &written.matcher {
        Some(Wanted::ValueMatch(text)) => Ok(Predicate::Header(header, text_matcher(text).within("value_match")?)),
        Some(Wanted::CustomMatch(_)) => Err(Refusal::unsupported("custom_match")),
        None => Err(Refusal::new("matcher", "is needed")),
    }
}

/// The header that an input stands for.
///
/// # Errors
/// It is another input than `HttpRequestHeaderMatchInput`.
pub fn header_of(typed: &Any) -> Result<Box<[u8]>, Refusal> {
    let name = any::type_name(&typed.type_url);
    if name != "envoy.type.matcher.v3.HttpRequestHeaderMatchInput" {
        return Err(Refusal::new("typed_config", format!("{name} is not supported; HttpRequestHeaderMatchInput is")));
    }
    let input: HttpRequestHeaderMatchInput =
        any::decode(typed).map_err(|error| Refusal::new("typed_config", error.to_string()))?;
    if input.header_name.is_empty() {
        return Err(Refusal::new("typed_config.header_name", "is empty"));
    }
    Ok(input.header_name.to_ascii_lowercase().into_bytes().into())
}

fn header(written: Option<&TypedExtensionConfig>) -> Result<Box<[u8]>, Refusal> {
    let typed = written.and_then(|written| written.typed_config.as_ref());
    header_of(typed.ok_or_else(|| Refusal::new("typed_config", "is needed"))?)
}

/// The same message in the package of xds.
fn text_matcher(written: &xds::StringMatcher) -> Result<StringMatcher, Refusal> {
    let pattern = match &written.match_pattern {
        Some(string_matcher::MatchPattern::Exact(text)) => MatchPattern::Exact(text.clone()),
        Some(string_matcher::MatchPattern::Prefix(text)) => MatchPattern::Prefix(text.clone()),
        Some(string_matcher::MatchPattern::Suffix(text)) => MatchPattern::Suffix(text.clone()),
        Some(string_matcher::MatchPattern::Contains(text)) => MatchPattern::Contains(text.clone()),
        Some(string_matcher::MatchPattern::SafeRegex(regex)) => MatchPattern::SafeRegex(envoy::RegexMatcher {
            regex: regex.regex.clone(),
            ..envoy::RegexMatcher::default()
        }),
        Some(string_matcher::MatchPattern::Custom(_)) => return Err(Refusal::unsupported("custom")),
        None => {
            return Err(Refusal::new("match_pattern", "one of exact, prefix, suffix, contains, safe_regex is needed"));
        }
    };
    StringMatcher::parse(&envoy::StringMatcher { match_pattern: Some(pattern), ignore_case: written.ignore_case })
}
