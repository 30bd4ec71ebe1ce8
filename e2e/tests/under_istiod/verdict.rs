//! What istiod has sent to our proxies: whether all of it was taken, and what of it has no effect. The name of this file is
//! the last of the folder, for the tests run in order: counters of refusals have seen all scenarios by then.

use crate::mesh::Mesh;
use crate::space::Space;
use e2e::cluster::PATIENCE;
use proxy::refusal::WITHOUT_EFFECT;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Objects of all kinds, about the bookshop.
const OBJECTS: &str = include_str!("objects.yaml");
/// Samples of the workspace that our proxies take whole, and the one of which they refuse a part by name.
const SAMPLES: [&str; 5] = ["routing", "security", "sidecars", "gateways", "entries"];
const REFUSED_IN_PART: &str = "destinations";
/// What is refused of that one.
const NOT_YET: &str = "not supported yet: lb_policy: RING_HASH, MAGLEV";
/// The page that the table is kept in.
const PAGE: &str = "docs/src/reference/istiod.md";

/// A sample, without what a cluster of one address family cannot have.
fn sample(name: &str) -> String {
    let text = std::fs::read_to_string(e2e::root().join(format!("e2e/samples/{name}.yaml"))).unwrap();
    text.split("\n---\n")
        .filter(|document| !document.contains("name: two-families"))
        .collect::<Vec<_>>()
        .join("\n---\n")
}

/// What istiod says of the proxies that are connected.
fn proxies(mesh: &Mesh) -> Vec<Value> {
    serde_json::from_str(&mesh.page("/debug/syncz")).unwrap()
}

/// Waits until every proxy has answered to all that it was sent; how many proxies there are, and what they refused.
#[expect(clippy::disallowed_methods, reason = "nothing tells when the last answer has come")]
fn settled(mesh: &Mesh) -> (usize, BTreeSet<String>) {
    let begun = Instant::now();
    let mut quiet = 0;
    loop {
        let proxies = proxies(mesh);
        let states = || proxies.iter().flat_map(|proxy| proxy["resources"].as_object().unwrap().values());
        // A resource that was refused is never acknowledged: its last error stands beside it.
        let errors: BTreeSet<String> =
            states().filter_map(|state| state["lastError"].as_str()).map(str::to_owned).collect();
        let answered = states().all(|state| state["acked"] == state["sent"] || state["lastError"].is_string());
        quiet = if answered { quiet + 1 } else { 0 };
        if quiet == 3 {
            return (proxies.len(), errors);
        }
        assert!(begun.elapsed() < PATIENCE, "{proxies:?}");
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// Refusals that istiod has counted, by type.
fn refusals(mesh: &Mesh) -> Vec<String> {
    let metrics = mesh.page("/metrics");
    metrics.lines().filter(|line| line.starts_with("pilot_total_xds_rejects")).map(str::to_owned).collect()
}

/// A page of a proxy's admin interface.
fn admin(space: &Space, workload: &str, path: &str) -> String {
    let proxy = format!("deploy/{workload}");
    space.kubectl(&["exec", &proxy, "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", path]).unwrap()
}

/// Types of extensions by the place where they stand, for all proxies.
fn types(mesh: &Mesh) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for proxy in proxies(mesh) {
        let path = format!("/debug/config_dump?proxyID={}&include_eds", proxy["proxy"].as_str().unwrap());
        collect(&serde_json::from_str(&mesh.page(&path)).unwrap(), &mut Vec::new(), &mut found);
    }
    found.retain(|name, _| !name.starts_with("envoy.admin."));
    found
}

fn collect(value: &Value, path: &mut Vec<String>, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = type_of(value) {
                found.entry(name).or_default().insert(place(path));
            }
            for (field, inner) in fields {
                path.push(field.clone());
                collect(inner, path, found);
                path.pop();
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, path, found)),
        _ => {}
    }
}

/// The message that stands here, also within a `TypedStruct`.
fn type_of(value: &Value) -> Option<String> {
    let own = value["@type"].as_str()?;
    let inner = || ["typeUrl", "type_url"].iter().find_map(|field| value[*field].as_str());
    let url = if own.ends_with("TypedStruct") { inner().unwrap_or(own) } else { own };
    url.rsplit('/').next().map(str::to_owned)
}

/// Where something stands: the resource and the last field that is no wrapper.
fn place(path: &[String]) -> String {
    let wrappers = ["typedConfig", "extensionFilter", "listener", "cluster", "routeConfig", "endpointConfig"];
    let resource = path.iter().find_map(|field| match field.as_str() {
        "dynamicListeners" => Some("listener"),
        "dynamicActiveClusters" => Some("cluster"),
        "dynamicRouteConfigs" => Some("route"),
        "dynamicEndpointConfigs" => Some("endpoint"),
        _ => None,
    });
    let field = path.iter().rev().find(|field| !wrappers.contains(&field.as_str()) && !field.contains('.'));
    match (resource, field) {
        (Some(resource), Some(field)) if !field.starts_with("dynamic") && field != "activeState" => {
            format!("{resource}: {field}")
        }
        (Some(resource), _) => resource.to_owned(),
        (None, _) => "secret".to_owned(),
    }
}

