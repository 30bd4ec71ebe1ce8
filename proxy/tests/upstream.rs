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
