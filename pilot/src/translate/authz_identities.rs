//! Identities of peers as policies name them (AZ-6, AZ-7): what a certificate of the mesh proves.
//!
//! A mesh may have several trust domains, its own and aliases of it (CA-7): while it moves from one to another, a workload has
//! a certificate of either.

use super::authz::principal_of;
use super::matcher;
use crate::model::MeshConfig;
use proto::envoy::matcher::StringMatcher;
use proto::envoy::matcher::string_matcher::MatchPattern;
use proto::envoy::rbac::Principal;
use proto::envoy::rbac::principal::{Authenticated, Identifier};

/// What stands for the mesh's own trust domain, whatever that is.
const OWN: &str = "cluster.local";

fn authenticated(pattern: MatchPattern) -> Principal {
    principal_of(Identifier::Authenticated(Authenticated {
        principal_name: Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }),
    }))
}

/// Values of `principals` with every trust domain of the mesh, where they name one of them or `cluster.local`.
pub fn in_every_domain(values: &[String], mesh: &MeshConfig) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for value in values {
        let (domain, rest) = value.split_once('/').unwrap_or(("*", value));
        let names_domain = domain == OWN || (rest.split('/').count() == 4 && domain != "*");
        if !names_domain || (domain != OWN && !mesh.trust_domains().any(|own| fits(domain, own))) {
            out.push(value.clone());
            continue;
        }
        let keeps = |own: &str| domain.starts_with('*') && fits(domain, own);
        let spelled = |own: &String| if keeps(own) { value.clone() } else { format!("{own}/{rest}") };
        out.extend(mesh.trust_domains().map(spelled));
    }
    distinct(out)
}

/// Values of `trustDomains`: who names one of the mesh's names all of them.
pub fn all_domains(values: &[String], mesh: &MeshConfig) -> Vec<String> {
    let of = |value: &String| {
        let own = mesh.trust_domains().any(|own| own == value);
        if own { mesh.trust_domains().cloned().collect() } else { vec![value.clone()] }
    };
    distinct(values.iter().flat_map(of).collect())
}

/// Whether a domain with a `*` at one end, or without one, is this one.
fn fits(pattern: &str, domain: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => domain.ends_with(end),
        (None, Some(start)) => domain.starts_with(start),
        (None, None) => pattern == domain,
    }
}

/// The first of each.
fn distinct(values: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    values.into_iter().filter(|value| seen.insert(value.clone())).collect()
}

/// `trust-domain/ns/NS/sa/SA` without scheme.
pub fn principal(value: &str) -> Option<Principal> {
    Some(authenticated(match (value, value.strip_prefix('*'), value.strip_suffix('*')) {
        ("*", ..) => MatchPattern::SafeRegex(matcher::regex(".+")),
        (_, Some(suffix), _) => MatchPattern::Suffix(suffix.to_owned()),
        (_, None, Some(prefix)) => MatchPattern::Prefix(format!("spiffe://{prefix}")),
        (_, None, None) => MatchPattern::Exact(format!("spiffe://{value}")),
    }))
}

/// A namespace as part of the identity; `*` inside it stands for any text.
pub fn namespace(value: &str) -> Option<Principal> {
    let pattern = format!(".*/ns/{}/.*", value.replace('*', ".*"));
    Some(authenticated(MatchPattern::SafeRegex(matcher::regex(&pattern))))
}

/// `NAMESPACE/ACCOUNT`, or `ACCOUNT` of the policy's own namespace (AZ-7).
pub fn account(value: &str, own: &str) -> Option<Principal> {
    let (namespace, account) = value.split_once('/').unwrap_or((own, value));
    let account = account.replace('.', "\\.");
    let pattern = format!("spiffe://.+/ns/{namespace}/(.+/|)sa/{account}(/.+)?");
    Some(authenticated(MatchPattern::SafeRegex(matcher::regex(&pattern))))
}

/// A trust domain; `*` inside it stands for any text.
pub fn trust_domain(value: &str) -> Option<Principal> {
    let pattern = format!("spiffe://{}/.*", value.replace('.', "\\.").replace('*', ".*"));
    Some(authenticated(MatchPattern::SafeRegex(matcher::regex(&pattern))))
}
