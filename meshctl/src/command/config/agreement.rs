//! Whether what pilot sends a proxy and what the proxy holds agree, resource by resource (spec CT-2).

use super::{address_of, items, member, path, sections, text};
use crate::diff::lines::difference;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A type of resources.
struct Kind {
    /// pilot's short name of it.
    short: &'static str,
    /// istioctl's word for it.
    word: &'static str,
    /// Section of a proxy's dump.
    section: &'static str,
    /// What is in use.
    active: List,
    /// What is not yet in use, where the dump tells it.
    warming: Option<List>,
}

/// Resources in a section of a dump.
struct List {
    name: &'static str,
    /// Where an entry of the list says the version.
    version: &'static [&'static str],
    /// Where an entry of the list has the resource.
    resource: &'static [&'static str],
}

/// Those that are compared. Secrets are not: both sides show them without what is secret.
const KINDS: [Kind; 4] = [
    Kind {
        short: "CDS",
        word: "Clusters",
        section: "ClustersConfigDump",
        active: List { name: "dynamic_active_clusters", version: &["version_info"], resource: &["cluster"] },
        warming: Some(List { name: "dynamic_warming_clusters", version: &["version_info"], resource: &["cluster"] }),
    },
    Kind {
        short: "LDS",
        word: "Listeners",
        section: "ListenersConfigDump",
        active: List {
            name: "dynamic_listeners",
            version: &["active_state", "version_info"],
            resource: &["active_state", "listener"],
        },
        warming: Some(List {
            name: "dynamic_listeners",
            version: &["warming_state", "version_info"],
            resource: &["warming_state", "listener"],
        }),
    },
    Kind {
        short: "RDS",
        word: "Routes",
        section: "RoutesConfigDump",
        active: List { name: "dynamic_route_configs", version: &["version_info"], resource: &["route_config"] },
        warming: None,
    },
    Kind {
        short: "EDS",
        word: "Endpoints",
        section: "EndpointsConfigDump",
        active: List { name: "dynamic_endpoint_configs", version: &["version_info"], resource: &["endpoint_config"] },
        warming: None,
    },
];

/// How the two sides stand to each other about a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// pilot sends it, the proxy does not have it.
    MissingInProxy,
    /// The proxy has it, pilot does not send it.
    MissingInPilot,
    /// The proxy has what pilot sends, and does not use it yet: it waits for something that this needs.
    Warming,
    /// They have different ones.
    Differs,
}

/// A resource about which the two sides do not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name.
    pub resource: String,
    /// How they stand.
    pub state: State,
    /// Why the proxy refused what was sent; empty where it did not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub refused: String,
    /// Lines of its JSON that differ: `-` pilot's, `+` the proxy's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diff: Vec<String>,
}

/// A type, and what does not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Short type: `CDS`, `LDS`, `RDS`, `EDS`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(skip)]
    word: &'static str,
    /// By name; empty where all agrees.
    pub differences: Vec<Difference>,
}

impl Agreement {
    /// Whether all agrees.
    pub fn is_match(&self) -> bool {
        self.differences.is_empty()
    }

    /// The verdict in istioctl's words, and a line for each resource with what differs below it.
    pub fn lines(&self) -> Vec<String> {
        if self.is_match() {
            return vec![format!("{} Match", self.word)];
        }
        let mut lines = vec![format!("{} Don't Match", self.word)];
        for Difference { resource, state, refused, diff } in &self.differences {
            let what = match state {
                State::MissingInProxy => "missing in the proxy",
                State::MissingInPilot => "missing in pilot",
                State::Warming => "warming in the proxy",
                State::Differs => "differs (- pilot, + the proxy)",
            };
            let why = if refused.is_empty() { String::new() } else { format!(", which refused it: {refused}") };
            lines.push(format!("  {resource}: {what}{why}"));
            lines.extend(diff.iter().map(|line| format!("    {line}")));
        }
        lines
    }
}

/// Compares pilot's `/debug/config_dump` with the proxy's `/config_dump`; a type that the latter leaves out is left out.
pub fn agreements(pilot: &Value, proxy: &Value) -> Vec<Agreement> {
    let of = |kind: &Kind| {
        sections(proxy, kind.section).next()?;
        Some(Agreement { kind: kind.short, word: kind.word, differences: compare(kind, pilot, proxy) })
    };
    KINDS.iter().filter_map(of).collect()
}

/// A resource as one side has it.
#[derive(Debug, Default)]
struct Held {
    version: String,
    /// Null where there is none.
    content: Value,
    refused: String,
}

fn of_pilot(kind: &Kind, dump: &Value) -> BTreeMap<String, Held> {
    let held = |one: &Value| {
        let version = text(&one["version"]).to_owned();
        let held = Held { version, content: one["resource"].clone(), refused: String::new() };
        (text(&one["name"]).to_owned(), held)
    };
    items(dump, kind.short).iter().map(held).collect()
}

