//! The agent's ports of the process: probes that the application answers in its own protocol, and scrapes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::{Read, Write};
use std::sync::Arc;
use support::{Proxy, connect, free_port, read_head};

/// Head and body of a GET, as bytes.
fn ask(port: u16, path: &str, more: &str) -> (String, Vec<u8>) {
    let mut stream = connect(port);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{more}\r\n").as_bytes()).unwrap();
    let head = read_head(&mut stream);
    let mut body = Vec::new();
    stream.read_to_end(&mut body).unwrap();
    (head, body)
}

fn start(directory: &std::path::Path, probes: &str) -> (Proxy, u16, u16) {
    let (status, metrics) = (free_port(), free_port());
    let ports = [status, metrics].map(|port| port.to_string());
    let arguments = ["--status-port", &ports[0], "--metrics-port", &ports[1]];
    let proxy = Proxy::launch(directory, "node: {id: one}\n", &arguments, &[("ISTIO_KUBE_APP_PROBERS", probes)]);
    (proxy, status, metrics)
}

/// A server of `grpc.health.v1.Health` for the services `up` and, not serving, `down`.
fn health_server() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper::service::service_fn(async |request: hyper::Request<hyper::body::Incoming>| {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    let asked = request.into_body().collect().await.unwrap().to_bytes();
                    // length 4, field 1, "up"; or length 6, field 1, "down"
                    let status = match &asked[..] {
                        b"\0\0\0\0\x04\x0a\x02up" => 1,
                        b"\0\0\0\0\x06\x0a\x04down" => 2,
                        other => panic!("{other:?}"),
                    };
                    let body = Full::new(bytes::Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]));
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(stream), service).await);
            }
        });
    });
    port
}

/// An HTTPS server whose certificate nobody vouches for.
fn https_server() -> u16 {
    let own = rcgen::generate_simple_self_signed(vec!["nobody.test".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(identity::svid::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    support::upstream(move |stream| {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(session, stream);
        let mut head = [0; 512];
        let n = stream.read(&mut head).unwrap();
        assert!(head[..n].starts_with(b"GET /healthz HTTP/1.1\r\n"));
        stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    })
}

// spec: HL-1
#[test]
fn an_application_is_probed_in_its_own_protocol() {
    let (grpc, https) = (health_server(), https_server());
    let probes = format!(
        "{{\"/app-health/a/livez\": {{\"grpc\": {{\"port\": {grpc}, \"service\": \"up\"}}, \"timeoutSeconds\": 10}}, \
          \"/app-health/b/livez\": {{\"grpc\": {{\"port\": {grpc}, \"service\": \"down\"}}, \"timeoutSeconds\": 10}}, \
          \"/app-health/c/readyz\": {{\"httpGet\": {{\"port\": {https}, \"path\": \"/healthz\", \"scheme\": \"HTTPS\"}}, \"timeoutSeconds\": 10}}}}"
    );
    let directory = tempfile::tempdir().unwrap();
    let (_proxy, status, _) = start(directory.path(), &probes);
    let code = |path: &str| ask(status, path, "").0.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(code("/app-health/a/livez"), "200");
    assert_eq!(code("/app-health/b/livez"), "500");
    assert_eq!(code("/app-health/c/readyz"), "204");
}

// spec: PT-5, PT-7, ST-6
#[test]
fn scrapes_are_compressed_for_those_who_can_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let (_proxy, status, metrics) = start(directory.path(), "{}");
    for port in [status, metrics] {
        let (head, packed) = ask(port, "/stats/prometheus", "accept-encoding: br;q=1.0, gzip;q=0.8\r\n");
        assert!(head.contains("content-encoding: gzip\r\n") && head.contains("vary: Accept-Encoding\r\n"), "{head}");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert!(text.contains("envoy_server_state{} 0\n"), "{text}");
        for plain in ["", "accept-encoding: identity\r\n", "accept-encoding: gzip;q=0, br\r\n"] {
            let (head, body) = ask(port, "/stats/prometheus", plain);
            assert!(!head.contains("content-encoding"), "{head}");
            assert!(body.len() > packed.len() && String::from_utf8(body).unwrap().contains("envoy_server_state{} 0\n"));
        }
    }
}
