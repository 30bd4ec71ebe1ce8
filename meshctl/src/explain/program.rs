//! Running `proxy explain`: without a shell, with bounded output and time; it opens no socket.

use super::story::Story;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// How long the program may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest output that is read.
const MAX_OUTPUT_BYTES: u64 = 8 << 20;

/// The program `proxy`.
#[derive(Debug, Clone)]
pub struct Program(PathBuf);

impl Program {
    /// The program at this path; the one beside meshctl where none is given.
    ///
    /// # Errors
    /// Where there is none.
    pub fn find(path: Option<&Path>) -> anyhow::Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => std::env::current_exe()?.parent().context("meshctl is in no directory")?.join("proxy"),
        };
        anyhow::ensure!(
            path.is_file(),
            "the program proxy is not at {}: build it with cargo build -p proxy, or name it with --proxy PATH",
            path.display()
        );
        Ok(Self(path))
    }

    /// What becomes of a request in this configuration; `arguments` are those of `proxy explain`.
    ///
    /// # Errors
    /// What the program says.
    pub async fn explain(&self, dump: &[u8], arguments: &[String]) -> anyhow::Result<Story> {
        let run = self.run(dump, arguments);
        let text = tokio::time::timeout(TIMEOUT, run).await.context("proxy explain gave no answer within 30 s")??;
        serde_json::from_slice(&text).context("what proxy explain says is no JSON: is it of the same version?")
    }

    async fn run(&self, dump: &[u8], arguments: &[String]) -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new(&self.0);
        command.args(["explain", "--config-dump=-", "--output=json"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot run {}", self.0.display()))?;
        let mut input = child.stdin.take().context("proxy explain has no input")?;
        let mut output = child.stdout.take().context("proxy explain has no output")?.take(MAX_OUTPUT_BYTES);
        let mut complaint = child.stderr.take().context("proxy explain has no output")?.take(MAX_OUTPUT_BYTES);
        let (mut text, mut said) = (Vec::new(), Vec::new());
        let write = async move {
            // A program that ends early has said why.
            let _ended = input.write_all(dump).await.is_err();
        };
        let ((), read, heard) = tokio::join!(write, output.read_to_end(&mut text), complaint.read_to_end(&mut said));
        read.and(heard).context("proxy explain")?;
        let status = child.wait().await.context("proxy explain")?;
        let said = String::from_utf8_lossy(&said);
        let said = said.trim().trim_start_matches("error: ").trim_start_matches("Error: ");
        anyhow::ensure!(status.success(), "{said}");
        Ok(text)
    }
}
