//! What becomes of a request on its way through: headers, path and host, the route and the tries it takes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Proxy, cluster, connect, file_log, free_port, http, listener, read_head, upstream};

/// An application that answers with the head that it got, behind its own name.
fn echo(name: &'static str) -> u16 {
    upstream(move |mut stream: TcpStream| {
        let head = format!("{name} {}", read_head(&mut stream));
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        drop(stream.write_all(answer.as_bytes()));
    })
}

/// The head and body of the answer to a request with these further lines.
fn ask(port: u16, line: &str, more: &str) -> (String, String) {
    let mut stream = connect(port);
    stream.write_all(format!("{line} HTTP/1.1\r\nconnection: close\r\n{more}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn values<'a>(text: &'a str, header: &str) -> Vec<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once(": "));
    pairs.filter(|(name, _)| *name == header).map(|(_, value)| value).collect()
}

/// A proxy with one listener per connection manager; their ports.
fn start(directory: &std::path::Path, managers: &[String], clusters: &str) -> (Proxy, Vec<u16>) {
    let ports: Vec<u16> = managers.iter().map(|_| free_port()).collect();
    let listeners = managers.iter().zip(&ports).map(|(manager, port)| {
        format!("  - {}\n", listener(&format!("l{port}"), *port, "", &format!("{{filters: [{manager}]}}")))
    });
    let yaml = format!("{}  clusters:\n{clusters}", listeners.collect::<String>());
    (Proxy::start(directory, &yaml), ports)
}

// spec: HD-1, HD-2, HD-3, HD-14, HD-15
#[test]
fn an_edge_and_a_sidecar_treat_what_the_client_says_differently() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let manager = |more: &str| {
        let format = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%";
        let logged = format!("{more} access_log: {},", file_log(&log, format));
        http("{match: {prefix: /}, route: {cluster: up}}", &logged)
    };
    let managers = [
        manager(""),
        manager("use_remote_address: true, server_name: istio-envoy,"),
        manager("use_remote_address: true, xff_num_trusted_hops: 1, always_set_request_id_in_response: true,"),
        manager("xff_num_trusted_hops: 1,"),
    ];
    let (proxy, ports) = start(directory.path(), &managers, &cluster("up", &[echo("up")]));
    let said = "host: a\r\nx-request-id: mine\r\nx-forwarded-for: 1.1.1.1, 2.2.2.2\r\nx-forwarded-proto: https\r\n\
                x-envoy-expected-rq-timeout-ms: 1\r\nkeep-alive: 1\r\nproxy-connection: x\r\nte: trailers\r\nx-hop: 1\r\n";
    let (head, sidecar) = ask(ports[0], "GET /", &said.replace("host: a", "host: a\r\nconnection: x-hop"));
    assert_eq!(values(&head, "server"), ["envoy"]);
    assert!(values(&head, "x-request-id").is_empty(), "not asked for: {head}");
    assert_eq!(values(&sidecar, "x-request-id"), ["mine"]);
    assert_eq!(values(&sidecar, "x-forwarded-for"), ["1.1.1.1, 2.2.2.2"]);
    assert_eq!(values(&sidecar, "x-forwarded-proto"), ["https"]);
    assert!(values(&sidecar, "x-envoy-external-address").is_empty());
    assert_eq!(values(&sidecar, "te"), ["trailers"]);
    for gone in ["keep-alive", "proxy-connection", "x-hop", "connection"] {
        assert!(values(&sidecar, gone).iter().all(|value| *value == "close"), "{gone}: {sidecar}");
    }
    let left = values(&sidecar, "x-envoy-expected-rq-timeout-ms");
    assert_eq!(left, ["15000"], "the route's own");
    let (head, edge) = ask(ports[1], "GET /", said);
    assert_eq!(values(&head, "server"), ["istio-envoy"]);
    let id = values(&edge, "x-request-id")[0];
    assert!(id != "mine" && id.len() == 36, "{id}");
    assert_eq!(values(&edge, "x-forwarded-for"), ["1.1.1.1, 2.2.2.2,127.0.0.1"]);
    assert_eq!(values(&edge, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&edge, "x-envoy-external-address"), ["127.0.0.1"]);
    let (head, behind) = ask(ports[2], "GET /", said);
    assert_eq!(values(&behind, "x-envoy-external-address"), ["2.2.2.2"]);
    assert_eq!(values(&head, "x-request-id"), values(&behind, "x-request-id"), "asked for");
    ask(ports[3], "GET /", said);
    let (_, made) = ask(ports[0], "GET /", "host: a\r\n");
    let id = values(&made, "x-request-id")[0];
    assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{id}");
    assert_eq!(values(&made, "x-forwarded-proto"), ["http"]);
    assert!(values(&made, "x-forwarded-for").is_empty());
    proxy.quit();
    let log = std::fs::read_to_string(log).unwrap();
    let clients: Vec<&str> = log.lines().map(|line| line.strip_suffix(" 127.0.0.1").unwrap()).collect();
    assert_eq!(clients, ["2.2.2.2", "127.0.0.1", "2.2.2.2", "1.1.1.1", "127.0.0.1"]);
}

// spec: HD-17, HD-18, HD-20, VS-3, VS-6, VS-8, VS-16, VS-18, VS-22, VS-23, AZ-21
#[test]
fn a_path_is_made_canonical_before_the_route_and_rewritten_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let headers = "request_headers_to_add: [{header: {key: x-set, value: new}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}, \
                   {header: {key: x-add, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% 100%%'}, append_action: APPEND_IF_EXISTS_OR_ADD}], \
                   request_headers_to_remove: [x-remove], \
                   response_headers_to_add: [{header: {key: x-answer, value: '%RESPONSE_CODE%'}}]";
    let routes = format!(
        "{{match: {{path: /exact}}, route: {{cluster: one}}}}, \
         {{match: {{prefix: /old, headers: [{{name: end-user, string_match: {{exact: jason}}}}]}}, route: {{cluster: two}}}}, \
         {{match: {{prefix: /old}}, route: {{cluster: one, prefix_rewrite: /new, host_rewrite_literal: b}}, {headers}}}"
    );
    let base = "normalize_path: true, merge_slashes: true,";
    let only = |manager: String| {
        manager
            .replace("domains: ['*']", "domains: [a]")
            .replace("route_config: {", "route_config: {ignore_port_in_host_matching: true, ")
    };
    let managers = [only(http(&routes, base)), http(&routes, "")];
    let clusters = format!("{}{}", cluster("one", &[echo("one")]), cluster("two", &[echo("two")]));
    let (_proxy, ports) = start(directory.path(), &managers, &clusters);
    let first = |port: u16, path: &str, more: &str| {
        let (head, body) = ask(port, &format!("GET {path}"), more);
        let status = head.split(' ').nth(1).unwrap().to_owned();
        let line = body.lines().next().unwrap_or_default().replace(" HTTP/1.1", "");
        if status == "200" { line } else { status }
    };
    let a = "host: a\r\n";
    assert_eq!(first(ports[0], "/exact?x=1", a), "one GET /exact?x=1");
    assert_eq!(first(ports[0], "/other/..//%65xact", "host: a:8080\r\n"), "one GET /exact");
    assert_eq!(first(ports[1], "/other/..//%65xact", a), "404", "nothing is made canonical here");
    assert_eq!(first(ports[0], "/exact", "host: b\r\n"), "404");
    assert_eq!(first(ports[0], "/../exact", a), "400");
    assert_eq!(first(ports[0], "/older?q", "host: a\r\nend-user: jason\r\n"), "two GET /older?q");
    assert_eq!(first(ports[0], "/older?q", a), "one GET /newer?q");
    let (head, body) = ask(ports[0], "GET /old", "host: a\r\nx-set: old\r\nx-add: before\r\nx-remove: 1\r\n");
    assert_eq!(values(&body, "host"), ["b"]);
    assert_eq!((values(&body, "x-set"), values(&body, "x-add")), (vec!["new"], vec!["before", "127.0.0.1 100%"]));
    assert!(values(&body, "x-remove").is_empty());
    assert_eq!(values(&head, "x-answer"), ["200"]);
    assert_eq!(
        (values(&body, "x-envoy-original-path"), values(&body, "x-envoy-original-host")),
        (vec!["/old"], vec!["a"])
    );
    for bad in ["x-a\u{0}b: 1\r\n", "x: a\u{0}b\r\n", "x: a\rb\r\n", "x y: 1\r\n"] {
        assert_eq!(first(ports[0], "/exact", &format!("{a}{bad}")), "400", "{bad:?}");
    }
}

