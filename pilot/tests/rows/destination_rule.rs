//! Spec 1.4: DestinationRule.

use crate::told::{BASE, REVIEWS, Told, World, object, object_in, refused};
use pilot::translate::cache::ResourceType;
use serde_json::{Value, json};
use std::sync::Arc;

fn rule(spec: &str) -> World {
    World::new(&object("DestinationRule", "r", &format!("host: reviews\n{spec}")))
}

fn cluster(policy: &str) -> Value {
    rule(&format!("trafficPolicy: {policy}")).client().cluster(REVIEWS)
}

const V1: &str = "outbound|9080|v1|reviews.default.svc.cluster.local";

// spec: DR-1, GEN-3
#[test]
fn the_host_may_be_short_full_or_a_wildcard_and_exact_wins() {
    let policy = |host: &str, lb: &str| {
        object(
            "DestinationRule",
            &format!("r{lb}").to_lowercase().replace('_', ""),
            &format!("host: '{host}'\ntrafficPolicy: {{loadBalancer: {{simple: {lb}}}}}"),
        )
    };
    let lb = |yaml: String| World::new(&yaml).client().cluster(REVIEWS)["lb_policy"].clone();
    for host in ["reviews", "reviews.default.svc.cluster.local", "*.local", "*"] {
        assert_eq!(lb(policy(host, "RANDOM")), "RANDOM", "{host}");
    }
    assert_eq!(lb(policy("*.local", "RANDOM") + &policy("reviews", "ROUND_ROBIN")), Value::Null, "ROUND_ROBIN is 0");
    assert_eq!(refused("DestinationRule", "host: 'a b'"), "spec.host");
}

// spec: DR-2, NM-1
#[test]
fn subsets_are_clusters_and_endpoints_of_their_own() {
    let told = rule("subsets: [{name: v1, labels: {version: v1}}, {name: none, labels: {version: v9}}]").client();
    assert_eq!(told.addresses(V1), ["10.0.0.1"]);
    assert_eq!(told.cluster(V1)["metadata"]["filter_metadata"]["istio"]["subset"], "v1");
    assert!(told.addresses("outbound|9080|none|reviews.default.svc.cluster.local").is_empty());
    assert_eq!(told.addresses(REVIEWS).len(), 3);
    assert_eq!(refused("DestinationRule", "host: a\nsubsets: [{name: v}, {name: v}]"), "spec.subsets[1].name");
}

// spec: DR-3
#[test]
fn a_workload_selector_limits_the_rule_to_its_clients() {
    let lb = |labels: &str| {
        rule(&format!(
            "workloadSelector: {{matchLabels: {labels}}}\ntrafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}"
        ))
        .client()
        .cluster(REVIEWS)["lb_policy"]
            .clone()
    };
    assert_eq!(lb("{app: client}"), "RANDOM");
    assert_eq!(lb("{app: other}"), "LEAST_REQUEST");
}

// spec: DR-4, DR-5, PI-88
#[test]
fn the_clients_namespace_comes_first_then_the_services_then_the_root() {
    let far = "outbound|8080||far.other.svc.cluster.local";
    let in_ns = |ns: &str, lb: &str, export: &str| {
        object_in(
            ns,
            "DestinationRule",
            "r",
            &format!(
                "host: far.other.svc.cluster.local\nexportTo: ['{export}']\ntrafficPolicy: {{loadBalancer: {{simple: {lb}}}}}"
            ),
        )
    };
    let lb = |yaml: String| World::new(&yaml).client().cluster(far)["lb_policy"].clone();
    let (own, service, root) = (
        in_ns("default", "PASSTHROUGH", "*"),
        in_ns("other", "RANDOM", "*"),
        in_ns("istio-system", "ROUND_ROBIN", "*"),
    );
    assert_eq!(lb(format!("{own}{service}{root}")), "CLUSTER_PROVIDED");
    assert_eq!(lb(format!("{service}{root}")), "RANDOM");
    assert_eq!(lb(root.clone()), Value::Null, "ROUND_ROBIN");
    assert_eq!(lb(in_ns("other", "RANDOM", ".") + &root), Value::Null, "not exported to the client");
    assert_eq!(lb(in_ns("third", "RANDOM", "*")), "LEAST_REQUEST", "a namespace that is neither of them");
}

