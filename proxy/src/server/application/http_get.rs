//! `httpGet`: a request as the kubelet makes it, with its headers and its redirects (spec HL-1).

use super::destination::Destination;
use crate::tls::Unverified;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use identity::svid::provider;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes of an answer of the application that are taken over.
pub(super) const MAX_BYTES: usize = 16 << 20;
/// Bytes of an answer to a probe that are taken over, as the kubelet reads them.
const PROBE_BYTES: usize = 10 << 10;
/// Requests that a probe makes at most where it is led on, as the kubelet.
const MAX_REQUESTS: usize = 10;
/// Status codes of redirects that are followed.
const FOLLOWED: [u16; 5] = [301, 302, 303, 307, 308];
/// Headers of the kubelet's request that are its connection's own, and those that the request to the application has of
/// its own.
const NOT_FORWARDED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A probe by HTTP, as Kubernetes writes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpGet {
    path: Option<String>,
    port: u16,
    host: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Debug, Clone, Deserialize)]
struct Header {
    name: String,
    value: String,
}

/// What of an answer is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// The first bytes: nobody reads more of the answer to a probe.
    Start,
    /// All of it, up to [`MAX_BYTES`].
    Whole,
}

/// What the application answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    location: Option<String>,
    pub(super) body: Bytes,
}

impl Reply {
    /// Of a probe that has no answer of its own.
    pub(super) fn healthy() -> Self {
        Self { status: 200, location: None, body: Bytes::new() }
    }
}

impl HttpGet {
    /// A request by HTTP without more.
    pub(super) fn new(port: u16, path: &str) -> Self {
        Self { path: Some(path.to_owned()), port, host: None, scheme: None, http_headers: Vec::new() }
    }

    /// Asks with the headers of an incoming request, and follows redirects to the same host.
    pub(super) async fn send(
        &self,
        destination: &Destination,
        incoming: &HeaderMap,
        taken: Taken,
    ) -> Result<Reply, String> {
        let mut headers = self.headers(incoming).map_err(|error| error.to_string())?;
        let mut target = self.target(destination, headers.remove(HOST))?;
        for _ in 0..MAX_REQUESTS {
            let reply = Box::pin(target.get(&headers, taken)).await?;
            match reply.location.as_deref().and_then(|location| target.redirected(location)) {
                Some(next) => target = next,
                None => return Ok(reply),
            }
        }
        Err(format!("stopped after {MAX_REQUESTS} redirects"))
    }

    fn target(&self, destination: &Destination, host: Option<HeaderValue>) -> Result<Target, String> {
        let destination = destination.or(self.host.as_deref())?;
        let path = self.path.as_deref().unwrap_or_default();
        let default = || HeaderValue::try_from(destination.authority(self.port)).map_err(|error| error.to_string());
        Ok(Target {
            is_https: self.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            port: self.port,
            host: host.map_or_else(default, Ok)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            destination,
        })
    }

    /// Headers of the request: those of the incoming one, and in place of those of the same name the probe's own.
    fn headers(&self, incoming: &HeaderMap) -> Result<HeaderMap, http::Error> {
        let mut headers = incoming.clone();
        let of_connection = incoming.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        for name in of_connection.flat_map(|names| names.split(',')).chain(NOT_FORWARDED) {
            headers.remove(name.trim());
        }
        // Anybody reaches this port, and only a proxy may say these to the application.
        let of_proxies = |name: &HeaderName| {
            let name = name.as_str();
            name == "x-forwarded-client-cert" || name.starts_with("x-envoy-") || name.starts_with("x-ferromesh-")
        };
        for name in incoming.keys().filter(|name| of_proxies(name)) {
            headers.remove(name);
        }
        let mut own = HeaderMap::new();
        for header in &self.http_headers {
            own.append(HeaderName::try_from(&header.name)?, HeaderValue::try_from(&header.value)?);
        }
        headers.extend(own);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(headers)
    }
}

/// Where one request goes.
#[derive(Debug, Clone)]
struct Target {
    destination: Destination,
    is_https: bool,
    port: u16,
    host: HeaderValue,
    path: String,
}

impl Target {
    async fn get(&self, headers: &HeaderMap, taken: Taken) -> Result<Reply, String> {
        let mut request = Request::get(&self.path).body(Empty::new()).map_err(|error| error.to_string())?;
        *request.headers_mut() = headers.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        let stream = self.destination.connect(self.port).await?;
        if self.is_https {
            let session = unverified(stream).await.map_err(|error| error.to_string())?;
            return Box::pin(exchange(session, request, taken)).await;
        }
        Box::pin(exchange(stream, request, taken)).await
    }

    /// Where a `Location` leads, if that is the same host.
    fn redirected(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        let scheme = if self.is_https { "https:" } else { "http:" };
        let absolute = if location.starts_with("//") { format!("{scheme}{location}") } else { location.to_owned() };
        let Some(uri) = absolute.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some()) else {
            return Some(Self { path: self.relative(location), ..self.clone() });
        };
        let authority = uri.authority().filter(|to| to.host().eq_ignore_ascii_case(&self.destination.name))?;
        let (is_https, default_port) = match uri.scheme_str()? {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return None,
        };
        let port = authority.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(Self {
            destination: self.destination.clone(),
            is_https,
            port: authority.port_u16().unwrap_or(default_port),
            host: HeaderValue::try_from(format!("{}{port}", authority.host())).ok()?,
            path: uri.path_and_query()?.to_string(),
        })
    }

    /// A path that stands for itself, or goes on from this one.
    fn relative(&self, path: &str) -> String {
        let own = self.path.split('?').next().unwrap_or_default();
        match path.chars().next() {
            Some('/') => path.to_owned(),
            Some('?') => format!("{own}{path}"),
            _ => format!("{}/{path}", own.rsplit_once('/').map_or("", |(directory, _)| directory)),
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
    taken: Taken,
) -> Result<Reply, String> {
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let exchange = async move {
        let answer = client.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let location = answer.headers().get(LOCATION).filter(|_| FOLLOWED.contains(&status));
        let location = location.and_then(|location| location.to_str().ok()).map(str::to_owned);
        let body = match taken {
            Taken::Start => start_of(answer.into_body()).await?,
            Taken::Whole => {
                let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
                body.map_err(|error| error.to_string())?.to_bytes()
            }
        };
        Ok(Reply { status, location, body })
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        done = &mut exchange => done,
        _ = &mut connection => exchange.await,
    }
}

async fn start_of(mut body: Incoming) -> Result<Bytes, String> {
    let mut start = BytesMut::new();
    while start.len() < PROBE_BYTES
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| error.to_string())?;
        start.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    start.truncate(PROBE_BYTES);
    Ok(start.freeze())
}

/// TLS as the kubelet speaks it: no certificate is looked at.
async fn unverified(stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Unpin> {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified)).with_no_client_auth();
    config.enable_sni = false;
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}
