//! Listeners and the process come and go: what happens to connections then.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use support::{Proxy, cluster, connect, free_port, http, listener, read_head, tcp, upstream};

/// Puts this version of the listeners in place, at once.
fn publish(directory: &Path, version: u32, listeners: &[String]) {
    let mut text = format!("version_info: '{version}'\nresources:\n");
    for listener in listeners {
        let fields = listener.strip_prefix('{').unwrap();
        text += &format!("- {{'@type': type.googleapis.com/envoy.config.listener.v3.Listener, {fields}\n");
    }
    let new = directory.join("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, directory.join("lds.yaml")).unwrap();
}

/// A proxy that follows the file of [`publish`].
fn follow(directory: &Path, clusters: &str, arguments: &[&str]) -> Proxy {
    let path = directory.join("lds.yaml");
    let clusters =
        if clusters.is_empty() { String::new() } else { format!("static_resources:\n  clusters:\n{clusters}") };
    let yaml = format!(
        "node: {{id: one, cluster: c}}\ndynamic_resources: {{lds_config: {{path_config_source: {{path: {}}}}}}}\n{clusters}",
        path.display()
    );
    Proxy::launch(directory, &yaml, arguments, &[])
}

fn says(body: &str, more: &str) -> String {
    let route = format!("{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {body}}}}}}}");
    format!("{{filters: [{}]}}", http(&route, more))
}

/// One answer over a connection that is kept, unless the proxy says otherwise: its head and its body.
fn get(stream: &mut TcpStream) -> (String, String) {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    answer(stream)
}

fn answer(stream: &mut TcpStream) -> (String, String) {
    let head = read_head(stream);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// What a new connection is told; none where there is none.
fn fresh(port: u16) -> Option<String> {
    TcpStream::connect(("127.0.0.1", port)).is_ok().then(|| get(&mut connect(port)).1)
}

fn is_closed(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).unwrap() == 0
}

/// Sends a byte and gets it back.
fn echoes(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok() && &byte == b"x"
}

fn echo() -> u16 {
    upstream(|mut stream: TcpStream| {
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
    })
}

// spec: LC-1
#[test]
fn connections_outlive_an_update_and_a_removal_of_their_listener() {
    let (directory, web, raw) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let bytes =
        |more: &str| listener("t", raw, "", &format!("{{filters: [{}]}}", tcp(&format!("cluster: echo{more}"))));
    publish(directory.path(), 1, &[listener("l", web, "", &says("old", "")), bytes("")]);
    let proxy = follow(directory.path(), &cluster("echo", &[echo()]), &["--drain-strategy", "immediate"]);
    let (mut kept, mut tunnel, mut late) = (connect(web), connect(raw), connect(web));
    assert!(echoes(&mut tunnel));
    let (head, body) = get(&mut kept);
    assert!(body == "old" && !head.contains("connection: close"), "{head}");

    publish(directory.path(), 2, &[listener("l", web, "", &says("new", "")), bytes(", idle_timeout: 60s")]);
    proxy.until(|_| fresh(web).as_deref() == Some("new"));
    let (head, body) = get(&mut late);
    assert!(body == "old" && head.contains("connection: close\r\n"), "its first request is served: {head}");
    assert!(is_closed(&mut late));
    assert!(is_closed(&mut kept), "it was idle");
    assert!(echoes(&mut tunnel), "an update does not cut connections");

    publish(directory.path(), 3, &[listener("l", web, "", &says("new", ""))]);
    proxy.until(|_| TcpStream::connect(("127.0.0.1", raw)).is_err());
    assert!(echoes(&mut tunnel), "a removal does not cut connections");
    assert_eq!(fresh(web).as_deref(), Some("new"), "others are left alone");
}

// spec: XT-15
#[test]
fn an_unknown_extension_costs_only_its_listener_and_nothing_where_it_is_optional() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad, optional) = (free_port(), free_port(), free_port());
    let odd = "{filter_chain_match: {destination_port: 1}, filters: [{name: odd.one, typed_config: \
               {'@type': type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/odd.One}}]}";
    let spoilt = || listener("spoilt", bad, "", &format!("{}, {odd}", says("spoilt", "")));
    let unknown = |field: &str| {
        format!(
            "{{name: odd.http, {field}: true, typed_config: {{'@type': type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/odd.Http}}}}, "
        )
    };
    let lenient =
        |field: &str| says("lenient", "").replace("http_filters: [", &format!("http_filters: [{}", unknown(field)));
    let listeners = |middle: String, field: &str| {
        [listener("good", good, "", &says("good", "")), middle, listener("lenient", optional, "", &lenient(field))]
    };
    publish(directory.path(), 1, &listeners(spoilt(), "is_optional"));
    let proxy = follow(directory.path(), "", &[]);
    proxy.until(|_| fresh(good).as_deref() == Some("good") && fresh(optional).as_deref() == Some("lenient"));
    assert_eq!(fresh(bad), None, "not a part of it");
    let refused = |proxy: &Proxy| {
        let dump = proxy.admin("GET", "/config_dump").unwrap_or_default();
        dump.lines().any(|line| line.contains("\"details\": \"spoilt: ") && line.contains("odd.one"))
    };
    proxy.until(refused);

    publish(directory.path(), 2, &listeners(listener("spoilt", bad, "", &says("mended", "")), "disabled"));
    proxy.until(|_| fresh(bad).as_deref() == Some("mended"));
    assert_eq!(fresh(optional).as_deref(), Some("lenient"));
    proxy.until(|proxy| !refused(proxy));
    publish(directory.path(), 3, &listeners(spoilt(), "is_optional"));
    proxy.until(refused);
    assert_eq!(fresh(bad).as_deref(), Some("mended"), "the last good one stays");
}