// spec: DR-6
#[test]
fn rules_for_one_host_are_merged() {
    let a = object("DestinationRule", "a", "host: reviews\nsubsets: [{name: v1, labels: {version: v1}}]");
    let b = object(
        "DestinationRule",
        "b",
        "host: reviews\ntrafficPolicy: {loadBalancer: {simple: RANDOM}}\nsubsets: [{name: v1, labels: {version: v2}}, {name: v2, labels: {version: v2}}]",
    );
    let c = object("DestinationRule", "c", "host: reviews\ntrafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}");
    let told = World::new(&format!("{a}{b}{c}")).client();
    assert_eq!(told.cluster(REVIEWS)["lb_policy"], "RANDOM", "the oldest policy");
    assert_eq!(told.addresses(V1), ["10.0.0.1"], "the first of equal names");
    assert!(told.has_cluster("outbound|9080|v2|reviews.default.svc.cluster.local"));
}

// spec: DR-7
#[test]
fn subsets_override_blocks_and_ports_replace_everything() {
    let told = rule("trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 5}}}\nsubsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]").client();
    let subset = told.cluster(V1);
    assert_eq!(
        (&subset["lb_policy"], &subset["circuit_breakers"]["thresholds"][0]["max_connections"]),
        (&Value::Null, &json!(5))
    );
    let first = rule(
        "trafficPolicy: {portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: RANDOM}}]}\nsubsets: [{name: v1, labels: {version: v1}, trafficPolicy: {portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: ROUND_ROBIN}}, {port: {number: 1}, loadBalancer: {simple: RANDOM}}]}}]",
    )
    .client();
    assert_eq!(first.cluster(REVIEWS)["lb_policy"], "RANDOM");
    assert_eq!(first.cluster(V1)["lb_policy"], Value::Null, "the subset's port comes first");
    let port = cluster(
        "{outlierDetection: {}, portLevelSettings: [{port: {number: 9080}, connectionPool: {tcp: {maxConnections: 7}}}]}",
    );
    assert_eq!(
        (&port["outlier_detection"], &port["circuit_breakers"]["thresholds"][0]["max_connections"]),
        (&Value::Null, &json!(7))
    );
}

// spec: DR-9
#[test]
fn simple_load_balancers() {
    for (simple, policy) in [
        ("LEAST_REQUEST", "LEAST_REQUEST"),
        ("LEAST_CONN", "LEAST_REQUEST"),
        ("UNSPECIFIED", "LEAST_REQUEST"),
        ("RANDOM", "RANDOM"),
        ("PASSTHROUGH", "CLUSTER_PROVIDED"),
    ] {
        assert_eq!(cluster(&format!("{{loadBalancer: {{simple: {simple}}}}}"))["lb_policy"], policy);
    }
    assert_eq!(cluster("{}")["lb_policy"], "LEAST_REQUEST", "nothing is said");
    assert_eq!(World::new("").client().cluster(REVIEWS)["lb_policy"], "LEAST_REQUEST", "there is no rule");
    assert_eq!(cluster("{loadBalancer: {simple: ROUND_ROBIN}}")["lb_policy"], Value::Null);
    assert_eq!(cluster("{loadBalancer: {simple: PASSTHROUGH}}")["type"], "ORIGINAL_DST");
    let both = "host: a\ntrafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}";
    assert_eq!(refused("DestinationRule", both), "spec.trafficPolicy.loadBalancer");
}

fn hash(key: &str) -> (Value, Value) {
    let told = rule(&format!("trafficPolicy: {{loadBalancer: {{consistentHash: {key}}}}}")).client();
    (told.cluster(REVIEWS), told.reviews()[0]["route"].clone())
}

