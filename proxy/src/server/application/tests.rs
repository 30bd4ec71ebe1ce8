use super::*;
use hyper::header::HeaderValue;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, mpsc};

/// The address of a pod: not that of localhost.
const POD: &str = "127.0.0.2";

/// Reads the head of a request.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// An application at this address, which says `answer` of a request's line; its port, and heads with who asked.
async fn application(
    ip: &str,
    answer: impl Fn(&str) -> String + Send + 'static,
) -> (u16, mpsc::UnboundedReceiver<(SocketAddr, String)>) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (to, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            let head = head(&mut stream).await;
            stream.write_all(answer(head.lines().next().unwrap()).as_bytes()).await.unwrap();
            to.send((peer, head)).unwrap();
        }
    });
    (port, asked)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn probes(probes: &Value, more: &[(&str, &str)]) -> Application {
    let [first, second] = [0, 1].map(|index| more.get(index).copied().unwrap_or(("", "")));
    Application::of(&Environment::from([(PROBES_VARIABLE, probes.to_string().as_str()), first, second])).unwrap()
}

/// Status and body of a probe's answer.
async fn answer(application: &Application, path: &str, headers: &HeaderMap) -> (u16, String) {
    let answer = application.probe(path, headers).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn targets(annotations: &Value) -> Result<Vec<(u16, String)>, String> {
    let annotations = annotations.to_string();
    Application::of(&Environment::from([(METRICS_VARIABLE, annotations.as_str())])).map(|found| found.metrics)
}

// spec: OB-2, AN-4
#[test]
fn metrics_are_asked_for_unless_the_pod_says_false() {
    let target = |port: u16, path: &str| (port, path.to_owned());
    let empty = json!({"scrape": "", "path": "", "port": ""});
    assert_eq!(targets(&empty).unwrap(), [target(80, "/metrics")]);
    let one = json!({"scrape": "true", "path": "/m", "port": "9"});
    assert_eq!(targets(&one).unwrap(), [target(9, "/m")]);
    let listed = [json!({"port": "9", "path": "/m"}), json!({"port": "8", "path": ""})];
    let several = json!({"scrape": "", "path": "/m", "port": "9", "targets": listed});
    assert_eq!(targets(&several).unwrap(), [target(9, "/m"), target(8, "/metrics")]);
    let none = json!({"scrape": "false", "path": "/m", "port": "9", "targets": [{"port": "9", "path": "/m"}]});
    assert_eq!(targets(&none).unwrap(), []);
    let error = targets(&json!({"targets": [{"port": "web", "path": ""}]})).unwrap_err();
    assert_eq!(error, "ISTIO_PROMETHEUS_ANNOTATIONS: \"web\" is no port");
}

// spec: OB-2, AN-4
#[tokio::test]
async fn targets_are_asked_in_parallel_and_one_that_fails_costs_only_its_own() {
    let both = Arc::new(Barrier::new(2));
    let together = |body: &'static str| {
        let both = Arc::clone(&both);
        async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(head(&mut stream).await.starts_with("GET /metrics "));
                both.wait().await;
                stream.write_all(ok(body).as_bytes()).await.unwrap();
            });
            port
        }
    };
    let (first, last) = (together("# TYPE a counter\na_total 1\n# EOF\n").await, together("b 2").await);
    let (broken, _asked) =
        application("127.0.0.1", |_| "HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    let ports = [first, broken, last].map(|port| json!({"port": port.to_string(), "path": ""}));
    let annotations = json!({"targets": ports}).to_string();
    let found = Application::of(&Environment::from([(METRICS_VARIABLE, annotations.as_str())])).unwrap();
    let mut metrics = "own 0\n".to_owned();
    found.add_metrics(&mut metrics).await;
    assert_eq!(metrics, "own 0\n# TYPE a counter\na_total 1\nb 2\n");
}

