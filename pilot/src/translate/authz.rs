//! AuthorizationPolicies as RBAC filters, for HTTP and for TCP (spec 1.13).

use super::authz_claims;
use super::authz_identities as identities;
use super::matcher;
use super::message::cidr;
use crate::model::authz::AuthorizationPolicy;
use crate::model::{MeshConfig, Shared};
use proto::any;
use proto::envoy::core::TypedExtensionConfig;
use proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use proto::envoy::http_filters::ext_authz::v3::{ExtAuthz, ext_authz};
use proto::envoy::matcher::string_matcher::MatchPattern;
use proto::envoy::matcher::{PathMatcher, StringMatcher, path_matcher};
use proto::envoy::rbac::permission::{self, Rule as Allowed};
use proto::envoy::rbac::principal::{self, Identifier};
use proto::envoy::rbac::rbac::Action as WireAction;
use proto::envoy::rbac::{Permission, Policy, Principal};
use proto::envoy::route::HeaderMatcher;
use proto::envoy::route::header_matcher::HeaderMatchSpecifier;
use proto::envoy::wkt::Any;
use proto::istio::authorization_policy::{Action, Condition, Operation, Rule, Source};
use std::collections::BTreeMap;

/// `envoy.config.rbac.v3.RBAC` with its policies in order: a `HashMap` of many would encode differently each time.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Rbac {
    #[prost(enumeration = "WireAction", tag = "1")]
    action: i32,
    #[prost(btree_map = "string, message", tag = "2")]
    policies: BTreeMap<String, Policy>,
}

impl Rbac {
    /// The same rules under longer names.
    #[must_use]
    pub fn suffixed(self, suffix: &str) -> Self {
        Self { policies: self.policies.into_iter().map(|(name, policy)| (name + suffix, policy)).collect(), ..self }
    }
}

/// `envoy.extensions.filters.http.rbac.v3.RBAC`.
#[derive(Clone, PartialEq, prost::Message)]
struct HttpFilter {
    #[prost(message, optional, tag = "1")]
    rules: Option<Rbac>,
    #[prost(message, optional, tag = "2")]
    shadow_rules: Option<Rbac>,
    #[prost(string, tag = "3")]
    shadow_rules_stat_prefix: String,
}

/// `envoy.extensions.filters.network.rbac.v3.RBAC`.
#[derive(Clone, PartialEq, prost::Message)]
struct TcpFilter {
    #[prost(message, optional, tag = "1")]
    rules: Option<Rbac>,
    #[prost(message, optional, tag = "2")]
    shadow_rules: Option<Rbac>,
    #[prost(string, tag = "3")]
    stat_prefix: String,
    #[prost(string, tag = "5")]
    shadow_rules_stat_prefix: String,
}

/// What the filters protect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Requests.
    Http,
    /// Connections.
    Tcp,
}

/// The check of every request by the service that MeshConfig names (`mixerCheckServer`): its answer counts before any
/// policy's (MX-96). It never takes longer than [`CHECK_TIMEOUT`]; without an answer the request is denied, unless
/// `policyCheckFailOpen` says otherwise.
pub fn check(mesh: &MeshConfig) -> Option<Any> {
    let (host, port) = mesh.policy_server.as_ref().filter(|_| mesh.checks)?;
    let mut service = super::telemetry::grpc_service((host, *port));
    service.timeout = super::message::duration(CHECK_TIMEOUT);
    Some(any::pack(&ExtAuthz {
        services: Some(ext_authz::Services::GrpcService(service)),
        transport_api_version: proto::envoy::core::ApiVersion::V3.into(),
        failure_mode_allow: mesh.policy_check_fail_open,
        ..ExtAuthz::default()
    }))
}

/// Longest time that a check may take.
const CHECK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(1);

/// The RBAC filters of a workload in their order: AUDIT, DENY, ALLOW; each only where such a policy exists (AZ-2).
pub fn filters(policies: &[Shared<AuthorizationPolicy>], protocol: Protocol, mesh: &MeshConfig) -> Vec<Any> {
    let order =
        [(Action::Audit, WireAction::Log), (Action::Deny, WireAction::Deny), (Action::Allow, WireAction::Allow)];
    let of = |(action, wire): (Action, WireAction)| {
        let own: Vec<&AuthorizationPolicy> = policies.iter().filter(|p| p.action == action).map(|p| &**p).collect();
        (!own.is_empty()).then(|| filter(&own, wire, protocol, mesh))
    };
    order.into_iter().filter_map(of).collect()
}

