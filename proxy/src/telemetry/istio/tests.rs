use super::super::scrape::{Registry, Selection};
use super::*;
use std::collections::BTreeMap;

fn workload(app: &str, identity: Option<&str>) -> Rc<Workload> {
    let metadata = BTreeMap::from([
        ("WORKLOAD_NAME", format!("{app}-v1")),
        ("NAMESPACE", "from-metadata".to_owned()),
        ("CLUSTER_ID", "Kubernetes".to_owned()),
        ("LABELS.app", app.to_owned()),
        ("LABELS.version", "v1".to_owned()),
        ("LABELS.service.istio.io/canonical-name", app.to_owned()),
    ]);
    Rc::new(Workload::new(|path| metadata.get(path.join(".").as_str()).map(String::as_str), identity))
}

fn ends(reporter: Reporter, proven: bool) -> Ends {
    let metadata = Some(("reviews.default.svc.cluster.local", "reviews", "default"));
    Ends {
        reporter,
        source: workload("productpage", Some("spiffe://cluster.local/ns/default/sa/bookinfo-productpage")),
        destination: workload("reviews", None),
        service: Rc::new(Service::of_cluster("outbound|9080||reviews.default.svc.cluster.local", metadata, None)),
        security: Security::of(reporter, proven),
    }
}

fn report(code: u16) -> RequestReport {
    RequestReport {
        code,
        flags: Flags::NONE,
        grpc_status: None,
        is_grpc: false,
        duration: Duration::from_millis(12),
        request_bytes: 100,
        response_bytes: 2000,
    }
}

fn line<'a>(text: &'a str, name: &str, label: &str) -> &'a str {
    text.lines()
        .find(|line| line.starts_with(&format!("{name}{{")) && line.contains(label))
        .unwrap_or_else(|| panic!("{name} {label}: {text}"))
}

// spec: TM-1, TM-2, TM-3, LBL-1, LBL-2, LBL-3, LBL-5, LBL-6
#[test]
fn a_request_is_counted_with_all_labels() {
    let mut registry = Registry::new();
    let metrics = IstioMetrics::new(Rc::new(registry.registrar(100)));
    let server = ends(Reporter::Destination, true);
    metrics.report(&server, &report(200), None);
    metrics.report(&server, &report(200), None);
    metrics.report(&server, &RequestReport { flags: Flags::UH, ..report(503) }, None);
    metrics.report(&ends(Reporter::Source, true), &report(200), None);
    let text = registry.collect().prometheus(&Selection::default());
    let expected = "istio_requests_total{reporter=\"destination\",source_workload=\"productpage-v1\",\
        source_workload_namespace=\"default\",source_principal=\"spiffe://cluster.local/ns/default/sa/bookinfo-productpage\",\
        source_app=\"productpage\",source_version=\"v1\",source_canonical_service=\"productpage\",source_canonical_revision=\"latest\",\
        source_cluster=\"Kubernetes\",destination_workload=\"reviews-v1\",destination_workload_namespace=\"from-metadata\",\
        destination_principal=\"unknown\",destination_app=\"reviews\",destination_version=\"v1\",\
        destination_service=\"reviews.default.svc.cluster.local\",destination_service_name=\"reviews\",\
        destination_service_namespace=\"default\",destination_canonical_service=\"reviews\",destination_canonical_revision=\"latest\",\
        destination_cluster=\"Kubernetes\",request_protocol=\"http\",response_flags=\"-\",\
        connection_security_policy=\"mutual_tls\",response_code=\"200\",grpc_response_status=\"\"} 2";
    assert_eq!(line(&text, "istio_requests_total", "destination\",source_workload"), expected);
    assert!(line(&text, "istio_requests_total", "response_code=\"503\"").contains("response_flags=\"UH\""));
    let client = line(&text, "istio_requests_total", "reporter=\"source\"");
    assert!(client.contains("connection_security_policy=\"unknown\"") && client.ends_with(" 1"), "{client}");
    assert!(line(&text, "istio_request_duration_milliseconds_sum", "response_code=\"200\"").ends_with(" 24"));
    assert!(line(&text, "istio_request_bytes_sum", "response_code=\"200\"").ends_with(" 200"));
    assert!(line(&text, "istio_response_bytes_count", "response_code=\"200\"").ends_with(" 2"));
    assert!(!text.contains("istio_request_messages_total"));
}

// spec: TM-4, LBL-5
#[test]
fn grpc_has_its_status_and_its_messages() {
    let mut registry = Registry::new();
    let metrics = IstioMetrics::new(Rc::new(registry.registrar(100)));
    let grpc = RequestReport { is_grpc: true, grpc_status: Some(14), ..report(200) };
    let both = ends(Reporter::Destination, false);
    metrics.report(&both, &grpc, None);
    metrics.messages(&both, (1, 5), None);
    metrics.messages(&both, (2, 0), None);
    let text = registry.collect().prometheus(&Selection::default());
    let total = line(&text, "istio_requests_total", "grpc_response_status=\"14\"");
    assert!(
        total.contains("request_protocol=\"grpc\"") && total.contains("connection_security_policy=\"none\""),
        "{total}"
    );
    let messages = line(&text, "istio_request_messages_total", "destination_service_name=\"reviews\"");
    assert!(messages.ends_with(" 3"), "{messages}");
    for label in ["request_protocol", "response_code", "grpc_response_status", "response_flags", "connection_security"]
    {
        assert!(!messages.contains(label), "how a stream ends is not known while it is open: {messages}");
    }
    assert!(line(&text, "istio_response_messages_total", "").ends_with(" 5"));
}

