//! What a request leaves behind: its line in the access log and its place in Istio's metrics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::Duration;
use support::{Proxy, cluster, connect, free_port, http, listener, read_head, tcp, upstream};

/// Istio's fields in JSON.
const FIELDS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// An application that reads five bytes and answers with seven, 30 ms later.
fn app() -> u16 {
    upstream(|mut stream: TcpStream| {
        read_head(&mut stream);
        stream.read_exact(&mut [0; 5]).unwrap();
        drop(stream.set_read_timeout(Some(Duration::from_millis(30))));
        drop(stream.read(&mut [0]));
        drop(stream.write_all(b"HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: 7\r\n\r\nanswers"));
    })
}

fn post(port: u16, path: &str, more: &str) -> (u16, String) {
    let mut stream = connect(port);
    let own = stream.local_addr().unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: shop.test\r\ncontent-length: 5\r\nconnection: close\r\n{more}\r\nhello");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (own.port(), answer)
}

// spec: AL-1, AL-2, HD-9
#[test]
fn the_access_log_says_everything_of_a_request() {
    let directory = tempfile::tempdir().unwrap();
    let (log, port, up, closed) = (directory.path().join("log"), free_port(), app(), free_port());
    let fields: String = FIELDS.iter().map(|(key, value)| format!("{key}: '{value}', ")).collect();
    let access = format!(
        "access_log: [{{name: f, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, \
         path: {}, log_format: {{json_format: {{{fields}}}}}}}}}],",
        log.display()
    );
    let routes = "{name: named, match: {prefix: /old}, route: {cluster: up, prefix_rewrite: /new}}, \
                  {match: {prefix: /down}, route: {cluster: down}}";
    let chain = format!("{{filters: [{}]}}", http(routes, &access));
    let clusters = [cluster("up", &[up]), cluster("down", &[closed])].concat();
    let yaml = format!("  - {}\n  clusters:\n{clusters}", listener("l", port, "", &chain));
    let proxy = Proxy::start(directory.path(), &yaml);
    let (own, answer) = post(port, "/old?q", "user-agent: curl\r\nx-request-id: id-1\r\nx-forwarded-for: 9.9.9.9\r\n");
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    let (plain, _) = post(port, "/down", "");
    proxy.quit();
    let log = std::fs::read_to_string(log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = &lines[0];
    assert_eq!(line.as_object().unwrap().len(), 24);
    let expected = json!({"route_name": "named", "method": "POST", "path": "/old?q", "protocol": "HTTP/1.1", "response_code": 201,
        "response_flags": "-", "response_code_details": "via_upstream", "connection_termination_details": null,
        "bytes_received": 5, "bytes_sent": 7, "x_forwarded_for": "9.9.9.9", "user_agent": "curl", "request_id": "id-1",
        "authority": "shop.test", "upstream_host": format!("127.0.0.1:{up}"), "upstream_cluster": "up",
        "downstream_local_address": format!("127.0.0.1:{port}"), "downstream_remote_address": "9.9.9.9:0",
        "requested_server_name": null, "upstream_transport_failure_reason": null});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key}: {line}");
    }
    let took = line["upstream_service_time"].as_str().map(|text| text.parse::<u64>().unwrap());
    assert!(took.is_some_and(|took| took <= line["duration"].as_u64().unwrap()), "{line}");
    assert!(line["upstream_local_address"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    let start = line["start_time"].as_str().unwrap();
    assert!(start.len() == 24 && start.ends_with('Z'), "{start}");
    let failed = &lines[1];
    let expected = json!({"route_name": null, "response_code": 503, "response_flags": "UF", "upstream_cluster": "down",
        "upstream_transport_failure_reason": "delayed_connect_error:_Connection_refused", "upstream_service_time": null,
        "upstream_host": format!("127.0.0.1:{closed}"), "downstream_remote_address": format!("127.0.0.1:{plain}")});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&failed[key], value, "{key}: {failed}");
    }
    assert_ne!(own, plain);
}

/// The value of the series whose line has all of these.
fn series(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let fits = |line: &&str| line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label));
    text.lines().find(fits).and_then(|line| line.rsplit(' ').next()?.parse().ok())
}

/// A listener of each direction with the metrics filter, and one for bytes; requests below `/left` go to `silent`.
fn counted([outbound, inbound, bytes]: [u16; 3], silent: u16) -> String {
    let stats = "{name: istio.stats, typed_config: {'@type': type.googleapis.com/stats.PluginConfig}}";
    let refusing = "{name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, \
                    rules: {action: DENY, policies: {no: {permissions: [{url_path: {path: {exact: /up/no}}}], principals: [{any: true}]}}}}}";
    let routes = "{match: {prefix: /up}, route: {cluster: 'outbound|80||shop.test'}}, \
                  {match: {prefix: /gone}, route: {cluster: gone}}, {match: {prefix: /left}, route: {cluster: silent}}";
    let manager = http(routes, "").replace("http_filters: [", &format!("http_filters: [{stats}, {refusing}, "));
    let chain = format!("{{filters: [{manager}]}}");
    let of_bytes = format!("{{filters: [{stats}, {}]}}", tcp("cluster: bytes"));
    let service = "type: STATIC, metadata: {filter_metadata: {istio: {services: [{host: shop.test, name: shop, namespace: market}]}}}";
    let echo = upstream(|mut stream: TcpStream| {
        let mut text = [0; 3];
        stream.read_exact(&mut text).unwrap();
        drop(stream.write_all(b"12345"));
    });
    let clusters = [
        cluster("'outbound|80||shop.test'", &[app()]).replace("type: STATIC", service),
        cluster("bytes", &[echo]),
        cluster("silent", &[silent]),
    ]
    .concat();
    format!(
        "  - {}\n  - {}\n  - {}\n  clusters:\n{clusters}",
        listener("out", outbound, "traffic_direction: OUTBOUND,", &chain),
        listener("in", inbound, "traffic_direction: INBOUND,", &chain),
        listener("bytes", bytes, "traffic_direction: OUTBOUND,", &of_bytes)
    )
}

