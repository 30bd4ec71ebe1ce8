//! `experimental authz check`: which AuthorizationPolicies a proxy enforces, out of what it has been told (CT-16).

use super::{DUMP, items, member, path, sections, text};
use crate::admin::Target;
use crate::output::{self, Format, Table};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What names of rules begin with that another service decides about.
const CUSTOM: &str = "istio-ext-authz-";

/// `meshctl experimental authz`.
///
/// Examples:
///   meshctl x authz check productpage-v1-5d4f-x.default
///   meshctl x authz check deploy/productpage-v1 -o json
///   meshctl x authz check -f config_dump.json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct AuthzArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show the policies that a proxy enforces, by listener.
    Check {
        #[command(flatten)]
        target: Target,
        /// How to show the result.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// Shows the policies.
///
/// # Errors
/// Where the proxy does not answer, or the dump cannot be read.
pub async fn run(args: AuthzArgs) -> anyhow::Result<()> {
    let What::Check { target, output } = args.what;
    let found = policies(&target.json(DUMP).await?);
    let mut table = Table::new(&["ACTION", "AuthorizationPolicy", "RULES", "LISTENER"]);
    let mut values = Vec::new();
    for (policy, rules) in found {
        let Policy { listener, order: _, action, dry_run, namespace, name } = policy;
        let mark = if dry_run { format!("{action} (dry run)") } else { action.to_owned() };
        let full = if namespace.is_empty() { name.clone() } else { format!("{name}.{namespace}") };
        table.row([mark, full, rules.len().to_string(), listener.clone()]);
        values.push(json!({
            "action": action, "dryRun": dry_run, "name": name, "namespace": namespace, "rules": rules.len(), "listener": listener,
        }));
    }
    if values.is_empty() {
        output::note("the proxy enforces no AuthorizationPolicy: everybody may ask");
    }
    output::show(output, &table, &Value::Array(values))
}

/// A policy at a listener; they are shown in the order in which a proxy asks them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Policy {
    listener: String,
    order: u8,
    action: &'static str,
    dry_run: bool,
    namespace: String,
    name: String,
}

/// The policies of all listeners, with the numbers of their rules. A rule stands in each filter chain of a listener.
fn policies(dump: &Value) -> BTreeMap<Policy, BTreeSet<String>> {
    let mut found: BTreeMap<Policy, BTreeSet<String>> = BTreeMap::new();
    for section in sections(dump, "ListenersConfigDump") {
        let fixed = items(section, "static_listeners").iter().map(|entry| member(entry, "listener"));
        let dynamic =
            items(section, "dynamic_listeners").iter().map(|entry| path(entry, &["active_state", "listener"]));
        for listener in fixed.chain(dynamic).filter(|listener| !listener.is_null()) {
            let last = Some(member(listener, "default_filter_chain")).filter(|chain| !chain.is_null());
            for chain in items(listener, "filter_chains").iter().chain(last) {
                for (policy, rule) in items(chain, "filters").iter().flat_map(filters).flat_map(rules) {
                    let policy = Policy { listener: text(&listener["name"]).to_owned(), ..policy };
                    found.entry(policy).or_default().insert(rule);
                }
            }
        }
    }
    found
}

/// A filter's configuration, and of a connection manager those of its filters.
fn filters(filter: &Value) -> Vec<&Value> {
    let config = member(filter, "typed_config");
    let inner = items(config, "http_filters").iter().map(|inner| member(inner, "typed_config"));
    std::iter::once(config).chain(inner).collect()
}

