//! `JwtAuthentication` → requirements.

use super::{JwtAuthn, Place, Provider, Requirement};
use crate::refusal::{Refusal, Within};
use crate::route::Condition;
use identity::jwks::KeySet;
use identity::jwt::{Expiry, LEEWAY, TokenRules};
use proto::any;
use proto::envoy::core::{DataSource, data_source::Specifier};
use proto::envoy::http_filters::jwt_authn::v3 as written;
use proto::envoy::wkt::Any;
use std::collections::BTreeMap;
use written::jwt_provider::JwksSourceSpecifier;
use written::jwt_requirement::RequiresType;
use written::per_route_config::RequirementSpecifier;
use written::requirement_rule::RequirementType;

/// What a route has in place of the filter's rules.
#[derive(Debug)]
pub enum Override {
    /// Nothing is asked for.
    Off,
    /// This entry of `requirement_map`.
    Named(Box<str>),
}

/// Deepest nesting of requirements.
const MAX_DEPTH: usize = 16;

/// Parses the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any) -> Result<JwtAuthn, Refusal> {
    let config: written::JwtAuthentication =
        any::decode(typed).map_err(|error| Refusal::new("typed_config", error.to_string()))?;
    if config.filter_state_rules.is_some() {
        return Err(Refusal::unsupported("filter_state_rules"));
    }
    if config.strip_failure_response {
        return Err(Refusal::unsupported("strip_failure_response"));
    }
    let mut providers: Vec<_> = config.providers.iter().collect();
    providers.sort_by_key(|(name, _)| *name);
    let names: Vec<&str> = providers.iter().map(|(name, _)| name.as_str()).collect();
    let each = |(name, provider): &(&String, &written::JwtProvider)| {
        self::provider(provider).within(&format!("providers[{name}]"))
    };
    let providers: Box<[Provider]> = providers.iter().map(each).collect::<Result<_, _>>()?;
    let reader = Reader { names, providers: &providers };
    let mut named = BTreeMap::new();
    for (name, requirement) in &config.requirement_map {
        let read = reader.requirement(requirement, &reader.all(), 0).within(&format!("requirement_map[{name}]"))?;
        named.insert(name.as_str().into(), read);
    }
    let rules = config.rules.iter().enumerate();
    let rules = rules.map(|(i, rule)| reader.rule(rule, &config).within(&format!("rules[{i}]")));
    let rules = rules.collect::<Result<_, _>>()?;
    Ok(JwtAuthn { rules, providers, named, bypass_preflight: config.bypass_cors_preflight })
}

/// Parses what a route has for the filter.
///
/// # Errors
/// The field that is wrong.
pub fn parse_override(typed: &Any) -> Result<Override, Refusal> {
    let config: written::PerRouteConfig = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    match config.requirement_specifier {
        Some(RequirementSpecifier::Disabled(_)) => Ok(Override::Off),
        Some(RequirementSpecifier::RequirementName(name)) => Ok(Override::Named(name.into())),
        None => Err(Refusal::new("requirement_specifier", "disabled or requirement_name is needed")),
    }
}

fn provider(config: &written::JwtProvider) -> Result<Provider, Refusal> {
    for (field, set) in [
        ("subjects", config.subjects.is_some()),
        ("max_lifetime", config.max_lifetime.is_some()),
        ("header_in_metadata", !config.header_in_metadata.is_empty()),
        ("failed_status_in_metadata", !config.failed_status_in_metadata.is_empty()),
        ("clock_skew_seconds", !matches!(u64::from(config.clock_skew_seconds), 0 | SKEW_S)),
    ] {
        if set {
            return Err(Refusal::unsupported(field));
        }
    }
    let keys = match &config.jwks_source_specifier {
        Some(JwksSourceSpecifier::LocalJwks(source)) => key_set(source, &config.issuer).within("local_jwks")?,
        Some(JwksSourceSpecifier::RemoteJwks(_)) => return Err(Refusal::unsupported("remote_jwks")),
        None => return Err(Refusal::new("jwks_source_specifier", "local_jwks is needed")),
    };
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let header = |name: &String| name.to_ascii_lowercase().into_bytes().into_boxed_slice();
    let claim_headers = config.claim_to_headers.iter().map(|claim| (header(&claim.header_name), claim_path(claim)));
    let spaced = config.normalize_payload_in_metadata.as_ref().map(|n| n.space_delimited_claims.as_slice());
    Ok(Provider {
        rules: TokenRules {
            issuer: text(&config.issuer),
            audiences: config.audiences.clone(),
            expiry: if config.require_expiration { Expiry::Required } else { Expiry::Optional },
        },
        keys,
        places: places(config),
        forward: config.forward,
        payload_header: text(&config.forward_payload_header)
            .map(|name| (header(&name), config.pad_forward_payload_header)),
        claim_headers: claim_headers.collect(),
        metadata: config.payload_in_metadata.as_str().into(),
        spaced: spaced.unwrap_or_default().iter().map(|name| name.as_str().into()).collect(),
        clear_route: config.clear_route_cache,
    })
}

/// Tolerance between clocks, in seconds.
const SKEW_S: u64 = LEEWAY.as_secs();

