//! What the proxy says of upstreams: the time they took, tries that are used up, names that are resolved.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Proxy, cluster, connect, file_log, free_port, http, listener, read_head, upstream};

/// The whole answer to one request.
fn ask(port: u16, path: &str) -> String {
    let mut stream = connect(port);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn values<'a>(answer: &'a str, header: &str) -> Vec<&'a str> {
    answer
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| *name == header)
        .map(|(_, v)| v)
        .collect()
}

// spec: HD-9
#[test]
#[expect(clippy::disallowed_methods, reason = "the time that the upstream takes is the thing measured")]
fn the_response_tells_how_long_the_upstream_took() {
    const TOOK_MS: u64 = 40;
    let up = upstream(|mut stream: TcpStream| {
        read_head(&mut stream);
        std::thread::sleep(Duration::from_millis(TOOK_MS));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nx-envoy-upstream-service-time: 999999\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    });
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let routes = "{match: {prefix: /own}, direct_response: {status: 200}}, {match: {prefix: /}, route: {cluster: up}}";
    let chain = format!("{{filters: [{}]}}", http(routes, ""));
    let yaml = format!("  - {}\n  clusters:\n{}", listener("l", port, "", &chain), cluster("up", &[up]));
    let _proxy = Proxy::start(directory.path(), &yaml);
    let answer = ask(port, "/");
    let times = values(&answer, "x-envoy-upstream-service-time");
    assert_eq!(times.len(), 1, "{answer}");
    let time_ms: u64 = times[0].parse().unwrap();
    assert!((TOOK_MS..20_000).contains(&time_ms), "{time_ms}");
    let answer = ask(port, "/own");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(values(&answer, "x-envoy-upstream-service-time").is_empty(), "no upstream took part: {answer}");
}

// spec: LR-11
#[test]
fn retries_that_are_used_up_leave_the_upstreams_answer_and_a_flag() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let up = upstream(move |mut stream: TcpStream| {
        let head = read_head(&mut stream);
        let earlier = counter.fetch_add(1, Ordering::SeqCst);
        let answer = if head.contains("/mends") && earlier > 0 {
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nfine"
        } else {
            "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbusy"
        };
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let log = directory.path().join("log");
    let format =
        "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%";
    let routes = "{match: {prefix: /once}, route: {cluster: up}}, {match: {prefix: /}, route: {cluster: up, \
                  retry_policy: {retry_on: 5xx, num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}";
    let chain = format!("{{filters: [{}]}}", http(routes, &format!("access_log: {},", file_log(&log, format))));
    let yaml = format!("  - {}\n  clusters:\n{}", listener("l", port, "", &chain), cluster("up", &[up]));
    let proxy = Proxy::start(directory.path(), &yaml);
    for (path, tries, status, body) in
        [("/fails", 3, 503, "busy"), ("/once", 1, 503, "busy"), ("/mends", 2, 200, "fine")]
    {
        asked.store(0, Ordering::SeqCst);
        let answer = ask(port, path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(body), "{path}: {answer}");
        assert_eq!(asked.load(Ordering::SeqCst), tries, "{path}");
    }
    proxy.quit();
    let lines = "/fails 503 URX via_upstream 3\n/once 503 - via_upstream 1\n/mends 200 - via_upstream 2\n";
    assert_eq!(std::fs::read_to_string(log).unwrap(), lines);
}

// spec: XT-9
#[test]
fn a_retry_goes_to_another_host_or_priority_where_the_route_says_so() {
    let answering = |status: &'static str| {
        upstream(move |mut stream: TcpStream| {
            read_head(&mut stream);
            let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        })
    };
    let (bad, good) = (answering("503 Service Unavailable"), answering("200 OK"));
    let retry = |more: &str| {
        format!("retry_policy: {{retry_on: 5xx, num_retries: 1, retry_back_off: {{base_interval: 0.001s}}, {more}}}")
    };
    let hosts = "host_selection_retry_max_attempts: 50, retry_host_predicate: [{name: h, typed_config: \
                 {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]";
    let priorities = "retry_priority: {name: p, typed_config: {update_frequency: 1, \
                      '@type': type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig}}";
    let route = |path: &str, cluster: &str, more: &str| {
        format!("{{match: {{prefix: {path}}}, route: {{cluster: {cluster}, {}}}}}", retry(more))
    };
    let routes = [
        route("/hosts", "random", hosts),
        route("/any-host", "random", ""),
        route("/priorities", "ranked", priorities),
        route("/same-priority", "ranked", ""),
    ];
    let random = cluster("random", &[bad, good]).replace("type: STATIC", "type: STATIC, lb_policy: RANDOM");
    let endpoint = |port: u16| {
        format!(
            "lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]"
        )
    };
    let ranked = format!(
        "  - {{name: ranked, type: STATIC, load_assignment: {{cluster_name: ranked, endpoints: [{{{}}}, {{priority: 1, {}}}]}}}}\n",
        endpoint(bad),
        endpoint(good)
    );
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let chain = format!("{{filters: [{}]}}", http(&routes.join(", "), ""));
    let yaml = format!("  - {}\n  clusters:\n{random}{ranked}", listener("l", port, "", &chain));
    let _proxy = Proxy::start(directory.path(), &yaml);
    let fine = |path: &str| (0..40).filter(|_| ask(port, path).starts_with("HTTP/1.1 200 ")).count();
    assert_eq!(fine("/hosts"), 40);
    // a quarter fails twice; none of 40: a chance of 1 in 100,000
    assert!(fine("/any-host") < 40);
    assert_eq!(fine("/priorities"), 40);
    assert_eq!(fine("/same-priority"), 0);
}