/// The rules of an RBAC filter, with their policies; of another filter none.
fn rules(config: &Value) -> Vec<(Policy, String)> {
    if !text(&config["@type"]).ends_with(".rbac.v3.RBAC") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (field, shadow) in [("rules", false), ("shadow_rules", true)] {
        let rules = member(config, field);
        let action = text(&rules["action"]);
        for name in rules["policies"].as_object().into_iter().flatten().map(|(name, _)| name) {
            let (before, namespace, policy, rule) = parts(name).unwrap_or(("", "", name, "0"));
            let custom = before.starts_with(CUSTOM);
            let (order, action) = match action {
                _ if custom => (0, "CUSTOM"),
                "LOG" => (1, "AUDIT"),
                "DENY" => (2, "DENY"),
                // The first value of an enumeration is left out.
                _ => (3, "ALLOW"),
            };
            // Shadow rules of CUSTOM only choose who is asked about.
            let dry_run = shadow && !custom;
            let (namespace, name) = (namespace.to_owned(), policy.to_owned());
            found.push((Policy { listener: String::new(), order, action, dry_run, namespace, name }, rule.to_owned()));
        }
    }
    found
}

/// What stands before, namespace, name and number of `ns[foo]-policy[bar]-rule[0]`.
fn parts(name: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, rest) = name.split_once("ns[")?;
    let (namespace, rest) = rest.split_once("]-policy[")?;
    let (policy, rest) = rest.split_once("]-rule[")?;
    Some((before, namespace, policy, rest.split(']').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offline::Offline;
    use pilot::model::{MeshConfig, mesh_config};

    const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: shop}, ports: [{name: http, port: 80}, {name: tcp, port: 90}]}
---
apiVersion: v1
kind: Pod
metadata: {name: shop-0, labels: {app: shop}}
spec: {serviceAccountName: shop}
status: {podIP: 10.0.0.1}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: two, namespace: default}
spec: {action: DENY, rules: [{to: [{operation: {ports: ['80'], paths: [/a]}}]}, {from: [{source: {namespaces: [x]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: trial, namespace: default, annotations: {istio.io/dry-run: 'true'}}
spec: {rules: [{from: [{source: {namespaces: [y]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing, namespace: istio-system}
spec: {}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: asked}
spec: {action: CUSTOM, provider: {name: judge}, rules: [{to: [{operation: {paths: [/b]}}]}]}
---
";

    /// What pilot tells the proxy of the shop, as a proxy's dump has it.
    fn dump() -> Value {
        let settings = "extensionProviders: [{name: judge, envoyExtAuthzGrpc: {service: shop.default.svc.cluster.local, port: 80}}]\n";
        let own = MeshConfig::default();
        let config = MeshConfig::new(mesh_config::parse(settings).unwrap(), &own.domain, &own.cluster);
        let offline = Offline::of(&[("f.yaml".to_owned(), OBJECTS.to_owned())], config);
        assert!(offline.problems.is_empty(), "{:?}", offline.problems);
        let told = offline.dump(&offline.workloads()[0]);
        let listeners = told["LDS"].as_array().unwrap().iter();
        let listeners: Vec<Value> =
            listeners.map(|one| json!({"active_state": {"listener": one["resource"]}})).collect();
        json!({"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": listeners}]})
    }

    // spec: CT-16
    #[test]
    fn the_policies_of_a_proxy_stand_in_the_order_in_which_they_are_asked() {
        let found: Vec<String> = policies(&dump())
            .into_iter()
            .map(|(policy, rules)| {
                let dry = if policy.dry_run { " dry" } else { "" };
                format!(
                    "{} {} {}.{} {}{dry}",
                    policy.listener,
                    policy.action,
                    policy.name,
                    policy.namespace,
                    rules.len()
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                "virtualInbound CUSTOM asked.default 1",
                "virtualInbound DENY two.default 2",
                "virtualInbound ALLOW nothing.istio-system 1",
                "virtualInbound ALLOW trial.default 1 dry",
            ]
        );
    }

    #[test]
    fn a_name_that_somebody_else_gave_is_shown_as_it_is() {
        let config = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {"policies": {"own": {}}}});
        let (policy, _) = rules(&config).remove(0);
        assert_eq!((policy.name.as_str(), policy.action), ("own", "ALLOW"));
        assert_eq!(
            parts("istio-ext-authz-x-ns[a]-policy[b]-rule[1]-deny"),
            Some(("istio-ext-authz-x-", "a", "b", "1"))
        );
    }
}