fn claim_path(claim: &written::JwtClaimToHeader) -> Box<[Box<str>]> {
    if claim.claim_path.is_empty() {
        return claim.claim_name.split('.').map(Box::from).collect();
    }
    claim.claim_path.iter().map(|segment| segment.key.as_str().into()).collect()
}

/// Where tokens are looked for; only where nothing is written, in the places of RFC 6750.
fn places(config: &written::JwtProvider) -> Box<[Place]> {
    let header = |header: &written::JwtHeader| {
        Place::Header(header.name.to_ascii_lowercase().as_bytes().into(), header.value_prefix.as_bytes().into())
    };
    let headers = config.from_headers.iter().map(header);
    let parameters = config.from_params.iter().map(|name| Place::Query(name.as_bytes().into()));
    let cookies = config.from_cookies.iter().map(|name| Place::Cookie(name.as_bytes().into()));
    let written: Box<[Place]> = headers.chain(parameters).chain(cookies).collect();
    if !written.is_empty() {
        return written;
    }
    let bearer = Place::Header(b"authorization".as_slice().into(), b"Bearer ".as_slice().into());
    [bearer, Place::Query(b"access_token".as_slice().into())].into()
}

/// Keys that cannot be used refuse every token, as in Envoy; they do not refuse the listener.
fn key_set(source: &DataSource, issuer: &str) -> Result<KeySet, Refusal> {
    let bytes = match &source.specifier {
        Some(Specifier::InlineString(text)) => text.as_bytes(),
        Some(Specifier::InlineBytes(bytes)) => bytes.as_slice(),
        _ => return Err(Refusal::unsupported("specifier other than inline_string and inline_bytes")),
    };
    Ok(KeySet::parse(bytes).unwrap_or_else(|why| {
        tracing::warn!(issuer, %why, "every token of this issuer is refused");
        KeySet::empty()
    }))
}

struct Reader<'a> {
    names: Vec<&'a str>,
    providers: &'a [Provider],
}

impl Reader<'_> {
    fn rule(
        &self,
        rule: &written::RequirementRule,
        config: &written::JwtAuthentication,
    ) -> Result<(Condition, Option<Requirement>), Refusal> {
        let condition = rule.r#match.as_ref().ok_or_else(|| Refusal::new("match", "is needed"))?;
        let condition = Condition::parse(condition).within("match")?;
        let requirement = match &rule.requirement_type {
            Some(RequirementType::Requires(requirement)) => {
                Some(self.requirement(requirement, &self.all(), 0).within("requires")?)
            }
            Some(RequirementType::RequirementName(name)) => {
                let unknown = || Refusal::new("requirement_name", format!("{name:?} is not in requirement_map"));
                let requirement = config.requirement_map.get(name).ok_or_else(unknown)?;
                Some(self.requirement(requirement, &self.all(), 0).within("requirement_name")?)
            }
            None => None,
        };
        Ok((condition, requirement))
    }

    /// The provider that a requirement names by itself.
    fn named_by(&self, written: &written::JwtRequirement) -> Option<usize> {
        match &written.requires_type {
            Some(RequiresType::ProviderName(name)) => self.index(name).ok(),
            Some(RequiresType::ProviderAndAudiences(with)) => self.index(&with.provider_name).ok(),
            _ => None,
        }
    }

    /// A requirement; `of` are the providers beside it, whose tokens may be missing.
    fn requirement(
        &self,
        written: &written::JwtRequirement,
        of: &[usize],
        depth: usize,
    ) -> Result<Requirement, Refusal> {
        if depth > MAX_DEPTH {
            return Err(Refusal::new("requires_type", format!("more than {MAX_DEPTH} levels")));
        }
        let each = |list: &[written::JwtRequirement]| -> Result<Box<[Requirement]>, Refusal> {
            let beside: Vec<usize> = list.iter().filter_map(|one| self.named_by(one)).collect();
            let of = if beside.is_empty() { of.to_vec() } else { beside };
            list.iter().map(|one| self.requirement(one, &of, depth + 1)).collect()
        };
        Ok(match &written.requires_type {
            Some(RequiresType::ProviderName(name)) => Requirement::Provider(self.index(name)?, None),
            Some(RequiresType::ProviderAndAudiences(with)) => {
                let index = self.index(&with.provider_name)?;
                let own = self.providers.get(index).map(|provider| provider.rules.clone()).unwrap_or_default();
                Requirement::Provider(index, Some(TokenRules { audiences: with.audiences.clone(), ..own }))
            }
            Some(RequiresType::RequiresAny(list)) => Requirement::Any(each(&list.requirements).within("requires_any")?),
            Some(RequiresType::RequiresAll(list)) => Requirement::All(each(&list.requirements).within("requires_all")?),
            Some(RequiresType::AllowMissing(_)) => Requirement::AllowMissing(of.into()),
            Some(RequiresType::AllowMissingOrFailed(_)) => Requirement::AllowMissingOrFailed(of.into()),
            Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
                return Err(Refusal::unsupported("extract_only_without_validation"));
            }
            None => Requirement::All(Box::default()),
        })
    }

    fn all(&self) -> Vec<usize> {
        (0..self.names.len()).collect()
    }

    fn index(&self, name: &str) -> Result<usize, Refusal> {
        let unknown = || Refusal::new("provider_name", format!("{name:?} is not in providers"));
        self.names.iter().position(|known| *known == name).ok_or_else(unknown)
    }
}
