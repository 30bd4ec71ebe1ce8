use super::*;
use proto::envoy::discovery::{DeltaDiscoveryRequest, Resource as Wrapped};
use proto::envoy::wkt::Any;
use serde_json::json;

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "envoy.config.listener.v3.Listener";

struct Bench {
    client: Client,
    now: Instant,
    nonce: u32,
}

impl Bench {
    fn new() -> Self {
        let options = ClientOptions {
            ads: Some(Flavour::Delta),
            clusters: Some(Origin::Ads),
            listeners: Some(Origin::Ads),
            ..ClientOptions::default()
        };
        let mut client = Client::new(options, Node { id: "n".into(), ..Node::default() });
        assert_eq!(client.poll_source(), Some((Origin::Ads, Kind::Cluster)));
        client.handle_connected(&Origin::Ads);
        Self { client, now: Instant::now(), nonce: 0 }
    }

    /// Requests as `CDS`, `EDS+name`, `EDS-name`, `CDS ack n`, `CDS nack n`.
    fn requests(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(request) = self.client.poll_request(&Origin::Ads) {
            let Request::Delta(request) = request else { panic!("wrong protocol") };
            said.push(describe(&request));
        }
        said
    }

    fn send(&mut self, kind: Kind, resources: &[(&str, Vec<u8>)], removed: &[&str]) {
        self.nonce += 1;
        let wrap = |(name, body): &(&str, Vec<u8>)| Wrapped {
            name: (*name).into(),
            version: self.nonce.to_string(),
            resource: Some(Any { type_url: kind.type_url().into(), value: body.clone() }),
            ..Wrapped::default()
        };
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().into(),
            nonce: self.nonce.to_string(),
            resources: resources.iter().map(wrap).collect(),
            removed_resources: removed.iter().map(|name| (*name).into()).collect(),
            ..DeltaDiscoveryResponse::default()
        };
        self.client.handle_delta(&Origin::Ads, response, self.now);
    }

    /// Takes and settles all batches that are ready; each as `CDS+a EDS+e CDS-b`.
    fn settle(&mut self, refuse: &[(Kind, &str)]) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(batch) = self.client.poll_batch(self.now) {
            seen.push(batch.updates.iter().map(words).collect::<Vec<_>>().join(" "));
            let of_batch = |(kind, name): &&(Kind, &str)| {
                batch.updates.iter().any(|u| u.kind == *kind && u.added.iter().any(|r| &*r.name == *name))
            };
            let refused = refuse.iter().filter(of_batch).map(|(kind, name)| Rejection {
                kind: *kind,
                name: (*name).into(),
                field: "f".into(),
                why: "w".into(),
            });
            let refused = refused.collect();
            self.client.settle(batch, refused, SystemTime::UNIX_EPOCH);
        }
        seen
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

fn describe(request: &DeltaDiscoveryRequest) -> String {
    let kind = proto::type_url::short_name(&request.type_url);
    if !request.response_nonce.is_empty() {
        let word = if request.error_detail.is_some() { "nack" } else { "ack" };
        return format!("{kind} {word} {}", request.response_nonce);
    }
    let plus = request.resource_names_subscribe.iter().map(|name| format!("+{name}"));
    let minus = request.resource_names_unsubscribe.iter().map(|name| format!("-{name}"));
    format!("{kind}{}", plus.chain(minus).collect::<String>())
}

fn words(update: &Update) -> String {
    let mut added: Vec<_> = update.added.iter().map(|resource| format!("+{}", resource.name)).collect();
    added.sort();
    let removed: String = update.removed.iter().map(|name| format!("-{name}")).collect();
    format!("{}{}{removed}", update.kind.short_name(), added.concat())
}

fn eds_cluster(name: &str) -> (&str, Vec<u8>) {
    let json = json!({"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}});
    (name, proto::json::from_value(CLUSTER, &json).unwrap())
}

fn static_cluster(name: &str) -> (&str, Vec<u8>) {
    (name, proto::json::from_value(CLUSTER, &json!({"name": name, "type": "STATIC"})).unwrap())
}

fn listener<'a>(name: &'a str, route: &str) -> (&'a str, Vec<u8>) {
    let json = json!({"name": name, "filter_chains": [{"filters": [{"name": "http", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "rds": {"route_config_name": route, "config_source": {"ads": {}}}}}]}]});
    (name, proto::json::from_value(LISTENER, &json).unwrap())
}

