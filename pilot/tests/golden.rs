//! What a real istiod sends for the same objects, compared resource by resource.
//!
//! The recordings are not part of this repository: the directory is `../shared/golden` beside the workspace or what
//! `FERROMESH_GOLDEN` names; without it the test says so and passes over. It compares with `istio_defaults` on; where
//! our defaults differ is listed in docs/src/reference/deviations.md and proven by a unit test of its own.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "a test panics to fail and prints its table"
)]

use pilot::model::{Mesh, MeshConfig, scope};
use pilot::source::{Key, Object, Store, memory};
use pilot::translate::cache::{Cache, ResourceType};
use pilot::translate::node::Role;
use pilot::translate::{Class, Node, Snapshot};
use proto::envoy::core::Node as WireNode;
use proto::envoy::wkt::value::Kind;
use proto::envoy::wkt::{Struct, Value as WireValue};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Cases whose kinds or fields come later; their resources do not count.
const LATER: [&str; 1] = ["20-envoyfilter"];
/// Lines of inputs that come later, and would have their whole object refused; what rests on them counts as missing.
const LATER_LINES: [&str; 1] = ["mode: AUTO_PASSTHROUGH"];
/// The ratchet: how many resources match today. It only ever grows.
const MATCHED: usize = 4122;

const NODES: [(&str, &str, &str, &str); 3] = [
    ("productpage", "10.20.0.1", "productpage-v1-0", "default"),
    ("reviews", "10.20.0.3", "reviews-v1-0", "default"),
    ("istio-ingressgateway", "10.20.0.16", "istio-ingressgateway-v1-0", "istio-system"),
];

/// The Service that every API server makes for itself; it stands in the recordings and not in the input.
const KUBERNETES: &str = "
apiVersion: v1
kind: Service
metadata: {name: kubernetes, namespace: default}
spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, targetPort: 6443, protocol: TCP}]}
";

fn golden() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    let named = std::env::vars().find(|(key, _)| key == "FERROMESH_GOLDEN").map(|(_, path)| PathBuf::from(path));
    Some(named.unwrap_or(beside)).filter(|path| path.is_dir())
}

fn mesh_of(texts: &[String]) -> Mesh {
    let config = MeshConfig { istio_defaults: true, ..MeshConfig::default() };
    let mut store = Store::default();
    let mut changed: BTreeMap<Key, Arc<Object>> = BTreeMap::new();
    for object in texts.iter().flat_map(|text| memory::parse(text, None).objects) {
        if let Err(problems) = pilot::model::mesh::admit(&object, &config) {
            println!("refused: {}", problems[0]);
            continue;
        }
        changed.insert(object.key.clone(), object.clone());
        store.insert(object);
    }
    let mut mesh = Mesh::empty(config);
    mesh.update(&store, &changed);
    mesh
}

fn node((name, address, pod, namespace): (&str, &str, &str, &str)) -> Node {
    let role = if name == "istio-ingressgateway" { "router" } else { "sidecar" };
    let text = |value: &str| WireValue { kind: Some(Kind::StringValue(value.to_owned())) };
    let metadata = Struct {
        fields: [("NAMESPACE".to_owned(), text(namespace)), ("CLUSTER_ID".to_owned(), text("Kubernetes"))].into(),
    };
    let wire = WireNode {
        id: format!("{role}~{address}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
        metadata: Some(metadata),
        ..WireNode::default()
    };
    Node::parse(&wire).unwrap()
}

fn snapshot(node: &Node, mesh: &Mesh) -> BTreeMap<(&'static str, String), Value> {
    let class = Class::of(node, mesh);
    let scope = match class.role {
        Role::Sidecar => {
            scope::build(mesh, &class.namespace, scope::choose(mesh, &class.namespace, &class.place.labels))
        }
        Role::Router => scope::of_gateway(mesh, &class.namespace),
    };
    let snapshot = Snapshot::build(&class, mesh, &scope, &mut Cache::default());
    let kinds = [
        ("clusters", ResourceType::Cluster),
        ("endpoints", ResourceType::Endpoints),
        ("listeners", ResourceType::Listener),
        ("routes", ResourceType::Route),
    ];
    let mut out = BTreeMap::new();
    for (name, kind) in kinds {
        for resource in snapshot.of(kind).iter() {
            let full = proto::any::type_name(kind.type_url());
            let mut value = proto::json::to_value(full, &resource.bytes).unwrap();
            normalise(&mut value);
            out.insert((name, resource.name.to_string()), value);
        }
    }
    out
}

/// Lists whose order means nothing are sorted.
fn normalise(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                normalise(inner);
                let unordered = matches!(
                    key.as_str(),
                    "domains"
                        | "filter_chains"
                        | "virtual_hosts"
                        | "endpoints"
                        | "lb_endpoints"
                        | "services"
                        | "server_names"
                );
                if let (true, Value::Array(items)) = (unordered, inner) {
                    items.sort_by_key(canonical);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        _ => {}
    }
}

/// The text of a value with sorted keys.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().map(|(key, value)| (key, canonical(value))).collect();
            format!("{sorted:?}")
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Number(number) => number.as_f64().map_or_else(String::new, |number| number.to_string()),
        other => other.to_string(),
    }
}

