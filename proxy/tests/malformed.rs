//! Malformed requests over a real socket: each is refused with a status, the connection is closed, and nothing that looks
//! like a complete request reaches the upstream. Sound requests beside them are served.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Proxy, cluster, free_port, http, listener};

const HEAD: &str = "GET / HTTP/1.1\r\nHost: a\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\n";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Heads and bodies that RFC 9112 or RFC 9110 forbid.
#[expect(clippy::too_many_lines, reason = "a corpus")]
fn refused() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    // request line
    for line in [
        "GET / HTTP/1.1 ",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / HTTP/1.1\t",
        "GET /\tHTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/11",
        "GET / HTTP/1.1.1",
        "GET / HTTP/01.1",
        "GET / HTTP/1.x",
        "GET / XTTP/1.1",
        "GET /",
        "GET",
        "G\u{e9}T / HTTP/1.1",
        "GE(T / HTTP/1.1",
        "GE{T / HTTP/1.1",
        "G\u{0}ET / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\u{0} HTTP/1.1",
        "GET /\u{1f} HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET /a#fragment HTTP/1.1",
        "GET # HTTP/1.1",
        "GET a HTTP/1.1",
        "GET ? HTTP/1.1",
        "GET * HTTP/1.1",
        "GET //\\ HTTP/9.9",
        "GET / HTTP/1.1\u{0}",
        "GET /\u{b} HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "CONNECT http://a/ HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http://user@a/ HTTP/1.1",
    ] {
        all.push(format!("{line}\r\nHost: a\r\n\r\n"));
    }
    // host
    for hosts in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: a, b\r\n",
        "Host: a/\r\n",
        "Host: user@a\r\n",
        "Host: a#\r\n",
        "Host: a?b\r\n",
        "Host: [::1\r\n",
        "Host: a:b\r\n",
        "Host: a:99999999\r\n",
        "Host: a\\b\r\n",
        "Host: http://a\r\n",
        "Host: a\u{0}\r\n",
        "Host:\r\nHost: a\r\n",
        "host: a\r\nHOST: a\r\n",
    ] {
        all.push(format!("GET / HTTP/1.1\r\n{hosts}\r\n"));
    }
    // fields
    for field in [
        "X : y",
        "X\t: y",
        " X: y",
        "\tX: y",
        "X y",
        "X",
        ": y",
        ":",
        "X\u{0}: y",
        "X: y\u{0}",
        "X: \u{1}",
        "X: \u{7f}",
        "X: y\u{c}",
        "X: \u{b}y",
        "X\u{e9}: y",
        "X(: y",
        "X@: y",
        "X[: y",
        "X\": y",
        "X: y\r\n folded",
        "X: y\r\n\tfolded",
        "X: y\rZ: z",
        "X: y\r",
        "X: y\nZ: z",
        "X: y\n",
        "\u{feff}X: y",
        "X;: y",
        "X/: y",
        "X=: y",
        "X?: y",
    ] {
        all.push(format!("{HEAD}{field}\r\n\r\n"));
    }
    // line ends
    all.push("GET / HTTP/1.1\nHost: a\n\n".into());
    all.push("GET / HTTP/1.1\r\nHost: a\n\r\n".into());
    all.push("GET / HTTP/1.1\r\nHost: a\r\n\n".into());
    all.push("GET / HTTP/1.1\rHost: a\r\r".into());
    all.push("GET / HTTP/1.1\nHost: a\r\n\r\n".into());
    // content-length
    for length in [
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "5;5",
        "0x5",
        "5 5",
        "5a",
        "a",
        "",
        "5.0",
        "5e0",
        "\"5\"",
        "99999999999999999999",
        "18446744073709551616",
        "\u{0665}",
        "5\u{0}",
        "_5",
        "1_0",
    ] {
        all.push(format!("{POST}Content-Length: {length}\r\n\r\nhello"));
    }
    all.push(format!("{POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"));
    all.push(format!("{POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"));
    all.push(format!("{POST}Content-Length: 0\r\ncontent-length: 5\r\n\r\nhello"));
    // transfer-encoding
    for coding in [
        "chunked, chunked",
        "gzip",
        "gzip, chunked",
        "chunked, gzip",
        "identity",
        "identity, chunked",
        "xchunked",
        "chunked;x",
        "\"chunked\"",
        "chunked,",
        ",chunked",
        "chunked identity",
        "",
        "chunke",
        "chunked\u{0}",
        "chunked\u{b}",
        "\u{b}chunked",
    ] {
        all.push(format!("{POST}Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"));
    }
    for both in [
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding: chunked\r\n Content-Length: 5",
        "Content-Length : 5",
        "Transfer-Encoding: identity\r\nContent-Length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
    ] {
        all.push(format!("{POST}{both}\r\n\r\n0\r\n\r\n"));
    }
    all.push("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into());
    // chunks
    for body in [
        "x\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "1 \r\nx\r\n0\r\n\r\n",
        "1\t\r\nx\r\n0\r\n\r\n",
        "1 ;a\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "1\rx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "ffffffffffffffffff\r\nx\r\n0\r\n\r\n",
        "10000000000000001\r\nx\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        ";a\r\n\r\n",
        "1;a\u{0}\r\nx\r\n0\r\n\r\n",
        "1;\rb\r\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "1_0\r\nx\r\n0\r\n\r\n",
        "g\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: b\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX\u{0}: y\r\n\r\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\nTrailer: X\r\n\r\n",
        "0\r\nX\r\n\r\n",
    ] {
        all.push(format!("{CHUNKED}{body}"));
    }
    all.push(format!("{CHUNKED}1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(5000)));
    all.push(format!("{CHUNKED}{}1\r\nx\r\n0\r\n\r\n", "0".repeat(20)));
    // limits
    all.push(format!("{HEAD}X: {}\r\n\r\n", "y".repeat(70_000)));
    all.push(format!("{HEAD}{}\r\n", "X: y\r\n".repeat(200)));
    all.push(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(70_000)));
    // other protocols
    all.push("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".into());
    all.push("SSH-2.0-OpenSSH_9.2\r\n\r\n".into());
    all
}

/// Requests that are sound, with the number of answers.
fn served() -> Vec<(String, usize)> {
    let chunked = |body: &str| (format!("{CHUNKED}{body}"), 1);
    vec![
        (format!("{HEAD}\r\n"), 1),
        (format!("{HEAD}\r\n{HEAD}\r\n"), 2),
        (format!("\r\n\r\n{HEAD}\r\n"), 1),
        (format!("{HEAD}X:y\r\nX:\t y \t\r\nX:\r\n\r\n"), 1),
        (format!("{HEAD}X: \u{e9}\r\n\r\n"), 1),
        (format!("{POST}Content-Length: 5\r\n\r\nhello"), 1),
        (format!("{POST}Content-Length: 005\r\n\r\nhello"), 1),
        (format!("{POST}Content-Length: 5\r\n\r\nhello{HEAD}\r\n"), 2),
        ("GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n".into(), 1),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into(), 1),
        ("GET / HTTP/1.1\r\nHost: a:80\r\n\r\n".into(), 1),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".into(), 1),
        ("GET /%00?a=b&c[]=d HTTP/1.1\r\nHost: a\r\n\r\n".into(), 1),
        chunked("0\r\n\r\n"),
        chunked("5\r\nhello\r\n0\r\n\r\n"),
        chunked("5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n"),
        chunked("0005\r\nhello\r\n00\r\n\r\n"),
        chunked("A\r\nhellohello\r\n0\r\nX: y\r\n\r\n"),
        (format!("{CHUNKED}0\r\n\r\n{HEAD}\r\n"), 2),
    ]
}

