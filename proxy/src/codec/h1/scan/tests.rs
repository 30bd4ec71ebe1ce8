use super::*;

fn request(text: &str) -> Result<Option<(RequestHead, RequestMeta)>, Outcome> {
    scan_request(text.as_bytes(), HeadLimits::default())
}

fn parsed(text: &str) -> (RequestHead, RequestMeta) {
    request(text).expect("accepted").expect("complete")
}

// spec: HP-1, HD-19, PR-9
#[test]
fn reads_what_clients_send() {
    let (head, meta) = parsed("GET /a?b=c HTTP/1.1\r\nHost: x:80\r\nX-MiXed:  v \r\n\r\nrest");
    assert_eq!((head.method(), head.path(), head.authority()), (&b"GET"[..], &b"/a?b=c"[..], &b"x:80"[..]));
    assert_eq!(head.headers.iter().next().map(|(n, v)| (n.bytes, v)), Some((&b"X-MiXed"[..], &b"v"[..])));
    assert!(meta.keep_alive && meta.body.is_done());
    let (head, meta) = parsed("GET http://Other:81?q HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((head.authority(), head.path(), head.scheme()), (&b"Other:81"[..], &b"/?q"[..], &b"http"[..]));
    assert!(meta.keep_alive);
    let (head, meta) = parsed("GET / HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n");
    assert!(head.version == Version::H10 && meta.keep_alive);
    assert!(!parsed("GET / HTTP/1.0\r\nHost: x\r\n\r\n").1.keep_alive);
    assert!(!parsed("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, close\r\n\r\n").1.keep_alive);
    let (head, _) = parsed("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(head.protocol(), b"websocket");
    let (head, _) = parsed("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    assert!(head.wants_tunnel() && head.authority() == b"a:443");
    assert!(
        parsed("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n").1.expects_continue
    );
    assert!(request("GET / HTTP/1.1\r\nHost: x\r\n").expect("no error yet").is_none());
}

// spec: LR-22, LR-24, HD-20
#[test]
fn rejects_what_rfc_9112_forbids() {
    let cases = [
        "GET / HTTP/1.1\nHost: x\n\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET / http/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /#frag HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nno-colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n: v\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nA\u{e9}: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ];
    for case in cases {
        assert!(request(case).is_err(), "accepted: {}", case.escape_debug());
    }
}

// spec: LR-24
#[test]
fn names_a_missing_host() {
    assert_eq!(request("GET / HTTP/1.1\r\n\r\n").expect_err("refused").reason, Reason::MissingHost);
    assert_eq!(request("GET / HTTP/1.0\r\n\r\n").expect_err("refused").reason, Reason::MissingHost);
}

// spec: LR-21, HP-2
#[test]
fn limits_the_head() {
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(61 << 10));
    assert_eq!(request(&long).expect_err("refused").reason, Reason::HeadersTooLarge);
    let endless = format!("GET /{}", "a".repeat(62 << 10));
    assert_eq!(request(&endless).expect_err("refused").reason, Reason::HeadersTooLarge);
    let fits = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(59 << 10));
    assert!(request(&fits).is_ok());
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(100));
    assert_eq!(request(&many).expect_err("refused").reason, Reason::HeadersTooLarge);
}

fn response(text: &str) -> Result<Option<(ResponseHead, ResponseMeta)>, Outcome> {
    scan_response(text.as_bytes(), b"GET", HeadLimits::default())
}

// spec: HP-1, LR-10
#[test]
fn reads_responses_and_repairs_only_the_harmless() {
    let (head, meta) = response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").expect("ok").expect("complete");
    assert_eq!((head.status, meta.body.remaining(), meta.keep_alive), (200, Some(3), true));
    let (_, meta) = response("HTTP/1.1 200\r\n\r\n").expect("ok").expect("complete");
    assert!(!meta.keep_alive && meta.body.ends_with_connection());
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (head, meta) = response(both).expect("ok").expect("complete");
    assert!(!meta.keep_alive && meta.body.remaining().is_none() && !head.headers.contains(Known::ContentLength));
    assert!(
        scan_response(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b"HEAD", HeadLimits::default())
            .is_ok_and(|r| r.is_some_and(|(_, m)| m.body.is_done()))
    );
    let (_, meta) = response("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=9\r\nContent-Length: 0\r\n\r\n")
        .expect("ok")
        .expect("complete");
    assert_eq!(meta.keep_alive_timeout_s, Some(5));
    for bad in [
        "HTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA b\r\n\r\n",
        "x",
    ] {
        assert_eq!(response(bad).expect_err("refused").reason, Reason::UpstreamProtocol, "{bad:?}");
    }
}
