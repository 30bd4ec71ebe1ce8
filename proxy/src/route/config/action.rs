//! What a route does: forward, redirect, answer.

use super::route::Matched;
use super::{Inherited, RouteContext, fraction, overrides, parse_header_ops, refuse, retry};
use crate::message::matcher::part_regex;
use crate::refusal::{Refusal, Within};
use crate::route::rewrite::substitution;
use crate::route::template::TemplateRewrite;
use crate::route::{
    Action, HashPolicy, HashSource, HostRewrite, Mirror, PathRewrite, Redirect, Route, Timeouts, Upgrade,
    WeightedCluster,
};
use proto::duration::from_proto;
use proto::envoy::core::{DataSource, RoutingPriority, data_source};
use proto::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use proto::envoy::matcher::RegexMatchAndSubstitute;
use proto::envoy::route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use proto::envoy::route::route_action::{
    self, ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
    hash_policy::PolicySpecifier,
};
use proto::envoy::route::weighted_cluster::{ClusterWeight, cluster_weight};
use proto::envoy::route::{
    DirectResponseAction, RedirectAction, RouteAction, VirtualHost, WeightedCluster as WrittenSplit,
};
use std::time::Duration;

/// Time limit of a route that does not say (RT-5); Istio always says.
const ROUTE_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn forward(
    route: &mut Route,
    written: &RouteAction,
    matched: &Matched,
    (host, outer): (&VirtualHost, &Inherited),
    cx: RouteContext<'_>,
) -> Result<(), Refusal> {
    refuse_unsupported(written)?;
    route.action = cluster_of(written, cx)?;
    route.timeouts = timeouts(written);
    let policy = written.retry_policy.as_ref().or(host.retry_policy.as_ref());
    route.retry = policy.map(retry::parse).transpose().within("retry_policy")?;
    let mirrors =
        if written.request_mirror_policies.is_empty() { &outer.mirrors } else { &written.request_mirror_policies };
    let numbered = mirrors.iter().enumerate();
    route.mirrors = numbered
        .map(|(index, policy)| mirror(policy, cx).within(&format!("request_mirror_policies[{index}]")))
        .collect::<Result<_, _>>()?;
    route.path_rewrite = path_rewrite(written, matched)?;
    route.host_rewrite = host_rewrite(written)?;
    route.append_x_forwarded_host = written.append_x_forwarded_host;
    route.upgrades = upgrades(written)?;
    route.high_priority = written.priority == i32::from(RoutingPriority::High);
    route.hash_policy = written
        .hash_policy
        .iter()
        .enumerate()
        .map(|(index, policy)| hash(policy).within(&format!("hash_policy[{index}]")))
        .collect::<Result<_, _>>()?;
    route.rate_limits = super::rate_limits(&written.rate_limits)?.into();
    route.include_host_rate_limits = includes_host_rate_limits(written);
    route.cluster_not_found_status =
        match ClusterNotFoundResponseCode::try_from(written.cluster_not_found_response_code) {
            Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => 503,
            Ok(ClusterNotFoundResponseCode::NotFound) => 404,
            Ok(ClusterNotFoundResponseCode::InternalServerError) => 500,
            Err(_) => return Err(Refusal::new("cluster_not_found_response_code", "is none of Envoy's codes")),
        };
    Ok(())
}

#[expect(deprecated, reason = "the field that Envoy still obeys")]
fn includes_host_rate_limits(written: &RouteAction) -> bool {
    written.include_vh_rate_limits.as_ref().is_some_and(|include| include.value)
}

#[expect(deprecated, reason = "old fields are refused by name too")]
fn refuse_unsupported(written: &RouteAction) -> Result<(), Refusal> {
    refuse(&[
        ("metadata_match", written.metadata_match.is_some()),
        ("path_rewrite", !written.path_rewrite.is_empty()),
        ("flush_timeout", written.flush_timeout.is_some()),
        ("retry_policy_typed_config", written.retry_policy_typed_config.is_some()),
        ("cors", written.cors.is_some()),
        ("grpc_timeout_offset", written.grpc_timeout_offset.is_some()),
        ("internal_redirect_policy", written.internal_redirect_policy.is_some()),
        ("internal_redirect_action", written.internal_redirect_action != 0),
        ("max_internal_redirects", written.max_internal_redirects.is_some()),
        ("hedge_policy", written.hedge_policy.is_some()),
        (
            "max_stream_duration.grpc_timeout_header_offset",
            written.max_stream_duration.as_ref().is_some_and(|max| max.grpc_timeout_header_offset.is_some()),
        ),
    ])
}

