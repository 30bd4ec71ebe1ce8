use super::*;
use crate::workload::Workload;
use proto::envoy::core::{Metadata, SocketAddress};
use proto::envoy::log_entry::TlsProperties;
use proto::envoy::log_entry::tls_properties::certificate_properties::SubjectAltName;

fn text(value: &str) -> wkt::Value {
    wkt::Value { kind: Some(wkt::value::Kind::StringValue(value.to_owned())) }
}

fn fields(pairs: &[(&str, wkt::Value)]) -> wkt::Struct {
    wkt::Struct { fields: pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect() }
}

fn node() -> Node {
    let labels = fields(&[("app", text("reviews")), ("version", text("v2"))]);
    let labels = wkt::Value { kind: Some(wkt::value::Kind::StructValue(labels)) };
    let metadata = fields(&[
        ("NAME", text("reviews-v2-0")),
        ("NAMESPACE", text("shop")),
        ("WORKLOAD_NAME", text("reviews-v2")),
        ("CLUSTER_ID", text("east")),
        ("OWNER", text("kubernetes://apis/apps/v1/namespaces/shop/deployments/reviews-v2")),
        ("LABELS", labels),
    ]);
    Node {
        id: "sidecar~10.0.0.2~reviews-v2-0.shop~shop.svc.cluster.local".into(),
        metadata: Some(metadata),
        ..Node::default()
    }
}

