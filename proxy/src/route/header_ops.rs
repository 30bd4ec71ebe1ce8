//! Headers that a route adds, sets and removes; values may hold command operators.

use super::{AppendAction, Choice, HeaderOp, HeaderOps, Route};
use crate::message::{Headers, RequestHead, ResponseHead};
use crate::telemetry::access_log::LogFacts;
use std::sync::Arc;

impl HeaderOps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether a value depends on the stream.
    fn has_operators(&self) -> bool {
        self.add.iter().any(|op| op.value.as_literal().is_none())
    }

    fn remove_from(&self, headers: &mut Headers) {
        for name in &self.remove {
            headers.remove_name(name);
        }
    }

    fn add_to(&self, headers: &mut Headers, facts: &LogFacts<'_>, value: &mut Vec<u8>) {
        for op in &self.add {
            value.clear();
            op.value.write_omitting(facts, value);
            if !value.is_empty() || op.keep_empty {
                op.apply(headers, value);
            }
        }
    }
}

impl HeaderOp {
    fn apply(&self, headers: &mut Headers, value: &[u8]) {
        let is_there = headers.get_name(&self.name).is_some();
        match (self.action, is_there) {
            (AppendAction::AppendIfExistsOrAdd, _) | (AppendAction::AddIfAbsent, false) => {
                headers.append(&self.name, value)
            }
            (AppendAction::OverwriteIfExistsOrAdd, _) | (AppendAction::OverwriteIfExists, true) => {
                headers.set_name(&self.name, value);
            }
            (AppendAction::AddIfAbsent, true) | (AppendAction::OverwriteIfExists, false) => {}
        }
    }
}

impl Route {
    /// Whether there are header operations for the request.
    pub fn changes_request(&self, choice: &Choice<'_>) -> bool {
        let own = choice.weighted.is_some_and(|weighted| !weighted.request_headers.is_empty());
        own || !self.request_headers.is_empty()
    }

    /// Whether there are header operations for the response.
    pub fn changes_response(&self, choice: Option<&Choice<'_>>) -> bool {
        let weighted = choice.and_then(|choice| choice.weighted);
        weighted.is_some_and(|weighted| !weighted.response_headers.is_empty()) || !self.response_headers.is_empty()
    }

    /// Applies the header operations for the request, before it is rewritten.
    pub fn change_request(&self, choice: &Choice<'_>, head: &mut RequestHead, facts: &LogFacts<'_>) {
        let own = choice.weighted.map(|weighted| &weighted.request_headers);
        let mut value = Vec::with_capacity(64);
        for ops in in_order(own, &self.request_headers, self.most_specific_wins) {
            ops.remove_from(&mut head.headers);
            // operators see the request after the removals, and as the operations of the level before have left it
            let before = ops.has_operators().then(|| head.clone());
            let facts = LogFacts { request: before.as_ref(), ..*facts };
            ops.add_to(&mut head.headers, &facts, &mut value);
        }
    }

    /// Applies the header operations for the response.
    pub fn change_response(&self, choice: Option<&Choice<'_>>, head: &mut ResponseHead, facts: &LogFacts<'_>) {
        let own = choice.and_then(|choice| choice.weighted).map(|weighted| &weighted.response_headers);
        let mut value = Vec::with_capacity(64);
        for ops in in_order(own, &self.response_headers, self.most_specific_wins) {
            ops.remove_from(&mut head.headers);
            let before = ops.has_operators().then(|| head.clone());
            let facts = LogFacts { response: before.as_ref(), status: Some(head.status), ..*facts };
            ops.add_to(&mut head.headers, &facts, &mut value);
        }
    }
}

/// From the most specific to the least, so that the least specific has the last word, unless the table says otherwise.
fn in_order<'a>(
    own: Option<&'a HeaderOps>,
    rest: &'a [Arc<HeaderOps>],
    most_specific_wins: bool,
) -> impl Iterator<Item = &'a HeaderOps> {
    let mut list: smallvec::SmallVec<[&HeaderOps; 4]> = own.into_iter().chain(rest.iter().map(|ops| &**ops)).collect();
    if most_specific_wins {
        list.reverse();
    }
    list.into_iter()
}