// spec: DR-10
#[test]
fn hash_keys_stand_in_the_route() {
    let key = |key: &str| hash(key).1["hash_policy"][0].clone();
    assert_eq!(key("{httpHeaderName: x-user}"), json!({"header": {"header_name": "x-user"}}));
    assert_eq!(
        key("{httpCookie: {name: c, path: /, ttl: 60s}}"),
        json!({"cookie": {"name": "c", "path": "/", "ttl": "60s"}})
    );
    assert_eq!(key("{httpCookie: {name: c, ttl: 0s}}"), json!({"cookie": {"name": "c", "ttl": "0s"}}));
    assert_eq!(key("{useSourceIp: true}"), json!({"connection_properties": {"source_ip": true}}));
    assert_eq!(key("{httpQueryParameterName: q}"), json!({"query_parameter": {"name": "q"}}));
    assert_eq!(
        hash("{useSourceIp: true}").1["retry_policy"]["retry_host_predicate"],
        Value::Null,
        "the hash decides (VS-30)"
    );
    let two = "host: a\ntrafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, httpHeaderName: a}}}";
    assert_eq!(refused("DestinationRule", two), "spec.trafficPolicy.loadBalancer.consistentHash");
}

// spec: DR-11
#[test]
fn hash_algorithms() {
    let (ring, _) = hash("{useSourceIp: true}");
    assert_eq!(
        (&ring["lb_policy"], &ring["ring_hash_lb_config"]["minimum_ring_size"]),
        (&json!("RING_HASH"), &json!("1024"))
    );
    assert_eq!(
        hash("{useSourceIp: true, ringHash: {minimumRingSize: 9}}").0["ring_hash_lb_config"]["minimum_ring_size"],
        "9"
    );
    assert_eq!(hash("{useSourceIp: true, ringHash: {}}").0["ring_hash_lb_config"], Value::Null);
    assert_eq!(hash("{useSourceIp: true, minimumRingSize: 8}").0["ring_hash_lb_config"]["minimum_ring_size"], "8");
    let (maglev, _) = hash("{useSourceIp: true, maglev: {tableSize: 65537}}");
    assert_eq!((&maglev["lb_policy"], &maglev["maglev_lb_config"]["table_size"]), (&json!("MAGLEV"), &json!("65537")));
    let even =
        "host: a\ntrafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}}}";
    assert_eq!(refused("DestinationRule", even), "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize");
}

// spec: DR-12, DR-24
#[test]
fn tcp_routes_hash_by_source_address_and_have_an_idle_timeout() {
    let rule = object(
        "DestinationRule",
        "r",
        "host: mysql\ntrafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}, connectionPool: {tcp: {idleTimeout: 10m, maxConnectionDuration: 1h}}}",
    );
    let proxy =
        World::new(&rule).client().listener("10.96.0.3_3306")["filter_chains"][0]["filters"][0]["typed_config"].clone();
    assert_eq!((&proxy["hash_policy"], &proxy["idle_timeout"]), (&json!([{"source_ip": {}}]), &json!("600s")));
    assert_eq!(proxy["max_downstream_connection_duration"], "3600s");
}

// spec: DR-13
#[test]
fn warm_up_is_slow_start() {
    let least =
        cluster("{loadBalancer: {simple: LEAST_REQUEST, warmup: {duration: 30s, minimumPercent: 20, aggression: 2}}}");
    let config = &least["least_request_lb_config"]["slow_start_config"];
    assert_eq!(
        (&config["slow_start_window"], &config["min_weight_percent"]["value"], &config["aggression"]["default_value"]),
        (&json!("30s"), &json!(20.0), &json!(2.0))
    );
    let old = cluster("{loadBalancer: {simple: ROUND_ROBIN, warmupDurationSecs: 5s}}");
    assert_eq!(old["round_robin_lb_config"]["slow_start_config"], json!({"slow_start_window": "5s"}));
}

