//! Resources that differ between two meshes, per proxy.

use super::lines::difference;
use crate::explain::source::Workload;
use crate::offline::Offline;
use pilot::translate::Snapshot;
use pilot::translate::cache::ResourceType;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How a resource changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It is new.
    Added,
    /// It is another one.
    Changed,
    /// It is gone.
    Removed,
}

/// A resource that differs, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Short type: `CDS`, `EDS`, `LDS`, `RDS`, `NDS`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub resource: String,
    /// How it changes.
    pub verb: Verb,
    /// Proxies to which this happens, as `NAME.NAMESPACE`.
    pub proxies: Vec<String>,
    /// Lines of its JSON that differ, with `-`, `+` and some context.
    pub diff: Vec<String>,
}

/// A resource before and after: type, name, and the versions.
type Key = (ResourceType, String, Option<u64>, Option<u64>);

/// What differs; a resource that differs alike for several proxies is named once.
pub fn changes(before: &Offline, after: &Offline) -> Vec<Change> {
    let mut found: BTreeMap<Key, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for workload in before.workloads().iter().chain(after.workloads()).map(Workload::id).collect::<BTreeSet<_>>() {
        let of = |offline: &Offline| {
            let own = offline.workloads().iter().find(|own| own.id() == workload && offline.has_proxy(own));
            own.map(|own| offline.snapshot(own)).unwrap_or_default()
        };
        let (old, new) = (of(before), of(after));
        for kind in ResourceType::ALL {
            for name in old.of(kind).differences(new.of(kind)) {
                let version = |snapshot: &Snapshot| snapshot.of(kind).get(&name).map(|resource| resource.version);
                let key = (kind, name.to_string(), version(&old), version(&new));
                let entry = found.entry(key);
                let entry = entry
                    .or_insert_with(|| (Vec::new(), difference(&text(&old, kind, &name), &text(&new, kind, &name))));
                entry.0.push(workload.clone());
            }
        }
    }
    let change = |((kind, resource, old, new), (proxies, diff)): (Key, (Vec<String>, Vec<String>))| {
        let verb = match (old, new) {
            (None, _) => Verb::Added,
            (_, None) => Verb::Removed,
            _ => Verb::Changed,
        };
        Change { kind: proto::type_url::short_name(kind.type_url()).to_owned(), resource, verb, proxies, diff }
    };
    found.into_iter().map(change).collect()
}

/// The JSON of a resource; empty where it is absent.
fn text(snapshot: &Snapshot, kind: ResourceType, name: &str) -> String {
    let Some(resource) = snapshot.of(kind).get(name) else { return String::new() };
    let value = proto::json::any_to_value(kind.type_url(), &resource.bytes);
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilot::model::MeshConfig;

    const MESH: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, selector: {app: a}, ports: [{name: http, port: 80}]}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: a-1, labels: {app: a}}\nspec: {containers: [{name: a}]}\nstatus: {podIP: 10.1.0.1}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: b-1, labels: {app: b}}\nspec: {containers: [{name: b}]}\nstatus: {podIP: 10.1.0.2}\n";

    fn mesh(more: &str) -> Offline {
        let texts = [("mesh.yaml".to_owned(), MESH.to_owned()), ("more.yaml".to_owned(), more.to_owned())];
        let offline = Offline::of(&texts, MeshConfig::default());
        assert!(offline.problems.is_empty(), "{:?}", offline.problems);
        offline
    }

    // spec: CT-61
    #[test]
    fn a_rule_changes_the_routes_of_every_proxy_and_a_policy_those_of_one() {
        let rule = |timeout: &str| {
            format!(
                "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\n\
                 spec: {{hosts: [a], http: [{{timeout: {timeout}, route: [{{destination: {{host: a}}}}]}}]}}\n"
            )
        };
        let found = changes(&mesh(&rule("1s")), &mesh(&rule("2s")));
        let kinds: Vec<(&str, Verb)> = found.iter().map(|change| (change.kind.as_str(), change.verb)).collect();
        assert_eq!(kinds, [("RDS", Verb::Changed)], "{found:?}");
        assert_eq!(found[0].proxies, ["a-1.default", "b-1.default"]);
        assert!(found[0].diff.iter().any(|line| line.starts_with('-') && line.contains("1s")), "{:?}", found[0].diff);
        assert!(found[0].diff.iter().any(|line| line.starts_with('+') && line.contains("2s")));

        let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {selector: {matchLabels: {app: a}}}\n";
        let found = changes(&mesh(""), &mesh(policy));
        assert!(found.iter().all(|change| change.kind == "LDS" && change.proxies == ["a-1.default"]), "{found:?}");
        assert!(!found.is_empty() && changes(&mesh(policy), &mesh(policy)).is_empty());
    }
}
