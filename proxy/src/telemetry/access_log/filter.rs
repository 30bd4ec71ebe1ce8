//! Which streams are logged.

use super::expression::Expression;
use super::facts::{Entry, LogFacts};
use crate::message::matcher::HeaderMatcher;
use crate::outcome::Flags;

/// A condition on the facts of an entry.
#[derive(Debug, Clone)]
pub(super) enum LogFilter {
    Status(Comparison),
    /// Milliseconds.
    Duration(Comparison),
    /// No health check of the load balancer: there is no filter here that answers those, so every request passes.
    NotHealthCheck,
    Share {
        numerator: u64,
        denominator: u64,
    },
    All(Vec<Self>),
    Any(Vec<Self>),
    Header(HeaderMatcher),
    /// None: any flag at all.
    Flags(Option<Flags>),
    GrpcStatus {
        codes: Vec<u32>,
        exclude: bool,
    },
    Entries {
        entries: Vec<Entry>,
        exclude: bool,
    },
    Expression(Expression),
}

/// A comparison with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) relation: Relation,
    pub(super) value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
    More,
    Less,
}

impl Comparison {
    pub(super) fn holds(self, found: u64) -> bool {
        match self.relation {
            Relation::Equal => found == self.value,
            Relation::NotEqual => found != self.value,
            Relation::AtLeast => found >= self.value,
            Relation::AtMost => found <= self.value,
            Relation::More => found > self.value,
            Relation::Less => found < self.value,
        }
    }
}

impl LogFilter {
    /// Whether the entry is logged; `random` decides about shares.
    pub(super) fn passes(&self, facts: &LogFacts<'_>, random: u64) -> bool {
        match self {
            Self::Status(comparison) => comparison.holds(u64::from(facts.status.unwrap_or(0))),
            Self::Duration(comparison) => facts
                .times
                .total
                .is_some_and(|total| comparison.holds(u64::try_from(total.as_millis()).unwrap_or(u64::MAX))),
            Self::NotHealthCheck => true,
            Self::Share { numerator, denominator } => random % (*denominator).max(1) < *numerator,
            Self::All(filters) => filters.iter().all(|filter| filter.passes(facts, random)),
            Self::Any(filters) => filters.iter().any(|filter| filter.passes(facts, random)),
            Self::Header(matcher) => facts.request.is_some_and(|request| matcher.matches_request(request)),
            Self::Flags(None) => !facts.flags.is_empty(),
            Self::Flags(Some(wanted)) => facts.flags.intersects(*wanted),
            Self::GrpcStatus { codes, exclude } => {
                let code = facts.grpc_status().or_else(|| facts.status.map(grpc_code_of_http)).unwrap_or(2);
                codes.contains(&code) != *exclude
            }
            Self::Entries { entries, exclude } => entries.contains(&facts.entry) != *exclude,
            Self::Expression(expression) => expression.holds(facts),
        }
    }
}

/// The gRPC status that a client makes of an HTTP status without `grpc-status`
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
fn grpc_code_of_http(status: u16) -> u32 {
    match status {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}
