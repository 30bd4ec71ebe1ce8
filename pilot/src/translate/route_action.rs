//! What a route does: forward, redirect, answer (VS-16 to VS-36).

use super::fault::{per_million, percent};
use super::matcher;
use super::message::{boolean, duration, uint};
use super::names;
use crate::model::destination_rule::DestinationRule;
use crate::model::{MeshConfig, Shared};
use base64::Engine as _;
use proto::any;
use proto::envoy::core::header_value_option::HeaderAppendAction;
use proto::envoy::core::{DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent, data_source};
use proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use proto::envoy::matcher::RegexMatchAndSubstitute;
use proto::envoy::route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use proto::envoy::route::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use proto::envoy::route::route_action::hash_policy::{
    ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter,
};
use proto::envoy::route::route_action::{ClusterSpecifier, HashPolicy, HostRewriteSpecifier, RequestMirrorPolicy};
use proto::envoy::route::weighted_cluster::{ClusterWeight, cluster_weight};
use proto::envoy::route::{
    DirectResponseAction, RedirectAction, RetryPolicy, Route, RouteAction, WeightedCluster, route,
};
use proto::istio::destination_rule::ConsistentHashLb;
use proto::istio::virtual_service::{
    Destination, HeaderOperations, HttpDirectResponse, HttpRedirect, HttpRetry, HttpRoute, Percent,
    RedirectPortSelection,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is retried where a rule says nothing (VS-28, VS-32).
pub const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// What the action of a route depends on besides the rule.
pub struct Context<'a> {
    /// The port that the route belongs to: the port of destinations that name none.
    pub port: u16,
    /// The port of a service with only one, for gateways; none for sidecars.
    pub only_port: &'a dyn Fn(&str) -> Option<u16>,
    /// DestinationRules with a hash policy, by host.
    pub hashing: &'a BTreeMap<String, Shared<DestinationRule>>,
    /// The mesh's settings.
    pub mesh: &'a MeshConfig,
}

impl Context<'_> {
    fn port_of(&self, destination: &Destination) -> u16 {
        let own = destination.port.as_ref().and_then(|port| u16::try_from(port.number).ok());
        own.or_else(|| (self.only_port)(&destination.host)).unwrap_or(self.port)
    }

    /// The name of the cluster of a destination.
    pub fn cluster(&self, destination: &Destination) -> String {
        names::outbound(self.port_of(destination), &destination.subset, &destination.host)
    }

    /// The hash of a destination (DR-10).
    pub fn hash(&self, destination: &Destination) -> Option<HashPolicy> {
        let rule = self.hashing.get(&destination.host)?;
        let subset = rule.subsets.iter().position(|subset| subset.name == destination.subset);
        let policy = super::policy::effective(Some(&**rule), subset, self.port_of(destination));
        policy.load_balancer?.consistent_hash.map(|hash| hash_policy(&hash))
    }
}

fn hash_policy(hash: &ConsistentHashLb) -> HashPolicy {
    let specifier = if let Some(name) = &hash.http_header_name {
        PolicySpecifier::Header(Header { header_name: name.clone(), ..Header::default() })
    } else if let Some(cookie) = &hash.http_cookie {
        PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            ttl: cookie.ttl.and_then(|ttl| duration(ttl.0)),
            ..Cookie::default()
        })
    } else if let Some(name) = &hash.http_query_parameter_name {
        PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() })
    } else {
        let source_ip = hash.use_source_ip.unwrap_or(false);
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip })
    };
    HashPolicy { terminal: false, policy_specifier: Some(specifier) }
}

/// Retries; none where a rule switches them off (VS-26 to VS-32).
pub fn retry(written: Option<&HttpRetry>, hashed: bool, mesh: &MeshConfig) -> Option<RetryPolicy> {
    let default = HttpRetry { attempts: Some(2), ..HttpRetry::default() };
    let written = written.or(mesh.http_retry.as_ref()).unwrap_or(&default);
    let attempts =
        written.attempts.and_then(|attempts| u32::try_from(attempts).ok()).filter(|attempts| *attempts > 0)?;
    let mut policy = RetryPolicy {
        num_retries: uint(attempts),
        retry_on: DEFAULT_RETRY_ON.to_owned(),
        host_selection_retry_max_attempts: 5,
        ..RetryPolicy::default()
    };
    if !written.retry_on.is_empty() {
        (policy.retry_on, policy.retriable_status_codes) = conditions(&written.retry_on);
    }
    if written.retry_ignore_previous_hosts.unwrap_or(!hashed) {
        policy.retry_host_predicate = vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any::pack(&PreviousHostsPredicate {}))),
        }];
    }
    if written.retry_remote_localities == Some(true) {
        let previous = PreviousPrioritiesConfig { update_frequency: 2 };
        policy.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(any::pack(&previous))),
        });
    }
    policy.per_try_timeout = written.per_try_timeout.filter(|d| !d.0.is_zero()).and_then(|d| duration(d.0));
    // At most ten times as long: what proxies take where nothing is said.
    policy.retry_back_off =
        written.backoff.map(|base| RetryBackOff { base_interval: duration(base.0), max_interval: None });
    Some(policy)
}