/// HTTP/2 frames as they come: type, flags, stream, payload.
fn frame(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
    let mut payload = vec![0; number(&head[..3]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], number(&head[5..]), payload))
}

const HEADERS: u8 = 1;
const GO_AWAY: u8 = 7;

/// `GET /` for `a`, whole, on this stream.
fn send_get(stream: &mut TcpStream, id: u8) {
    stream.write_all(&[0, 0, 6, 1, 5, 0, 0, 0, id, 0x82, 0x86, 0x84, 0x41, 1, b'a']).unwrap();
}

/// The last stream that each GOAWAY names, and its code.
fn leaves(frames: &[(u8, u8, u32, Vec<u8>)]) -> Vec<&[u8]> {
    frames.iter().filter(|(kind, ..)| *kind == GO_AWAY).map(|(.., payload)| payload.as_slice()).collect()
}

const WARNING: &[u8] = &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// Begins HTTP/2 with a request on stream 1.
fn h2(port: u16) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    send_get(&mut stream, 1);
    stream
}

// spec: LC-3, HP-6
#[test]
fn draining_asks_connections_to_leave_in_their_own_protocol() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let chain = says("hi", "drain_timeout: 2s,");
    let yaml = format!("static_resources:\n  listeners:\n  - {}\n", listener("l", port, "", &chain));
    let proxy = Proxy::launch(directory.path(), &yaml, &["--drain-strategy", "immediate"], &[]);
    let (mut idle, mut one, mut two) = (connect(port), connect(port), h2(port));
    assert!(!get(&mut idle).0.contains("connection: close"));
    while frame(&mut two).unwrap().2 != 1 {}

    assert!(proxy.admin("POST", "/drain_listeners?graceful&skip_exit").unwrap().ends_with("OK\n"));
    // its client was about to send
    while !get(&mut one).0.contains("connection: close\r\n") {}
    assert!(is_closed(&mut one) && is_closed(&mut idle));
    // an idle connection hears of it: all streams are welcome still
    let mut warned = Vec::new();
    while leaves(&warned).is_empty() {
        warned.push(frame(&mut two).unwrap());
    }
    assert_eq!(leaves(&warned), [WARNING]);
    send_get(&mut two, 3);
    let frames: Vec<_> = std::iter::from_fn(|| frame(&mut two)).collect();
    assert!(frames.iter().any(|(kind, _, id, _)| (*kind, *id) == (HEADERS, 3)), "it is still answered: {frames:?}");
    assert_eq!(leaves(&frames), [&[0, 0, 0, 3, 0, 0, 0, 0]], "all up to stream 3 is done, no error: {frames:?}");
}