fn of_proxy(kind: &Kind, list: &List, dump: &Value) -> BTreeMap<String, Held> {
    let held = |entry: &Value| {
        let content = path(entry, list.resource).clone();
        let refused = text(path(entry, &["error_state", "details"])).to_owned();
        // Of a cluster that it never took our proxy tells the name in the reason alone.
        let named = refused.split_once(": ").map(|(name, _)| name);
        let names = [&entry["name"], &content["name"], member(&content, "cluster_name")].map(text);
        let name = names.into_iter().chain(named).find(|name| !name.is_empty()).unwrap_or_default().to_owned();
        let version = text(path(entry, list.version)).to_owned();
        (name, Held { version, content, refused })
    };
    sections(dump, kind.section).flat_map(|section| items(section, list.name)).map(held).collect()
}

fn compare(kind: &Kind, pilot: &Value, proxy: &Value) -> Vec<Difference> {
    let pilot = of_pilot(kind, pilot);
    let active = of_proxy(kind, &kind.active, proxy);
    let warming = kind.warming.as_ref().map(|list| of_proxy(kind, list, proxy)).unwrap_or_default();
    let names: BTreeSet<&String> = pilot.keys().chain(active.keys()).chain(warming.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let [used, waiting] = [&active, &warming].map(|list| list.get(name).filter(|held| !held.content.is_null()));
        let (state, diff) = match (pilot.get(name), used, waiting) {
            (Some(sent), Some(used), _) if kind.is_same(sent, used) => continue,
            (Some(sent), _, Some(waiting)) if kind.is_same(sent, waiting) => (State::Warming, Vec::new()),
            (Some(sent), Some(held), _) | (Some(sent), None, Some(held)) => {
                (State::Differs, difference(&pretty(sent), &pretty(held)))
            }
            (Some(_), None, None) => (State::MissingInProxy, Vec::new()),
            (None, None, None) => continue,
            (None, ..) => (State::MissingInPilot, Vec::new()),
        };
        let mut refused = [&active, &warming].into_iter().filter_map(|list| list.get(name)).map(|held| &held.refused);
        let refused = refused.find(|refused| !refused.is_empty()).cloned().unwrap_or_default();
        found.push(Difference { resource: name.clone(), state, refused, diff });
    }
    found
}

impl Kind {
    /// pilot's versions are hashes of contents, and a proxy that takes changes one by one has them. One that does not shows
    /// endpoints in words of its own: of these the addresses are compared.
    fn is_same(&self, sent: &Held, held: &Held) -> bool {
        if self.short == "EDS" && held.version.is_empty() {
            return addresses(&sent.content) == addresses(&held.content);
        }
        sent.version == held.version || sent.content == held.content
    }
}

fn addresses(assignment: &Value) -> BTreeSet<(String, Option<u64>)> {
    let endpoints = items(assignment, "endpoints").iter().flat_map(|group| items(group, "lb_endpoints"));
    endpoints.map(|endpoint| address_of(path(endpoint, &["endpoint", "address"]))).collect()
}

