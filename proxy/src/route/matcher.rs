//! Whether a request meets a route's conditions: path, headers, query, fraction, what filters have left.

use super::table::Asked;
use super::template::Template;
use crate::message::matcher::{HeaderMatcher, MetadataMatcher, StringMatcher};
use crate::message::{Known, RequestHead};

/// The conditions of a route, where no route follows from them.
#[derive(Debug)]
pub struct Condition(pub(super) RouteMatcher);

impl Condition {
    /// Whether the request meets all of them.
    pub fn holds(&self, head: &RequestHead, random: u64) -> bool {
        self.0.matches(head, head.path_only(), Asked { random, metadata: None })
    }
}

/// The conditions of one route.
#[derive(Debug)]
pub(super) struct RouteMatcher {
    pub(super) path: PathMatcher,
    pub(super) ignore_case: bool,
    pub(super) headers: Box<[HeaderMatcher]>,
    pub(super) query: Box<[QueryMatcher]>,
    pub(super) metadata: Box<[MetadataMatcher]>,
    pub(super) fraction: Option<Fraction>,
    pub(super) grpc_only: bool,
}

/// A condition on the path without the query.
#[derive(Debug)]
pub(super) enum PathMatcher {
    /// The path begins with this text (not aware of segments).
    Prefix(Box<[u8]>),
    /// The path is this text.
    Exact(Box<[u8]>),
    /// The path is this text, or begins with it and a slash.
    Segments(Box<[u8]>),
    /// The whole path matches.
    Regex(regex::bytes::Regex),
    /// The path has the form of a template.
    Template(Template),
    /// The request is CONNECT.
    Connect,
}

/// A condition on one query parameter.
#[derive(Debug)]
pub(super) struct QueryMatcher {
    pub(super) name: Box<[u8]>,
    /// None: it must be there (or not be there).
    pub(super) value: Option<StringMatcher>,
    pub(super) present: bool,
}

/// A share of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fraction {
    pub(super) numerator: u64,
    pub(super) denominator: u64,
}

impl Fraction {
    /// Whether the request with this random number is in the share.
    pub(super) fn has(self, random: u64) -> bool {
        random % self.denominator.max(1) < self.numerator
    }
}

impl RouteMatcher {
    /// Whether the request meets all conditions; `path` is its path without query.
    pub(super) fn matches(&self, head: &RequestHead, path: &[u8], asked: Asked<'_>) -> bool {
        self.path_matches(head, path)
            && (!self.grpc_only || is_grpc(head))
            && self.headers.iter().all(|matcher| matcher.matches_request(head))
            && self.query.iter().all(|matcher| matcher.matches(head.query()))
            && self.metadata.iter().all(|matcher| matcher.matches(asked.metadata))
            && self.fraction.is_none_or(|fraction| fraction.has(asked.random))
    }

    fn path_matches(&self, head: &RequestHead, path: &[u8]) -> bool {
        if matches!(self.path, PathMatcher::Connect) {
            return head.method() == b"CONNECT";
        }
        if head.method() == b"CONNECT" && path.is_empty() {
            return false; // only a CONNECT route can take a request without a path
        }
        let same = |a: &[u8], b: &[u8]| if self.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
        let begins = |wanted: &[u8]| path.get(..wanted.len()).is_some_and(|begin| same(begin, wanted));
        match &self.path {
            PathMatcher::Prefix(wanted) => begins(wanted),
            PathMatcher::Exact(wanted) => same(path, wanted),
            PathMatcher::Segments(wanted) => begins(wanted) && matches!(path.get(wanted.len()), None | Some(b'/')),
            PathMatcher::Regex(regex) => regex.is_match(path),
            PathMatcher::Template(template) => template.matches(path),
            PathMatcher::Connect => false,
        }
    }
}

impl QueryMatcher {
    /// The first parameter of the name decides; it is compared as it was sent.
    fn matches(&self, query: &[u8]) -> bool {
        let found = query.split(|byte| *byte == b'&').find_map(|pair| {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            (parts.next()? == &*self.name && !pair.is_empty()).then(|| parts.next().unwrap_or_default())
        });
        match (&self.value, found) {
            (None, found) => found.is_some() == self.present,
            (Some(matcher), Some(value)) => matcher.matches(value),
            (Some(_), None) => false,
        }
    }
}

fn is_grpc(head: &RequestHead) -> bool {
    let Some(rest) = head.headers.get(Known::ContentType).and_then(|value| value.strip_prefix(b"application/grpc"))
    else {
        return false;
    };
    matches!(rest.first(), None | Some(b'+'))
}