fn named(name: &str) -> (&str, Vec<u8>) {
    (name, [&[10, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat())
}

// spec: XM-1, XM-7, XD-10, HL-2
#[test]
fn the_first_configuration_comes_in_envoys_order() {
    let mut bench = Bench::new();
    assert_eq!(bench.requests(), ["CDS"]);
    bench.send(Kind::Cluster, &[eds_cluster("a"), eds_cluster("b"), static_cluster("c")], &[]);
    assert_eq!(bench.requests(), ["EDS+a+b"], "endpoints are asked for at once, clusters not acknowledged yet");
    assert_eq!(bench.settle(&[]), [""; 0]);
    bench.send(Kind::Endpoint, &[named("a"), named("b")], &[]);
    assert_eq!(bench.settle(&[]), ["EDS+a+b CDS+a+b+c"]);
    assert_eq!(bench.requests(), ["EDS ack 2", "CDS ack 1", "LDS"], "listeners only after clusters are warm");
    assert!(!bench.client.is_ready());
    bench.send(Kind::Listener, &[listener("l", "80")], &[]);
    assert_eq!(bench.requests(), ["RDS+80"]);
    assert_eq!(bench.settle(&[]), [""; 0], "the listener waits for its routes");
    bench.send(Kind::Route, &[named("80")], &[]);
    assert_eq!(bench.settle(&[]), ["RDS+80 LDS+l"]);
    assert_eq!(bench.requests(), ["RDS ack 4", "LDS ack 3"]);
    assert!(bench.client.is_ready());
}

// spec: XD-9, XM-2, LC-2
#[test]
fn a_cluster_without_endpoints_holds_the_acknowledgement_but_not_for_ever() {
    let mut bench = Bench::new();
    bench.requests();
    bench.send(Kind::Cluster, &[eds_cluster("a"), static_cluster("c")], &[]);
    assert_eq!(bench.settle(&[]), [""; 0]);
    assert_eq!(bench.client.deadline(), Some(bench.now + Duration::from_secs(5)));
    bench.wait(Duration::from_millis(4999));
    assert_eq!(bench.settle(&[]), [""; 0]);
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.settle(&[]), ["CDS+a+c"]);
    assert_eq!(bench.requests(), ["CDS ack 1", "EDS+a", "LDS"]);
}

// spec: XM-2
#[test]
fn a_changed_cluster_whose_endpoints_are_known_does_not_wait() {
    let mut bench = Bench::new();
    bench.send(Kind::Cluster, &[eds_cluster("a")], &[]);
    bench.send(Kind::Endpoint, &[named("a")], &[]);
    bench.settle(&[]);
    bench.send(Kind::Cluster, &[eds_cluster("a")], &[]);
    assert_eq!(bench.settle(&[]), ["CDS+a"]);
}

#[test]
fn an_answer_that_there_are_no_endpoints_ends_the_wait() {
    let mut bench = Bench::new();
    bench.send(Kind::Cluster, &[eds_cluster("a")], &[]);
    bench.requests();
    bench.send(Kind::Endpoint, &[], &["a"]);
    assert_eq!(bench.settle(&[]), ["EDS-a CDS+a"]);
}

// spec: XM-3, XD-10
#[test]
fn a_removed_cluster_stays_until_the_routes_after_it_and_its_endpoints_are_unsubscribed() {
    let mut bench = Bench::new();
    bench.send(Kind::Cluster, &[eds_cluster("a"), eds_cluster("b")], &[]);
    bench.requests();
    bench.send(Kind::Endpoint, &[named("a"), named("b")], &[]);
    bench.settle(&[]);
    bench.send(Kind::Listener, &[listener("l", "80")], &[]);
    bench.requests();
    bench.send(Kind::Route, &[named("80")], &[]);
    bench.settle(&[]);
    bench.requests();
    bench.send(Kind::Cluster, &[], &["a"]);
    assert_eq!(bench.settle(&[]), [""], "acknowledged without anything to apply");
    assert_eq!(bench.requests(), ["CDS ack 5"]);
    bench.send(Kind::Route, &[named("80")], &[]);
    assert_eq!(bench.settle(&[]), ["RDS+80 CDS-a"]);
    assert_eq!(bench.requests(), ["RDS ack 6", "EDS-a"]);
    bench.send(Kind::Cluster, &[], &["b"]);
    assert_eq!(bench.settle(&[]), [""]);
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.settle(&[]), ["CDS-b"], "or until the time is up");
}

