//! Spec 3.3, 3.5, 3.11: what leaves a workload.

use crate::told::{REVIEWS, World, manager, names, object, texts};
use serde_json::{Value, json};

fn service(name: &str, time: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, creationTimestamp: '{time}'}}\nspec: {spec}\n"
    )
}

// spec: OD-1, OD-3, PT-1
#[test]
fn captured_traffic_goes_to_the_listener_of_its_destination() {
    let listener = World::new("").client().listener("virtualOutbound");
    assert_eq!(listener["use_original_dst"], true);
    let loops = &listener["filter_chains"][0];
    assert_eq!(
        (&loops["name"], &loops["filter_chain_match"]["destination_port"]),
        (&json!("virtualOutbound-blackhole"), &json!(15001))
    );
    assert_eq!(loops["filters"][0]["typed_config"]["cluster"], "BlackHoleCluster");
    let inner = World::new("").client().listener("0.0.0.0_9080");
    assert_eq!((&inner["bind_to_port"], &inner["traffic_direction"]), (&json!(false), &json!("OUTBOUND")));
}

// spec: OD-2, OD-3
#[test]
fn the_clusters_of_unknown_destinations() {
    let told = World::new("").client();
    let pass = told.cluster("PassthroughCluster");
    assert_eq!(
        (&pass["type"], &pass["lb_policy"], &pass["transport_socket"]),
        (&json!("ORIGINAL_DST"), &json!("CLUSTER_PROVIDED"), &Value::Null)
    );
    let hole = told.cluster("BlackHoleCluster");
    assert_eq!((&hole["type"], &hole["load_assignment"]), (&json!("STATIC"), &Value::Null));
    assert_eq!(told.host("9080", "allow_any")["routes"][0]["route"]["retry_policy"], Value::Null, "no retries");
}

// spec: PR-6
#[test]
fn http_ports_are_shared_and_tcp_ports_are_per_address() {
    let told = World::new("").client();
    let shared = told.listener("0.0.0.0_9080");
    assert_eq!(manager(&shared["filter_chains"][0])["rds"]["route_config_name"], "9080");
    let routes = told.routes("9080");
    let hosts = names(&routes["virtual_hosts"]);
    assert!(
        hosts.contains(&"reviews.default.svc.cluster.local:9080")
            && hosts.contains(&"ratings.default.svc.cluster.local:9080")
    );
    let tcp = told.listener("10.96.0.3_3306");
    assert_eq!(
        tcp["filter_chains"][0]["filters"][0]["typed_config"]["cluster"],
        "outbound|3306||mysql.default.svc.cluster.local"
    );
}

