//! `envoy.filters.http.rbac`: who may do what (AZ-1 to AZ-18). The rules serve TCP as well.
//!
//! Any condition that cannot be evaluated is not met: an ALLOW does not allow, and a DENY is refused when it is read.

mod config;
mod rules;

pub use config::{Override, parse, parse_override, parse_rules};
pub use rules::{Action, Policy, Rule, Rules, Subject};

use super::{Decision, Step, StreamCx, reply};
use crate::message::Request;
use crate::outcome::{Outcome, Reason};

/// The filter's name, under which routes have their own configuration.
pub const NAME: &str = "envoy.filters.http.rbac";

/// The filter.
#[derive(Debug)]
pub struct Rbac {
    /// Rules; none lets everything pass.
    pub rules: Option<Rules>,
}

impl Rbac {
    /// Why a request passed, for people.
    pub fn why_passed(&self, rq: &Request, cx: &StreamCx) -> String {
        let own = cx.override_of::<Override>(&rq.head, NAME);
        let rules = own.as_ref().map_or(self.rules.as_ref(), |over| over.rules.as_ref());
        let info = cx.info.borrow();
        let subject = Subject { peer: &cx.peer, head: Some(&rq.head), metadata: info.metadata.as_deref() };
        match rules.map(|rules| (rules.action, rules.find(&subject))) {
            Some((Action::Allow, Some(policy))) => format!("{} allows it", policy.name),
            Some((Action::Deny, _)) => "no DENY policy matches it".to_owned(),
            _ => "nothing denies it".to_owned(),
        }
    }

    pub(super) fn on_request<'a>(&'a self, rq: &'a Request, cx: &'a StreamCx) -> Step<'a> {
        let own = cx.override_of::<Override>(&rq.head, NAME);
        let rules = match &own {
            Some(over) => over.rules.as_ref(),
            None => self.rules.as_ref(),
        };
        let Some(rules) = rules else { return Step::CONTINUE };
        let judged = {
            let info = cx.info.borrow();
            rules.judge(&Subject { peer: &cx.peer, head: Some(&rq.head), metadata: info.metadata.as_deref() })
        };
        match judged {
            Ok(()) => Step::CONTINUE,
            Err(policy) => {
                let outcome = Outcome::with_detail(Reason::RbacDenied, policy);
                cx.note(outcome.clone());
                Step::Done(Decision::Reply(Box::new(reply(&outcome, &rq.head))))
            }
        }
    }
}

#[cfg(test)]
mod tests;