/// The page of the book.
fn page(types: &BTreeMap<String, BTreeSet<String>>) -> String {
    use std::fmt::Write;
    let mut text = "# Under istiod\n\nWhat a real istiod sends to our proxies for the bookshop and for the samples of \
        `e2e/samples`: every `@type`, from istiod's own dump of what it sent. `make e2e-istiod` makes this page \
        (`ISTIOD_PAGE=write`) and fails where it is not true any more.\n\n"
        .to_owned();
    let lacking: Vec<_> = WITHOUT_EFFECT.iter().filter(|(name, _)| types.contains_key(*name)).collect();
    text += "## Taken, without effect here\n\n| `@type` | Where | What it would do |\n|---|---|---|\n";
    for (name, purpose) in lacking {
        let places: Vec<&str> = types[*name].iter().map(String::as_str).collect();
        writeln!(text, "| `{name}` | {} | {purpose} |", places.join(", ")).unwrap();
    }
    text += "\n## Refused by name\n\nNo `@type`. Of the samples one field is refused; the clusters beside it are taken:\n\n\
        | Field | What it would do |\n|---|---|\n\
        | `lb_policy: RING_HASH`, `MAGLEV` | `consistentHash` of a DestinationRule: the same endpoint for the same header, cookie, address or parameter |\n\n\
        ## Taken\n\n| `@type` | Where |\n|---|---|\n";
    for (name, places) in types.iter().filter(|(name, _)| WITHOUT_EFFECT.iter().all(|(one, _)| one != name)) {
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        writeln!(text, "| `{name}` | {} |", places.join(", ")).unwrap();
    }
    text
}

// spec: XT-1, XT-2, XT-3, XT-5, XT-6, XT-7, XT-8, XT-9, XT-12, XT-13, XT-15, NI-1, NI-2, NI-3, NI-4, CA-1, CA-23
#[test]
#[ignore = "needs a cluster: make e2e-istiod"]
#[expect(clippy::disallowed_methods, reason = "who changes the page says so")]
fn everything_that_istiod_sends_is_taken() {
    let space = Space::with_bookshop("verdict");
    let mesh = space.mesh;
    space.apply(OBJECTS);
    let (count, errors) = settled(mesh);
    assert_eq!((errors, refusals(mesh)), (BTreeSet::new(), Vec::new()), "{count} proxies");
    space.figure(&format!("0 refusals of {count} proxies, in all scenarios so far"));
    own_view(&space);

    for name in SAMPLES {
        space.apply(&sample(name));
        let (count, errors) = settled(mesh);
        assert_eq!((errors, refusals(mesh)), (BTreeSet::new(), Vec::new()), "{name}: {count} proxies");
    }
    let types = types(mesh);
    space.apply(&sample(REFUSED_IN_PART));
    let (_, errors) = settled(mesh);
    assert!(
        !errors.is_empty() && errors.iter().all(|error| error.split("; ").all(|one| one.ends_with(NOT_YET))),
        "{errors:?}"
    );

    let (page, path) = (page(&types), e2e::root().join(PAGE));
    println!("{page}");
    if std::env::var("ISTIOD_PAGE").is_ok_and(|what| what == "write") {
        std::fs::write(&path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), page, "ISTIOD_PAGE=write make e2e-istiod writes {PAGE}");
    space.figure(&format!("{} types of extensions, of them {} without effect", types.len(), WITHOUT_EFFECT.len()));
}

/// The proxies themselves say that they refused nothing, and by whom they are certified.
fn own_view(space: &Space) {
    for workload in ["client", "productpage-v1", "ratings-v1"] {
        let stats = admin(space, workload, "stats");
        let rejected: Vec<&str> =
            stats.lines().filter(|line| line.contains("update_rejected") && !line.ends_with(": 0")).collect();
        assert!(stats.contains("update_rejected: 0") && rejected.is_empty(), "{workload}: {rejected:?}");
        assert!(!admin(space, workload, "config_dump").contains("error_state"), "{workload}");
        let certificates: Value = serde_json::from_str(&admin(space, workload, "certs")).unwrap();
        let account = if workload == "client" { "client" } else { "bookshop-" };
        let names = certificates.to_string();
        assert!(names.contains(&format!("spiffe://cluster.local/ns/verdict/sa/{account}")), "{names}");
    }
    let metrics = space.mesh.page("/metrics");
    let issued = metrics.lines().find_map(|line| line.strip_prefix("citadel_server_success_cert_issuance_count "));
    // Six workloads of the bookshop and the client; the gateway may have its certificate from an istiod before.
    assert!(issued.is_some_and(|count| count.parse::<usize>().unwrap() >= 7), "{issued:?}");
}