/// Statuses that an application gives one after the other, the last for ever; counts requests and their bytes.
fn scripted(statuses: &'static [(u16, &'static str)], asked: &Arc<AtomicUsize>) -> u16 {
    let asked = Arc::clone(asked);
    upstream(move |mut stream: TcpStream| {
        let head = read_head(&mut stream);
        let length = values(&head, "content-length").first().map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let earlier = asked.fetch_add(1, Ordering::SeqCst);
        let (status, more) = statuses[earlier.min(statuses.len() - 1)];
        let attempt = values(&head, "x-envoy-attempt-count").concat();
        let left = values(&head, "x-envoy-expected-rq-timeout-ms").concat();
        let answer = format!(
            "HTTP/1.1 {status} X\r\nx-attempt: {attempt}\r\nx-left: {left}\r\n{more}connection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        drop(stream.write_all(answer.as_bytes()));
        drop(stream.write_all(&body));
    })
}

// spec: RT-1, RT-2, RT-3, RT-12, VS-26, VS-28, VS-32, HD-8
#[test]
fn what_an_answer_says_decides_whether_it_is_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let default = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
    // condition, further fields of the policy, script, number of requests, final status
    type Script = &'static [(u16, &'static str)];
    let rows: [(&str, &str, Script, usize, u16); 17] = [
        ("5xx", "", &[(500, ""), (200, "")], 2, 200),
        ("5xx", "", &[(404, "")], 1, 404),
        ("5xx", "", &[(503, "")], 2, 503),
        ("5xx", "num_retries: 3", &[(503, "")], 4, 503),
        ("5xx", "num_retries: 0", &[(503, "")], 1, 503),
        ("gateway-error", "", &[(500, "")], 1, 500),
        ("gateway-error", "", &[(504, ""), (200, "")], 2, 200),
        ("retriable-4xx", "", &[(409, ""), (200, "")], 2, 200),
        ("retriable-4xx", "", &[(400, "")], 1, 400),
        ("envoy-ratelimited", "", &[(429, "x-envoy-ratelimited: true\r\n"), (200, "")], 2, 200),
        ("envoy-ratelimited", "", &[(429, "")], 1, 429),
        (default, "num_retries: 2", &[(503, "")], 1, 503),
        (default, "retriable_status_codes: [503]", &[(503, ""), (200, "")], 2, 200),
        (default, "", &[(200, "grpc-status: 14\r\n"), (200, "grpc-status: 0\r\n")], 2, 200),
        ("retriable-headers", "retriable_headers: [{name: x-again}]", &[(200, "x-again: 1\r\n"), (201, "")], 2, 201),
        ("5xx", "", &[(503, "x-envoy-overloaded: true\r\n")], 1, 503),
        ("5xx", "retriable_request_headers: [{name: x-repeat}]", &[(503, "")], 1, 503),
    ];
    let (mut clusters, mut routes, mut counters) = (String::new(), Vec::new(), Vec::new());
    for (index, (on, more, script, ..)) in rows.iter().enumerate() {
        let asked = Arc::new(AtomicUsize::new(0));
        clusters.push_str(&cluster(&format!("c{index}"), &[scripted(script, &asked)]));
        counters.push(asked);
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        routes.push(format!(
            "{{match: {{path: /{index}}}, route: {{cluster: c{index}, timeout: 10s, retry_policy: {{retry_on: '{on}', retry_back_off: {{base_interval: 0.001s}}{more}}}}}}}"
        ));
    }
    let manager = http(&routes.join(", "), "").replace(
        "domains: ['*'],",
        "domains: ['*'], include_request_attempt_count: true, include_attempt_count_in_response: true,",
    );
    let (_proxy, ports) = start(directory.path(), &[manager], &clusters);
    let body = "x".repeat(1000);
    for (index, (on, more, _, tries, status)) in rows.iter().enumerate() {
        let name = format!("{index}: {on} {more}");
        let mut stream = connect(ports[0]);
        let request =
            format!("POST /{index} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        assert_eq!(counters[index].load(Ordering::SeqCst), *tries, "{name}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{name}: the whole body was sent in each try");
        let told = [values(&answer, "x-attempt"), values(&answer, "x-envoy-attempt-count")].concat();
        assert_eq!(told, [tries.to_string().as_str(); 2], "{name}: {answer}");
        let left: u64 = values(&answer, "x-left").concat().parse().unwrap();
        assert!((5000..=10_000).contains(&left), "{name}: {left}");
    }
}

