//! One route: its conditions, and what all kinds of action share.

use super::{Inherited, RouteContext, action, fraction, header_ops, origin, overrides, refuse};
use crate::bootstrap::Environment;
use crate::message::matcher::{HeaderMatcher, MetadataMatcher, StringMatcher, whole_regex};
use crate::refusal::{Refusal, Within};
use crate::route::matcher::{Condition, PathMatcher, QueryMatcher, RouteMatcher};
use crate::route::template::Template;
use crate::route::{Action, Redirect, Route};
use proto::envoy::core::TypedExtensionConfig;
use proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use proto::envoy::route::query_parameter_matcher::QueryParameterMatchSpecifier;
use proto::envoy::route::route::Action as WrittenAction;
use proto::envoy::route::route_match::PathSpecifier;
use proto::envoy::route::{QueryParameterMatcher, Route as Written, RouteMatch, VirtualHost};
use proto::envoy::wkt::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a path condition hands on to rewrites.
pub(super) struct Matched {
    /// Length of the prefix or exact path that a prefix rewrite replaces.
    pub(super) prefix: Option<usize>,
    /// The template whose variables a template rewrite uses.
    pub(super) template: Option<Template>,
}

pub(super) fn parse(
    written: &Written,
    host: &VirtualHost,
    outer: &Inherited,
    cx: RouteContext<'_>,
) -> Result<(RouteMatcher, Route), Refusal> {
    refuse(&[
        ("tracing", written.tracing.is_some()),
        ("stat_prefix", !written.stat_prefix.is_empty()),
        ("route_specifiers", !written.route_specifiers.is_empty()),
    ])?;
    let conditions = written.r#match.as_ref().ok_or_else(|| Refusal::new("match", "is missing"))?;
    let (matcher, matched) = conditions_of(conditions, cx).within("match")?;
    let mut route = blank(written, host, outer, cx)?;
    route.by_metadata = !matcher.metadata.is_empty();
    match &written.action {
        Some(WrittenAction::Route(action)) => {
            action::forward(&mut route, action, &matched, (host, outer), cx).within("route")?
        }
        Some(WrittenAction::Redirect(redirect)) => {
            route.action = Action::Redirect(Box::new(action::redirect(redirect, &matched).within("redirect")?));
        }
        Some(WrittenAction::DirectResponse(direct)) => {
            route.action = action::direct(direct, outer.direct_body_bytes, cx).within("direct_response")?;
        }
        Some(WrittenAction::NonForwardingAction(_)) => route.action = Action::NonForwarding,
        Some(WrittenAction::FilterAction(_)) => return Err(Refusal::unsupported("filter_action")),
        None => {
            return Err(Refusal::new(
                "action",
                "one of route, redirect, direct_response, non_forwarding_action is needed",
            ));
        }
    }
    Ok((matcher, route))
}

/// The route that sends a client to the same place over TLS.
pub(super) fn to_https() -> Route {
    let redirect = Redirect { status: 301, scheme: Some("https".into()), ..Redirect::default() };
    Route::new(Action::Redirect(Box::new(redirect)))
}

fn blank(written: &Written, host: &VirtualHost, outer: &Inherited, cx: RouteContext<'_>) -> Result<Route, Refusal> {
    let mut request = header_ops(&written.request_headers_to_add, &written.request_headers_to_remove, cx)
        .within("request_headers_to_add")?;
    request.extend(outer.request_headers.iter().cloned());
    let mut response = header_ops(&written.response_headers_to_add, &written.response_headers_to_remove, cx)
        .within("response_headers_to_add")?;
    response.extend(outer.response_headers.iter().cloned());
    let mut filters = overrides(&written.typed_per_filter_config, cx)?;
    filters.extend(outer.filters.iter().cloned());
    Ok(Route {
        name: written.name.as_str().into(),
        virtual_host: host.name.as_str().into(),
        request_headers: request.into(),
        response_headers: response.into(),
        filters: filters.into(),
        most_specific_wins: outer.most_specific_wins,
        attempt_count_in_request: host.include_request_attempt_count,
        attempt_count_in_response: host.include_attempt_count_in_response,
        replay_limit_bytes: replay_limit(written, host),
        decorator: written.decorator.as_ref().map(|decorator| decorator.operation.as_str().into()),
        decorator_propagate: written.decorator.as_ref().is_some_and(|d| d.propagate.is_none_or(|told| told.value)),
        origin: origin(written.metadata.as_ref()),
        host_rate_limits: Arc::clone(&outer.rate_limits),
        ..Route::new(Action::NonForwarding)
    })
}