// spec: XM-4, XD-12
#[test]
fn of_a_response_with_a_bad_resource_the_good_ones_are_applied() {
    let mut bench = Bench::new();
    bench.requests();
    bench.send(Kind::Cluster, &[static_cluster("good"), static_cluster("bad")], &[]);
    assert_eq!(bench.settle(&[(Kind::Cluster, "bad")]), ["CDS+bad+good"]);
    assert_eq!(bench.requests(), ["CDS nack 1", "LDS"]);
    let held: Vec<_> = bench.client.store().of(Kind::Cluster).map(|held| held.resource.name.to_string()).collect();
    assert_eq!(held, ["good"]);
    assert_eq!(bench.client.store().refused().count(), 1);
    assert_eq!(bench.client.store().stats(Kind::Cluster).rejections, 1);
    let rest = json!({"name": "rest", "type": "EDS", "eds_cluster_config": {"eds_config": {"api_config_source": {"api_type": "REST"}}}});
    let rest = ("rest", proto::json::from_value(CLUSTER, &rest).unwrap());
    bench.send(Kind::Cluster, &[rest, static_cluster("other")], &[]);
    assert_eq!(bench.settle(&[]), ["CDS+other"], "what cannot be asked for is refused before anyone sees it");
    assert_eq!(bench.requests(), ["CDS nack 2"]);
}

// spec: XM-6
#[test]
fn a_lost_stream_changes_nothing_and_everything_is_asked_for_again() {
    let mut bench = Bench::new();
    bench.send(Kind::Cluster, &[eds_cluster("a")], &[]);
    bench.send(Kind::Endpoint, &[named("a")], &[]);
    bench.settle(&[]);
    bench.requests();
    bench.client.handle_disconnected(&Origin::Ads);
    assert!(bench.client.store().get(Kind::Cluster, "a").is_some());
    assert_eq!(bench.requests(), [""; 0]);
    bench.client.handle_connected(&Origin::Ads);
    assert_eq!(bench.requests(), ["CDS", "EDS+a", "LDS"]);
    assert!(bench.client.poll_batch(bench.now).is_none());
}

#[test]
fn the_last_good_state_is_ready_before_any_server_and_reported_to_it() {
    let mut bench = Bench::new();
    bench.client.handle_disconnected(&Origin::Ads);
    let resource = |(name, body): (&str, Vec<u8>)| {
        Arc::new(Resource { name: name.into(), version: "7".into(), body: body.into() })
    };
    bench.client.handle_bootstrap(vec![(Kind::Cluster, resource(static_cluster("xds-grpc")))]);
    bench
        .client
        .handle_restored(vec![(Kind::Cluster, resource(eds_cluster("a"))), (Kind::Endpoint, resource(named("a")))]);
    assert_eq!(bench.settle(&[]), ["CDS+xds-grpc", "EDS+a CDS+a"]);
    assert!(bench.client.is_ready() && bench.client.store().stale);
    bench.client.handle_connected(&Origin::Ads);
    let Some(Request::Delta(first)) = bench.client.poll_request(&Origin::Ads) else { panic!("no request") };
    assert_eq!(first.initial_resource_versions, [("a".to_owned(), "7".to_owned())].into());
    assert_eq!(bench.requests(), ["EDS+a", "LDS"]);
    bench.send(Kind::Cluster, &[static_cluster("xds-grpc")], &["xds-grpc"]);
    assert_eq!(bench.settle(&[]), [""], "what the bootstrap says is not changed from outside");
    assert_eq!(bench.requests(), ["CDS nack 1"]);
}

#[test]
fn on_demand_clusters_are_asked_for_beside_the_others() {
    let mut bench = Bench::new();
    bench.requests();
    bench.client.handle_demand(Kind::Cluster, "x".into());
    assert_eq!(bench.requests(), ["CDS+*+x"]);
}