/// An upstream that answers with this status after so long; counts requests, and connections at one time.
fn answering(status: &'static str, took: Duration, asked: &Arc<AtomicUsize>, most: &Arc<AtomicUsize>) -> u16 {
    let (asked, most, open) = (Arc::clone(asked), Arc::clone(most), Arc::new(AtomicUsize::new(0)));
    upstream(move |mut stream: TcpStream| {
        most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        while read_head(&mut stream).ends_with("\r\n\r\n") {
            asked.fetch_add(1, Ordering::SeqCst);
            // the time that an answer takes is what makes requests wait
            stream.set_read_timeout(Some(took.max(Duration::from_millis(1)))).unwrap();
            drop(stream.peek(&mut [0]));
            stream.set_read_timeout(None).unwrap();
            if stream.write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes()).is_err() {
                break;
            }
        }
        open.fetch_sub(1, Ordering::SeqCst);
    })
}

fn counter() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(0))
}

// spec: LB-12, DR-21, DR-27
#[test]
fn connections_and_retries_have_limits_of_their_own() {
    let (asked, most, none) = (counter(), counter(), counter());
    let slow = answering("200", Duration::from_millis(50), &asked, &most);
    let bad = answering("503", Duration::ZERO, &none, &counter());
    let limited = |name: &str, port: u16, limits: &str| {
        let breakers = format!("type: STATIC, circuit_breakers: {{thresholds: [{{{limits}}}]}}");
        cluster(name, &[port]).replace("type: STATIC", &breakers)
    };
    let retry = "retry_policy: {retry_on: 5xx, num_retries: 2, retry_back_off: {base_interval: 0.001s}}";
    let routes = format!(
        "{{match: {{prefix: /one}}, route: {{cluster: one}}}}, {{match: {{prefix: /none}}, route: {{cluster: none, {retry}}}}}, \
         {{match: {{prefix: /some}}, route: {{cluster: some, {retry}}}}}, {{match: {{prefix: /default}}, route: {{cluster: ranked}}}}, \
         {{match: {{prefix: /high}}, route: {{cluster: ranked, priority: HIGH}}}}"
    );
    let clusters = [
        limited("one", slow, "max_connections: 1"),
        limited("none", bad, "max_retries: 0"),
        limited("some", bad, "max_retries: 1, max_requests: 1"),
        limited("ranked", slow, "max_requests: 0}, {priority: HIGH, max_requests: 1"),
    ];
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let chain = format!("{{filters: [{}]}}", http(&routes, ""));
    let yaml = format!("  - {}\n  clusters:\n{}", listener("l", port, "", &chain), clusters.concat());
    let _proxy = Proxy::start(directory.path(), &yaml);
    let clients: Vec<_> = (0..6).map(|_| std::thread::spawn(move || ask(port, "/one"))).collect();
    for client in clients {
        assert!(client.join().unwrap().starts_with("HTTP/1.1 200 "), "those who wait are served in turn");
    }
    assert_eq!((asked.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (6, 1));
    assert!(ask(port, "/default").ends_with("reset reason: overflow"));
    assert!(ask(port, "/high").starts_with("HTTP/1.1 200 "), "each priority has limits of its own");
    assert!(ask(port, "/none").starts_with("HTTP/1.1 503 "));
    assert_eq!(none.swap(0, Ordering::SeqCst), 1, "no retry is allowed");
    assert!(ask(port, "/some").starts_with("HTTP/1.1 503 "));
    assert_eq!(none.load(Ordering::SeqCst), 3, "one at a time is");
}

// spec: LB-13, DR-31
#[test]
fn an_endpoint_that_fails_is_left_alone_at_once_and_a_good_answer_starts_the_count_again() {
    let (bad, good, mixed) = (counter(), counter(), counter());
    let failing = answering("500", Duration::ZERO, &bad, &counter());
    let fine = answering("200", Duration::ZERO, &good, &counter());
    let count = Arc::clone(&mixed);
    let every_second = upstream(move |mut stream: TcpStream| {
        read_head(&mut stream);
        let status = if count.fetch_add(1, Ordering::SeqCst) % 2 == 0 { 500 } else { 200 };
        drop(
            stream
                .write_all(format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").as_bytes()),
        );
    });
    let watched = |name: &str, ports: &[u16]| {
        let detection =
            "type: STATIC, outlier_detection: {consecutive_5xx: 3, max_ejection_percent: 100, interval: 60s}";
        cluster(name, ports).replace("type: STATIC", detection)
    };
    let routes = "{match: {prefix: /pair}, route: {cluster: pair}}, {match: {prefix: /mixed}, route: {cluster: mixed}}";
    let clusters = [watched("pair", &[failing, fine]), watched("mixed", &[every_second])].concat();
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let chain = format!("{{filters: [{}]}}", http(routes, ""));
    let yaml = format!("  - {}\n  clusters:\n{clusters}", listener("l", port, "", &chain));
    let _proxy = Proxy::start(directory.path(), &yaml);
    for _ in 0..20 {
        ask(port, "/pair");
    }
    assert_eq!((bad.load(Ordering::SeqCst), good.load(Ordering::SeqCst)), (3, 17));
    let answers: Vec<String> = (0..10).map(|_| ask(port, "/mixed")).collect();
    assert!(answers.iter().all(|answer| !answer.contains("no healthy upstream")), "never three in a row");
    assert_eq!(mixed.load(Ordering::SeqCst), 10);
}
