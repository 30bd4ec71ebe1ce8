//! What the engine says of a request, and for which other requests it holds.

use super::code::Code;
use proto::program::{MAX_COUNTED, Took};
use std::time::Duration;

/// How long a decision holds that no adapter took part in (MX-20).
pub const UNANSWERED_FOR: Duration = Duration::from_secs(60);
/// How many requests it holds for (MX-20).
pub const UNANSWERED_USES: u32 = 10_000;

/// The longest lease: a change of policy is in force everywhere after so long.
pub const LONGEST_LEASE: Duration = Duration::from_secs(5);

/// What an adapter says.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its code.
    pub code: Code,
    /// Why, where the code is not OK.
    pub message: String,
    /// How long it holds.
    pub valid_for: Duration,
    /// For how many requests it holds; none is any number.
    pub uses: Option<u32>,
    /// What it put out, for header operations.
    pub output: Option<String>,
    /// How the answer to the client shall look (MX-25).
    pub direct: Option<Direct>,
}

impl Answer {
    /// All is well, for so long and so many requests.
    pub fn ok(valid_for: Duration, uses: Option<u32>) -> Self {
        Self::of(Code::OK, String::new(), valid_for, uses)
    }

    /// A code with its reason.
    pub fn of(code: Code, message: String, valid_for: Duration, uses: Option<u32>) -> Self {
        Self { code, message, valid_for, uses, output: None, direct: None }
    }

    /// A check that could not be made: it denies, and is asked again at once.
    pub fn failed(code: Code, message: impl Into<String>) -> Self {
        Self::of(code, message.into(), Duration::ZERO, Some(0))
    }
}

/// How the answer to the client shall look: `istio.policy.v1beta1.DirectHttpResponse`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Direct {
    /// HTTP status; 0 is the one of the code.
    pub status: u16,
    /// The body.
    pub body: String,
    /// Headers. `set-cookie` is appended, others replace.
    pub headers: Vec<(String, String)>,
}

/// What is done to a header (MX-8, MX-24).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Set to this value alone.
    Replace,
    /// Removed.
    Remove,
    /// One more value.
    Append,
}

/// An operation on a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderOperation {
    /// Name of the header, in small letters; `:path`, `:authority` and `:method` too.
    pub name: String,
    /// Its value; nothing for removal.
    pub value: String,
    /// What is done.
    pub operation: Operation,
}

/// What the engine says of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// OK, or the first code that is not.
    pub code: Code,
    /// All reasons, each after its handler.
    pub message: String,
    /// The rule that decided, as `namespace/name`.
    pub rule: Option<String>,
    /// How the answer to the client shall look.
    pub direct: Direct,
    /// What is done to the request's headers.
    pub request_headers: Vec<HeaderOperation>,
    /// What is done to the response's headers.
    pub response_headers: Vec<HeaderOperation>,
    /// How long it holds.
    pub valid_for: Duration,
    /// For how many requests it holds, this one included; none is any number.
    pub uses: Option<u32>,
    /// The parts of the request that it depends on; none where no other request may reuse it.
    pub by: Option<Vec<String>>,
    /// Who took part, in order.
    pub took: Vec<Took>,
    answered: bool,
}

impl Default for Decision {
    fn default() -> Self {
        Self {
            code: Code::OK,
            message: String::new(),
            rule: None,
            direct: Direct::default(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            valid_for: UNANSWERED_FOR,
            uses: Some(UNANSWERED_USES),
            by: None,
            took: Vec::new(),
            answered: false,
        }
    }
}

/// A decision that may be reused.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// How long.
    pub valid_for: Duration,
    /// For how many requests, this one included; none is any number.
    pub uses: Option<u32>,
    /// For requests that are equal in these parts.
    pub by: Vec<String>,
    /// What is counted with each use.
    pub took: Vec<Took>,
}

impl Decision {
    /// Whether the request may go on.
    pub fn allowed(&self) -> bool {
        self.code == Code::OK
    }

