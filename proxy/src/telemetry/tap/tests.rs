use super::*;
use crate::message::{RequestHead, ResponseHead, Version};
use crate::net::PeerFacts;
use crate::outcome::{Outcome, Reason};
use crate::telemetry::access_log::{Times, Upstream};
use crate::telemetry::istio::{Reporter, Security, Service, Workload};
use serde_json::Value;
use std::net::SocketAddr;
use std::rc::Rc;

fn ask(query: &str) -> Result<Ask, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs: Vec<_> = pairs.filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect();
    Ask::parse(&pairs)
}

fn head() -> RequestHead {
    let mut head = RequestHead::new(Version::H2, b"GET", b"http", b"reviews:9080", b"/reviews/1?token=abc&x&y=");
    for (name, value) in [
        ("end-user", "jason"),
        ("authorization", "Bearer abc"),
        ("cookie", "session=abc"),
        ("referer", "http://a/b?token=abc"),
    ] {
        head.headers.append(name.as_bytes(), value.as_bytes());
    }
    head
}

fn workload(name: &str, service: &str) -> Rc<Workload> {
    Rc::new(Workload {
        name: name.into(),
        namespace: "shop".into(),
        canonical_service: service.into(),
        ..Workload::default()
    })
}

fn ends() -> Ends {
    Ends {
        reporter: Reporter::Destination,
        source: workload("productpage-v1", "productpage"),
        destination: workload("reviews-v1", "reviews"),
        service: Rc::new(Service {
            host: "reviews.shop.svc.cluster.local".into(),
            name: "reviews".into(),
            namespace: "shop".into(),
        }),
        security: Security::MutualTls,
    }
}

/// A worker's taps, and the lines of one that asks so after requests have passed.
fn lines(query: &str, requests: usize) -> (Vec<Value>, (u64, u64)) {
    let (request, mut answer) = (head(), ResponseHead::new(503));
    answer.headers.append(b"set-cookie", b"session=abc");
    let outcome = Outcome::from(Reason::Overflow).over("max_requests", 1);
    let peer = PeerFacts::plain(1, SocketAddr::from(([10, 0, 0, 1], 5)), SocketAddr::from(([10, 0, 0, 2], 9080)));
    let facts = LogFacts {
        request: Some(&request),
        response: Some(&answer),
        status: Some(503),
        outcome: Some(&outcome),
        flags: outcome.reason.face().flags,
        peer: Some(&peer),
        times: Times { total: Some(Duration::from_micros(1500)), ..Times::default() },
        upstream: Upstream { cluster: Some("inbound|9080||"), attempts: Some(2), ..Upstream::default() },
        ..LogFacts::default()
    };
    let now = Instant::now();
    let (tap, mut reader) = Tap::new(ask(query).unwrap(), now + SECOND);
    let taps = Taps::default();
    taps.add(tap, now);
    assert!(taps.any());
    let seen = Seen { id: 7, inbound: true, mutual_tls: true, facts: &facts };
    for _ in 0..requests {
        if taps.opens() {
            taps.began(&seen, now);
        }
        taps.ended(&seen, now, ends);
    }
    let mut found = Vec::new();
    while let Ok(line) = reader.lines.try_recv() {
        found.push(serde_json::from_slice(&line).unwrap());
    }
    (found, reader.left_out.so_far())
}

fn count(query: &str) -> usize {
    lines(query, 1).0.len()
}

// spec: CT-43
#[test]
fn a_finished_request_is_one_line_with_its_ends_its_way_and_its_reason() {
    let (lines, left_out) = lines("", 1);
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!(left_out, (0, 0));
    for (path, expected) in [
        ("/event", "request"),
        ("/id", "0000000000000007"),
        ("/direction", "inbound"),
        ("/method", "GET"),
        ("/authority", "reviews:9080"),
        ("/sourceAddress", "10.0.0.1:5"),
        ("/destinationAddress", "10.0.0.2:9080"),
        ("/source/workload", "productpage-v1"),
        ("/source/namespace", "shop"),
        ("/destination/workload", "reviews-v1"),
        ("/service", "reviews.shop.svc.cluster.local"),
        ("/cluster", "inbound|9080||"),
        ("/flags", "UO"),
        ("/reason/side", "mesh"),
        ("/reason/limit", "max_requests=1"),
    ] {
        assert_eq!(line.pointer(path).and_then(Value::as_str), Some(expected), "{path} of {line:#}");
    }
    assert_eq!((&line["mTLS"], &line["status"], &line["attempts"]), (&true.into(), &503.into(), &2.into()));
    assert_eq!((&line["totalMs"], &line["source"]["principal"]), (&1.5.into(), &Value::Null));
}

