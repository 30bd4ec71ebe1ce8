//! Network namespaces: made with `ip netns`, entered by threads of this process to open sockets in them.

use anyhow::Context;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where `ip netns` has them.
const NAMESPACES: &str = "/run/netns";

/// A named network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The namespace of that name; it need not exist yet.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Makes it, as `ip netns add` does, which an ordinary user cannot use: it wants to go back to where it came from.
    ///
    /// # Errors
    /// What `unshare` says.
    pub fn create(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(NAMESPACES)?;
        let path = format!("{NAMESPACES}/{}", self.0);
        File::create_new(&path).with_context(|| format!("cannot make {path}"))?;
        let made = Command::new("unshare").args([&format!("--net={path}"), "--", "true"]).stdin(Stdio::null()).output();
        let made = made.context("cannot run unshare: install util-linux")?;
        if !made.status.success() {
            drop(std::fs::remove_file(&path)); // nothing is mounted there
            anyhow::bail!("cannot make network namespace {}: {}", self.0, String::from_utf8_lossy(&made.stderr).trim());
        }
        Ok(())
    }

    /// Runs lines of `ip -batch` in it.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn batch(&self, lines: &str) -> anyhow::Result<()> {
        ip(&["-n", &self.0, "-batch", "-"], lines)
    }

    /// Removes it; that it is gone already is no error.
    pub fn delete(&self) {
        drop(ip(&["netns", "del", &self.0], "")); // gone already, or nothing that could be done about it
    }

    /// Ids of the processes in it.
    pub fn processes(&self) -> Vec<u32> {
        let output = Command::new("ip").args(["netns", "pids", &self.0]).stderr(Stdio::null()).output();
        let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Runs `work` on a thread inside it; sockets made there stay there, wherever they are used.
    ///
    /// # Errors
    /// Where the namespace cannot be entered, or what `work` says.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let path = format!("{NAMESPACES}/{}", self.0);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let space = File::open(path)?;
                move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
                work()
            });
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
        })
    }

    /// A connection from inside it, ready for tokio.
    ///
    /// # Errors
    /// What connecting says.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        let namespace = self.clone();
        let connect = move || namespace.inside(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)));
        let stream = tokio::task::spawn_blocking(connect).await.map_err(io::Error::other)??;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        tokio::net::TcpStream::from_std(stream)
    }
}

/// Names of all namespaces that begin with `prefix`.
///
/// # Errors
/// Where `ip` cannot be run.
pub fn existing(prefix: &str) -> anyhow::Result<Vec<Namespace>> {
    let output = Command::new("ip").args(["netns", "list"]).output().context("cannot run ip: install iproute2")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| name.starts_with(prefix)).map(Namespace::named).collect())
}

fn ip(args: &[&str], input: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run ip: install iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "ip {}: {}", args.join(" "), said.trim());
    Ok(())
}
