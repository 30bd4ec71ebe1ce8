//! gRPC over the general client: health checks (grpc.health.v1), Fortio's ping, and any unary method. Messages are few
//! and small, so that they are framed here and need no generated stubs.

use super::dial::Dialer;
use super::h2::{Body, Link, Version2};
use super::record::{Answer, Code};
use super::watchdog::Watchdog;
use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::{GzDecoder, GzEncoder};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use prost::Message;
use std::borrow::Cow;
use std::io::{Error, Result, Write};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Port of Fortio's gRPC server, taken where the destination names none.
pub const DEFAULT_PORT: u16 = 8079;
/// Path of the ping.
pub const PING: &str = "/fgrpc.PingServer/Ping";
/// Path of the health check.
pub const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// Largest message that is taken, in bytes.
const MAX_MESSAGE: usize = 64 << 20;

/// `fgrpc.PingMessage`.
#[derive(Clone, PartialEq, Message)]
pub struct PingMessage {
    /// Number of the ping.
    #[prost(int64, tag = "1")]
    pub seq: i64,
    /// When it was sent, or received at the server; nanoseconds since 1970.
    #[prost(int64, tag = "2")]
    pub ts: i64,
    /// Comes back as it was sent.
    #[prost(string, tag = "3")]
    pub payload: String,
    /// How long the server shall wait.
    #[prost(int64, tag = "4")]
    pub delay_nanos: i64,
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HealthRequest {
    /// Service asked for; the server itself where it is empty.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HealthResponse {
    /// See [`HEALTH_NAMES`].
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// Names of the health statuses, by their numbers.
pub const HEALTH_NAMES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// What the health status is called.
pub fn health_name(status: i32) -> &'static str {
    usize::try_from(status).ok().and_then(|status| HEALTH_NAMES.get(status)).copied().unwrap_or("UNKNOWN")
}

/// What is called.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// A health check of this service.
    Health(String),
    /// A ping.
    Ping(PingMessage),
    /// A unary method by its path, with an encoded message.
    Method {
        /// `/package.Service/Method`.
        path: String,
        /// The message.
        message: Bytes,
    },
}

/// What every request carries.
#[derive(Debug, Clone)]
pub struct Channel {
    /// `http://host:port`, or `https://…`; the authority of the requests.
    pub origin: String,
    /// Metadata.
    pub metadata: HeaderMap,
    /// Whether messages are compressed by gzip.
    pub compress: bool,
    /// Time for each answer.
    pub timeout: Duration,
}

impl Channel {
    /// Metadata of headers as they are written on a command line. `host` becomes the authority.
    ///
    /// # Errors
    /// Where one is no header.
    pub fn metadata(headers: &[(String, String)]) -> anyhow::Result<HeaderMap> {
        let mut metadata = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())?;
            if !matches!(name.as_str(), "content-length" | "content-type" | "host") {
                metadata.append(name, HeaderValue::from_str(value)?);
            }
        }
        Ok(metadata)
    }
}

/// One stream; several may share a connection.
#[derive(Debug)]
pub struct GrpcClient {
    /// The connection.
    pub link: Rc<Mutex<Link>>,
    /// Whether this is the first stream of its connection, which answers for it in reports.
    pub is_first: bool,
    channel: Channel,
    call: Call,
    /// The request of the call, made once.
    template: Option<Template>,
    watchdog: Watchdog,
}

/// A request that is sent again and again.
#[derive(Debug, Clone)]
struct Template {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Template {
    fn request(&self) -> Request<Body> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl GrpcClient {
    /// The first stream of a connection.
    pub fn new(channel: Channel, call: Call, dialer: Dialer) -> Self {
        let link = Rc::new(Mutex::new(Link::new(dialer, Version2::Wanted)));
        Self { link, is_first: true, channel, call, template: None, watchdog: Watchdog::default() }
    }

    /// Another stream of the same connection.
    pub fn sibling(&self) -> Self {
        Self {
            link: Rc::clone(&self.link),
            is_first: false,
            channel: self.channel.clone(),
            call: self.call.clone(),
            template: None,
            watchdog: Watchdog::default(),
        }
    }

    /// One call of what this client was made for.
    ///
    /// # Errors
    /// Where there is no answer, or the server says that it failed.
    pub async fn call(&mut self) -> Result<Answer> {
        let template = match self.template.take() {
            Some(template) => template,
            None => self.channel.template(self.call.path(), &self.call.message())?,
        };
        let request = template.request();
        self.template = Some(template);
        let answer = self.ask(request).await?;
        let name = match &self.call {
            Call::Health(_) => health_name(decoded::<HealthResponse>(HEALTH, &answer)?.status),
            Call::Ping(_) | Call::Method { .. } => "SERVING",
        };
        let size = answer.len() as u64;
        let good = name == "SERVING";
        Ok(Answer { code: Code::Named(Cow::Borrowed(name)), good, size, head_size: 0 })
    }

    /// A unary call. Gives back the message and its size in bytes.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn unary<Q: Message, R: Message + Default>(&mut self, path: &str, question: &Q) -> Result<(R, u64)> {
        let request = self.channel.template(path, &question.encode_to_vec())?.request();
        let answer = self.ask(request).await?;
        Ok((decoded(path, &answer)?, answer.len() as u64))
    }

