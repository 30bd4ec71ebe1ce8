//! The taps of several proxies as one.

use super::request::Request;
use crate::reach::{Pod, Reach};
use anyhow::Context;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long a proxy may take to open its tap.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of all proxies that may wait here: what is more waits in the proxies, which count what they leave out.
const MAX_WAITING: usize = 256;
/// Longest line that is read.
const MAX_LINE_BYTES: usize = 256 << 10;
/// Longest complaint that is read.
const MAX_COMPLAINT_BYTES: usize = 4096;

/// Where a proxy answers.
#[derive(Debug, Clone)]
pub enum Admin {
    /// That of a pod of a demo or of a cluster.
    Of(Reach, Pod),
    /// `HOST:PORT` or `unix:/path`.
    At(String),
}

/// Why a proxy shows nothing.
#[derive(Debug)]
pub enum Refused {
    /// It is no proxy of ours.
    Envoy,
    /// Something else.
    Other(anyhow::Error),
}

/// What a proxy tells.
#[derive(Debug)]
pub enum Told {
    /// A request: which proxy, its line as it is, and what that says.
    Request(String, Value, Box<Request>),
    /// What this proxy has left out so far: beyond the cap, and because it was not read in time.
    LeftOut(String, (u64, u64)),
    /// This proxy shows no more.
    Ended(String),
}

/// Open taps.
#[derive(Debug)]
pub struct Stream {
    told: mpsc::Receiver<Told>,
    cap: Cap,
    left_out: BTreeMap<String, (u64, u64)>,
    ended: Vec<String>,
    /// Workloads (and their namespaces) whose proxies show requests here.
    workloads: BTreeSet<(String, String)>,
}

/// So many per second, of all proxies together.
#[derive(Debug)]
struct Cap {
    per_second: u32,
    since: Instant,
    taken: u32,
    left_out: u64,
}

impl Cap {
    fn take(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.taken) = (now, 0);
        }
        let fits = self.taken < self.per_second;
        if fits {
            self.taken += 1;
        } else {
            self.left_out += 1;
        }
        fits
    }
}

impl Admin {
    /// Its name in what is shown.
    pub fn name(&self) -> String {
        match self {
            Self::Of(_, pod) => pod.id(),
            Self::At(address) => address.clone(),
        }
    }

    async fn open(&self, path: &str) -> Result<Incoming, Refused> {
        let unreachable =
            |what: String| move |error: std::io::Error| anyhow::anyhow!("no proxy answers at {what}: {error}");
        match self {
            Self::Of(reach, pod) => ask(reach.proxy(pod).await.map_err(Refused::Other)?, path).await,
            Self::At(address) => match address.strip_prefix("unix:") {
                Some(socket) => {
                    let stream = UnixStream::connect(socket).await.map_err(unreachable(address.clone()));
                    ask(stream.map_err(Refused::Other)?, path).await
                }
                None => {
                    let stream = TcpStream::connect(address).await.map_err(unreachable(address.clone()));
                    ask(stream.map_err(Refused::Other)?, path).await
                }
            },
        }
    }
}

/// Opens a tap over a connection; the body of its answer.
async fn ask<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, path: &str) -> Result<Incoming, Refused> {
    let exchange = async {
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            drop(connection.await); // its error is also that of the body
        });
        let request = hyper::Request::get(path).header("host", "localhost").body(Empty::<Bytes>::new())?;
        anyhow::Ok(sender.send_request(request).await?)
    };
    let opened = timeout(OPEN_TIMEOUT, exchange).await.context("no answer within 10 s").flatten();
    let (head, body) = opened.map_err(Refused::Other)?.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    // Envoy has /tap where a filter serves it, by POST; else it does not know the path.
    if matches!(head.status.as_u16(), 404 | 405) {
        return Err(Refused::Envoy);
    }
    let complaint =
        Limited::new(body, MAX_COMPLAINT_BYTES).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Err(Refused::Other(anyhow::anyhow!("{}", String::from_utf8_lossy(&complaint).trim())))
}

impl Stream {
    /// Opens the taps of these proxies; what came of each that has none.
    pub async fn open(proxies: &[Admin], path: &str, max_rps: u32) -> (Self, Vec<(Admin, Refused)>) {
        let (to, told) = mpsc::channel(MAX_WAITING);
        let (mut refused, mut workloads) = (Vec::new(), BTreeSet::new());
        for proxy in proxies {
            match proxy.open(path).await {
                Ok(body) => {
                    tokio::spawn(follow(proxy.name(), body, to.clone()));
                    if let Admin::Of(_, pod) = proxy {
                        workloads.insert((pod.workload.clone(), pod.namespace.clone()));
                    }
                }
                Err(why) => refused.push((proxy.clone(), why)),
            }
        }
        let cap = Cap { per_second: max_rps, since: Instant::now(), taken: 0, left_out: 0 };
        (Self { told, cap, left_out: BTreeMap::new(), ended: Vec::new(), workloads }, refused)
    }

