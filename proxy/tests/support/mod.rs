//! The binary as a process.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test uses a part of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running proxy; killed with this.
pub struct Proxy {
    child: Child,
    admin: PathBuf,
}

impl Proxy {
    /// A proxy with these listeners (and, behind them, clusters) in YAML, ready; its files lie in `directory`.
    pub fn start(directory: &Path, listeners: &str) -> Self {
        Self::launch(directory, &format!("static_resources:\n  listeners:\n{listeners}"), &[], &[])
    }

    /// A proxy with this bootstrap (the admin interface is added), further arguments and variables, ready.
    pub fn launch(directory: &Path, bootstrap: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let admin = directory.join("admin.sock");
        let file = directory.join("bootstrap.yaml");
        let yaml = format!("admin: {{address: {{pipe: {{path: {}}}}}}}\n{bootstrap}", admin.display());
        std::fs::write(&file, yaml).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_proxy"))
            .args(["-c", file.to_str().unwrap(), "-l", "error"])
            .args(if arguments.contains(&"--concurrency") { &[][..] } else { &["--concurrency", "1"] })
            .args(arguments)
            .envs(variables.iter().copied())
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

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    }

    /// Whether the process has ended, and well.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some_and(|status| status.success())
    }

    /// Waits for the end of the process, which must be a good one.
    pub fn until_ended(mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.ended() {
            assert!(Instant::now() < deadline, "the process goes on");
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
///
/// It lies below those that the system gives to clients and to listeners on port 0: none of these takes it before it is used.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let mut ports = std::iter::from_fn(|| {
        let nth = std::process::id().wrapping_mul(101).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        Some(10_000 + (nth % 20_000) as u16)
    });
    ports.find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).unwrap()
}

/// A client's connection that gives up after 20 s of silence.
pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Serves each connection on a thread of its own; gives back the port.
pub fn upstream(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Reads one HTTP/1 head, or what there is of it when the peer closes.
pub fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A static cluster in YAML, as an item of `clusters`.
pub fn cluster(name: &str, ports: &[u16]) -> String {
    let endpoint = |port: &u16| {
        format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}")
    };
    let endpoints: Vec<String> = ports.iter().map(endpoint).collect();
    format!(
        "  - {{name: {name}, type: STATIC, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}}}\n",
        endpoints.join(", ")
    )
}

/// A file access log in YAML, as the value of `access_log`.
pub fn file_log(path: &Path, format: &str) -> String {
    format!(
        "[{{name: f, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, \
         path: {}, log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}}}}}]",
        path.display()
    )
}

/// A filter that ends a chain in HTTP; `more`: further fields of the connection manager, each with a comma behind it.
pub fn http(routes: &str, more: &str) -> String {
    format!(
        "{{name: http, typed_config: {{'@type': {NETWORK}.http_connection_manager.v3.HttpConnectionManager, stat_prefix: l, {more} \
         route_config: {{name: r, virtual_hosts: [{{name: v, domains: ['*'], routes: [{routes}]}}]}}, http_filters: [{{name: router, \
         typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}"
    )
}

/// A filter that ends a chain in TCP; `fields`: those of the TCP proxy.
pub fn tcp(fields: &str) -> String {
    format!("{{name: tcp, typed_config: {{'@type': {NETWORK}.tcp_proxy.v3.TcpProxy, stat_prefix: l, {fields}}}}}")
}

const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network";

/// A listener in YAML with these chains; `more`: further fields, each with a comma behind it.
pub fn listener(name: &str, port: u16, more: &str, chains: &str) -> String {
    format!(
        "{{name: {name}, address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}, {more} filter_chains: [{chains}]}}"
    )
}
