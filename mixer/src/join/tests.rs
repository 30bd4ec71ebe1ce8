use super::*;

/// Two workloads of a shop.
pub(crate) fn shop() -> Table {
    let text = r#"[
        {"name":"reviews-v3-0","namespace":"default","addresses":["10.0.0.3"],"serviceAccount":"bookinfo-reviews",
         "labels":{"app":"reviews","version":"v3"},"workload":"reviews-v3","services":["reviews.default.svc.cluster.local"]},
        {"name":"ratings-0","namespace":"default","addresses":["10.0.0.4"],"serviceAccount":"",
         "labels":{"app":"ratings"},"workload":"ratings",
         "services":["other.default.svc.cluster.local","ratings.default.svc.cluster.local"]}]"#;
    Table::new(serde_json::from_str(text).unwrap())
}

fn call() -> Call {
    Call {
        source: Some("10.0.0.3".parse().unwrap()),
        destination: Some("10.0.0.4:9080".parse().unwrap()),
        http: true,
        host: "ratings:9080".to_owned(),
        path: "/ratings/0?user=jo%20e&user=2&x".to_owned(),
        ..Call::default()
    }
}

fn text(facts: &Facts, name: &str) -> Option<String> {
    let vocabulary = Vocabulary::built_in();
    let (id, _) = vocabulary.get(name).unwrap();
    facts.bag(&vocabulary).get(id).map(ToString::to_string)
}

// spec: MX-106, MX-43
#[test]
fn both_ends_are_joined_by_their_addresses() {
    let facts = Facts::join(call(), &shop());
    for (name, expected) in [
        ("source.labels", "app=reviews,version=v3"),
        ("source.namespace", "default"),
        ("source.uid", "kubernetes://reviews-v3-0.default"),
        ("source.workload.name", "reviews-v3"),
        ("destination.labels", "app=ratings"),
        ("destination.serviceAccount", "default"),
        ("destination.service.host", "ratings.default.svc.cluster.local"),
        ("destination.service.name", "ratings"),
        ("destination.service.namespace", "default"),
        ("destination.port", "9080"),
        ("request.url_path", "/ratings/0"),
        ("request.query_params", "user=jo e,x="),
        ("context.reporter.kind", "inbound"),
        ("connection.mtls", "false"),
    ] {
        assert_eq!(text(&facts, name).as_deref(), Some(expected), "{name}");
    }
    assert_eq!(text(&facts, "source.principal"), None, "nothing is proven");
}

#[test]
fn an_identity_that_is_not_the_addresss_counts_alone() {
    let principal =
        |account: &str| Call { source_principal: format!("spiffe://cluster.local/ns/default/sa/{account}"), ..call() };
    let same = Facts::join(principal("bookinfo-reviews"), &shop());
    assert_eq!(text(&same, "source.labels").as_deref(), Some("app=reviews,version=v3"));
    assert_eq!(text(&same, "source.user").as_deref(), Some("cluster.local/ns/default/sa/bookinfo-reviews"));
    let other = Facts::join(principal("gateway"), &shop());
    assert_eq!(text(&other, "source.labels"), None, "the address is a hop's");
    assert_eq!(text(&other, "source.serviceAccount").as_deref(), Some("gateway"));
}

#[test]
fn a_service_without_a_workload_is_what_the_host_says() {
    let host = |host: &str| Facts::join(Call { destination: None, host: host.to_owned(), ..call() }, &shop());
    let named = |facts: &Facts| (text(facts, "destination.service.name"), text(facts, "destination.service.namespace"));
    assert_eq!(named(&host("a.b.svc.cluster.local:80")), (Some("a".into()), Some("b".into())));
    assert_eq!(named(&host("productpage")), (Some("productpage".into()), None));
    assert_eq!(named(&host("www.example.com")), (Some("www.example.com".into()), None));
    let context = HashMap::from([(SERVICE_HOST.to_owned(), "c.d.svc.cluster.local".to_owned())]);
    assert_eq!(named(&Facts::join(Call { context, ..call() }, &shop())), (Some("c".into()), Some("d".into())));
}
