//! `meshctl version` against a pilot of the test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};

/// Answers as pilot does, for as long as the test lasts; gives back its address.
fn pilot() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let body = match line.split(' ').nth(1).unwrap() {
                "/version" => "7.1\n",
                "/debug/syncz" => {
                    r#"[{"proxy": "a.x", "istio_version": "7.0"}, {"proxy": "b.x", "istio_version": "7.1"}, {"proxy": "c.x", "istio_version": "7.0"}]"#
                }
                _ => "",
            };
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    address
}

fn version(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshctl")).arg("version").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

// spec: CT-27
#[test]
fn client_pilot_and_proxies_are_told_apart() {
    let (address, own) = (pilot(), env!("CARGO_PKG_VERSION"));
    let expected = format!(
        "client version: {own}\ncontrol plane version: 7.1\ndata plane version: 7.0 (2 proxies), 7.1 (1 proxy)\n"
    );
    assert_eq!(text(&version(&["--short", "--pilot", &address])), expected);
    let shown = text(&version(&["-o", "json", "--pilot", &address]));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["clientVersion"]["version"], own);
    assert_eq!(shown["meshVersion"][0]["Info"]["version"], "7.1");
    assert_eq!(shown["dataPlaneVersion"], serde_json::json!({"7.0": 2, "7.1": 1}));

    let alone = format!("client version: {own}\n");
    assert_eq!(text(&version(&["--short", "--remote=false", "--pilot", &address])), alone);
    // nobody there: only an address that was given is owed an answer
    let nobody = version(&["--short", "--demo", "there-is-none"]);
    assert!(!nobody.stderr.is_empty());
    assert_eq!(text(&nobody), alone);
    let gone = { TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string() };
    assert!(!version(&["--pilot", &gone]).status.success());
}
