//! Rows of the protocol, without a network.

use super::frame::Frame;
use super::session::{Grant, Protocol, Session};
use crate::translate::cache::{ResourceType, version_text};
use crate::translate::{Encoded, Snapshot};
use prost::Message as _;
use proto::envoy::RpcStatus;
use proto::envoy::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use std::sync::Arc;

use ResourceType::{Cluster, Endpoints, Listener, Route, Secret};

fn snapshot(resources: &[(ResourceType, &str, &str)]) -> Arc<Snapshot> {
    let encoded = resources
        .iter()
        .map(|(kind, name, content)| (*kind, Arc::new(Encoded::new(name, kind.type_url(), content.as_bytes()))));
    Arc::new(Snapshot::of_resources(encoded))
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ack(frame: &Frame) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: frame.nonce.clone(), ..DeltaDiscoveryRequest::default() }
}

fn sent(frames: &[Frame]) -> Vec<(ResourceType, Vec<&str>, Vec<&str>)> {
    frames
        .iter()
        .map(|frame| {
            (frame.kind, frame.sent.iter().map(|n| &**n).collect(), frame.removed.iter().map(|n| &**n).collect())
        })
        .collect()
}

fn delta(snapshot: &Arc<Snapshot>) -> Session {
    Session::new(Protocol::Delta, 1, snapshot.clone())
}

// spec: XD-5, XD-6
#[test]
fn the_first_empty_delta_request_is_a_wildcard_for_clusters_and_listeners_alone() {
    let world = snapshot(&[(Cluster, "a", "1"), (Cluster, "b", "1"), (Route, "r", "1")]);
    let mut session = delta(&world);
    assert_eq!(sent(&session.handle_delta(Cluster, &subscribe(&[]))), [(Cluster, vec!["a", "b"], vec![])]);
    assert_eq!(sent(&session.handle_delta(Route, &subscribe(&[]))), []);
    assert_eq!(sent(&session.handle_delta(Route, &subscribe(&["r"]))), [(Route, vec!["r"], vec![])]);
    let mut explicit = delta(&world);
    assert_eq!(sent(&explicit.handle_delta(Cluster, &subscribe(&["*"]))), [(Cluster, vec!["a", "b"], vec![])]);
}