fn priorities(policy: &str) -> Vec<(String, u64)> {
    let assignment = rule(&format!("trafficPolicy: {policy}")).client().endpoints(REVIEWS);
    let group = |group: &Value| {
        (group["locality"]["zone"].as_str().unwrap().to_owned(), group["priority"].as_u64().unwrap_or(0))
    };
    let mut out: Vec<_> = assignment["endpoints"].as_array().unwrap().iter().map(group).collect();
    out.sort();
    out
}

fn expect(list: &[(&str, u64)]) -> Vec<(String, u64)> {
    list.iter().map(|(zone, priority)| ((*zone).to_owned(), *priority)).collect()
}

// spec: DR-14, PI-94
#[test]
fn failover_needs_outlier_detection_and_can_be_switched_off() {
    let near_first = expect(&[("z1", 0), ("z2", 1), ("z3", 2)]);
    let equal = expect(&[("z1", 0), ("z2", 0), ("z3", 0)]);
    assert_eq!(priorities("{outlierDetection: {}}"), near_first);
    assert_eq!(priorities("{loadBalancer: {localityLbSetting: {enabled: true}}}"), equal);
    assert_eq!(priorities("{outlierDetection: {}, loadBalancer: {localityLbSetting: {enabled: false}}}"), equal);
    let weighs = |policy: &str| cluster(policy)["common_lb_config"]["locality_weighted_lb_config"].is_object();
    assert!(!weighs("{outlierDetection: {}}"), "priorities do not need it");
    assert!(weighs("{outlierDetection: {}, loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r2}]}}}"));
    let off = World::with_mesh(
        "localityLbSetting: {enabled: false}\n",
        &object("DestinationRule", "r", "host: reviews\ntrafficPolicy: {outlierDetection: {}}"),
    );
    assert_eq!(off.client().endpoints(REVIEWS)["endpoints"][1]["priority"], Value::Null);
}

// spec: DR-15
#[test]
fn distribute_gives_shares_and_leaves_the_rest_out() {
    let told = rule("trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: r1/z1/*, to: {r1/z1/*: 80, r1/z2/*: 20}}]}}}").client();
    let groups = told.endpoints(REVIEWS)["endpoints"].as_array().unwrap().clone();
    let shares: Vec<_> = groups
        .iter()
        .map(|g| (g["locality"]["zone"].as_str().unwrap(), g["load_balancing_weight"].as_u64().unwrap()))
        .collect();
    assert_eq!(shares, [("z1", 80), ("z2", 20)]);
    let sum = "host: a\ntrafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 50}}]}}}";
    assert_eq!(refused("DestinationRule", sum), "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to");
}

// spec: DR-16
#[test]
fn failover_names_the_region_that_takes_over() {
    let to = |region: &str| {
        priorities(&format!(
            "{{outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {{failover: [{{from: r1, to: {region}}}]}}}}}}"
        ))
    };
    assert_eq!(to("r2"), expect(&[("z1", 0), ("z2", 1), ("z3", 2)]));
    assert_eq!(to("r9"), expect(&[("z1", 0), ("z2", 1), ("z3", 2)]), "still last, for nothing else is there");
}

// spec: DR-17
#[test]
fn failover_priority_goes_by_labels() {
    let by = |keys: &str| {
        priorities(&format!(
            "{{outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {{failoverPriority: [{keys}]}}}}}}"
        ))
    };
    assert_eq!(by("version"), expect(&[("z1", 0), ("z2", 1), ("z3", 1)]), "the client is v1");
    assert_eq!(by("version=v3"), expect(&[("z1", 1), ("z2", 1), ("z3", 0)]));
}