fn cluster_of(written: &RouteAction, cx: RouteContext<'_>) -> Result<Action, Refusal> {
    match &written.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if name.is_empty() => Err(Refusal::new("cluster", "is empty")),
        Some(ClusterSpecifier::Cluster(name)) => Ok(Action::Cluster(name.as_str().into())),
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            Ok(Action::ClusterHeader(name.to_ascii_lowercase().into_bytes().into()))
        }
        Some(ClusterSpecifier::WeightedClusters(split)) => weighted(split, cx).within("weighted_clusters"),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => Err(Refusal::unsupported("cluster_specifier_plugin")),
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            Err(Refusal::unsupported("inline_cluster_specifier_plugin"))
        }
        None => Err(Refusal::new("cluster_specifier", "one of cluster, cluster_header, weighted_clusters is needed")),
    }
}

#[expect(deprecated, reason = "total_weight is still written")]
fn weighted(written: &WrittenSplit, cx: RouteContext<'_>) -> Result<Action, Refusal> {
    refuse(&[
        ("runtime_key_prefix", !written.runtime_key_prefix.is_empty()),
        ("random_value_specifier", written.random_value_specifier.is_some()),
    ])?;
    let mut choices = Vec::with_capacity(written.clusters.len());
    for (index, entry) in written.clusters.iter().enumerate() {
        choices.push(choice(entry, cx).within(&format!("clusters[{index}]"))?);
    }
    let total: u64 = choices.iter().map(|choice| u64::from(choice.weight)).sum();
    if total == 0 {
        return Err(Refusal::new("clusters", "the sum of the weights is zero"));
    }
    match &written.total_weight {
        Some(wanted) if u64::from(wanted.value) != total => {
            Err(Refusal::new("total_weight", format!("is {}, but the weights add up to {total}", wanted.value)))
        }
        _ => Ok(Action::Weighted(choices.into(), total)),
    }
}

fn choice(written: &ClusterWeight, cx: RouteContext<'_>) -> Result<WeightedCluster, Refusal> {
    refuse(&[
        ("cluster_header", !written.cluster_header.is_empty()),
        ("metadata_match", written.metadata_match.is_some()),
    ])?;
    if written.name.is_empty() {
        return Err(Refusal::new("name", "is empty"));
    }
    Ok(WeightedCluster {
        name: written.name.as_str().into(),
        weight: written.weight.as_ref().map_or(0, |weight| weight.value),
        request_headers: parse_header_ops(&written.request_headers_to_add, &written.request_headers_to_remove, cx)
            .within("request_headers_to_add")?,
        response_headers: parse_header_ops(&written.response_headers_to_add, &written.response_headers_to_remove, cx)
            .within("response_headers_to_add")?,
        host_rewrite: written.host_rewrite_specifier.as_ref().map(|specifier| {
            let cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host) = specifier;
            host.as_str().into()
        }),
        filters: overrides(&written.typed_per_filter_config, cx)?.pop().unwrap_or_default(),
    })
}

#[expect(deprecated, reason = "max_grpc_timeout is what Istio writes for older proxies")]
fn timeouts(written: &RouteAction) -> Timeouts {
    let limit = |duration: &proto::envoy::wkt::Duration| Some(from_proto(duration)).filter(|limit| !limit.is_zero());
    let max = written.max_stream_duration.as_ref();
    Timeouts {
        route: written.timeout.as_ref().map_or(Some(ROUTE_TIMEOUT), limit),
        idle: written.idle_timeout.as_ref().map(limit),
        max_stream_duration: max.and_then(|max| max.max_stream_duration.as_ref()).map(limit),
        max_grpc_timeout: written.max_grpc_timeout.as_ref().map(limit),
        grpc_timeout_max: max.and_then(|max| max.grpc_timeout_header_max.as_ref()).map(limit),
    }
}

fn mirror(written: &RequestMirrorPolicy, cx: RouteContext<'_>) -> Result<Mirror, Refusal> {
    refuse(&[
        ("cluster_header", !written.cluster_header.is_empty()),
        ("request_headers_mutations", !written.request_headers_mutations.is_empty()),
        ("host_rewrite_literal", !written.host_rewrite_literal.is_empty()),
    ])?;
    let share =
        written.runtime_fraction.as_ref().map(|share| fraction(share, cx).within("runtime_fraction")).transpose()?;
    Ok(Mirror {
        cluster: written.cluster.as_str().into(),
        numerator: share.map_or(1, |share| share.numerator),
        denominator: share.map_or(1, |share| share.denominator),
        host_suffix: !written.disable_shadow_host_suffix_append,
    })
}

