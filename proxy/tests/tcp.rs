//! The TCP proxy over real sockets: which cluster a connection goes to, who speaks first, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Proxy, cluster, connect, file_log, free_port, http, listener, tcp, upstream};

/// An upstream that says its name at once, finishes, and hears the client out.
fn named(name: &'static str) -> u16 {
    upstream(move |mut stream: TcpStream| {
        stream.write_all(name.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    })
}

/// What comes until the end; nothing where the connection was reset.
fn all(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => text,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => String::new(),
        Err(error) => panic!("{error}"),
    }
}

fn chain(fields: &str) -> String {
    format!("{{filters: [{}]}}", tcp(fields))
}

// spec: TC-1
#[test]
fn weights_share_connections_and_each_is_logged_at_its_end() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let log = directory.path().join("log");
    let fields = format!(
        "weighted_clusters: {{clusters: [{{name: much, weight: 9}}, {{name: little, weight: 1}}, {{name: none, weight: 0}}]}}, access_log: {}",
        file_log(&log, "%UPSTREAM_CLUSTER% %BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS%")
    );
    let clusters =
        [cluster("much", &[named("much")]), cluster("little", &[named("little")]), cluster("none", &[named("none")])];
    let yaml = format!("  - {}\n  clusters:\n{}", listener("l", port, "", &chain(&fields)), clusters.concat());
    let proxy = Proxy::start(directory.path(), &yaml);
    let came: Vec<String> = (0..200).map(|_| all(&connect(port))).collect();
    let count = |name: &str| came.iter().filter(|found| *found == name).count();
    // 20 are expected; outside of these bounds is a chance below 1 in a million
    assert!((3..=50).contains(&count("little")), "{} of 200", count("little"));
    assert_eq!((count("none"), count("much") + count("little")), (0, 200));
    let none_left = format!("listener.127.0.0.1_{port}.downstream_cx_active: 0\n");
    proxy.until(|proxy| proxy.admin("GET", "/stats").is_some_and(|stats| stats.contains(&none_left)));
    proxy.quit();
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log.lines().filter(|line| *line == "much 0 4 -").count(), count("much"), "{log}");
    assert_eq!(log.lines().filter(|line| *line == "little 0 6 -").count(), count("little"), "{log}");
}

// spec: TC-1
#[test]
fn one_connect_is_tried_unless_more_are_allowed() {
    let (directory, once, twice) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let listeners = format!(
        "  - {}\n  - {}\n",
        listener("once", once, "", &chain("cluster: half")),
        listener("twice", twice, "", &chain("cluster: half, max_connect_attempts: 2"))
    );
    let yaml = format!("{listeners}  clusters:\n{}", cluster("half", &[free_port(), named("up")]));
    let _proxy = Proxy::start(directory.path(), &yaml);
    let served = |port: u16| (0..10).filter(|_| all(&connect(port)) == "up").count();
    let alone = served(once);
    assert!((1..10).contains(&alone), "{alone} of 10 over a cluster with one endpoint of two down");
    assert_eq!(served(twice), 10);
}

// spec: TC-1
#[test]
fn the_server_name_chooses_and_silence_ends() {
    let (directory, port, idle) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let by_name = |name: &str| {
        format!(
            "{{filter_chain_match: {{server_names: [{name}.test]}}, filters: [{}]}}",
            tcp(&format!("cluster: {name}"))
        )
    };
    let inspector = "listener_filters: [{name: tls, typed_config: \
                     {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}],";
    let silent = upstream(|mut stream: TcpStream| drop(stream.read(&mut [0])));
    let yaml = format!(
        "  - {}\n  - {}\n  clusters:\n{}{}{}",
        listener("names", port, inspector, &[by_name("one"), by_name("two")].join(", ")),
        listener("idle", idle, "", &chain("cluster: silent, idle_timeout: 0.2s")),
        cluster("one", &[named("one")]),
        cluster("two", &[named("two")]),
        cluster("silent", &[silent])
    );
    let _proxy = Proxy::start(directory.path(), &yaml);
    for (name, expected) in [("two.test", "two"), ("one.test", "one"), ("three.test", "")] {
        let mut stream = connect(port);
        stream.write_all(&hello(name)).unwrap();
        assert_eq!(all(&stream), expected, "{name}");
    }
    let began = Instant::now();
    assert_eq!(all(&connect(idle)), "");
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
}

