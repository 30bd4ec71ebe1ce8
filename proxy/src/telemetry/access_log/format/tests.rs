use super::super::facts::{Bytes, Entry, Times, Upstream};
use super::*;
use crate::message::Metadata;
use crate::message::{RequestHead, ResponseHead, Version};
use crate::net::{CertFacts, PeerFacts, TlsFacts};
use crate::outcome::Flags;
use std::time::{Duration, UNIX_EPOCH};

/// The keys of Istio's JSON format and the operators behind them (spec AL-2).
const ISTIO_JSON: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

struct Stream {
    request: RequestHead,
    response: ResponseHead,
    peer: PeerFacts,
    tls: TlsFacts,
    metadata: Metadata,
}

impl Stream {
    fn new() -> Self {
        let mut request = RequestHead::new(Version::H11, b"GET", b"http", b"reviews:9080", b"/new?q=1");
        for (name, value) in [
            ("user-agent", "curl/8 \"x\""),
            ("x-request-id", "id-1"),
            ("x-envoy-original-path", "/old"),
            ("content-type", "application/grpc+proto"),
        ] {
            request.headers.append(name.as_bytes(), value.as_bytes());
        }
        let mut response = ResponseHead::new(503);
        response.headers.append(b"x-envoy-upstream-service-time", b"7");
        response.headers.append(b"grpc-status", b"14");
        let mut peer = PeerFacts::plain(9, "10.0.0.1:5000".parse().unwrap(), "10.0.0.2:9080".parse().unwrap());
        peer.direct_remote = "[::1]:6000".parse().unwrap();
        peer.sni = "outbound_.9080_._.reviews".into();
        peer.filter_chain = "chain".into();
        let certificate = |id: &str| CertFacts {
            uri_sans: vec![id.into()],
            dns_sans: vec!["a".into(), "b".into()],
            subject: "CN=x".into(),
            issuer: "O=ca".into(),
            serial: "0a".into(),
            sha256: "ff".into(),
            not_before: 1_700_000_000,
            not_after: 1_700_086_400,
            der: b"der".as_slice().into(),
        };
        let tls = TlsFacts {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256".into(),
            peer: Some(certificate("spiffe://td/ns/a/sa/a")),
            local: Some(certificate("spiffe://td/ns/b/sa/b")),
        };
        peer.tls = Some(tls.clone());
        let metadata = Metadata::from([("ns".into(), serde_json::json!({"k": {"n": 5}, "t": "x"}))]);
        Self { request, response, peer, tls, metadata }
    }

    fn facts(&self) -> LogFacts<'_> {
        let ms = |ms: u64| Some(Duration::from_micros(ms * 1000 + 500));
        LogFacts {
            request: Some(&self.request),
            response: Some(&self.response),
            protocol: Some(Version::H11),
            status: Some(503),
            flags: Flags::UF,
            details: Some("upstream_reset"),
            bytes: Bytes {
                received: 1,
                sent: 2,
                downstream_wire_received: 3,
                upstream_header_sent: 4,
                ..Bytes::default()
            },
            start: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
            times: Times {
                total: ms(30),
                request_end: ms(1),
                upstream_request_start: ms(2),
                upstream_request_end: ms(4),
                upstream_response_start: ms(10),
                response_end: ms(25),
                ..Times::default()
            },
            peer: Some(&self.peer),
            upstream: Upstream {
                host: Some("10.0.0.3:9080"),
                cluster: Some("outbound|9080||reviews"),
                cluster_alias: Some("alias"),
                local: Some("10.0.0.2:7000".parse().unwrap()),
                transport_failure: Some("delayed connect error"),
                attempts: Some(2),
                tls: Some(&self.tls),
                ..Upstream::default()
            },
            route_name: Some("default"),
            metadata: Some(&self.metadata),
            unique_id: Some(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
            entry: Entry::DownstreamEnd,
            ..LogFacts::default()
        }
    }
}