// spec: OB-2
#[test]
fn the_mark_of_the_end_of_open_metrics_is_left_out() {
    for (text, lines) in [
        ("a 1\n# EOF\n", "a 1\n"),
        ("a 1\n# EOF", "a 1\n"),
        ("a 1\r\n# EOF\r\n", "a 1\n"),
        ("# EOF\n", ""),
        ("", ""),
        ("a 1", "a 1\n"),
        ("# EOF\na 1\n", "# EOF\na 1\n"),
        ("# HELP a no # EOF\n", "# HELP a no # EOF\n"),
    ] {
        assert_eq!(whole_lines(text), lines, "{text:?}");
    }
}

// spec: HL-1, PI-66
#[tokio::test]
async fn the_pod_itself_is_asked_as_the_kubelet_asks() {
    let (port, mut asked) = application(POD, |_| ok("fine")).await;
    let own = [("Accept", "text/html"), ("X-Own", "1"), ("x-own", "2")]
        .map(|(name, value)| json!({"name": name, "value": value}));
    let told = json!({
        "/app-health/a/livez": {"httpGet": {"path": "/up", "port": port, "httpHeaders": own}},
        "/app-health/a/readyz": {"httpGet": {"port": port, "httpHeaders": [{"name": "Host", "value": "shop.test"}]}},
    });
    let found = probes(&told, &[("INSTANCE_IP", POD)]);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "10.0.0.9:15020"),
        ("user-agent", "kube-probe/1.33"),
        ("accept", "*/*"),
        ("x-own", "0"),
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    assert_eq!(answer(&found, "/app-health/a/livez", &headers).await, (200, "fine".to_owned()));
    let (peer, head) = asked.recv().await.unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.6");
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    lines[1..].sort_unstable();
    let host = format!("host: {POD}:{port}");
    let expected = [
        "GET /up HTTP/1.1",
        "accept: text/html",
        "connection: close",
        &host,
        "user-agent: kube-probe/1.33",
        "x-own: 1",
        "x-own: 2",
    ];
    assert_eq!(lines, expected);
    assert_eq!(answer(&found, "/app-health/a/readyz", &headers).await.0, 200);
    let head = asked.recv().await.unwrap().1;
    assert!(head.starts_with("GET / HTTP/1.1\r\n") && head.contains("host: shop.test\r\n"), "{head}");
}

