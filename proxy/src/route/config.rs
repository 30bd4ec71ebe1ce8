//! `RouteConfiguration` → [`RouteTable`]. A field that would be ignored is refused by name.

mod action;
mod rate_limit;
mod retry;
mod route;

use super::matcher::Fraction;
use super::table::{RouteTable, VirtualHost};
use super::{AppendAction, HeaderOp, HeaderOps, Override, Overrides, RateLimit};
use crate::bootstrap::Environment;
use crate::refusal::{Refusal, Within};
use crate::telemetry::access_log::Format;
use proto::envoy::core::{
    HeaderValueOption, Metadata, RuntimeFractionalPercent, header_value_option::HeaderAppendAction,
};
use proto::envoy::route::{
    FilterConfig, RouteConfiguration, VirtualHost as WrittenHost, virtual_host::TlsRequirementType,
};
use proto::envoy::types::{FractionalPercent, fractional_percent::DenominatorType};
use proto::envoy::wkt::{Any, UInt32Value, value::Kind};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Reads the per-route configuration of the filter with this name, which the registry of filters alone knows.
pub type ParseOverride<'a> = &'a dyn Fn(&str, &Any) -> Result<Override, Refusal>;

/// The override that switches a filter off for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterDisabled;

/// What a route configuration is read with.
#[derive(Clone, Copy)]
pub struct RouteContext<'a> {
    /// For `%ENVIRONMENT(X)%` in header values.
    pub environment: &'a Environment,
    /// Values of runtime keys.
    pub runtime: &'a BTreeMap<String, f64>,
    /// Reads the per-route configuration of filters.
    pub parse_override: ParseOverride<'a>,
}

impl std::fmt::Debug for RouteContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteContext").field("runtime", self.runtime).finish_non_exhaustive()
    }
}

/// Largest body of a direct response where the table does not say, in bytes.
const DIRECT_BODY_BYTES: usize = 4096;

/// What virtual hosts and routes take over from the levels above them.
#[derive(Clone)]
struct Inherited {
    request_headers: Vec<Arc<HeaderOps>>,
    response_headers: Vec<Arc<HeaderOps>>,
    filters: Vec<Overrides>,
    most_specific_wins: bool,
    direct_body_bytes: usize,
    mirrors: Vec<proto::envoy::route::route_action::RequestMirrorPolicy>,
    /// Descriptors of the virtual host.
    rate_limits: Arc<[RateLimit]>,
}

impl RouteTable {
    /// Reads a route configuration.
    ///
    /// # Errors
    /// The field that is wrong or not supported yet.
    pub fn parse(written: &RouteConfiguration, cx: RouteContext<'_>) -> Result<Self, Refusal> {
        refuse_unsupported(written)?;
        let inherited = Inherited {
            request_headers: header_ops(&written.request_headers_to_add, &written.request_headers_to_remove, cx)
                .within("request_headers_to_add")?,
            response_headers: header_ops(&written.response_headers_to_add, &written.response_headers_to_remove, cx)
                .within("response_headers_to_add")?,
            filters: overrides(&written.typed_per_filter_config, cx)?,
            most_specific_wins: written.most_specific_header_mutations_wins,
            direct_body_bytes: size(written.max_direct_response_body_size_bytes.as_ref()).unwrap_or(DIRECT_BODY_BYTES),
            mirrors: written.request_mirror_policies.clone(),
            rate_limits: Arc::default(),
        };
        let mut table = Self {
            name: written.name.as_str().into(),
            ignore_port: written.ignore_port_in_host_matching,
            ignore_path_parameters: written.ignore_path_parameters_in_path_matching,
            on_demand: written.vhds.is_some(),
            ..Self::default()
        };
        for (index, host) in written.virtual_hosts.iter().enumerate() {
            table.add_host(host, &inherited, cx).within(&format!("virtual_hosts[{index}]"))?;
        }
        if table.hosts.iter().any(|host| host.requires_tls) {
            table.to_https = Some(table.add(route::to_https()));
        }
        Ok(table)
    }

