//! `RBAC` → rules.

use super::rules::{Action, Policy, Rule, Rules, Shadow};
use crate::message::matcher::{HeaderMatcher, MetadataMatcher, StringMatcher, cidr};
use crate::refusal::{Refusal, Within};
use crate::route::PathTemplate;
use proto::any;
use proto::envoy::http_filters::rbac::v3::{Rbac, RbacPerRoute};
use proto::envoy::matcher::{self, PathMatcher, path_matcher};
use proto::envoy::rbac::{self, permission, principal};
use proto::envoy::wkt::Any;

/// What a route has in place of the chain's rules; without rules the filter is off.
pub type Override = super::Rbac;

/// Parses the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse(typed: &Any) -> Result<super::Rbac, Refusal> {
    let written: Rbac = any::decode(typed).map_err(|error| Refusal::new("typed_config", error.to_string()))?;
    policies(&written)
}

/// Parses what a route has for the filter.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse_override(typed: &Any) -> Result<Override, Refusal> {
    let written: RbacPerRoute = any::decode(typed).map_err(|error| Refusal::new("", error.to_string()))?;
    written.rbac.as_ref().map_or(Ok(Override::default()), |rbac| policies(rbac).within("rbac"))
}

fn policies(written: &Rbac) -> Result<super::Rbac, Refusal> {
    for (field, set) in [("matcher", written.matcher.is_some()), ("shadow_matcher", written.shadow_matcher.is_some())] {
        if set {
            return Err(Refusal::unsupported(field));
        }
    }
    let rules = written.rules.as_ref().map(|rules| parse_rules(rules).within("rules")).transpose()?;
    let shadow = shadow(written.shadow_rules.as_ref(), &written.shadow_rules_stat_prefix)?;
    Ok(super::Rbac { rules, shadow })
}

/// Parses rules that only leave their verdict, for HTTP and TCP alike.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn shadow(written: Option<&rbac::Rbac>, prefix: &str) -> Result<Option<Shadow>, Refusal> {
    let rules = written.map(|rules| parse_rules(rules).within("shadow_rules")).transpose()?;
    Ok(rules.map(|rules| Shadow::new(rules, prefix)))
}

/// Parses rules, for HTTP and TCP alike.
///
/// # Errors
/// The field that is wrong or not supported yet.
pub fn parse_rules(written: &rbac::Rbac) -> Result<Rules, Refusal> {
    let action = match rbac::rbac::Action::try_from(written.action) {
        Ok(rbac::rbac::Action::Allow) => Action::Allow,
        Ok(rbac::rbac::Action::Deny) => Action::Deny,
        Ok(rbac::rbac::Action::Log) => Action::Log,
        Err(_) => return Err(Refusal::new("action", "ALLOW, DENY or LOG")),
    };
    let mut named: Vec<_> = written.policies.iter().collect();
    named.sort_by(|a, b| a.0.cmp(b.0));
    let mut policies = Vec::new();
    for (name, policy) in named {
        policies.push(self::policy(name, policy).within(&format!("policies[{name}]"))?);
    }
    Ok(Rules { action, policies })
}

fn policy(name: &str, written: &rbac::Policy) -> Result<Policy, Refusal> {
    if written.condition.is_some() || written.checked_condition.is_some() {
        return Err(Refusal::unsupported("condition"));
    }
    let permissions = each(&written.permissions, permission).within("permissions")?;
    let principals = each(&written.principals, principal).within("principals")?;
    Ok(Policy { name: name.into(), permissions: Rule::Or(permissions), principals: Rule::Or(principals) })
}

fn each<T>(list: &[T], parse: fn(&T) -> Result<Rule, Refusal>) -> Result<Vec<Rule>, Refusal> {
    list.iter().enumerate().map(|(i, item)| parse(item).within(&format!("[{i}]"))).collect()
}