fn pretty(held: &Held) -> String {
    serde_json::to_string_pretty(&held.content).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offline::Offline;
    use pilot::model::MeshConfig;
    use serde_json::json;

    const MESH: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, selector: {app: a}, ports: [{name: http, port: 80}]}\n---\n\
        apiVersion: v1\nkind: Pod\nmetadata: {name: a-1, labels: {app: a}}\nspec: {containers: [{name: a}]}\nstatus: {podIP: 10.1.0.1}\n---\n\
        apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a-x, labels: {kubernetes.io/service-name: a}}\n\
        addressType: IPv4\nports: [{name: http, port: 80}]\nendpoints: [{addresses: [10.1.0.1], targetRef: {kind: Pod, name: a-1}}]\n";

    /// What pilot sends the proxy of `a-1`.
    fn sent() -> Value {
        let offline = Offline::of(&[("mesh.yaml".to_owned(), MESH.to_owned())], MeshConfig::default());
        assert!(offline.problems.is_empty(), "{:?}", offline.problems);
        offline.dump(&offline.workloads()[0])
    }

    /// The dump of a proxy that has taken all of it, with or without the versions of single resources.
    fn taken(sent: &Value, versions: bool) -> Value {
        let section = |kind: &Kind| {
            let entry = |one: &Value| {
                let version = if versions { one["version"].clone() } else { json!("") };
                let mut entry = json!({});
                let list = &kind.active;
                for (way, value) in [(list.version, version), (list.resource, one["resource"].clone())] {
                    *way.iter().fold(&mut entry, |at, name| &mut at[*name]) = value;
                }
                entry
            };
            let entries: Vec<Value> = sent[kind.short].as_array().unwrap().iter().map(entry).collect();
            json!({"@type": format!("type.googleapis.com/envoy.admin.v3.{}", kind.section), kind.active.name: entries})
        };
        json!({"configs": KINDS.iter().map(section).collect::<Vec<_>>()})
    }

    fn lines(pilot: &Value, proxy: &Value) -> Vec<String> {
        agreements(pilot, proxy).iter().flat_map(Agreement::lines).collect()
    }

    fn list(dump: &mut Value, kind: usize) -> &mut Vec<Value> {
        dump["configs"][kind][KINDS[kind].active.name].as_array_mut().unwrap()
    }

    // spec: CT-2
    #[test]
    fn a_proxy_that_has_taken_everything_matches() {
        let pilot = sent();
        let all = ["Clusters Match", "Listeners Match", "Routes Match", "Endpoints Match"];
        for versions in [true, false] {
            assert_eq!(lines(&pilot, &taken(&pilot, versions)), all, "{versions}");
        }
        assert!(pilot["RDS"].as_array().is_some_and(|routes| !routes.is_empty()), "{pilot}");
        let mut without = taken(&pilot, true);
        without["configs"].as_array_mut().unwrap().truncate(3);
        assert_eq!(lines(&pilot, &without), all[..3], "a dump without endpoints says nothing of them");
    }

    // spec: CT-2
    #[test]
    fn what_does_not_agree_is_said_by_name() {
        let pilot = sent();
        let mut proxy = taken(&pilot, true);
        let cluster = list(&mut proxy, 0)
            .iter_mut()
            .find(|entry| entry["cluster"]["name"] == "outbound|80||a.default.svc.cluster.local");
        let cluster = cluster.unwrap();
        cluster["version_info"] = json!("older");
        cluster["cluster"]["connect_timeout"] = json!("77s");
        let listener = list(&mut proxy, 1).remove(0);
        let name = listener["active_state"]["listener"]["name"].as_str().unwrap().to_owned();
        list(&mut proxy, 1).push(json!({"name": name, "error_state": {"details": "bad"}}));
        list(&mut proxy, 2).push(json!({"version_info": "x", "route_config": {"name": "left over"}}));
        let said = lines(&pilot, &proxy);
        for line in [
            "Clusters Don't Match",
            "  outbound|80||a.default.svc.cluster.local: differs (- pilot, + the proxy)",
            "Listeners Don't Match",
            &format!("  {name}: missing in the proxy, which refused it: bad"),
            "Routes Don't Match",
            "  left over: missing in pilot",
            "Endpoints Match",
        ] {
            assert!(said.iter().any(|own| own == line), "{line}: {said:#?}");
        }
        assert!(said.iter().any(|line| line.starts_with("    +") && line.contains("77s")), "{said:#?}");
        let found = serde_json::to_value(agreements(&pilot, &proxy)).unwrap();
        assert_eq!(found[2]["differences"], json!([{"resource": "left over", "state": "missingInPilot"}]));
    }

    // spec: CT-2
    #[test]
    fn what_is_not_in_use_yet_is_said() {
        let pilot = sent();
        let mut proxy = taken(&pilot, true);
        let cluster = list(&mut proxy, 0).remove(0);
        let refused = list(&mut proxy, 0).remove(0);
        let name = |entry: &Value| entry["cluster"]["name"].as_str().unwrap().to_owned();
        let details = format!("{}: lb_policy: bad", name(&refused));
        proxy["configs"][0]["dynamic_warming_clusters"] = json!([cluster, {"error_state": {"details": details}}]);
        let mut listener = list(&mut proxy, 1).remove(0);
        listener["name"] = listener["active_state"]["listener"]["name"].clone();
        let of_listener = listener["name"].as_str().unwrap().to_owned();
        listener["warming_state"] = listener["active_state"].take();
        listener["active_state"] = json!({"version_info": "older", "listener": {"name": of_listener}});
        list(&mut proxy, 1).push(listener);
        let mut expected = [
            format!("  {}: warming in the proxy", name(&cluster)),
            format!("  {}: missing in the proxy, which refused it: {details}", name(&refused)),
        ];
        expected.sort();
        let said = lines(&pilot, &proxy);
        assert_eq!(said[..3], [&["Clusters Don't Match".to_owned()][..], &expected].concat());
        let listeners = ["Listeners Don't Match".to_owned(), format!("  {of_listener}: warming in the proxy")];
        assert_eq!(said[3..5], listeners);
        assert_eq!(said[5..], ["Routes Match", "Endpoints Match"]);
        let found = serde_json::to_value(agreements(&pilot, &proxy)).unwrap();
        assert_eq!(found[1]["differences"], json!([{"resource": of_listener, "state": "warming"}]));
    }

    // spec: CT-2
    #[test]
    fn endpoints_in_words_of_the_proxy_are_compared_by_their_addresses() {
        let pilot = sent();
        let mut proxy = taken(&pilot, false);
        let with_endpoints = |entry: &&mut Value| !addresses(&entry["endpoint_config"]).is_empty();
        let entry = list(&mut proxy, 3).iter_mut().find(with_endpoints).unwrap();
        let endpoint = &mut entry["endpoint_config"]["endpoints"][0]["lb_endpoints"][0];
        endpoint["health_status"] = json!("HEALTHY");
        assert_eq!(lines(&pilot, &proxy)[3], "Endpoints Match");
        let entry = list(&mut proxy, 3).iter_mut().find(with_endpoints).unwrap();
        let endpoint = &mut entry["endpoint_config"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        endpoint["address"]["socket_address"]["address"] = json!("10.9.9.9");
        assert_eq!(lines(&pilot, &proxy)[3], "Endpoints Don't Match");
    }
}
