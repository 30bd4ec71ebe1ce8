//! All four services as real processes on loopback.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test panics to fail")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

struct Service {
    child: Child,
    address: String,
}

impl Service {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bookshop"))
            .args(["--listen", "127.0.0.1:0", "--quiet"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self { child, address }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Status and body.
    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_page_is_made_of_all_four() {
    let ratings = Service::start(&["--role", "ratings"]);
    let details = Service::start(&["--role", "details"]);
    let reviews = Service::start(&["--role", "reviews", "--version", "v3", "--ratings", &ratings.url()]);
    let page = Service::start(&["--role", "productpage", "--details", &details.url(), "--reviews", &reviews.url()]);
    let (status, html) = page.get("/productpage", "");
    assert_eq!(status, 200);
    assert!(html.contains("PublisherA") && html.contains("reviews v3") && html.contains("★★★★★"), "{html}");
    assert!(page.get("/api/v1/products/0/reviews", "").1.contains("\"stars\":5"));

    assert_eq!(ratings.get("/__set?fail_percent=100", "").0, 200);
    assert_eq!(ratings.get("/ratings/0", "").0, 503);
    assert!(page.get("/productpage", "").1.contains("Ratings service is currently unavailable"));
    assert!(ratings.get("/__count", "").1.contains("\"503\":2"), "{}", ratings.get("/__count", "").1);
    assert_eq!(details.get("/details/x", "").0, 400);
    assert_eq!(details.get("/reviews/0", "").0, 404);
}

#[test]
fn headers_are_shown_as_they_arrived() {
    let details = Service::start(&["--role", "details"]);
    let (_, body) = details.get("/__headers", "X-Forwarded-Client-Cert: By=spiffe://a/b;URI=spiffe://a/c\r\n");
    assert!(body.contains("By=spiffe://a/b;URI=spiffe://a/c"), "{body}");
}

const ASK: &[u8] = b"GET /details/0 HTTP/1.1\r\nhost: x\r\n\r\n";

#[test]
fn a_signal_to_end_lets_what_is_being_answered_be_answered() {
    let mut details = Service::start(&["--role", "details"]);
    assert_eq!(details.get("/__set?delay_ms=400", "").0, 200);
    let mut stream = TcpStream::connect(&details.address).unwrap();
    let kept = stream.try_clone().unwrap();
    stream.write_all(ASK).unwrap();
    while !details.get("/__count", "").1.contains("\"requests\":1") {}
    let pid = details.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let mut answer = || {
        let mut seen = String::new();
        while !seen.trim_end().ends_with('}') {
            let mut chunk = [0; 2048];
            let n = stream.read(&mut chunk).unwrap();
            assert!(n > 0, "it ended after {seen:?}");
            seen.push_str(std::str::from_utf8(&chunk[..n]).unwrap());
        }
        assert!(seen.starts_with("HTTP/1.1 200 ") && seen.contains("PublisherA"), "{seen}");
    };
    answer();
    (&kept).write_all(ASK).unwrap();
    answer();
    assert!(details.child.wait().unwrap().success());
    assert!(TcpStream::connect(&details.address).is_err());
}