// spec: RT-12
#[test]
fn an_answer_that_has_begun_is_not_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let breaks = upstream(move |mut stream: TcpStream| {
        read_head(&mut stream);
        counter.fetch_add(1, Ordering::SeqCst);
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"));
    });
    let retry = "retry_policy: {retry_on: 'reset,5xx,connect-failure', num_retries: 3, retry_back_off: {base_interval: 0.001s}}";
    let routes = format!("{{match: {{prefix: /}}, route: {{cluster: breaks, {retry}}}}}");
    let (_proxy, ports) = start(directory.path(), &[http(&routes, "")], &cluster("breaks", &[breaks]));
    let mut stream = connect(ports[0]);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // it ends before its length is reached
    drop(stream.read_to_end(&mut answer));
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nhalf"), "{answer}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

// spec: RT-3, RT-4
#[test]
fn a_body_over_the_limit_is_sent_once_and_tries_are_spaced_out() {
    let directory = tempfile::tempdir().unwrap();
    let [large, spaced, told] = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let retry =
        |back_off: &str| format!("retry_policy: {{retry_on: 5xx, num_retries: 3, retry_back_off: {{{back_off}}}}}");
    let routes = format!(
        "{{match: {{prefix: /large}}, request_body_buffer_limit: 100, route: {{cluster: large, {}}}}}, \
         {{match: {{prefix: /spaced}}, route: {{cluster: spaced, {}}}}}, \
         {{match: {{prefix: /asked}}, route: {{cluster: told, retry_policy: {{retry_on: 5xx, retry_back_off: {{base_interval: 0.001s}}, \
         rate_limited_retry_back_off: {{reset_headers: [{{name: Retry-After, format: SECONDS}}]}}}}}}}}",
        retry("base_interval: 0.001s"),
        retry("base_interval: 0.1s, max_interval: 0.1s")
    );
    let clusters = format!(
        "{}{}{}",
        cluster("told", &[scripted(&[(503, "retry-after: 1\r\n")], &told)]),
        cluster("large", &[scripted(&[(503, "")], &large)]),
        cluster("spaced", &[scripted(&[(503, "")], &spaced)])
    );
    let (_proxy, ports) = start(directory.path(), &[http(&routes, "")], &clusters);
    let post = |path: &str, size: usize| {
        let mut stream = connect(ports[0]);
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b'x'; size]).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    };
    post("/large", 100);
    assert_eq!(large.swap(0, Ordering::SeqCst), 4, "at the limit it is kept");
    post("/large", 101);
    assert_eq!(large.load(Ordering::SeqCst), 1, "over the limit it is not");
    // twenty requests with three back-offs of 0 to 100 ms each; below 1 s in all is a chance of 1 in 10^12
    let began = Instant::now();
    (0..20).for_each(|_| post("/spaced", 1));
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(spaced.load(Ordering::SeqCst), 80);
    let began = Instant::now();
    post("/asked", 1);
    assert!(began.elapsed() > Duration::from_secs(1), "the upstream asks for a second: {:?}", began.elapsed());
    assert_eq!(told.load(Ordering::SeqCst), 2);
}

