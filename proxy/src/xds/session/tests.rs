use super::*;

fn session(flavour: Flavour) -> Session {
    Session::new(flavour, Node { id: "sidecar~1~a.b~c".into(), ..Node::default() })
}

fn wrapped(kind: Kind, name: &str, version: &str) -> Wrapped {
    let any = Any { type_url: kind.type_url().into(), value: vec![10, 1, b'x'] };
    Wrapped { name: name.into(), version: version.into(), resource: Some(any), ..Wrapped::default() }
}

fn delta_response(kind: Kind, nonce: &str, resources: Vec<Wrapped>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        resources,
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn delta(session: &mut Session, store: &Store) -> Option<DeltaDiscoveryRequest> {
    match session.poll_request(store)? {
        Request::Delta(request) => Some(*request),
        Request::Sotw(_) => panic!("wrong protocol"),
    }
}

fn accept(store: &mut Store, received: &Received) {
    store.apply(&received.update, &Default::default(), &received.refused, std::time::SystemTime::UNIX_EPOCH);
}

// spec: XD-2, XD-4, NI-4
#[test]
fn the_node_goes_with_the_first_request_of_each_stream_only() {
    let (mut session, store) = (session(Flavour::Delta), Store::default());
    session.want_all(Kind::Cluster);
    session.want(Kind::Endpoint, BTreeSet::from(["e".into()]));
    assert_eq!(delta(&mut session, &store), None, "nothing before the stream is up");
    for _ in 0..2 {
        session.handle_connected();
        let first = delta(&mut session, &store).unwrap();
        assert_eq!((first.type_url.as_str(), first.resource_names_subscribe.len()), (Kind::Cluster.type_url(), 0));
        assert_eq!(first.node.unwrap().id, "sidecar~1~a.b~c");
        let second = delta(&mut session, &store).unwrap();
        assert_eq!((second.node, second.resource_names_subscribe), (None, vec!["e".to_owned()]));
        assert_eq!(delta(&mut session, &store), None);
        session.handle_disconnected();
    }
}

// spec: XD-3, XD-12, XM-4
#[test]
fn good_responses_are_acked_and_bad_ones_nacked_by_name_and_field() {
    let (mut session, store) = (session(Flavour::Delta), Store::default());
    session.want_all(Kind::Cluster);
    session.handle_connected();
    delta(&mut session, &store).unwrap();
    let good = session
        .handle_delta(delta_response(Kind::Cluster, "n1", vec![wrapped(Kind::Cluster, "a", "1")], &["gone"]))
        .unwrap();
    assert_eq!(good.update.removed, ["gone".into()]);
    session.handle_verdict(&good.receipt, &[]);
    let ack = delta(&mut session, &store).unwrap();
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("n1", None));
    let bad = session
        .handle_delta(delta_response(Kind::Cluster, "n2", vec![wrapped(Kind::Listener, "b", "1")], &[]))
        .unwrap();
    assert_eq!(bad.update.added, []);
    let mut refused = bad.refused;
    refused.push(Rejection {
        kind: Kind::Cluster,
        name: "c".into(),
        field: "lb_policy".into(),
        why: "not supported yet".into(),
    });
    session.handle_verdict(&bad.receipt, &refused);
    let nack = delta(&mut session, &store).unwrap();
    assert_eq!(nack.response_nonce, "n2");
    let status = nack.error_detail.unwrap();
    assert_eq!(status.code, 13);
    assert!(status.message.starts_with("Error adding/updating cluster(s) b: type URL"), "{}", status.message);
    assert!(status.message.ends_with("; c: lb_policy: not supported yet"), "{}", status.message);
}

// spec: XD-7, XM-6
#[test]
fn a_new_stream_reports_the_versions_that_are_held() {
    let (mut session, mut store) = (session(Flavour::Delta), Store::default());
    session.want_all(Kind::Cluster);
    session.want(Kind::Endpoint, BTreeSet::from(["e".into()]));
    session.handle_connected();
    while delta(&mut session, &store).is_some() {}
    let clusters = vec![wrapped(Kind::Cluster, "a", "7"), wrapped(Kind::Cluster, "b", "8")];
    let mut received = session.handle_delta(delta_response(Kind::Cluster, "n", clusters, &[])).unwrap();
    received.refused.push(Rejection { kind: Kind::Cluster, name: "b".into(), field: "".into(), why: "bad".into() });
    accept(&mut store, &received);
    let received = session
        .handle_delta(delta_response(Kind::Endpoint, "m", vec![wrapped(Kind::Endpoint, "e", "9")], &[]))
        .unwrap();
    accept(&mut store, &received);
    session.handle_connected();
    let clusters = delta(&mut session, &store).unwrap();
    assert_eq!(
        clusters.initial_resource_versions,
        [("a".to_owned(), "7".to_owned())].into(),
        "a refused version is not held"
    );
    let endpoints = delta(&mut session, &store).unwrap();
    assert_eq!(endpoints.initial_resource_versions, [("e".to_owned(), "9".to_owned())].into());
}

