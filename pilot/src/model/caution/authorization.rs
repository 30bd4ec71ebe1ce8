//! Policies that close TCP ports: there, conditions of requests cannot be checked (AZ-17).

use super::{Caution, Surprise};
use crate::source::Object;
use proto::istio::authorization_policy::{Action, AuthorizationPolicy, Condition, Operation, Rule, Source};

pub(super) fn of(object: &Object, spec: &AuthorizationPolicy) -> Vec<Caution> {
    // It denies nothing.
    if object.meta.annotations.get("istio.io/dry-run").is_some_and(|value| value == "true") {
        return Vec::new();
    }
    let rules: Vec<Reach<'_>> = spec.rules.iter().map(Reach::of).collect();
    match spec.action {
        Action::Deny => rules.iter().enumerate().filter_map(|(i, rule)| rule.denied(i)).collect(),
        // One rule that lets connections through, or that names its ports, shows that they were thought of.
        Action::Allow if !rules.is_empty() && rules.iter().all(|rule| rule.dropped && rule.open && !rule.rest) => {
            vec![Caution::new(Surprise::ClosesTcp, "spec.rules", closes("an ALLOW"))]
        }
        Action::Allow | Action::Audit | Action::Custom => Vec::new(),
    }
}

/// Istio's words.
fn closes(rule: &str) -> String {
    format!(
        "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only HTTP \
         attributes in {rule} rule; it is recommended to explicitly specify the port"
    )
}

/// What becomes of a rule on a TCP port.
struct Reach<'a> {
    /// Names of the conditions of requests.
    names: Vec<&'a str>,
    /// An operation has conditions of requests, or shares them.
    dropped: bool,
    /// That operation is for every port.
    open: bool,
    /// Conditions are left.
    rest: bool,
}

impl<'a> Reach<'a> {
    fn of(rule: &'a Rule) -> Self {
        let sources: Vec<&Source> = rule.from.iter().filter_map(|from| from.source.as_ref()).collect();
        let of_when = |condition: &&Condition| condition.key.starts_with("request.");
        let mut shared: Vec<&'a str> =
            rule.when.iter().filter(of_when).map(|condition| condition.key.as_str()).collect();
        shared.extend(sources.iter().filter_map(|source| {
            named(&source.request_principals, &source.not_request_principals, "requestPrincipals")
        }));
        let port = rule.when.iter().any(|condition| condition.key == "destination.port");
        let empty = Operation::default();
        let operations: Vec<&Operation> = if rule.to.is_empty() {
            vec![&empty]
        } else {
            rule.to.iter().filter_map(|to| to.operation.as_ref()).collect()
        };
        let mut reach = Self { names: Vec::new(), dropped: false, open: false, rest: false };
        for operation in operations {
            let own = of_requests(operation).chain(shared.iter().copied()).collect::<Vec<_>>();
            if own.is_empty() {
                continue;
            }
            reach.dropped = true;
            if operation.ports.is_empty() && !port {
                reach.open = true;
                reach.rest |= !operation.not_ports.is_empty();
                reach.names.extend(own.into_iter().filter(|name| !reach.names.contains(name)).collect::<Vec<_>>());
            }
        }
        reach.rest |= rule.when.iter().any(|condition| !of_when(&condition));
        reach.rest |= sources.iter().any(|source| of_connections(source));
        reach
    }

    fn denied(&self, index: usize) -> Option<Caution> {
        if !self.open {
            return None;
        }
        let text = if self.rest {
            format!(
                "rule {index} of the DENY policy closes TCP ports to everybody its other conditions fit, as {} cannot be \
                 checked there; name the ports in to.operation.ports",
                self.names.join(", ")
            )
        } else {
            closes("a DENY")
        };
        Some(Caution::new(Surprise::ClosesTcp, format!("spec.rules[{index}]"), text))
    }
}

fn of_requests<'a>(operation: &Operation) -> impl Iterator<Item = &'a str> {
    let Operation { hosts, not_hosts, methods, not_methods, paths, not_paths, .. } = operation;
    let fields = [(hosts, not_hosts, "hosts"), (methods, not_methods, "methods"), (paths, not_paths, "paths")];
    fields.into_iter().filter_map(|(values, not_values, name)| named(values, not_values, name))
}

/// The name of a condition that is there.
fn named(values: &[String], not_values: &[String], name: &'static str) -> Option<&'static str> {
    (!values.is_empty() || !not_values.is_empty()).then_some(name)
}

/// Whether a source has conditions that connections have as well.
fn of_connections(source: &Source) -> bool {
    let requests = Source {
        request_principals: source.request_principals.clone(),
        not_request_principals: source.not_request_principals.clone(),
        ..Source::default()
    };
    *source != requests
}
