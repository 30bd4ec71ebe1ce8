//! How an object stands → its conditions. Pure.

use crate::delivery::standing::{Reach, Standing};
use crate::source::Problem;
use serde_json::{Value, json};

/// Whether the newest version is in force.
pub const ACCEPTED: &str = "Accepted";
/// Whether every connected proxy has it; Istio's name.
pub const RECONCILED: &str = "Reconciled";
/// Longest message: an object must not grow with what is wrong with it.
const MESSAGE: usize = 1024;
/// Proxies that are named.
const NAMED: usize = 3;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it is about.
    pub name: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word.
    pub reason: String,
    /// Field and way out, for people.
    pub message: String,
}

/// The conditions of an object.
pub fn conditions(standing: &Standing) -> [Condition; 2] {
    [accepted(standing), reconciled(standing)]
}

fn accepted(standing: &Standing) -> Condition {
    let holds = standing.refused.is_empty();
    let problems = if holds { &standing.dangling } else { &standing.refused };
    let reason = problems.first().map_or_else(|| ACCEPTED.to_owned(), |problem| format!("{:?}", problem.class));
    let mut message = problems.iter().map(text).collect::<Vec<_>>().join("; ");
    if !holds && standing.in_force {
        message.push_str("; the version before stays in force");
    }
    Condition { name: ACCEPTED, holds, reason, message: shortened(message) }
}

fn text(problem: &Problem) -> String {
    if problem.field.is_empty() { problem.message.clone() } else { format!("{}: {}", problem.field, problem.message) }
}

fn reconciled(standing: &Standing) -> Condition {
    let reach = &standing.reach;
    let proxies = |count: usize| if count == 1 { "1 proxy".to_owned() } else { format!("{count} proxies") };
    let (reason, message) = if !standing.in_force {
        ("NotInForce", "no version of it was ever in force".to_owned())
    } else if !reach.rejected.is_empty() {
        ("Rejected", format!("{}, {}", counts(reach, &proxies), named(reach)))
    } else if reach.pending > 0 {
        ("Pending", counts(reach, &proxies))
    } else {
        ("UpToDate", format!("{} up to date", proxies(reach.have)))
    };
    let holds = reason == "UpToDate";
    Condition { name: RECONCILED, holds, reason: reason.to_owned(), message: shortened(message) }
}

fn counts(reach: &Reach, proxies: &impl Fn(usize) -> String) -> String {
    let mut parts = vec![format!("{} up to date", proxies(reach.have))];
    if reach.pending > 0 {
        parts.push(format!("{} pending", reach.pending));
    }
    parts.join(", ")
}

fn named(reach: &Reach) -> String {
    let mut parts: Vec<String> =
        reach.rejected.iter().take(NAMED).map(|(node, words)| format!("rejected by {node}: {words}")).collect();
    if reach.rejected.len() > NAMED {
        parts.push(format!("and by {} more", reach.rejected.len() - NAMED));
    }
    parts.join("; ")
}

fn shortened(mut message: String) -> String {
    if message.len() > MESSAGE {
        let end = (0..=MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

impl Condition {
    /// As Kubernetes writes it; `since` is when its truth changed last.
    pub fn to_json(&self, generation: Option<i64>, since: &str) -> Value {
        let mut json = json!({
            "type": self.name, "status": if self.holds { "True" } else { "False" }, "reason": self.reason,
            "message": self.message, "lastTransitionTime": since,
        });
        if let Some(generation) = generation {
            json["observedGeneration"] = generation.into();
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Class, Key, Kind};

    fn standing() -> Standing {
        Standing {
            key: Key { kind: Kind::VirtualService, namespace: "n".into(), name: "v".into() },
            generation: Some(3),
            created: None,
            refused: Vec::new(),
            dangling: Vec::new(),
            in_force: true,
            since: 1,
            addresses: Vec::new(),
            reach: Reach { have: 2, ..Reach::default() },
        }
    }

    fn problem(class: Class) -> Problem {
        Problem { class, object: None, file: None, line: None, field: "spec.http[0]".into(), message: "no".into() }
    }

    #[test]
    fn what_is_in_force_everywhere_is_accepted_and_up_to_date() {
        let [accepted, reconciled] = conditions(&standing());
        assert_eq!((accepted.holds, accepted.reason.as_str(), accepted.message.as_str()), (true, "Accepted", ""));
        assert_eq!((reconciled.holds, reconciled.message.as_str()), (true, "2 proxies up to date"));
        let json = accepted.to_json(Some(3), "then");
        assert_eq!((&json["status"], &json["observedGeneration"]), (&"True".into(), &3.into()));
    }

    #[test]
    fn a_refusal_names_the_field_and_says_what_is_in_force_instead() {
        let mut refused = standing();
        refused.refused = vec![problem(Class::UnknownField)];
        let accepted = &conditions(&refused)[0];
        assert_eq!((accepted.holds, accepted.reason.as_str()), (false, "UnknownField"));
        assert_eq!(accepted.message, "spec.http[0]: no; the version before stays in force");
        refused.in_force = false;
        let [accepted, reconciled] = conditions(&refused);
        assert_eq!((accepted.message.as_str(), reconciled.reason.as_str()), ("spec.http[0]: no", "NotInForce"));
        let mut dangling = standing();
        dangling.dangling = vec![problem(Class::DanglingReference)];
        let accepted = &conditions(&dangling)[0];
        assert_eq!((accepted.holds, accepted.reason.as_str()), (true, "DanglingReference"));
    }

    #[test]
    fn proxies_that_wait_or_refuse_are_counted_and_named() {
        let mut waiting = standing();
        waiting.reach.pending = 1;
        assert_eq!(conditions(&waiting)[1].message, "2 proxies up to date, 1 pending");
        waiting.reach.rejected = (0..5).map(|i| (format!("p{i}"), "x".repeat(500))).collect();
        let reconciled = &conditions(&waiting)[1];
        assert_eq!(reconciled.reason, "Rejected");
        assert!(reconciled.message.starts_with("2 proxies up to date, 1 pending, rejected by p0: xxx"));
        assert!(reconciled.message.len() <= MESSAGE + 3, "an object does not grow with what is wrong with it");
    }
}
