//! RequestAuthentications as the filter `jwt_authn` (RA-1 to RA-10, CA-30).

use super::telemetry::Direction;
use crate::model::Shared;
use crate::model::request_authn::{RequestAuthentication, TokenRule};
use proto::any;
use proto::envoy::core::{DataSource, data_source::Specifier};
use proto::envoy::http_filters::jwt_authn::v3 as wire;
use proto::envoy::route::{RouteMatch, route_match::PathSpecifier};
use proto::envoy::wkt::{Any, Empty};
use std::collections::BTreeMap;
use wire::jwt_provider::{JwksSourceSpecifier, NormalizePayload};
use wire::jwt_requirement::RequiresType;
use wire::requirement_rule::RequirementType;
use wire::{JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementAndList, JwtRequirementOrList};

/// Claims whose words are a list (RFC 8693, section 4.2), where a rule names none.
const SPACED: [&str; 2] = ["permission", "scope"];

/// `envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication` with its providers in order.
#[derive(Clone, PartialEq, prost::Message)]
struct JwtAuthentication {
    #[prost(btree_map = "string, message", tag = "1")]
    providers: BTreeMap<String, JwtProvider>,
    #[prost(message, repeated, tag = "2")]
    rules: Vec<wire::RequirementRule>,
    #[prost(bool, tag = "4")]
    bypass_cors_preflight: bool,
}

/// The filter of a workload with these policies; none where no issuer is named.
///
/// A request needs no token; one that it brings must be good. Of several issuers one good token suffices, or several that
/// are all good (RA-4, RA-10).
///
/// A gateway chooses the route anew by what the token says (VS-13).
pub fn filter(policies: &[Shared<RequestAuthentication>], direction: Direction) -> Option<Any> {
    let mut rules: Vec<&TokenRule> = policies.iter().flat_map(|policy| &policy.rules).collect();
    rules.sort_by(|a, b| a.written.issuer.cmp(&b.written.issuer));
    let names: Vec<String> = (0..rules.len()).map(|index| format!("origins-{index}")).collect();
    let named = |name: &String| requirement(RequiresType::ProviderName(name.clone()));
    let or_missing = |name: &String| any_of(vec![named(name), requirement(RequiresType::AllowMissing(Empty {}))]);
    let requires = match names.as_slice() {
        [] => return None,
        [one] => or_missing(one),
        several => {
            let all = JwtRequirementAndList { requirements: several.iter().map(or_missing).collect() };
            any_of(several.iter().map(named).chain([requirement(RequiresType::RequiresAll(all))]).collect())
        }
    };
    let everywhere =
        RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() };
    let rule = wire::RequirementRule {
        r#match: Some(everywhere),
        requirement_type: Some(RequirementType::Requires(requires)),
    };
    let filter = JwtAuthentication {
        providers: names.into_iter().zip(rules.into_iter().map(|rule| provider(rule, direction))).collect(),
        rules: vec![rule],
        bypass_cors_preflight: true,
    };
    Some(any::pack_as("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", &filter))
}

fn requirement(of: RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(of) }
}

fn any_of(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    requirement(RequiresType::RequiresAny(JwtRequirementOrList { requirements }))
}

fn provider(rule: &TokenRule, direction: Direction) -> JwtProvider {
    let written = &rule.written;
    let header = |header: &proto::istio::request_authentication::JwtHeader| JwtHeader {
        name: header.name.clone(),
        value_prefix: header.prefix.clone(),
    };
    let output = |output: &proto::istio::request_authentication::ClaimToHeader| JwtClaimToHeader {
        header_name: output.header.clone(),
        claim_name: output.claim.clone(),
        ..JwtClaimToHeader::default()
    };
    let mut spaced = written.space_delimited_claims.clone();
    if spaced.is_empty() {
        spaced = SPACED.map(str::to_owned).into();
    }
    let keys = DataSource { specifier: Some(Specifier::InlineString(rule.keys.to_string())), ..DataSource::default() };
    JwtProvider {
        issuer: written.issuer.clone(),
        audiences: written.audiences.clone(),
        forward: written.forward_original_token,
        from_headers: written.from_headers.iter().map(header).collect(),
        from_params: written.from_params.clone(),
        from_cookies: written.from_cookies.clone(),
        forward_payload_header: written.output_payload_to_header.clone(),
        claim_to_headers: written.output_claim_to_headers.iter().map(output).collect(),
        payload_in_metadata: "payload".to_owned(),
        clear_route_cache: direction == Direction::Gateway,
        normalize_payload_in_metadata: Some(NormalizePayload { space_delimited_claims: spaced }),
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(keys)),
        ..JwtProvider::default()
    }
}
