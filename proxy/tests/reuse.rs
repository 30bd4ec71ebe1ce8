//! Safe reuse (D3), measured: an app that closes idle connections after 30 ms, and clients that send their next request
//! just around that moment. A plain proxy answers about 30 % of them with 503 UC.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Proxy, cluster, free_port, http, listener, upstream};

const IDLE: Duration = Duration::from_millis(30);
const CLIENTS: usize = 8;
const REQUESTS: usize = 100;

/// Counts what it has processed.
fn app() -> (u16, Arc<AtomicUsize>) {
    let processed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&processed);
    (upstream(move |stream| serve(stream, &counter)), processed)
}

fn serve(mut stream: TcpStream, processed: &AtomicUsize) {
    // Only what was used is idle: a machine that is busy may need longer for the first request than the limit.
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut seen, mut chunk) = (Vec::new(), [0; 2048]);
    loop {
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => seen.extend_from_slice(&chunk[..n]),
            // idle for too long, or the proxy is gone
            Ok(_) | Err(_) => return,
        }
        while let Some(head) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = if seen.starts_with(b"POST") { 4 } else { 0 };
            if seen.len() < head + 4 + body {
                break;
            }
            seen.drain(..head + 4 + body);
            processed.fetch_add(1, Ordering::SeqCst);
            stream.set_read_timeout(Some(IDLE)).unwrap();
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }
}

fn config(listen: u16, app: u16) -> String {
    let chain = format!("{{filters: [{}]}}", http("{match: {prefix: /}, route: {cluster: up}}", ""));
    format!("  - {}\n  clusters:\n{}", listener("l", listen, "", &chain), cluster("up", &[app]))
}

/// Sends requests with pauses of -0.6 to +1.8 ms around the app's limit; gives back how many were answered with 200.
#[expect(clippy::disallowed_methods, reason = "the pause between requests is what is measured")]
fn client(port: u16, request: &str, seed: usize) -> usize {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut good = 0;
    for turn in 0..REQUESTS {
        stream.write_all(request.as_bytes()).unwrap();
        let (mut answer, mut chunk) = (Vec::new(), [0; 2048]);
        while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
            match stream.read(&mut chunk) {
                Ok(n) if n > 0 => answer.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => panic!("the proxy ended the connection: {other:?}"),
            }
        }
        if answer.starts_with(b"HTTP/1.1 200") {
            good += 1;
        } else {
            // what it says is longer than the head; a new connection does not have to wait for it
            stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        }
        let step = (turn * 7 + seed * 3) % 25;
        std::thread::sleep(IDLE - Duration::from_micros(600) + Duration::from_micros(100 * step as u64));
    }
    good
}

fn measure(request: &'static str) -> (usize, usize) {
    let directory = tempfile::tempdir().unwrap();
    let (app, processed) = app();
    let port = free_port();
    let _proxy = Proxy::start(directory.path(), &config(port, app));
    let clients: Vec<_> = (0..CLIENTS).map(|seed| std::thread::spawn(move || client(port, request, seed))).collect();
    let good = clients.into_iter().map(|client| client.join().unwrap()).sum();
    (good, processed.load(Ordering::SeqCst))
}

#[test]
fn no_get_fails_around_the_idle_limit_of_the_app() {
    let (good, _) = measure("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(good, CLIENTS * REQUESTS);
}

#[test]
fn no_post_is_processed_twice_and_hardly_one_fails() {
    let (good, processed) = measure("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
    let failed = CLIENTS * REQUESTS - good;
    // Until the limit is learnt, a POST that dies without a proof that nobody read it is not repeated.
    assert!(failed <= CLIENTS * REQUESTS / 100, "{failed} of {} failed", CLIENTS * REQUESTS);
    assert_eq!(processed, good, "each answer stands for one POST that the app processed");
}

/// The answer of a proxy whose listener is of this direction to a request of this method; the application cuts the first
/// connection off without a byte of answer, as one does that ends with connections waiting to be accepted.
fn cut_off(direction: &str, method: &str) -> (String, usize) {
    let came = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&came);
    let app = upstream(move |mut stream| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        if stream.read(&mut [0; 2048]).is_ok_and(|n| n > 0) && !first {
            // Who has gone hears no answer.
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
        }
    });
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let chain = format!("{{filters: [{}]}}", http("{match: {prefix: /}, route: {cluster: up}}", ""));
    let config = format!("  - {}\n  clusters:\n{}", listener("l", port, direction, &chain), cluster("up", &[app]));
    let _proxy = Proxy::start(directory.path(), &config);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer, came.load(Ordering::SeqCst))
}

#[test]
fn a_get_that_its_own_application_cut_off_unseen_is_asked_once_more() {
    let inbound = "traffic_direction: INBOUND,";
    let (answer, connections) = cut_off(inbound, "GET");
    assert!(answer.starts_with("HTTP/1.1 200") && connections == 2, "{connections}: {answer}");
    for (direction, method) in [(inbound, "POST"), ("", "GET")] {
        let (answer, connections) = cut_off(direction, method);
        assert!(answer.starts_with("HTTP/1.1 503") && connections == 1, "{direction} {method} {connections}: {answer}");
    }
}
