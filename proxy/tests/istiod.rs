//! What a real istiod sends: every resource is taken, or refused by the name of what is not there yet.
//!
//! The recordings are not part of this repository: the directory is `../shared/golden` beside the workspace or what
//! `FERROMESH_GOLDEN` names; without it the test says so and passes over.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use prost::Message;
use proto::envoy::cluster::Cluster;
use proto::envoy::endpoint::ClusterLoadAssignment;
use proto::envoy::listener::Listener;
use proto::envoy::route::RouteConfiguration;
use proxy::bootstrap::Environment;
use proxy::filter::registry::parse_override;
use proxy::refusal::Refusal;
use proxy::route::{RouteContext, RouteTable};
use proxy::{cluster, endpoint, listener};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is not there yet, by a part of the refusal's text.
const LATER: [&str; 3] =
    ["lb_policy: RING_HASH, MAGLEV", "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", "metrics"];
/// The ratchet: how many resources are taken today. It only ever grows.
const TAKEN: usize = 503;

fn recordings() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    let named = std::env::vars().find(|(key, _)| key == "FERROMESH_GOLDEN").map(|(_, path)| PathBuf::from(path));
    Some(named.unwrap_or(beside)).filter(|path| path.is_dir())
}

fn message<M: Message + Default>(type_name: &str, json: &Value) -> M {
    M::decode(proto::json::from_value(type_name, json).unwrap().as_slice()).unwrap()
}

fn take(kind: &str, json: &Value) -> Result<(), Refusal> {
    let (environment, runtime) = (Environment::default(), BTreeMap::new());
    let cx = RouteContext { environment: &environment, runtime: &runtime, parse_override: &parse_override };
    match kind {
        "clusters" => cluster::config::parse(&message::<Cluster>("envoy.config.cluster.v3.Cluster", json)).map(drop),
        "endpoints" => {
            let written: ClusterLoadAssignment = message("envoy.config.endpoint.v3.ClusterLoadAssignment", json);
            endpoint::config::parse(&written, &endpoint::config::Known::default()).map(drop)
        }
        "listeners" => {
            listener::config::parse(&message::<Listener>("envoy.config.listener.v3.Listener", json), cx).map(drop)
        }
        "routes" => {
            let written: RouteConfiguration = message("envoy.config.route.v3.RouteConfiguration", json);
            RouteTable::parse(&written, cx).map(drop)
        }
        other => panic!("{other}"),
    }
}

// spec: XT-1, XT-2, XT-3, XT-5, XT-6, XT-7, XT-9, XT-10, XT-12
#[test]
fn all_that_istiod_sends_is_taken_or_refused_by_name() {
    let Some(root) = recordings() else {
        println!("no recordings of istiod: passed over");
        return;
    };
    let (mut taken, mut refused) = (0, BTreeMap::<String, usize>::new());
    let cases = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    for file in cases.flat_map(|case| std::fs::read_dir(case).unwrap()).map(|entry| entry.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let node: BTreeMap<String, Value> = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        // Beside the base only what differs from it is recorded.
        let whole = |of: &Value| of.get("changed").unwrap_or(of).as_object().cloned().unwrap_or_default();
        let is_difference = |of: &Value| of.get("removed").is_some_and(Value::is_array);
        for (kind, name, json) in node
            .iter()
            .filter(|(_, of)| of.get("changed").is_some() || !is_difference(of))
            .flat_map(|(kind, of)| whole(of).into_iter().map(move |(name, json)| (kind, name, json)))
        {
            match take(kind, &json) {
                Ok(()) => taken += 1,
                Err(refusal) => {
                    println!("{}: {name}: {refusal}", file.display());
                    *refused.entry(refusal.why).or_default() += 1;
                }
            }
        }
    }
    println!("{taken} resources are taken");
    refused.iter().for_each(|(why, count)| println!("{count} are refused: {why}"));
    let unknown = |why: &&String| !LATER.iter().any(|later| why.contains(later));
    assert_eq!(refused.keys().find(unknown), None);
    assert!(taken >= TAKEN, "{taken}");
}