    fn add_host(&mut self, written: &WrittenHost, outer: &Inherited, cx: RouteContext<'_>) -> Result<(), Refusal> {
        refuse_unsupported_host(written)?;
        let requires_tls = match TlsRequirementType::try_from(written.require_tls) {
            Ok(TlsRequirementType::None) => false,
            // no client counts as internal unless internal addresses are configured (spec HD-6)
            Ok(TlsRequirementType::All | TlsRequirementType::ExternalOnly) => true,
            Err(_) => return Err(Refusal::new("require_tls", "one of NONE, EXTERNAL_ONLY, ALL")),
        };
        let mut inherited = outer.clone();
        let own = header_ops(&written.request_headers_to_add, &written.request_headers_to_remove, cx);
        inherited.request_headers.splice(0..0, own.within("request_headers_to_add")?);
        let own = header_ops(&written.response_headers_to_add, &written.response_headers_to_remove, cx);
        inherited.response_headers.splice(0..0, own.within("response_headers_to_add")?);
        inherited.filters.splice(0..0, overrides(&written.typed_per_filter_config, cx)?);
        if !written.request_mirror_policies.is_empty() {
            inherited.mirrors.clone_from(&written.request_mirror_policies);
        }
        inherited.rate_limits = rate_limits(&written.rate_limits)?.into();
        let mut routes = Vec::with_capacity(written.routes.len());
        for (index, route) in written.routes.iter().enumerate() {
            let (matcher, route) = route::parse(route, written, &inherited, cx).within(&format!("routes[{index}]"))?;
            self.reads_metadata |= route.by_metadata;
            routes.push((matcher, self.add(route)));
        }
        let index = self.hosts.len();
        self.hosts.push(VirtualHost { routes, requires_tls });
        if written.domains.is_empty() {
            return Err(Refusal::new("domains", "is empty: a virtual host needs at least one, or *"));
        }
        for (at, domain) in written.domains.iter().enumerate() {
            self.add_domain(domain, index).within(&format!("domains[{at}]"))?;
        }
        Ok(())
    }

    fn add_domain(&mut self, domain: &str, host: usize) -> Result<(), Refusal> {
        let lower = domain.to_ascii_lowercase();
        let is_new = match (lower.strip_prefix('*'), lower.strip_suffix('*')) {
            (Some(""), _) => self.any.replace(host).is_none(),
            (Some(suffix), _) if !suffix.contains('*') => self.suffixes.add(suffix.as_bytes(), host),
            (None, Some(prefix)) if !prefix.contains('*') => self.prefixes.add(prefix.as_bytes(), host),
            (None, None) if !lower.is_empty() && !lower.contains('*') => {
                self.exact.insert(lower.into_bytes().into(), host).is_none()
            }
            _ => return Err(Refusal::new("", format!("{domain:?} is no domain: * stands at one end only"))),
        };
        if is_new { Ok(()) } else { Err(Refusal::new("", format!("{domain} is there twice in this configuration"))) }
    }
}

fn refuse_unsupported(written: &RouteConfiguration) -> Result<(), Refusal> {
    refuse(&[
        ("internal_only_headers", !written.internal_only_headers.is_empty()),
        ("cluster_specifier_plugins", !written.cluster_specifier_plugins.is_empty()),
        ("vhost_header", !written.vhost_header.is_empty()),
        ("validate_clusters", written.validate_clusters.as_ref().is_some_and(|validate| validate.value)),
        ("route_specifiers", !written.route_specifiers.is_empty()),
    ])
}

#[expect(deprecated, reason = "old fields are refused by name too")]
fn refuse_unsupported_host(written: &WrittenHost) -> Result<(), Refusal> {
    refuse(&[
        ("matcher", written.matcher.is_some()),
        ("virtual_clusters", !written.virtual_clusters.is_empty()),
        ("cors", written.cors.is_some()),
        ("retry_policy_typed_config", written.retry_policy_typed_config.is_some()),
        ("hedge_policy", written.hedge_policy.is_some()),
        ("include_is_timeout_retry_header", written.include_is_timeout_retry_header),
        ("route_specifiers", !written.route_specifiers.is_empty()),
    ])
}

/// Descriptors of a route or a virtual host.
fn rate_limits(written: &[proto::envoy::route::RateLimit]) -> Result<Vec<RateLimit>, Refusal> {
    let numbered = written.iter().enumerate();
    numbered.map(|(i, limit)| RateLimit::parse(limit).within(&format!("rate_limits[{i}]"))).collect()
}

/// Refuses the first field that is given.
fn refuse(fields: &[(&str, bool)]) -> Result<(), Refusal> {
    match fields.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(Refusal::unsupported(*field)),
        None => Ok(()),
    }
}

/// Empty where nothing is to be done.
fn header_ops(
    add: &[HeaderValueOption],
    remove: &[String],
    cx: RouteContext<'_>,
) -> Result<Vec<Arc<HeaderOps>>, Refusal> {
    let ops = parse_header_ops(add, remove, cx)?;
    Ok(if ops.is_empty() { Vec::new() } else { vec![Arc::new(ops)] })
}