fn line(format: &str, facts: &LogFacts<'_>) -> String {
    let environment = Environment::from([("REGION", "eu")]);
    let mut out = Vec::new();
    Format::parse(format, &environment).unwrap().write(facts, &mut out);
    String::from_utf8(out).unwrap()
}

// spec: AL-1
#[test]
fn the_text_line_of_istio() {
    let stream = Stream::new();
    let expected = "[2023-11-14T22:13:20.123Z] \"GET /old HTTP/1.1\" 503 UF upstream_reset - \"delayed_connect_error\" 1 2 30 7 \
        \"-\" \"curl/8 \"x\"\" \"id-1\" \"reviews:9080\" \"10.0.0.3:9080\" outbound|9080||reviews 10.0.0.2:7000 10.0.0.2:9080 \
        10.0.0.1:5000 outbound_.9080_._.reviews default\n";
    assert_eq!(line(ISTIO_TEXT, &stream.facts()), expected);
    let nothing = line(ISTIO_TEXT, &LogFacts::default());
    assert_eq!(nothing, "[-] \"- - -\" 0 - - - \"-\" 0 0 - - \"-\" \"-\" \"-\" \"-\" \"-\" - - - - - -\n");
    assert!(line(ENVOY_TEXT, &stream.facts()).ends_with("\"reviews:9080\" \"10.0.0.3:9080\"\n"));
}

/// The two lines that Istio's task "Envoy Access Logs" shows for one request, of the client's proxy and the server's.
const TASK: [&str; 2] = [
    "[2020-11-25T21:26:18.409Z] \"GET /status/418 HTTP/1.1\" 418 - via_upstream - \"-\" 0 135 4 4 \"-\" \"curl/7.73.0-DEV\" \
     \"84961386-6d84-929d-98bd-c5aee93b5c88\" \"httpbin:8000\" \"10.44.1.27:80\" outbound|8000||httpbin.foo.svc.cluster.local \
     10.44.1.23:37652 10.0.45.184:8000 10.44.1.23:46520 - default\n",
    "[2020-11-25T21:26:18.409Z] \"GET /status/418 HTTP/1.1\" 418 - via_upstream - \"-\" 0 135 3 1 \"-\" \"curl/7.73.0-DEV\" \
     \"84961386-6d84-929d-98bd-c5aee93b5c88\" \"httpbin:8000\" \"127.0.0.1:80\" inbound|8000|| \
     127.0.0.1:41854 10.44.1.27:80 10.44.1.23:37652 outbound_.8000_._.httpbin.foo.svc.cluster.local default\n",
];