// spec: RT-5, VS-25, VS-27, HD-21
#[test]
fn all_tries_together_have_the_routes_time_and_each_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let silent = upstream(move |mut stream: TcpStream| {
        read_head(&mut stream);
        counter.fetch_add(1, Ordering::SeqCst);
        drop(stream.read(&mut [0]));
    });
    let slow = upstream(|mut stream: TcpStream| {
        read_head(&mut stream);
        // half a second of silence, then an answer
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        drop(stream.read(&mut [0]));
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"));
    });
    let tries = |timeout: &str, each: &str| {
        format!(
            "timeout: {timeout}, retry_policy: {{retry_on: 5xx, num_retries: 5, per_try_timeout: {each}, retry_back_off: {{base_interval: 0.001s}}}}"
        )
    };
    let route = |path: &str, cluster: &str, more: &str| {
        format!("{{match: {{prefix: {path}}}, route: {{cluster: {cluster}, {more}}}}}")
    };
    let routes = [
        route("/each", "silent", &tries("20s", "0.05s")),
        route("/all", "silent", &tries("0.3s", "0.1s")),
        route("/none", "slow", "timeout: 0s"),
        route("/some", "slow", "timeout: 0.1s"),
        route("/within", "silent", &tries("0.2s", "10s")),
        route("/old", "silent", "timeout: 0s, max_grpc_timeout: 0s"),
        route("/told", "silent", "timeout: 0s, max_stream_duration: {grpc_timeout_header_max: 0s}"),
    ]
    .join(", ");
    let clusters = format!("{}{}", cluster("silent", &[silent]), cluster("slow", &[slow]));
    let (_proxy, ports) = start(directory.path(), &[http(&routes, "")], &clusters);
    let status = |path: &str, more: &str| {
        let (head, body) = ask(ports[0], &format!("GET {path}"), &format!("host: a\r\n{more}"));
        let grpc = values(&head, "grpc-status").concat();
        (head.split(' ').nth(1).unwrap().to_owned() + &grpc, body)
    };
    let late = ("504".to_owned(), "upstream request timeout".to_owned());
    assert_eq!(status("/each", ""), late);
    assert_eq!(asked.swap(0, Ordering::SeqCst), 6);
    assert_eq!(status("/all", ""), late);
    let tries = asked.load(Ordering::SeqCst);
    assert!((2..=4).contains(&tries), "{tries} tries of 100 ms in 300 ms");
    let began = Instant::now();
    assert_eq!(status("/within", ""), late);
    assert!(began.elapsed() < Duration::from_secs(8), "the time of a try does not extend the route's");
    assert_eq!(status("/old", "content-type: application/grpc\r\ngrpc-timeout: 100m\r\n").0, "20014");
    assert_eq!(status("/none", "").0, "200");
    assert_eq!(status("/some", ""), late);
    let began = Instant::now();
    let grpc = "content-type: application/grpc\r\ngrpc-timeout: 100m\r\n";
    assert_eq!(status("/told", grpc), ("2004".to_owned(), String::new()), "DEADLINE_EXCEEDED");
    assert!(began.elapsed() >= Duration::from_millis(100));
}