/// Numbers become retriable status codes.
fn conditions(text: &str) -> (String, Vec<u32>) {
    let mut names: Vec<&str> = Vec::new();
    let mut codes = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse() {
            Ok(code) => codes.push(code),
            Err(_name) => names.push(part),
        }
    }
    if !codes.is_empty() && !names.contains(&"retriable-status-codes") {
        names.push("retriable-status-codes");
    }
    (names.join(","), codes)
}

/// Operations on headers: set overwrites, add appends; sets come first (VS-18).
pub fn header_operations(operations: Option<&HeaderOperations>) -> (Vec<HeaderValueOption>, Vec<String>) {
    let Some(operations) = operations else { return Default::default() };
    let option = |(key, value): (&String, &String), action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue { key: key.clone(), value: value.clone(), ..HeaderValue::default() }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    };
    let plain = |(key, _): &(&String, &String)| !is_internal(key);
    let set =
        operations.set.iter().filter(plain).map(|entry| option(entry, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = operations.add.iter().filter(plain).map(|entry| option(entry, HeaderAppendAction::AppendIfExistsOrAdd));
    let remove = operations.remove.iter().filter(|key| !is_internal(key)).cloned();
    (set.chain(add).collect(), remove.collect())
}

fn is_authority(key: &str) -> bool {
    key.eq_ignore_ascii_case(":authority") || key.eq_ignore_ascii_case("host")
}

/// What a proxy does not let go as a header.
fn is_internal(key: &str) -> bool {
    key.starts_with(':') || key.eq_ignore_ascii_case("host")
}

/// The authority that operations on the request set.
fn authority(operations: Option<&HeaderOperations>) -> Option<String> {
    let operations = operations?;
    let mut all = operations.set.iter().chain(&operations.add);
    all.find(|(key, _)| is_authority(key)).map(|(_, value)| value.clone())
}

/// Forwarding, with everything that belongs to it.
pub fn forward(out: &mut Route, rule: &HttpRoute, context: &Context<'_>) {
    let request = rule.headers.as_ref().and_then(|headers| headers.request.as_ref());
    let mut action =
        RouteAction { timeout: duration(rule.timeout.map_or(Duration::ZERO, |d| d.0)), ..RouteAction::default() };
    set_max_grpc_timeout(&mut action);
    let weighted = rule.route.len() > 1;
    let destinations: Vec<_> = rule.route.iter().filter(|to| !weighted || to.weight.unwrap_or(0) > 0).collect();
    let targets = destinations.iter().filter_map(|to| to.destination.as_ref());
    action.hash_policy = targets.filter_map(|destination| context.hash(destination)).collect();
    // With several destinations another host may answer a retry whatever the hash says.
    let hashed = !weighted && !action.hash_policy.is_empty();
    action.retry_policy = retry(rule.retries.as_ref(), hashed, context.mesh);
    let mut host = authority(request);
    if let ([only], false) = (destinations.as_slice(), weighted) {
        action.cluster_specifier = only.destination.as_ref().map(|to| ClusterSpecifier::Cluster(context.cluster(to)));
        let own = only.headers.as_ref().and_then(|headers| headers.request.as_ref());
        let (add, remove) = header_operations(own);
        out.request_headers_to_add.extend(add);
        out.request_headers_to_remove.extend(remove);
        let (add, remove) = header_operations(only.headers.as_ref().and_then(|headers| headers.response.as_ref()));
        out.response_headers_to_add.extend(add);
        out.response_headers_to_remove.extend(remove);
        host = host.or_else(|| authority(own));
    } else {
        let clusters = destinations.iter().map(|to| {
            let own = to.headers.as_ref();
            let (request_headers_to_add, request_headers_to_remove) =
                header_operations(own.and_then(|headers| headers.request.as_ref()));
            let (response_headers_to_add, response_headers_to_remove) =
                header_operations(own.and_then(|headers| headers.response.as_ref()));
            ClusterWeight {
                name: to.destination.as_ref().map(|to| context.cluster(to)).unwrap_or_default(),
                weight: uint(u32::try_from(to.weight.unwrap_or(0)).unwrap_or(0)),
                request_headers_to_add,
                request_headers_to_remove,
                response_headers_to_add,
                response_headers_to_remove,
                host_rewrite_specifier: authority(own.and_then(|headers| headers.request.as_ref()))
                    .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
                ..ClusterWeight::default()
            }
        });
        let weighted = WeightedCluster { clusters: clusters.collect(), ..WeightedCluster::default() };
        action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(weighted));
    }
    if let Some(rewrite) = &rule.rewrite {
        action.prefix_rewrite = rewrite.uri.clone().unwrap_or_default();
        action.regex_rewrite = rewrite.uri_regex_rewrite.as_ref().map(|regex| RegexMatchAndSubstitute {
            pattern: Some(matcher::regex(&regex.pattern)),
            substitution: regex.rewrite.clone(),
        });
        host = rewrite.authority.clone().filter(|host| !host.is_empty()).or(host);
    }
    action.host_rewrite_specifier = host.map(HostRewriteSpecifier::HostRewriteLiteral);
    action.request_mirror_policies = mirrors(rule, context);
    out.action = Some(route::Action::Route(action));
}

