//! gRPC through the proxy: HTTP/2 on both sides, with messages and trailers in both directions.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use bytes::Bytes;
use std::time::Duration;
use support::{Proxy, cluster, free_port, http, listener};
use tokio::net::{TcpListener, TcpStream};

fn map(pairs: &[(&'static str, &'static str)]) -> ::http::HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (::http::HeaderName::from_static(name), ::http::HeaderValue::from_static(value))
    };
    pairs.iter().map(pair).collect()
}

/// Answers each message with itself at once, and the end of the request with trailers that repeat those of the request.
async fn echo(listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    let head = ::http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                    let mut send = respond.send_response(head, false).unwrap();
                    while let Some(Ok(data)) = body.data().await {
                        body.flow_control().release_capacity(data.len()).unwrap();
                        send.send_data(data, false).unwrap();
                    }
                    let mut trailers = map(&[("grpc-status", "5"), ("grpc-message", "no such thing")]);
                    trailers.extend(body.trailers().await.unwrap().unwrap_or_default());
                    send.send_trailers(trailers).unwrap();
                });
            }
        });
    }
}

/// A proxy before the echo, with these filters before its router, and a client's connection to it.
async fn through(filters: &str) -> (tempfile::TempDir, Proxy, h2::client::SendRequest<Bytes>) {
    let listener_of_app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener_of_app.local_addr().unwrap().port();
    tokio::spawn(echo(listener_of_app));
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let options = "type: STATIC, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
                   {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
                   explicit_http_config: {http2_protocol_options: {}}}}";
    let clusters = cluster("app", &[app]).replace("type: STATIC", options);
    let manager = http("{match: {prefix: /, grpc: {}}, route: {cluster: app}}", "");
    let manager = manager.replace("http_filters: [", &format!("http_filters: [{filters}"));
    let chain = format!("{{filters: [{manager}]}}");
    let yaml = format!("  - {}\n  clusters:\n{clusters}", listener("l", port, "", &chain));
    let path = directory.path().to_owned();
    let proxy = tokio::task::spawn_blocking(move || Proxy::start(&path, &yaml)).await.unwrap();

    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    (directory, proxy, client)
}

fn request() -> ::http::Request<()> {
    let request = ::http::Request::post("http://a/s/m").header("content-type", "application/grpc");
    request.header("te", "trailers").body(()).unwrap()
}

// spec: HP-1, HP-5
#[tokio::test]
async fn messages_flow_both_ways_before_the_request_ends_and_trailers_arrive() {
    let (_directory, _proxy, mut client) = through("").await;
    let request = request();
    let exchange = async {
        let (response, mut send) = client.send_request(request, false).unwrap();
        send.send_data(Bytes::from_static(b"one"), false).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/grpc".parse().unwrap())
        );
        for text in [&b"one"[..], b"two", b"three"] {
            // the answer to each is there before the next is sent
            assert_eq!(response.body_mut().data().await.unwrap().unwrap(), text);
            response.body_mut().flow_control().release_capacity(text.len()).unwrap();
            match text {
                b"one" => send.send_data(Bytes::from_static(b"two"), false).unwrap(),
                b"two" => send.send_data(Bytes::from_static(b"three"), false).unwrap(),
                _ => send.send_trailers(map(&[("x-end", "mine")])).unwrap(),
            }
        }
        assert!(response.body_mut().data().await.is_none());
        response.body_mut().trailers().await.unwrap().unwrap()
    };
    let trailers = tokio::time::timeout(Duration::from_secs(20), exchange).await.unwrap();
    let expected = map(&[("grpc-status", "5"), ("grpc-message", "no such thing"), ("x-end", "mine")]);
    assert_eq!(trailers, expected);
}

/// The sum of a counter over all its series; none while there is no series.
fn counted(proxy: &Proxy, name: &str) -> Option<u64> {
    let text = proxy.admin("GET", &format!("/stats/prometheus?filter={name}")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).reduce(|one, other| one + other)
}

// spec: TL-3, TM-4
#[tokio::test]
async fn messages_of_a_stream_are_counted_while_it_is_open() {
    let filters = "{name: s, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig}}, \
                   {name: t, typed_config: {'@type': type.googleapis.com/stats.PluginConfig, tcp_reporting_duration: 0.2s}}, ";
    let (_directory, proxy, mut client) = through(filters).await;
    let (response, mut send) = client.send_request(request(), false).unwrap();
    let message = Bytes::from_static(b"\0\0\0\0\x03one");
    send.send_data(message.clone(), false).unwrap();
    let mut response = response.await.unwrap();
    let proxy = std::sync::Arc::new(proxy);
    let told = async |messages: u64| {
        let proxy = std::sync::Arc::clone(&proxy);
        let both = ["istio_request_messages_total", "istio_response_messages_total"];
        let wait = move || proxy.until(|proxy| both.iter().all(|name| counted(proxy, name) == Some(messages)));
        tokio::task::spawn_blocking(wait).await.unwrap();
    };
    response.body_mut().data().await.unwrap().unwrap();
    told(1).await;
    send.send_data(Bytes::from([message.clone(), message].concat()), false).unwrap();
    told(3).await;
    assert_eq!(counted(&proxy, "istio_requests_total"), None, "the stream is open");
    send.send_trailers(map(&[])).unwrap();
    while response.body_mut().data().await.is_some() {}
    response.body_mut().trailers().await.unwrap();
    let ended = std::sync::Arc::clone(&proxy);
    let wait = move || ended.until(|proxy| counted(proxy, "istio_requests_total") == Some(1));
    tokio::task::spawn_blocking(wait).await.unwrap();
    told(3).await;
}