fn parse_header_ops(add: &[HeaderValueOption], remove: &[String], cx: RouteContext<'_>) -> Result<HeaderOps, Refusal> {
    let mut ops = HeaderOps::default();
    for (index, option) in add.iter().enumerate() {
        ops.add.push(header_op(option, cx).within(&format!("[{index}]"))?);
    }
    for name in remove {
        if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
            return Err(Refusal::new("", format!("{name} cannot be removed")));
        }
        ops.remove.push(name.to_ascii_lowercase().into_bytes().into());
    }
    Ok(ops)
}

fn header_op(option: &HeaderValueOption, cx: RouteContext<'_>) -> Result<HeaderOp, Refusal> {
    let header = option.header.as_ref().ok_or_else(|| Refusal::new("header", "is missing"))?;
    let raw = String::from_utf8_lossy(&header.raw_value);
    let text = if header.value.is_empty() { &*raw } else { &header.value };
    let value = Format::parse(text, cx.environment).map_err(|error| Refusal::new("header.value", error.to_string()))?;
    let action = match HeaderAppendAction::try_from(option.append_action) {
        Ok(HeaderAppendAction::AppendIfExistsOrAdd) => match appends(option) {
            Some(false) => AppendAction::OverwriteIfExistsOrAdd,
            _ => AppendAction::AppendIfExistsOrAdd,
        },
        Ok(HeaderAppendAction::AddIfAbsent) => AppendAction::AddIfAbsent,
        Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) => AppendAction::OverwriteIfExistsOrAdd,
        Ok(HeaderAppendAction::OverwriteIfExists) => AppendAction::OverwriteIfExists,
        Err(_) => return Err(Refusal::new("append_action", "is none of Envoy's actions")),
    };
    if header.key.is_empty() {
        return Err(Refusal::new("header.key", "is empty"));
    }
    if header.key.starts_with(':') || header.key.eq_ignore_ascii_case("host") {
        return Err(Refusal::new("header.key", ":-prefixed or host headers may not be modified: use a rewrite"));
    }
    let name = header.key.to_ascii_lowercase().into_bytes().into();
    Ok(HeaderOp { name, value, action, keep_empty: option.keep_empty_value })
}

#[expect(deprecated, reason = "append is what came before append_action, and is still written")]
fn appends(option: &HeaderValueOption) -> Option<bool> {
    option.append.as_ref().map(|append| append.value)
}

/// Per-filter configuration of one level; empty where there is none.
fn overrides(written: &HashMap<String, Any>, cx: RouteContext<'_>) -> Result<Vec<Overrides>, Refusal> {
    let mut parsed: Vec<(Box<str>, Override)> = Vec::with_capacity(written.len());
    for (name, any) in written {
        let field = format!("typed_per_filter_config[{name}]");
        if let Some(config) = one_override(name, any, cx).within(&field)? {
            parsed.push((name.as_str().into(), config));
        }
    }
    parsed.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(if parsed.is_empty() { Vec::new() } else { vec![Overrides(parsed.into())] })
}

fn one_override(name: &str, any: &Any, cx: RouteContext<'_>) -> Result<Option<Override>, Refusal> {
    let Ok(wrapper) = proto::any::unpack::<FilterConfig>(any) else {
        return (cx.parse_override)(name, any).map(Some);
    };
    if wrapper.disabled {
        return Ok(Some(Arc::new(FilterDisabled)));
    }
    let Some(inner) = &wrapper.config else { return Ok(None) };
    match (cx.parse_override)(name, inner) {
        Err(_) if wrapper.is_optional => Ok(None),
        other => other.within("config").map(Some),
    }
}

/// A share with a runtime key over its default.
fn fraction(written: &RuntimeFractionalPercent, cx: RouteContext<'_>) -> Result<Fraction, Refusal> {
    let default = written.default_value.as_ref().ok_or_else(|| Refusal::new("default_value", "is missing"))?;
    let mut fraction = fractional_percent(default)?;
    if let Some(value) = cx.runtime.get(&written.runtime_key) {
        fraction = Fraction { numerator: value.max(0.0) as u64, denominator: 100 };
    }
    Ok(fraction)
}

fn fractional_percent(percent: &FractionalPercent) -> Result<Fraction, Refusal> {
    let denominator = match DenominatorType::try_from(percent.denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => return Err(Refusal::new("denominator", "one of HUNDRED, TEN_THOUSAND, MILLION")),
    };
    Ok(Fraction { numerator: u64::from(percent.numerator), denominator })
}

fn size(value: Option<&UInt32Value>) -> Option<usize> {
    value.and_then(|value| usize::try_from(value.value).ok())
}

/// `filter_metadata.istio.config`: the object that the resource was made from (spec XI-8).
fn origin(metadata: Option<&Metadata>) -> Option<Box<str>> {
    match &metadata?.filter_metadata.get("istio")?.fields.get("config")?.kind {
        Some(Kind::StringValue(path)) => Some(path.as_str().into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
