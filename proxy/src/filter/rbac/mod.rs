//! `envoy.filters.http.rbac`: who may do what (AZ-1 to AZ-18). The rules serve TCP as well.
//!
//! Any condition that cannot be evaluated is not met: an ALLOW does not allow, and a DENY is refused when it is read.

mod config;
mod rules;

pub use config::{Override, parse, parse_override, parse_rules, shadow};
pub use rules::{Action, Policy, Rule, Rules, Shadow, Subject};

use super::{Decision, Step, StreamCx, StreamInfo, reply};
use crate::message::Request;
use crate::outcome::{Outcome, Reason};

/// The filter's name, under which routes have their own configuration.
pub const NAME: &str = "envoy.filters.http.rbac";

/// The filter.
#[derive(Debug, Default)]
pub struct Rbac {
    /// Rules; none lets everything pass.
    pub rules: Option<Rules>,
    /// Rules that only leave their verdict.
    pub shadow: Option<Shadow>,
}

impl Rbac {
    /// Why a request passed, for people.
    pub fn why_passed(&self, rq: &Request, cx: &StreamCx) -> String {
        let own = cx.override_of::<Self>(&rq.head, NAME);
        let rules = own.as_deref().unwrap_or(self).rules.as_ref();
        let info = cx.info.borrow();
        match rules.map(|rules| (rules.action, rules.find(&subject(rq, cx, &info)))) {
            Some((Action::Allow, Some(policy))) => format!("{} allows it", policy.name),
            Some((Action::Deny, _)) => "no DENY policy matches it".to_owned(),
            _ => "nothing denies it".to_owned(),
        }
    }

    pub(super) fn on_request<'a>(&'a self, rq: &'a Request, cx: &'a StreamCx) -> Step<'a> {
        let own = cx.override_of::<Self>(&rq.head, NAME);
        let policies = own.as_deref().unwrap_or(self);
        if let Some(shadow) = &policies.shadow {
            let verdict = shadow.verdict(&subject(rq, cx, &cx.info.borrow()));
            cx.info.borrow_mut().leave(NAME, verdict);
        }
        let Some(rules) = &policies.rules else { return Step::CONTINUE };
        let judged = rules.judge(&subject(rq, cx, &cx.info.borrow()));
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

fn subject<'a>(rq: &'a Request, cx: &'a StreamCx, info: &'a StreamInfo) -> Subject<'a> {
    Subject { peer: &cx.peer, head: Some(&rq.head), metadata: info.metadata.as_deref() }
}

#[cfg(test)]
mod tests;
