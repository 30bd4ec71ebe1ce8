//! `ExtAuthz` and `ExtAuthzPerRoute` of Envoy's API.

use super::{BodyLimit, ExtAuthz, Service};
use crate::filter::next_id;
use crate::net;
use crate::refusal::{Refusal, Within};
use proto::any;
use proto::duration::from_proto;
use proto::envoy::core::{HttpUri, http_uri::HttpUpstreamType};
use proto::envoy::http_filters::ext_authz::v3::{
    BufferSettings, ExtAuthz as Written, ExtAuthzPerRoute, HttpService, ext_authz::Services, ext_authz_per_route,
};
use proto::envoy::matcher::{ListStringMatcher, string_matcher::MatchPattern};
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
    Ok(ExtAuthz {
        id: next_id(),
        service,
        timeout,
        allow_on_error: written.failure_mode_allow,
        status_on_error: written.status_on_error.as_ref().and_then(|s| u16::try_from(s.code).ok()).unwrap_or(403),
        body: written.with_request_body.as_ref().map(body_limit),
        request_headers: written
            .allowed_headers
            .as_ref()
            .map(|list| names(Some(list), "allowed_headers"))
            .transpose()?,
    })
}

fn http_service(http: &HttpService) -> Result<(Service, Duration), Refusal> {
    let uri = http.server_uri.as_ref().ok_or_else(|| Refusal::new("server_uri", "is needed"))?;
    let HttpUri { http_upstream_type: Some(HttpUpstreamType::Cluster(cluster)), .. } = uri else {
        return Err(Refusal::new("server_uri.cluster", "is needed"));
    };
    let upstream = http.authorization_response.as_ref().and_then(|r| r.allowed_upstream_headers.as_ref());
    let service = Service::Http {
        cluster: cluster.as_str().into(),
        path_prefix: http.path_prefix.as_str().into(),
        upstream_headers: names(upstream, "authorization_response.allowed_upstream_headers")?,
    };
    Ok((service, limit(uri.timeout.as_ref())))
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

/// Header names of a list; patterns that are no exact name are not supported yet.
fn names(list: Option<&ListStringMatcher>, field: &str) -> Result<Box<[Box<[u8]>]>, Refusal> {
    let patterns = list.into_iter().flat_map(|list| &list.patterns);
    let name = |matcher: &proto::envoy::matcher::StringMatcher| match &matcher.match_pattern {
        Some(MatchPattern::Exact(name)) => Ok(name.to_ascii_lowercase().into_bytes().into()),
        _ => Err(Refusal::unsupported(format!("{field}: only exact"))),
    };
    patterns.map(name).collect()
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