// spec: CT-43
#[test]
fn only_what_is_asked_for_is_shown() {
    for taken in [
        "direction=inbound",
        "method=get",
        "method=POST&method=GET",
        "scheme=http",
        "path=/reviews/1",
        "path_prefix=/rev",
        "authority=reviews",
        "authority=reviews:9080",
        "status=503",
        "status=5xx",
        "status=404&status=500-503",
        "header=End-User: jason",
        "source=productpage-v1",
        "source=productpage.shop",
        "source_namespace=shop",
        "destination=reviews",
        "destination=reviews.shop.svc.cluster.local",
        "min_duration_ms=1",
    ] {
        assert_eq!(count(taken), 1, "{taken}");
    }
    for passed_over in [
        "direction=outbound",
        "method=POST",
        "scheme=https",
        "path=/reviews",
        "path_prefix=/x",
        "authority=review",
        "authority=reviews:80",
        "status=200",
        "status=4xx",
        "header=end-user: kate",
        "header=absent: x",
        "header=end-user: jason&header=absent: x",
        "source=productpage.other",
        "source_namespace=other",
        "destination=productpage",
        "min_duration_ms=2",
        "method=GET&status=200",
    ] {
        assert_eq!(count(passed_over), 0, "{passed_over}");
    }
}

// spec: CT-43
#[test]
fn a_request_that_begins_is_shown_where_that_is_asked_for() {
    let (lines, _) = lines("open=true", 1);
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["open", "request"]);
    assert_eq!(lines[0]["id"], lines[1]["id"]);
    assert!(lines[0]["status"].is_null() && lines[0]["path"].is_string());
    assert!(ask("open=true&status=200").unwrap_err().contains("known at its end"));
}

// spec: CT-43
#[test]
fn secrets_and_values_of_queries_are_hidden_and_headers_shown_by_name_alone() {
    let secret = "abc";
    for query in ["", "show_header=authorization&show_header=cookie&show_header=set-cookie&show_header=Referer"] {
        let text = lines(query, 1).0[0].to_string();
        assert!(!text.contains(secret) && !text.contains("jason"), "{text}");
    }
    let (found, _) = lines("show_header=End-User&show_header=cookie&show_header=set-cookie&show_header=referer", 1);
    let line = &found[0];
    assert_eq!(line["path"], "/reviews/1?token=[hidden]&[hidden]&y=[hidden]");
    let shown = serde_json::json!({"cookie": "[hidden]", "end-user": "jason", "referer": "http://a/b?token=[hidden]"});
    assert_eq!(line["requestHeaders"], shown);
    assert_eq!(line["responseHeaders"], serde_json::json!({"set-cookie": "[hidden]"}));
    let (found, _) = lines("show_query=true&show_header=authorization", 1);
    assert_eq!(found[0]["path"], "/reviews/1?token=abc&x&y=");
    assert_eq!(found[0]["requestHeaders"]["authorization"], "[hidden]");
}

// spec: CT-43
#[test]
fn no_more_than_the_cap_is_shown_and_a_reader_who_does_not_read_costs_lines_alone() {
    let (shown, left_out) = lines("max_per_second=3", 10);
    assert_eq!((shown.len(), left_out), (3, (7, 0)));
    let (shown, left_out) = lines("max_per_second=1000", 300);
    assert_eq!((shown.len(), left_out), (MAX_WAITING_LINES, (0, 44)));
    assert_eq!(lines("", 101).1, (1, 0), "100 where nothing is said");
}

// spec: CT-43
#[test]
fn a_tap_ends_with_its_reader_and_with_its_time() {
    let (taps, now) = (Taps::default(), Instant::now());
    assert!(!taps.any() && !taps.opens());
    let (tap, reader) = Tap::new(ask("open=true").unwrap(), now + SECOND);
    taps.add(tap, now);
    assert!(taps.any() && taps.opens());
    drop(reader);
    taps.sweep(now);
    assert!(!taps.any() && !taps.opens(), "nobody reads");
    let (tap, _reader) = Tap::new(ask("").unwrap(), now + SECOND);
    taps.add(tap, now);
    taps.sweep(now + SECOND / 2);
    assert!(taps.any() && !taps.opens());
    taps.sweep(now + SECOND);
    assert!(!taps.any(), "its time is over");
}

#[test]
fn the_cap_is_per_second() {
    let (allowance, now) = (Allowance::new(2), Instant::now());
    let taken = |at: Duration| (0..5).filter(|_| allowance.take(now + at)).count();
    assert_eq!([taken(Duration::ZERO), taken(SECOND / 2), taken(SECOND)], [2, 0, 2]);
}

#[test]
fn what_is_wrong_is_named_with_the_way_out() {
    for (query, text) in [
        ("colour=red", "colour=red: not known: one of direction, method"),
        ("direction=up", "inbound or outbound"),
        ("status=6xx", "a class (5xx)"),
        ("header=x", "NAME:VALUE"),
        ("max_per_second=0", "a number from 1 to 1000"),
        ("seconds=4000", "a number from 1 to 3600"),
    ] {
        let why = ask(query).unwrap_err();
        assert!(why.contains(text), "{why}");
    }
    let many = vec!["method=GET"; 17].join("&");
    assert!(ask(&many).unwrap_err().contains("at most 16"));
    assert!(ask(&format!("path=/{}", "x".repeat(1024))).unwrap_err().contains("longer than 1024 bytes"));
}

#[test]
fn long_texts_are_cut() {
    let long = "x".repeat(5000);
    let request = RequestHead::new(Version::H11, b"GET", b"http", b"a", format!("/{long}?{long}={long}").as_bytes());
    let facts = LogFacts { request: Some(&request), ..LogFacts::default() };
    let seen = Seen { id: 1, inbound: false, mutual_tls: false, facts: &facts };
    let line = line::opened(&seen, &ask("").unwrap()).unwrap();
    assert!(line.len() < 3000, "{}", line.len());
}