fn address(host: &str, port: u32) -> Option<Address> {
    let port_specifier = Some(socket_address::PortSpecifier::PortValue(port));
    let socket = SocketAddress { address: host.into(), port_specifier, ..SocketAddress::default() };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

fn certificate(uri: &str) -> Option<CertificateProperties> {
    let name = SubjectAltName { san: Some(San::Uri(uri.to_owned())) };
    Some(CertificateProperties { subject_alt_name: vec![name], ..CertificateProperties::default() })
}

fn table() -> Table {
    Table::new(vec![Workload {
        name: "productpage-0".into(),
        namespace: "shop".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        labels: [("app".to_owned(), "productpage".to_owned())].into(),
        workload: "productpage-v1".into(),
        cluster: "east".into(),
        ..Workload::default()
    }])
}

fn inbound() -> HttpAccessLogEntry {
    let seconds = |seconds, nanos| Some(wkt::Duration { seconds, nanos });
    let common = AccessLogCommon {
        upstream_cluster: "inbound|9080||".into(),
        downstream_remote_address: address("10.0.0.1", 40000),
        downstream_local_address: address("10.0.0.2", 9080),
        upstream_remote_address: address("10.0.0.2", 9080),
        start_time: Some(wkt::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
        duration: seconds(1, 500_000_000),
        stream_id: "7".into(),
        route_name: "default".into(),
        upstream_request_attempt_count: 2,
        tls_properties: Some(TlsProperties {
            tls_sni_hostname: "outbound_.9080_._.reviews.shop.svc.cluster.local".into(),
            local_certificate_properties: certificate("spiffe://cluster.local/ns/shop/sa/reviews"),
            peer_certificate_properties: certificate("spiffe://cluster.local/ns/shop/sa/productpage"),
            ..TlsProperties::default()
        }),
        response_flags: Some(ResponseFlags {
            upstream_connection_failure: true,
            upstream_retry_limit_exceeded: true,
            ..ResponseFlags::default()
        }),
        custom_tags: [
            ("ferromesh.side", "server"),
            ("ferromesh.why", "the application refused the connection"),
            ("ferromesh.limit", "retries 2"),
            ("ferromesh.object", "VirtualService/shop/reviews"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        ..AccessLogCommon::default()
    };
    let request = HttpRequestProperties {
        request_method: RequestMethod::Get as i32,
        scheme: "http".into(),
        authority: "reviews:9080".into(),
        path: "/rewritten".into(),
        original_path: "/reviews/1".into(),
        user_agent: "curl".into(),
        referer: "there".into(),
        request_id: "id-1".into(),
        request_headers_bytes: 100,
        request_body_bytes: 20,
        request_headers: [("end-user".to_owned(), "jason".to_owned())].into(),
        ..HttpRequestProperties::default()
    };
    let response = HttpResponseProperties {
        response_code: Some(wkt::UInt32Value { value: 503 }),
        response_body_bytes: 30,
        response_headers_bytes: 70,
        response_trailers: [("grpc-status".to_owned(), "14".to_owned())].into(),
        response_code_details: "upstream_reset_before_response_started".into(),
        ..HttpResponseProperties::default()
    };
    HttpAccessLogEntry {
        common_properties: Some(common),
        protocol_version: HttpVersion::Http11 as i32,
        request: Some(request),
        response: Some(response),
    }
}

// spec: MX-95, MX-106, MX-107
#[test]
fn an_inbound_request_is_joined_without_a_call() {
    let entry = Origin::new(&node()).http(inbound(), &table());
    assert_eq!((entry.reporter, entry.kind), (Reporter::Destination, Kind::Http));
    let d = &entry.destination;
    assert_eq!(
        (&*d.name, &*d.workload, &*d.app, &*d.version, &*d.cluster),
        ("reviews-v2-0", "reviews-v2", "reviews", "v2", "east")
    );
    assert_eq!((d.port, &*d.principal), (9080, "spiffe://cluster.local/ns/shop/sa/reviews"));
    assert!(d.owner.ends_with("deployments/reviews-v2"));
    let s = &entry.source;
    assert_eq!(
        (&*s.name, &*s.workload, &*s.app, &*s.version),
        ("productpage-0", "productpage-v1", "productpage", "latest")
    );
    assert_eq!((s.address, &*s.principal), ("10.0.0.1".parse().ok(), "spiffe://cluster.local/ns/shop/sa/productpage"));
    assert!(entry.mutual_tls);
    assert_eq!(
        (&*entry.method, &*entry.path, &*entry.authority, entry.protocol),
        ("GET", "/reviews/1", "reviews:9080", "HTTP/1.1")
    );
    assert_eq!((entry.request_bytes, entry.response_bytes), ((20, 120), (30, 100)));
    assert_eq!((entry.code, &*entry.flags, &*entry.grpc_status), (503, "UF,URX", "14"));
    assert_eq!((&*entry.service, entry.attempts, &*entry.route), ("reviews", 2, "default"));
    assert_eq!(entry.duration, Duration::from_millis(1500));
    assert_eq!(entry.request_headers["end-user"], "jason");
    assert_eq!((&*entry.reason.side, &*entry.reason.object), ("server", "VirtualService/shop/reviews"));
    assert_eq!(entry.sentence(), "the application refused the connection");
    assert!(entry.failed());
}

// spec: MX-106
#[test]
fn the_peer_of_an_outbound_request_comes_from_filter_state_or_its_identity() {
    let mut logged = inbound();
    let common = logged.common_properties.as_mut().unwrap();
    common.upstream_cluster = "outbound|9080|v1|ratings.shop.svc.cluster.local".into();
    common.upstream_remote_address = address("10.9.9.9", 9080);
    let peer = fields(&[("WORKLOAD_NAME", text("ratings-v1")), ("NAMESPACE", text("shop"))]);
    let packed =
        wkt::Any { type_url: "type.googleapis.com/google.protobuf.Struct".into(), value: peer.encode_to_vec() };
    common.filter_state_objects.insert("upstream_peer".into(), packed);
    let entry = Origin::new(&node()).http(logged.clone(), &Table::default());
    assert_eq!((entry.reporter, &*entry.source.app), (Reporter::Source, "reviews"));
    assert_eq!((&*entry.destination.workload, &*entry.service), ("ratings-v1", "ratings.shop.svc.cluster.local"));

    let baggage =
        wkt::StringValue { value: "k8s.deployment.name=other,k8s.namespace.name=ns,service.version=v3".into() };
    let packed =
        wkt::Any { type_url: "type.googleapis.com/google.protobuf.StringValue".into(), value: baggage.encode_to_vec() };
    logged.common_properties.as_mut().unwrap().filter_state_objects.insert("upstream_peer".into(), packed);
    let entry = Origin::new(&node()).http(logged, &Table::default());
    assert_eq!((&*entry.destination.workload, &*entry.destination.version), ("other", "v3"));

    // Nobody knows the address: the certificate still says namespace and account.
    let entry = Origin::new(&node()).http(inbound(), &Table::default());
    assert_eq!((&*entry.source.namespace, &*entry.source.app), ("shop", "productpage"));
}

// spec: MX-107
#[test]
fn connections_have_bytes_and_an_event() {
    let mut common = inbound().common_properties.unwrap();
    let bytes = proto::envoy::log_entry::ConnectionProperties { received_bytes: 5, sent_bytes: 6 };
    for (kind, event) in [
        (AccessLogType::TcpConnectionStart, "open"),
        (AccessLogType::TcpPeriodic, "continue"),
        (AccessLogType::TcpConnectionEnd, "close"),
    ] {
        common.access_log_type = kind as i32;
        let logged = TcpAccessLogEntry { common_properties: Some(common.clone()), connection_properties: Some(bytes) };
        let entry = Origin::new(&node()).tcp(logged, &table());
        assert_eq!((entry.kind.event(), entry.request_bytes.0, entry.response_bytes.0), (Some(event), 5, 6));
    }
}

#[test]
fn hostile_messages_are_cut_and_harm_nothing() {
    let long = "x".repeat(100_000);
    let mut logged = inbound();
    let common = logged.common_properties.as_mut().unwrap();
    common.route_name.clone_from(&long);
    common.start_time = Some(wkt::Timestamp { seconds: i64::MAX, nanos: i32::MAX });
    common.duration = Some(wkt::Duration { seconds: i64::MIN, nanos: i32::MIN });
    common.downstream_remote_address = address(&long, u32::MAX);
    common.metadata = Some(Metadata::default());
    for n in 0..1000 {
        logged.request.as_mut().unwrap().request_headers.insert(format!("h{n}"), long.clone());
    }
    logged.request.as_mut().unwrap().request_body_bytes = u64::MAX;
    let entry = Origin::new(&Node::default()).http(logged, &table());
    assert_eq!((entry.route.len(), entry.request_headers.len()), (MAX_TEXT_BYTES, MAX_HEADERS));
}

// spec: MX-106
#[test]
fn behind_a_gateway_the_peer_is_who_has_opened_the_connection_not_whom_a_header_names() {
    let mut logged = inbound();
    let common = logged.common_properties.as_mut().unwrap();
    common.downstream_remote_address = address("192.0.2.7", 0);
    common.downstream_direct_remote_address = address("10.0.0.1", 40000);
    let entry = Origin::new(&node()).http(logged, &table());
    assert_eq!((&*entry.source.name, &*entry.source.workload), ("productpage-0", "productpage-v1"));
    assert_eq!(entry.addresses[3], "192.0.2.7:0", "the client is still whom the header names");
}
