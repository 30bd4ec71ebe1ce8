//! The binary as a process: one bootstrap file, traffic, admin interface, access logs, and its end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Proxy, free_port};

/// Everything that the proxy sends until it closes.
fn exchange(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    String::from_utf8(answer).unwrap()
}

fn log(path: &Path, format: &str) -> String {
    format!(
        "[{{name: f, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, \
         path: {}, log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}}}}}]",
        path.display()
    )
}

// spec: AD-1, AD-4, AD-8, AD-9, AL-3, AL-6, ST-2, ST-3
#[test]
fn one_file_makes_a_proxy_that_serves_counts_logs_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let (http_log, listener_log) = (directory.path().join("http.log"), directory.path().join("listener.log"));
    let (port, unmatched) = (free_port(), free_port());
    let hcm = format!(
        "{{\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, \
         access_log: {}, route_config: {{name: r, virtual_hosts: [{{name: v, domains: [a], routes: [{{name: hello, match: {{prefix: /}}, \
         direct_response: {{status: 200, body: {{inline_string: hi}}}}}}]}}]}}, http_filters: [{{name: router, typed_config: \
         {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}",
        log(
            &http_log,
            "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %ROUTE_NAME%"
        )
    );
    let listener = |name: &str, port: u16, matching: &str| {
        format!(
            "  - name: {name}\n    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n    access_log: {}\n    \
             filter_chains: [{{{matching}filters: [{{name: http, typed_config: {hcm}}}]}}]\n",
            log(&listener_log, "%RESPONSE_FLAGS% %DOWNSTREAM_LOCAL_PORT% %BYTES_SENT%")
        )
    };
    let nobody = "filter_chain_match: {source_prefix_ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]}, ";
    let proxy = Proxy::start(directory.path(), &(listener("l", port, "") + &listener("strict", unmatched, nobody)));

    let answer = exchange(port, "GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhi"), "{answer}");
    let answer = exchange(port, "GET /y HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert_eq!(exchange(unmatched, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"), "");

    let dump = proxy.admin("GET", "/config_dump?resource=static_listeners").unwrap();
    assert!(dump.contains("\"name\": \"strict\""), "{dump}");
    let wanted = [
        "http.in.downstream_rq_total: 2",
        "http.in.downstream_rq_2xx: 1",
        "http.in.no_route: 1",
        "http.in.rq_direct_response: 1",
        "http.in.downstream_cx_active: 0",
    ];
    let strict = format!("listener.127.0.0.1_{unmatched}.no_filter_chain_match: 1");
    proxy.until(|proxy| {
        let stats = proxy.admin("GET", "/stats").unwrap_or_default();
        wanted.iter().copied().chain([strict.as_str()]).all(|line| stats.lines().any(|found| found == line))
    });
    proxy.quit();
    let http = std::fs::read_to_string(http_log).unwrap();
    assert_eq!(http, "GET /x 200 - direct_response hello\nGET /y 404 NR route_not_found -\n");
    assert_eq!(std::fs::read_to_string(listener_log).unwrap(), format!("NR {unmatched} 0\n"));
}

#[test]
fn a_bootstrap_that_is_wrong_ends_the_start_with_its_line_or_field() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("b.yaml");
    let cases = [
        ("node: [\n", "line "),
        ("node: {idd: x}\n", "node.idd: unknown field"),
        ("overload_manager: {}\n", "not supported yet: overload_manager"),
        (
            "static_resources: {listeners: [{name: l, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, \
             filter_chains: [{filters: [{name: x, typed_config: {\"@type\": type.googleapis.com/nobody.knows, value: aGk=}}]}]}]}\n",
            "filter_chains[0].filters[0]",
        ),
    ];
    for (yaml, expected) in cases {
        std::fs::write(&file, yaml).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_proxy"))
            .args(["-c", file.to_str().unwrap(), "--mode", "validate"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{yaml}: {said}");
    }
    std::fs::write(&file, "node: {id: fine}\n").unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_proxy"))
        .args(["-c", file.to_str().unwrap(), "--mode", "validate"])
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

// spec: CT-33, IN-14
#[test]
fn under_the_name_of_istios_agent_it_has_the_agents_verbs() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("pilot-agent");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_proxy"), &program).unwrap();
    let run = |line: &str| {
        let output = Command::new(&program).args(line.split(' ')).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((run("version"), run("version --short")), (format!("proxy {version}\n"), format!("{version}\n")));
    let set = run("istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x  -b * -d 15090,15021,15020 --dry-run");
    assert!(set.contains("-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"), "{set}");
    // The verb to remove them takes the same flags; a dry run shows what it would look for.
    assert_eq!(
        run("istio-clean-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT --dry-run"),
        run("istio-iptables --dry-run")
    );

    let (bootstrap, port) = (directory.path().join("bootstrap.yaml"), free_port());
    let admin = format!("admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}\n");
    std::fs::write(&bootstrap, admin).unwrap();
    let mut proxy = Command::new(&program).arg("-c").arg(&bootstrap).stderr(Stdio::null()).spawn().unwrap();
    run(&format!("wait --timeoutSeconds 20 --url http://localhost:{port}/ready"));
    assert!(run(&format!("request --debug-port {port} GET /stats")).contains("server.live: 1"));
    assert!(run(&format!("request --debug-port {port} GET server_info")).contains("version"));
    run(&format!("request --debug-port {port} POST quitquitquit"));
    assert!(proxy.wait().unwrap().success());
}