// spec: TM-5, TM-6
#[test]
fn connections_are_counted_with_what_they_move() {
    let mut registry = Registry::new();
    let metrics = IstioMetrics::new(Rc::new(registry.registrar(100)));
    let series = metrics.open_tcp(&ends(Reporter::Source, false), Flags::NONE, None);
    series.moved(10, 20);
    series.moved(1, 2);
    series.close();
    metrics.open_tcp(&ends(Reporter::Source, false), Flags::UF, None);
    let text = registry.collect().prometheus(&Selection::default());
    let plain = "response_flags=\"-\"";
    assert!(line(&text, "istio_tcp_received_bytes_total", plain).ends_with(" 11"));
    assert!(line(&text, "istio_tcp_sent_bytes_total", plain).ends_with(" 22"));
    assert!(line(&text, "istio_tcp_connections_opened_total", plain).ends_with(" 1"));
    assert!(line(&text, "istio_tcp_connections_closed_total", plain).ends_with(" 1"));
    assert!(line(&text, "istio_tcp_connections_closed_total", "UF").ends_with(" 0"));
    assert!(line(&text, "istio_tcp_connections_opened_total", plain).contains("request_protocol=\"tcp\""));
    assert!(!text.contains("response_code"));
}

// spec: LBL-3, LBL-4
#[test]
fn catch_all_clusters_are_their_own_name() {
    let name = |cluster: &str, host: Option<&str>| {
        let service = Service::of_cluster(cluster, None, host);
        format!("{} {} {}", service.host, service.name, service.namespace)
    };
    assert_eq!(name("PassthroughCluster", Some("Example.com")), "example.com PassthroughCluster unknown");
    assert_eq!(name("BlackHoleCluster", None), "unknown BlackHoleCluster unknown");
    assert_eq!(name("InboundPassthroughCluster", None), "unknown InboundPassthroughCluster unknown");
    assert_eq!(name("outbound|80||a.b", Some("a.b")), "a.b a unknown");
    assert_eq!(name("outbound|80||a.b", None), "unknown unknown unknown");
}

// bar: S8
#[test]
fn past_the_limit_series_share_the_overflow() {
    let mut registry = Registry::new();
    let metrics = IstioMetrics::new(Rc::new(registry.registrar(2)));
    let ends = ends(Reporter::Destination, true);
    for code in 200..210 {
        metrics.report(&ends, &report(code), None);
    }
    for flags in [Flags::UF, Flags::UH] {
        metrics.open_tcp(&ends, flags, None);
    }
    let text = registry.collect().prometheus(&Selection::default());
    assert!(line(&text, "istio_requests_total", "source_workload=\"overflow\"").ends_with(" 8"));
    assert!(line(&text, "istio_tcp_connections_opened_total", "source_workload=\"overflow\"").ends_with(" 2"));
    assert_eq!(text.lines().filter(|line| line.starts_with("istio_requests_total{")).count(), 3);
}

#[test]
fn equal_workloads_of_two_connections_share_their_series() {
    let mut registry = Registry::new();
    let metrics = IstioMetrics::new(Rc::new(registry.registrar(10)));
    for _ in 0..2 {
        let mut ends = ends(Reporter::Destination, true);
        ends.source = metrics.intern_workload((*ends.source).clone());
        ends.destination = metrics.intern_workload((*ends.destination).clone());
        ends.service = metrics.intern_service((*ends.service).clone());
        metrics.report(&ends, &report(200), None);
    }
    assert_eq!(metrics.http.borrow().len(), 1);
    let text = registry.collect().prometheus(&Selection::default());
    assert!(line(&text, "istio_requests_total", "").ends_with(" 2"));
}

#[test]
fn words_and_metadata_are_read_once() {
    let metrics = IstioMetrics::new(Rc::new(Registry::new().registrar(10)));
    let reads = std::cell::Cell::new(0);
    let ask = |words: &[u8], identity: Option<&str>| {
        metrics.workload_of(words, identity, || {
            reads.set(reads.get() + 1);
            (words != b"bad").then(|| Workload { name: "w".into(), ..Workload::new(|_| None, identity) })
        })
    };
    let (one, two) =
        (ask(b"x", Some("spiffe://a/ns/b/sa/c")).unwrap(), ask(b"x", Some("spiffe://a/ns/b/sa/c")).unwrap());
    assert!(Rc::ptr_eq(&one, &two) && &*one.namespace == "b");
    assert_eq!(reads.get(), 1);
    assert_eq!(&*ask(b"x", None).unwrap().principal, "unknown", "another identity is another workload");
    assert_eq!((ask(b"bad", None), ask(b"bad", None), reads.get()), (None, None, 3));
    for number in 0..2 * MAX_WORDS {
        ask(format!("stranger {number}").as_bytes(), None);
    }
    ask(&vec![b'x'; MAX_WORDS_BYTES + 1], None);
    let known = metrics.by_words.borrow();
    assert!(known.len() <= MAX_WORDS && known.keys().all(|words| words.len() <= MAX_WORDS_BYTES));
    let names: Arc<ServiceNames> = Arc::new(["h".into(), "n".into(), "ns".into()]);
    let service = metrics.service_of(&names);
    assert!(Rc::ptr_eq(&service, &metrics.service_of(&names)));
    let again: Arc<ServiceNames> = Arc::new((*names).clone());
    assert!(Rc::ptr_eq(&service, &metrics.service_of(&again)), "equal names are one service");
}
