//! Why a stream did not go as its client wanted: which side, which peer, which limit, which policy, which object (D13).

use super::facts::LogFacts;
use crate::outcome::{Reason, Side};
use std::borrow::Cow;
use std::fmt::Write;

/// A part of the answer (`%FERROMESH_REASON(PART)%`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `client`, `server`, `network` or `mesh`: who caused it; `network` only where no endpoint has read the request.
    Side,
    /// The other end, where an end caused it: its identity, else its address.
    Peer,
    /// The limit that was reached, as `max_requests=1`.
    Limit,
    /// The policy that denied.
    Policy,
    /// The object that made the route, as `VirtualService/ns/name`.
    Object,
    /// One sentence.
    Why,
}

/// All parts, by name, in the order in which they are shown.
pub(in crate::telemetry) const PARTS: [(&str, Part); 6] = [
    ("side", Part::Side),
    ("peer", Part::Peer),
    ("limit", Part::Limit),
    ("policy", Part::Policy),
    ("object", Part::Object),
    ("why", Part::Why),
];

impl Part {
    /// The part of this name.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        let found = PARTS.iter().find(|(known, _)| *known == name).map(|(_, part)| *part);
        found.ok_or_else(|| format!("%FERROMESH_REASON({name})%: one of side, peer, limit, policy, object, why"))
    }

    /// The part for these facts; `None` where nothing went wrong, or where it has no such part.
    pub(in crate::telemetry) fn of<'a>(self, facts: &LogFacts<'a>) -> Option<Cow<'a, str>> {
        let Some(outcome) = facts.outcome else { return self.of_server(facts) };
        let reason = outcome.reason;
        match self {
            Self::Side => Some(side(reason, facts.reached).into()),
            Self::Peer => match reason.side() {
                Side::Downstream => downstream(facts),
                Side::Upstream => upstream(facts),
                Side::Local => None,
            },
            Self::Limit => outcome.limit.as_ref().map(|limit| limit.to_string().into()),
            Self::Policy => policy(reason, outcome.detail.as_deref()),
            Self::Object => object_of(facts.origin?).map(Cow::Owned),
            Self::Why => Some(reason.why().into()),
        }
    }

    /// The part where the server answered with an error of its own, or where a proxy on the way did.
    fn of_server<'a>(self, facts: &LogFacts<'a>) -> Option<Cow<'a, str>> {
        if facts.status.is_none_or(|status| status < 500) && facts.told.is_none() {
            return None;
        }
        match (self, facts.told) {
            (Self::Side, None) => Some("server".into()),
            (Self::Why, None) => Some("the server answered with an error of its own".into()),
            (Self::Side, Some(_)) => Some("mesh".into()),
            (Self::Why, Some(told)) => Some(told.into()),
            (Self::Peer, _) => upstream(facts),
            (Self::Object, _) => object_of(facts.origin?).map(Cow::Owned),
            (Self::Limit | Self::Policy, _) => None,
        }
    }
}

/// All parts in one line, as `side=mesh; limit=max_requests=1; why="…"`, for `x-ferromesh-reason`.
pub fn provenance(facts: &LogFacts<'_>) -> String {
    let mut out = String::new();
    for (name, part) in PARTS {
        if let Some(text) = part.of(facts) {
            let quoted = text.replace(['"', '\r', '\n'], "'");
            let separator = if out.is_empty() { "" } else { "; " };
            let written = match part {
                Part::Why => write!(out, "{separator}{name}=\"{quoted}\""),
                _ => write!(out, "{separator}{name}={quoted}"),
            };
            debug_assert!(written.is_ok(), "a String takes any text");
        }
    }
    out
}

/// Whether a line of [`provenance`] tells that no endpoint has read the request.
pub fn is_of_network(line: &[u8]) -> bool {
    line.starts_with(b"side=network;")
}

fn side(reason: Reason, reached: bool) -> &'static str {
    match reason {
        Reason::ConnectFailure | Reason::ConnectTimeout | Reason::DnsFailure if !reached => "network",
        _ => match reason.side() {
            Side::Downstream => "client",
            Side::Upstream => "server",
            Side::Local => "mesh",
        },
    }
}

fn downstream<'a>(facts: &LogFacts<'a>) -> Option<Cow<'a, str>> {
    let peer = facts.peer?;
    peer.peer_id().map(Cow::Borrowed).or_else(|| Some(peer.remote.to_string().into()))
}

fn upstream<'a>(facts: &LogFacts<'a>) -> Option<Cow<'a, str>> {
    facts.upstream.host.map(Cow::Borrowed)
}

