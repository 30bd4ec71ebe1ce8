//! Reading a proxy: that of a pod or workload, its admin address, its Unix socket, or a dump file.

use crate::demo;
use crate::reach::{At, Reach, Stream, Wanted};
use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const MAX_BYTES: usize = 256 << 20;

/// Which proxy to read.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Whose proxy: a pod or workload, as reviews-v1-5d4f-x.default or deploy/reviews-v1; of a demo, a workload's name.
    workload: Option<Wanted>,
    #[command(flatten)]
    at: At,
    /// Namespace of a name without one.
    #[arg(short, long)]
    namespace: Option<String>,
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
    Workload(Wanted),
}

impl Target {
    /// The mesh that it is looked for in.
    pub fn at(&self) -> &At {
        &self.at
    }

    fn source(&self) -> Source {
        if let Some(path) = &self.file {
            return Source::File(path.clone());
        }
        if let Some(workload) = &self.workload {
            return Source::Workload(workload.clone());
        }
        match (&self.admin, self.proxy_admin_port) {
            (Some(address), _) => match address.strip_prefix("unix:") {
                Some(path) => Source::Unix(path.into()),
                None => Source::Tcp(address.clone()),
            },
            (None, port) => Source::Tcp(format!("127.0.0.1:{}", port.unwrap_or(proto::wire::PORT_ADMIN))),
        }
    }

    /// A page of the proxy's admin interface, with the name of who gave it; of a dump file its content, whatever the path is.
    ///
    /// # Errors
    /// Where nobody answers, or with another status than 2xx.
    pub async fn page(&self, method: Method, path: &str) -> anyhow::Result<(String, Bytes)> {
        let (name, stream): (String, Stream) = match self.source() {
            Source::File(file) => {
                let bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                return Ok((file.display().to_string(), Bytes::from(bytes)));
            }
            Source::Tcp(address) => {
                let stream = tokio::net::TcpStream::connect(&address).await.with_context(|| {
                    format!("no proxy answers at {address}: name a pod or workload, or give --admin or --file")
                })?;
                (address, Box::new(stream))
            }
            Source::Unix(socket) => {
                let stream = unix(&socket).await?;
                (socket.display().to_string(), stream)
            }
            Source::Workload(wanted) => self.workload(&wanted).await?,
        };
        let page = ask(stream, method, path).await.with_context(|| name.clone())?;
        Ok((name, page))
    }

    /// The proxy beside the first pod that is meant. That of a demo is found without pilot.
    async fn workload(&self, wanted: &Wanted) -> anyhow::Result<(String, Stream)> {
        let reach = self.at.reach().await;
        if let Reach::Demo(demo) = &reach {
            let directory = demo::proxy_directory(demo, wanted.bare())?;
            return Ok((wanted.bare().to_owned(), unix(&directory.join(demo::ADMIN_SOCKET)).await?));
        }
        let pods = reach.pods(wanted, self.namespace.as_deref()).await?;
        let pod = pods.first().context("no pod")?;
        Ok((pod.id(), reach.proxy(pod).await?))
    }

    /// The JSON behind an admin path; of a dump file its content, whatever the path is.
    ///
    /// # Errors
    /// Where nobody answers, or the answer is no JSON.
    pub async fn json(&self, path: &str) -> anyhow::Result<Value> {
        let (name, bytes) = self.page(Method::GET, path).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("what {name} gives for {path} is no JSON"))
    }
}

async fn unix(socket: &Path) -> anyhow::Result<Stream> {
    let stream = tokio::net::UnixStream::connect(socket).await;
    let unanswered = || format!("no proxy answers at {}: is the demo running, and are you root?", socket.display());
    Ok(Box::new(stream.with_context(unanswered)?))
}

/// One GET over a stream; the body of a 2xx answer.
///
/// # Errors
/// Where the exchange fails or the answer has another status.
pub async fn get<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, path: &str) -> anyhow::Result<Bytes> {
    ask(stream, Method::GET, path).await
}

/// The same with another method.
///
/// # Errors
/// As for `get`.
pub async fn ask<S>(stream: S, method: Method, path: &str) -> anyhow::Result<Bytes>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let exchange = async {
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            drop(connection.await); // its error is also that of the request
        });
        let request =
            Request::builder().method(method).uri(path).header("host", "localhost").body(Empty::<Bytes>::new())?;
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
        Flags::parse_from(std::iter::once(&"x").chain(flags)).target.source()
    }

    #[test]
    fn a_target_is_an_address_a_socket_a_workload_or_a_file() {
        assert_eq!(source(&[]), Source::Tcp("127.0.0.1:15000".into()));
        assert_eq!(source(&["--proxy-admin-port", "1"]), Source::Tcp("127.0.0.1:1".into()));
        assert_eq!(source(&["--admin", "unix:/x"]), Source::Unix("/x".into()));
        assert_eq!(source(&["-f", "d.json"]), Source::File("d.json".into()));
        assert_eq!(source(&["deploy/reviews-v1"]), Source::Workload("deploy/reviews-v1".parse().unwrap()));
    }
}
