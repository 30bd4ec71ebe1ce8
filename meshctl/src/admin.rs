//! Reading a proxy: its admin address, its Unix socket, a workload of a demo, or a dump file.

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const MAX_BYTES: usize = 256 << 20;

/// Which proxy to read.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Workload of the demo, such as reviews-v1.
    workload: Option<String>,
    /// Demo that the workload belongs to.
    #[arg(long, default_value = "demo", value_name = "NAME")]
    demo: String,
    /// Admin address of a proxy: host:port, or unix:/path.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "workload")]
    admin: Option<String>,
    /// Port of the admin interface on 127.0.0.1.
    #[arg(long, value_name = "PORT", conflicts_with_all = ["workload", "admin"])]
    proxy_admin_port: Option<u16>,
    /// Saved config dump (or /clusters dump) to read instead of a proxy.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["workload", "admin", "proxy_admin_port"])]
    file: Option<PathBuf>,
}

/// Where answers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Tcp(String),
    Unix(PathBuf),
    File(PathBuf),
}

impl Target {
    fn source(&self) -> anyhow::Result<Source> {
        if let Some(path) = &self.file {
            return Ok(Source::File(path.clone()));
        }
        if let Some(workload) = &self.workload {
            let directory = crate::demo::proxy_directory(&self.demo, workload)?;
            return Ok(Source::Unix(directory.join(crate::demo::ADMIN_SOCKET)));
        }
        Ok(match (&self.admin, self.proxy_admin_port) {
            (Some(address), _) => match address.strip_prefix("unix:") {
                Some(path) => Source::Unix(path.into()),
                None => Source::Tcp(address.clone()),
            },
            (None, port) => Source::Tcp(format!("127.0.0.1:{}", port.unwrap_or(proto::wire::PORT_ADMIN))),
        })
    }

    /// The JSON behind an admin path; of a dump file its content, whatever the path is.
    ///
    /// # Errors
    /// Where nobody answers, or the answer is no JSON.
    pub async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let (name, bytes) = match self.source()? {
            Source::File(file) => {
                let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                (file.display().to_string(), Bytes::from(bytes))
            }
            Source::Tcp(address) => {
                let stream = tokio::net::TcpStream::connect(&address).await.with_context(|| {
                    format!("no proxy answers at {address}: name one with --admin, --file, or a workload of a demo")
                })?;
                (address, get(stream, path).await?)
            }
            Source::Unix(socket) => {
                let stream = tokio::net::UnixStream::connect(&socket).await.with_context(|| {
                    format!("no proxy answers at {}: is the demo running, and are you root?", socket.display())
                })?;
                (socket.display().to_string(), get(stream, path).await?)
            }
        };
        serde_json::from_slice(&bytes).with_context(|| format!("what {name} gives for {path} is no JSON"))
    }
}

/// One GET over a stream; the body of a 2xx answer.
///
/// # Errors
/// Where the exchange fails or the answer has another status.
pub async fn get<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, path: &str) -> anyhow::Result<Bytes> {
    let exchange = async {
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            drop(connection.await); // its error is also that of the request
        });
        let request = Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new())?;
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BYTES).collect().await.map_err(|e| anyhow::anyhow!(e))?.to_bytes();
        anyhow::ensure!(
            head.status.is_success(),
            "{path}: status {}: {}",
            head.status.as_u16(),
            String::from_utf8_lossy(&body).trim()
        );
        Ok(body)
    };
    tokio::time::timeout(TIMEOUT, exchange).await.with_context(|| format!("{path}: no answer within 30 s"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        target: Target,
    }

    fn source(flags: &[&str]) -> Source {
        Flags::parse_from(std::iter::once(&"x").chain(flags)).target.source().unwrap()
    }

    #[test]
    fn a_target_is_an_address_a_socket_a_workload_or_a_file() {
        assert_eq!(source(&[]), Source::Tcp("127.0.0.1:15000".into()));
        assert_eq!(source(&["--proxy-admin-port", "1"]), Source::Tcp("127.0.0.1:1".into()));
        assert_eq!(source(&["--admin", "unix:/x"]), Source::Unix("/x".into()));
        assert_eq!(source(&["-f", "d.json"]), Source::File("d.json".into()));
        let socket = "/run/ferromesh/other/workload/reviews-v1/admin.sock";
        assert_eq!(source(&["reviews-v1", "--demo", "other"]), Source::Unix(socket.into()));
    }
}