// spec: XI-4
#[test]
fn secrets_come_from_the_socket_that_the_cluster_names_unless_this_process_makes_them() {
    let sds = |name: &str, cluster: &str| {
        json!({"name": name, "sds_config": {"api_config_source": {"api_type": "GRPC",
            "grpc_services": [{"envoy_grpc": {"cluster_name": cluster}}]}}})
    };
    let json = json!({"name": "c", "type": "STATIC", "transport_socket": {"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {"tls_certificate_sds_secret_configs": [sds("default", "own"), sds("kubernetes://x", "sds-grpc")]}}}});
    let body = proto::json::from_value(CLUSTER, &json).unwrap();
    let mut bench = Bench::new();
    bench.client.sources.own_secret_services = BTreeSet::from(["own".into()]);
    bench.send(Kind::Cluster, &[("c", body)], &[]);
    let origin = Origin::Sds("sds-grpc".into());
    assert_eq!(bench.client.poll_source(), Some((origin.clone(), Kind::Secret)));
    assert_eq!(bench.client.poll_source(), None);
    assert_eq!(bench.client.flavour(&origin), Flavour::Sotw);
    bench.client.handle_connected(&origin);
    let Some(Request::Sotw(request)) = bench.client.poll_request(&origin) else { panic!("no request") };
    assert_eq!(request.resource_names, ["kubernetes://x"]);
    let (name, body) = named("kubernetes://x");
    let any = Any { type_url: Kind::Secret.type_url().into(), value: body };
    let response = DiscoveryResponse {
        type_url: Kind::Secret.type_url().into(),
        nonce: "s".into(),
        resources: vec![any],
        ..Default::default()
    };
    bench.client.handle_sotw(&origin, response, bench.now);
    assert_eq!(bench.settle(&[]), [format!("SDS+{name}")]);
    let own = Arc::new(Resource { name: "default".into(), version: "1".into(), body: named("default").1.into() });
    bench.client.handle_local(Kind::Secret, own, bench.now);
    assert_eq!(bench.settle(&[]), ["SDS+default CDS+c"]);
}

#[test]
fn responses_that_wait_together_are_joined_with_the_later_one_on_top() {
    let mut bench = Bench::new();
    bench.send(Kind::Cluster, &[static_cluster("a"), static_cluster("b"), eds_cluster("e")], &[]);
    bench.send(Kind::Cluster, &[static_cluster("b"), static_cluster("c")], &["a"]);
    bench.send(Kind::Cluster, &[static_cluster("a")], &["c"]);
    bench.requests();
    bench.send(Kind::Endpoint, &[named("e")], &[]);
    assert_eq!(bench.settle(&[]), ["EDS+e CDS+a+b+e"]);
    let version = |name: &str| bench.client.store().get(Kind::Cluster, name).unwrap().resource.version.to_string();
    assert_eq!((version("a"), version("b"), version("e")), ("3".into(), "2".into(), "1".into()));
    assert_eq!(bench.requests(), ["EDS ack 4", "CDS ack 1", "CDS ack 2", "CDS ack 3", "LDS"]);
}

// spec: XD-8
#[test]
fn a_heartbeat_changes_nothing_and_is_acknowledged() {
    let mut bench = Bench::new();
    bench.requests();
    bench.send(Kind::Cluster, &[static_cluster("a")], &[]);
    bench.settle(&[]);
    bench.requests();
    let beat = Wrapped { name: "a".into(), version: "1".into(), ..Wrapped::default() };
    let response = DeltaDiscoveryResponse {
        type_url: Kind::Cluster.type_url().into(),
        nonce: "beat".into(),
        resources: vec![beat],
        ..DeltaDiscoveryResponse::default()
    };
    bench.client.handle_delta(&Origin::Ads, response, bench.now);
    assert_eq!(bench.settle(&[]), [""]);
    assert_eq!(bench.requests(), ["CDS ack beat"]);
    assert!(bench.client.store().get(Kind::Cluster, "a").is_some());
}

// spec: XD-2
#[test]
fn the_aggregated_stream_speaks_what_it_is_told_and_delta_where_nothing_is_said() {
    let speaks = |ads| {
        let options = ClientOptions { ads, ..ClientOptions::default() };
        Client::new(options, Node { id: "n".into(), ..Node::default() }).flavour(&Origin::Ads)
    };
    assert_eq!(speaks(Some(Flavour::Sotw)), Flavour::Sotw);
    assert_eq!((speaks(Some(Flavour::Delta)), speaks(None)), (Flavour::Delta, Flavour::Delta));
}

// spec: XD-9
#[test]
fn state_of_the_world_removes_what_was_restored_and_is_not_listed_any_more() {
    let options = ClientOptions { ads: Some(Flavour::Sotw), clusters: Some(Origin::Ads), ..ClientOptions::default() };
    let client = Client::new(options, Node { id: "n".into(), ..Node::default() });
    let mut bench = Bench { client, now: Instant::now(), nonce: 0 };
    let resource = |name: &str| {
        let (name, body) = static_cluster(name);
        (Kind::Cluster, Arc::new(Resource { name: name.into(), version: "0".into(), body: body.into() }))
    };
    bench.client.handle_restored(vec![resource("kept"), resource("gone")]);
    assert_eq!(bench.settle(&[]), ["CDS+gone+kept"]);
    bench.client.handle_connected(&Origin::Ads);
    assert!(matches!(bench.client.poll_request(&Origin::Ads), Some(Request::Sotw(_))));
    let any = Any { type_url: Kind::Cluster.type_url().into(), value: static_cluster("kept").1 };
    let response = DiscoveryResponse {
        type_url: any.type_url.clone(),
        nonce: "n".into(),
        resources: vec![any],
        ..Default::default()
    };
    bench.client.handle_sotw(&Origin::Ads, response, bench.now);
    assert_eq!(bench.settle(&[]), ["CDS+kept"]);
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.settle(&[]), ["CDS-gone"]);
}

// spec: XM-1, XD-10
#[test]
fn routes_and_listeners_wait_while_new_clusters_warm() {
    let mut bench = Bench::new();
    bench.send(Kind::Cluster, &[static_cluster("a")], &[]);
    bench.settle(&[]);
    bench.requests();
    bench.send(Kind::Listener, &[listener("l", "80")], &[]);
    bench.requests();
    bench.send(Kind::Route, &[named("80")], &[]);
    assert_eq!(bench.settle(&[]), ["RDS+80 LDS+l"]);
    bench.send(Kind::Cluster, &[eds_cluster("new")], &[]);
    bench.send(Kind::Route, &[named("80")], &[]);
    bench.send(Kind::Listener, &[listener("m", "80")], &[]);
    assert_eq!(bench.settle(&[]), [""; 0], "a route must not reach the workers before the cluster that it names");
    bench.send(Kind::Endpoint, &[named("new")], &[]);
    assert_eq!(bench.settle(&[]), ["EDS+new CDS+new RDS+80 LDS+m"]);
}

fn secure_listener<'a>(name: &'a str, secrets: &[&str]) -> (&'a str, Vec<u8>) {
    let chain = |secret: &&str| {
        json!({"transport_socket": {"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": secret, "sds_config": {"ads": {}}}]}}}})
    };
    let json = json!({"name": name, "filter_chains": secrets.iter().map(chain).collect::<Vec<_>>()});
    (name, proto::json::from_value(LISTENER, &json).unwrap())
}