#[expect(deprecated, reason = "per_request_buffer_limit_bytes is what came before request_body_buffer_limit")]
fn replay_limit(written: &Written, host: &VirtualHost) -> Option<u64> {
    let old = |value: Option<&proto::envoy::wkt::UInt32Value>| value.map(|value| u64::from(value.value));
    let new = |value: Option<&proto::envoy::wkt::UInt64Value>| value.map(|value| value.value);
    new(written.request_body_buffer_limit.as_ref())
        .or_else(|| old(written.per_request_buffer_limit_bytes.as_ref()))
        .or_else(|| new(host.request_body_buffer_limit.as_ref()))
        .or_else(|| old(host.per_request_buffer_limit_bytes.as_ref()))
}

impl Condition {
    /// Parses the conditions of a route.
    ///
    /// # Errors
    /// The field that is wrong or not supported.
    pub fn parse(written: &RouteMatch) -> Result<Self, Refusal> {
        refuse(&[("dynamic_metadata", !written.dynamic_metadata.is_empty())])?;
        let (environment, runtime) = (Environment::default(), BTreeMap::new());
        let parse_override = &|_: &str, _: &Any| Err(Refusal::unsupported("typed_per_filter_config"));
        let (conditions, _) =
            conditions_of(written, RouteContext { environment: &environment, runtime: &runtime, parse_override })?;
        Ok(Self(conditions))
    }
}

fn conditions_of(written: &RouteMatch, cx: RouteContext<'_>) -> Result<(RouteMatcher, Matched), Refusal> {
    refuse(&[
        ("cookies", !written.cookies.is_empty()),
        ("tls_context", written.tls_context.is_some()),
        ("filter_state", !written.filter_state.is_empty()),
    ])?;
    let (path, matched) = path_of(written)?;
    let headers = written.headers.iter().enumerate();
    let query = written.query_parameters.iter().enumerate();
    let metadata = written.dynamic_metadata.iter().enumerate();
    let matcher = RouteMatcher {
        path,
        ignore_case: written.case_sensitive.as_ref().is_some_and(|sensitive| !sensitive.value),
        headers: headers
            .map(|(index, header)| HeaderMatcher::parse(header).within(&format!("headers[{index}]")))
            .collect::<Result<_, _>>()?,
        query: query
            .map(|(index, parameter)| query_of(parameter).within(&format!("query_parameters[{index}]")))
            .collect::<Result<_, _>>()?,
        metadata: metadata
            .map(|(index, left)| MetadataMatcher::parse(left).within(&format!("dynamic_metadata[{index}]")))
            .collect::<Result<_, _>>()?,
        fraction: written
            .runtime_fraction
            .as_ref()
            .map(|share| fraction(share, cx).within("runtime_fraction"))
            .transpose()?,
        grpc_only: written.grpc.is_some(),
    };
    Ok((matcher, matched))
}

fn path_of(written: &RouteMatch) -> Result<(PathMatcher, Matched), Refusal> {
    let mut matched = Matched { prefix: None, template: None };
    let path = match &written.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => {
            matched.prefix = Some(prefix.len());
            PathMatcher::Prefix(prefix.as_bytes().into())
        }
        Some(PathSpecifier::Path(path)) => {
            matched.prefix = Some(path.len());
            PathMatcher::Exact(path.as_bytes().into())
        }
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains(['?', '#']) {
                let why = "must begin with / and must not end with it, and has no ? or #";
                return Err(Refusal::new("path_separated_prefix", why));
            }
            matched.prefix = Some(prefix.len());
            PathMatcher::Segments(prefix.as_bytes().into())
        }
        Some(PathSpecifier::SafeRegex(regex)) => {
            PathMatcher::Regex(whole_regex(&regex.regex).map_err(|why| Refusal::new("safe_regex.regex", why))?)
        }
        Some(PathSpecifier::ConnectMatcher(_)) => PathMatcher::Connect,
        Some(PathSpecifier::PathMatchPolicy(policy)) => {
            let template = template_of(policy).within("path_match_policy")?;
            matched.template = Some(template.clone());
            PathMatcher::Template(template)
        }
        None => return Err(Refusal::new("path_specifier", "one of prefix, path, safe_regex and the like is needed")),
    };
    Ok((path, matched))
}

fn template_of(policy: &TypedExtensionConfig) -> Result<Template, Refusal> {
    let any = policy.typed_config.as_ref().ok_or_else(|| Refusal::new("typed_config", "is missing"))?;
    let config: UriTemplateMatchConfig = proto::any::unpack(any)
        .map_err(|_| Refusal::unsupported(format!("typed_config: {}", proto::any::type_name(&any.type_url))))?;
    Template::parse(&config.path_template).map_err(|why| Refusal::new("typed_config.path_template", why))
}

fn query_of(written: &QueryParameterMatcher) -> Result<QueryMatcher, Refusal> {
    let (value, present) = match &written.query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(text)) => {
            (Some(StringMatcher::parse(text).within("string_match")?), true)
        }
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => (None, *present),
        None => (None, true),
    };
    Ok(QueryMatcher { name: written.name.as_bytes().into(), value, present })
}
