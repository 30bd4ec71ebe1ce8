//! The real binary: what it prints never contains a key.
#![allow(clippy::unwrap_used, clippy::large_futures, clippy::allow_attributes, reason = "a test panics to fail")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use support::{REVIEWS, id};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn citadel() -> Command {
    Command::new(env!("CARGO_BIN_EXE_citadel"))
}

// bar: C4
#[tokio::test]
async fn keys_never_reach_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let token = citadel()
        .args(["token", "--spiffe-id", REVIEWS])
        .arg("--key")
        .arg(path("token-key.pem"))
        .arg("--jwks-out")
        .arg(path("jwks.json"))
        .output()
        .unwrap();
    assert!(token.status.success(), "{}", String::from_utf8_lossy(&token.stderr));
    let token = String::from_utf8(token.stdout).unwrap();
    let mut server = Killed(
        citadel()
            .args(["--log", "trace", "serve", "--listen", "127.0.0.1:0", "--monitoring-addr="])
            .arg("--root-dir")
            .arg(path("ca"))
            .arg("--token-jwks")
            .arg(path("jwks.json"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut log = BufReader::new(server.0.stderr.take().unwrap());
    let mut seen = String::new();
    let address = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "citadel ended: {seen}");
        seen.push_str(&line);
        if line.contains("certificate service is ready") {
            let text = line.split("127.0.0.1:").nth(1).unwrap();
            let port: String = text.chars().take_while(char::is_ascii_digit).collect();
            break std::net::SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        }
    };
    let reader = std::thread::spawn(move || {
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        rest
    });
    let roots = std::fs::read(path("ca/root-cert.pem")).unwrap();
    let mut client = support::connect(address, &roots, None).await.unwrap();
    let csr = identity::csr::Csr::generate(&id(REVIEWS)).unwrap();
    let asked = support::with_token(token.trim(), support::request(csr.pem, 0));
    client.create_certificate(asked).await.unwrap();
    drop(client);
    drop(server);
    seen.push_str(&reader.join().unwrap());
    assert!(seen.contains("certificate issued"), "{seen}");
    for key in ["ca/ca-key.pem", "token-key.pem"] {
        let pem = std::fs::read_to_string(path(key)).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = identity::pem::private_key(pem.as_bytes()).unwrap();
        let secret = &der.secret_der()[36..52];
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        let decimal = secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        let middle: String = body.chars().skip(48).take(32).collect();
        for needle in [middle.as_str(), hex.as_str(), decimal.as_str(), token.trim()] {
            assert!(!seen.contains(needle), "{key} in the log");
        }
    }
}