// spec: HP-6
#[test]
fn a_connection_ends_after_so_many_requests_or_so_much_time() {
    let (directory, few, short) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let limited = |limit: &str| says("hi", &format!("drain_timeout: 0.1s, common_http_protocol_options: {{{limit}}},"));
    let listeners = [
        listener("few", few, "", &limited("max_requests_per_connection: 2")),
        listener("short", short, "", &limited("max_connection_duration: 0.2s")),
    ];
    let _proxy = Proxy::start(directory.path(), &format!("  - {}\n  - {}\n", listeners[0], listeners[1]));
    let mut one = connect(few);
    assert!(!get(&mut one).0.contains("connection: close"), "the first of two");
    assert!(get(&mut one).0.contains("connection: close\r\n"), "the last of two");
    assert!(is_closed(&mut one));
    let mut two = h2(few);
    send_get(&mut two, 3);
    let frames: Vec<_> = std::iter::from_fn(|| frame(&mut two)).collect();
    assert_eq!(leaves(&frames), [WARNING, &[0, 0, 0, 3, 0, 0, 0, 0]]);

    let (began, mut one, mut two) = (Instant::now(), connect(short), h2(short));
    assert_eq!(get(&mut one).1, "hi");
    let frames: Vec<_> = std::iter::from_fn(|| frame(&mut two)).collect();
    assert!(began.elapsed() >= Duration::from_millis(300), "its time and that of the warning: {:?}", began.elapsed());
    assert_eq!(leaves(&frames), [WARNING, &[0, 0, 0, 1, 0, 0, 0, 0]]);
    assert!(get(&mut one).0.contains("connection: close\r\n"), "its time is over");
}

/// A proxy before an upstream that answers when the barrier lets it.
fn slow(directory: &Path, port: u16, drain_time_s: &str) -> (Proxy, Arc<Barrier>) {
    let barrier = Arc::new(Barrier::new(2));
    let gate = Arc::clone(&barrier);
    let up = upstream(move |mut stream: TcpStream| {
        read_head(&mut stream);
        gate.wait();
        gate.wait();
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"));
    });
    let chain = format!("{{filters: [{}]}}", http("{match: {prefix: /}, route: {cluster: up}}", ""));
    let yaml = format!(
        "static_resources:\n  listeners:\n  - {}\n  clusters:\n{}",
        listener("l", port, "", &chain),
        cluster("up", &[up])
    );
    let arguments = ["--drain-time-s", drain_time_s, "--drain-strategy", "immediate"];
    (Proxy::launch(directory, &yaml, &arguments, &[]), barrier)
}

// spec: HL-5
#[test]
fn a_termination_lets_requests_end_and_then_ends_the_process() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let (mut proxy, gate) = slow(directory.path(), port, "600");
    let mut client = connect(port);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    gate.wait();
    proxy.terminate();
    proxy.until(|proxy| {
        proxy.admin("GET", "/ready").is_some_and(|answer| answer.contains(" 503 ") && answer.ends_with("DRAINING\n"))
    });
    assert!(!proxy.ended(), "a request is open");
    gate.wait();
    let (head, body) = answer(&mut client);
    assert!(body == "done" && head.contains("connection: close\r\n"), "{head}");
    assert!(is_closed(&mut client));
    proxy.until_ended();
}

// spec: HL-5
#[test]
fn a_termination_has_a_limit_and_a_second_one_does_not_wait() {
    for (limit_s, again) in [("1", false), ("600", true)] {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let (proxy, gate) = slow(directory.path(), port, limit_s);
        let mut client = connect(port);
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        gate.wait();
        let began = Instant::now();
        proxy.terminate();
        if again {
            proxy.until(|proxy| proxy.admin("GET", "/ready").is_some_and(|answer| answer.ends_with("DRAINING\n")));
            proxy.terminate();
        }
        proxy.until_ended();
        assert!(again || began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
        gate.wait();
    }
}

// spec: PT-4
#[test]
fn the_admin_interface_is_where_the_bootstrap_puts_it_and_nowhere_else() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let address = directory.path().join("address");
    let more = format!("admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}");
    let file = directory.path().join("b.yaml");
    std::fs::write(&file, more).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_proxy"))
        .args(["-c", file.to_str().unwrap(), "--concurrency", "1", "-l", "error"])
        .args(["--admin-address-path", address.to_str().unwrap()])
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(_) => assert!(Instant::now() < deadline, "no admin interface"),
        }
        std::thread::yield_now();
    };
    assert!(TcpStream::connect(("127.0.0.2", port)).is_err(), "on another address of this machine");
    stream.write_all(b"POST /quitquitquit HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
    assert_eq!(std::fs::read_to_string(address).unwrap().trim(), format!("127.0.0.1:{port}"));
    assert!(child.wait().unwrap().success());
}

