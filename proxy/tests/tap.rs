//! `/tap` of the binary: requests that pass, filtered, capped, and a reader who does not read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Proxy, connect, free_port, read_head};

/// A listener that answers everything by itself: 503 below `/fail`, else 200.
fn proxy(directory: &Path, port: u16) -> Proxy {
    let router =
        "{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
    let routes = "[{name: fail, match: {prefix: /fail}, direct_response: {status: 503}}, \
                  {name: hello, match: {prefix: /}, direct_response: {status: 200, body: {inline_string: hi}}}]";
    Proxy::start(
        directory,
        &format!(
            "  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n    filter_chains: [{{filters: \
             [{{name: http, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
             stat_prefix: in, route_config: {{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: {routes}}}]}}, \
             http_filters: [{router}]}}}}]}}]\n"
        ),
    )
}

/// An open tap; the workers know of it a moment later. Waits for a place where all are taken.
fn tap(directory: &Path, query: &str) -> BufReader<UnixStream> {
    let start = Instant::now();
    loop {
        let mut stream = UnixStream::connect(directory.join("admin.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(format!("GET /tap?{query} HTTP/1.0\r\nhost: admin\r\n\r\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        if head.starts_with("HTTP/1.0 200") {
            assert!(head.contains("application/x-ndjson"), "{head}");
            return reader;
        }
        assert!(head.starts_with("HTTP/1.0 503") && start.elapsed() < Duration::from_secs(20), "{head}");
    }
}

/// One request on a connection of its own.
fn get(port: u16, path: &str) {
    let mut stream = connect(port);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
}

fn line(tap: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    tap.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or(Value::Null)
}

/// Asks for `/probe` until the tap shows it: then its worker knows of it.
fn ready(tap: &mut BufReader<UnixStream>, port: u16) {
    tap.get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    let mut shown = String::new();
    while !shown.ends_with('\n') {
        assert!(start.elapsed() < Duration::from_secs(20), "the tap shows nothing");
        get(port, "/probe");
        drop(tap.read_line(&mut shown)); // nothing yet
    }
    tap.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
}

// spec: CT-43
#[test]
fn a_tap_shows_what_passes_and_nothing_that_is_not_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let proxy = proxy(directory.path(), port);
    let mut failing = tap(directory.path(), "status=5xx&seconds=60");
    let mut all = tap(directory.path(), "show_header=host&seconds=60");
    ready(&mut all, port);
    get(port, "/hello?secret=1");
    get(port, "/fail");
    let shown = std::iter::repeat_with(|| line(&mut all)).find(|line| line["path"] != "/probe").unwrap();
    assert_eq!((&shown["path"], &shown["status"]), (&"/hello?secret=[hidden]".into(), &200.into()));
    assert_eq!((&shown["route"], &shown["details"]), (&"hello".into(), &"direct_response".into()));
    assert!(shown["totalMs"].as_f64().unwrap() > 0.0 && shown["time"].as_str().unwrap().ends_with('Z'), "{shown:#}");
    assert_eq!(line(&mut all)["path"], "/fail");
    let first = line(&mut failing);
    assert_eq!((&first["path"], &first["status"]), (&"/fail".into(), &503.into()), "{first:#}");
    // With the reader gone nobody taps: requests go on, and the next tap has a place.
    drop((all, failing));
    get(port, "/hello");
    for _ in 0..8 {
        drop(tap(directory.path(), "seconds=60"));
    }
    proxy.quit();
}

// spec: CT-43
#[test]
fn the_cap_holds_and_a_reader_who_sleeps_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let proxy = proxy(directory.path(), port);
    let mut sleeping = tap(directory.path(), "max_per_second=1000&seconds=60");
    let mut capped = tap(directory.path(), "max_per_second=5&seconds=60");
    ready(&mut sleeping, port);
    // Long lines fill what the kernel holds for a reader who sleeps, then the queue.
    let request = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(2000));
    let (mut stream, mut slowest, began) = (connect(port), Duration::ZERO, Instant::now());
    for _ in 0..2000 {
        let start = Instant::now();
        stream.write_all(request.as_bytes()).unwrap();
        assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
        stream.read_exact(&mut [0; 2]).unwrap();
        slowest = slowest.max(start.elapsed());
    }
    let seconds = began.elapsed().as_secs() as usize;
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let left_out = |tap: &mut BufReader<UnixStream>, of: &str| {
        let mut shown = 0;
        loop {
            let line = line(tap);
            assert!(!line.is_null(), "the tap ended after {shown} lines");
            match line[of].as_u64() {
                Some(count) if count > 0 => return (shown, count),
                _ => shown += 1,
            }
        }
    };
    let (shown, count) = left_out(&mut capped, "overCap");
    assert!(shown <= 5 * (seconds + 2) && count > 0, "{shown} shown within {seconds} s, {count} left out");
    let (shown, count) = left_out(&mut sleeping, "slowReader");
    assert!(count > 0, "{shown} shown, {count} left out");
    proxy.quit();
}