type Expected = BTreeMap<(&'static str, String), Value>;

const KINDS: [&str; 4] = ["clusters", "endpoints", "listeners", "routes"];

fn base(path: &Path) -> Expected {
    let whole: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut out = BTreeMap::new();
    for kind in KINDS {
        for (name, value) in whole[kind].as_object().into_iter().flatten() {
            let mut value = value.clone();
            normalise(&mut value);
            out.insert((kind, name.clone()), value);
        }
    }
    out
}

/// The base with what the recording of a case changes and removes.
fn with_case(base: &Expected, path: &Path) -> Expected {
    let mut out = base.clone();
    let Ok(text) = std::fs::read_to_string(path) else { return out };
    let whole: Value = serde_json::from_str(&text).unwrap();
    for kind in KINDS {
        for name in whole[kind]["removed"].as_array().into_iter().flatten() {
            out.remove(&(kind, name.as_str().unwrap().to_owned()));
        }
        for (name, value) in whole[kind]["changed"].as_object().into_iter().flatten() {
            let mut value = value.clone();
            normalise(&mut value);
            out.insert((kind, name.clone()), value);
        }
    }
    out
}

/// Paths at which two values differ.
fn differences(ours: &Value, theirs: &Value, at: &str, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => differences(a, b, &format!("{at}.{key}"), out),
                    (Some(a), None) => out.push(format!("{at}.{key}: only ours {a}")),
                    (None, b) => out.push(format!("{at}.{key}: only theirs {}", b.unwrap_or(&Value::Null))),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(a, b, &format!("{at}[{i}]"), out);
            }
        }
        (a, b) if canonical(a) != canonical(b) => out.push(format!("{at}: ours {a} theirs {b}")),
        _ => {}
    }
}

struct Score {
    matched: usize,
    deviating: usize,
    missing: usize,
    surplus: usize,
}

fn compare(label: &str, ours: &Expected, theirs: &Expected) -> Score {
    let mut score = Score { matched: 0, deviating: 0, missing: 0, surplus: 0 };
    for (key, expected) in theirs {
        let Some(actual) = ours.get(key) else {
            println!("  {label} {} {}: missing", key.0, key.1);
            score.missing += 1;
            continue;
        };
        let mut found = Vec::new();
        differences(actual, expected, "", &mut found);
        if found.is_empty() {
            score.matched += 1;
        } else {
            score.deviating += 1;
            println!("  {label} {} {}: {}", key.0, key.1, found[0].chars().take(600).collect::<String>());
        }
    }
    for key in ours.keys().filter(|key| !theirs.contains_key(*key)) {
        println!("  {label} {} {}: only ours", key.0, key.1);
        score.surplus += 1;
    }
    score
}

#[test]
fn sends_what_istiod_sends() {
    let Some(directory) = golden() else {
        println!("passed over: no recordings");
        return;
    };
    let input = |case: &str| {
        let text = std::fs::read_to_string(directory.join(case).join("input.yaml")).unwrap();
        let counts = |line: &&str| !LATER_LINES.iter().any(|later| line.contains(later));
        text.lines().filter(counts).collect::<Vec<_>>().join("\n")
    };
    let mut cases: Vec<String> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    cases.sort();
    let bases: BTreeMap<&str, Expected> =
        NODES.iter().map(|node| (node.0, base(&directory.join("00-base").join(format!("{}.json", node.0))))).collect();
    let (mut total, mut table) = (0, String::new());
    for case in &cases {
        let mut texts = vec![KUBERNETES.to_owned(), input("00-base")];
        if case != "00-base" {
            texts.push(input(case));
        }
        let mesh = mesh_of(&texts);
        let later = if LATER.contains(&case.as_str()) { " (comes later)" } else { "" };
        for wire in NODES {
            let expected = if case == "00-base" {
                bases[wire.0].clone()
            } else {
                with_case(&bases[wire.0], &directory.join(case).join(format!("{}.json", wire.0)))
            };
            let score = compare(&format!("{case} {}", wire.0), &snapshot(&node(wire), &mesh), &expected);
            table.push_str(&format!(
                "{:<36}{:<24}{:>8}{:>11}{:>9}{:>11}{later}\n",
                case, wire.0, score.matched, score.deviating, score.missing, score.surplus
            ));
            if later.is_empty() {
                total += score.matched;
            }
        }
    }
    println!(
        "{:<36}{:<24}{:>8}{:>11}{:>9}{:>11}\n{table}",
        "case", "node", "matched", "deviating", "missing", "only ours"
    );
    println!("matched in all: {total}");
    assert!(total >= MATCHED, "{total} resources match, {MATCHED} did before");
}

/// Two pilots that know the same send the same bytes: a proxy that comes back after a restart is sent nothing.
#[test]
fn equal_objects_give_equal_versions() {
    let Some(directory) = golden() else {
        println!("passed over: no recordings");
        return;
    };
    let input = |case: &str| std::fs::read_to_string(directory.join(case).join("input.yaml")).unwrap();
    let texts =
        ["00-base", "01-weights", "03-fault-timeout-retry", "09-authz-allow-deny", "12-service-entries"].map(input);
    let versions = || {
        let mesh = mesh_of(&texts);
        let node = node(NODES[1]);
        let class = Class::of(&node, &mesh);
        let scope = scope::build(&mesh, &class.namespace, None);
        let snapshot = Snapshot::build(&class, &mesh, &scope, &mut Cache::default());
        let of = |kind: ResourceType| -> Vec<(Arc<str>, u64)> {
            snapshot.of(kind).iter().map(|resource| (resource.name.clone(), resource.version)).collect()
        };
        ResourceType::ALL.map(of)
    };
    let (first, second) = (versions(), versions());
    assert_eq!(first, second);
}