fn path_rewrite(written: &RouteAction, matched: &Matched) -> Result<Option<PathRewrite>, Refusal> {
    let given =
        [!written.prefix_rewrite.is_empty(), written.regex_rewrite.is_some(), written.path_rewrite_policy.is_some()];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(Refusal::new("prefix_rewrite", "only one of prefix_rewrite, regex_rewrite, path_rewrite_policy"));
    }
    if !written.prefix_rewrite.is_empty() {
        return Ok(Some(prefix(&written.prefix_rewrite, matched).within("prefix_rewrite")?));
    }
    if let Some(rewrite) = &written.regex_rewrite {
        return Ok(Some(regex(rewrite).within("regex_rewrite")?));
    }
    let Some(policy) = &written.path_rewrite_policy else { return Ok(None) };
    let rewrite = || {
        let any = policy.typed_config.as_ref().ok_or_else(|| Refusal::new("typed_config", "is missing"))?;
        let config: UriTemplateRewriteConfig = proto::any::unpack(any)
            .map_err(|_| Refusal::unsupported(format!("typed_config: {}", proto::any::type_name(&any.type_url))))?;
        let template = matched
            .template
            .as_ref()
            .ok_or_else(|| Refusal::new("typed_config", "a template rewrite needs a match by path template"))?;
        TemplateRewrite::parse(&config.path_template_rewrite, template)
            .map_err(|why| Refusal::new("typed_config.path_template_rewrite", why))
    };
    Ok(Some(PathRewrite::Template(Box::new(rewrite().within("path_rewrite_policy")?))))
}

fn prefix(text: &str, matched: &Matched) -> Result<PathRewrite, Refusal> {
    let length = matched.prefix.ok_or_else(|| {
        Refusal::new("", "needs a match by prefix or path: with a regex or template nothing says what to replace")
    })?;
    Ok(PathRewrite::Prefix(text.into(), length))
}

fn regex(written: &RegexMatchAndSubstitute) -> Result<PathRewrite, Refusal> {
    let (pattern, text) = pattern_of(written)?;
    Ok(PathRewrite::Regex(Box::new(pattern), text))
}

fn pattern_of(written: &RegexMatchAndSubstitute) -> Result<(regex::bytes::Regex, Box<[u8]>), Refusal> {
    let pattern = written.pattern.as_ref().map(|pattern| pattern.regex.as_str()).unwrap_or_default();
    if pattern.is_empty() {
        return Err(Refusal::new("pattern.regex", "is empty"));
    }
    let compiled = part_regex(pattern).map_err(|why| Refusal::new("pattern.regex", why))?;
    let text = substitution(&written.substitution).map_err(|why| Refusal::new("substitution", why))?;
    Ok((compiled, text))
}

fn host_rewrite(written: &RouteAction) -> Result<Option<HostRewrite>, Refusal> {
    Ok(match &written.host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(HostRewrite::Literal(host.as_str().into())),
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) => auto.value.then_some(HostRewrite::Auto),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            Some(HostRewrite::Header(name.to_ascii_lowercase().into_bytes().into()))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(rewrite)) => {
            let (pattern, text) = pattern_of(rewrite).within("host_rewrite_path_regex")?;
            Some(HostRewrite::PathRegex(Box::new(pattern), text))
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => return Err(Refusal::unsupported("host_rewrite")),
    })
}

fn upgrades(written: &RouteAction) -> Result<Box<[Upgrade]>, Refusal> {
    let mut upgrades: Vec<Upgrade> = Vec::new();
    for (index, upgrade) in written.upgrade_configs.iter().enumerate() {
        if upgrade.connect_config.is_some() {
            return Err(Refusal::unsupported(format!("upgrade_configs[{index}].connect_config")));
        }
        let name: Box<str> = upgrade.upgrade_type.to_ascii_lowercase().into();
        if upgrades.iter().any(|(known, _)| *known == name) {
            return Err(Refusal::new(format!("upgrade_configs[{index}]"), format!("{name} is there twice")));
        }
        upgrades.push((name, upgrade.enabled.as_ref().is_none_or(|enabled| enabled.value)));
    }
    Ok(upgrades.into())
}

