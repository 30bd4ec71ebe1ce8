//! CUSTOM policies: which requests a service outside decides, and who that is (AZ-20).
//!
//! Shadow rules say for each request whether a policy chooses it; the filter behind them asks the service where one did.
//! A provider that cannot be used denies what its policies choose.

use super::authz::{self, Protocol};
use super::message::duration;
use super::names;
use super::telemetry::{grpc_service, host_of};
use crate::model::authz::AuthorizationPolicy;
use crate::model::{Mesh, MeshConfig, Shared};
use proto::any;
use proto::envoy::core::http_uri::HttpUpstreamType;
use proto::envoy::core::{ApiVersion, HeaderValue, HttpUri};
use proto::envoy::http_filters::ext_authz::v3 as wire;
use proto::envoy::matcher::metadata_matcher::{PathSegment, path_segment};
use proto::envoy::matcher::string_matcher::MatchPattern;
use proto::envoy::matcher::{ListStringMatcher, MetadataMatcher, StringMatcher, ValueMatcher, value_matcher};
use proto::envoy::network_filters::ext_authz::v3 as wire_tcp;
use proto::envoy::types::HttpStatus;
use proto::envoy::wkt::Any;
use proto::istio::authorization_policy::Action;
use proto::istio::provider::{ExtAuthzGrpc, ExtAuthzHttp, RequestBody};
use std::collections::BTreeSet;
use std::time::Duration;

/// Prefix of the metadata that the shadow rules leave.
const LEFT: &str = "istio_ext_authz_";
/// What denies for want of a usable provider.
const BAD: &str = "-deny-due-to-bad-CUSTOM-action";
/// Longest time that a service may take, where its provider does not say.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A provider that policies of a workload name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Judge {
    /// Its name.
    pub name: String,
    /// Who is asked; none: it is not configured, or its service is not in the mesh.
    pub service: Option<Service>,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "one per form of a provider")]
pub enum Service {
    Http(ExtAuthzHttp),
    Grpc(ExtAuthzGrpc),
}

impl Judge {
    /// The providers that CUSTOM policies name, in the order of their names.
    pub fn of(policies: &[Shared<AuthorizationPolicy>], mesh: &Mesh) -> Vec<Self> {
        let resolved = |judge: Self| Self { service: service(&judge.name, mesh), ..judge };
        Self::unusable(policies).into_iter().map(resolved).collect()
    }

    /// The same where nobody can be asked: what they would decide is denied.
    pub fn unusable(policies: &[Shared<AuthorizationPolicy>]) -> Vec<Self> {
        let custom = policies.iter().filter(|policy| policy.action == Action::Custom);
        let names: BTreeSet<&String> = custom.map(|policy| &policy.provider).collect();
        names.into_iter().map(|name| Self { name: name.clone(), service: None }).collect()
    }

    fn policy_prefix(&self) -> String {
        format!("istio-ext-authz-{}-", self.name)
    }

    /// Which requests are asked about: those that a policy of this provider chose.
    fn chosen(&self, filter: &str) -> MetadataMatcher {
        let key = format!("{LEFT}shadow_effective_policy_id");
        let prefix = MatchPattern::Prefix(format!("istio-ext-authz-{}", self.name));
        let text = StringMatcher { match_pattern: Some(prefix), ..StringMatcher::default() };
        MetadataMatcher {
            filter: filter.to_owned(),
            path: vec![PathSegment { segment: Some(path_segment::Segment::Key(key)) }],
            value: Some(ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::StringMatch(text)) }),
            ..MetadataMatcher::default()
        }
    }
}

fn service(name: &str, mesh: &Mesh) -> Option<Service> {
    let provider = mesh.config.providers.iter().find(|provider| provider.name == name)?;
    super::telemetry::is_served(provider.service()?, mesh).then_some(())?;
    let http = provider.envoy_ext_authz_http.clone().map(Service::Http);
    http.or_else(|| provider.envoy_ext_authz_grpc.clone().map(Service::Grpc))
}

/// The filters of CUSTOM policies with their names: for each provider its shadow rules, and who is asked.
pub fn filters(
    policies: &[Shared<AuthorizationPolicy>],
    judges: &[Judge],
    protocol: Protocol,
    mesh: &MeshConfig,
) -> Vec<(&'static str, Any)> {
    let (rbac, ext_authz) = match protocol {
        Protocol::Http => ("envoy.filters.http.rbac", "envoy.filters.http.ext_authz"),
        Protocol::Tcp => ("envoy.filters.network.rbac", "envoy.filters.network.ext_authz"),
    };
    let mut out = Vec::new();
    for judge in judges {
        let own = policies.iter().filter(|p| p.action == Action::Custom && p.provider == judge.name && !p.dry_run);
        let own: Vec<&AuthorizationPolicy> = own.map(|policy| &**policy).collect();
        let rules = authz::chosen(&own, protocol, mesh, &judge.policy_prefix());
        let config = match (&judge.service, protocol) {
            (None, _) => {
                out.push((rbac, authz::pack(Some(rules.suffixed(BAD)), None, "", protocol)));
                continue;
            }
            (Some(Service::Http(http)), Protocol::Http) => any::pack(&ask_http(http, judge.chosen(rbac))),
            (Some(Service::Grpc(grpc)), Protocol::Http) => any::pack(&ask_grpc(grpc, judge.chosen(rbac))),
            (Some(Service::Grpc(grpc)), Protocol::Tcp) => any::pack(&ask_of_connection(grpc, judge.chosen(rbac))),
            // A service that knows requests alone is not asked about connections, as with istiod.
            (Some(Service::Http(_)), Protocol::Tcp) => continue,
        };
        out.push((rbac, authz::pack(None, Some(rules), LEFT, protocol)));
        out.push((ext_authz, config));
    }
    out
}

