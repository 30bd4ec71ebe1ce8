//! `ext_authz` against a real gRPC service.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proto::envoy::auth::authorization_server::{Authorization, AuthorizationServer};
use proto::envoy::auth::check_response::HttpResponse;
use proto::envoy::auth::{CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse};
use proto::envoy::core::{HeaderValue, HeaderValueOption};
use proto::envoy::types::HttpStatus;
use proto::envoy::wkt::BoolValue;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use support::{Proxy, free_port};
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

#[tonic::async_trait]
impl Authorization for Judge {
    async fn check(&self, asked: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let attributes = asked.into_inner().attributes.unwrap();
        let http = attributes.request.unwrap().http.unwrap();
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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {n}\r\n\r\n");
            stream.write_all(&[answer.as_bytes(), &head[..n]].concat()).unwrap();
        }
    });
    port
}

fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn config(listen: u16, service: u16, upstream: u16) -> String {
    let api = "type.googleapis.com/envoy.extensions";
    let endpoint = |port: u16| {
        format!(
            "[{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]"
        )
    };
    format!(
        "  - name: l
    address: {{socket_address: {{address: 127.0.0.1, port_value: {listen}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': {api}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l
          route_config:
            name: r
            virtual_hosts:
            - name: v
              domains: ['*']
              typed_per_filter_config:
                envoy.filters.http.ext_authz: {{'@type': {api}.filters.http.ext_authz.v3.ExtAuthzPerRoute, check_settings: {{context_extensions: {{who: route}}}}}}
              routes:
              - match: {{prefix: /open}}
                route: {{cluster: up}}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz: {{'@type': {api}.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true}}
              - {{match: {{prefix: /}}, route: {{cluster: up}}}}
          http_filters:
          - name: envoy.filters.http.ext_authz
            typed_config:
              '@type': {api}.filters.http.ext_authz.v3.ExtAuthz
              grpc_service: {{envoy_grpc: {{cluster_name: authz}}, timeout: 1s}}
              with_request_body: {{max_request_bytes: 4, allow_partial_message: true}}
              status_on_error: {{code: 503}}
          - {{name: router, typed_config: {{'@type': {api}.filters.http.router.v3.Router}}}}
  clusters:
  - {{name: up, type: STATIC, load_assignment: {{cluster_name: up, endpoints: {}}}}}
  - name: authz
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': {api}.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment: {{cluster_name: authz, endpoints: {}}}
",
        endpoint(upstream),
        endpoint(service)
    )
}

// spec: HP-13, LR-17
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_service_lets_pass_changes_and_denies() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = listener.local_addr().unwrap().port();
    let server = tonic::transport::Server::builder().add_service(AuthorizationServer::new(Judge));
    tokio::spawn(server.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)));
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
