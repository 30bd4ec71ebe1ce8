//! `ext_authz` against a real gRPC service.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proto::envoy::auth::attribute_context::Peer;
use proto::envoy::auth::authorization_server::{Authorization, AuthorizationServer};
use proto::envoy::auth::check_response::HttpResponse;
use proto::envoy::auth::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use proto::envoy::core::address::Address;
use proto::envoy::core::{HeaderValue, HeaderValueOption};
use proto::envoy::types::HttpStatus;
use proto::envoy::wkt::BoolValue;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use support::{Proxy, cluster, free_port, http, listener, read_head, tcp, upstream};
use tonic::{Request, Response, Status};

/// Lets through who says `x-ok`; denies others with what it was told; does not answer who says `x-slow`.
struct Judge;

fn header(key: &str, value: &str, append: bool) -> HeaderValueOption {
    #[expect(deprecated, reason = "services still send it")]
    HeaderValueOption {
        header: Some(HeaderValue { key: key.into(), value: value.into(), ..HeaderValue::default() }),
        append: Some(BoolValue { value: append }),
        ..HeaderValueOption::default()
    }
}

/// Judges a connection by the client's address: 127.0.0.1 may pass, 127.0.0.2 may not, of others nothing is known.
fn connection(source: Peer, destination: Peer) -> Result<Response<CheckResponse>, Status> {
    let ip = |peer: Peer| match peer.address.unwrap().address.unwrap() {
        Address::SocketAddress(socket) => socket.address,
        other => panic!("{other:?}"),
    };
    assert_eq!(ip(destination), "127.0.0.1");
    let code = match ip(source).as_str() {
        "127.0.0.1" => 0,
        "127.0.0.2" => 7,
        _ => return Err(Status::unavailable("not now")),
    };
    let status = Some(proto::envoy::RpcStatus { code, ..Default::default() });
    Ok(Response::new(CheckResponse { status, ..CheckResponse::default() }))
}

#[tonic::async_trait]
impl Authorization for Judge {
    async fn check(&self, asked: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let attributes = asked.into_inner().attributes.unwrap();
        let Some(request) = attributes.request else {
            return connection(attributes.source.unwrap(), attributes.destination.unwrap());
        };
        let http = request.http.unwrap();
        if http.headers.contains_key("x-slow") {
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        if http.headers.contains_key("x-fail") {
            return Err(Status::unavailable("not now"));
        }
        if http.headers.contains_key("x-split") {
            let bad = OkHttpResponse { headers: vec![header("x", "a\r\nevil: b", false)], ..OkHttpResponse::default() };
            return Ok(Response::new(CheckResponse {
                status: Some(proto::envoy::RpcStatus::default()),
                http_response: Some(HttpResponse::OkResponse(bad)),
                ..CheckResponse::default()
            }));
        }
        let pass = http.headers.contains_key("x-ok");
        let answer = if pass {
            HttpResponse::OkResponse(OkHttpResponse {
                headers: vec![header("x-user", "alice", false), header("x-many", "two", true)],
                headers_to_remove: vec!["x-secret".into(), ":path".into()],
                ..OkHttpResponse::default()
            })
        } else {
            let body = format!(
                "{} {} {} {} body={} context={} authority={}",
                http.method,
                http.path,
                http.host,
                http.protocol,
                http.body,
                attributes.context_extensions.get("who").cloned().unwrap_or_default(),
                http.headers.get(":authority").cloned().unwrap_or_default(),
            );
            HttpResponse::DeniedResponse(DeniedHttpResponse {
                status: Some(HttpStatus { code: 401 }),
                headers: vec![header("www-authenticate", "Basic", false)],
                body,
            })
        };
        let code = if pass { 0 } else { 16 };
        Ok(Response::new(CheckResponse {
            status: Some(proto::envoy::RpcStatus { code, ..Default::default() }),
            http_response: Some(answer),
            ..CheckResponse::default()
        }))
    }
}

/// Answers with the head that it got.
fn echo() -> u16 {
    upstream(|mut stream: TcpStream| {
        let head = read_head(&mut stream);
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        stream.write_all(answer.as_bytes()).unwrap();
    })
}

fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const API: &str = "type.googleapis.com/envoy.extensions";

/// Clusters: `up`, and the service `authz`, which speaks HTTP/2.
fn clusters(service: u16, up: u16) -> String {
    let authz = cluster("authz", &[service]);
    let authz = authz.trim_end().strip_suffix('}').unwrap();
    let options = format!(
        "{{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{'@type': {API}.upstreams.http.v3.HttpProtocolOptions, \
         explicit_http_config: {{http2_protocol_options: {{}}}}}}}}"
    );
    format!("{}{authz}, typed_extension_protocol_options: {options}}}\n", cluster("up", &[up]))
}

fn config(listen: u16, service: u16, up: u16) -> String {
    let own = |fields: &str| {
        format!(
            "typed_per_filter_config: {{envoy.filters.http.ext_authz: {{'@type': {API}.filters.http.ext_authz.v3.ExtAuthzPerRoute, {fields}}}}}"
        )
    };
    let routes = format!(
        "{{match: {{prefix: /open}}, route: {{cluster: up}}, {}}}, {{match: {{prefix: /}}, route: {{cluster: up}}}}",
        own("disabled: true")
    );
    let filter = format!(
        "{{name: envoy.filters.http.ext_authz, typed_config: {{'@type': {API}.filters.http.ext_authz.v3.ExtAuthz, \
         grpc_service: {{envoy_grpc: {{cluster_name: authz}}, timeout: 1s}}, status_on_error: {{code: 503}}, \
         with_request_body: {{max_request_bytes: 4, allow_partial_message: true}}}}}}, "
    );
    let host = format!("domains: ['*'], {},", own("check_settings: {context_extensions: {who: route}}"));
    let chain = http(&routes, "")
        .replace("http_filters: [", &format!("http_filters: [{filter}"))
        .replace("domains: ['*'],", &host);
    let listener = listener("l", listen, "", &format!("{{filters: [{chain}]}}"));
    format!("  - {listener}\n  clusters:\n{}", clusters(service, up))
}

/// A running [`Judge`].
async fn judge() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = listener.local_addr().unwrap().port();
    let server = tonic::transport::Server::builder().add_service(AuthorizationServer::new(Judge));
    tokio::spawn(server.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)));
    service
}

