//! Spec 3.3, 3.6, 3.11: what reaches a workload.

use crate::told::{World, manager, names, object};
use serde_json::{Value, json};

fn chain(chains: &[Value], name: &str, transport: &str) -> Value {
    chains
        .iter()
        .find(|c| c["name"] == name && c["filter_chain_match"]["transport_protocol"] == transport)
        .unwrap()
        .clone()
}

// spec: OD-3, OD-4, PT-13, MT-3
#[test]
fn ports_without_a_service_have_five_chains_and_pass_through() {
    let told = World::new("").client();
    let chains = told.inbound();
    let seen: Vec<(String, String, usize, bool)> = chains
        .iter()
        .map(|c| {
            let condition = &c["filter_chain_match"];
            let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
            (
                text(&c["name"]),
                text(&condition["transport_protocol"]),
                condition["application_protocols"].as_array().map_or(0, Vec::len),
                c["transport_socket"].is_object(),
            )
        })
        .collect();
    let expect =
        |name: &str, transport: &str, alpn: usize, tls: bool| (name.to_owned(), transport.to_owned(), alpn, tls);
    assert_eq!(
        seen,
        [
            expect("virtualInbound-blackhole", "", 0, false),
            expect("virtualInbound-catchall-http", "tls", 3, true),
            expect("virtualInbound-catchall-http", "raw_buffer", 2, false),
            expect("virtualInbound", "tls", 2, true),
            expect("virtualInbound", "raw_buffer", 0, false),
            expect("virtualInbound", "tls", 0, false),
        ]
    );
    assert_eq!(chains[0]["filter_chain_match"]["destination_port"], 15006);
    let cluster = told.cluster("InboundPassthroughCluster");
    assert_eq!(
        (&cluster["type"], &cluster["upstream_bind_config"]["source_address"]["address"]),
        (&json!("ORIGINAL_DST"), &json!("127.0.0.6"))
    );
}

// spec: OD-5
#[test]
fn a_served_port_leads_to_the_pods_own_address() {
    let cluster = World::new("").server().cluster("inbound|9080||");
    assert_eq!((&cluster["type"], &cluster["lb_policy"]), (&json!("ORIGINAL_DST"), &json!("CLUSTER_PROVIDED")));
    assert_eq!(cluster["upstream_bind_config"]["source_address"]["address"], "127.0.0.6");
    assert_eq!(cluster["metadata"]["filter_metadata"]["istio"]["services"][0]["name"], "reviews");
}

// spec: MT-2, MT-4, MT-6
#[test]
fn an_http_port_takes_mesh_mtls_and_plain() {
    let chains = World::new("").server().inbound();
    let tls = chain(&chains, "0.0.0.0_9080", "tls");
    assert_eq!(
        tls["filter_chain_match"]["application_protocols"],
        json!(["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"])
    );
    let context = &tls["transport_socket"]["typed_config"];
    assert_eq!(context["require_client_certificate"], true);
    let common = &context["common_tls_context"];
    assert_eq!(common["alpn_protocols"], json!(["h2", "http/1.1"]));
    assert_eq!(
        common["combined_validation_context"]["default_validation_context"]["match_subject_alt_names"],
        json!([{"prefix": "spiffe://cluster.local/"}])
    );
    assert_eq!(common["tls_params"]["cipher_suites"].as_array().unwrap().len(), 6);
    assert!(chain(&chains, "0.0.0.0_9080", "raw_buffer")["transport_socket"].is_null());
}

// spec: MT-2, MT-4
#[test]
fn a_tcp_port_takes_mesh_mtls_other_tls_and_plain() {
    let told = World::new("").node("sidecar~10.0.0.6~mysql-1.default~default.svc.cluster.local", &[]);
    let own: Vec<Value> = told.inbound().into_iter().filter(|c| c["name"] == "0.0.0.0_3306").collect();
    assert_eq!(own.len(), 3);
    let mesh = own.iter().find(|c| c["transport_socket"].is_object()).unwrap();
    assert_eq!(
        mesh["filter_chain_match"]["application_protocols"],
        json!(["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"])
    );
    assert_eq!(
        mesh["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"],
        json!(["istio-peer-exchange", "h2", "http/1.1"])
    );
    assert_eq!(names(&mesh["filters"]), ["istio.metadata_exchange", "envoy.filters.network.tcp_proxy"]);
}

