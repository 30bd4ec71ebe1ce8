//! The application beside this proxy: its probes and its metrics.
//!
//! Probes of the kubelet cannot speak mutual TLS, so injection rewrites them to this process, which asks the application
//! where the kubelet would, from an address that redirection leaves alone (spec HL-1).

mod destination;
mod http_get;

use super::answer::{Answer, text};
use crate::bootstrap::Environment;
use bytes::{BufMut, BytesMut};
use destination::Destination;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full, Limited};
use http_get::{HttpGet, MAX_BYTES, Reply, Taken};
use hyper::Request;
use hyper::header::HeaderMap;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Probes by the path that injection gave them.
const PROBES_VARIABLE: &str = "ISTIO_KUBE_APP_PROBERS";
/// Where the application's own metrics are.
const METRICS_VARIABLE: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// Time for one target to show its metrics.
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);
/// Begin of the paths of hooks, which take as long as the pod's grace period lets them.
const HOOKS: &str = "/app-lifecycle/";

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

/// What the pod's annotations say of metrics; all of it is text, and any may be empty.
#[derive(Debug, Deserialize)]
struct Annotations {
    #[serde(default)]
    scrape: String,
    #[serde(flatten)]
    only: ScrapeTarget,
    /// Stand for the only one where there are any.
    #[serde(default)]
    targets: Vec<ScrapeTarget>,
}

#[derive(Debug, Deserialize)]
struct ScrapeTarget {
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: String,
}

/// What the application is asked, from the environment.
#[derive(Debug, Clone, Default)]
pub struct Application {
    probes: BTreeMap<String, Probe>,
    destination: Destination,
    /// Ports and paths.
    metrics: Vec<(u16, String)>,
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
        Ok(Self { probes, destination: Destination::of(environment)?, metrics: scrape_targets(environment)? })
    }

    /// Asks what the probe of this path asks, with the headers of who asks; `None` where there is none.
    pub(super) async fn probe(&self, path: &str, headers: &HeaderMap) -> Option<Answer> {
        let probe = self.probes.get(path)?;
        let asked = Box::pin(probe.ask(&self.destination, headers));
        let reply = if path.starts_with(HOOKS) {
            asked.await
        } else {
            let limit = Duration::from_secs(probe.timeout_seconds.filter(|seconds| *seconds > 0).unwrap_or(1));
            let in_time = tokio::time::timeout(limit, asked).await;
            in_time.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
        };
        Some(match reply {
            // It leads elsewhere, which the kubelet takes for a success; but not without a `Location`.
            Ok(reply) if (300..400).contains(&reply.status) => text(200, reply.body),
            Ok(reply) => text(reply.status, reply.body),
            Err(why) => text(500, format!("{why}\n")),
        })
    }

    /// Adds the application's metrics to this proxy's own; those that cannot be had are left out.
    pub(super) async fn add_metrics(&self, own: &mut String) {
        let scrapes = self.metrics.iter().map(|(port, path)| Box::pin(scrape(*port, path)));
        for ((port, path), theirs) in self.metrics.iter().zip(join_all(scrapes).await) {
            match theirs {
                Ok(theirs) => own.push_str(&theirs),
                Err(why) => tracing::warn!(port, path, why, "metrics of the application are left out"),
            }
        }
    }
}

/// Ports and paths of the application's metrics. Istio's agent asks unless it is told not to.
fn scrape_targets(environment: &Environment) -> Result<Vec<(u16, String)>, String> {
    let Some(json) = environment.get(METRICS_VARIABLE) else { return Ok(Vec::new()) };
    let told: Annotations = serde_json::from_str(json).map_err(|error| format!("{METRICS_VARIABLE}: {error}"))?;
    let targets = match told {
        Annotations { scrape, .. } if scrape == "false" => Vec::new(),
        Annotations { only, targets, .. } if targets.is_empty() => vec![only],
        Annotations { targets, .. } => targets,
    };
    let parsed = targets.into_iter().map(|ScrapeTarget { path, port }| {
        let port = if port.is_empty() { "80" } else { &port };
        let port = port.parse().map_err(|_| format!("{METRICS_VARIABLE}: {port:?} is no port"))?;
        Ok((port, if path.is_empty() { "/metrics".to_owned() } else { path }))
    });
    parsed.collect()
}

async fn scrape(port: u16, path: &str) -> Result<String, String> {
    let (get, destination, headers) = (HttpGet::new(port, path), Destination::default(), HeaderMap::new());
    let reply = tokio::time::timeout(METRICS_TIMEOUT, get.send(&destination, &headers, Taken::Whole))
        .await
        .map_err(|_| format!("no answer within {METRICS_TIMEOUT:?}"))??;
    if reply.status != 200 {
        return Err(format!("status {}", reply.status));
    }
    let text = std::str::from_utf8(&reply.body).map_err(|_| "the answer is not UTF-8".to_owned())?;
    Ok(whole_lines(text))
}

/// Metrics after which others can stand: OpenMetrics' mark of the end is left out.
fn whole_lines(text: &str) -> String {
    let text = text.trim_end();
    let text = text.strip_suffix("# EOF").filter(|before| before.is_empty() || before.ends_with('\n')).unwrap_or(text);
    let mut lines = text.trim_end().to_owned();
    if !lines.is_empty() {
        lines.push('\n');
    }
    lines
}

impl Probe {
    async fn ask(&self, destination: &Destination, headers: &HeaderMap) -> Result<Reply, String> {
        match (&self.http_get, &self.tcp_socket, &self.grpc) {
            (Some(get), _, _) => get.send(destination, headers, Taken::Start).await,
            (_, Some(target), _) => {
                destination.or(target.host.as_deref())?.connect(target.port).await.map(|_| Reply::healthy())
            }
            (_, _, Some(target)) => target.check(destination).await.map(|()| Reply::healthy()),
            _ => Err("a probe needs httpGet, tcpSocket or grpc".to_owned()),
        }
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
    async fn check(&self, destination: &Destination) -> Result<(), String> {
        let stream = destination.connect(self.port).await?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut client, connection) = handshake.map_err(|error| error.to_string())?;
        let asked = HealthCheckRequest { service: self.service.clone().unwrap_or_default() }.encode_to_vec();
        let mut frame = BytesMut::from(&[0][..]);
        frame.put_u32(u32::try_from(asked.len()).map_err(|error| error.to_string())?);
        frame.extend_from_slice(&asked);
        let authority = destination.authority(self.port);
        let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame.freeze()))
            .map_err(|error| error.to_string())?;
        let exchange = async move {
            let answer = client.send_request(request).await.map_err(|error| error.to_string())?;
            let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
            Ok::<_, String>(body.map_err(|error| error.to_string())?.to_bytes())
        };
        let body = tokio::select! {
            done = exchange => done?,
            _ = connection => return Err("the connection ended before the answer".to_owned()),
        };
        let message = body.get(5..).unwrap_or_default();
        let answer = HealthCheckResponse::decode(message).map_err(|error| error.to_string())?;
        if answer.status == SERVING { Ok(()) } else { Err(format!("status {}, not SERVING", answer.status)) }
    }
}

#[cfg(test)]
mod tests;