// spec: XD-5, XD-8
#[test]
fn names_alone_are_on_demand_and_unknown_names_are_answered() {
    let world = snapshot(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    let mut session = delta(&world);
    assert_eq!(sent(&session.handle_delta(Cluster, &subscribe(&["b"]))), [(Cluster, vec!["b"], vec![])]);
    assert_eq!(sent(&session.handle_delta(Cluster, &subscribe(&["zz"]))), [(Cluster, vec![], vec!["zz"])]);
    let next = snapshot(&[(Cluster, "a", "2"), (Cluster, "b", "1"), (Cluster, "zz", "1")]);
    assert_eq!(sent(&session.offer(&next)), [(Cluster, vec!["zz"], vec![])], "a is not asked for; zz exists now");
}

// spec: XD-8
#[test]
fn asking_again_is_answered_and_unsubscribing_under_a_wildcard_too() {
    let world = snapshot(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    let mut session = delta(&world);
    let frames = session.handle_delta(Cluster, &subscribe(&["*"]));
    assert_eq!(sent(&session.handle_delta(Cluster, &ack(&frames[0]))), []);
    assert_eq!(sent(&session.handle_delta(Cluster, &subscribe(&["a"]))), [(Cluster, vec!["a"], vec![])]);
    let leave = DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["a".into()], ..Default::default() };
    assert_eq!(sent(&session.handle_delta(Cluster, &leave)), [(Cluster, vec!["a"], vec![])]);
}

// spec: XD-7, XM-6, PI-30
#[test]
fn a_client_that_comes_back_with_true_versions_is_sent_nothing() {
    let world = snapshot(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    let version = |name: &str| version_text(world.of(Cluster).get(name).unwrap().version);
    let mut request = subscribe(&["*"]);
    request.initial_resource_versions = [("a".to_owned(), version("a")), ("b".to_owned(), version("b"))].into();
    assert_eq!(sent(&delta(&world).handle_delta(Cluster, &request)), []);
    request.initial_resource_versions = [("a".to_owned(), version("a")), ("gone".to_owned(), "7".to_owned())].into();
    assert_eq!(sent(&delta(&world).handle_delta(Cluster, &request)), [(Cluster, vec!["b"], vec!["gone"])]);
}

// spec: XD-3, XD-11, PI-30
#[test]
fn acknowledgements_and_refusals_are_kept_and_stale_nonces_are_neither() {
    let world = snapshot(&[(Cluster, "a", "1")]);
    let mut session = delta(&world);
    let frames = session.handle_delta(Cluster, &subscribe(&["*"]));
    session.handle_delta(Cluster, &ack(&frames[0]));
    assert_eq!(session.progress(Cluster).unwrap().acked, frames[0].nonce);
    let second = session.offer(&snapshot(&[(Cluster, "a", "2")]));
    session.handle_delta(Cluster, &ack(&frames[0]));
    let progress = session.progress(Cluster).unwrap();
    assert_eq!((progress.acked, progress.sent), (frames[0].nonce.clone(), second[0].nonce.clone()));
    let mut refusal = ack(&second[0]);
    refusal.error_detail = Some(RpcStatus { code: 13, message: "a: bad".into(), ..RpcStatus::default() });
    session.handle_delta(Cluster, &refusal);
    let nack = session.progress(Cluster).unwrap().nack.unwrap();
    assert_eq!((nack.code, nack.message.as_str()), (13, "a: bad"));
    let third = session.offer(&snapshot(&[(Cluster, "a", "3")]));
    session.handle_delta(Cluster, &ack(&third[0]));
    assert_eq!(session.progress(Cluster).unwrap().nack, None, "a response that is taken ends it");
    // A stale nonce does not hide a change of the subscription.
    let mut late = subscribe(&["b"]);
    late.response_nonce = "old".into();
    assert_eq!(sent(&session.handle_delta(Cluster, &late)), [(Cluster, vec![], vec!["b"])]);
}

// spec: XD-10, PI-29
#[test]
fn what_is_new_comes_in_order_and_what_is_gone_comes_last() {
    let old = snapshot(&[(Cluster, "old", "1"), (Endpoints, "old", "1"), (Listener, "l", "1"), (Route, "r", "1")]);
    let mut session = delta(&old);
    session.handle_delta(Cluster, &subscribe(&[]));
    session.handle_delta(Endpoints, &subscribe(&["old", "new"]));
    session.handle_delta(Listener, &subscribe(&[]));
    session.handle_delta(Route, &subscribe(&["r"]));
    let new = snapshot(&[(Cluster, "new", "1"), (Endpoints, "new", "1"), (Listener, "l", "2"), (Route, "r", "2")]);
    assert_eq!(
        sent(&session.offer(&new)),
        [
            (Cluster, vec!["new"], vec![]),
            (Endpoints, vec!["new"], vec![]),
            (Listener, vec!["l"], vec![]),
            (Route, vec!["r"], vec![]),
            (Cluster, vec![], vec!["old"]),
            (Endpoints, vec![], vec!["old"]),
        ]
    );
    assert_eq!(
        sent(&session.offer(&snapshot(&[]))),
        [
            (Listener, vec![], vec!["l"]),
            (Route, vec![], vec!["r"]),
            (Cluster, vec![], vec!["new"]),
            (Endpoints, vec![], vec!["new"]),
        ],
        "what leads somewhere goes before what it leads to"
    );
}

// spec: XM-2, PI-29
#[test]
fn a_cluster_that_is_sent_anew_brings_its_endpoints() {
    let mut session =
        delta(&snapshot(&[(Cluster, "a", "1"), (Endpoints, "a", "1"), (Cluster, "b", "1"), (Endpoints, "b", "1")]));
    session.handle_delta(Cluster, &subscribe(&[]));
    session.handle_delta(Endpoints, &subscribe(&["a", "b"]));
    let next = snapshot(&[(Cluster, "a", "2"), (Endpoints, "a", "1"), (Cluster, "b", "1"), (Endpoints, "b", "1")]);
    assert_eq!(sent(&session.offer(&next)), [(Cluster, vec!["a"], vec![]), (Endpoints, vec!["a"], vec![])]);
}

// spec: XD-1, XD-2
#[test]
fn a_delta_response_is_what_envoy_reads() {
    let mut session = delta(&snapshot(&[(Cluster, "a", "content")]));
    let frame = session.handle_delta(Cluster, &subscribe(&["a", "b"])).remove(0);
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    let response = DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
    assert_eq!(response.type_url, "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    assert_eq!((response.nonce, response.removed_resources), (frame.nonce.clone(), vec!["b".to_owned()]));
    assert_eq!(response.resources[0].resource.as_ref().unwrap().value, b"content");
    assert!(response.control_plane.unwrap().identifier.contains("pilot"));
}

fn names(list: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: list.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
}

// spec: XD-3, XD-5, XD-9, XD-11, PI-26, PI-29, PI-30, XM-2
#[test]
fn state_of_the_world_sends_everything_and_ignores_stale_nonces() {
    let world = snapshot(&[(Cluster, "a", "1"), (Cluster, "b", "1"), (Endpoints, "a", "1"), (Endpoints, "b", "1")]);
    let mut session = Session::new(Protocol::StateOfTheWorld, 2, world);
    let first = session.handle_state_of_the_world(Cluster, &names(&[], "of a life before"));
    assert_eq!(sent(&first), [(Cluster, vec!["a", "b"], vec![])]);
    let mut bytes = Vec::new();
    first[0].write(&mut bytes);
    let response = DiscoveryResponse::decode(bytes.as_slice()).unwrap();
    assert_eq!(response.resources.len(), 2);
    assert!(!response.version_info.is_empty());
    assert_eq!(sent(&session.handle_state_of_the_world(Cluster, &names(&[], &first[0].nonce))), [], "acknowledged");
    let some = session.handle_state_of_the_world(Endpoints, &names(&["a"], ""));
    assert_eq!(sent(&some), [(Endpoints, vec!["a"], vec![])]);
    let more = session.handle_state_of_the_world(Endpoints, &names(&["a", "b"], &some[0].nonce));
    assert_eq!(sent(&more), [(Endpoints, vec!["a", "b"], vec![])]);
    assert_eq!(sent(&session.handle_state_of_the_world(Endpoints, &names(&["b"], &some[0].nonce))), [], "stale");
    let next = snapshot(&[(Cluster, "a", "2"), (Endpoints, "a", "1"), (Endpoints, "b", "1")]);
    let frames = session.offer(&next);
    assert_eq!(
        sent(&frames),
        [(Cluster, vec!["a"], vec![]), (Endpoints, vec!["a", "b"], vec![])],
        "b is gone; warmed anew"
    );
}

// spec: XD-5, XD-9, PI-30
#[test]
fn names_end_the_wildcard_of_state_of_the_world_and_what_nobody_asked_for_is_not_sent() {
    let world = snapshot(&[(Cluster, "a", "1"), (Cluster, "b", "1"), (Endpoints, "a", "1"), (Endpoints, "b", "1")]);
    let mut session = Session::new(Protocol::StateOfTheWorld, 4, world);
    let all = session.handle_state_of_the_world(Cluster, &names(&[], ""));
    assert_eq!(sent(&all), [(Cluster, vec!["a", "b"], vec![])]);
    let endpoints = session.handle_state_of_the_world(Endpoints, &names(&["a"], ""));
    session.handle_state_of_the_world(Cluster, &names(&["a"], &all[0].nonce));
    let next = snapshot(&[(Cluster, "a", "1"), (Cluster, "b", "2"), (Endpoints, "a", "1"), (Endpoints, "b", "2")]);
    assert_eq!(sent(&session.offer(&next)), [], "b is not asked for any more, its endpoints never were");
    let next = snapshot(&[(Cluster, "a", "2"), (Cluster, "b", "2"), (Endpoints, "a", "1"), (Endpoints, "b", "2")]);
    let frames = session.offer(&next);
    assert_eq!(sent(&frames), [(Cluster, vec!["a"], vec![]), (Endpoints, vec!["a"], vec![])]);
    session.handle_state_of_the_world(Cluster, &names(&[], &frames[0].nonce));
    let last = snapshot(&[(Cluster, "a", "3"), (Cluster, "b", "3"), (Endpoints, "a", "1"), (Endpoints, "b", "2")]);
    assert_eq!(sent(&session.offer(&last)), [], "once there were names, none means none");
    drop(endpoints);
}

// spec: XD-1, XD-6, PI-27
#[test]
fn type_urls_are_envoys_and_istios() {
    let urls = ResourceType::ALL.map(ResourceType::type_url);
    let names = [
        "envoy.config.cluster.v3.Cluster",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
        "envoy.config.listener.v3.Listener",
        "envoy.config.route.v3.RouteConfiguration",
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        "istio.networking.nds.v1.NameTable",
    ];
    assert_eq!(urls.to_vec(), names.map(|name| format!("type.googleapis.com/{name}")));
    assert!(ResourceType::ALL.into_iter().all(|kind| ResourceType::parse(kind.type_url()) == Some(kind)));
    let wildcard: Vec<_> = ResourceType::ALL.into_iter().filter(|kind| kind.wildcard()).collect();
    assert_eq!(wildcard, [Cluster, Listener, ResourceType::NameTable]);
}

// spec: XM-3, XM-7
#[test]
fn endpoints_that_are_empty_are_sent_and_those_that_are_unsubscribed_are_not() {
    let mut session = delta(&snapshot(&[(Endpoints, "empty", ""), (Endpoints, "a", "1")]));
    let frames = session.handle_delta(Endpoints, &subscribe(&["empty", "a"]));
    assert_eq!(sent(&frames), [(Endpoints, vec!["a", "empty"], vec![])]);
    let leave = DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["a".into()], ..Default::default() };
    assert_eq!(sent(&session.handle_delta(Endpoints, &leave)), []);
    assert_eq!(sent(&session.offer(&snapshot(&[(Endpoints, "empty", ""), (Endpoints, "a", "2")]))), []);
}

// spec: XD-12, XM-4
#[test]
fn a_refusal_of_state_of_the_world_sends_nothing_until_something_changes() {
    let mut session = Session::new(Protocol::StateOfTheWorld, 3, snapshot(&[(Listener, "l", "1")]));
    let first = session.handle_state_of_the_world(Listener, &names(&[], ""));
    let mut refusal = names(&[], &first[0].nonce);
    refusal.error_detail = Some(RpcStatus { code: 13, message: "l".into(), ..RpcStatus::default() });
    assert_eq!(sent(&session.handle_state_of_the_world(Listener, &refusal)), []);
    assert!(session.progress(Listener).unwrap().nack.is_some());
    assert_eq!(sent(&session.offer(&snapshot(&[(Listener, "l", "2")]))), [(Listener, vec!["l"], vec![])]);
}

// spec: CA-27, XI-4
#[test]
fn secrets_are_for_those_that_may_have_them() {
    let world = snapshot(&[
        (Secret, "kubernetes://a", "1"),
        (Secret, "kubernetes://a-cacert", "1"),
        (Secret, "kubernetes://b", "1"),
    ]);
    let both = ["kubernetes://a", "kubernetes://a-cacert"];
    let mut session = delta(&world);
    assert_eq!(
        sent(&session.handle_delta(Secret, &subscribe(&both))),
        [(Secret, vec![], both.to_vec())],
        "nobody waits for them"
    );
    assert_eq!(sent(&session.regrant(Grant::Authorities)), [(Secret, vec![both[1]], vec![])], "authorities are public");
    assert_eq!(
        sent(&session.regrant(Grant::All)),
        [(Secret, vec![both[0]], vec![])],
        "what was not asked for is not sent"
    );
    assert_eq!(sent(&session.regrant(Grant::All)), []);
    let rotated = snapshot(&[(Secret, "kubernetes://a", "2"), (Secret, "kubernetes://a-cacert", "1")]);
    assert_eq!(sent(&session.offer(&rotated)), [(Secret, vec![both[0]], vec![])]);
    assert_eq!(sent(&session.regrant(Grant::Nothing)), [(Secret, vec![], both.to_vec())]);

    let mut session = Session::new(Protocol::StateOfTheWorld, 5, world);
    let ask = |nonce: &str| DiscoveryRequest {
        resource_names: both.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    };
    assert_eq!(sent(&session.handle_state_of_the_world(Secret, &ask(""))), [(Secret, vec![], vec![])]);
    assert_eq!(sent(&session.regrant(Grant::All)), [(Secret, both.to_vec(), vec![])]);
}