// spec: HL-1
#[tokio::test]
async fn localhost_is_asked_where_the_pod_is_not_known_or_it_is_wanted() {
    let (port, mut asked) = application("127.0.0.1", |_| ok("")).await;
    let told = json!({"/app-health/a/livez": {"httpGet": {"port": port}}});
    let legacy = [("INSTANCE_IP", POD), ("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "true")];
    for more in [&legacy[..], &[], &[("INSTANCE_IP", "")]] {
        assert_eq!(answer(&probes(&told, more), "/app-health/a/livez", &HeaderMap::new()).await.0, 200);
        let (peer, head) = asked.recv().await.unwrap();
        assert!(head.contains(&format!("host: localhost:{port}\r\n")), "{head}");
        assert_eq!(peer.ip().to_string(), "127.0.0.6");
    }
    let named = json!({"/app-health/a/livez": {"httpGet": {"port": port, "host": "127.0.0.1"}}});
    let named = probes(&named, &[("INSTANCE_IP", POD)]);
    assert_eq!(answer(&named, "/app-health/a/livez", &HeaderMap::new()).await.0, 200, "the probe's own host");
    let bad = Application::of(&Environment::from([("INSTANCE_IP", "pod")])).unwrap_err();
    assert_eq!(bad, "INSTANCE_IP: \"pod\" is no IP address");
}

// spec: HL-1
#[tokio::test]
async fn tcp_and_grpc_probes_go_to_the_pod_too() {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = json!({
        "/app-health/a/livez": {"tcpSocket": {"port": port}},
        "/app-health/a/readyz": {"grpc": {"port": port}},
    });
    let found = probes(&told, &[("INSTANCE_IP", POD)]);
    for (path, status) in [("/app-health/a/livez", 200), ("/app-health/a/readyz", 500)] {
        let headers = HeaderMap::new();
        let accepted = async { listener.accept().await.unwrap().1.ip().to_string() };
        let (answer, peer) = tokio::join!(Box::pin(answer(&found, path, &headers)), accepted);
        assert_eq!((answer.0, peer.as_str()), (status, "127.0.0.6"), "{path}");
    }
}

// spec: HL-1
#[tokio::test]
async fn a_pod_with_an_ipv6_address_is_asked_there() {
    if TcpListener::bind("[::1]:0").await.is_err() {
        return;
    }
    let (port, mut asked) = application("::1", |_| ok("six")).await;
    let told = json!({"/app-health/a/livez": {"httpGet": {"port": port}}});
    let found = probes(&told, &[("INSTANCE_IP", "::1")]);
    assert_eq!(answer(&found, "/app-health/a/livez", &HeaderMap::new()).await, (200, "six".to_owned()));
    let head = asked.recv().await.unwrap().1;
    assert!(head.contains(&format!("host: [::1]:{port}\r\n")), "{head}");
}

// spec: HL-1
#[tokio::test]
async fn redirects_to_the_same_host_are_followed_by_ten_requests() {
    let (port, _asked) = application(POD, |line| {
        let path = line.split(' ').nth(1).unwrap();
        let to = match path {
            "/a/absolute" => return ok("there"),
            "/a/relative?x" => "/a/absolute".to_owned(),
            "/a/b" => "relative?x#part".to_owned(),
            "/away" => "http://login.test/".to_owned(),
            "/not-modified" => return "HTTP/1.1 304 Not Modified\r\nlocation: /\r\n\r\n".to_owned(),
            _ => match path.trim_start_matches('/').parse::<u32>() {
                Ok(0) => return ok("last"),
                Ok(left) => format!("/{}", left - 1),
                Err(_) => panic!("{path}"),
            },
        };
        format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
    })
    .await;
    let get = |path: &str| json!({"httpGet": {"path": path, "port": port}});
    let told = json!({
        "a": get("/a/b"), "away": get("/away"), "same": get("/not-modified"), "9": get("/9"), "10": get("/10"),
    });
    let (found, headers) = (probes(&told, &[("INSTANCE_IP", POD)]), HeaderMap::new());
    assert_eq!(answer(&found, "a", &headers).await, (200, "there".to_owned()));
    assert_eq!(answer(&found, "away", &headers).await.0, 200, "the kubelet takes it for a success");
    assert_eq!(answer(&found, "same", &headers).await.0, 200);
    assert_eq!(answer(&found, "9", &headers).await, (200, "last".to_owned()));
    assert_eq!(answer(&found, "10", &headers).await, (500, "stopped after 10 redirects\n".to_owned()));
}

// spec: HL-1
#[tokio::test]
async fn of_an_answer_the_start_is_taken_over_and_what_only_proxies_say_is_not_asked() {
    let (port, mut asked) = application(POD, |_| ok(&"x".repeat(20_000))).await;
    let found = probes(&json!({"a": {"httpGet": {"path": "/", "port": port}}}), &[("INSTANCE_IP", POD)]);
    let mut headers = HeaderMap::new();
    for name in ["x-forwarded-client-cert", "x-envoy-original-path", "x-ferromesh-reason", "x-forwarded-proto"] {
        headers.insert(name, HeaderValue::from_static("said"));
    }
    let (status, body) = answer(&found, "a", &headers).await;
    assert_eq!((status, body.len()), (200, 10 << 10));
    let head = asked.recv().await.unwrap().1;
    let said: Vec<_> = head.lines().filter(|line| line.ends_with("said")).collect();
    assert_eq!(said, ["x-forwarded-proto: said"]);
}

// spec: HL-1
#[tokio::test(start_paused = true)]
async fn a_hook_takes_its_time_and_a_probe_has_a_second() {
    let listener = TcpListener::bind((POD, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            head(&mut stream).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(stream.write_all(ok("").as_bytes()).await);
        }
    });
    let get = json!({"httpGet": {"path": "/stop", "port": port}});
    let told = json!({"/app-lifecycle/a/prestopz": get, "/app-health/a/livez": get});
    let (found, headers) = (probes(&told, &[("INSTANCE_IP", POD)]), HeaderMap::new());
    assert_eq!(answer(&found, "/app-lifecycle/a/prestopz", &headers).await.0, 200);
    assert_eq!(answer(&found, "/app-health/a/livez", &headers).await, (500, "no answer within 1s\n".to_owned()));
}