fn permission(written: &rbac::Permission) -> Result<Rule, Refusal> {
    use permission::Rule as Written;
    let Some(rule) = &written.rule else { return Err(Refusal::new("rule", "is needed")) };
    Ok(match rule {
        Written::AndRules(set) => Rule::And(each(&set.rules, permission)?),
        Written::OrRules(set) => Rule::Or(each(&set.rules, permission)?),
        Written::NotRule(inner) => Rule::Not(Box::new(permission(inner)?)),
        Written::Any(any) => constant(*any),
        Written::Header(matcher) => Rule::Header(HeaderMatcher::parse(matcher).within("header")?),
        Written::UrlPath(matcher) => path(matcher)?,
        Written::UriTemplate(extension) => template(extension)?,
        Written::DestinationIp(range) => Rule::DestinationIp(cidr(range).within("destination_ip")?),
        Written::DestinationPort(port) => {
            let port = u16::try_from(*port).map_err(|_| Refusal::new("destination_port", "at most 65535"))?;
            Rule::DestinationPorts(port, u32::from(port) + 1)
        }
        Written::DestinationPortRange(range) => {
            let from = u16::try_from(range.start).map_err(|_| Refusal::new("destination_port_range", "0 to 65536"))?;
            Rule::DestinationPorts(from, u32::try_from(range.end).unwrap_or(0))
        }
        Written::RequestedServerName(matcher) => {
            Rule::ServerName(StringMatcher::parse(matcher).within("requested_server_name")?)
        }
        #[expect(deprecated, reason = "istiod sends it")]
        Written::Metadata(matcher) => metadata(matcher).within("metadata")?,
        Written::SourcedMetadata(sourced) => sourced_metadata(sourced).within("sourced_metadata")?,
        Written::Matcher(_) => return Err(Refusal::unsupported("matcher")),
    })
}

fn principal(written: &rbac::Principal) -> Result<Rule, Refusal> {
    use principal::Identifier as Written;
    let Some(identifier) = &written.identifier else { return Err(Refusal::new("identifier", "is needed")) };
    Ok(match identifier {
        Written::AndIds(set) => Rule::And(each(&set.ids, principal)?),
        Written::OrIds(set) => Rule::Or(each(&set.ids, principal)?),
        Written::NotId(inner) => Rule::Not(Box::new(principal(inner)?)),
        Written::Any(any) => constant(*any),
        Written::Authenticated(who) => {
            let name = who.principal_name.as_ref();
            Rule::Authenticated(name.map(StringMatcher::parse).transpose().within("authenticated.principal_name")?)
        }
        #[expect(deprecated, reason = "older control planes still send it")]
        Written::SourceIp(range) => Rule::DirectRemoteIp(cidr(range).within("source_ip")?),
        Written::DirectRemoteIp(range) => Rule::DirectRemoteIp(cidr(range).within("direct_remote_ip")?),
        Written::RemoteIp(range) => Rule::RemoteIp(cidr(range).within("remote_ip")?),
        Written::Header(matcher) => Rule::Header(HeaderMatcher::parse(matcher).within("header")?),
        Written::UrlPath(matcher) => path(matcher)?,
        #[expect(deprecated, reason = "istiod sends it")]
        Written::Metadata(matcher) => metadata(matcher).within("metadata")?,
        Written::SourcedMetadata(sourced) => sourced_metadata(sourced).within("sourced_metadata")?,
        Written::FilterState(_) | Written::Custom(_) => return Err(Refusal::unsupported("identifier")),
    })
}

fn metadata(written: &matcher::MetadataMatcher) -> Result<Rule, Refusal> {
    MetadataMatcher::parse(written).map(Rule::Metadata)
}

fn sourced_metadata(written: &rbac::SourcedMetadata) -> Result<Rule, Refusal> {
    if rbac::MetadataSource::try_from(written.metadata_source) != Ok(rbac::MetadataSource::Dynamic) {
        return Err(Refusal::unsupported("metadata_source other than DYNAMIC"));
    }
    let matcher = written.metadata_matcher.as_ref().ok_or_else(|| Refusal::new("metadata_matcher", "is needed"))?;
    metadata(matcher).within("metadata_matcher")
}

fn constant(any: bool) -> Rule {
    if any { Rule::Any } else { Rule::Not(Box::new(Rule::Any)) }
}

fn path(written: &PathMatcher) -> Result<Rule, Refusal> {
    match &written.rule {
        Some(path_matcher::Rule::Path(matcher)) => {
            Ok(Rule::Path(StringMatcher::parse(matcher).within("url_path.path")?))
        }
        None => Err(Refusal::new("url_path.path", "is needed")),
    }
}

fn template(written: &proto::envoy::core::TypedExtensionConfig) -> Result<Rule, Refusal> {
    use proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
    let field = "uri_template.typed_config";
    let typed = written.typed_config.as_ref().ok_or_else(|| Refusal::new(field, "is needed"))?;
    let config: UriTemplateMatchConfig = any::unpack(typed).map_err(|error| Refusal::new(field, error.to_string()))?;
    let template = PathTemplate::parse(&config.path_template);
    template.map(Rule::Template).map_err(|why| Refusal::new(format!("{field}.path_template"), why))
}