/// The base with a fifth of `reviews` in the client's zone on a node of its own, and more in the Service.
fn reviews_with(service: &str, more: &str) -> World {
    let near = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n5, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: reviews-5, labels: {app: reviews}}\nspec: {nodeName: n5}\nstatus: {podIP: 10.0.0.25}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: reviews-5, labels: {kubernetes.io/service-name: reviews}}\naddressType: IPv4\nports: [{name: http, port: 9080}]\nendpoints: [{addresses: [10.0.0.25], targetRef: {kind: Pod, name: reviews-5}}]\n";
    let yaml = BASE.replace(
        "metadata: {name: reviews}\nspec: {clusterIP",
        &format!("metadata: {{name: reviews}}\nspec: {{{service}clusterIP"),
    );
    World::with_text("", &format!("{yaml}{near}{more}"))
}

/// Priority by the last byte of an address.
fn by_address(world: &World) -> Vec<(String, u64)> {
    let assignment = world.client().endpoints(REVIEWS);
    let mut out = Vec::new();
    for group in assignment["endpoints"].as_array().unwrap() {
        for endpoint in group["lb_endpoints"].as_array().unwrap() {
            let address = endpoint["endpoint"]["address"]["socket_address"]["address"].as_str().unwrap();
            out.push((address.rsplit('.').next().unwrap().to_owned(), group["priority"].as_u64().unwrap_or(0)));
        }
    }
    out.sort();
    out
}

// spec: DR-17
#[test]
fn places_are_labels_that_nobody_has_to_write() {
    let by = |keys: &str| {
        let policy =
            format!("{{outlierDetection: {{}}, loadBalancer: {{localityLbSetting: {{failoverPriority: [{keys}]}}}}}}");
        by_address(&reviews_with(
            "",
            &object("DestinationRule", "r", &format!("host: reviews\ntrafficPolicy: {policy}")),
        ))
    };
    let istios = "topology.istio.io/network, topology.kubernetes.io/region, topology.kubernetes.io/zone, topology.istio.io/subzone";
    assert_eq!(by(istios), expect(&[("1", 0), ("2", 1), ("25", 0), ("3", 2)]));
    assert_eq!(by("kubernetes.io/hostname"), expect(&[("1", 0), ("2", 1), ("25", 1), ("3", 1)]));
    assert_eq!(by("topology.kubernetes.io/zone=z2"), expect(&[("1", 1), ("2", 0), ("25", 1), ("3", 1)]));
}

// spec: DR-19, PI-14
#[test]
fn a_service_says_which_endpoints_are_asked_first() {
    let zone = expect(&[("1", 0), ("2", 1), ("25", 0), ("3", 2)]);
    for text in ["PreferSameZone", "PreferClose"] {
        assert_eq!(
            by_address(&reviews_with(&format!("trafficDistribution: {text}, "), "")),
            zone,
            "without outlier detection"
        );
    }
    let node = reviews_with("trafficDistribution: PreferSameNode, ", "");
    assert_eq!(by_address(&node), expect(&[("1", 0), ("2", 2), ("25", 1), ("3", 3)]));
    let common = &node.client().cluster(REVIEWS)["common_lb_config"];
    assert!(common["locality_weighted_lb_config"].is_object(), "{common}");
    let equal = expect(&[("1", 0), ("2", 0), ("25", 0), ("3", 0)]);
    assert_eq!(by_address(&reviews_with("trafficDistribution: Later, ", "")), equal);
    let off = "host: reviews\ntrafficPolicy: {loadBalancer: {localityLbSetting: {enabled: false}}}";
    let ruled = reviews_with("trafficDistribution: PreferSameZone, ", &object("DestinationRule", "r", off));
    assert_eq!(by_address(&ruled), equal, "a rule says more than a Service");

    let entry = object(
        "ServiceEntry",
        "e",
        "hosts: [e.example]\nports: [{number: 80, name: http, protocol: HTTP}]\nresolution: STATIC\nlocation: MESH_INTERNAL\nendpoints: [{address: 10.1.0.1, locality: r1/z1}, {address: 10.1.0.2, locality: r2/z3}]",
    );
    let annotated = entry.replace(
        "namespace: default}",
        "namespace: default, annotations: {networking.istio.io/traffic-distribution: PreferClose}}",
    );
    assert_ne!(entry, annotated);
    let groups = |entry: &str| World::new(entry).client().endpoints("outbound|80||e.example")["endpoints"].clone();
    assert_eq!((&groups(&entry)[1]["priority"], &groups(&annotated)[1]["priority"]), (&Value::Null, &json!(1)));
}