    /// Takes an adapter's answer in (MX-20): the shortest validity counts, the first code that is not OK wins, all
    /// messages are kept, each after its handler's name unless that is empty.
    pub fn combine(&mut self, handler: &str, rule: &str, answer: &Answer) {
        if !self.answered {
            self.answered = true;
            self.valid_for = answer.valid_for;
            self.uses = answer.uses;
        }
        self.valid_for = self.valid_for.min(answer.valid_for);
        self.uses = match (self.uses, answer.uses) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if answer.code == Code::OK {
            return;
        }
        if self.allowed() {
            self.code = answer.code;
            self.rule = Some(rule.to_owned());
            self.direct = answer.direct.clone().unwrap_or_default();
        } else {
            self.message.push_str(", ");
        }
        if !handler.is_empty() {
            self.message.push_str(handler);
            self.message.push(':');
        }
        self.message.push_str(&answer.message);
    }

    /// Notes who took part, so that each use of the decision can be counted as this one is.
    pub fn took(&mut self, rule: &str, handler: &str, applied: bool, refused: bool) {
        if self.took.len() < MAX_COUNTED {
            self.took.push(Took { rule: rule.to_owned(), handler: handler.to_owned(), applied, refused });
        }
    }

    /// The status that the client gets.
    pub fn http_status(&self) -> u16 {
        if self.direct.status == 0 { self.code.http() } else { self.direct.status }
    }

    /// The body that the client gets: an adapter's own, or Istio's `CODE:reason`.
    pub fn body(&self) -> String {
        if self.direct.body.is_empty() {
            format!("{}:{}", self.code.name(), self.message)
        } else {
            self.direct.body.clone()
        }
    }

    /// For whom it holds, no longer than `longest`.
    pub fn lease(&self, longest: Duration) -> Option<Lease> {
        let valid_for = self.valid_for.min(longest);
        if valid_for.is_zero() || self.uses.is_some_and(|uses| uses == 0) {
            return None;
        }
        Some(Lease { valid_for, uses: self.uses, by: self.by.clone()?, took: self.took.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: MX-20
    #[test]
    fn the_shortest_validity_counts_and_the_first_refusal_wins() {
        let mut decision = Decision::default();
        assert_eq!((decision.valid_for, decision.uses), (Duration::from_secs(60), Some(10_000)));
        decision.combine("a", "ns/a", &Answer::ok(Duration::from_secs(300), None));
        assert_eq!((decision.valid_for, decision.uses), (Duration::from_secs(300), None));
        let denied = Answer::of(Code::PERMISSION_DENIED, "no".into(), Duration::from_secs(5), Some(1000));
        decision.combine("b", "ns/b", &denied);
        let exhausted = Answer::of(Code::RESOURCE_EXHAUSTED, "late".into(), Duration::from_secs(9), Some(7));
        decision.combine("c", "ns/c", &exhausted);
        assert_eq!((decision.valid_for, decision.uses), (Duration::from_secs(5), Some(7)));
        assert_eq!((decision.code, decision.message.as_str()), (Code::PERMISSION_DENIED, "b:no, c:late"));
        assert_eq!(decision.rule.as_deref(), Some("ns/b"));
        assert_eq!(decision.body(), "PERMISSION_DENIED:b:no, c:late");
    }

    #[test]
    fn what_cannot_be_reused_is_not_leased() {
        let decision = Decision { by: Some(Vec::new()), ..Decision::default() };
        let lease = decision.lease(Duration::from_secs(5)).unwrap();
        assert_eq!((lease.valid_for, lease.uses), (Duration::from_secs(5), Some(10_000)));
        assert_eq!(Decision { by: None, ..decision.clone() }.lease(Duration::from_secs(5)), None);
        assert_eq!(Decision { uses: Some(0), ..decision.clone() }.lease(Duration::from_secs(5)), None);
        assert_eq!(Decision { valid_for: Duration::ZERO, ..decision }.lease(Duration::from_secs(5)), None);
    }
}
