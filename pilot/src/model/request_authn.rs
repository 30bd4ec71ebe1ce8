//! RequestAuthentication as meant: whose tokens of end users are believed (spec RA-1 to RA-10).

use super::check::Check;
use crate::registry::entry::selects;
use crate::source::key_sets::{KeySets, KeySource};
use crate::source::{Class, Key, Object, Problem};
use identity::jwks::KeySet;
use proto::istio::request_authentication as written;
use proto::istio::request_authentication::JwtRule;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One RequestAuthentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// The object.
    pub key: Key,
    /// Workloads it is for; empty: its whole scope.
    pub selector: BTreeMap<String, String>,
    /// Its issuers.
    pub rules: Vec<TokenRule>,
}

/// Tokens of one issuer, and what verifies them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenRule {
    /// What is written.
    pub written: JwtRule,
    /// The issuer's public keys, as a key set; [`NO_KEYS`] where none are known.
    pub keys: Arc<str>,
}

/// A key set that verifies nothing: the private half of its key was never kept (CA-30). An empty set would be refused by
/// Envoy, and no set would let every token pass.
pub const NO_KEYS: &str = r#"{"keys":[{"kty":"RSA","e":"AQAB","kid":"ferromesh-no-keys","n":"xS7eeh7-E5hgK2MpoIPek8ijJPHlEdCJbKJv3FN76mT3U2ecOs8rT1cGb2bDc8IiMt4PY1czIB_ks3R4cj5WTnRo6qOeWIuO4Dj9fDvcF1VCqc6QBn8S_Zs10TTDUgE_5GZgx78eVAPXVd8wHKbU6Nvq8qkO8EFHkVb2MYY6hM0LSebmy6lBGTfEdrlBCLsAh6gOwCuKL16abrC7bMx8tfOEXVZgAV2eKiUGYvd1oXVlZNDWUkBhMWDcXHVPa4udaZPMmHnZHUYHq0_1K0Dk15O3SK8HWsvtF0OhsVEDrAYYf3zLJl_sgHE8REUtKdRVXW_eIt-aAp99QLzgLdoXiw"}]}"#;

/// Longest time that fetching keys may take, where a rule does not say (RA-9).
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

impl RequestAuthentication {
    /// Whether it is for a workload.
    pub fn applies(&self, namespace: &str, labels: &BTreeMap<String, String>, root: &str) -> bool {
        (&*self.key.namespace == namespace || &*self.key.namespace == root) && selects(&self.selector, labels)
    }

    /// Where keys are to be fetched, and how long that may take.
    pub fn sources(&self) -> impl Iterator<Item = (KeySource, Duration)> + '_ {
        self.rules.iter().filter_map(|rule| {
            let timeout = rule.written.timeout.map_or(FETCH_TIMEOUT, |timeout| timeout.0);
            Some((source(&rule.written)?, timeout))
        })
    }
}

/// Where the keys of a rule are fetched (RA-2); none where they are written in it.
fn source(rule: &JwtRule) -> Option<KeySource> {
    if !rule.jwks.is_empty() {
        return None;
    }
    Some(match rule.jwks_uri.as_str() {
        "" => KeySource::Discovery(rule.issuer.as_str().into()),
        uri => KeySource::Uri(uri.into()),
    })
}

/// Parses, and so validates, a RequestAuthentication; `fetched` has the keys that are known.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(
    object: &Object,
    spec: &written::RequestAuthentication,
    fetched: &KeySets,
) -> Result<RequestAuthentication, Vec<Problem>> {
    let mut check = Check::new(object);
    for (i, rule) in spec.jwt_rules.iter().enumerate() {
        validate(&mut check, rule, &format!("spec.jwtRules[{i}]"));
    }
    let rule = |written: &JwtRule| TokenRule {
        keys: match source(written) {
            None => written.jwks.as_str().into(),
            Some(source) => match fetched.get(&source) {
                Some(Ok(keys)) => Arc::clone(keys),
                Some(Err(_)) | None => NO_KEYS.into(),
            },
        },
        written: written.clone(),
    };
    check.finish(RequestAuthentication {
        key: object.key.clone(),
        selector: spec.selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default(),
        rules: spec.jwt_rules.iter().map(rule).collect(),
    })
}

/// Rules in force whose keys cannot be fetched: their tokens are refused.
pub fn keyless(object: &Object, spec: &written::RequestAuthentication, fetched: &KeySets) -> Vec<Problem> {
    let problem = |(i, rule): (usize, &JwtRule)| {
        let source = source(rule)?;
        let why = fetched.get(&source)?.as_ref().err()?;
        let field = if rule.jwks_uri.is_empty() { "issuer" } else { "jwksUri" };
        let message =
            format!("no keys from {source}: {why}; until they come every token of {:?} is refused", rule.issuer);
        Some(object.problem(Class::DanglingReference, format!("spec.jwtRules[{i}].{field}"), message))
    };
    spec.jwt_rules.iter().enumerate().filter_map(problem).collect()
}

fn validate(check: &mut Check<'_>, rule: &JwtRule, at: &str) {
    check.require(!rule.issuer.is_empty(), format!("{at}.issuer"), "an issuer is needed");
    let both = !rule.jwks.is_empty() && !rule.jwks_uri.is_empty();
    check.require(!both, format!("{at}.jwks"), "use jwks or jwksUri, not both");
    if !rule.jwks_uri.is_empty() {
        let good = KeySource::Uri(rule.jwks_uri.as_str().into()).is_url();
        check.require(good, format!("{at}.jwksUri"), format!("{:?} is no http or https URL", rule.jwks_uri));
    } else if rule.jwks.is_empty() {
        let good = KeySource::Discovery(rule.issuer.as_str().into()).is_url();
        let message = "without jwks and jwksUri the issuer is asked for its keys, and must be an http or https URL";
        check.require(good || rule.issuer.is_empty(), format!("{at}.issuer"), message);
    }
    if let Some(Err(why)) = (!rule.jwks.is_empty()).then(|| KeySet::parse(rule.jwks.as_bytes())) {
        check.semantic(format!("{at}.jwks"), why.to_string());
    }
    for (i, audience) in rule.audiences.iter().enumerate() {
        check.require(!audience.is_empty(), format!("{at}.audiences[{i}]"), "the audience is empty");
    }
    for (i, header) in rule.from_headers.iter().enumerate() {
        header_name(check, &header.name, &format!("{at}.fromHeaders[{i}].name"));
    }
    for (name, list) in [("fromParams", &rule.from_params), ("fromCookies", &rule.from_cookies)] {
        for (i, text) in list.iter().enumerate() {
            check.require(!text.is_empty(), format!("{at}.{name}[{i}]"), "the name is empty");
        }
    }
    if !rule.output_payload_to_header.is_empty() {
        header_name(check, &rule.output_payload_to_header, &format!("{at}.outputPayloadToHeader"));
    }
    for (i, output) in rule.output_claim_to_headers.iter().enumerate() {
        let at = format!("{at}.outputClaimToHeaders[{i}]");
        header_name(check, &output.header, &format!("{at}.header"));
        check.require(!output.claim.is_empty(), format!("{at}.claim"), "a claim is needed");
    }
}

fn header_name(check: &mut Check<'_>, name: &str, at: &str) {
    let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let good = !name.is_empty() && name.bytes().all(of_token);
    check.require(good, at, format!("{name:?} is no name of a header"));
}