/// The policy that denied: what RBAC calls `ns[shop]-policy[deny]-rule[0]` is `AuthorizationPolicy/shop/deny rule 0`.
fn policy(reason: Reason, detail: Option<&str>) -> Option<Cow<'_, str>> {
    let detail = detail?;
    match reason {
        Reason::RbacDenied => {}
        // our own kind's domain is NAMESPACE/NAME
        Reason::RateLimited if detail.contains('/') => return Some(format!("RateLimit/{detail}").into()),
        Reason::RateLimited => return Some(format!("rate limit domain {detail}").into()),
        Reason::QuotaUsedUp => return Some(format!("quota {detail}").into()),
        _ => return None,
    }
    let part = |name: &str| detail.split_once(name)?.1.split_once(']').map(|(text, _)| text);
    match (part("ns["), part("policy["), part("rule[")) {
        (Some(namespace), Some(name), Some(rule)) => {
            Some(format!("AuthorizationPolicy/{namespace}/{name} rule {rule}").into())
        }
        _ => Some(detail.into()),
    }
}

/// `/apis/networking.istio.io/v1/namespaces/shop/virtual-service/reviews` as `VirtualService/shop/reviews`.
pub fn object_of(origin: &str) -> Option<String> {
    let mut parts = origin.rsplit('/');
    let (name, kind, namespace) = (parts.next()?, parts.next()?, parts.next()?);
    let kind: String = kind
        .split('-')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().into_iter().flat_map(char::to_uppercase).chain(letters)
        })
        .collect();
    Some(format!("{kind}/{namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    fn shown(facts: &LogFacts<'_>) -> String {
        provenance(facts)
    }

    #[test]
    fn a_connection_that_was_never_made_is_told_from_one_that_broke() {
        for (reason, never) in [
            (Reason::ConnectFailure, true),
            (Reason::ConnectTimeout, true),
            (Reason::UpstreamReset, false),
            (Reason::Overflow, false),
        ] {
            let outcome = Outcome::from(reason);
            let line = shown(&LogFacts { outcome: Some(&outcome), ..LogFacts::default() });
            assert_eq!(is_of_network(line.as_bytes()), never, "{line}");
            let line = shown(&LogFacts { outcome: Some(&outcome), reached: true, ..LogFacts::default() });
            assert!(!is_of_network(line.as_bytes()), "a try before it was read: {line}");
        }
    }

    #[test]
    fn a_full_breaker_names_its_limit_and_its_object() {
        let outcome = Outcome::from(Reason::Overflow).over("max_requests", 1);
        let origin = "/apis/networking.istio.io/v1/namespaces/shop/virtual-service/reviews";
        let facts = LogFacts { outcome: Some(&outcome), origin: Some(origin), ..LogFacts::default() };
        let expected = "side=mesh; limit=max_requests=1; object=VirtualService/shop/reviews; why=\"a circuit breaker of the DestinationRule is full\"";
        assert_eq!(shown(&facts), expected);
    }

    #[test]
    fn a_denial_names_its_policy_and_a_client_that_went_away_is_the_guilty_side() {
        let denied = Outcome::with_detail(Reason::RbacDenied, "ns[shop]-policy[deny]-rule[0]");
        let facts = LogFacts { outcome: Some(&denied), ..LogFacts::default() };
        assert_eq!(Part::Policy.of(&facts).as_deref(), Some("AuthorizationPolicy/shop/deny rule 0"));
        let limited = Outcome::with_detail(Reason::RateLimited, "shop/api");
        let facts = LogFacts { outcome: Some(&limited), ..LogFacts::default() };
        assert_eq!(Part::Policy.of(&facts).as_deref(), Some("RateLimit/shop/api"));
        assert_eq!(limited.details(), "request_rate_limited");
        let address = std::net::SocketAddr::from(([10, 0, 0, 1], 5));
        let peer = crate::net::PeerFacts::plain(1, address, address);
        let gone = Outcome::from(Reason::DownstreamGone);
        let facts = LogFacts { outcome: Some(&gone), peer: Some(&peer), ..LogFacts::default() };
        assert_eq!(
            (Part::Side.of(&facts).as_deref(), Part::Peer.of(&facts).as_deref()),
            (Some("client"), Some("10.0.0.1:5"))
        );
    }

    #[test]
    fn a_servers_own_error_is_the_servers_and_success_has_no_reason() {
        let own = LogFacts { status: Some(503), ..LogFacts::default() };
        assert_eq!(Part::Side.of(&own).as_deref(), Some("server"));
        assert_eq!(shown(&LogFacts { status: Some(200), ..LogFacts::default() }), "");
        let told = LogFacts { status: Some(403), told: Some("side=mesh; policy=p"), ..LogFacts::default() };
        assert_eq!(Part::Why.of(&told).as_deref(), Some("side=mesh; policy=p"));
    }
}