// spec: PI-14
#[test]
fn local_traffic_stays_on_its_node() {
    let local = reviews_with("internalTrafficPolicy: Local, ", "");
    assert_eq!(by_address(&local), expect(&[("1", 0)]));
    assert_eq!(by_address(&reviews_with("internalTrafficPolicy: Cluster, ", "")).len(), 4);
}

// spec: DR-14, PI-14
#[test]
fn only_what_depends_on_the_node_or_the_labels_of_a_client_is_made_for_each() {
    let failover =
        object("DestinationRule", "m", "host: mysql\ntrafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}}");
    let world = reviews_with("internalTrafficPolicy: Local, ", &failover);
    // In one locality, on two nodes, with other labels.
    let [one, other] = world.sidecars(["10.0.0.9~client-1", "10.0.0.25~reviews-5"]);
    let same = |name: &str| {
        let of = |told: &Told| told.snapshot.of(ResourceType::Endpoints).get(name).map(Arc::as_ptr);
        (of(&one).is_some(), of(&one) == of(&other))
    };
    assert_eq!(same("outbound|3306||mysql.default.svc.cluster.local"), (true, true));
    assert_eq!(same(REVIEWS), (true, false));
}

// spec: DR-21, DR-25, DR-27
#[test]
fn limits_are_unbounded_unless_set() {
    let thresholds = |policy: &str| cluster(policy)["circuit_breakers"]["thresholds"][0].clone();
    let none = thresholds("{}");
    for limit in ["max_connections", "max_pending_requests", "max_requests", "max_retries"] {
        assert_eq!(none[limit], u32::MAX, "{limit}");
    }
    let set = thresholds(
        "{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 2, http2MaxRequests: 3, maxRetries: 4}}}",
    );
    assert_eq!(set, json!({"max_connections": 1, "max_pending_requests": 2, "max_requests": 3, "max_retries": 4}));
}

// spec: DR-33
#[test]
fn a_retry_budget_stands_beside_the_limit() {
    let thresholds = |policy: &str| cluster(policy)["circuit_breakers"]["thresholds"][0].clone();
    let set =
        thresholds("{retryBudget: {percent: 30, minRetryConcurrency: 5}, connectionPool: {http: {maxRetries: 4}}}");
    assert_eq!(
        (&set["retry_budget"], &set["max_retries"]),
        (&json!({"budget_percent": {"value": 30.0}, "min_retry_concurrency": 5}), &json!(4))
    );
    assert_eq!(thresholds("{retryBudget: {}}")["retry_budget"]["budget_percent"]["value"], json!(20.0));
}

// spec: DR-22
#[test]
fn the_connect_timeout_is_ten_seconds_or_the_meshs() {
    assert_eq!(cluster("{}")["connect_timeout"], "10s");
    assert_eq!(cluster("{connectionPool: {tcp: {connectTimeout: 30ms}}}")["connect_timeout"], "0.030s");
    assert_eq!(World::with_mesh("connectTimeout: 3s\n", "").client().cluster(REVIEWS)["connect_timeout"], "3s");
}

// spec: DR-23, DR-24, DR-26, DR-28
#[test]
fn keep_alive_lifetimes_and_requests_per_connection() {
    let set = cluster(
        "{connectionPool: {tcp: {tcpKeepalive: {time: 7200s, interval: 75s, probes: 3}, maxConnectionDuration: 1h}, http: {maxRequestsPerConnection: 10, idleTimeout: 30s}}}",
    );
    assert_eq!(
        set["upstream_connection_options"]["tcp_keepalive"],
        json!({"keepalive_probes": 3, "keepalive_time": 7200, "keepalive_interval": 75})
    );
    let http = &set["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(
        http["common_http_protocol_options"],
        json!({"idle_timeout": "30s", "max_connection_duration": "3600s", "max_requests_per_connection": 10})
    );
    assert_eq!(cluster("{}")["upstream_connection_options"], Value::Null);
}