// spec: HP-13, LR-17
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_service_lets_pass_changes_and_denies() {
    let service = judge().await;
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let _proxy = Proxy::start(directory.path(), &config(port, service, echo()));

    let passed = ask(
        port,
        "GET /a HTTP/1.1\r\nhost: b\r\nx-ok: 1\r\nx-user: mallory\r\nx-many: one\r\nx-secret: s\r\nconnection: close\r\n\r\n",
    );
    assert!(passed.starts_with("HTTP/1.1 200") && passed.contains("GET /a HTTP/1.1"), "{passed}");
    assert!(
        passed.contains("x-user: alice") && !passed.contains("mallory") && !passed.contains("x-secret"),
        "{passed}"
    );
    assert!(passed.contains("x-many: one") && passed.contains("x-many: two"), "{passed}");

    let denied =
        ask(port, "POST /p?q=1 HTTP/1.1\r\nhost: b\r\ncontent-length: 9\r\nconnection: close\r\n\r\nsomething");
    assert!(denied.starts_with("HTTP/1.1 401") && denied.contains("www-authenticate: Basic"), "{denied}");
    assert!(denied.ends_with("POST /p?q=1 b HTTP/1.1 body=some context=route authority=b"), "{denied}");

    let grpc = ask(
        port,
        "POST /s/m HTTP/1.1\r\nhost: b\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    assert!(grpc.starts_with("HTTP/1.1 200") && grpc.contains("grpc-status: 16"), "{grpc}");

    for (why, field) in [("fails", "x-fail"), ("is slow", "x-slow"), ("splits headers", "x-split")] {
        let failed = ask(port, &format!("GET / HTTP/1.1\r\nhost: b\r\n{field}: 1\r\nconnection: close\r\n\r\n"));
        assert!(failed.starts_with("HTTP/1.1 503"), "a service that {why}: {failed}");
    }
    let open = ask(port, "GET /open HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n");
    assert!(open.starts_with("HTTP/1.1 200"), "{open}");
}

/// What a client of this address gets of a server that speaks first.
fn greeting(from: u8, port: u16) -> String {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, from], 0)).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    let mut text = String::new();
    match TcpStream::from(socket).read_to_string(&mut text) {
        Ok(_) => text,
        Err(error) => error.kind().to_string(),
    }
}

// spec: XT-4
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_service_lets_connections_pass_or_not() {
    let service = judge().await;
    let directory = tempfile::tempdir().unwrap();
    let (strict, lenient) = (free_port(), free_port());
    let up = upstream(|mut stream: TcpStream| stream.write_all(b"hi").unwrap());
    let chain = |allow: bool| {
        format!(
            "{{filters: [{{name: authz, typed_config: {{'@type': {API}.filters.network.ext_authz.v3.ExtAuthz, stat_prefix: a, \
             failure_mode_allow: {allow}, grpc_service: {{envoy_grpc: {{cluster_name: authz}}, timeout: 5s}}}}}}, {}]}}",
            tcp("cluster: up")
        )
    };
    let listeners =
        [listener("strict", strict, "", &chain(false)), listener("lenient", lenient, "", &chain(true))].join("\n  - ");
    let _proxy = Proxy::start(directory.path(), &format!("  - {listeners}\n  clusters:\n{}", clusters(service, up)));
    assert_eq!([1, 2, 3].map(|from| greeting(from, strict)), ["hi", "", ""]);
    assert_eq!(
        [1, 2, 3].map(|from| greeting(from, lenient)),
        ["hi", "", "hi"],
        "what fails passes, what is denied does not"
    );
}

/// Leaves its answers with the proxy: by user, for a hundred requests; denies user 2.
#[derive(Clone, Default)]
struct Lessor(std::sync::Arc<std::sync::atomic::AtomicU32>);