fn asked(port: u16, method: &str, path: &str) -> (String, String) {
    let mut stream = connect(port);
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

// spec: PT-5, PT-6, PT-7, OB-4
#[test]
fn the_ports_of_the_agent_are_open_and_each_has_its_own_paths() {
    let app = upstream(|mut stream: TcpStream| {
        let head = read_head(&mut stream);
        let body = if head.starts_with("GET /m ") { "app_metric 1\n" } else { "" };
        let status = if head.starts_with("GET /up ") || !body.is_empty() { "200 OK" } else { "404 Not Found" };
        let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let (directory, web) = (tempfile::tempdir().unwrap(), free_port());
    let [status, ready, metrics] = [(); 3].map(|()| free_port());
    let ports = [status, ready, metrics].map(|port| port.to_string());
    let probes = format!("{{\"/app-health/c/readyz\": {{\"httpGet\": {{\"path\": \"/up\", \"port\": {app}}}}}}}");
    let scrape = format!("{{\"scrape\": \"true\", \"path\": \"/m\", \"port\": \"{app}\"}}");
    let yaml = format!(
        "static_resources:\n  listeners:\n  - {}\n",
        listener("l", web, "traffic_direction: INBOUND,", &says("hi", ""))
    );
    let proxy = Proxy::launch(
        directory.path(),
        &yaml,
        &["--status-port", &ports[0], "--ready-port", &ports[1], "--metrics-port", &ports[2]],
        &[("ISTIO_KUBE_APP_PROBERS", &probes), ("ISTIO_PROMETHEUS_ANNOTATIONS", &scrape)],
    );
    let code = |port: u16, method: &str, path: &str| asked(port, method, path).0;
    assert_eq!([status, ready, metrics].map(|port| code(port, "GET", "/healthz/ready")), ["200", "200", "404"]);
    let shown = [status, ready, metrics].map(|port| asked(port, "GET", "/stats/prometheus"));
    assert_eq!(shown.each_ref().map(|(code, _)| code.as_str()), ["200", "404", "200"]);
    let has = |text: &str| shown.each_ref().map(|(_, body)| body.contains(text));
    assert_eq!(has("envoy_server_state"), [true, false, true]);
    assert_eq!(has("\napp_metric 1\n"), [true, false, false], "merged on the status port alone");
    assert_eq!([status, ready, metrics].map(|port| code(port, "GET", "/app-health/c/readyz")), ["200", "404", "404"]);
    for path in ["/drain", "/quitquitquit"] {
        assert_eq!([status, ready, metrics].map(|port| code(port, "GET", path)), ["405", "404", "404"]);
    }
    assert!(!get(&mut connect(web)).0.contains("connection: close"));
    assert_eq!(code(status, "POST", "/drain"), "200");
    proxy.until(|_| get(&mut connect(web)).0.contains("connection: close\r\n"));
    assert_eq!(code(status, "POST", "/quitquitquit"), "200");
    proxy.until_ended();
}

// spec: LC-1
#[test]
fn an_update_of_one_chain_leaves_the_connections_of_others_alone() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let inner = |chains: &[(&str, &str)], more: &str| {
        let chains: Vec<String> = chains
            .iter()
            .map(|(source, body)| {
                let route = format!("{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {body}}}}}}}");
                format!("{{filter_chain_match: {{source_prefix_ranges: [{{address_prefix: {source}, prefix_len: 32}}]}}, filters: [{}]}}", http(&route, ""))
            })
            .collect();
        listener("l", port, more, &chains.join(", "))
    };
    publish(directory.path(), 1, &[inner(&[("127.0.0.1", "one"), ("127.0.0.2", "two")], "")]);
    let proxy = follow(directory.path(), "", &["--drain-strategy", "immediate"]);
    let from = |host: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, host], 0)).into()).unwrap();
        socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    let (mut one, mut two) = (from(1), from(2));
    assert_eq!((get(&mut one).1.as_str(), get(&mut two).1.as_str()), ("one", "two"));

    publish(directory.path(), 2, &[inner(&[("127.0.0.2", "changed"), ("127.0.0.1", "one"), ("127.0.0.3", "new")], "")]);
    assert!(is_closed(&mut two), "its chain has changed");
    assert_eq!((get(&mut from(2)).1.as_str(), get(&mut from(3)).1.as_str()), ("changed", "new"));
    let (head, body) = get(&mut one);
    assert!(body == "one" && !head.contains("connection: close"), "its chain is as it was: {head}");

    publish(directory.path(), 3, &[inner(&[("127.0.0.1", "one")], "continue_on_listener_filters_timeout: true,")]);
    assert!(is_closed(&mut one), "the listener itself has changed");
    drop(proxy);
}

