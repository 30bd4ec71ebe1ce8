//! What the proxy answers by itself over real sockets: status, body and headers at the client; status, flags and details
//! in the access log (spec 4.1).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;
use support::{Proxy, cluster, connect, file_log, free_port, http, listener, read_head, tcp, upstream};

const RESET: &str = "upstream connect error or disconnect/reset before headers. ";
const STARTED: &str = "upstream_reset_before_response_started";
const LOG: &str = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%";

/// The head and the body of the answer to these bytes.
fn exchange(port: u16, request: &str) -> (String, String) {
    let mut stream = connect(port);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{more}\r\n")
}

fn value<'a>(head: &'a str, header: &str) -> Option<&'a str> {
    head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| *name == header).map(|(_, value)| value)
}

/// A cluster with further fields.
fn cluster_with(name: &str, ports: &[u16], more: &str) -> String {
    cluster(name, ports).replace("type: STATIC", &format!("type: STATIC, {more}"))
}

/// A listener that takes no connection: its queue is full, and the kernel drops whoever else knocks.
struct Deaf {
    listener: socket2::Socket,
    _queue: Vec<socket2::Socket>,
}

impl Deaf {
    fn new() -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let knock = || {
            let client = socket();
            client.set_nonblocking(true).unwrap();
            // in progress, or queued at once
            drop(client.connect(&address));
            client
        };
        let queue = (0..4).map(|_| knock()).collect();
        Self { listener, _queue: queue }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().as_socket().unwrap().port()
    }
}

fn lines(path: &std::path::Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// Path, status, flags, details, body.
type Row = (&'static str, u16, &'static str, String, String);

// spec: LR-1, LR-2, LR-3, LR-4, LR-5, LR-6, LR-7, LR-8, LR-9, LR-10, LR-12, LR-13, LB-12, VS-16
#[test]
#[expect(clippy::too_many_lines, reason = "a table of situations")]
fn every_failure_has_envoys_status_flags_details_and_body() {
    let silent = upstream(|mut stream: TcpStream| {
        read_head(&mut stream);
        drop(stream.read(&mut [0]));
    });
    let closes = upstream(|mut stream: TcpStream| drop(read_head(&mut stream)));
    let babbles = upstream(|mut stream: TcpStream| {
        read_head(&mut stream);
        drop(stream.write_all(b"what is this\r\n\r\n"));
    });
    let (deaf, closed) = (Deaf::new(), free_port());
    let clusters = [
        "  - {name: none, type: STATIC}\n".to_owned(),
        cluster("refused", &[closed]),
        cluster_with("deaf", &[deaf.port()], "connect_timeout: 0.2s"),
        cluster("silent", &[silent]),
        cluster("closes", &[closes]),
        cluster("babbles", &[babbles]),
        cluster_with("full", &[silent], "circuit_breakers: {thresholds: [{max_requests: 0}]}"),
        cluster_with("no-queue", &[silent], "circuit_breakers: {thresholds: [{max_pending_requests: 0}]}"),
    ];
    let route = |path: &str, cluster: &str, more: &str| {
        format!("{{match: {{prefix: {path}}}, route: {{cluster: {cluster}, timeout: 10s{more}}}}}")
    };
    let back_off = "retry_back_off: {base_interval: 0.001s}";
    let routes = [
        route("/none", "none", ""),
        route("/refused", "refused", ""),
        route(
            "/again",
            "refused",
            &format!(", retry_policy: {{retry_on: connect-failure, num_retries: 2, {back_off}}}"),
        ),
        route("/deaf", "deaf", ""),
        route("/unknown", "unknown", ""),
        "{match: {prefix: /slow}, route: {cluster: silent, timeout: 0.1s}}".to_owned(),
        route(
            "/tries",
            "silent",
            &format!(", retry_policy: {{retry_on: 5xx, num_retries: 1, per_try_timeout: 0.05s, {back_off}}}"),
        ),
        route("/closes", "closes", ""),
        route("/babbles", "babbles", ""),
        route("/full", "full", ""),
        route("/no-queue", "no-queue", ""),
        "{match: {prefix: /direct}, direct_response: {status: 418, body: {inline_string: tea}}}".to_owned(),
        "{match: {prefix: /moved}, redirect: {path_redirect: /new, response_code: FOUND}}".to_owned(),
    ];
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let log = directory.path().join("log");
    let chain =
        format!("{{filters: [{}]}}", http(&routes.join(", "), &format!("access_log: {},", file_log(&log, LOG))));
    let yaml = format!("  - {}\n  clusters:\n{}", listener("l", port, "", &chain), clusters.concat());
    let proxy = Proxy::start(directory.path(), &yaml);

    let reset = |status, flags, path, reason: &str| -> Row {
        let reason_text = reason.split('|').next().unwrap();
        let details = format!("{STARTED}{{{}}}", reason.replace(' ', "_"));
        (path, status, flags, details, format!("{RESET}reset reason: {reason_text}"))
    };
    let plain = |path, status, flags, details: &str, body: &str| -> Row {
        (path, status, flags, details.to_owned(), body.to_owned())
    };
    let refused = "remote connection failure|delayed connect error: Connection refused";
    let (_, _, _, details, _) = reset(503, "UF", "", refused);
    let retried = format!("{RESET}retried and the latest reset reason: remote connection failure");
    let rows = [
        plain("/none", 503, "UH", "no_healthy_upstream", "no healthy upstream"),
        reset(503, "UF", "/refused", refused),
        ("/again", 503, "UF,URX", details, retried),
        reset(503, "UF", "/deaf", "connection timeout"),
        plain("/unknown", 503, "NC", "cluster_not_found", ""),
        plain("/nowhere", 404, "NR", "route_not_found", ""),
        plain("/slow", 504, "UT", "response_timeout", "upstream request timeout"),
        plain("/tries", 504, "UT,URX", "upstream_per_try_timeout", "upstream request timeout"),
        reset(503, "UC", "/closes", "connection termination"),
        reset(502, "UPE", "/babbles", "protocol error"),
        reset(503, "UO", "/full", "overflow"),
        reset(503, "UO", "/no-queue", "overflow"),
        plain("/direct", 418, "-", "direct_response", "tea"),
        plain("/moved", 302, "-", "direct_response", ""),
    ];
    for (path, status, _, _, body) in &rows {
        let (head, came) = exchange(port, &get(path, ""));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}");
        assert_eq!(came, *body, "{path}");
        let kind = (!body.is_empty()).then_some("text/plain");
        assert_eq!(value(&head, "content-type"), kind, "{path}: {head}");
        assert_eq!(value(&head, "content-length"), Some(body.len().to_string().as_str()), "{path}: {head}");
        let overloaded = body.ends_with("overflow").then_some("true");
        assert_eq!(value(&head, "x-envoy-overloaded"), overloaded, "{path}: {head}");
        let location = (*path == "/moved").then_some("http://a/new");
        assert_eq!(value(&head, "location"), location, "{path}: {head}");
    }
    proxy.quit();
    let expected: Vec<String> =
        rows.iter().map(|(path, status, flags, details, _)| format!("{path} {status} {flags} {details}")).collect();
    assert_eq!(lines(&log), expected);
}

