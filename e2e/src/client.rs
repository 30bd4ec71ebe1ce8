//! Requests as raw text, so that they can be as odd as a test wants, and answers taken apart.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// First line and headers of a message, names in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Request or status line.
    pub first: String,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code; 0 where the line is no status line.
    pub status: u16,
    /// Status line and headers.
    pub head: Head,
    /// Body.
    pub body: String,
}

/// Reads a head; `None` at the end of the stream.
///
/// # Errors
/// What the system says.
pub fn read_head(reader: &mut impl BufRead) -> std::io::Result<Option<Head>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut lines = lines.into_iter();
    let first = lines.next().unwrap_or_default();
    let split = |line: String| {
        let (name, value) = line.split_once(':').map_or((line.as_str(), ""), |(n, v)| (n, v.trim()));
        (name.to_ascii_lowercase(), value.to_owned())
    };
    Ok(Some(Head { first, headers: lines.map(split).collect() }))
}

/// Sends `request` as it is and reads one answer by its own framing.
///
/// # Errors
/// Where nobody answers in time, or the answer breaks off.
pub fn exchange(address: SocketAddr, request: &str) -> std::io::Result<Answer> {
    converse(TcpStream::connect_timeout(&address, TIMEOUT)?, request)
}

/// The same from an address of one's own: all of 127.0.0.0/8 are this machine's.
///
/// # Errors
/// Where nobody answers in time, or the answer breaks off.
pub fn exchange_from(source: Ipv4Addr, address: SocketAddr, request: &str) -> std::io::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        tokio::time::timeout(TIMEOUT, socket.connect(address)).await?
    })?;
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    converse(stream, request)
}

fn converse(mut stream: TcpStream, request: &str) -> std::io::Result<Answer> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = if request.starts_with("HEAD ") || matches!(status, 204 | 304) {
        Vec::new()
    } else {
        read_body(&head, &mut reader)?
    };
    Ok(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// The same request over HTTP/2 with prior knowledge: its first line, headers and body are taken out of the text.
///
/// # Errors
/// Where the text is no request, or nobody answers in time.
pub fn exchange_h2(address: SocketAddr, request: &str) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(TIMEOUT, h2(address, request)).await? })
}

async fn h2(address: SocketAddr, request: &str) -> anyhow::Result<Answer> {
    let mut reader = request.as_bytes();
    let head = read_head(&mut reader)?.ok_or_else(|| anyhow::anyhow!("no request"))?;
    let chunked = head.header("transfer-encoding").is_some();
    let body =
        if head.header("content-length").is_some() || chunked { read_body(&head, &mut reader)? } else { Vec::new() };
    let mut line = head.first.split(' ');
    let (method, path) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
    let authority = head.header("host").unwrap_or_default();
    let mut asked = hyper::Request::builder().method(method).uri(format!("http://{authority}{path}"));
    for (name, value) in &head.headers {
        let of_connection = ["host", "connection", "transfer-encoding"].contains(&name.as_str());
        if !(of_connection || chunked && name == "content-length") {
            asked = asked.header(name, value);
        }
    }
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(async move { drop(connection.await) }); // its error is also that of the request
    let answer = sender.send_request(asked.body(Full::new(Bytes::from(body)))?).await?;
    let (head, body) = answer.into_parts();
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
    Ok(Answer { status: head.status.as_u16(), head: Head { first: String::new(), headers }, body })
}

/// Reads a body by the framing that `head` announces; to the end of the stream where it announces none.
///
/// # Errors
/// Where it breaks off.
pub fn read_body(head: &Head, reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(std::io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(body);
            }
            chunk.truncate(size);
            body.append(&mut chunk);
        }
    }
    match head.header("content-length").and_then(|text| text.parse().ok()) {
        Some(length) => {
            body.resize(length, 0);
            reader.read_exact(&mut body)?;
        }
        None => drop(reader.read_to_end(&mut body)?),
    }
    Ok(body)
}