fn filter(policies: &[&AuthorizationPolicy], action: WireAction, protocol: Protocol, mesh: &MeshConfig) -> Any {
    let build = Build { action, protocol, mesh, prefix: "" };
    let rules = |dry: bool| {
        let own: Vec<_> = policies.iter().copied().filter(|policy| policy.dry_run == dry).collect();
        (!own.is_empty()).then(|| build.rules(&own))
    };
    let dry = rules(true);
    let denies = action == WireAction::Deny && dry.is_some();
    let prefix = if denies { "istio_dry_run_deny_" } else { "istio_dry_run_allow_" };
    pack(rules(false), dry, prefix, protocol)
}

/// The requests that policies choose, under names with a prefix.
pub fn chosen(policies: &[&AuthorizationPolicy], protocol: Protocol, mesh: &MeshConfig, prefix: &str) -> Rbac {
    Build { action: WireAction::Deny, protocol, mesh, prefix }.rules(policies)
}

/// The filter with rules, and with rules that only leave their verdict under names with a prefix.
pub fn pack(rules: Option<Rbac>, shadow: Option<Rbac>, prefix: &str, protocol: Protocol) -> Any {
    let shadow_rules_stat_prefix = prefix.to_owned();
    match protocol {
        Protocol::Http => {
            let filter = HttpFilter { rules, shadow_rules: shadow, shadow_rules_stat_prefix };
            any::pack_as("envoy.extensions.filters.http.rbac.v3.RBAC", &filter)
        }
        Protocol::Tcp => {
            let stat_prefix = "tcp.".to_owned();
            let filter = TcpFilter { rules, stat_prefix, shadow_rules: shadow, shadow_rules_stat_prefix };
            any::pack_as("envoy.extensions.filters.network.rbac.v3.RBAC", &filter)
        }
    }
}

/// One condition of a rule: its values, or the negation of its values.
struct Builder<'a> {
    protocol: Protocol,
    permissions: Vec<Permission>,
    principals: Vec<Principal>,
    /// A condition that only requests have was met on TCP (AZ-17).
    http_only: bool,
    mesh: &'a MeshConfig,
    /// The policy's own.
    namespace: &'a str,
}

struct Build<'a> {
    action: WireAction,
    protocol: Protocol,
    mesh: &'a MeshConfig,
    /// Before the name of every policy.
    prefix: &'a str,
}

impl Build<'_> {
    fn rules(&self, policies: &[&AuthorizationPolicy]) -> Rbac {
        let policies = policies.iter().flat_map(|policy| self.policies(policy)).collect();
        Rbac { action: self.action.into(), policies }
    }

    /// One policy per rule; without rules, one that never matches (AZ-4).
    fn policies(&self, policy: &AuthorizationPolicy) -> BTreeMap<String, Policy> {
        let (prefix, key) = (self.prefix, &policy.key);
        let name = |i: usize| format!("{prefix}ns[{}]-policy[{}]-rule[{i}]", key.namespace, key.name);
        if policy.rules.is_empty() {
            let never = Policy {
                permissions: vec![not_permission(permission_of(Allowed::Any(true)))],
                principals: vec![not_principal(principal_of(Identifier::Any(true)))],
                ..Policy::default()
            };
            return [(name(0), never)].into();
        }
        let rules = policy.rules.iter().enumerate();
        rules.filter_map(|(i, rule)| Some((name(i), self.rule(rule, &policy.key.namespace)?))).collect()
    }

    /// One rule; none where it can never match on TCP.
    fn rule(&self, rule: &Rule, namespace: &str) -> Option<Policy> {
        let empty_operation = [Operation::default()];
        let empty_source = [Source::default()];
        let operations: Vec<&Operation> = rule.to.iter().filter_map(|to| to.operation.as_ref()).collect();
        let operations = if rule.to.is_empty() { empty_operation.iter().collect() } else { operations };
        let sources: Vec<&Source> = rule.from.iter().filter_map(|from| from.source.as_ref()).collect();
        let sources = if rule.from.is_empty() { empty_source.iter().collect() } else { sources };
        let permissions = operations.iter().filter_map(|operation| {
            let mut builder = self.builder(namespace);
            builder.operation(operation);
            rule.when.iter().for_each(|condition| builder.condition_on_target(condition));
            self.keep(builder.http_only).then(|| all_permissions(builder.permissions))
        });
        let principals = sources.iter().filter_map(|source| {
            let mut builder = self.builder(namespace);
            builder.source(source);
            rule.when.iter().for_each(|condition| builder.condition_on_source(condition));
            self.keep(builder.http_only).then(|| all_principals(builder.principals))
        });
        let (permissions, principals): (Vec<_>, Vec<_>) = (permissions.collect(), principals.collect());
        (!permissions.is_empty() && !principals.is_empty()).then(|| Policy {
            permissions,
            principals,
            ..Policy::default()
        })
    }

    fn builder<'b>(&'b self, namespace: &'b str) -> Builder<'b> {
        Builder {
            protocol: self.protocol,
            permissions: Vec::new(),
            principals: Vec::new(),
            http_only: false,
            mesh: self.mesh,
            namespace,
        }
    }

    /// An ALLOW rule with conditions that only requests have never matches a connection; a DENY (or AUDIT) rule
    /// loses them, which denies more (AZ-17).
    fn keep(&self, http_only: bool) -> bool {
        !http_only || self.action != WireAction::Allow
    }
}

