//! Connections that were meant for somebody else: which listener takes them, and where they go on to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use support::{Proxy, cluster, connect, free_port, http, listener, read_head, tcp, upstream};

/// The whole answer of the listener at this address.
fn ask(address: Ipv4Addr, port: u16) -> String {
    let mut stream = TcpStream::connect((address, port)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

// spec: OD-1, PT-1, PT-2, NM-5
#[test]
fn the_destination_chooses_the_listener_address_and_port_then_port_then_the_one_that_caught_it() {
    let (directory, port, other) = (tempfile::tempdir().unwrap(), free_port(), free_port());
    let says = |body: &str| {
        format!(
            "{{filters: [{}]}}",
            http(
                &format!("{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {body}}}}}}}"),
                ""
            )
        )
    };
    let at = |name: &str, address: &str, port: u16, more: &str| {
        format!(
            "  - {}\n",
            listener(name, port, more, &says(name)).replace("address: 127.0.0.1", &format!("address: {address}"))
        )
    };
    let unbound = "bind_to_port: false,";
    let listeners = [
        at("catches", "0.0.0.0", port, "use_original_dst: true,"),
        at("catches-too", "0.0.0.0", other, "use_original_dst: true,"),
        at("keeps", "127.0.0.9", port, ""),
        at("any", "0.0.0.0", port, unbound),
        at("exact", "127.0.0.2", port, unbound),
        at("elsewhere", "127.0.0.2", 1, unbound),
    ];
    let _proxy = Proxy::start(directory.path(), &listeners.concat());
    for (last, port, expected) in [(2, port, "exact"), (3, port, "any"), (9, port, "keeps"), (2, other, "catches-too")]
    {
        let answer = ask(Ipv4Addr::new(127, 0, 0, last), port);
        assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "127.0.0.{last}:{port}: {answer}");
    }
}

// spec: OD-2, OD-3, OD-4, OD-5, PT-13, LB-3, SE-5
#[test]
fn a_passthrough_goes_where_the_client_was_going_and_a_black_hole_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    // an application at 127.0.0.2, and the proxy in front of it at 127.0.0.1, on one port
    let app = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = app.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in app.incoming() {
            let mut stream = stream.unwrap();
            read_head(&mut stream);
            let from = stream.peer_addr().unwrap().ip().to_string();
            let answer =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{from}", from.len());
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    let header = |destination: &str| format!("PROXY TCP4 127.0.0.5 {destination} 1 {port}\r\n");
    let proxied = "listener_filters: [{name: p, typed_config: \
                   {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}],";
    let chains = |cluster: &str| {
        [
            format!("{{filters: [{}]}}", tcp(&format!("cluster: {cluster}"))),
            format!("{{filters: [{}]}}", http(&format!("{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}"), "")),
        ]
    };
    let [pass_tcp, pass_http] = chains("pass");
    let [hole_tcp, hole_http] = chains("hole");
    let ports = [free_port(), free_port(), free_port(), free_port()];
    let listeners: String = [pass_tcp, pass_http, hole_tcp, hole_http]
        .iter()
        .zip(ports)
        .map(|(chain, port)| format!("  - {}\n", listener(&format!("l{port}"), port, proxied, chain)))
        .collect();
    let bind = "upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}}";
    let clusters = format!(
        "  - {{name: pass, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, connect_timeout: 2s, {bind}}}\n  - {{name: hole, type: STATIC}}\n"
    );
    let _proxy = Proxy::start(directory.path(), &format!("{listeners}  clusters:\n{clusters}"));
    let ask = |port: u16, destination: &str| {
        let mut stream = connect(port);
        let request = format!("{}GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", header(destination));
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Ok(_) => answer,
            Err(error) => error.kind().to_string(),
        }
    };
    for port in &ports[..2] {
        let answer = ask(*port, "127.0.0.2");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n127.0.0.6"), "{answer}");
    }
    let nobody = ask(ports[1], "127.0.0.3");
    assert!(nobody.starts_with("HTTP/1.1 503 "), "{nobody}");
    assert_eq!(ask(ports[2], "127.0.0.2"), ErrorKind::ConnectionReset.to_string());
    let answer = ask(ports[3], "127.0.0.2");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("no healthy upstream"), "{answer}");
}

// spec: AZ-17, AZ-18
#[test]
fn a_denied_connection_is_closed_without_a_byte_from_upstream() {
    let directory = tempfile::tempdir().unwrap();
    let greets = upstream(|mut stream: TcpStream| drop(stream.write_all(b"hello")));
    let rules = |action: &str, permission: &str| {
        format!(
            "{{name: rbac, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: p, \
             rules: {{action: {action}, policies: {{p: {{permissions: [{permission}], principals: [{{any: true}}]}}}}}}}}}}"
        )
    };
    let rows = [
        ("ALLOW", "{any: true}", "hello"),
        ("ALLOW", "{destination_port: 1}", ""),
        ("ALLOW", "{header: {name: ':method', present_match: true}}", ""),
        ("DENY", "{any: true}", ""),
        ("DENY", "{destination_port: 1}", "hello"),
        ("DENY", "{destination_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}", ""),
    ];
    let ports = rows.map(|_| free_port());
    let listeners: String = rows
        .iter()
        .zip(ports)
        .map(|((action, permission, _), port)| {
            let chain = format!("{{filters: [{}, {}]}}", rules(action, permission), tcp("cluster: up"));
            format!("  - {}\n", listener(&format!("l{port}"), port, "", &chain))
        })
        .collect();
    let _proxy = Proxy::start(directory.path(), &format!("{listeners}  clusters:\n{}", cluster("up", &[greets])));
    for ((action, permission, expected), port) in rows.iter().zip(ports) {
        let mut came = String::new();
        // closed or reset: no byte either way
        drop(connect(port).read_to_string(&mut came));
        assert_eq!(came, *expected, "{action} {permission}");
    }
}