/// The timeout of `grpc-timeout` is capped by the route's own (VS-25).
#[expect(deprecated, reason = "istiod sends max_grpc_timeout, and so every proxy of the mesh reads it")]
pub fn set_max_grpc_timeout(action: &mut RouteAction) {
    action.max_grpc_timeout = action.timeout;
}

fn mirrors(rule: &HttpRoute, context: &Context<'_>) -> Vec<RequestMirrorPolicy> {
    let share = |written: Option<&Percent>| written.map_or_else(|| percent(100), |share| per_million(share.value));
    let single = rule.mirror.as_ref().map(|to| match (&rule.mirror_percentage, rule.mirror_percent) {
        (None, Some(old)) => (to, percent(old)),
        (written, _) => (to, share(written.as_ref())),
    });
    let many = rule
        .mirrors
        .iter()
        .filter_map(|mirror| Some((mirror.destination.as_ref()?, share(mirror.percentage.as_ref()))));
    single
        .into_iter()
        .chain(many)
        .filter(|(_, share)| share.numerator > 0)
        .map(|(to, share)| RequestMirrorPolicy {
            cluster: context.cluster(to),
            runtime_fraction: Some(RuntimeFractionalPercent {
                default_value: Some(share),
                ..RuntimeFractionalPercent::default()
            }),
            trace_sampled: boolean(false),
            disable_shadow_host_suffix_append: true,
            ..RequestMirrorPolicy::default()
        })
        .collect()
}

/// A redirect (VS-19); `tls` tells how the client has asked.
pub fn redirect(written: &HttpRedirect, port: u16, tls: bool) -> route::Action {
    let code = match written.redirect_code.unwrap_or(0) {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let own = written
        .port
        .or_else(|| (written.derive_port == Some(RedirectPortSelection::FromRequestPort)).then_some(u32::from(port)));
    let scheme = match written.scheme.as_str() {
        "" if tls => "https",
        "" => "http",
        own => own,
    };
    let implied = |port: &u32| matches!((scheme, port), ("http", 80) | ("https", 443));
    let path = match &written.prefix_rewrite {
        Some(prefix) => Some(PathRewriteSpecifier::PrefixRewrite(prefix.clone())),
        None => Some(written.uri.clone()).filter(|uri| !uri.is_empty()).map(PathRewriteSpecifier::PathRedirect),
    };
    route::Action::Redirect(RedirectAction {
        host_redirect: written.authority.clone(),
        port_redirect: own.filter(|port| !implied(port)).unwrap_or(0),
        response_code: code.into(),
        scheme_rewrite_specifier: Some(written.scheme.clone())
            .filter(|scheme| !scheme.is_empty())
            .map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
        ..RedirectAction::default()
    })
}

/// A fixed answer (VS-20).
pub fn direct_response(written: &HttpDirectResponse) -> route::Action {
    let source = |specifier| DataSource { specifier: Some(specifier), ..DataSource::default() };
    let body = written.body.as_ref().and_then(|body| match (&body.string, &body.bytes) {
        (Some(text), _) => Some(source(data_source::Specifier::InlineString(text.clone()))),
        (None, Some(bytes)) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).unwrap_or_default();
            Some(source(data_source::Specifier::InlineBytes(bytes)))
        }
        (None, None) => None,
    });
    route::Action::DirectResponse(DirectResponseAction {
        status: written.status,
        body,
        ..DirectResponseAction::default()
    })
}