/// Counts requests that are complete by the letter; answers each.
fn upstream() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let complete = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&complete);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, counter) = (stream.unwrap(), Arc::clone(&counter));
            std::thread::spawn(move || answer(stream, &counter));
        }
    });
    (port, complete)
}

fn answer(mut stream: TcpStream, complete: &AtomicUsize) {
    let mut buf = Vec::new();
    loop {
        while let Some(end) = request_end(&buf) {
            buf.drain(..end);
            complete.fetch_add(1, Ordering::SeqCst);
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => buf.extend_from_slice(&chunk[..n]),
            _ => return,
        }
    }
}

fn request_end(buf: &[u8]) -> Option<usize> {
    let head = buf.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buf[..head]).to_ascii_lowercase();
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    if text.contains("transfer-encoding: chunked") {
        let last = buf[head..].windows(3).position(|w| w == b"0\r\n")?;
        let end = buf[head + last..].windows(4).position(|w| w == b"\r\n\r\n")?;
        return Some(head + last + end + 4);
    }
    let end = head + length.unwrap_or(0_usize);
    (buf.len() >= end).then_some(end)
}

fn proxy(directory: &std::path::Path, upstream: u16) -> (Proxy, u16) {
    let port = free_port();
    let http = http("{match: {prefix: ''}, route: {cluster: up}}", "http_protocol_options: {accept_http_10: true},");
    let listener = listener("l", port, "", &format!("{{filters: [{http}]}}"));
    let yaml = format!("  - {listener}\n  clusters:\n{}", cluster("up", &[upstream]));
    (Proxy::start(directory, &yaml), port)
}

/// What comes back, up to so many sound answers, and whether the proxy closed.
fn exchange(port: u16, bytes: &[u8], answers: usize) -> (String, bool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    // the proxy may have refused and closed before it was all said
    drop(stream.write_all(bytes));
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    let closed = loop {
        if String::from_utf8_lossy(&answer).matches("HTTP/1.1 200 OK\r\n").count() >= answers {
            break false;
        }
        match stream.read(&mut chunk) {
            Ok(0) => break true,
            Ok(n) => answer.extend_from_slice(&chunk[..n]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                break false;
            }
            Err(_) => break true,
        }
    };
    (String::from_utf8_lossy(&answer).into_owned(), closed)
}

/// Characters to bytes one to one, so that the corpus can hold any byte.
fn bytes(text: &str) -> Vec<u8> {
    text.chars()
        .flat_map(|c| u8::try_from(u32::from(c)).map_or_else(|_| c.to_string().into_bytes(), |b| vec![b]))
        .collect()
}

// spec: LR-21, LR-22, LR-23, LR-24, LR-25, HD-15, HP-1
#[test]
fn what_the_standard_forbids_is_refused_and_reaches_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let (port, complete) = upstream();
    let (_proxy, port) = proxy(directory.path(), port);
    let cases = refused();
    assert!(cases.len() >= 120, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let before = complete.load(Ordering::SeqCst);
        let (answer, closed) = exchange(port, &bytes(case), usize::MAX);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
        let refused = status.is_some_and(|code| code >= 400) && answer.matches("HTTP/1.1 ").count() == 1;
        let passed = complete.load(Ordering::SeqCst) - before;
        if !refused || !closed || passed > 0 {
            let shown: String = case.chars().take(90).collect();
            wrong.push(format!("{shown:?}: status {status:?}, closed {closed}, {passed} reached the upstream"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn what_is_sound_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let (port, _) = upstream();
    let (_proxy, port) = proxy(directory.path(), port);
    for (case, answers) in served() {
        let (answer, _) = exchange(port, &bytes(&case), answers);
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), answers, "{case:?}: {answer}");
    }
}