fn hash(written: &route_action::HashPolicy) -> Result<HashPolicy, Refusal> {
    let source = match &written.policy_specifier {
        Some(PolicySpecifier::Header(header)) => {
            let rewrite =
                header.regex_rewrite.as_ref().map(|rewrite| pattern_of(rewrite).within("header.regex_rewrite"));
            let rewrite = rewrite.transpose()?.map(|(pattern, text)| (Box::new(pattern), text));
            HashSource::Header(header.header_name.to_ascii_lowercase().into_bytes().into(), rewrite)
        }
        Some(PolicySpecifier::Cookie(cookie)) => {
            let attribute = |attribute: &route_action::hash_policy::CookieAttribute| {
                if attribute.value.is_empty() {
                    format!("; {}", attribute.name)
                } else {
                    format!("; {}={}", attribute.name, attribute.value)
                }
            };
            HashSource::Cookie {
                name: cookie.name.as_str().into(),
                ttl: cookie.ttl.as_ref().map(from_proto),
                path: cookie.path.as_str().into(),
                attributes: cookie.attributes.iter().map(attribute).collect::<String>().into(),
            }
        }
        Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => HashSource::SourceIp,
        Some(PolicySpecifier::ConnectionProperties(_)) => {
            return Err(Refusal::new("connection_properties.source_ip", "must be true"));
        }
        Some(PolicySpecifier::QueryParameter(parameter)) => {
            HashSource::QueryParameter(parameter.name.as_bytes().into())
        }
        Some(PolicySpecifier::FilterState(_)) => return Err(Refusal::unsupported("filter_state")),
        None => {
            return Err(Refusal::new(
                "policy_specifier",
                "one of header, cookie, connection_properties, query_parameter",
            ));
        }
    };
    Ok(HashPolicy { source, terminal: written.terminal })
}

pub(super) fn redirect(written: &RedirectAction, matched: &Matched) -> Result<Redirect, Refusal> {
    let status = match RedirectResponseCode::try_from(written.response_code) {
        Ok(RedirectResponseCode::MovedPermanently) => 301,
        Ok(RedirectResponseCode::Found) => 302,
        Ok(RedirectResponseCode::SeeOther) => 303,
        Ok(RedirectResponseCode::TemporaryRedirect) => 307,
        Ok(RedirectResponseCode::PermanentRedirect) => 308,
        Err(_) => return Err(Refusal::new("response_code", "one of 301, 302, 303, 307, 308 by its name")),
    };
    let path = match &written.path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => Some(PathRewrite::Full(path.as_str().into())),
        Some(PathRewriteSpecifier::PrefixRewrite(text)) => Some(prefix(text, matched).within("prefix_rewrite")?),
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => Some(regex(rewrite).within("regex_rewrite")?),
        Some(PathRewriteSpecifier::PathRewrite(_)) => return Err(Refusal::unsupported("path_rewrite")),
    };
    Ok(Redirect {
        status,
        scheme: match &written.scheme_rewrite_specifier {
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.as_str().into()),
            Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
        },
        host: (!written.host_redirect.is_empty()).then(|| written.host_redirect.as_str().into()),
        port: match u16::try_from(written.port_redirect) {
            Ok(0) => None,
            Ok(port) => Some(port),
            Err(_) => return Err(Refusal::new("port_redirect", "is no port")),
        },
        path,
        strip_query: written.strip_query,
    })
}

pub(super) fn direct(written: &DirectResponseAction, limit: usize, cx: RouteContext<'_>) -> Result<Action, Refusal> {
    refuse(&[("body_format", written.body_format.is_some())])?;
    let status = u16::try_from(written.status).ok().filter(|status| (200..600).contains(status));
    let status = status.ok_or_else(|| Refusal::new("status", "must be from 200 to 599"))?;
    let body = written.body.as_ref().map_or(Ok(Vec::new()), |body| data(body, cx)).within("body")?;
    if body.len() > limit {
        let why = format!("has {} bytes, more than the {limit} of max_direct_response_body_size_bytes", body.len());
        return Err(Refusal::new("body", why));
    }
    Ok(Action::Direct { status, body: body.into() })
}

/// The bytes of a data source.
fn data(source: &DataSource, cx: RouteContext<'_>) -> Result<Vec<u8>, Refusal> {
    match &source.specifier {
        Some(data_source::Specifier::InlineString(text)) => Ok(text.as_bytes().to_vec()),
        Some(data_source::Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
        Some(data_source::Specifier::Filename(path)) => {
            std::fs::read(path).map_err(|error| Refusal::new("filename", format!("{path}: {error}")))
        }
        Some(data_source::Specifier::EnvironmentVariable(name)) => match cx.environment.get(name) {
            Some(value) => Ok(value.as_bytes().to_vec()),
            None => Err(Refusal::new("environment_variable", format!("{name} is not set"))),
        },
        None => Ok(Vec::new()),
    }
}