// spec: XD-11
#[test]
fn a_change_of_subscription_never_carries_a_nonce() {
    let (mut session, store) = (session(Flavour::Delta), Store::default());
    session.want(Kind::Endpoint, BTreeSet::from(["a".into()]));
    session.handle_connected();
    delta(&mut session, &store).unwrap();
    let received = session
        .handle_delta(delta_response(Kind::Endpoint, "n1", vec![wrapped(Kind::Endpoint, "a", "1")], &[]))
        .unwrap();
    session.want(Kind::Endpoint, BTreeSet::from(["b".into()]));
    session.handle_verdict(&received.receipt, &[]);
    let ack = delta(&mut session, &store).unwrap();
    assert_eq!((ack.response_nonce.as_str(), ack.resource_names_subscribe.len()), ("n1", 0));
    let change = delta(&mut session, &store).unwrap();
    assert_eq!(change.response_nonce, "");
    assert_eq!(
        (change.resource_names_subscribe, change.resource_names_unsubscribe),
        (vec!["b".into()], vec!["a".into()])
    );
}

#[test]
fn a_verdict_about_an_earlier_stream_is_not_sent() {
    let (mut session, store) = (session(Flavour::Delta), Store::default());
    session.want_all(Kind::Cluster);
    session.handle_connected();
    delta(&mut session, &store).unwrap();
    let received = session.handle_delta(delta_response(Kind::Cluster, "old", Vec::new(), &[])).unwrap();
    session.handle_connected();
    session.handle_verdict(&received.receipt, &[]);
    assert_eq!(delta(&mut session, &store).unwrap().response_nonce, "", "only the first request of the new stream");
    assert_eq!(delta(&mut session, &store), None);
}

// spec: XD-3, XD-5, XD-9, XD-12
#[test]
fn state_of_the_world_keeps_version_and_nonce_and_sees_what_is_left_out() {
    let (mut session, store) = (session(Flavour::Sotw), Store::default());
    session.want_all(Kind::Cluster);
    session.handle_connected();
    let next = |session: &mut Session| match session.poll_request(&store) {
        Some(Request::Sotw(request)) => *request,
        other => panic!("{other:?}"),
    };
    let first = next(&mut session);
    assert_eq!((first.resource_names.len(), first.version_info.as_str(), first.response_nonce.as_str()), (0, "", ""));
    let respond = |version: &str, nonce: &str, names: &[&str]| DiscoveryResponse {
        version_info: version.into(),
        nonce: nonce.into(),
        type_url: Kind::Cluster.type_url().into(),
        resources: names
            .iter()
            .map(|name| {
                let mut value = vec![10, u8::try_from(name.len()).unwrap()];
                value.extend(name.as_bytes());
                Any { type_url: Kind::Cluster.type_url().into(), value }
            })
            .collect(),
        ..DiscoveryResponse::default()
    };
    let received = session.handle_sotw(respond("v1", "n1", &["a", "b"])).unwrap();
    assert_eq!(received.update.added.iter().map(|r| &*r.name).collect::<Vec<_>>(), ["a", "b"]);
    session.handle_verdict(&received.receipt, &[]);
    let ack = next(&mut session);
    assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str()), ("v1", "n1"));
    let received = session.handle_sotw(respond("v2", "n2", &["b"])).unwrap();
    assert_eq!(received.update.removed, ["a".into()]);
    let refused = Rejection { kind: Kind::Cluster, name: "b".into(), field: "".into(), why: "bad".into() };
    session.handle_verdict(&received.receipt, &[refused]);
    let nack = next(&mut session);
    assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("v1", "n2"), "the last accepted version");
    assert!(nack.error_detail.is_some());
}

// spec: XD-5, XD-9
#[test]
fn state_of_the_world_may_send_a_part_of_what_was_asked_for_by_name_and_a_wildcard_stays_one() {
    let (mut session, store) = (session(Flavour::Sotw), Store::default());
    session.want(Kind::Endpoint, ["a", "b"].into_iter().map(Arc::from).collect());
    session.want_all(Kind::Listener);
    session.want(Kind::Listener, BTreeSet::from(["on-demand".into()]));
    session.handle_connected();
    let mut asked = Vec::new();
    while let Some(Request::Sotw(request)) = session.poll_request(&store) {
        asked.push((request.type_url, request.resource_names));
    }
    let of = |kind: Kind, names: &[&str]| {
        (kind.type_url().to_owned(), names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(asked, [of(Kind::Endpoint, &["a", "b"]), of(Kind::Listener, &[])]);
    let respond = |kind: Kind, name: &str| DiscoveryResponse {
        type_url: kind.type_url().into(),
        resources: vec![Any { type_url: kind.type_url().into(), value: [&[10, 1], name.as_bytes()].concat() }],
        ..DiscoveryResponse::default()
    };
    for (kind, gone) in [(Kind::Endpoint, 0), (Kind::Route, 0), (Kind::Listener, 1)] {
        session.want(kind, ["a", "b"].into_iter().map(Arc::from).collect());
        session.handle_sotw(respond(kind, "a")).unwrap();
        let received = session.handle_sotw(respond(kind, "b")).unwrap();
        assert_eq!(received.update.removed.len(), gone, "{kind:?}: left out is gone of clusters and listeners alone");
    }
}