    async fn ask(&mut self, request: Request<Body>) -> Result<Bytes> {
        self.watchdog.start(self.channel.timeout);
        let link = Rc::clone(&self.link);
        self.watchdog.guard(async move { exchange(&link, request).await }).await
    }
}

fn decoded<R: Message + Default>(path: &str, answer: &Bytes) -> Result<R> {
    R::decode(answer.as_ref()).map_err(|error| Error::other(format!("{path}: {error}")))
}

impl Call {
    fn path(&self) -> &str {
        match self {
            Self::Health(_) => HEALTH,
            Self::Ping(_) => PING,
            Self::Method { path, .. } => path,
        }
    }

    fn message(&self) -> Vec<u8> {
        match self {
            Self::Health(service) => HealthRequest { service: service.clone() }.encode_to_vec(),
            Self::Ping(message) => message.encode_to_vec(),
            Self::Method { message, .. } => message.to_vec(),
        }
    }
}

impl Channel {
    fn template(&self, path: &str, message: &[u8]) -> Result<Template> {
        let uri = format!("{}{path}", self.origin).parse().map_err(Error::other)?;
        let mut headers = self.metadata.clone();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        if self.compress {
            headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
            headers.insert("grpc-accept-encoding", HeaderValue::from_static("gzip"));
        }
        Ok(Template { uri, headers, body: frame(message, self.compress)? })
    }
}

/// A message in its frame: a flag, four bytes of length, the bytes.
///
/// # Errors
/// Where it is larger than a frame can be.
pub fn frame(message: &[u8], compress: bool) -> Result<Bytes> {
    let packed = if compress {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(message)?;
        Cow::Owned(encoder.finish()?)
    } else {
        Cow::Borrowed(message)
    };
    let length = u32::try_from(packed.len()).map_err(|_| Error::other("a message exceeds 4 GB"))?;
    let mut framed = BytesMut::with_capacity(packed.len() + 5);
    framed.put_u8(u8::from(compress));
    framed.put_u32(length);
    framed.put_slice(&packed);
    Ok(framed.freeze())
}

/// The message of the first frame.
///
/// # Errors
/// Where the bytes are no whole frame.
pub fn unframe(framed: &Bytes) -> Result<Bytes> {
    let cut = || Error::other("the message is cut off");
    let (flag, length) = match *framed.get(..5).ok_or_else(cut)? {
        [flag, a, b, c, d] => (flag, u32::from_be_bytes([a, b, c, d]) as usize),
        _ => return Err(cut()),
    };
    let packed = framed.get(5..5 + length).ok_or_else(cut)?;
    if flag == 0 {
        return Ok(framed.slice_ref(packed));
    }
    let mut decoder = GzDecoder::new(Bounded(Vec::new()));
    decoder.write_all(packed)?;
    Ok(decoder.finish()?.0.into())
}

/// Bytes, up to the largest message.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.0.len() + bytes.len() > MAX_MESSAGE {
            return Err(Error::other(format!("the message exceeds {MAX_MESSAGE} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

async fn exchange(link: &Mutex<Link>, request: Request<Body>) -> Result<Bytes> {
    let mut sender = link.lock().await.handle().await?;
    sender.ready().await.map_err(Error::other)?;
    let (parts, body) = sender.send_request(request).await.map_err(Error::other)?.into_parts();
    if !parts.status.is_success() {
        return Err(Error::other(format!("the server answered {} instead of gRPC", parts.status)));
    }
    check_status(&parts.headers)?; // an answer without a body has its status there
    let collected = Limited::new(body, MAX_MESSAGE).collect().await.map_err(Error::other)?;
    if let Some(trailers) = collected.trailers() {
        check_status(trailers)?;
    }
    unframe(&collected.to_bytes())
}

fn check_status(headers: &HeaderMap) -> Result<()> {
    let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match text("grpc-status") {
        Some(status) if status != "0" => {
            Err(Error::other(format!("gRPC status {status}: {}", text("grpc-message").unwrap_or_default())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: FO-22
    #[test]
    fn frames_hold_messages_plain_and_compressed() {
        for compress in [false, true] {
            let framed = frame(b"hello hello hello", compress).unwrap();
            assert_eq!(framed[0], u8::from(compress));
            assert_eq!(unframe(&framed).unwrap(), b"hello hello hello".as_slice());
            assert!(unframe(&framed.slice(..framed.len() - 1)).is_err());
        }
        assert!(unframe(&Bytes::from_static(&[0, 0])).is_err());
    }
}
