//! The application beside this proxy: its probes and its metrics.
//!
//! Probes of the kubelet cannot speak mutual TLS, so injection rewrites them to this process, which asks the application
//! over the loopback device, from an address that redirection leaves alone (spec HL-1).

use super::answer::{Answer, text};
use crate::bootstrap::Environment;
use crate::tls::Unverified;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::svid::provider;
use prost::Message;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

/// Probes by the path that injection gave them.
const PROBES_VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";
/// Where the application's own metrics are.
const METRICS_VARIABLE: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// Bytes of application metrics that are taken over.
const METRICS_MAX_BYTES: usize = 16 << 20;
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);

/// One probe of the application, as Kubernetes writes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpTarget>,
    grpc: Option<GrpcTarget>,
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
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

#[derive(Debug, Clone, Deserialize)]
struct TcpTarget {
    port: u16,
    host: Option<String>,
}

/// A server that speaks `grpc.health.v1.Health`.
#[derive(Debug, Clone, Deserialize)]
struct GrpcTarget {
    port: u16,
    service: Option<String>,
}

/// Where an application shows its metrics, as its pod's annotations say; all of it is text there.
#[derive(Debug, Clone, Deserialize)]
struct ScrapeTarget {
    scrape: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: String,
}

/// What the application is asked, from the environment.
#[derive(Debug, Clone, Default)]
pub struct Application {
    probes: BTreeMap<String, Probe>,
    metrics: Option<(u16, String)>,
}

impl Application {
    /// Reads the variables that injection sets.
    ///
    /// # Errors
    /// The variable that cannot be read.
    pub fn of(environment: &Environment) -> Result<Self, String> {
        let probes = match environment.get(PROBES_VARIABLE) {
            Some(json) => serde_json::from_str(json).map_err(|error| format!("{PROBES_VARIABLE}: {error}"))?,
            None => BTreeMap::new(),
        };
        let target: Option<ScrapeTarget> = match environment.get(METRICS_VARIABLE) {
            Some(json) => Some(serde_json::from_str(json).map_err(|error| format!("{METRICS_VARIABLE}: {error}"))?),
            None => None,
        };
        let metrics = match target.filter(|target| target.scrape == "true") {
            Some(target) => {
                let port = if target.port.is_empty() { "80" } else { &target.port };
                let port = port.parse().map_err(|_| format!("{METRICS_VARIABLE}: {port:?} is no port"))?;
                Some((port, if target.path.is_empty() { "/metrics".to_owned() } else { target.path }))
            }
            None => None,
        };
        Ok(Self { probes, metrics })
    }

    /// Asks what the probe of this path asks; `None` where there is none.
    pub(super) async fn probe(&self, path: &str) -> Option<Answer> {
        let probe = self.probes.get(path)?;
        let limit = Duration::from_secs(probe.timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or(1));
        Some(match tokio::time::timeout(limit, Box::pin(probe.ask())).await {
            Ok(Ok(status)) => text(status, ""),
            Ok(Err(why)) => text(500, format!("{why}\n")),
            Err(_) => text(500, format!("no answer within {limit:?}\n")),
        })
    }

    /// Adds the application's metrics to this proxy's own; where they cannot be had they are left out.
    pub(super) async fn add_metrics(&self, own: &mut String) {
        let Some((port, path)) = &self.metrics else { return };
        match scrape(*port, path).await {
            Ok(theirs) => own.push_str(&theirs),
            Err(why) => tracing::warn!(port, path, why, "metrics of the application are left out"),
        }
    }
}

