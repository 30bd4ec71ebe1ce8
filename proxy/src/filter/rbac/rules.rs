//! Policies as trees of conditions.

use crate::message::RequestHead;
use crate::message::matcher::{HeaderMatcher, StringMatcher, ValueMatcher};
use crate::net::PeerFacts;
use crate::route::PathTemplate;
use crate::telemetry::access_log::Metadata;
use ipnet::IpNet;
use serde_json::Value;

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Allow where a policy matches, deny otherwise.
    Allow,
    /// Deny where a policy matches.
    Deny,
    /// Only note it.
    Log,
}

/// One condition. Permissions and principals are of one kind: what both may ask is the same.
#[derive(Debug)]
pub enum Rule {
    /// Always.
    Any,
    /// What a filter before this one left as metadata: its name, the keys down to the value, the condition; the last is
    /// whether it is turned round (HTTP only).
    Metadata(Box<str>, Box<[Box<str>]>, ValueMatcher, bool),
    /// All.
    And(Vec<Self>),
    /// One of them.
    Or(Vec<Self>),
    /// Not.
    Not(Box<Self>),
    /// A header (HTTP only).
    Header(HeaderMatcher),
    /// The path without query (HTTP only).
    Path(StringMatcher),
    /// The path without query by template (HTTP only).
    Template(PathTemplate),
    /// The address that the client dialled.
    DestinationIp(IpNet),
    /// Its port, from the first to below the second.
    DestinationPorts(u16, u32),
    /// The server name of the TLS hello.
    ServerName(StringMatcher),
    /// The peer's proven identity; without a condition, any.
    Authenticated(Option<StringMatcher>),
    /// The socket's other end.
    DirectRemoteIp(IpNet),
    /// The client: from PROXY protocol or trusted `x-forwarded-for`.
    RemoteIp(IpNet),
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The connection.
    pub peer: &'a PeerFacts,
    /// The request; none on TCP.
    pub head: Option<&'a RequestHead>,
    /// What filters have left; none on TCP.
    pub metadata: Option<&'a Metadata>,
}

impl Rule {
    /// Whether the subject meets the condition.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let peer = subject.peer;
        match self {
            Self::Any => true,
            Self::Metadata(filter, path, matcher, invert) => subject.head.is_some_and(|_| {
                let value = subject
                    .metadata
                    .and_then(|metadata| metadata.get(filter))
                    .and_then(|root| path.iter().try_fold(root, |v, key| v.get(&**key)));
                matcher.matches(value.unwrap_or(&Value::Null)) != *invert
            }),
            Self::And(all) => all.iter().all(|rule| rule.matches(subject)),
            Self::Or(any) => any.iter().any(|rule| rule.matches(subject)),
            Self::Not(rule) => !rule.matches(subject),
            Self::Header(matcher) => subject.head.is_some_and(|head| matcher.matches_request(head)),
            Self::Path(matcher) => subject.head.is_some_and(|head| matcher.matches(head.path_only())),
            Self::Template(template) => subject.head.is_some_and(|head| template.matches(head.path_only())),
            Self::DestinationIp(net) => net.contains(&peer.local.ip()),
            Self::DestinationPorts(from, below) => {
                let port = peer.local.port();
                port >= *from && u32::from(port) < *below
            }
            Self::ServerName(matcher) => matcher.matches(peer.sni.as_bytes()),
            Self::Authenticated(matcher) => authenticated(peer, matcher.as_ref()),
            Self::DirectRemoteIp(net) => net.contains(&peer.direct_remote.ip()),
            Self::RemoteIp(net) => net.contains(&peer.remote.ip()),
        }
    }
}

/// Envoy: URI SANs, else DNS SANs, else the subject; the connection must be mutual TLS.
fn authenticated(peer: &PeerFacts, matcher: Option<&StringMatcher>) -> bool {
    let Some(cert) = peer.tls.as_ref().and_then(|tls| tls.peer.as_ref()) else { return false };
    let Some(matcher) = matcher else { return true };
    let names = [&cert.uri_sans, &cert.dns_sans].into_iter().find(|names| !names.is_empty());
    match names {
        Some(names) => names.iter().any(|name| matcher.matches(name.as_bytes())),
        None => matcher.matches(cert.subject.as_bytes()),
    }
}

/// Who may do what.
#[derive(Debug)]
pub struct Policy {
    /// Name, such as `ns[default]-policy[p]-rule[0]`.
    pub name: Box<str>,
    /// What; one suffices.
    pub permissions: Rule,
    /// Who; one suffices.
    pub principals: Rule,
}

/// Policies with their action, in the order of their names.
#[derive(Debug)]
pub struct Rules {
    /// What a match means.
    pub action: Action,
    /// Policies.
    pub policies: Vec<Policy>,
}

impl Rules {
    /// The first policy that matches.
    pub fn find(&self, subject: &Subject<'_>) -> Option<&Policy> {
        self.policies.iter().find(|p| p.permissions.matches(subject) && p.principals.matches(subject))
    }

    /// Whether the subject may pass.
    ///
    /// # Errors
    /// The policy that denies; `none` where no policy allows.
    pub fn judge(&self, subject: &Subject<'_>) -> Result<(), Box<str>> {
        match (self.action, self.find(subject)) {
            (Action::Allow, Some(_)) | (Action::Deny, None) => Ok(()),
            (Action::Allow, None) => Err("none".into()),
            (Action::Deny, Some(policy)) => Err(policy.name.clone()),
            (Action::Log, found) => {
                if let Some(policy) = found {
                    tracing::debug!(policy = &*policy.name, "audit");
                }
                Ok(())
            }
        }
    }
}