impl Builder<'_> {
    fn permission(&mut self, values: &[String], not_values: &[String], make: impl Fn(&str) -> Option<Permission>) {
        let any_of = |values: &[String]| {
            permission_of(Allowed::OrRules(permission::Set { rules: values.iter().filter_map(|v| make(v)).collect() }))
        };
        if !values.is_empty() {
            self.permissions.push(any_of(values));
        }
        if !not_values.is_empty() {
            self.permissions.push(not_permission(any_of(not_values)));
        }
    }

    fn principal(&mut self, values: &[String], not_values: &[String], make: impl Fn(&str) -> Option<Principal>) {
        let any_of = |values: &[String]| {
            principal_of(Identifier::OrIds(principal::Set { ids: values.iter().filter_map(|v| make(v)).collect() }))
        };
        if !values.is_empty() {
            self.principals.push(any_of(values));
        }
        if !not_values.is_empty() {
            self.principals.push(not_principal(any_of(not_values)));
        }
    }

    /// As [`Self::principal`], but a single value stands alone, as istiod has it for what a token says.
    fn token(&mut self, values: &[String], not_values: &[String], make: impl Fn(&str) -> Option<Principal>) {
        let any_of = |values: &[String]| {
            let mut ids: Vec<Principal> = values.iter().filter_map(|value| make(value)).collect();
            if ids.len() == 1 { ids.remove(0) } else { principal_of(Identifier::OrIds(principal::Set { ids })) }
        };
        if !values.is_empty() {
            self.principals.push(any_of(values));
        }
        if !not_values.is_empty() {
            self.principals.push(not_principal(any_of(not_values)));
        }
    }

    /// Notes a condition that only requests have; returns whether to drop it.
    fn only_http(&mut self, present: bool) -> bool {
        let drop = present && self.protocol == Protocol::Tcp;
        self.http_only |= drop;
        drop
    }

    fn operation(&mut self, operation: &Operation) {
        let http = [
            (&operation.hosts, &operation.not_hosts, host_permission as fn(&str) -> Option<Permission>),
            (&operation.methods, &operation.not_methods, method_permission),
            (&operation.paths, &operation.not_paths, path_permission),
        ];
        for (values, not_values, make) in http {
            if !self.only_http(!values.is_empty() || !not_values.is_empty()) {
                self.permission(values, not_values, make);
            }
        }
        self.permission(&operation.ports, &operation.not_ports, port_permission);
    }

    fn source(&mut self, source: &Source) {
        let (mesh, namespace) = (self.mesh, self.namespace);
        let spelled = |values: &[String]| identities::in_every_domain(values, mesh);
        self.principal(&spelled(&source.principals), &spelled(&source.not_principals), identities::principal);
        if !self.only_http(!source.request_principals.is_empty() || !source.not_request_principals.is_empty()) {
            self.token(&source.request_principals, &source.not_request_principals, authz_claims::principal);
        }
        self.principal(&source.namespaces, &source.not_namespaces, identities::namespace);
        self.principal(&source.service_accounts, &source.not_service_accounts, |value| {
            identities::account(value, namespace)
        });
        let all = |values: &[String]| identities::all_domains(values, mesh);
        self.principal(&all(&source.trust_domains), &all(&source.not_trust_domains), identities::trust_domain);
        self.principal(&source.ip_blocks, &source.not_ip_blocks, direct_ip);
        self.principal(&source.remote_ip_blocks, &source.not_remote_ip_blocks, remote_ip);
    }

    /// Conditions that belong to the permissions.
    fn condition_on_target(&mut self, condition: &Condition) {
        let (values, not_values) = (&condition.values, &condition.not_values);
        match condition.key.as_str() {
            "destination.ip" => {
                self.permission(values, not_values, |value| Some(permission_of(Allowed::DestinationIp(cidr(value)?))))
            }
            "destination.port" => self.permission(values, not_values, port_permission),
            "connection.sni" => self.permission(values, not_values, |value| {
                Some(permission_of(Allowed::RequestedServerName(text_matcher(value))))
            }),
            _ => {}
        }
    }

    /// Conditions that belong to the principals.
    fn condition_on_source(&mut self, condition: &Condition) {
        let (values, not_values) = (&condition.values, &condition.not_values);
        let (mesh, namespace) = (self.mesh, self.namespace);
        let key = condition.key.as_str();
        if key.starts_with("request.") && self.only_http(true) {
            return;
        }
        match key {
            "source.ip" => self.principal(values, not_values, direct_ip),
            "remote.ip" => self.principal(values, not_values, remote_ip),
            "source.namespace" => self.principal(values, not_values, identities::namespace),
            "source.serviceAccount" => {
                self.principal(values, not_values, |value| identities::account(value, namespace));
            }
            "source.trustDomain" => {
                let all = |values: &[String]| identities::all_domains(values, mesh);
                self.principal(&all(values), &all(not_values), identities::trust_domain);
            }
            "source.principal" => {
                let spelled = |values: &[String]| identities::in_every_domain(values, mesh);
                self.principal(&spelled(values), &spelled(not_values), identities::principal);
            }
            "request.auth.principal" => self.token(values, not_values, authz_claims::principal),
            "request.auth.audiences" => {
                self.token(values, not_values, |value| Some(authz_claims::claim(&["aud"], value)));
            }
            "request.auth.presenter" => {
                self.token(values, not_values, |value| Some(authz_claims::claim(&["azp"], value)));
            }
            _ => {
                if let Some(path) = key.strip_prefix("request.auth.claims") {
                    let path = authz_claims::brackets(path);
                    self.token(values, not_values, |value| Some(authz_claims::claim(&path, value)));
                } else if let Some(name) = bracketed(key, "request.headers") {
                    self.principal(values, not_values, |value| {
                        Some(principal_of(Identifier::Header(header(name, value, false))))
                    });
                }
            }
        }
    }
}