// spec: OB-8
#[test]
fn the_lines_of_istios_task_are_written_letter_by_letter() {
    struct Side {
        times: [&'static str; 2],
        addresses: [&'static str; 4],
        cluster: &'static str,
        sni: &'static str,
    }
    let sides = [
        Side {
            times: ["4", "4"],
            addresses: ["10.44.1.27:80", "10.44.1.23:37652", "10.0.45.184:8000", "10.44.1.23:46520"],
            cluster: "outbound|8000||httpbin.foo.svc.cluster.local",
            sni: "",
        },
        Side {
            times: ["3", "1"],
            addresses: ["127.0.0.1:80", "127.0.0.1:41854", "10.44.1.27:80", "10.44.1.23:37652"],
            cluster: "inbound|8000||",
            sni: "outbound_.8000_._.httpbin.foo.svc.cluster.local",
        },
    ];
    let mut request = RequestHead::new(Version::H11, b"GET", b"http", b"httpbin:8000", b"/status/418");
    request.headers.append(b"user-agent", b"curl/7.73.0-DEV");
    request.headers.append(b"x-request-id", b"84961386-6d84-929d-98bd-c5aee93b5c88");
    for (side, expected) in sides.into_iter().zip(TASK) {
        let [host, local, own, remote] = side.addresses;
        let mut response = ResponseHead::new(418);
        response.headers.append(b"x-envoy-upstream-service-time", side.times[1].as_bytes());
        let mut peer = PeerFacts::plain(1, remote.parse().unwrap(), own.parse().unwrap());
        peer.sni = side.sni.into();
        let facts = LogFacts {
            request: Some(&request),
            response: Some(&response),
            protocol: Some(Version::H11),
            status: Some(418),
            details: Some("via_upstream"),
            bytes: Bytes { sent: 135, ..Bytes::default() },
            start: Some(UNIX_EPOCH + Duration::from_millis(1_606_339_578_409)),
            times: Times { total: Some(Duration::from_millis(side.times[0].parse().unwrap())), ..Times::default() },
            peer: Some(&peer),
            upstream: Upstream {
                host: Some(host),
                cluster: Some(side.cluster),
                local: Some(local.parse().unwrap()),
                ..Upstream::default()
            },
            route_name: Some("default"),
            ..LogFacts::default()
        };
        assert_eq!(line(ISTIO_TEXT, &facts), expected);
        // The task: the JSON form has the same values under the keys of MeshConfig's reference.
        let object = ISTIO_JSON.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
        let mut out = Vec::new();
        JsonFormat::parse(&object, false, &Environment::default()).unwrap().write(&facts, &mut out);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        for (key, value) in json.as_object().unwrap().iter().filter(|(_, value)| !value.is_null()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert!(expected.contains(&text), "{key}: {text} in {expected}");
        }
        assert_eq!((&json["response_code"], &json["upstream_cluster"]), (&418.into(), &side.cluster.into()));
    }
}

// spec: AL-2, OB-8
#[test]
fn the_json_line_of_istio() {
    let stream = Stream::new();
    let object = ISTIO_JSON.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    let format = JsonFormat::parse(&object, false, &Environment::default()).unwrap();
    let mut out = Vec::new();
    format.write(&stream.facts(), &mut out);
    assert_eq!(out.last(), Some(&b'\n'));
    let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(line.as_object().unwrap().len(), 24);
    assert_eq!((&line["response_code"], &line["duration"], &line["bytes_sent"]), (&503.into(), &30.into(), &2.into()));
    assert_eq!((&line["path"], &line["user_agent"]), (&"/old".into(), &"curl/8 \"x\"".into()));
    assert_eq!(
        (&line["x_forwarded_for"], &line["upstream_cluster"]),
        (&serde_json::Value::Null, &"outbound|9080||reviews".into())
    );
    let omitting = JsonFormat::parse(&object, true, &Environment::default()).unwrap();
    out.clear();
    omitting.write(&stream.facts(), &mut out);
    let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert!(line.get("x_forwarded_for").is_none());
}

// spec: AL-4
#[test]
fn operators() {
    let stream = Stream::new();
    let cases = [
        ("%REQ(:METHOD)% %REQ(missing?user-agent):4% %REQ(:path):3% %REQ(:scheme)%", "GET curl /ne http"),
        ("%REQ_WITHOUT_QUERY(:PATH)% %RESP(:status)% %RESP(a?b)% %TRAILER(grpc-status)%", "/new 503 - -"),
        (
            "100%% %RESPONSE_FLAGS_LONG% %ENVIRONMENT(REGION)% %ENVIRONMENT(NONE)%",
            "100% UpstreamConnectionFailure eu -",
        ),
        ("%REQUEST_DURATION% %REQUEST_TX_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "1 4 10 15"),
        (
            "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)% %COMMON_DURATION(DS_RX_BEG:DS_TX_END)% %COMMON_DURATION(US_CX_BEG:US_CX_END:ns)%",
            "8000 25 -",
        ),
        ("%DOWNSTREAM_WIRE_BYTES_RECEIVED% %DOWNSTREAM_WIRE_BYTES_SENT% %UPSTREAM_HEADER_BYTES_SENT%", "3 0 4"),
        (
            "%UPSTREAM_CLUSTER% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_PORT%",
            "alias 10.0.0.3 9080 7000",
        ),
        (
            "%UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_CONNECTION_ID% %UPSTREAM_PEER_URI_SAN%",
            "2 - spiffe://td/ns/a/sa/a",
        ),
        (
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
            "10.0.0.1 9080 [::1]:6000",
        ),
        (
            "%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_DNS_SAN% %DOWNSTREAM_LOCAL_URI_SAN%",
            "spiffe://td/ns/a/sa/a a,b spiffe://td/ns/b/sa/b",
        ),
        (
            "%DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_ISSUER% %DOWNSTREAM_PEER_SERIAL% %DOWNSTREAM_PEER_FINGERPRINT_256%",
            "CN=x O=ca 0a ff",
        ),
        ("%DOWNSTREAM_PEER_FINGERPRINT_1%", "7d44c33cf9a82ab9bd5300d266784504e9772177"),
        ("%DOWNSTREAM_PEER_CERT_V_START% %DOWNSTREAM_PEER_CERT_V_END(%Y)%", "Nov 14 22:13:20 2023 GMT 2023"),
        (
            "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER% %UPSTREAM_TLS_VERSION%",
            "TLSv1.3 TLS_AES_128_GCM_SHA256 TLSv1.3",
        ),
        ("%CONNECTION_ID% %FILTER_CHAIN_NAME% %ACCESS_LOG_TYPE% %STREAM_ID%", "9 chain DownstreamEnd id-1"),
        ("%UNIQUE_ID% %TRACE_ID% %VIRTUAL_CLUSTER_NAME%", "01234567-89ab-cdef-0123-456789abcdef - -"),
        (
            "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%",
            "Unavailable UNAVAILABLE 14 14",
        ),
        (
            "%DYNAMIC_METADATA(ns:k:n)% %DYNAMIC_METADATA(ns:t)% %DYNAMIC_METADATA(ns:k)% %METADATA(DYNAMIC:ns:t)%",
            "5 x {\"n\":5} x",
        ),
        ("%CLUSTER_METADATA(a:b)% %UPSTREAM_METADATA(a)% %FILTER_STATE(k:PLAIN)%", "- - -"),
        ("%START_TIME(%s.%3f)% %EMIT_TIME(%s.%3f)%", "1700000000.123 1700000000.153"),
    ];
    for (format, expected) in cases {
        assert_eq!(line(format, &stream.facts()), expected, "{format}");
    }
}

// spec: AL-4
#[test]
fn hostname_and_certificate_are_written() {
    let stream = Stream::new();
    assert!(!line("%HOSTNAME%", &stream.facts()).is_empty());
    assert!(line("%DOWNSTREAM_PEER_CERT%", &stream.facts()).starts_with("-----BEGIN%20CERTIFICATE-----%0A"));
}

#[test]
fn what_cannot_be_read_is_named() {
    let cases = [
        ("%NOPE%", "unknown operator %NOPE%"),
        ("50%", "no operator after %"),
        ("%REQ%", "needs an argument"),
        ("%REQ(a%", "not closed by )"),
        ("%PROTOCOL", "not closed by %"),
        ("%PROTOCOL(x)%", "takes no argument"),
        ("%CEL(x)%", "not supported yet"),
        ("%COMMON_DURATION(X:Y)%", "no point in time"),
        ("%START_TIME(%!)%", "time format"),
        ("%REQ(a):b%", "a length is a number"),
    ];
    for (format, expected) in cases {
        let error = Format::parse(format, &Environment::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{format}: {error}");
    }
}

#[test]
fn text_without_operators_is_known_as_such() {
    let format = |text| Format::parse(text, &Environment::default()).unwrap();
    assert_eq!(format("a%%b").as_literal(), Some(&b"a%b"[..]));
    assert_eq!(format("").as_literal(), Some(&b""[..]));
    assert_eq!(format("%PROTOCOL%").as_literal(), None);
}