// spec: PR-5, PR-6, PR-8, NM-6
#[test]
fn what_is_found_out_has_chains_for_http_and_for_the_rest() {
    let told = World::new("").client();
    let listener = told.listener("10.96.0.4_8000");
    let http = &listener["filter_chains"][0];
    assert_eq!(
        http["filter_chain_match"],
        json!({"application_protocols": ["http/1.1", "h2c"], "transport_protocol": "raw_buffer"})
    );
    assert_eq!(manager(http)["rds"]["route_config_name"], "plain.default.svc.cluster.local:8000");
    assert_eq!(
        listener["default_filter_chain"]["filters"][0]["typed_config"]["cluster"],
        "outbound|8000||plain.default.svc.cluster.local"
    );
    assert_eq!(listener["listener_filters"][0]["name"], "envoy.filters.listener.http_inspector");
    assert_eq!(
        (&listener["listener_filters_timeout"], &listener["continue_on_listener_filters_timeout"]),
        (&json!("0s"), &json!(true))
    );
    assert_eq!(
        World::with_mesh("protocolDetectionTimeout: 5s\n", "").client().listener("10.96.0.4_8000")["listener_filters_timeout"],
        "5s"
    );
    let routes = told.routes("plain.default.svc.cluster.local:8000");
    assert_eq!(texts(&routes["virtual_hosts"][0]["domains"]), ["*"]);
    let http = &told.cluster("outbound|8000||plain.default.svc.cluster.local")["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert!(http["use_downstream_protocol_config"].is_object(), "the server is spoken to as the client speaks");
}

// spec: PR-7
#[test]
fn of_two_services_with_one_address_and_port_the_older_wins() {
    let old = service("old", "2020-01-01T00:00:00Z", "{clusterIP: 10.96.7.7, ports: [{name: tcp, port: 5000}]}");
    let young = service("ayoung", "2021-01-01T00:00:00Z", "{clusterIP: 10.96.7.7, ports: [{name: tcp, port: 5000}]}");
    let chains = World::new(&format!("{young}{old}")).client().listener("10.96.7.7_5000")["filter_chains"].clone();
    assert_eq!(chains.as_array().unwrap().len(), 1);
    assert_eq!(chains[0]["filters"][0]["typed_config"]["cluster"], "outbound|5000||old.default.svc.cluster.local");
    let http = service("web", "2020-01-01T00:00:00Z", "{clusterIP: 10.96.7.8, ports: [{name: http, port: 3306}]}");
    let told = World::new(&http).client();
    assert!(told.has_listener("0.0.0.0_3306") && told.has_listener("10.96.0.3_3306"), "HTTP and TCP on one port");
}

// spec: PR-6, PI-17
#[test]
fn headless_services_listen_at_their_endpoints() {
    let headless = service(
        "hl",
        "2020-01-01T00:00:00Z",
        "{clusterIP: None, ports: [{name: tcp, port: 9300}, {name: http, port: 9200}]}",
    ) + "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: hl, labels: {kubernetes.io/service-name: hl}}\naddressType: IPv4\nports: [{name: tcp, port: 9300}, {name: http, port: 9200}]\nendpoints: [{addresses: [10.0.7.1]}, {addresses: [10.0.0.9], targetRef: {kind: Pod, name: client-1}}]\n";
    let world = World::new(&headless);
    let told = world.client();
    assert!(
        told.has_listener("10.0.7.1_9300") && !told.has_listener("10.0.0.9_9300"),
        "not at the proxy's own address"
    );
    assert!(told.has_listener("0.0.0.0_9200"));
    assert_eq!(told.cluster("outbound|9300||hl.default.svc.cluster.local")["type"], "ORIGINAL_DST");
    let gateway = world.gateway();
    assert_eq!(gateway.cluster("outbound|9300||hl.default.svc.cluster.local")["type"], "EDS", "gateways use endpoints");
    assert_eq!(gateway.addresses("outbound|9300||hl.default.svc.cluster.local").len(), 2);
}

// spec: FC-1, MT-1
#[test]
fn filters_in_istios_order() {
    let listener = World::new("").client().listener("0.0.0.0_9080");
    let own = manager(&listener["filter_chains"][0]);
    assert_eq!(
        names(&own["http_filters"]),
        [
            "istio.metadata_exchange",
            "envoy.filters.http.grpc_stats",
            "istio.alpn",
            "envoy.filters.http.fault",
            "envoy.filters.http.cors",
            "envoy.filters.http.router"
        ]
    );
    let world = World::with_mesh("defaultProviders: {metrics: [prometheus]}\naccessLogFile: /dev/stdout\n", "");
    let told = world.client().listener("0.0.0.0_9080");
    let with_stats = manager(&told["filter_chains"][0]);
    let order = names(&with_stats["http_filters"]);
    assert_eq!(&order[order.len() - 3..], ["envoy.filters.http.cors", "istio.stats", "envoy.filters.http.router"]);
    assert_eq!(with_stats["access_log"][0]["typed_config"]["path"], "/dev/stdout");
    let tcp = world.client().listener("10.96.0.3_3306");
    assert_eq!(names(&tcp["filter_chains"][0]["filters"]), ["istio.stats", "envoy.filters.network.tcp_proxy"]);
}

// spec: XM-5
#[test]
fn a_stock_envoy_gets_no_private_filters() {
    let id = "sidecar~10.0.0.1~reviews-1.default~default.svc.cluster.local";
    let world = World::with_mesh("defaultProviders: {metrics: [prometheus]}\n", "");
    let stock = world.node(id, &["envoy.filters.http.router"]);
    for text in [
        stock.listener("0.0.0.0_9080"),
        stock.listener("virtualInbound"),
        stock.cluster(REVIEWS),
        stock.cluster("PassthroughCluster"),
    ] {
        for name in ["istio.metadata_exchange", "istio.alpn", "istio.stats"] {
            assert!(!text.to_string().contains(name), "{text}");
        }
    }
    let ours = world.node(id, &["envoy.filters.http.router", "istio.stats"]);
    assert!(ours.listener("0.0.0.0_9080").to_string().contains("istio.alpn"));
}

// spec: MT-1, MT-6, MT-7
#[test]
fn mesh_mtls_of_a_client() {
    let context = |name: &str, told: &crate::told::Told| {
        told.cluster(name)["transport_socket_matches"][0]["transport_socket"]["typed_config"]["common_tls_context"]
            .clone()
    };
    let told = World::new("").client();
    let tls = context(REVIEWS, &told);
    assert_eq!(tls["alpn_protocols"], json!(["istio-peer-exchange", "istio"]));
    assert_eq!(
        tls["combined_validation_context"]["default_validation_context"]["match_subject_alt_names"],
        json!([{"exact": "spiffe://cluster.local/ns/default/sa/reviews"}])
    );
    assert_eq!(
        (&tls["tls_params"]["tls_minimum_protocol_version"], &tls["tls_params"]["tls_maximum_protocol_version"]),
        (&json!("TLSv1_2"), &json!("TLSv1_3"))
    );
    let grpc = service("rpc", "2020-01-01T00:00:00Z", "{clusterIP: 10.96.7.9, ports: [{name: grpc, port: 7000}]}");
    let told = World::new(&grpc).client();
    assert_eq!(
        context("outbound|7000||rpc.default.svc.cluster.local", &told)["alpn_protocols"],
        json!(["istio-peer-exchange", "istio", "h2"])
    );
    let matches = World::new("").client().cluster(REVIEWS)["transport_socket_matches"].clone();
    assert_eq!(
        (&matches[0]["match"], &matches[1]["match"]),
        (&json!({"tlsMode": "istio"}), &json!({})),
        "mTLS for endpoints that say so, plaintext for the rest"
    );
    assert_eq!(matches[1]["transport_socket"]["name"], "envoy.transport_sockets.raw_buffer");
    let off = World::with_mesh("enableAutoMtls: false\n", "").client();
    assert_eq!(off.cluster(REVIEWS)["transport_socket_matches"], Value::Null);
}

// spec: MT-1
#[test]
fn alpn_tells_the_servers_proxy_what_comes() {
    use prost::Message as _;
    let listener = World::new("").client();
    let resource =
        listener.snapshot.of(pilot::translate::cache::ResourceType::Listener).get("0.0.0.0_9080").unwrap().clone();
    let wire = proto::envoy::listener::Listener::decode(resource.bytes.clone()).unwrap();
    let Some(proto::envoy::listener::filter::ConfigType::TypedConfig(any)) =
        &wire.filter_chains[0].filters[0].config_type
    else {
        panic!()
    };
    let manager: proto::envoy::hcm::HttpConnectionManager = proto::any::unpack(any).unwrap();
    let alpn = manager.http_filters.iter().find(|filter| filter.name == "istio.alpn").unwrap();
    let Some(proto::envoy::hcm::http_filter::ConfigType::TypedConfig(any)) = &alpn.config_type else { panic!() };
    let config: proto::missing::AlpnFilterConfig = proto::any::unpack(any).unwrap();
    let lines: Vec<_> =
        config.alpn_override.iter().map(|line| (line.upstream_protocol, line.alpn_override.join(","))).collect();
    assert_eq!(
        lines,
        [
            (0, "istio-http/1.0,istio,http/1.0".into()),
            (1, "istio-http/1.1,istio,http/1.1".into()),
            (2, "istio-h2,istio,h2".into())
        ]
    );
}

// spec: FC-4
#[test]
fn settings_of_the_connection_manager() {
    let listener = World::new("").client().listener("0.0.0.0_9080");
    let own = manager(&listener["filter_chains"][0]);
    for (field, value) in [
        ("stream_idle_timeout", json!("0s")),
        ("normalize_path", json!(true)),
        ("use_remote_address", json!(false)),
        ("proxy_100_continue", json!(true)),
    ] {
        assert_eq!(own[field], value, "{field}");
    }
    assert_eq!(own["upgrade_configs"], json!([{"upgrade_type": "websocket"}]));
    assert_eq!(own["stat_prefix"], "outbound_0.0.0.0_9080;");
    assert_eq!(own["tracing"]["custom_tags"].as_array().unwrap().len(), 9);
    let silent = World::with_mesh("enableTracing: false\n", "").client().listener("0.0.0.0_9080");
    assert_eq!(manager(&silent["filter_chains"][0])["tracing"], Value::Null);
}

// spec: AL-1, AL-2
#[test]
fn access_logs_are_istios() {
    let log = |config: &str| {
        let listener = World::with_mesh(config, "").client().listener("0.0.0.0_9080");
        manager(&listener["filter_chains"][0])["access_log"][0]["typed_config"]["log_format"].clone()
    };
    let text = log("accessLogFile: /dev/stdout\n")["text_format_source"]["inline_string"].as_str().unwrap().to_owned();
    let expected = concat!(
        "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
        "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
        "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
        "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
        "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% ",
        "%ROUTE_NAME%\n"
    );
    assert_eq!(text, expected);
    assert_eq!(log("accessLogFile: /dev/stdout\naccessLogFormat: 'x'\n")["text_format_source"]["inline_string"], "x");
    let fields = log("accessLogFile: /dev/stdout\naccessLogEncoding: JSON\n")["json_format"].clone();
    let expected = json!({
        "start_time": "%START_TIME%", "route_name": "%ROUTE_NAME%", "method": "%REQ(:METHOD)%",
        "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "protocol": "%PROTOCOL%", "response_code": "%RESPONSE_CODE%",
        "response_flags": "%RESPONSE_FLAGS%", "response_code_details": "%RESPONSE_CODE_DETAILS%",
        "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%", "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%", "duration": "%DURATION%",
        "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
        "user_agent": "%REQ(USER-AGENT)%", "request_id": "%REQ(X-REQUEST-ID)%", "authority": "%REQ(:AUTHORITY)%",
        "upstream_host": "%UPSTREAM_HOST%", "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
        "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%", "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%", "requested_server_name": "%REQUESTED_SERVER_NAME%",
        "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%"
    });
    assert_eq!(fields, expected);
    let own = log("accessLogFile: /dev/stdout\naccessLogEncoding: JSON\naccessLogFormat: '{\"a\": \"%PROTOCOL%\"}'\n");
    assert_eq!(own["json_format"], json!({"a": "%PROTOCOL%"}));
    let catch_all = World::with_mesh("accessLogFile: /dev/stdout\n", "").client().listener("virtualOutbound");
    assert_eq!(catch_all["access_log"][0]["filter"], json!({"response_flag_filter": {"flags": ["NR"]}}));
    let log = |chain: usize| catch_all["filter_chains"][chain]["filters"][0]["typed_config"]["access_log"].is_array();
    assert!(!log(0) && log(1), "what would go round in circles is not logged");
}

// spec: DN-1, DN-2
#[test]
fn the_name_table_answers_for_services_aliases_and_headless_endpoints() {
    let more = service("alias", "", "{type: ExternalName, externalName: reviews.default.svc.cluster.local}")
        .replace(", creationTimestamp: ''", "")
        + &service("hl", "2020-01-01T00:00:00Z", "{clusterIP: None, ports: [{name: tcp, port: 9300}]}")
        + "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: hl, labels: {kubernetes.io/service-name: hl}}\naddressType: IPv4\nports: [{name: tcp, port: 9300}]\nendpoints: [{addresses: [10.0.7.1], hostname: hl-0}, {addresses: [10.0.7.2], hostname: hl-1}, {addresses: [10.0.7.3], conditions: {ready: false}}]\n"
        + &object(
            "ServiceEntry",
            "e",
            "hosts: [db.com]\naddresses: [192.0.2.10]\nresolution: STATIC\nports: [{number: 1, name: tcp, protocol: TCP}]\nendpoints: [{address: 1.1.1.1}]",
        );
    let table = World::new(&more).client().name_table().table;
    let ips = |name: &str| table[name].ips.join(",");
    assert_eq!(ips("reviews.default.svc.cluster.local"), "10.96.0.1");
    assert_eq!(ips("alias.default.svc.cluster.local"), "10.96.0.1");
    assert_eq!(ips("hl.default.svc.cluster.local"), "10.0.7.1,10.0.7.2");
    assert_eq!(ips("hl-1.hl.default.svc.cluster.local"), "10.0.7.2");
    assert_eq!((ips("db.com").as_str(), table["db.com"].registry.as_str()), ("192.0.2.10", "External"));
}
