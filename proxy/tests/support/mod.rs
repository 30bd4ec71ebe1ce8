//! The binary as a process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test uses a part of it")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running proxy; killed with this.
pub struct Proxy {
    child: Child,
    admin: PathBuf,
}

impl Proxy {
    /// A proxy with these listeners (and, behind them, clusters) in YAML, ready; its files lie in `directory`.
    pub fn start(directory: &Path, listeners: &str) -> Self {
        let admin = directory.join("admin.sock");
        let file = directory.join("bootstrap.yaml");
        let yaml = format!(
            "admin: {{address: {{pipe: {{path: {}}}}}}}\nstatic_resources:\n  listeners:\n{listeners}",
            admin.display()
        );
        std::fs::write(&file, yaml).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_proxy"))
            .args(["-c", file.to_str().unwrap(), "--concurrency", "1", "-l", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let proxy = Self { child, admin };
        proxy.until(|proxy| proxy.admin("GET", "/ready").is_some_and(|answer| answer.ends_with("LIVE\n")));
        proxy
    }

    /// An answer of the admin interface with its head; `None` while it is not there.
    pub fn admin(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(&self.admin).ok()?;
        stream.write_all(format!("{method} {path} HTTP/1.0\r\nhost: admin\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Waits until something is so.
    pub fn until(&self, met: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !met(self) {
            assert!(Instant::now() < deadline, "not within 30 s");
            std::thread::yield_now();
        }
    }

    /// Ends the process by its admin interface and waits for it.
    pub fn quit(mut self) {
        assert!(self.admin("POST", "/quitquitquit").unwrap().ends_with("OK\n"));
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // already gone where the test ended it
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