/// A TLS hello for this server.
fn hello(server: &'static str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), server.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

// spec: TC-2
#[test]
fn a_server_speaks_first_and_either_side_may_finish_first() {
    // greets, reads to the end, and says what came; or, asked for it, finishes first and listens on
    let up = upstream(|mut stream: TcpStream| {
        stream.write_all(b"220 ready\n").unwrap();
        let mut order = [0; 5];
        stream.read_exact(&mut order).unwrap();
        if &order == b"first" {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        // refused where its half is closed already
        drop(stream.write_all(format!("got {rest}").as_bytes()));
        if &order == b"first" {
            std::fs::write(&rest, "heard").unwrap();
        }
    });
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let yaml = format!("  - {}\n  clusters:\n{}", listener("l", port, "", &chain("cluster: up")), cluster("up", &[up]));
    let proxy = Proxy::start(directory.path(), &yaml);

    let mut client = connect(port);
    let mut greeting = [0; 10];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\n", "before the client said a word");
    client.write_all(b"last!much").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(&client), "got much", "the answer comes through the half that is open");

    let mut client = connect(port);
    client.write_all(b"first").unwrap();
    assert_eq!(all(&client), "220 ready\n", "the server finished");
    let mark = directory.path().join("mark");
    client.write_all(mark.to_str().unwrap().as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    proxy.until(|_| std::fs::read_to_string(&mark).is_ok_and(|text| text == "heard"));
}

// spec: TC-5
#[test]
fn an_inspector_that_sees_nothing_gives_up_as_configured() {
    let (directory, goes_on, closes) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let more = |continues: bool| {
        format!(
            "listener_filters: [{{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}], \
             listener_filters_timeout: 0.2s, continue_on_listener_filters_timeout: {continues},"
        )
    };
    let yaml = format!(
        "  - {}\n  - {}\n  clusters:\n{}",
        listener("lenient", goes_on, &more(true), &chain("cluster: up")),
        listener("strict", closes, &more(false), &chain("cluster: up")),
        cluster("up", &[named("hello")])
    );
    let _proxy = Proxy::start(directory.path(), &yaml);
    for (port, expected) in [(goes_on, "hello"), (closes, "")] {
        let began = Instant::now();
        // says nothing: only the time limit can end the inspection
        assert_eq!(all(&connect(port)), expected);
        assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    }
}

/// The first record of a TLS client.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), "name.test".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

// spec: D7
#[test]
fn where_the_client_speaks_first_it_may_be_late() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let more = "listener_filters: [{name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}], \
                listener_filters_timeout: 0.1s, continue_on_listener_filters_timeout: true,";
    let answer = http("{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: plain}}}", "");
    let secure = format!("{{filter_chain_match: {{transport_protocol: tls}}, filters: [{}]}}", tcp("cluster: up"));
    let plain = format!("{{filter_chain_match: {{transport_protocol: raw_buffer}}, filters: [{answer}]}}");
    let chains = format!("{secure}, {plain}");
    let yaml =
        format!("  - {}\n  clusters:\n{}", listener("l", port, more, &chains), cluster("up", &[named("secure")]));
    let proxy = Proxy::start(directory.path(), &yaml);
    let open = format!("listener.127.0.0.1_{port}.downstream_cx_total: 2\n");
    let clients = [client_hello(), b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_vec()]
        .map(|words| (connect(port), words));
    proxy.until(|proxy| proxy.admin("GET", "/stats").is_some_and(|stats| stats.contains(&open)));
    let began = Instant::now();
    proxy.until(|_| began.elapsed() > Duration::from_millis(300));
    let said = clients.map(|(mut client, words)| {
        client.write_all(&words).unwrap();
        all(&client)
    });
    assert_eq!(said[0], "secure", "a late hello is a hello");
    assert!(said[1].starts_with("HTTP/1.1 200 ") && said[1].ends_with("plain"), "{}", said[1]);
}

// spec: TC-1
#[test]
fn a_long_connection_is_logged_when_it_is_connected_and_now_and_then() {
    for options in [
        "access_log_options: {access_log_flush_interval: 0.2s, flush_access_log_on_connected: true}",
        "access_log_flush_interval: 0.2s, flush_access_log_on_connected: true",
    ] {
        let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
        let log = directory.path().join("log");
        let fields =
            format!("cluster: up, {options}, access_log: {}", file_log(&log, "%ACCESS_LOG_TYPE% %BYTES_SENT%"));
        let up = upstream(|mut stream: TcpStream| {
            stream.write_all(b"hello").unwrap();
            drop(stream.read_to_end(&mut Vec::new()));
        });
        let yaml = format!("  - {}\n  clusters:\n{}", listener("l", port, "", &chain(&fields)), cluster("up", &[up]));
        let proxy = Proxy::start(directory.path(), &yaml);
        let mut stream = connect(port);
        stream.read_exact(&mut [0; 5]).unwrap();
        let began = Instant::now();
        proxy.until(|_| began.elapsed() > Duration::from_secs(1));
        drop(stream);
        let closed = format!("listener.127.0.0.1_{port}.downstream_cx_active: 0\n");
        proxy.until(|proxy| proxy.admin("GET", "/stats").is_some_and(|stats| stats.contains(&closed)));
        proxy.quit();
        let log = std::fs::read_to_string(log).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        let [first, middle @ .., last] = lines.as_slice() else { panic!("{log}") };
        assert_eq!((*first, *last), ("TcpUpstreamConnected 0", "TcpConnectionEnd 5"));
        assert!((3..=8).contains(&middle.len()) && middle.iter().all(|line| *line == "TcpPeriodic 5"), "{log}");
    }
}

// spec: ST-1, ST-5
#[test]
fn connections_are_counted_where_dashboards_look() {
    let (directory, bytes, web) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let up = upstream(|mut stream: TcpStream| {
        let head = support::read_head(&mut stream);
        let answer = if head.is_empty() { "" } else { "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi" };
        stream.write_all(answer.as_bytes()).unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    });
    let route = "{match: {prefix: /}, route: {cluster: up}}";
    let listeners = [
        listener("t", bytes, "", &chain("cluster: up, idle_timeout: 0.5s")),
        listener("w", web, "", &format!("{{filters: [{}]}}", http(route, ""))),
        listener("lost", free_port(), "", &chain("cluster: nowhere")),
    ];
    let yaml = format!("  - {}\n  clusters:\n{}", listeners.join("\n  - "), cluster("up", &[up]));
    let proxy = Proxy::start(directory.path(), &yaml);
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let (mut kept, mut raw) = (connect(web), connect(bytes));
    for stream in [&mut kept, &mut raw] {
        stream.write_all(request).unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
    }
    let shows = |proxy: &Proxy, lines: &[&str]| {
        let stats = proxy.admin("GET", "/stats").unwrap_or_default();
        lines.iter().all(|line| stats.lines().any(|found| found == *line))
    };
    let first = [
        "cluster.up.upstream_cx_total: 2",
        "cluster.up.upstream_cx_active: 2",
        "cluster.up.upstream_cx_http1_total: 1",
    ];
    proxy.until(|proxy| shows(proxy, &first));
    assert!(shows(&proxy, &["tcp.l.downstream_cx_total: 1", "cluster.up.circuit_breakers.high.cx_open: 0"]));
    // silence ends the one, the other is kept
    let received = format!("tcp.l.downstream_cx_rx_bytes_total: {}", request.len());
    let then =
        ["cluster.up.upstream_cx_active: 1", "cluster.up.upstream_cx_destroy: 1", "tcp.l.idle_timeout: 1", &received];
    proxy.until(|proxy| shows(proxy, &then));
    assert!(shows(&proxy, &["tcp.l.downstream_cx_tx_bytes_total: 40"]));
}

// spec: DR-31, LB-13
#[test]
fn an_endpoint_that_cannot_be_connected_is_left_alone() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let outlier = "type: STATIC, outlier_detection: {consecutive_5xx: 3, base_ejection_time: 60s},";
    let half = cluster("half", &[free_port(), named("up")]).replace("type: STATIC,", outlier);
    let yaml = format!("  - {}\n  clusters:\n{half}", listener("l", port, "", &chain("cluster: half")));
    let _proxy = Proxy::start(directory.path(), &yaml);
    let failed = (0..30).filter(|_| all(&connect(port)).is_empty()).count();
    assert_eq!(failed, 3, "then it is known");
}

// spec: TC-1, ST-5
#[test]
fn a_connection_ends_at_the_end_of_its_time() {
    let (directory, port) = (tempfile::tempdir().unwrap(), free_port());
    let log = directory.path().join("log");
    let fields = format!(
        "cluster: up, max_downstream_connection_duration: 0.5s, access_log: {}",
        file_log(&log, "%RESPONSE_FLAGS%")
    );
    let up = upstream(|mut stream: TcpStream| drop(stream.read_to_end(&mut Vec::new())));
    let yaml = format!("  - {}\n  clusters:\n{}", listener("l", port, "", &chain(&fields)), cluster("up", &[up]));
    let proxy = Proxy::start(directory.path(), &yaml);
    let (began, stream) = (Instant::now(), connect(port));
    assert_eq!(all(&stream), "");
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    let counted = "tcp.l.max_downstream_connection_duration: 1\n";
    proxy.until(|proxy| proxy.admin("GET", "/stats").is_some_and(|stats| stats.contains(counted)));
    proxy.quit();
    assert_eq!(std::fs::read_to_string(log).unwrap(), "DT\n");
}