// spec: MT-3, PR-5
#[test]
fn a_port_whose_protocol_is_found_out_has_five_chains() {
    let told = World::new("").node("sidecar~10.0.0.5~plain-1.default~default.svc.cluster.local", &[]);
    let own: Vec<Value> = told.inbound().into_iter().filter(|c| c["name"] == "0.0.0.0_8000").collect();
    assert_eq!(own.len(), 5);
    let http = own.iter().filter(|c| c["filters"].to_string().contains("http_connection_manager")).count();
    let terminated = own.iter().filter(|c| c["transport_socket"].is_object()).count();
    assert_eq!((http, terminated), (2, 2));
    let timeout = |mesh: &str| World::with_mesh(mesh, "").server().listener("virtualInbound");
    let waits = timeout("");
    assert_eq!(waits["listener_filters_timeout"], "0s", "the first bytes are waited for without end");
    assert_eq!(waits["continue_on_listener_filters_timeout"], true);
    assert_eq!(timeout("protocolDetectionTimeout: 3s\n")["listener_filters_timeout"], "3s");
}

// spec: NM-2, NM-7, FC-5
#[test]
fn a_served_port_is_called_by_the_workloads_number_and_its_host_by_the_services() {
    let more = "---\napiVersion: v1\nkind: Service\nmetadata: {name: moved}\nspec: {clusterIP: 10.96.8.1, selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 8888}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: moved, labels: {kubernetes.io/service-name: moved}}\naddressType: IPv4\nports: [{name: http, port: 8888}]\nendpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: reviews-1}}]\n";
    let told = World::new(more).server();
    assert!(told.has_cluster("inbound|8888||") && !told.has_cluster("inbound|80||"));
    let routes = manager(&chain(&told.inbound(), "0.0.0.0_8888", "raw_buffer"))["route_config"].clone();
    let host = &routes["virtual_hosts"][0];
    assert_eq!((&routes["name"], &host["name"]), (&json!("inbound|8888||"), &json!("inbound|http|80")));
    let operation = &host["routes"][0]["decorator"]["operation"];
    assert_eq!(operation, "moved.default.svc.cluster.local:80/*");
}

// spec: MT-8, FC-1, FC-4, FC-5, VS-33
#[test]
fn requests_go_to_the_workload_with_the_clients_identity() {
    let chains = World::new("").server().inbound();
    let manager = manager(&chain(&chains, "0.0.0.0_9080", "tls"));
    assert_eq!(manager["forward_client_cert_details"], "APPEND_FORWARD");
    assert_eq!(manager["set_current_client_cert_details"], json!({"subject": true, "dns": true, "uri": true}));
    assert_eq!(
        names(&manager["http_filters"]),
        [
            "istio.metadata_exchange",
            "envoy.filters.http.grpc_stats",
            "envoy.filters.http.fault",
            "envoy.filters.http.cors",
            "envoy.filters.http.router"
        ]
    );
    let route = &manager["route_config"]["virtual_hosts"][0]["routes"][0];
    assert_eq!(
        (&route["name"], &route["decorator"]["operation"]),
        (&json!("default"), &json!("reviews.default.svc.cluster.local:9080/*"))
    );
    assert_eq!((&route["route"]["cluster"], &route["route"]["timeout"]), (&json!("inbound|9080||"), &json!("0s")));
    assert_eq!(route["route"]["max_stream_duration"]["grpc_timeout_header_max"], "0s");
    assert_eq!(route["route"]["retry_policy"], json!({"retry_on": "reset-before-request", "num_retries": 2}));
}

// spec: FC-2, FC-3, PT-2
#[test]
fn listener_filters_look_only_where_they_must() {
    let listener = World::new("").server().listener("virtualInbound");
    assert_eq!(
        names(&listener["listener_filters"]),
        [
            "envoy.filters.listener.original_dst",
            "envoy.filters.listener.tls_inspector",
            "envoy.filters.listener.http_inspector"
        ]
    );
    assert_eq!(listener["listener_filters"][1]["typed_config"]["initial_read_buffer_size"], 512);
    let http = &listener["listener_filters"][2]["filter_disabled"]["or_match"]["rules"];
    assert_eq!(
        http[0]["destination_port_range"],
        json!({"start": 9080, "end": 9081}),
        "a declared protocol is not looked for"
    );
    assert_eq!(
        (&listener["max_connections_to_accept_per_socket_event"], &listener["traffic_direction"]),
        (&json!(1), &json!("INBOUND"))
    );
    let most_off = World::new(&object(
        "PeerAuthentication",
        "p",
        "selector: {matchLabels: {app: reviews}}\nmtls: {mode: DISABLE}\nportLevelMtls: {9080: {mode: STRICT}}",
    ));
    let tls = most_off.server().listener("virtualInbound")["listener_filters"][1]["filter_disabled"].clone();
    assert_eq!(tls["not_match"]["destination_port_range"], json!({"start": 9080, "end": 9081}));
}