// spec: LR-21, LR-22, LR-24, HP-2
#[test]
fn a_request_that_is_none_is_refused_and_logged() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let log = directory.path().join("log");
    let routes = "{match: {prefix: /}, direct_response: {status: 200}}";
    let format = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%";
    let chain = format!("{{filters: [{}]}}", http(routes, &format!("access_log: {},", file_log(&log, format))));
    let proxy = Proxy::start(directory.path(), &format!("  - {}\n", listener("l", port, "", &chain)));
    let fields = |count: usize| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    let big = |bytes: usize| format!("x-big: {}\r\n", "x".repeat(bytes));
    let rows = [
        // host and connection are fields as well
        (get("/", &fields(98)), 200, "200 - direct_response"),
        (get("/", &fields(99)), 431, "431 DPE http1.headers_too_large"),
        (get("/", &big(61_000)), 200, "200 - direct_response"),
        (get("/", &big(61_440)), 431, "431 DPE http1.headers_too_large"),
        (get("/", "content-length: 3\r\ntransfer-encoding: chunked\r\n"), 400, "400 DPE http1."),
        (get("/", "no colon\r\n"), 400, "400 DPE http1."),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 400, "400 - missing_host_header"),
    ];
    for (request, status, line) in &rows {
        let mut stream = connect(port);
        // refused before it was all said
        drop(stream.write_all(request.as_bytes()));
        let mut answer = vec![0; 64];
        let n = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {answer}");
        drop(stream.read_to_end(&mut Vec::new()));
    }
    proxy.quit();
    let came = lines(&log);
    assert_eq!(came.len(), rows.len(), "{came:?}");
    for (line, (_, _, expected)) in came.iter().zip(&rows) {
        assert!(line.starts_with(expected), "{line} is not {expected}");
        assert_eq!(line.len() == expected.len(), !expected.ends_with('.'), "{line}");
    }
}

const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

/// The connection manager with one more filter in front of the router.
fn with_filter(http: &str, filter: &str) -> String {
    http.replace("http_filters: [", &format!("http_filters: [{filter}, "))
}