fn ask_http(provider: &ExtAuthzHttp, chosen: MetadataMatcher) -> wire::ExtAuthz {
    let host = host_of(&provider.service);
    let added = provider.include_additional_headers_in_check.iter();
    let added: Vec<HeaderValue> = added
        .map(|(key, value)| HeaderValue { key: key.clone(), value: value.clone(), ..HeaderValue::default() })
        .collect();
    let response = wire::AuthorizationResponse {
        allowed_upstream_headers: patterns(&provider.headers_to_upstream_on_allow),
        allowed_client_headers: patterns(&provider.headers_to_downstream_on_deny),
        allowed_client_headers_on_success: patterns(&provider.headers_to_downstream_on_allow),
        ..wire::AuthorizationResponse::default()
    };
    let service = wire::HttpService {
        server_uri: Some(HttpUri {
            uri: format!("http://{host}"),
            timeout: duration(provider.timeout.map_or(TIMEOUT, |timeout| timeout.0)),
            http_upstream_type: Some(HttpUpstreamType::Cluster(names::outbound(provider.port, "", host))),
        }),
        path_prefix: provider.path_prefix.clone(),
        authorization_request: (!added.is_empty())
            .then(|| wire::AuthorizationRequest { headers_to_add: added, ..wire::AuthorizationRequest::default() }),
        authorization_response: (response != wire::AuthorizationResponse::default()).then_some(response),
        ..wire::HttpService::default()
    };
    let headers = patterns(&provider.include_request_headers_in_check);
    wire::ExtAuthz {
        services: Some(wire::ext_authz::Services::HttpService(service)),
        allowed_headers: headers.or_else(|| patterns(&provider.include_headers_in_check)),
        with_request_body: provider.include_request_body_in_check.as_ref().map(body),
        ..asked(provider.fail_open, &provider.status_on_error, chosen)
    }
}

fn ask_grpc(provider: &ExtAuthzGrpc, chosen: MetadataMatcher) -> wire::ExtAuthz {
    wire::ExtAuthz {
        services: Some(wire::ext_authz::Services::GrpcService(grpc(provider))),
        with_request_body: provider.include_request_body_in_check.as_ref().map(body),
        ..asked(provider.fail_open, &provider.status_on_error, chosen)
    }
}

fn ask_of_connection(provider: &ExtAuthzGrpc, chosen: MetadataMatcher) -> wire_tcp::ExtAuthz {
    wire_tcp::ExtAuthz {
        stat_prefix: "tcp.".to_owned(),
        grpc_service: Some(grpc(provider)),
        failure_mode_allow: provider.fail_open,
        transport_api_version: ApiVersion::V3.into(),
        filter_enabled_metadata: Some(chosen),
        ..wire_tcp::ExtAuthz::default()
    }
}

fn grpc(provider: &ExtAuthzGrpc) -> proto::envoy::core::GrpcService {
    let mut service = grpc_service((&provider.service, provider.port));
    service.timeout = duration(provider.timeout.map_or(TIMEOUT, |timeout| timeout.0));
    service
}

fn asked(fail_open: bool, status: &str, chosen: MetadataMatcher) -> wire::ExtAuthz {
    wire::ExtAuthz {
        failure_mode_allow: fail_open,
        status_on_error: status.parse().ok().map(|code| HttpStatus { code }),
        transport_api_version: ApiVersion::V3.into(),
        filter_enabled_metadata: Some(chosen),
        ..wire::ExtAuthz::default()
    }
}

fn body(written: &RequestBody) -> wire::BufferSettings {
    wire::BufferSettings {
        max_request_bytes: written.max_request_bytes,
        allow_partial_message: written.allow_partial_message,
        pack_as_bytes: written.pack_as_bytes,
    }
}

/// Names of headers: exact, `prefix*`, `*suffix`.
fn patterns(names: &[String]) -> Option<ListStringMatcher> {
    let pattern = |name: &String| StringMatcher { ignore_case: true, ..authz::text_matcher(name) };
    (!names.is_empty()).then(|| ListStringMatcher { patterns: names.iter().map(pattern).collect() })
}