// spec: GW-12, XI-4
#[test]
fn a_listener_waits_for_its_secrets_until_they_come_or_are_said_to_be_missing() {
    let mut bench = Bench::new();
    bench.requests();
    bench.send(Kind::Cluster, &[static_cluster("c")], &[]);
    bench.settle(&[]);
    bench.requests();
    bench.send(Kind::Listener, &[secure_listener("l", &["a", "b"])], &[]);
    assert_eq!(bench.settle(&[]), Vec::<String>::new(), "it waits");
    assert_eq!(bench.requests(), ["SDS+a+b"]);
    bench.send(Kind::Secret, &[("a", Vec::new())], &["b"]);
    assert_eq!(bench.settle(&[]), ["SDS+a LDS+l"], "the one that is there serves");
    bench.send(Kind::Secret, &[("a", Vec::new())], &[]);
    assert_eq!(bench.settle(&[]), ["SDS+a"], "another version touches nothing else");
    bench.send(Kind::Secret, &[("b", Vec::new())], &["a"]);
    assert_eq!(bench.settle(&[]), ["SDS+b"]);
    assert!(bench.client.store().get(Kind::Secret, "a").is_some(), "what is in use stays in use");
    bench.requests();
    bench.send(Kind::Listener, &[secure_listener("l", &["b"])], &[]);
    assert_eq!(bench.settle(&[]), ["LDS+l", "SDS-a"], "what nothing names is forgotten");
    assert!(bench.requests().contains(&"SDS-a".to_owned()));
}