// spec: VS-17, LB-1, LB-2, LB-3, DR-2
#[test]
fn load_is_shared_by_weight_and_policy() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (echo("one"), echo("two"));
    let policy = |name: &str, policy: &str| {
        cluster(name, &[one, two]).replace("type: STATIC", &format!("type: STATIC, lb_policy: {policy}"))
    };
    let clusters = [
        cluster("one", &[one]),
        cluster("two", &[two]),
        policy("rr", "ROUND_ROBIN"),
        policy("lr", "LEAST_REQUEST"),
        policy("rnd", "RANDOM"),
    ]
    .concat();
    let routes = ["rr", "lr", "rnd"].map(|name| format!("{{match: {{prefix: /{name}}}, route: {{cluster: {name}}}}}"));
    let split = "{match: {prefix: /split}, route: {weighted_clusters: {clusters: [{name: one, weight: 3}, {name: two, weight: 1}]}}}";
    let manager = http(&format!("{}, {split}", routes.join(", ")), "");
    let (_proxy, ports) = start(directory.path(), &[manager], &clusters);
    let names = |path: &str, n: usize| -> Vec<bool> {
        (0..n).map(|_| ask(ports[0], &format!("GET {path}"), "host: a\r\n").1.starts_with("one ")).collect()
    };
    let turns = names("/rr", 20);
    assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "one after the other: {turns:?}");
    for path in ["/lr", "/rnd"] {
        let picks = names(path, 60);
        let first = picks.iter().filter(|one| **one).count();
        assert!((8..=52).contains(&first), "{path}: {first} of 60");
        assert!(picks.windows(2).any(|pair| pair[0] == pair[1]), "{path}: no turns");
    }
    let first = names("/split", 400).iter().filter(|one| **one).count();
    // 300 are expected, standard deviation 9
    assert!((245..=355).contains(&first), "{first} of 400");
}

/// The settings that an HTTP/2 server begins with, by their numbers.
fn settings(port: u16) -> std::collections::BTreeMap<u16, u32> {
    let mut stream = connect(port);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "SETTINGS");
    let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut body).unwrap();
    let pair = |b: &[u8]| (u16::from_be_bytes([b[0], b[1]]), u32::from_be_bytes([b[2], b[3], b[4], b[5]]));
    body.chunks(6).map(pair).collect()
}