    /// The next request that is to be shown: its proxy, its line, and what that says. None when all taps have ended.
    pub async fn next(&mut self) -> Option<(String, Value, Box<Request>)> {
        loop {
            match self.told.recv().await? {
                Told::Request(proxy, line, request) if self.cap.take(Instant::now()) => {
                    return Some((proxy, line, request));
                }
                Told::Request(..) => {}
                Told::LeftOut(proxy, so_far) => drop(self.left_out.insert(proxy, so_far)),
                Told::Ended(proxy) => self.ended.push(proxy),
            }
        }
    }

    /// Whether the server's proxy shows this request here, too.
    pub fn shows_server_of(&self, request: &Request) -> bool {
        let known = |text: &Option<String>| text.clone().unwrap_or_default();
        request.direction == "outbound"
            && request.details.as_deref() == Some("via_upstream")
            && self.workloads.contains(&(known(&request.destination.workload), known(&request.destination.namespace)))
    }

    /// How many requests were not shown so far: beyond the cap, and because they were not read in time.
    pub fn left_out(&self) -> (u64, u64) {
        let sum = |(over, slow): (u64, u64), more: &(u64, u64)| (over + more.0, slow + more.1);
        self.left_out.values().fold((self.cap.left_out, 0), sum)
    }

    /// Proxies that show no more.
    pub fn ended(&self) -> &[String] {
        &self.ended
    }
}

/// Reads the lines of one proxy to their end.
async fn follow(proxy: String, mut body: Incoming, to: mpsc::Sender<Told>) {
    let mut text = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        while let Some(end) = memchr::memchr(b'\n', &text) {
            let line = text.split_to(end);
            text.advance(1);
            let Some(told) = read(&proxy, &line) else { continue };
            if to.send(told).await.is_err() {
                return;
            }
        }
        if text.len() > MAX_LINE_BYTES {
            break;
        }
    }
    drop(to.send(Told::Ended(proxy)).await); // nobody listens any more
}

/// A line; none where it is of no kind that is known.
fn read(proxy: &str, line: &[u8]) -> Option<Told> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let count = |name: &str| value[name].as_u64().unwrap_or_default();
    match value["event"].as_str()? {
        "leftOut" => Some(Told::LeftOut(proxy.to_owned(), (count("overCap"), count("slowReader")))),
        "request" | "open" => {
            let request = serde_json::from_value(value.clone()).ok()?;
            Some(Told::Request(proxy.to_owned(), value, Box::new(request)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A proxy's admin interface that answers each connection so, and then ends it.
    async fn answers(answer: &'static str) -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Admin::At(address.to_string())
    }

    // spec: CT-43
    #[tokio::test]
    async fn lines_of_several_proxies_become_one_stream_and_what_is_left_out_adds_up() {
        let one = answers(
            "HTTP/1.1 200 OK\r\n\r\n{\"event\":\"request\",\"path\":\"/a\",\"status\":200}\n\
             {\"event\":\"leftOut\",\"overCap\":5,\"slowReader\":1}\n{\"event\":\"leftOut\",\"overCap\":7,\"slowReader\":1}\n",
        );
        let other = answers("HTTP/1.1 200 OK\r\n\r\nno JSON\n{\"event\":\"request\",\"path\":\"/a\",\"status\":200}\n");
        let proxies = [one.await, other.await];
        let (mut stream, refused) = Stream::open(&proxies, "/tap", 1).await;
        assert!(refused.is_empty());
        let (_, line, request) = stream.next().await.unwrap();
        assert_eq!((request.path.as_str(), &line["status"]), ("/a", &200.into()));
        assert!(stream.next().await.is_none(), "one per second, of all proxies together");
        assert_eq!((stream.left_out(), stream.ended().len()), ((8, 1), 2));
    }

    // spec: CT-42
    #[tokio::test]
    async fn a_request_that_both_ends_show_is_known() {
        let (mut stream, _) = Stream::open(&[], "/tap", 1).await;
        stream.workloads.insert(("a".into(), "n".into()));
        let of = |direction: &str, workload: &str, details: &str| {
            let destination = serde_json::json!({"workload": workload, "namespace": "n"});
            let request = serde_json::json!({"direction": direction, "destination": destination, "details": details});
            stream.shows_server_of(&serde_json::from_value(request).unwrap())
        };
        assert!(of("outbound", "a", "via_upstream"));
        assert!(!of("inbound", "a", "via_upstream") && !of("outbound", "b", "via_upstream"));
        assert!(!of("outbound", "a", "upstream_reset_before_response_started"), "the server may not have seen it");
    }

    // spec: CT-43
    #[tokio::test]
    async fn an_envoy_is_told_apart_from_a_proxy_that_refuses() {
        let envoy = answers("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        let full = answers("HTTP/1.1 503 x\r\ncontent-length: 4\r\n\r\nfull").await;
        let (mut stream, refused) = Stream::open(&[envoy, full], "/tap", 1).await;
        assert!(stream.next().await.is_none());
        let whys: Vec<&Refused> = refused.iter().map(|(_, why)| why).collect();
        assert!(
            matches!(whys.as_slice(), [Refused::Envoy, Refused::Other(why)] if why.to_string() == "full"),
            "{whys:?}"
        );
    }
}