// spec: TM-1, TM-2, TM-3, TM-5, TM-6, LBL-1, LBL-3, LBL-5, LBL-6
#[test]
fn requests_and_connections_are_counted_on_the_side_that_sees_them() {
    let directory = tempfile::tempdir().unwrap();
    let (outbound, inbound, bytes) = (free_port(), free_port(), free_port());
    let (seen, left) = channel();
    let silent = upstream(move |mut stream: TcpStream| {
        read_head(&mut stream);
        seen.send(()).unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let yaml = counted([outbound, inbound, bytes], silent);
    let proxy = Proxy::start(directory.path(), &yaml);
    for _ in 0..2 {
        post(outbound, "/up", "");
    }
    post(outbound, "/gone", "");
    post(inbound, "/up", "");
    assert!(post(inbound, "/up/no", "").1.starts_with("HTTP/1.1 403"));
    let mut client = connect(outbound);
    client.write_all(b"GET /left HTTP/1.1\r\nhost: shop.test\r\n\r\n").unwrap();
    left.recv().unwrap();
    drop(client);
    let mut stream = connect(bytes);
    stream.write_all(b"abc").unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    drop(stream);
    let closed = |text: &str| series(text, "istio_tcp_connections_closed_total", &["reporter=\"source\""]) == Some(1.0);
    let gone = ["reporter=\"source\"", "response_code=\"0\"", "response_flags=\"DC\""];
    let done = |text: &str| closed(text) && series(text, "istio_requests_total", &gone) == Some(1.0);
    proxy.until(|proxy| proxy.admin("GET", "/stats/prometheus").is_some_and(|text| done(&text)));
    let text = proxy.admin("GET", "/stats/prometheus").unwrap();
    let source = [
        "reporter=\"source\"",
        "response_code=\"201\"",
        "request_protocol=\"http\"",
        "response_flags=\"-\"",
        "destination_service=\"shop.test\"",
        "destination_service_name=\"shop\"",
        "destination_service_namespace=\"market\"",
        "connection_security_policy=\"unknown\"",
        "grpc_response_status=\"\"",
    ];
    assert_eq!(series(&text, "istio_requests_total", &source), Some(2.0), "{text}");
    assert_eq!(
        series(
            &text,
            "istio_requests_total",
            &["reporter=\"source\"", "response_code=\"503\"", "response_flags=\"NC\""]
        ),
        Some(1.0)
    );
    let server = ["reporter=\"destination\"", "response_code=\"201\"", "connection_security_policy=\"none\""];
    assert_eq!(series(&text, "istio_requests_total", &server), Some(1.0), "{text}");
    let refused = ["reporter=\"destination\"", "response_code=\"403\"", "destination_service_name=\"shop\""];
    assert_eq!(series(&text, "istio_requests_total", &refused), Some(1.0), "who was asked is known: {text}");
    let of_source = ["reporter=\"source\"", "response_code=\"201\""];
    for name in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
        assert_eq!(series(&text, &format!("{name}_count"), &of_source), Some(2.0), "{name}");
    }
    for (name, least) in [("istio_request_bytes_sum", 2.0 * 5.0), ("istio_response_bytes_sum", 2.0 * 7.0)] {
        let sum = series(&text, name, &of_source).unwrap();
        assert!(sum >= least && sum < 2000.0, "{name} {sum}");
    }
    let took = series(&text, "istio_request_duration_milliseconds_sum", &of_source);
    assert!(took.is_some_and(|took| (60.0..10_000.0).contains(&took)), "{took:?}");
    let tcp = ["reporter=\"source\"", "request_protocol=\"tcp\"", "response_flags=\"-\""];
    for (name, value) in [("connections_opened", 1.0), ("received_bytes", 3.0), ("sent_bytes", 5.0)] {
        assert_eq!(series(&text, &format!("istio_tcp_{name}_total"), &tcp), Some(value), "{name}: {text}");
    }
}

// spec: ST-4
#[test]
fn open_connections_of_all_listeners_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let ports = [free_port(), free_port(), free_port()];
    let proxy = Proxy::start(directory.path(), &counted(ports, free_port()));
    let open = |count: usize| {
        let wanted = format!("server.total_connections: {count}\n");
        proxy.until(|proxy| proxy.admin("GET", "/stats?filter=total_connections").unwrap().ends_with(&wanted));
    };
    let mut clients: Vec<TcpStream> = ports.iter().map(|port| connect(*port)).collect();
    open(3);
    clients.pop();
    open(2);
    drop(clients);
    open(0);
}
