//! AuthorizationPolicy as meant (spec 1.13).

use super::check::Check;
use crate::registry::entry::selects;
use crate::source::{Key, Object, Problem};
use proto::istio::authorization_policy as written;
use proto::istio::authorization_policy::{Action, Rule};
use std::collections::BTreeMap;

/// One AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// The object.
    pub key: Key,
    /// Workloads it is for; empty: its whole scope.
    pub selector: BTreeMap<String, String>,
    /// What a match means.
    pub action: Action,
    /// The rules.
    pub rules: Vec<Rule>,
    /// Of a CUSTOM policy: who decides.
    pub provider: String,
    /// Counted and logged only (AZ-19).
    pub dry_run: bool,
}

impl AuthorizationPolicy {
    /// Whether it is for a workload (AZ-3).
    pub fn applies(&self, namespace: &str, labels: &BTreeMap<String, String>, root: &str) -> bool {
        (&*self.key.namespace == namespace || &*self.key.namespace == root) && selects(&self.selector, labels)
    }
}

/// Attributes that conditions may name (AZ-15).
const KEYS: [&str; 13] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.principal",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "request.headers",
];

/// Parses, and so validates, an AuthorizationPolicy.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(object: &Object, spec: &written::AuthorizationPolicy) -> Result<AuthorizationPolicy, Vec<Problem>> {
    let mut check = Check::new(object);
    let provider = spec.provider.as_ref().map(|provider| provider.name.clone()).unwrap_or_default();
    if spec.action == Action::Custom {
        check.require(
            !provider.is_empty(),
            "spec.provider.name",
            "CUSTOM needs a provider of MeshConfig.extensionProviders",
        );
        check.require(
            !spec.rules.is_empty(),
            "spec.rules",
            "CUSTOM without rules would never ask; use - {} for all requests",
        );
        for (i, rule) in spec.rules.iter().enumerate() {
            unproven(&mut check, rule, &format!("spec.rules[{i}]"));
        }
    } else {
        check.require(spec.provider.is_none(), "spec.provider", "only CUSTOM has a provider");
    }
    for (i, rule) in spec.rules.iter().enumerate() {
        rule_fields(&mut check, rule, &format!("spec.rules[{i}]"));
    }
    let dry_run = object.meta.annotations.get("istio.io/dry-run").is_some_and(|value| value == "true");
    check.finish(AuthorizationPolicy {
        key: object.key.clone(),
        selector: spec.selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default(),
        action: spec.action,
        rules: spec.rules.clone(),
        provider,
        dry_run,
    })
}

/// What CUSTOM may not ask for: who decides comes before identities are proven (AZ-20).
fn unproven(check: &mut Check<'_>, rule: &Rule, at: &str) {
    for (j, source) in rule.from.iter().enumerate().filter_map(|(j, from)| Some((j, from.source.as_ref()?))) {
        for (name, list) in [
            ("principals", &source.principals),
            ("notPrincipals", &source.not_principals),
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
            ("namespaces", &source.namespaces),
            ("notNamespaces", &source.not_namespaces),
            ("serviceAccounts", &source.service_accounts),
            ("notServiceAccounts", &source.not_service_accounts),
            ("trustDomains", &source.trust_domains),
            ("notTrustDomains", &source.not_trust_domains),
        ] {
            check.require(list.is_empty(), format!("{at}.from[{j}].source.{name}"), "not in a CUSTOM policy");
        }
    }
    let proven = ["source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"];
    for (j, condition) in rule.when.iter().enumerate() {
        let good = !proven.contains(&condition.key.as_str()) && !condition.key.starts_with("request.auth.");
        check.require(good, format!("{at}.when[{j}].key"), "not in a CUSTOM policy");
    }
}

fn rule_fields(check: &mut Check<'_>, rule: &Rule, at: &str) {
    for (j, from) in rule.from.iter().enumerate() {
        let at = format!("{at}.from[{j}].source");
        let Some(source) = &from.source else {
            check.semantic(at, "a source is needed");
            continue;
        };
        let blocks = [
            ("ipBlocks", &source.ip_blocks),
            ("notIpBlocks", &source.not_ip_blocks),
            ("remoteIpBlocks", &source.remote_ip_blocks),
            ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
        ];
        for (name, list) in blocks {
            addresses(check, list, &format!("{at}.{name}"));
        }
        let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
        let others = !source.principals.is_empty() || !source.namespaces.is_empty();
        check.require(
            !(accounts && others),
            format!("{at}.serviceAccounts"),
            "not together with principals or namespaces",
        );
        for (k, account) in source.service_accounts.iter().chain(&source.not_service_accounts).enumerate() {
            let plain = !account.contains('*') && account.matches('/').count() <= 1 && !account.is_empty();
            check.require(plain, format!("{at}.serviceAccounts[{k}]"), "use ACCOUNT or NAMESPACE/ACCOUNT, no wildcard");
        }
        let empty = source == &written::Source::default();
        check.require(!empty, at, "the source is empty");
    }
    for (j, to) in rule.to.iter().enumerate() {
        let at = format!("{at}.to[{j}].operation");
        let Some(operation) = &to.operation else {
            check.semantic(at, "an operation is needed");
            continue;
        };
        for (name, list) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
            for (k, port) in list.iter().enumerate() {
                let good = port.parse::<u16>().is_ok_and(|port| port > 0);
                check.require(good, format!("{at}.{name}[{k}]"), format!("{port:?} is no port"));
            }
        }
        for (name, list) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
            for (k, path) in list.iter().enumerate() {
                let template = path.contains('{') || path.contains('}');
                let rest = path.replace("{**}", "").replace("{*}", "");
                let good = !template || !rest.contains(['*', '{', '}']);
                check.require(good, format!("{at}.{name}[{k}]"), "templates are {*} and {**}, and not mixed with *");
            }
        }
        check.require(operation != &written::Operation::default(), at, "the operation is empty");
    }
    for (j, condition) in rule.when.iter().enumerate() {
        let at = format!("{at}.when[{j}]");
        let key = condition.key.split('[').next().unwrap_or_default();
        let known =
            KEYS.contains(&key) || key == "request.auth.claims" || key.starts_with("experimental.envoy.filters.");
        check.require(known, format!("{at}.key"), format!("unknown attribute {:?}", condition.key));
        let some = !condition.values.is_empty() || !condition.not_values.is_empty();
        check.require(some, format!("{at}.values"), "values or notValues are needed");
        if matches!(key, "source.ip" | "remote.ip" | "destination.ip") {
            addresses(check, &condition.values, &format!("{at}.values"));
            addresses(check, &condition.not_values, &format!("{at}.notValues"));
        }
        if key.starts_with("experimental.") {
            check.semantic(format!("{at}.key"), format!("{}: {at}.key {key}", proto::istio::NOT_SUPPORTED_YET));
        }
    }
}

fn addresses(check: &mut Check<'_>, list: &[String], at: &str) {
    for (i, text) in list.iter().enumerate() {
        let good = text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok();
        check.require(good, format!("{at}[{i}]"), format!("{text:?} is no address and no block"));
    }
}