// spec: LC-1
#[test]
fn the_drain_time_of_a_changed_listener_ends_what_stayed() {
    let (directory, raw, web) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let bytes =
        |more: &str| listener("t", raw, "", &format!("{{filters: [{}]}}", tcp(&format!("cluster: echo{more}"))));
    let up = upstream(|mut stream: TcpStream| {
        read_head(&mut stream);
        std::thread::park();
    });
    let waits = |more: &str| {
        let chain = format!("{{filters: [{}]}}", http("{match: {prefix: /}, route: {cluster: up, timeout: 0s}}", more));
        listener("w", web, "", &chain)
    };
    publish(directory.path(), 1, &[bytes(""), waits("")]);
    let clusters = cluster("echo", &[echo()]) + &cluster("up", &[up]);
    let _proxy = follow(directory.path(), &clusters, &["--drain-time-s", "1", "--drain-strategy", "immediate"]);
    let (mut tunnel, mut busy) = (connect(raw), connect(web));
    assert!(echoes(&mut tunnel));
    busy.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();

    let began = Instant::now();
    publish(directory.path(), 2, &[bytes(", idle_timeout: 60s"), waits("server_name: x,")]);
    assert!(is_closed(&mut tunnel) && is_closed(&mut busy));
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
}

// spec: LC-2
#[test]
fn clusters_that_are_as_they_were_keep_their_connections() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let accepted = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = Arc::clone(&accepted);
    let up = upstream(move |mut stream: TcpStream| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        while read_head(&mut stream).ends_with("\r\n\r\n") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").unwrap();
        }
    });
    let write = |version: u32, others: &[&str]| {
        let mut text = format!("version_info: '{version}'\nresources:\n");
        for name in std::iter::once(&"up").chain(others) {
            let written = cluster(name, &[up]);
            let fields = written.trim_start_matches("  - {");
            text += &format!("- {{'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, {fields}");
        }
        let new = directory.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, directory.path().join("cds.yaml")).unwrap();
    };
    write(1, &[]);
    let chain = format!("{{filters: [{}]}}", http("{match: {prefix: /}, route: {cluster: up}}", ""));
    let yaml = format!(
        "node: {{id: one, cluster: c}}\ndynamic_resources: {{cds_config: {{path_config_source: {{path: {}}}}}}}\nstatic_resources:\n  listeners:\n  - {}\n",
        directory.path().join("cds.yaml").display(),
        listener("l", port, "", &chain)
    );
    let proxy = Proxy::launch(directory.path(), &yaml, &[], &[]);
    assert_eq!(get(&mut connect(port)).1, "hi");
    for (version, others) in [(2, &["a"][..]), (3, &["a", "b"]), (4, &["b"])] {
        write(version, others);
        let known = |proxy: &Proxy, name: &str| {
            proxy.admin("GET", "/clusters").unwrap_or_default().contains(&format!("\n{name}::observability_name"))
        };
        proxy.until(|proxy| ["a", "b"].iter().all(|name| known(proxy, name) == others.contains(name)));
        assert_eq!(get(&mut connect(port)).1, "hi");
    }
    assert_eq!(accepted.load(std::sync::atomic::Ordering::Relaxed), 1, "one upstream connection through it all");
}

// spec: HL-5, LC-3
#[test]
fn a_termination_does_not_wait_for_idle_connections() {
    for (strategy, closed_s) in [("immediate", 2), ("gradual", 8)] {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let yaml = format!("static_resources:\n  listeners:\n  - {}\n", listener("l", port, "", &says("hi", "")));
        let proxy = Proxy::launch(directory.path(), &yaml, &["--drain-strategy", strategy], &[]);
        let (mut idle, silent) = (connect(port), connect(port));
        assert_eq!(get(&mut idle).1, "hi");
        let began = Instant::now();
        proxy.terminate();
        assert!(is_closed(&mut idle));
        let closed = began.elapsed();
        assert!(closed < Duration::from_secs(closed_s), "{strategy}: {closed:?} of a drain time of 600 s");
        // Who has not heard of it yet is served as before.
        assert_eq!(get(&mut connect(port)).1, "hi");
        proxy.until_ended();
        let ended = began.elapsed();
        assert!(ended >= Duration::from_secs(5) && ended < Duration::from_secs(14), "{strategy}: {ended:?}");
        drop(silent);
    }
}

