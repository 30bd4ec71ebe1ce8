//! Type URL → filter: the one table. Adding a filter is its file and a line here.

use super::{
    Filter, alpn, buffer, cors, ext_authz, fault, header_mutation, jwt_authn, local_ratelimit, on_demand,
    peer_metadata, rate_limit_quota, ratelimit, rbac, stats,
};
use crate::refusal::{Refusal, Within};
use crate::route::{FilterDisabled, Override};
use proto::any;
use proto::envoy::route::FilterConfig;
use proto::envoy::wkt::Any;
use std::sync::Arc;

/// What a filter configuration turned out to be.
#[derive(Debug)]
pub enum Parsed {
    /// A filter of the chain.
    Filter(Box<Filter>),
    /// The router, with which every chain ends.
    Router,
}

type Parse = fn(&Any) -> Result<Filter, Refusal>;

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

const TABLE: &[(&str, Parse)] = &[
    ("envoy.extensions.filters.http.buffer.v3.Buffer", |a| buffer::parse(a).map(Filter::Buffer)),
    ("envoy.extensions.filters.http.cors.v3.Cors", |_| Ok(Filter::Cors)),
    ("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", |a| ext_authz::parse(a).map(Filter::ExtAuthz)),
    ("envoy.extensions.filters.http.fault.v3.HTTPFault", |a| fault::parse(a).map(Filter::Fault)),
    ("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", |_| Ok(Filter::GrpcStats)),
    ("envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", |a| {
        header_mutation::parse(a).map(Filter::HeaderMutation)
    }),
    ("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", |a| jwt_authn::parse(a).map(Filter::JwtAuthn)),
    ("envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", |a| {
        local_ratelimit::parse(a).map(Filter::LocalRateLimit)
    }),
    ("envoy.extensions.filters.http.on_demand.v3.OnDemand", |a| on_demand::parse(a).map(Filter::OnDemand)),
    ("envoy.extensions.filters.http.ratelimit.v3.RateLimit", |a| {
        ratelimit::parse(a).map(Box::new).map(Filter::RateLimit)
    }),
    ("envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig", |a| {
        rate_limit_quota::parse(a).map(Box::new).map(Filter::RateLimitQuota)
    }),
    ("envoy.extensions.filters.http.rbac.v3.RBAC", |a| rbac::parse(a).map(Filter::Rbac)),
    ("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", |a| alpn::parse(a).map(Filter::Alpn)),
    ("io.istio.http.peer_metadata.Config", |a| peer_metadata::parse(a).map(Filter::PeerMetadata)),
    ("stats.PluginConfig", |a| stats::parse(a).map(Filter::Stats)),
];

type ParseOverride = fn(&Any) -> Result<Override, Refusal>;

/// What a route may have for a filter, by the name of the filter.
const OVERRIDES: &[(&str, ParseOverride)] = &[
    (buffer::NAME, |a| Ok(Arc::new(buffer::parse_override(a)?))),
    (cors::NAME, |a| Ok(Arc::new(cors::parse_override(a)?))),
    (fault::NAME, |a| Ok(Arc::new(fault::parse(a)?))),
    (jwt_authn::NAME, |a| Ok(Arc::new(jwt_authn::parse_override(a)?))),
    (local_ratelimit::NAME, |a| Ok(Arc::new(local_ratelimit::parse(a)?))),
    (ratelimit::NAME, |a| Ok(Arc::new(ratelimit::parse_override(a)?))),
    (rate_limit_quota::NAME, |a| Ok(Arc::new(rate_limit_quota::parse_override(a)?))),
    (rbac::NAME, |a| Ok(Arc::new(rbac::parse_override(a)?))),
    (ext_authz::NAME, |a| Ok(Arc::new(ext_authz::parse_override(a)?))),
];

/// Names of the filters that this proxy has, for the node's extensions (XM-5).
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name).chain([ROUTER])
}

/// Parses the filter `name`.
///
/// # Errors
/// Envoy's text for an unknown type (XM-5, XT-15), or the field that is wrong.
pub fn parse(name: &str, typed: &Any) -> Result<Parsed, Refusal> {
    let type_name = any::type_of(typed);
    if type_name == ROUTER {
        return Ok(Parsed::Router);
    }
    match TABLE.iter().find(|(known, _)| *known == type_name) {
        Some((_, parse)) => parse(typed).within("typed_config").map(|filter| Parsed::Filter(Box::new(filter))),
        None => Err(Refusal::new(
            "typed_config",
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'"),
        )),
    }
}

/// Parses the configuration that a route has for the filter `name`.
///
/// # Errors
/// The field that is wrong; a filter that takes none.
pub fn parse_override(name: &str, typed: &Any) -> Result<Override, Refusal> {
    if any::type_name(&typed.type_url) == "envoy.config.route.v3.FilterConfig" {
        let wrapped: FilterConfig = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
        return match (&wrapped.config, wrapped.disabled) {
            (_, true) => Ok(Arc::new(FilterDisabled)),
            (Some(inner), false) => parse_override(name, inner),
            (None, false) => Err(Refusal::new("config", "is needed")),
        };
    }
    match OVERRIDES.iter().find(|(known, _)| *known == name) {
        Some((_, parse)) => parse(typed),
        None => Err(Refusal::new("", format!("{name} takes no configuration of a route, or is not supported yet"))),
    }
}