async fn scrape(port: u16, path: &str) -> Result<String, String> {
    let get = HttpGet { path: Some(path.to_owned()), port, host: None, scheme: None, http_headers: Vec::new() };
    let (status, body) = tokio::time::timeout(METRICS_TIMEOUT, get.send())
        .await
        .map_err(|_| format!("no answer within {METRICS_TIMEOUT:?}"))??;
    if status != 200 {
        return Err(format!("status {status}"));
    }
    let mut text = String::from_utf8(body).map_err(|_| "the answer is not UTF-8".to_owned())?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

impl Probe {
    async fn ask(&self) -> Result<u16, String> {
        match (&self.http_get, &self.tcp_socket, &self.grpc) {
            (Some(get), _, _) => get.send().await.map(|(status, _)| status),
            (_, Some(target), _) => connect(target.host.as_deref(), target.port).await.map(|_| 200),
            (_, _, Some(target)) => target.check().await,
            _ => Err("a probe needs httpGet, tcpSocket or grpc".to_owned()),
        }
    }
}

impl HttpGet {
    async fn send(&self) -> Result<(u16, Vec<u8>), String> {
        let stream = connect(self.host.as_deref(), self.port).await?;
        if self.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
            let session = unverified(stream).await.map_err(|error| error.to_string())?;
            return Box::pin(self.exchange(session)).await;
        }
        Box::pin(self.exchange(stream)).await
    }

    async fn exchange(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(u16, Vec<u8>), String> {
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let request = self.request()?;
        let exchange = async move {
            let answer = client.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), METRICS_MAX_BYTES).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes().to_vec()))
        };
        tokio::pin!(connection);
        tokio::pin!(exchange);
        tokio::select! {
            done = &mut exchange => done,
            _ = &mut connection => exchange.await,
        }
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, String> {
        let path = self.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut request = Request::get(path).header("host", format!("localhost:{}", self.port));
        for header in &self.http_headers {
            if header.name.eq_ignore_ascii_case("host") {
                request.headers_mut().map(|headers| headers.remove("host"));
            }
            request = request.header(&header.name, &header.value);
        }
        request.header("connection", "close").body(Empty::new()).map_err(|error| error.to_string())
    }
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `HealthCheckResponse.ServingStatus.SERVING`
const SERVING: i32 = 1;

impl GrpcTarget {
    async fn check(&self) -> Result<u16, String> {
        let stream = connect(None, self.port).await?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut client, connection) = handshake.map_err(|error| error.to_string())?;
        let asked = HealthCheckRequest { service: self.service.clone().unwrap_or_default() }.encode_to_vec();
        let mut frame = BytesMut::from(&[0][..]);
        frame.put_u32(u32::try_from(asked.len()).map_err(|error| error.to_string())?);
        frame.extend_from_slice(&asked);
        let request = Request::post(format!("http://localhost:{}/grpc.health.v1.Health/Check", self.port))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame.freeze()))
            .map_err(|error| error.to_string())?;
        let exchange = async move {
            let answer = client.send_request(request).await.map_err(|error| error.to_string())?;
            let body = Limited::new(answer.into_body(), METRICS_MAX_BYTES).collect().await;
            Ok::<_, String>(body.map_err(|error| error.to_string())?.to_bytes())
        };
        let body = tokio::select! {
            done = exchange => done?,
            _ = connection => return Err("the connection ended before the answer".to_owned()),
        };
        let message = body.get(5..).unwrap_or_default();
        let answer = HealthCheckResponse::decode(message).map_err(|error| error.to_string())?;
        if answer.status == SERVING { Ok(200) } else { Err(format!("status {}, not SERVING", answer.status)) }
    }
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

/// Connects to the application on this machine, from the address that redirection leaves alone (PT-13).
async fn connect(host: Option<&str>, port: u16) -> Result<TcpStream, String> {
    let target: IpAddr = match host.filter(|host| !host.is_empty() && *host != "localhost") {
        Some(host) => host.parse().map_err(|_| format!("not supported yet: host {host}"))?,
        None => Ipv4Addr::LOCALHOST.into(),
    };
    let address = SocketAddr::new(target, port);
    let connected = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if target.is_ipv4() {
            socket.bind(SocketAddr::new(Ipv4Addr::new(127, 0, 0, 6).into(), 0))?;
        }
        socket.connect(address).await
    };
    connected.await.map_err(|error: io::Error| format!("{address}: {error}"))
}