// spec: HL-5
#[test]
fn the_end_of_a_sidecar_is_timed_by_istios_variables() {
    let (directory, inbound, outbound) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let yaml = format!(
        "node: {{id: sidecar~1.2.3.4~a.b~b.svc.cluster.local}}\nstatic_resources:\n  listeners:\n  - {}\n  - {}\n",
        listener("in", inbound, "traffic_direction: INBOUND,", &says("in", "")),
        listener("out", outbound, "traffic_direction: OUTBOUND,", &says("out", ""))
    );
    let arguments = ["--drain-strategy", "immediate"];
    let proxy = Proxy::launch(directory.path(), &yaml, &arguments, &[("TERMINATION_DRAIN_DURATION_SECONDS", "3")]);
    let (mut asks, mut calls) = (connect(inbound), connect(outbound));
    assert_eq!((get(&mut asks).1.as_str(), get(&mut calls).1.as_str()), ("in", "out"));
    let began = Instant::now();
    proxy.terminate();
    assert!(is_closed(&mut asks));
    let (head, body) = get(&mut calls);
    assert!(body == "out" && !head.contains("connection: close"), "the application may need it to its end: {head}");
    proxy.until_ended();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(9), "{took:?}");

    let directory = tempfile::tempdir().unwrap();
    let variables = [("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true"), ("MINIMUM_DRAIN_DURATION", "500ms")];
    let mut proxy = Proxy::launch(directory.path(), &yaml, &arguments, &variables);
    let mut calls = connect(outbound);
    assert_eq!(get(&mut calls).1, "out");
    let began = Instant::now();
    proxy.terminate();
    proxy.until(|_| began.elapsed() > Duration::from_secs(2));
    assert!(!proxy.ended() && get(&mut calls).1 == "out", "a connection is open");
    drop(calls);
    proxy.until_ended();
}

// spec: AD-9
#[test]
fn draining_listeners_stop_accepting_as_they_are_told() {
    let (directory, inbound, other) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let yaml = format!(
        "static_resources:\n  listeners:\n  - {}\n  - {}\n",
        listener("in", inbound, "traffic_direction: INBOUND,", &says("in", "")),
        listener("other", other, "", &says("other", ""))
    );
    let arguments = ["--drain-strategy", "immediate", "--drain-time-s", "1"];
    let proxy = Proxy::launch(directory.path(), &yaml, &arguments, &[]);
    let refuses = |port: u16| TcpStream::connect(("127.0.0.1", port)).is_err();
    let mut kept = connect(inbound);
    assert_eq!(get(&mut kept).1, "in");
    proxy.admin("POST", "/drain_listeners?inboundonly").unwrap();
    proxy.until(|_| refuses(inbound));
    let (head, body) = get(&mut kept);
    assert!(body == "in" && !head.contains("connection: close"), "open connections are left alone: {head}");
    assert_eq!(fresh(other).as_deref(), Some("other"));

    let began = Instant::now();
    proxy.admin("POST", "/drain_listeners?graceful").unwrap();
    assert_eq!(fresh(other).as_deref(), Some("other"), "for the drain time they accept");
    proxy.until(|_| refuses(other));
    assert!(began.elapsed() >= Duration::from_secs(1));
}

// spec: AD-9
#[test]
fn failed_health_checks_send_connections_away_until_they_pass_again() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let proxy = Proxy::start(directory.path(), &format!("  - {}\n", listener("l", port, "", &says("hi", ""))));
    let closes = || get(&mut connect(port)).0.contains("connection: close\r\n");
    let is_ready = |proxy: &Proxy| proxy.admin("GET", "/ready").unwrap().contains(" 200 ");
    assert!(!closes() && is_ready(&proxy));
    proxy.admin("POST", "/healthcheck/fail").unwrap();
    proxy.until(|proxy| closes() && !is_ready(proxy));
    proxy.admin("POST", "/healthcheck/ok").unwrap();
    proxy.until(|proxy| !closes() && is_ready(proxy));
}

// spec: AD-5
#[test]
fn listeners_are_shown_with_the_ports_that_they_are_bound_to() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = format!("static_resources:\n  listeners:\n  - {}\n", listener("l", 0, "", &says("hi", "")));
    let proxy = Proxy::launch(directory.path(), &yaml, &["--concurrency", "2"], &[]);
    let text = proxy.admin("GET", "/listeners").unwrap();
    let port = text.lines().find_map(|line| line.strip_prefix("l::127.0.0.1:")).unwrap().parse().unwrap();
    for _ in 0..20 {
        assert_eq!(fresh(port).as_deref(), Some("hi"), "all workers listen there");
    }
    let json = proxy.admin("GET", "/listeners?format=json").unwrap();
    assert!(json.contains(&format!("\"port_value\": {port}")), "{json}");
}