#[tonic::async_trait]
impl Authorization for Lessor {
    async fn check(&self, asked: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        use proto::envoy::wkt::{ListValue, Struct, Value, value::Kind};
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let honoured = asked.metadata().get("x-ferromesh-lease").is_some_and(|value| value == "1");
        let headers = asked.into_inner().attributes.unwrap().request.unwrap().http.unwrap().headers;
        let value = |kind| Value { kind: Some(kind) };
        let by = vec![value(Kind::StringValue("request.headers/x-user".into()))];
        let lease = [
            ("valid_for_s", Kind::NumberValue(60.0)),
            ("uses", Kind::NumberValue(100.0)),
            ("by", Kind::ListValue(ListValue { values: by })),
        ];
        let lease = Struct { fields: lease.map(|(key, kind)| (key.to_owned(), value(kind))).into() };
        let fields = [("ferromesh.lease".to_owned(), value(Kind::StructValue(lease)))].into();
        let code = if headers.get("x-user").is_some_and(|user| user == "2") { 7 } else { 0 };
        Ok(Response::new(CheckResponse {
            status: Some(proto::envoy::RpcStatus { code, ..Default::default() }),
            http_response: (code == 0).then(|| {
                HttpResponse::OkResponse(OkHttpResponse {
                    headers: vec![header("x-checked", &headers["x-user"], false)],
                    ..OkHttpResponse::default()
                })
            }),
            dynamic_metadata: honoured.then_some(Struct { fields }),
        }))
    }
}

// spec: MX-32, MX-96
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_leased_is_used_again_for_requests_that_agree_in_what_it_depends_on() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = listener.local_addr().unwrap().port();
    let lessor = Lessor::default();
    let server = tonic::transport::Server::builder().add_service(AuthorizationServer::new(lessor.clone()));
    tokio::spawn(server.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)));
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let _proxy = Proxy::start(directory.path(), &config(port, service, echo()));
    for number in 0..450 {
        let user = number % 3;
        let answer =
            ask(port, &format!("GET /{number} HTTP/1.1\r\nhost: b\r\nx-user: {user}\r\nconnection: close\r\n\r\n"));
        let expected = if user == 2 { "HTTP/1.1 403" } else { "HTTP/1.1 200" };
        assert!(answer.starts_with(expected), "{answer}");
        assert!(
            user == 2 || answer.contains(&format!("x-checked: {user}")),
            "what it says is done each time: {answer}"
        );
    }
    // each of three users asked 150 times: a call for every hundred
    assert_eq!(lessor.0.load(std::sync::atomic::Ordering::Relaxed), 6);
}

// spec: MX-32, MX-96
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_http_is_used_again_too_and_its_terms_stay_here() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let calls = std::sync::Arc::new(AtomicU32::new(0));
    let counted = std::sync::Arc::clone(&calls);
    let service = upstream(move |mut stream: TcpStream| {
        counted.fetch_add(1, Ordering::Relaxed);
        let head = read_head(&mut stream);
        let status = if head.contains("x-user: 2") { "403 Forbidden" } else { "200 OK" };
        let user = head.split("x-user: ").nth(1).unwrap().split('\r').next().unwrap();
        let lease = r#"{"valid_for_s": 60, "uses": 100, "by": ["request.headers/x-user"]}"#;
        let answer = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\nx-checked: {user}\r\nx-ferromesh-lease: {lease}\r\ncontent-length: 2\r\n\r\nno"
        );
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let filter = format!(
        "{{name: envoy.filters.http.ext_authz, typed_config: {{'@type': {API}.filters.http.ext_authz.v3.ExtAuthz, \
         allowed_headers: {{patterns: [{{exact: x-user}}]}}, http_service: {{\
         server_uri: {{uri: 'http://a', cluster: authz, timeout: 5s}}, \
         authorization_response: {{allowed_upstream_headers: {{patterns: [{{prefix: x-}}]}}}}}}}}}}, "
    );
    let chain = http("{match: {prefix: /}, route: {cluster: up}}", "")
        .replace("http_filters: [", &format!("http_filters: [{filter}"));
    let port = free_port();
    let listener = listener("l", port, "", &format!("{{filters: [{chain}]}}"));
    let directory = tempfile::tempdir().unwrap();
    let clusters = cluster("authz", &[service]) + &cluster("up", &[echo()]);
    let _proxy = Proxy::start(directory.path(), &format!("  - {listener}\n  clusters:\n{clusters}"));
    for number in 0..450 {
        let user = number % 3;
        let request = format!("GET /{number} HTTP/1.1\r\nhost: b\r\nx-user: {user}\r\nconnection: close\r\n\r\n");
        let answer = ask(port, &request);
        let expected = if user == 2 { "HTTP/1.1 403" } else { "HTTP/1.1 200" };
        assert!(answer.starts_with(expected) && answer.contains(&format!("x-checked: {user}")), "{answer}");
        assert!(!answer.contains("x-ferromesh-lease") && (user != 2 || answer.ends_with("no")), "{answer}");
    }
    // each of three users asked 150 times: a call for every hundred
    assert_eq!(calls.load(Ordering::Relaxed), 6);
}
