//! gRPC clients and servers by other people's code (grpcio from PyPI) that speak xDS themselves.

use crate::python_ads::python;
use anyhow::Context;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running client or server. Dropping it ends it.
#[derive(Debug)]
pub struct GrpcPeer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl GrpcPeer {
    fn start(arguments: &[&str], bootstrap: Option<&Path>) -> anyhow::Result<Self> {
        let mut command = Command::new(python()?);
        command.arg(crate::root().join("e2e/python/grpc_peer.py")).args(arguments);
        if let Some(path) = bootstrap {
            command.env("GRPC_XDS_BOOTSTRAP", path);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take().context("no input")?, child.stdout.take().context("no output")?);
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// A server that answers with its name; returns its port too.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn serve(name: &str) -> anyhow::Result<(Self, u16)> {
        let mut peer = Self::start(&["serve", name], None)?;
        let port = peer.port()?;
        Ok((peer, port))
    }

    /// The same as an xDS server at an address: it serves once its listener has come.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn serve_by_xds(name: &str, address: &str, bootstrap: &Path) -> anyhow::Result<Self> {
        let mut peer = Self::start(&["serve", name, address], Some(bootstrap))?;
        peer.port()?;
        Ok(peer)
    }

    /// A client.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn client(bootstrap: &Path) -> anyhow::Result<Self> {
        Self::start(&["call"], Some(bootstrap))
    }

    /// Does what a line says, and returns what it gave: `{"answers": {...}, "errors": {...}}`.
    ///
    /// # Errors
    /// Where the client has ended.
    pub fn call(&mut self, asked: &Value) -> anyhow::Result<Value> {
        writeln!(self.input, "{asked}")?;
        self.event()
    }

    fn port(&mut self) -> anyhow::Result<u16> {
        Ok(u16::try_from(self.event()?["port"].as_u64().context("no port")?)?)
    }

    fn event(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the peer said {line:?}"))
    }
}

impl Drop for GrpcPeer {
    fn drop(&mut self) {
        drop(self.child.kill()); // has ended already
        drop(self.child.wait());
    }
}
