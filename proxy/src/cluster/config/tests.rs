use super::*;
use crate::endpoint::{Address, Endpoint, Limit};
use prost::Message;
use serde_json::{Value, json};

fn try_cluster(more: Value) -> Result<Parsed, Refusal> {
    let mut json = json!({"name": "c"});
    json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let bytes = proto::json::from_value("envoy.config.cluster.v3.Cluster", &json).unwrap();
    parse(&Cluster::decode(bytes.as_slice()).unwrap())
}

fn cluster(more: Value) -> ClusterConfig {
    try_cluster(more).unwrap().config
}

fn http(options: Value) -> Value {
    let mut options = options;
    options["@type"] = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into();
    json!({"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}})
}

fn maxima(config: &ClusterConfig) -> [[u32; 4]; 2] {
    let all = [Limit::Connections, Limit::Pending, Limit::Requests, Limit::Retries];
    [0, 1].map(|priority| all.map(|limit| config.limits[priority].maximum(limit)))
}

// spec: LB-7, LB-12, DR-21, DR-22, DR-25, DR-26, DR-27, DR-28
#[test]
fn what_is_not_said_is_as_in_envoy() {
    let plain = cluster(json!({}));
    assert_eq!(maxima(&plain), [[1024, 1024, 1024, 3]; 2]);
    assert_eq!((plain.panic_percent, plain.policy), (50, Policy::RoundRobin));
    assert_eq!((plain.connect_timeout, plain.idle_timeout), (Duration::from_secs(5), Duration::from_secs(3600)));
    assert_eq!((plain.max_requests_per_connection, plain.protocol), (0, Protocol::H1));
    assert!(plain.outlier.is_none() && plain.keepalive.is_none() && plain.source.is_empty() && !plain.external);
    assert!(plain.transports.iter().all(|transport| transport.tls.is_none()));
}

// spec: LB-12, DR-21, DR-25, DR-27
#[test]
fn breakers_are_set_by_priority() {
    let config = cluster(json!({"circuit_breakers": {"thresholds": [
        {"max_connections": 1, "max_pending_requests": 2, "max_requests": 3, "max_retries": 4},
        {"priority": "HIGH", "max_retries": 5}]}}));
    assert_eq!(maxima(&config), [[1, 2, 3, 4], [1024, 1024, 1024, 5]]);
}

// spec: LB-1, LB-2, LB-3, DR-9
#[test]
fn policies_are_read_by_name() {
    let policy = |more: Value| cluster(more).policy;
    assert_eq!(policy(json!({"lb_policy": "ROUND_ROBIN"})), Policy::RoundRobin);
    assert_eq!(policy(json!({"lb_policy": "RANDOM"})), Policy::Random);
    assert_eq!(policy(json!({"lb_policy": "LEAST_REQUEST"})), Policy::LeastRequest { choices: 2 });
    let three = json!({"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 3}});
    assert_eq!(policy(three), Policy::LeastRequest { choices: 3 });
    let passthrough = try_cluster(json!({"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"})).unwrap();
    assert_eq!(passthrough.config.policy, Policy::OriginalDst);
    assert_eq!(passthrough.config.discovery, Discovery::OriginalDst);
    assert!(matches!(passthrough.members, Members::OriginalDst));
    for policy in ["RING_HASH", "MAGLEV"] {
        let refusal = try_cluster(json!({"lb_policy": policy})).unwrap_err();
        assert!(refusal.to_string().contains("lb_policy"), "{refusal}");
    }
}

// spec: LB-7, LB-13, DR-31, DR-32
#[test]
fn panic_and_outlier_detection_are_read() {
    let config =
        cluster(json!({"common_lb_config": {"healthy_panic_threshold": {"value": 0}}, "outlier_detection": {}}));
    assert_eq!(config.panic_percent, 0);
    let outlier = config.outlier.unwrap();
    let limits = [outlier.consecutive_5xx, outlier.consecutive_gateway, outlier.consecutive_local];
    assert_eq!(limits.map(|limit| (limit.count, limit.enforcing_percent)), [(5, 100), (5, 0), (5, 100)]);
    assert!(!outlier.split_local && !outlier.always_one);
    assert_eq!((outlier.interval, outlier.base_ejection), (Duration::from_secs(10), Duration::from_secs(30)));
    assert_eq!((outlier.max_ejection, outlier.max_ejection_percent), (Duration::from_secs(300), 10));
}

// spec: LB-16, SE-5, SE-6, SE-7, XI-8
#[test]
fn endpoints_are_found_as_the_type_says() {
    let members = |more: Value| try_cluster(more).unwrap().members;
    assert!(matches!(members(json!({"type": "STATIC"})), Members::Static(_)));
    let strict = members(json!({"type": "STRICT_DNS", "dns_refresh_rate": "60s", "dns_lookup_family": "V4_ONLY"}));
    let Members::Dns { all_answers: true, family: DnsLookupFamily::V4Only, pace, .. } = strict else {
        panic!("{strict:?}")
    };
    assert_eq!(pace.after_answer(None, 0.0), Duration::from_secs(60));
    let logical = members(json!({"type": "LOGICAL_DNS"}));
    let Members::Dns { all_answers: false, family: DnsLookupFamily::Auto, pace, .. } = logical else {
        panic!("{logical:?}")
    };
    assert_eq!(pace.after_answer(None, 0.0), Duration::from_secs(5));
    let eds = |more: Value| match members(more) {
        Members::Eds(name) => name.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(eds(json!({"type": "EDS"})), "c");
    assert_eq!(eds(json!({"type": "EDS", "eds_cluster_config": {"service_name": "s"}})), "s");
    let metadata = json!({"metadata": {"filter_metadata": {"istio": {"external": true,
        "services": [{"host": "h", "name": "n", "namespace": "ns"}, {"host": "other"}]}}}});
    let config = cluster(metadata);
    assert_eq!(*config.service.unwrap(), ["h".into(), "n".into(), "ns".into()]);
    assert!(config.external);
}

// spec: DR-23, DR-26, DR-28, DR-29, DR-30, PT-13, OD-4, LB-17
#[test]
fn connections_are_made_as_configured() {
    let protocol = |options: Value| cluster(http(options)).protocol;
    assert_eq!(protocol(json!({"explicit_http_config": {"http2_protocol_options": {}}})), Protocol::H2);
    assert_eq!(protocol(json!({"explicit_http_config": {"http_protocol_options": {}}})), Protocol::H1);
    assert_eq!(protocol(json!({"use_downstream_protocol_config": {}})), Protocol::Downstream);
    assert_eq!(protocol(json!({"auto_config": {}})), Protocol::Auto);
    let common = json!({"common_http_protocol_options": {"idle_timeout": "7s", "max_requests_per_connection": 1},
        "explicit_http_config": {"http_protocol_options": {}}});
    let config = cluster(http(common));
    assert_eq!((config.idle_timeout, config.max_requests_per_connection), (Duration::from_secs(7), 1));
    let config = cluster(json!({"connect_timeout": "10s",
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 5}},
        "upstream_bind_config": {"source_address": {"address": "127.0.0.6", "port_value": 0},
            "extra_source_addresses": [{"address": {"address": "::6", "port_value": 0}}],
            "socket_options": [{"level": 1, "name": 36, "int_value": 1337, "state": "STATE_PREBIND"}]}}));
    assert_eq!(config.mark, Some(1337));
    assert_eq!(config.connect_timeout, Duration::from_secs(10));
    assert_eq!(config.keepalive, Some((Duration::from_secs(5), Duration::from_secs(75), 9)));
    assert_eq!(*config.source, ["127.0.0.6".parse::<IpAddr>().unwrap(), "::6".parse().unwrap()]);
}

// spec: MT-7, NM-11, DR-34
#[test]
fn an_endpoint_chooses_its_transport_socket_by_metadata() {
    let tls = json!({"name": "tls", "typed_config": {"sni": "outbound_.80_._.h",
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"}});
    let raw = json!({"name": "raw", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}});
    let parsed = try_cluster(json!({"transport_socket_matches": [
        {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": tls},
        {"name": "tlsMode-disabled", "match": {}, "transport_socket": raw}]}))
    .unwrap();
    let endpoint = |tls_mode: Option<&str>| Endpoint {
        socket_match: tls_mode.iter().map(|mode| ("tlsMode".into(), (*mode).into())).collect(),
        ..Endpoint::at(Address::Ip("127.0.0.1:1".parse().unwrap()))
    };
    for (mode, name, encrypted) in [
        (Some("istio"), "tlsMode-istio", true),
        (Some("disabled"), "tlsMode-disabled", false),
        (None, "tlsMode-disabled", false),
    ] {
        let (_, found) = parsed.config.transport(&endpoint(mode)).unwrap();
        assert_eq!((&*found.name, found.tls.is_some()), (name, encrypted), "{mode:?}");
    }
    assert_eq!(parsed.tls.len(), 1);
    assert_eq!(parsed.tls[0].1.sni.as_deref(), Some("outbound_.80_._.h"));
}

// spec: XT-10, LB-1, LB-2, LB-3
#[test]
fn a_policy_may_be_an_extension() {
    let policy = |name: &str, more: Value| {
        let mut typed =
            json!({"@type": format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}")});
        typed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"typed_extension_config": {"name": "x", "typed_config": typed}})
    };
    let of = |policies: Vec<Value>| try_cluster(json!({"load_balancing_policy": {"policies": policies}}));
    let one = |name: &str, more: Value| of(vec![policy(name, more)]).unwrap().config.policy;
    assert_eq!(one("round_robin.v3.RoundRobin", json!({})), Policy::RoundRobin);
    assert_eq!(one("random.v3.Random", json!({})), Policy::Random);
    assert_eq!(one("cluster_provided.v3.ClusterProvided", json!({})), Policy::OriginalDst);
    assert_eq!(one("least_request.v3.LeastRequest", json!({})), Policy::LeastRequest { choices: 2 });
    assert_eq!(one("least_request.v3.LeastRequest", json!({"choice_count": 5})), Policy::LeastRequest { choices: 5 });
    let unknown = || policy("pick_first.v3.PickFirst", json!({}));
    let second = of(vec![unknown(), policy("random.v3.Random", json!({}))]).unwrap();
    assert_eq!(second.config.policy, Policy::Random, "the first that there is");
    assert!(of(vec![unknown()]).unwrap_err().to_string().contains("pick_first.v3.PickFirst"));
}

// spec: XT-10
#[test]
fn what_would_change_where_requests_go_is_refused_by_its_name() {
    let check = json!({"timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, "tcp_health_check": {}});
    for (field, value) in [
        ("health_checks", json!([check])),
        ("lb_subset_config", json!({"fallback_policy": "ANY_ENDPOINT"})),
        ("connection_pool_per_downstream_connection", json!(true)),
        ("use_tcp_for_dns_lookups", json!(true)),
        ("upstream_config", json!({"name": "x"})),
        ("cluster_type", json!({"name": "envoy.clusters.dynamic_forward_proxy"})),
    ] {
        let refusal = try_cluster(json!({field: value})).unwrap_err().to_string();
        assert!(refusal.contains("not supported") && refusal.contains(field), "{field}: {refusal}");
    }
}

// spec: XT-6, XT-15
#[test]
fn extensions_of_clusters_are_known_to_have_no_effect_or_refused_by_name() {
    let exchange = json!({"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange", "value": {"protocol": "istio-peer-exchange"}});
    let resolver = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
    let taken = json!({
        "filters": [{"name": "istio.metadata_exchange", "typed_config": exchange}],
        "typed_dns_resolver_config": {"name": "cares", "typed_config": {"@type": format!("type.googleapis.com/{resolver}"), "udp_max_queries": 100}},
    });
    try_cluster(taken).unwrap();
    let other = json!({"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "type.googleapis.com/of.nobody.Filter"});
    for of in [
        json!({"filters": [{"name": "mine", "typed_config": other}]}),
        json!({"typed_dns_resolver_config": {"name": "mine", "typed_config": other}}),
    ] {
        let refusal = try_cluster(of).unwrap_err().to_string();
        assert!(refusal.contains("'mine' with type URL: 'of.nobody.Filter'"), "{refusal}");
    }
}