// spec: DR-29, DR-30
#[test]
fn http2_towards_the_service() {
    let http = |policy: &str| {
        cluster(policy)["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
            .clone()
    };
    let upgraded = http("{connectionPool: {http: {h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 5}}}");
    assert_eq!(upgraded["explicit_http_config"]["http2_protocol_options"], json!({"max_concurrent_streams": 5}));
    assert_eq!(http("{connectionPool: {http: {h2UpgradePolicy: DO_NOT_UPGRADE}}}"), Value::Null);
    for kept in ["{useClientProtocol: true}", "{useClientProtocol: true, h2UpgradePolicy: UPGRADE}"] {
        assert!(http(&format!("{{connectionPool: {{http: {kept}}}}}"))["use_downstream_protocol_config"].is_object());
    }
    let mesh = World::with_mesh("h2UpgradePolicy: UPGRADE\n", "");
    assert!(
        mesh.client().cluster(REVIEWS)["typed_extension_protocol_options"]
            .to_string()
            .contains("http2_protocol_options")
    );
}

// spec: DR-31, DR-32
#[test]
fn outlier_detection() {
    let set = cluster(
        "{outlierDetection: {consecutive5xxErrors: 1, consecutiveGatewayErrors: 0, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100, minHealthPercent: 40, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 4}}",
    );
    assert_eq!(
        set["outlier_detection"],
        json!({
            "consecutive_5xx": 1, "enforcing_consecutive_5xx": 100,
            "consecutive_gateway_failure": 0, "enforcing_consecutive_gateway_failure": 0,
            "interval": "1s", "base_ejection_time": "180s", "max_ejection_percent": 100, "enforcing_success_rate": 0,
            "split_external_local_origin_errors": true,
            "consecutive_local_origin_failure": 4, "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0
        })
    );
    assert_eq!(set["common_lb_config"]["healthy_panic_threshold"], json!({"value": 40.0}));
    assert_eq!(cluster("{outlierDetection: {}}")["outlier_detection"], json!({"enforcing_success_rate": 0}));
    let old = cluster("{outlierDetection: {consecutiveErrors: 7}}")["outlier_detection"].clone();
    assert_eq!((&old["consecutive_5xx"], &old["enforcing_consecutive_5xx"]), (&json!(7), &json!(100)));
    let joint = cluster("{outlierDetection: {consecutiveLocalOriginFailures: 4}}")["outlier_detection"].clone();
    assert_eq!(joint["consecutive_local_origin_failure"], Value::Null, "only where they are counted apart");
    let off = cluster("{outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 3}}");
    assert_eq!(off["outlier_detection"]["enforcing_consecutive_5xx"], 0);
    assert_eq!(off["outlier_detection"]["enforcing_consecutive_gateway_failure"], 100);
    assert_eq!(cluster("{}")["outlier_detection"], Value::Null);
    assert_eq!(cluster("{}")["common_lb_config"]["healthy_panic_threshold"], json!({}), "panic is off");
}

// spec: DR-34, MT-6
#[test]
fn tls_modes() {
    let auto = cluster("{loadBalancer: {simple: RANDOM}}");
    assert_eq!(auto["transport_socket_matches"][0]["name"], "tlsMode-istio", "a rule without tls keeps automatic mTLS");
    let off = cluster("{tls: {mode: DISABLE}}");
    assert_eq!((&off["transport_socket_matches"], &off["transport_socket"]), (&Value::Null, &Value::Null));
    let mesh = cluster("{tls: {mode: ISTIO_MUTUAL}}");
    assert_eq!(mesh["transport_socket"]["typed_config"]["sni"], "outbound_.9080_._.reviews.default.svc.cluster.local");
    assert_eq!(mesh["transport_socket_matches"], Value::Null, "every endpoint is spoken to in mTLS");
    let names = |cluster: &Value| {
        cluster["transport_socket"]["typed_config"]["common_tls_context"]["combined_validation_context"]["default_validation_context"]["match_subject_alt_names"].clone()
    };
    assert_eq!(names(&mesh), json!([{"exact": "spiffe://cluster.local/ns/default/sa/reviews"}]), "of its accounts");
    let own = cluster("{tls: {mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://a/b'], sni: x.com}}");
    assert_eq!(names(&own), json!([{"exact": "spiffe://a/b"}]));
    assert_eq!(own["transport_socket"]["typed_config"]["sni"], "x.com");
    assert_eq!(
        refused("DestinationRule", "host: a\ntrafficPolicy: {tls: {mode: ISTIO_MUTUAL, privateKey: /k}}"),
        "spec.trafficPolicy.tls"
    );
    assert_eq!(
        refused("DestinationRule", "host: a\ntrafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c}}"),
        "spec.trafficPolicy.tls.privateKey"
    );
}

// spec: DR-35, NM-12
#[test]
fn tls_fields() {
    let simple = cluster("{tls: {mode: SIMPLE, sni: r.com, caCertificates: /ca.pem, subjectAltNames: [r.com]}}");
    let context = &simple["transport_socket"]["typed_config"];
    assert_eq!(context["sni"], "r.com");
    let validation = &context["common_tls_context"]["combined_validation_context"];
    assert_eq!(validation["default_validation_context"]["match_subject_alt_names"], json!([{"exact": "r.com"}]));
    assert_eq!(validation["validation_context_sds_secret_config"]["name"], "file-root:/ca.pem");
    assert_eq!(simple["metadata"]["filter_metadata"]["istio"]["alpn_override"], "false");
    let mutual = cluster("{tls: {mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem}}");
    let context = &mutual["transport_socket"]["typed_config"]["common_tls_context"];
    assert_eq!(context["tls_certificate_sds_secret_configs"][0]["name"], "file-cert:/c.pem~/k.pem");
    assert_eq!(
        context["combined_validation_context"]["validation_context_sds_secret_config"]["name"],
        "file-root:system"
    );
    let http = &mutual["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(
        http["upstream_http_protocol_options"],
        json!({"auto_sni": true, "auto_san_validation": true}),
        "no SNI is given"
    );
    let skipped = cluster("{tls: {mode: SIMPLE, sni: a, insecureSkipVerify: true}}");
    assert_eq!(
        skipped["transport_socket"]["typed_config"]["common_tls_context"]["combined_validation_context"],
        Value::Null
    );
    let params = &context["tls_params"];
    assert_eq!(
        (&params["tls_minimum_protocol_version"], &params["tls_maximum_protocol_version"]),
        (&json!("TLSv1_2"), &json!("TLSv1_3"))
    );
    let endpoints = rule("trafficPolicy: {tls: {mode: SIMPLE}}").client().endpoints(REVIEWS).to_string();
    assert!(!endpoints.contains("tlsMode"), "no mesh mTLS towards them");
}

// spec: DR-38
#[test]
fn the_server_side_takes_the_connection_pool_alone() {
    let told = rule("trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}, outlierDetection: {}}").server();
    let inbound = told.cluster("inbound|9080||");
    assert_eq!(inbound["circuit_breakers"]["thresholds"][0]["max_connections"], 9);
    assert_eq!(inbound["outlier_detection"], Value::Null);
}

#[test]
fn what_comes_later_is_refused_by_field() {
    for field in
        ["tunnel: {}", "proxyProtocol: {}", "loadBalancer: {zoneAwareLbSetting: {}}", "tls: {mode: SIMPLE, caCrl: x}"]
    {
        let spec = format!("host: a\ntrafficPolicy: {{{field}}}");
        let found = crate::told::problems(&object("DestinationRule", "x", &spec));
        assert!(found[0].message.starts_with("not supported yet: spec.trafficPolicy."), "{found:?}");
    }
}