// spec: LR-15, LR-31, AZ-18
#[test]
fn a_denial_and_every_failure_have_a_form_for_grpc_clients() {
    let (directory, deny, allow) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let log = directory.path().join("log");
    let rules = |action: &str, policies: &str| {
        format!(
            "{{name: envoy.filters.http.rbac, typed_config: {{'@type': {RBAC}, rules: {{action: {action}, policies: {policies}}}}}}}"
        )
    };
    let path = |path: &str| {
        format!("{{permissions: [{{url_path: {{path: {{prefix: {path}}}}}}}], principals: [{{any: true}}]}}")
    };
    let statuses = [
        (400, "13"),
        (401, "16"),
        (403, "7"),
        (404, "12"),
        (429, "14"),
        (500, "2"),
        (502, "14"),
        (503, "14"),
        (504, "14"),
    ];
    let direct = statuses.map(|(status, _)| {
        format!("{{match: {{prefix: /{status}}}, direct_response: {{status: {status}, body: {{inline_string: why}}}}}}")
    });
    let routes = format!("{}, {{match: {{prefix: /none}}, route: {{cluster: none}}}}", direct.join(", "));
    let manager = http(&routes, &format!("access_log: {},", file_log(&log, LOG)));
    let denying = with_filter(&manager, &rules("DENY", &format!("{{'ns[n]-policy[p]-rule[0]': {}}}", path("/denied"))));
    let allowing = with_filter(&manager, &rules("ALLOW", &format!("{{some: {}}}", path("/none"))));
    let yaml = format!(
        "  - {}\n  - {}\n  clusters:\n  - {{name: none, type: STATIC}}\n",
        listener("deny", deny, "", &format!("{{filters: [{denying}]}}")),
        listener("allow", allow, "", &format!("{{filters: [{allowing}]}}"))
    );
    let proxy = Proxy::start(directory.path(), &yaml);
    for (port, path) in [(deny, "/denied"), (allow, "/other")] {
        let (head, body) = exchange(port, &get(path, ""));
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        assert_eq!((body.as_str(), value(&head, "content-type")), ("RBAC: access denied", Some("text/plain")));
    }
    let grpc = "content-type: application/grpc\r\n";
    let rows = [
        (deny, "/denied", "7", Some("RBAC: access denied")),
        (allow, "/other", "7", Some("RBAC: access denied")),
        (allow, "/none", "14", Some("no healthy upstream")),
        (deny, "/nowhere", "12", None),
    ];
    for (port, path, status, message) in rows {
        let (head, body) = exchange(port, &get(path, grpc));
        assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{path}: {head} {body}");
        assert_eq!(value(&head, "content-type"), Some("application/grpc"), "{path}");
        assert_eq!((value(&head, "grpc-status"), value(&head, "grpc-message")), (Some(status), message), "{path}");
    }
    for (status, code) in statuses {
        let (head, body) = exchange(deny, &get(&format!("/{status}"), grpc));
        assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{status}: {head} {body}");
        assert_eq!((value(&head, "grpc-status"), value(&head, "grpc-message")), (Some(code), Some("why")), "{status}");
    }
    proxy.quit();
    let denied = "rbac_access_denied_matched_policy";
    let expected = [
        format!("/denied 403 - {denied}[ns[n]-policy[p]-rule[0]]"),
        format!("/other 403 - {denied}[none]"),
        format!("/denied 200 - {denied}[ns[n]-policy[p]-rule[0]]"),
        format!("/other 200 - {denied}[none]"),
        "/none 200 UH no_healthy_upstream".to_owned(),
        "/nowhere 200 NR route_not_found".to_owned(),
    ];
    assert_eq!(lines(&log)[..expected.len()], expected);
}

// spec: LR-27
#[test]
fn a_client_that_goes_away_ends_its_stream_and_is_logged() {
    let (gone, left) = mpsc::channel();
    let (came, asked) = mpsc::channel();
    let up = upstream(move |mut stream: TcpStream| {
        read_head(&mut stream);
        came.send(()).unwrap();
        gone.send(stream.read(&mut [0]).is_ok_and(|n| n == 0)).unwrap();
    });
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let log = directory.path().join("log");
    let routes = "{match: {prefix: /}, route: {cluster: up}}";
    let chain = format!("{{filters: [{}]}}", http(routes, &format!("access_log: {},", file_log(&log, LOG))));
    let yaml = format!("  - {}\n  clusters:\n{}", listener("l", port, "", &chain), cluster("up", &[up]));
    let proxy = Proxy::start(directory.path(), &yaml);
    let mut client = connect(port);
    client.write_all(b"GET /left HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let patience = Duration::from_secs(20);
    asked.recv_timeout(patience).unwrap();
    drop(client);
    assert!(left.recv_timeout(patience).unwrap(), "the upstream's connection is closed");
    proxy.quit();
    assert_eq!(lines(&log), ["/left 0 DC downstream_remote_disconnect"]);
}

// spec: LR-32, TC-1
#[test]
fn a_tcp_client_without_an_upstream_is_reset() {
    let (directory, closed) = (tempfile::tempdir().unwrap(), free_port());
    let log = directory.path().join("log");
    let names = ["none", "unknown", "refused"];
    let ports = names.map(|_| free_port());
    let items = names.iter().zip(ports).map(|(name, port)| {
        let fields = format!("cluster: {name}, access_log: {}", file_log(&log, &format!("{name} %RESPONSE_FLAGS%")));
        format!("  - {}\n", listener(name, port, "", &format!("{{filters: [{}]}}", tcp(&fields))))
    });
    let yaml = format!(
        "{}  clusters:\n  - {{name: none, type: STATIC}}\n{}",
        items.collect::<String>(),
        cluster("refused", &[closed])
    );
    let proxy = Proxy::start(directory.path(), &yaml);
    for (name, port) in names.iter().zip(ports) {
        let mut client = connect(port);
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{name}");
    }
    proxy.quit();
    assert_eq!(lines(&log), ["none UH", "unknown NC", "refused UF,URX"]);
}