// spec: HP-2, LR-28
#[test]
fn connections_and_streams_have_the_limits_that_are_configured() {
    let directory = tempfile::tempdir().unwrap();
    let silent = upstream(|mut stream: TcpStream| {
        read_head(&mut stream);
        drop(stream.read(&mut [0]));
    });
    let routes = "{match: {prefix: /}, route: {cluster: silent, timeout: 0s}}";
    let managers = [
        http(routes, ""),
        http(routes, "http2_protocol_options: {max_concurrent_streams: 7, initial_stream_window_size: 70000},"),
        http(routes, "common_http_protocol_options: {idle_timeout: 0.2s},"),
        http(routes, "stream_idle_timeout: 0.2s,"),
    ];
    let (_proxy, ports) = start(directory.path(), &managers, &cluster("silent", &[silent]));
    let (plain, set) = (settings(ports[0]), settings(ports[1]));
    assert_eq!((plain.get(&3), set.get(&3)), (Some(&1024), Some(&7)), "MAX_CONCURRENT_STREAMS");
    assert_eq!(set.get(&4), Some(&70_000), "INITIAL_WINDOW_SIZE");
    let began = Instant::now();
    assert_eq!(connect(ports[2]).read(&mut [0]).unwrap(), 0, "a connection without a request is closed");
    assert!(began.elapsed() >= Duration::from_millis(200));
    let (head, body) = ask(ports[3], "GET /", "host: a\r\n");
    assert!(head.starts_with("HTTP/1.1 504 ") && body == "stream timeout", "{head} {body}");
    let (head, _) = ask(ports[3], "POST /", "host: a\r\ncontent-length: 5\r\n");
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
}

// spec: HP-1
#[test]
fn an_expecting_client_is_told_to_go_on_and_pipelined_requests_are_answered_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let routes = "{match: {prefix: /body}, route: {cluster: body}}, {match: {prefix: /}, route: {cluster: echo}}";
    let clusters = [cluster("body", &[scripted(&[(200, "")], &asked)]), cluster("echo", &[echo("up")])].concat();
    let (_proxy, ports) = start(directory.path(), &[http(routes, "")], &clusters);
    let mut stream = connect(ports[0]);
    let head =
        "POST /body HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_head(&mut stream), "HTTP/1.1 100 Continue\r\n\r\n", "before a byte of the body");
    stream.write_all(b"body").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nbody"), "{answer}");
    let mut stream = connect(ports[0]);
    let request = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n{more}\r\n");
    let both = request("/first", "") + &request("/second", "connection: close\r\n");
    stream.write_all(both.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("{text} in {answer}"));
    assert!(at("GET /first ") < at("GET /second "));
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
}

// spec: RT-5, AL-4
#[test]
#[expect(clippy::disallowed_methods, reason = "the time that an upload takes is the thing measured")]
fn the_routes_time_runs_from_the_end_of_the_request() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let taking = |answer: &'static [u8]| {
        upstream(move |mut stream: TcpStream| {
            read_head(&mut stream);
            let mut body = [0; 4];
            if stream.read_exact(&mut body).is_ok() && stream.write_all(answer).is_ok() {
                drop(stream.read(&mut body)); // until the proxy is done with it
            }
        })
    };
    let clusters = [
        cluster("prompt", &[taking(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")]),
        cluster("silent", &[taking(b"")]),
    ]
    .concat();
    let routes = "{match: {prefix: /prompt}, route: {cluster: prompt, timeout: 0.2s}}, \
                  {match: {prefix: /tried}, route: {cluster: silent, timeout: 5s, retry_policy: {per_try_timeout: 0.2s}}}, \
                  {match: {prefix: /silent}, route: {cluster: silent, timeout: 0.2s}}";
    let logged = format!("access_log: {},", file_log(&log, "%RESPONSE_CODE% %REQUEST_DURATION% %DURATION%"));
    let (proxy, ports) = start(directory.path(), &[http(routes, &logged)], &clusters);
    let slow_upload = Duration::from_millis(400);
    let post = |path: &str| {
        let mut stream = connect(ports[0]);
        stream
            .write_all(
                format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\nab")
                    .as_bytes(),
            )
            .unwrap();
        std::thread::sleep(slow_upload);
        stream.write_all(b"cd").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!((post("/prompt"), post("/silent"), post("/tried")), ("200".into(), "504".into(), "504".into()));
    proxy.terminate();
    proxy.until_ended();
    let text = std::fs::read_to_string(&log).unwrap();
    for (line, (status, waited)) in text.lines().zip([("200", 0), ("504", 200), ("504", 200)]) {
        let mut fields = line.split(' ');
        assert_eq!(fields.next(), Some(status), "{text}");
        let mut number = || fields.next().unwrap().parse::<u64>().unwrap();
        let (upload, whole) = (number(), number());
        // The proxy may see the head later than the client has written it.
        assert!(upload > 200 && whole >= upload + waited - waited / 100 && whole < 3000, "{text}");
    }
    assert_eq!(text.lines().count(), 3, "{text}");
}
