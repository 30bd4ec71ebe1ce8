//! `ExtAuthz` and `ExtAuthzPerRoute` of Envoy's API.

use super::{BodyLimit, ExtAuthz, HttpService, Service};
use crate::filter::next_id;
use crate::message::matcher::{MetadataMatcher, StringMatcher};
use crate::net;
use crate::refusal::{Refusal, Within};
use proto::any;
use proto::duration::from_proto;
use proto::envoy::core::{HttpUri, http_uri::HttpUpstreamType};
use proto::envoy::http_filters::ext_authz::v3::{
    AuthorizationRequest, BufferSettings, ExtAuthz as Written, ExtAuthzPerRoute, HttpService as WrittenHttp,
    ext_authz::Services, ext_authz_per_route,
};
use proto::envoy::matcher::{self, ListStringMatcher, string_matcher::MatchPattern};
use proto::envoy::wkt::{Any, Duration as WrittenDuration};
use std::collections::HashMap;
use std::time::Duration;

/// What a route has for the filter.
#[derive(Debug)]
pub struct Override {
    /// The request is not checked.
    pub(super) disabled: bool,
    /// Sent to a gRPC service.
    pub(super) context: HashMap<String, String>,
    /// The body is not sent.
    pub(super) without_body: bool,
}

/// Parses the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any) -> Result<ExtAuthz, Refusal> {
    let written: Written = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    let (service, timeout) = match &written.services {
        Some(Services::HttpService(http)) => http_service(http).within("http_service")?,
        Some(Services::GrpcService(grpc)) => {
            (Service::Grpc(net::Service::parse(Some(grpc))?), limit(grpc.timeout.as_ref()))
        }
        None => return Err(Refusal::new("services", "is needed")),
    };
    refuse(&written)?;
    let enabled = written.filter_enabled_metadata.as_ref().map(MetadataMatcher::parse);
    Ok(ExtAuthz {
        id: next_id(),
        service,
        timeout,
        allow_on_error: written.failure_mode_allow,
        mark_on_error: written.failure_mode_allow_header_add,
        status_on_error: written.status_on_error.as_ref().and_then(|s| u16::try_from(s.code).ok()).unwrap_or(403),
        body: written.with_request_body.as_ref().map(body_limit),
        request_headers: patterns(written.allowed_headers.as_ref()).within("allowed_headers")?,
        enabled: enabled.transpose().within("filter_enabled_metadata")?,
        clear_route: written.clear_route_cache,
    })
}

fn http_service(http: &WrittenHttp) -> Result<(Service, Duration), Refusal> {
    let uri = http.server_uri.as_ref().ok_or_else(|| Refusal::new("server_uri", "is needed"))?;
    let HttpUri { http_upstream_type: Some(HttpUpstreamType::Cluster(cluster)), .. } = uri else {
        return Err(Refusal::new("server_uri.cluster", "is needed"));
    };
    for (field, set) in [
        ("path_override", !http.path_override.is_empty()),
        ("retry_policy", http.retry_policy.is_some()),
        (
            "authorization_request.allowed_headers",
            http.authorization_request.as_ref().is_some_and(|request| old_headers(request).is_some()),
        ),
        (
            "authorization_response.dynamic_metadata_from_headers",
            http.authorization_response.as_ref().is_some_and(|r| r.dynamic_metadata_from_headers.is_some()),
        ),
    ] {
        if set {
            return Err(Refusal::unsupported(field));
        }
    }
    let added = http.authorization_request.iter().flat_map(|request| &request.headers_to_add);
    let response = http.authorization_response.clone().unwrap_or_default();
    let list = |list: &Option<ListStringMatcher>, field: &str| {
        patterns(list.as_ref()).within(&format!("authorization_response.{field}"))
    };
    let service = HttpService {
        cluster: cluster.as_str().into(),
        path_prefix: http.path_prefix.as_str().into(),
        added: added.map(|h| (h.key.to_ascii_lowercase().into_bytes().into(), h.value.as_bytes().into())).collect(),
        to_upstream: list(&response.allowed_upstream_headers, "allowed_upstream_headers")?.unwrap_or_default(),
        appended: list(&response.allowed_upstream_headers_to_append, "allowed_upstream_headers_to_append")?
            .unwrap_or_default(),
        to_client: list(&response.allowed_client_headers, "allowed_client_headers")?,
        to_client_on_success: list(&response.allowed_client_headers_on_success, "allowed_client_headers_on_success")?
            .unwrap_or_default(),
    };
    Ok((Service::Http(Box::new(service)), limit(uri.timeout.as_ref())))
}

#[expect(deprecated, reason = "older control planes may send it")]
fn old_headers(request: &AuthorizationRequest) -> Option<&ListStringMatcher> {
    request.allowed_headers.as_ref()
}

/// What would let requests pass, or hide something from the service, if it were not obeyed.
fn refuse(written: &Written) -> Result<(), Refusal> {
    let full = written
        .filter_enabled
        .as_ref()
        .and_then(|f| f.default_value.as_ref())
        .is_none_or(|share| share.denominator == 0 && share.numerator >= 100);
    for (field, set) in [
        ("filter_enabled", !full),
        ("deny_at_disable", written.deny_at_disable.is_some()),
        ("disallowed_headers", written.disallowed_headers.is_some()),
        ("include_peer_certificate", written.include_peer_certificate),
        ("metadata_context_namespaces", !written.metadata_context_namespaces.is_empty()),
        ("typed_metadata_context_namespaces", !written.typed_metadata_context_namespaces.is_empty()),
        ("route_metadata_context_namespaces", !written.route_metadata_context_namespaces.is_empty()),
        ("decoder_header_mutation_rules", written.decoder_header_mutation_rules.is_some()),
        ("shadow_mode", written.shadow_mode),
    ] {
        if set {
            return Err(Refusal::unsupported(field));
        }
    }
    Ok(())
}

fn limit(written: Option<&WrittenDuration>) -> Duration {
    written.map_or(Duration::from_millis(200), from_proto)
}

fn body_limit(written: &BufferSettings) -> BodyLimit {
    BodyLimit {
        max_bytes: written.max_request_bytes as usize,
        allow_partial: written.allow_partial_message,
        as_bytes: written.pack_as_bytes,
    }
}

/// The patterns of a list of header names; names are compared in lower case.
fn patterns(list: Option<&ListStringMatcher>) -> Result<Option<Box<[StringMatcher]>>, Refusal> {
    let Some(list) = list else { return Ok(None) };
    let each = |(i, matcher): (usize, &matcher::StringMatcher)| {
        let blind = matcher::StringMatcher {
            ignore_case: !matches!(matcher.match_pattern, Some(MatchPattern::SafeRegex(_))),
            ..matcher.clone()
        };
        StringMatcher::parse(&blind).within(&format!("patterns[{i}]"))
    };
    list.patterns.iter().enumerate().map(each).collect::<Result<_, _>>().map(Some)
}

/// Parses what a route has for the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse_override(typed: &Any) -> Result<Override, Refusal> {
    let written: ExtAuthzPerRoute = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    match written.r#override {
        Some(ext_authz_per_route::Override::Disabled(disabled)) => {
            Ok(Override { disabled, context: HashMap::new(), without_body: false })
        }
        Some(ext_authz_per_route::Override::CheckSettings(settings)) => {
            if settings.with_request_body.is_some() {
                return Err(Refusal::unsupported("check_settings.with_request_body"));
            }
            Ok(Override {
                disabled: false,
                context: settings.context_extensions,
                without_body: settings.disable_request_body_buffering,
            })
        }
        None => Err(Refusal::new("override", "is needed")),
    }
}
