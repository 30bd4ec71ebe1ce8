//! An ADS server written by other people: grpcio and xds-protos from PyPI, driven over its standard input.

use anyhow::Context;
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PACKAGES: [&str; 2] = ["grpcio==1.85.3", "xds-protos==1.85.0"];
/// How long the server or the proxy may take to say something.
const PATIENCE: Duration = Duration::from_secs(20);

/// The running server. Dropping it ends it.
#[derive(Debug)]
pub struct PythonAds {
    child: Child,
    input: ChildStdin,
    events: Receiver<Value>,
    /// Events that came while something else was waited for.
    kept: VecDeque<Value>,
    /// Where it listens.
    pub port: u16,
}

impl PythonAds {
    /// Starts it without resources.
    ///
    /// # Errors
    /// Where Python or the packages are missing.
    pub fn start() -> anyhow::Result<Self> {
        let script = crate::root().join("e2e/python/ads.py");
        let mut child = Command::new(python()?).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (output, input) = (child.stdout.take().context("no output")?, child.stdin.take().context("no input")?);
        let (sender, events) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for event in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut server = Self { child, input, events, kept: VecDeque::new(), port: 0 };
        let port = server.wait("its port", |event| event["port"].as_u64())?;
        server.port = u16::try_from(port)?;
        Ok(server)
    }

    /// Replaces resources: `{"Cluster": [...], ...}`.
    ///
    /// # Errors
    /// Where the server does not take them.
    pub fn set(&mut self, resources: &Value) -> anyhow::Result<()> {
        writeln!(self.input, "{resources}")?;
        // A client may acknowledge them before the server has said that it took them.
        loop {
            let event = self.events.recv_timeout(PATIENCE).context("ADS never said that it took the resources")?;
            if event["taken"].as_bool().is_some() {
                return Ok(());
            }
            self.kept.push_back(event);
        }
    }

    /// Waits for an event; earlier ones are passed over.
    ///
    /// # Errors
    /// Where it does not come in time; the text lists what came.
    pub fn wait<T>(&mut self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = match self.kept.pop_front() {
                Some(event) => event,
                None => {
                    self.events.recv_timeout(left).map_err(|_| anyhow::anyhow!("ADS never said {what}: {seen:?}"))?
                }
            };
            if let Some(found) = wanted(&event) {
                return Ok(found);
            }
            seen.push(event.to_string());
        }
    }
}

impl Drop for PythonAds {
    fn drop(&mut self) {
        drop(self.child.kill()); // has ended already
        drop(self.child.wait());
    }
}

/// Python with the packages, in a virtual environment below the user's cache; fetched once.
///
/// # Errors
/// Where Python is missing or the packages cannot be fetched.
pub fn python() -> anyhow::Result<PathBuf> {
    let home = std::env::home_dir().context("no home directory")?;
    let cache = home.join(".cache/ferromesh");
    std::fs::create_dir_all(&cache)?;
    // Tests run side by side: one of them fetches, the others wait.
    let turn = std::fs::File::create(cache.join("grpc-venv.lock"))?;
    turn.lock()?;
    let environment = cache.join("grpc-venv");
    let python = environment.join("bin/python");
    let run = |program: &Path, arguments: &[&str]| -> anyhow::Result<bool> {
        let status = Command::new(program).args(arguments).stderr(Stdio::null()).status();
        Ok(status.with_context(|| format!("cannot run {}: install python3-venv", program.display()))?.success())
    };
    if !python.exists() || !run(&python, &["-c", "import grpc, envoy.service.discovery.v3.ads_pb2_grpc"])? {
        let directory = environment.display().to_string();
        anyhow::ensure!(run(Path::new("python3"), &["-m", "venv", &directory])?, "python3 -m venv failed");
        let pip = environment.join("bin/pip");
        anyhow::ensure!(
            run(&pip, &["install", "--quiet", PACKAGES[0], PACKAGES[1]])?,
            "pip install {PACKAGES:?} failed"
        );
    }
    Ok(python)
}
