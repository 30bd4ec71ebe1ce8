//! Real Envoy and our proxy, started from one and the same bootstrap.

use anyhow::Context;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a proxy may take to start.
const START: Duration = Duration::from_secs(20);

/// Which proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The real one, from PyPI.
    Envoy,
    /// Ours.
    Ferromesh,
}

/// A running proxy. Dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    directory: tempfile::TempDir,
    admin: SocketAddr,
}

impl Proxy {
    /// Starts a proxy from a bootstrap whose admin port is 0. `bootstrap` is given the path of an access log that
    /// [`Self::log_lines`] reads.
    ///
    /// # Errors
    /// Where it does not start in time; the end of its log is part of the text.
    pub fn start(flavour: Flavour, bootstrap: impl FnOnce(&Path) -> Value) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("bootstrap.json"), serde_json::to_vec_pretty(&bootstrap(&path("access.log")))?)?;
        let program: PathBuf = match flavour {
            Flavour::Envoy => meshctl::demo::programs::fetch_envoy()?,
            Flavour::Ferromesh => crate::program("proxy")?,
        };
        let log = std::fs::File::create(path("log"))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(path("bootstrap.json")).arg("--admin-address-path").arg(path("admin"));
        command.args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "warning",
            "--file-flush-interval-msec",
            "50",
        ]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        let mut proxy = Self { child, directory, admin: ([127, 0, 0, 1], 0).into() };
        proxy.admin = proxy.until("its admin address", |proxy| {
            std::fs::read_to_string(proxy.directory.path().join("admin")).ok()?.trim().parse().ok()
        })?;
        proxy.until("LIVE", |proxy| proxy.ask("/ready").ok().filter(|text| text.trim() == "LIVE"))?;
        Ok(proxy)
    }

    /// The body that the admin interface gives for a path.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn ask(&self, path: &str) -> anyhow::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        Ok(crate::client::exchange(self.admin, &request)?.body)
    }

    /// The access log once it has `count` lines.
    ///
    /// # Errors
    /// Where it does not get so many in time.
    pub fn log_lines(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        self.until("its access log", |proxy| {
            let text = std::fs::read_to_string(proxy.directory.path().join("access.log")).ok()?;
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            (lines.len() >= count && text.ends_with('\n')).then_some(lines)
        })
    }

    fn until<T>(&mut self, what: &str, level: impl Fn(&Self) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(found) = level(self) {
                return Ok(found);
            }
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the proxy ended ({status}):\n{log}");
            }
            if Instant::now() > deadline {
                return Err(anyhow::anyhow!("{log}")).with_context(|| format!("the proxy does not show {what}"));
            }
            std::thread::yield_now();
        }
    }
}

/// A port on which nobody listens now.
///
/// # Errors
/// Where none is free.
pub fn free_address() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill()); // has ended already
        drop(self.child.wait());
    }
}