/// The text in the brackets after a prefix.
fn bracketed<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']')
}

fn permission_of(rule: Allowed) -> Permission {
    Permission { rule: Some(rule) }
}

/// A principal of one identifier.
pub fn principal_of(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn not_permission(inner: Permission) -> Permission {
    permission_of(Allowed::NotRule(Box::new(inner)))
}

fn not_principal(inner: Principal) -> Principal {
    principal_of(Identifier::NotId(Box::new(inner)))
}

fn all_permissions(mut rules: Vec<Permission>) -> Permission {
    if rules.is_empty() {
        rules.push(permission_of(Allowed::Any(true)));
    }
    permission_of(Allowed::AndRules(permission::Set { rules }))
}

fn all_principals(mut ids: Vec<Principal>) -> Principal {
    if ids.is_empty() {
        ids.push(principal_of(Identifier::Any(true)));
    }
    principal_of(Identifier::AndIds(principal::Set { ids }))
}

/// Exact, prefix `abc*`, suffix `*abc`, presence `*` (AZ-16).
pub fn text_matcher(value: &str) -> StringMatcher {
    let pattern = if value == "*" {
        MatchPattern::SafeRegex(matcher::regex(".+"))
    } else if let Some(suffix) = value.strip_prefix('*') {
        MatchPattern::Suffix(suffix.to_owned())
    } else if let Some(prefix) = value.strip_suffix('*') {
        MatchPattern::Prefix(prefix.to_owned())
    } else {
        MatchPattern::Exact(value.to_owned())
    };
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

fn header(name: &str, value: &str, ignore_case: bool) -> HeaderMatcher {
    let specifier = if value == "*" {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        HeaderMatchSpecifier::StringMatch(StringMatcher { ignore_case, ..text_matcher(value) })
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

fn host_permission(value: &str) -> Option<Permission> {
    Some(permission_of(Allowed::Header(header(":authority", value, true))))
}

fn method_permission(value: &str) -> Option<Permission> {
    Some(permission_of(Allowed::Header(header(":method", value, false))))
}

fn port_permission(value: &str) -> Option<Permission> {
    value.parse().ok().map(|port| permission_of(Allowed::DestinationPort(port)))
}

/// A path: text, or a template with `{*}` for one segment and `{**}` for the rest (AZ-14).
fn path_permission(value: &str) -> Option<Permission> {
    if value.contains('{') {
        let template = value.replace("{**}", "**").replace("{*}", "*");
        return Some(permission_of(Allowed::UriTemplate(TypedExtensionConfig {
            name: "uri-template".to_owned(),
            typed_config: Some(any::pack(&UriTemplateMatchConfig { path_template: template })),
        })));
    }
    let path = PathMatcher { rule: Some(path_matcher::Rule::Path(text_matcher(value))) };
    Some(permission_of(Allowed::UrlPath(path)))
}

fn direct_ip(value: &str) -> Option<Principal> {
    Some(principal_of(Identifier::DirectRemoteIp(cidr(value)?)))
}

fn remote_ip(value: &str) -> Option<Principal> {
    Some(principal_of(Identifier::RemoteIp(cidr(value)?)))
}
