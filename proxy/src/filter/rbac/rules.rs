//! Policies as trees of conditions.

use crate::message::matcher::{HeaderMatcher, MetadataMatcher, StringMatcher};
use crate::message::{Metadata, RequestHead};
use crate::net::PeerFacts;
use crate::route::PathTemplate;
use ipnet::IpNet;
use serde_json::{Map, Value};

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
    /// What a filter before this one left (HTTP only).
    Metadata(MetadataMatcher),
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
            Self::Metadata(matcher) => subject.head.is_some() && matcher.matches(subject.metadata),
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

/// Rules that deny nothing: they leave their verdict for the filters behind them, and for logs.
#[derive(Debug)]
pub struct Shadow {
    rules: Rules,
    policy: Box<str>,
    result: Box<str>,
}

impl Shadow {
    /// Rules whose verdict is left under names with this prefix.
    pub fn new(rules: Rules, prefix: &str) -> Self {
        let name = |field: &str| format!("{prefix}{field}").into();
        Self { rules, policy: name("shadow_effective_policy_id"), result: name("shadow_engine_result") }
    }

    /// The verdict, as a filter's metadata.
    pub fn verdict(&self, subject: &Subject<'_>) -> Map<String, Value> {
        let found = self.rules.find(subject);
        let allowed = match self.rules.action {
            Action::Allow => found.is_some(),
            Action::Deny => found.is_none(),
            Action::Log => true,
        };
        let policy = found.map(|policy| (self.policy.to_string(), Value::from(&*policy.name)));
        let result = (self.result.to_string(), Value::from(if allowed { "allowed" } else { "denied" }));
        policy.into_iter().chain([result]).collect()
    }
}
